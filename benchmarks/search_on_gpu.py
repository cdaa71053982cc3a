"""A search on a GPU: the memory that it gives back, a trial that runs out of it, how busy it is.

    python -m benchmarks.search_on_gpu --backends jax torch

Thirty trials in mixed bfloat16 on digits of 64x64 pixels, each backend in a process of its own. One
trial asks for memory until there is no more. Prints a table and writes it to
`benchmarks/results/search_on_gpu_<device>.md`. Without a GPU it runs on the CPU, and memory is that
of the process.

**before** is the memory in use before the first trial, **after** the most of it after any trial but
the first, whose libraries stay. **busy** is the mean of what `nvidia-smi` calls the GPU's
utilization: the share of time in which it computed anything.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from benchmarks import device, processes
from benchmarks.tables import RESULTS, publish, slug, table, versions

COLUMNS = ("backend", "completed", "out of memory", "before", "after", "busy", "wall", "accuracy")


def search(backend, trials, epochs, pixels):
    """The row of a search in the table, on this process's backend."""
    import keras

    from benchmarks.search_against_stock import digits
    from keras_resblocks import tuner
    from keras_resblocks.tuner.memory import is_out_of_memory

    memory = device.memory(backend)
    has_gpu = not device.name(backend).startswith("CPU")
    after = []

    class Greedy(tuner.ResNetHyperModel):
        trained = 0

        def fit(self, *args, **kwargs):
            Greedy.trained += 1
            if Greedy.trained == 2:  # the trial that runs out of memory
                blocks = []
                while True:  # a GPU is filled up; a CPU refuses so much at once
                    blocks.append(keras.ops.ones((2**28 if has_gpu else 2**46,)))
            return super().fit(*args, **kwargs)

    class Measured(tuner.RandomSearch):
        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            after.append(memory(reset=False)[0])

    (x, y), (x_val, y_val), _ = digits(0)
    x, x_val = (a.repeat(pixels // 8, axis=1).repeat(pixels // 8, axis=2) for a in (x, x_val))
    hypermodel = Greedy(x.shape[1:], 10, dtype="mixed_bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        options = dict(max_trials=trials, seed=0, directory=folder)
        engine = Measured(hypermodel, "val_accuracy", **options)
        before, _ = memory(reset=True)
        began = time.monotonic()
        with utilization() as shares:
            engine.search(x, y, validation_data=(x_val, y_val), epochs=epochs, verbose=0)
        wall = time.monotonic() - began
    ended = [engine.oracle.trials[key] for key in engine.oracle.end_order]
    return (
        backend,
        str(sum(trial.status == "COMPLETED" for trial in ended)),
        str(sum(is_out_of_memory(trial.message or "") for trial in ended)),
        *(f"{held / 2**20:,.0f} MiB" for held in (before, max(after[1:], default=after[0]))),
        f"{statistics.mean(shares):.0f}%" if shares else "-",
        f"{wall:.0f} s",
        f"{max(trial.score for trial in ended if trial.score is not None):.4f}",
    )


@contextlib.contextmanager
def utilization():
    """A list that has the first GPU's utilization, in percent, at the end; empty if none tells."""
    shares, visible = [], os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    if visible in ("", "-1") or shutil.which("nvidia-smi") is None:
        yield shares
        return
    query = ["nvidia-smi", f"--id={visible}", "--query-gpu=utilization.gpu"]
    form = ["--format=csv,noheader,nounits", "--loop-ms=200"]
    process = subprocess.Popen([*query, *form], stdout=subprocess.PIPE, text=True)
    try:
        yield shares
    finally:
        process.terminate()
        lines, _ = process.communicate()
        shares.extend(int(line) for line in lines.split() if line.isdigit())


def main(arguments=None):
    """Searches on each backend, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    parser.add_argument("--backends", nargs="+", default=[backend])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--pixels", type=int, default=64, help="a multiple of 8")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the report")
    args = parser.parse_args(arguments)
    work = (args.trials, args.epochs, args.pixels)
    rows = [processes.alone(name, search, name, *work) for name in args.backends]
    computer = processes.alone(args.backends[0], device.name, args.backends[0])
    report = [
        "# Search on a GPU",
        f"{computer}; {versions(('keras', 'keras-tuner', *args.backends))}.",
        f"## {args.trials} trials of {args.epochs} epochs, {args.pixels} pixels, mixed bfloat16",
        table(COLUMNS, rows),
    ]
    publish(report, args.out / f"search_on_gpu_{slug(computer)}.md")


if __name__ == "__main__":
    main()
