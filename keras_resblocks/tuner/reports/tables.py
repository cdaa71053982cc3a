"""The trials of a search as a table: its columns, and how their values are shown."""

import csv
import dataclasses
import re
from collections.abc import Callable

from keras_resblocks.tuner.reports.records import COSTS

_CSV = (
    *("number", "trial_id", "status", "score", "epochs"),
    *(*COSTS, "training_seconds", "message"),
)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: of the column.
        read: the value of a trial, None if there is none.
        format: that value as text.
        absent: what to say of a trial that has none.
    """

    title: str
    read: Callable
    format: Callable = str
    absent: Callable = lambda trial: ""

    def show(self, trial):
        """What a cell says."""
        value = self.read(trial)
        return self.absent(trial) if value is None else self.format(value)


def columns(search):
    """The columns of a search; those of which nothing is known are left out."""
    costs = (cost for cost in COSTS if cost != "trainable_params")
    numbers = [Column("epochs", lambda trial: trial.epochs), *map(_cost_column, costs)]
    return [
        Column("trial", lambda trial: trial.number),
        Column(
            search.objective,
            lambda trial: trial.score,
            format_score,
            absent=lambda trial: trial.status.lower(),
        ),
        *(column for column in numbers if any(map(column.show, search.trials))),
        *map(_hyperparameter_column, search.hyperparameters),
    ]


def _cost_column(cost):
    """The column of a cost."""
    decimals = ".1f" if cost == "seconds" else ""
    return Column(COSTS[cost], lambda trial: getattr(trial, cost), f"{{:,{decimals}}}".format)


def _hyperparameter_column(name):
    return Column(name, lambda trial: trial.hyperparameters.get(name), format_value)


def format_score(value):
    """A score."""
    return f"{value:.4f}" if abs(value) >= 0.01 or value == 0 else f"{value:.4g}"


def format_value(value):
    """The value of a hyperparameter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rich_table(search):
    """The trials, best first, as a `rich` table."""
    from rich.table import Table
    from rich.text import Text  # which takes no markup from the names of others

    shown = columns(search)
    table = Table(title=Text(search.name))
    for column in shown:
        table.add_column(Text(column.title))
    for trial in search.ranked:
        table.add_row(*(Text(column.show(trial)) for column in shown))
    return table


def markdown_table(search):
    """The trials, best first, as a table of Markdown that is legible as it is."""
    shown = columns(search)
    rows = [[column.title for column in shown]]
    rows += [[column.show(trial) for column in shown] for trial in search.ranked]
    rows = [[_escaped(text) for text in row] for row in rows]
    widths = [max(3, *map(len, texts)) for texts in zip(*rows)]
    rows.insert(1, ["-" * (width - 1) + ":" for width in widths])
    lines = (" | ".join(map(str.rjust, row, widths)) for row in rows)
    return "".join(f"| {line} |\n" for line in lines)


def _escaped(text):
    return re.sub(r"([\\|<*`\[&])", r"\\\1", " ".join(text.split()))


def write_csv(search, path):
    """Writes the trials, best first, with all that is known of each.

    A hyperparameter has its own name, or `hyperparameter <name>` if another column has that.
    """
    titles = {
        name: f"hyperparameter {name}" if name in _CSV else name for name in search.hyperparameters
    }
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_CSV, *titles.values()])
        for trial in search.ranked:
            values = trial.hyperparameters
            writer.writerow(
                [*(getattr(trial, name) for name in _CSV), *(values.get(name) for name in titles)]
            )
