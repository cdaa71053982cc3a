"""The search of `keras_resblocks.tuner` against others, on the same work in one run.

    python -m benchmarks.search_against_stock --backends tensorflow jax

Prints its tables and writes them to `benchmarks/results/search_<device>.md`. Each search has a
process of its own; the contenders take turns, and who begins changes from round to round.

**best**, on the first backend: the test accuracy of the best model, by validation accuracy, that
each contender finds on scikit-learn's digits in equal wall time. An alarm ends the search at once,
and the best epoch of a trial that is cut off counts. AutoKeras 3.0.0, the newest, does not run on
Keras 3.15, whose `Dense` refuses the NumPy integers that it gives.

**overhead**, on each backend: the time of a trial, and the share of it that is not in training
steps, on the same grid of candidates; of KerasTuner and Optuna with functions that build them of
plain Keras layers, and of KerasTuner with our hypermodel, whose `fit` saves some of it by itself.
Training steps are the time from the begin of an epoch to that of its validation (no batch hooks,
which slow Keras down); a trial's first epoch, which compiles, counts as the median of its others.
"""

import argparse
import contextlib
import functools
import os
import pathlib
import signal
import statistics
import tempfile
import time

import keras
import keras_tuner
import numpy as np
import optuna
from sklearn import datasets
from sklearn.model_selection import train_test_split

from benchmarks import device, processes
from benchmarks.contenders.flat_network import flat_network
from benchmarks.tables import RESULTS, publish, slug, spread, table, versions
from keras_resblocks import tuner as search

SHAPE, MAX_PARAMS = (8, 8, 1), 100_000
# The space of `best`, most of it above MAX_PARAMS, and the grid of `overhead`, of eight.
SPACE = dict(depths=(1, 2, 3, 4), widths=(4, 8, 16, 32, 64), learning_rates=(3e-4, 1e-3, 3e-3))
OF_8 = dict(depths=(1, 2), widths=(8, 16), learning_rates=(1e-3,))
OUR_OF_8 = dict(per_stage=(), activations="relu", regularizers=0.0, **OF_8)


def plain(choose, is_grid):
    """A candidate as one writes it for KerasTuner or Optuna without anything of ours.

    Args:
        choose: `hp.Choice` or `trial.suggest_categorical`.
    """
    space = {name: list(values) for name, values in (OF_8 if is_grid else SPACE).items()}
    depths = [choose(f"depth_{stage}", space["depths"]) for stage in range(1 if is_grid else 3)]
    model = flat_network(
        SHAPE,
        10,
        choose("block", ["residual", "bottleneck"]),
        depths=depths * 3 if is_grid else depths,
        width=choose("width", space["widths"]),
    )
    model.compile(
        keras.optimizers.Adam(choose("learning_rate", space["learning_rates"])),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def by_kerastuner(library, is_plain, fit, is_grid, **options):
    """A search by KerasTuner's tuners or ours, with plain Keras layers or our hypermodel."""
    space = OUR_OF_8 if is_grid else SPACE
    if not is_grid and library is keras_tuner:
        # It builds a candidate and then finds it too large; three failures in a row would end
        # the search: to KerasTuner's favour they do not.
        options.update(max_model_size=MAX_PARAMS, max_consecutive_failed_trials=1000)
    elif not is_grid:
        space = dict(SPACE, max_params=MAX_PARAMS)
    engine = library.GridSearch if is_grid else library.RandomSearch
    hypermodel = search.ResNetHyperModel(SHAPE, 10, **space)
    if is_plain:
        hypermodel = lambda hp: plain(hp.Choice, is_grid)  # noqa: E731
    engine(hypermodel, "val_accuracy", **options).search(**fit)


def by_optuna(fit, is_grid, max_trials, seed, **options):
    """Optuna with plain Keras layers, and the budget in the objective."""

    def objective(trial):
        model = plain(trial.suggest_categorical, is_grid)
        if not is_grid and model.count_params() > MAX_PARAMS:
            raise optuna.TrialPruned
        return max(model.fit(**fit).history["val_accuracy"])

    sampler = optuna.samplers.BruteForceSampler if is_grid else optuna.samplers.TPESampler
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))
    study.optimize(objective, n_trials=max_trials)


def our_optuna(fit, is_grid, **options):
    """The space of ours by Optuna, with a pruner."""
    hypermodel = search.ResNetHyperModel(SHAPE, 10, max_params=MAX_PARAMS, **SPACE)
    options.update(
        study_name=options.pop("project_name"), storage=optuna.storages.InMemoryStorage()
    )
    pruner = optuna.pruners.HyperbandPruner(max_resource=fit["epochs"])
    search.optuna_search(hypermodel, pruner=pruner, **options, **fit)


OURS = "keras_resblocks"
CONTENDERS = {
    "KerasTuner, plain Keras layers": functools.partial(by_kerastuner, keras_tuner, True),
    "KerasTuner, our hypermodel": functools.partial(by_kerastuner, keras_tuner, False),
    "Optuna, plain Keras layers": by_optuna,
    OURS: functools.partial(by_kerastuner, search, False),
}
OF_BEST = {f"{OURS}, Optuna": our_optuna, **CONTENDERS}


def find_best(contender, folder, seconds, epochs, seed):
    """What a contender finds within some time."""
    (x, y), validation, (x_test, y_test) = digits(seed)
    keras.utils.set_random_seed(seed)
    found, end, searches = Best(), time.monotonic() + seconds, 0
    fit = dict(x=x, y=y, validation_data=validation, epochs=epochs, callbacks=[found], verbose=0)
    while (left := end - time.monotonic()) > 0:
        options = dict(seed=1000 * seed + searches, directory=folder, project_name=str(searches))
        with alarm(left):
            OF_BEST[contender](fit, is_grid=False, max_trials=1000, **options)
        searches += 1
    return {**found.result(x_test, y_test), "trained": found.trained}


def time_grid(contender, folder, trials, epochs, _):
    """The wall time of a search, and how much of it is in training steps."""
    (x, y), validation, _ = digits(0)
    steps = Steps()
    fit = dict(x=x, y=y, validation_data=validation, epochs=epochs, callbacks=[steps], verbose=0)
    began = time.monotonic()
    CONTENDERS[contender](fit, is_grid=True, max_trials=trials, directory=folder, seed=0)
    wall = time.monotonic() - began
    return {"wall": wall, "steps": steps.total(), "trials": len(steps.trials)}


def digits(seed):
    """Images and labels to train, to validate and to test with, split by the seed."""
    x, y = datasets.load_digits(return_X_y=True)
    x = x.reshape(-1, *SHAPE).astype("float32") / 16
    split = dict(test_size=0.2, random_state=seed)
    x, x_test, y, y_test = train_test_split(x, y, stratify=y, **split)
    x, x_val, y, y_val = train_test_split(x, y, stratify=y, **split)
    return (x, y), (x_val, y_val), (x_test, y_test)


class TimeOverError(BaseException):
    """Raised wherever the search is; not an Exception, which the engines would catch."""


@contextlib.contextmanager
def alarm(seconds):
    """Ends what is within after some time."""

    def ring(*_):
        raise TimeOverError

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, where it went unheard
    try:
        with contextlib.suppress(TimeOverError):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Shared(keras.callbacks.Callback):
    """A callback of all trials, of which KerasTuner makes no copies."""

    def __deepcopy__(self, memo):
        return self


class Best(_Shared):
    """Keeps the best model by validation accuracy, and counts the trials that had an epoch."""

    def __init__(self):
        super().__init__()
        self.best = (-1.0, None, None)  # in one piece: the alarm may ring at any moment
        self.trained = 0

    def on_epoch_end(self, epoch, logs=None):
        self.trained += epoch == 0
        if logs["val_accuracy"] > self.best[0]:
            self.best = (logs["val_accuracy"], self.model, self.model.get_weights())

    def result(self, x, y):
        """The accuracy of the best model and its number of parameters; 0 where there is none."""
        _, model, weights = self.best
        if model is None:
            return {"accuracy": 0.0, "params": 0}
        model.set_weights(weights)
        hits = model.predict(x, verbose=0).argmax(axis=1) == y
        return {"accuracy": float(hits.mean()), "params": model.count_params()}


class Steps(_Shared):
    """Takes the time of the training steps: of each epoch up to its validation."""

    def __init__(self):
        super().__init__()
        self.trials = []  # the seconds of each epoch

    def on_train_begin(self, logs=None):
        self.trials.append([])

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_test_begin(self, logs=None):
        np.asarray(self.model.optimizer.iterations)  # waits for the last step
        self.trials[-1].append(time.monotonic() - self._began)

    def total(self):
        """The seconds in steps; a first epoch, which compiles, counts as the others' median."""
        return sum(
            min(first, statistics.median(others or [first])) + sum(others)
            for first, *others in self.trials
        )


def race(backend, contenders, rounds, function, *args):
    """What a function returns for each contender and round, in processes of their own."""
    found = {contender: {} for contender in contenders}
    for i, contender in processes.in_turns(tuple(contenders), rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = processes.alone(backend, function, contender, folder, *args, i)
        found[contender][i] = run
        print(f"{backend}, {args}, round {i}, {contender}: {run}", flush=True)
    return {name: [runs[i] for i in range(rounds)] for name, runs in found.items()}


def best_section(args):
    """What the contenders find in equal time, and the differences to ours."""
    work = (find_best, args.seconds, args.epochs)
    found = race(args.backends[0], OF_BEST, args.seeds, *work)
    accuracies = {name: [run["accuracy"] for run in runs] for name, runs in found.items()}
    rows = []
    for contender, runs in found.items():
        trained, size = (statistics.median(r[key] for r in runs) for key in ("trained", "params"))
        pairs = [a - b for a, b in zip(accuracies[OURS], accuracies[contender])]
        row = [contender, *spread(accuracies[contender]), f"{statistics.mean(pairs):+.4f}"]
        row += [f"{sum(d > 0 for d in pairs)} / {pairs.count(0)} / {sum(d < 0 for d in pairs)}"]
        row += [f"{args.seconds / trained:.1f}" if trained else "-", f"{trained:.0f}"]
        rows.append((*row, f"{size:,.0f}"))
    columns = ("contender", "mean", "min", "max", "ours - it", "better / equal / worse")
    return [
        f"## Best model within {args.seconds:g} s",
        f"Test accuracy over {args.seeds} seeds, each a split and a search of its own; trials of "
        f"{args.epochs} epochs that finished one, and the best model's parameters in the median. "
        f"Backend: {args.backends[0]}.",
        table((*columns, "seconds a trial", "trials", "parameters"), rows),
    ]


COLUMNS = {
    "wall (s)": lambda run: run["wall"],
    "training steps (s)": lambda run: run["steps"],
    "seconds a trial": lambda run: run["wall"] / run["trials"],
    "overhead (s a trial)": lambda run: (run["wall"] - run["steps"]) / run["trials"],
    "overhead share": lambda run: 1 - run["steps"] / run["wall"],
}


def overhead_section(backend, args):
    """The time of a trial, and the share of it that is not in training steps."""
    work = (time_grid, args.trials, args.epochs)
    medians = {
        contender: [statistics.median(map(read, runs)) for read in COLUMNS.values()]
        for contender, runs in race(backend, CONTENDERS, args.repeats, *work).items()
    }
    rows = [(contender, *(f"{m:.3f}" for m in of)) for contender, of in medians.items()]
    for other in list(medians)[:-1]:
        ratios = [a / b for a, b in zip(medians[OURS], medians[other])]
        rows.append((f"ours / {other}", *(f"{ratio:.2f}" for ratio in ratios)))
    return [
        f"## Overhead: {backend}",
        f"{args.trials} candidates of {args.epochs} epochs; medians of {args.repeats} runs.",
        table(("contender", *COLUMNS), rows),
    ]


def main(arguments=None):
    """Runs both parts, and writes their tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    add("--backends", nargs="+", default=[backend], help="the first: for `best`")
    add("--parts", nargs="+", choices=("best", "overhead"), default=("best", "overhead"))
    add("--seeds", type=int, default=5)
    add("--seconds", type=float, default=60, help="of each search of `best`")
    add("--epochs", type=int, default=6, help="of a trial")
    add("--repeats", type=int, default=3, help="of `overhead`")
    add("--trials", type=int, default=8, help="of `overhead`, at most 8")
    add("--out", type=pathlib.Path, default=RESULTS, help="folder of the report")
    args = parser.parse_args(arguments)

    computer = processes.alone(args.backends[0], device.name, args.backends[0])
    packages = ("keras", "keras-tuner", "optuna", *args.backends)
    report = ["# Search: keras_resblocks against others", f"{computer}; {versions(packages)}."]
    if "best" in args.parts:
        report += best_section(args)
    if "overhead" in args.parts:
        for backend in args.backends:
            report += overhead_section(backend, args)
    publish(report, args.out / f"search_{slug(computer)}.md")


if __name__ == "__main__":
    main()
