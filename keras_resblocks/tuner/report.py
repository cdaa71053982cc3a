"""What a search found: a table of its trials, and a plot of score against size."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """A finished trial.

    Attributes:
        number: 1 for the trial that started first.
        score: of the objective; None if the trial failed.
        cost: the `Cost` of its model.
        values: its hyperparameters.
    """

    number: int
    score: float | None
    cost: object
    values: dict


def trial_rows(tuner):
    """The trials of a tuner whose hypermodel has a `cost`, in the order of their start."""
    oracle = tuner.oracle
    return [
        TrialRow(
            number,
            oracle.trials[trial_id].score,
            tuner.hypermodel.cost(oracle.trials[trial_id].hyperparameters),
            dict(oracle.trials[trial_id].hyperparameters.values),
        )
        for number, trial_id in enumerate(oracle.start_order, start=1)
    ]


def print_trials(tuner):
    """Prints the trials as a table, the best first."""
    from rich.console import Console
    from rich.table import Table

    objective = tuner.oracle.objective
    rows = trial_rows(tuner)
    names = sorted({name for row in rows for name in row.values if not name.startswith("tuner/")})
    table = Table("trial", objective.name, "parameters", "MACs", *names, title="Trials")
    for row in _best_first(rows, objective.direction):
        table.add_row(
            str(row.number),
            "failed" if row.score is None else f"{row.score:.4f}",
            f"{row.cost.params:,}",
            "" if row.cost.macs is None else f"{row.cost.macs:,}",
            *(str(row.values.get(name, "")) for name in names),
        )
    Console(width=max(100, 14 * (len(names) + 4))).print(table)


def plot_trials(tuner, path):
    """Saves a plot of the score of each trial against its number of parameters.

    Args:
        tuner: whose search is over.
        path: of the image file, PNG by its suffix.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no global state
    from matplotlib.ticker import EngFormatter

    objective = tuner.oracle.objective
    rows = [row for row in trial_rows(tuner) if row.score is not None]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for block in dict.fromkeys(row.values.get("block", "trial") for row in rows):
        chosen = [row for row in rows if row.values.get("block", "trial") == block]
        axes.scatter([r.cost.params for r in chosen], [r.score for r in chosen], label=block)
    for row in rows:
        axes.annotate(
            f" {row.number}", (row.cost.params, row.score), fontsize=8, va="center_baseline"
        )
    axes.set(xscale="log", xlabel="parameters", ylabel=objective.name)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(EngFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def _best_first(rows, direction):
    scored = [row for row in rows if row.score is not None]
    failed = [row for row in rows if row.score is None]
    return sorted(scored, key=lambda row: row.score, reverse=direction == "max") + failed
