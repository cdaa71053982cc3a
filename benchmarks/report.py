"""The results as tables."""

import statistics

from benchmarks.runner import PRODUCT
from benchmarks.tables import median_and_range, paired_ratios, table
from benchmarks.workloads import GOALS


def fastest_products(runs):
    """Operations a second of the fastest matrix product in a run, by precision."""
    speeds = {}
    for work, _, results in runs:
        for result in results:
            if result.contender.name == PRODUCT and result.turns:
                speed = result.operations / statistics.median(result.turns)
                speeds[work.precision] = max(speed, speeds.get(work.precision, 0.0))
    return speeds


def results_table(work, results, peak=None):
    """The table of one workload and group; `peak` is that of a matrix product."""
    done = [result for result in results if not result.error and result.contender.name != PRODUCT]
    if not done:
        return ""
    once = list(done[0].once)
    reference = done[0]
    columns = ["contender", "ms a step", f"ratio: {reference.contender.name} / it", "images / s"]
    columns += ["GFLOP/s", "of a matrix product", *once]
    rows = []
    for result in done:
        seconds = statistics.median(result.turns)
        speed = result.operations / seconds
        rows.append(
            (
                result.contender.name,
                median_and_range([1e3 * turn for turn in result.turns], ".4g"),
                median_and_range(paired_ratios(reference.turns, result.turns)),
                f"{work.batch / seconds:.4g}",
                f"{speed / 1e9:.4g}",
                f"{speed / peak:.0%}" if peak else "",
                *(f"{result.once[key]:.3g}" for key in once),
            )
        )
    return table(columns, rows)


def sections(runs):
    """The goals, and a section for each of the triples of a workload, a group and its results."""
    goals = [row for run in runs for row in goal_rows(*run)]
    if goals:
        yield "## Goals"
        yield table(("ours", "theirs", "work", "on", "at most", "ratio", "reached"), goals)
    peaks = fastest_products(runs)
    for work, group, results in runs:
        if results:
            yield f"## {group}: {work}"
            failed = [f"- {r.contender.name} failed: {r.error}" for r in results if r.error]
            parts = results_table(work, results, peaks.get(work.precision)), "\n".join(failed)
            yield from filter(None, parts)


def goal_rows(work, group, results):
    """A row for each goal that this workload is about, the cells as text."""
    turns = {result.contender.name: result.turns for result in results if not result.error}
    for goal in GOALS if results else ():
        if not goal.is_for(work, group):
            continue
        ratio, reached = "not measured", ""
        theirs = [name for name in goal.theirs if name in turns]
        if goal.ours in turns and theirs:
            fastest = min(theirs, key=lambda name: statistics.median(turns[name]))
            ratios = paired_ratios(turns[goal.ours], turns[fastest])
            ratio = f"{median_and_range(ratios)} of {fastest}"
            reached = "within noise" if min(ratios) <= goal.at_most else "no"
            if statistics.median(ratios) <= goal.at_most:
                reached = "yes"
        against = " or ".join(goal.theirs)
        yield goal.ours, against, str(work), group, f"{goal.at_most:.2f}", ratio, reached
