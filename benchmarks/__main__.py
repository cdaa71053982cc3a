"""Ours and its peers on the same work: `python -m benchmarks`.

    python -m benchmarks --backends tensorflow jax torch --threads 1
    python -m benchmarks --quick
    python -m benchmarks --parts training --networks resnet50 --batches 256 --precisions bfloat16

Prints its tables and writes them to `benchmarks/results/<device>.md`. Each contender has a process
of its own; they take turns, and who begins changes from round to round. What is not installed is
named as left out, and what fails is reported.

Columns: a step's time is the median over the rounds (least - most), and the ratio the median of the
ratios within a round, so that what slows the machine down slows both. Operations are counted by
`keras_resblocks.cost`, two for a multiply-accumulate and a backward pass as two forward ones, and
put beside those of a product of square matrices, the fastest of the run. The first step traces and
compiles. Peak memory is what came on top of the imports: of the process, or of the GPU.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
import platform
import time

from benchmarks import contenders, report, workloads
from benchmarks.runner import Field
from benchmarks.tables import RESULTS, publish, slug, versions

KINDS = ("inference", "training")
PACKAGES = ("keras", "tensorflow", "jax", "torch", "timm", "flax", "onnxruntime")


def parse(arguments):
    """The options, and the workloads that they choose."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.split("\n")[0])
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    add = parser.add_argument
    add("--backends", nargs="+", default=[backend], choices=contenders.BACKENDS)
    add("--parts", nargs="+", default=KINDS, choices=KINDS)
    add("--networks", nargs="+", help="of the workloads, only these")
    add("--sizes", nargs="+", type=int, help="in pixels, instead of the workloads' own")
    add("--batches", nargs="+", type=int, help="instead of the workloads' own")
    add("--precisions", nargs="+", choices=("float32", "tf32", "bfloat16"), help="likewise")
    add("--contenders", nargs="+", help="only those whose name contains one of these")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=0.5, help="of a turn; at least one step")
    add("--threads", type=int, default=0, help="cores to run on; by default all")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: where others compute too")
    add("--timeout", type=float, default=900, help="in seconds, for whatever is waited for")
    add("--quick", action="store_true", help="little work and few rounds, to see that it runs")
    add("--out", type=pathlib.Path, default=RESULTS, help="folder of the report")
    settings = parser.parse_args(arguments)
    if settings.quick:
        settings.rounds, settings.seconds = 2, 0.0
    return settings


def chosen(settings, is_gpu):
    """The workloads that the options choose, changed as they say, each once."""
    known = workloads.on_gpu() if is_gpu else workloads.on_cpu()
    known = workloads.quick() if settings.quick else known
    changed = [
        dataclasses.replace(work, size=size, batch=batch, precision=precision)
        for work in known
        if work.kind in settings.parts
        and (not settings.networks or work.network in settings.networks)
        for size in settings.sizes or [work.size]
        for batch in settings.batches or [work.batch]
        for precision in settings.precisions or [work.precision]
    ]
    return list(dict.fromkeys(changed))


def main(arguments=None):
    """Measures, prints and writes."""
    settings = parse(arguments)
    began = time.monotonic()
    runs, groups = [], (*settings.backends, "onnxruntime")
    with Field(settings) as field:
        if not field.contenders:
            raise SystemExit(f"No contender is called {' or '.join(settings.contenders)}.")
        computer = field.device()
        works = chosen(settings, is_gpu=not computer.startswith("CPU"))
        for group, work in itertools.product(groups, works):
            print(f"{group}: {work}", flush=True)
            runs.append((work, group, field.run(work, group)))
    took = f"Took {(time.monotonic() - began) / 60:.0f} minutes."
    parts = [*head(settings, computer, field), *report.sections(runs), took]
    publish(parts, settings.out / f"{slug(computer)}.md")


def head(settings, computer, field):
    """What was run, where and with which versions."""
    cores = f"{settings.threads} of its cores" if settings.threads else "all of its cores"
    yield f"# keras_resblocks beside its peers: {computer}"
    yield (
        f"{platform.machine()}, {cores}; {settings.clock} time, {settings.rounds} rounds. "
        f"{versions(PACKAGES)}."
    )
    if field.left_out:
        names = (f"{name} ({', '.join(missing)})" for name, missing in field.left_out.items())
        yield f"Left out, for what is not installed: {'; '.join(names)}."


if __name__ == "__main__":
    main()
