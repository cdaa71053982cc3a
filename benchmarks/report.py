"""The results as tables."""

import statistics

from benchmarks.runner import PRODUCT
from benchmarks.tables import median_and_range, paired_ratios, table
from benchmarks.workloads import GOALS


def fastest_products(runs):
    """Operations a second of the fastest matrix product in a run, by precision.

    Args:
        runs: triples of a workload, a group and its results.
    """
    speeds = {}
    for work, _, results in runs:
        for result in results:
            if result.contender.name == PRODUCT and result.turns:
                speed = result.operations / statistics.median(result.turns)
                speeds[work.precision] = max(speed, speeds.get(work.precision, 0.0))
    return speeds


def results_table(work, results, peak=None):
    """The table of one workload and group; ratios are ours to each contender's.

    Args:
        peak: operations a second of a matrix product.
    """
    done = [result for result in results if not result.error and result.contender.name != PRODUCT]
    if not done:
        return ""
    once = list(done[0].once)
    if work.kind == "saving":
        rows = [(r.contender.name, *(f"{r.once[key]:.2f}" for key in once)) for r in done]
        return table(("contender", *once), rows)
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


def failures(results):
    """A line for each contender that failed."""
    lines = [f"- {r.contender.name} failed: {r.error}" for r in results if r.error]
    return "\n".join(lines)


def goal_rows(work, group, results):
    """A row for each goal that this workload is about, as of `GOAL_COLUMNS`."""
    if not results:
        return
    turns = {result.contender.name: result.turns for result in results if not result.error}
    for goal in GOALS:
        if not goal.is_for(work) or group not in goal.at_most:
            continue
        theirs = [name for name in goal.theirs if name in turns]
        at_most = goal.at_most[group]
        if goal.ours not in turns or not theirs:
            yield goal.what, str(work), group, f"{at_most:.2f}", "not measured", ""
            continue
        fastest = min(theirs, key=lambda name: statistics.median(turns[name]))
        ratios = paired_ratios(turns[goal.ours], turns[fastest])
        reached = "yes" if statistics.median(ratios) <= at_most else "no"
        ratio = f"{median_and_range(ratios)} of {fastest}"
        yield goal.what, str(work), group, f"{at_most:.2f}", ratio, reached


GOAL_COLUMNS = ("what", "work", "on", "at most", "ratio", "reached")
