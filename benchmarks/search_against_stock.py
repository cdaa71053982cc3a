"""The search of `keras_resblocks.tuner` against that of KerasTuner, on the same work in one run.

    python -m benchmarks.search_against_stock --backends tensorflow jax

Prints its tables and writes them to `benchmarks/results/search_<device>.md`. Each search has a
process of its own; the contenders take turns, and who begins changes from round to round.

**best**, on the first backend: the test accuracy of the best model, by validation accuracy, that
each contender finds on scikit-learn's digits in equal wall time, on all of the training images
and on 200 of them with all images moved by up to a pixel. The clock runs during `search` alone. An
alarm ends the search at once, and the best epoch of a trial that is cut off counts.

**overhead**, on each backend: the share of a search's wall time that is not in training steps, on
the same grid of candidates; of KerasTuner with a function that builds them of plain Keras layers,
and with our hypermodel, whose `fit` saves some of it by itself. Training steps are the time from
the begin of an epoch to that of its validation (no batch hooks, which slow Keras down); a trial's
first epoch, which compiles, counts as the median of its others. All else is overhead: building,
tracing and compiling, validation, checkpoints, files, giving memory back.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

from benchmarks import device, processes
from benchmarks.processes import in_turns
from benchmarks.tables import RESULTS, publish, slug, spread, table, versions

# By the names that `search_contenders` knows, those in the tables.
BEST = {
    "hyperresnet": "KerasTuner, HyperResNet",
    "stock": "KerasTuner, our space",
    "ours": "keras_resblocks, our space",
}
OVERHEAD = {
    "plain": "KerasTuner, plain Keras layers",
    "stock": "KerasTuner, our hypermodel",
    "ours": "keras_resblocks",
}
EPOCHS = {"all": 6, "few": 25}  # of a trial: few images take more of them
SETTINGS = {"all": "all training images", "few": "200 training images, shifted by up to a pixel"}


def alone(backend, function, *args):
    """What a function of `search_contenders` returns in a process of its own, on a backend."""
    return processes.alone(backend, _call, function, *args)


def _call(function, *args):
    from benchmarks import search_contenders  # and Keras, whose backend is chosen by then

    return getattr(search_contenders, function)(*args)


def best(setting, args):
    """The table of what the contenders find in equal time, and that of the differences."""
    found = {contender: {} for contender in BEST}
    epochs = args.epochs or EPOCHS[setting]
    for seed, contender in in_turns(tuple(BEST), args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = (contender, setting, seed, args.seconds, epochs, folder)
            found[contender][seed] = alone(args.backends[0], "best", *run)
        print(f"{setting}, seed {seed}, {contender}: {found[contender][seed]}", flush=True)
    columns = (
        "contender",
        "mean",
        "min",
        "max",
        "of each seed",
        "started",
        "trained",
        "parameters",
    )
    rows, accuracies = [], {}
    for contender, label in BEST.items():
        runs = [found[contender][seed] for seed in range(args.seeds)]
        accuracies[contender] = [run["accuracy"] for run in runs]
        each = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies[contender])
        medians = [f"{statistics.median(run[k] for run in runs):,.0f}" for k in columns[-3:]]
        rows.append((label, *spread(accuracies[contender]), each, *medians))
    differences = []
    for other in ("hyperresnet", "stock"):
        pairs = [a - b for a, b in zip(accuracies["ours"], accuracies[other])]
        wins = f"{sum(d > 0 for d in pairs)} / {pairs.count(0)} / {sum(d < 0 for d in pairs)}"
        differences.append((f"{BEST['ours']} - {BEST[other]}", *spread(pairs, "+.4f"), wins))
    return [
        f"## Best model within {args.seconds:g} s: {SETTINGS[setting]}",
        f"Test accuracy over {args.seeds} seeds, each a split and a search of its own; trials "
        f"({epochs} epochs each) started, those that finished an epoch, and the best model's "
        f"parameters in the median. Backend: {args.backends[0]}.",
        table(columns, rows),
        "Differences, seed by seed:",
        table(("difference", "mean", "min", "max", "better / equal / worse"), differences),
    ]


def overhead(backend, args):
    """The table of the shares of the search that are not in training steps."""
    found = {contender: [] for contender in OVERHEAD}
    for i, contender in in_turns(tuple(OVERHEAD), args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            work = (args.overhead_pixels, args.trials, args.overhead_epochs)
            run = (contender, *work, folder)
            found[contender].append(alone(backend, "overhead", *run))
        print(f"overhead, {backend}, run {i}, {contender}: {found[contender][-1]}", flush=True)
    columns = {
        "wall (s)": lambda run: run["wall"],
        "training steps (s)": lambda run: run["steps"],
        "overhead (s a trial)": lambda run: (run["wall"] - run["steps"]) / run["trials"],
        "overhead share": lambda run: 1 - run["steps"] / run["wall"],
    }
    medians = {
        contender: [statistics.median(map(read, runs)) for read in columns.values()]
        for contender, runs in found.items()
    }
    rows = [(label, *(f"{m:.3f}" for m in medians[c])) for c, label in OVERHEAD.items()]
    for other in ("plain", "stock"):
        ratios = [ours / theirs for ours, theirs in zip(medians["ours"], medians[other])]
        rows.append((f"ours / {OVERHEAD[other]}", *(f"{ratio:.2f}" for ratio in ratios)))
    return [
        f"## Overhead: {backend}",
        f"{args.trials} candidates of {args.overhead_epochs} epochs, images of "
        f"{args.overhead_pixels} pixels; medians of {args.repeats} runs.",
        table(("contender", *columns), rows),
    ]


def main(arguments=None):
    """Runs both parts, and writes their tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    parser.add_argument("--backends", nargs="+", default=[backend], help="the first: for `best`")
    parser.add_argument("--parts", nargs="+", choices=("best", "overhead"))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=tuple(SETTINGS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="of each search of `best`")
    parser.add_argument("--epochs", type=int, help="of a trial of `best`")
    parser.add_argument("--repeats", type=int, default=3, help="of `overhead`")
    parser.add_argument("--trials", type=int, default=8, help="of `overhead`, at most 8")
    parser.add_argument("--overhead-epochs", type=int, default=6, help="of a trial of `overhead`")
    parser.add_argument("--overhead-pixels", type=int, default=8, help="8, or a multiple of it")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the report")
    args = parser.parse_args(arguments)
    parts = args.parts or ("best", "overhead")

    computer = processes.alone(args.backends[0], device.name, args.backends[0])
    began = time.monotonic()
    report = [
        "# Search: keras_resblocks against KerasTuner",
        f"{computer}; {versions(('keras', 'keras-tuner', *args.backends))}.",
    ]
    if "best" in parts:
        for setting in args.settings:
            report += best(setting, args)
    if "overhead" in parts:
        for backend in args.backends:
            report += overhead(backend, args)
    report.append(f"Took {(time.monotonic() - began) / 60:.0f} minutes.")
    publish(report, args.out / f"search_{slug(computer)}.md")


if __name__ == "__main__":
    main()
