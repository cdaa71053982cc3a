"""The trials of a search as a table: its columns, and how their values are shown."""

import csv
import html
import re
import typing

from keras_resblocks.tuner.reports.records import COSTS

_CSV = (
    *("number", "trial_id", "status", "score", "epochs"),
    *(*COSTS, "training_seconds", "message"),
)


class Column(typing.NamedTuple):
    """A column: its title, and functions that read a trial's value or None and show it as text."""

    title: str
    read: typing.Callable
    format: typing.Callable = str
    absent: typing.Callable = lambda trial: ""

    def show(self, trial):
        """What a cell says."""
        value = self.read(trial)
        return self.absent(trial) if value is None else self.format(value)


def columns(search):
    """The columns of a search; what is not known or constant is left out.

    First those that a reader compares: hyperparameters stand before the costs, which may be many.
    """

    def metric(name):
        return Column(name, lambda trial: trial.metrics.get(name), format_score)

    def cost(name, title):
        form = "{:,.1f}" if name == "seconds" else "{:,}"
        return Column(title, lambda trial: getattr(trial, name), form.format)

    costs = {"epochs": "epochs", **COSTS}
    del costs["trainable_params"]
    known = [n for n in costs if any(getattr(trial, n) is not None for trial in search.trials)]
    return [
        Column("trial", lambda trial: trial.number),
        Column(search.objective, lambda t: t.score, format_score, lambda t: t.status.lower()),
        *map(metric, search.others),
        *hyperparameter_columns(search),
        *(cost(name, costs[name]) for name in known),
    ]


def constants(search):
    """The hyperparameters that are equal in all trials, if these are several; a dict."""
    trials = [trial.hyperparameters for trial in search.trials if trial.values]
    return {
        name: trials[0][name]
        for name in search.hyperparameters
        if len(trials) > 1 and all(t.get(name, ...) == trials[0].get(name, ...) for t in trials)
    }


def hyperparameter_columns(search):
    """A column each, but one for all of `depth_1`, `depth_2`, ...: integers joined as 2-3-1."""
    constant, groups = constants(search), {}
    for name in search.hyperparameters:
        kinds = {type(trial.hyperparameters.get(name)) for trial in search.trials}
        stem = re.sub(r"_?\d+$", "", name) if kinds <= {int, type(None)} else name
        groups.setdefault(stem, []).append(name)

    def column(stem, names):
        def read(trial):
            values = [trial.hyperparameters[n] for n in names if n in trial.hyperparameters]
            return "-".join(map(str, values)) if len(values) > 1 else next(iter(values), None)

        return Column(stem if len(names) > 1 else names[0], read, format_value)

    return [
        column(stem, sorted(names, key=lambda name: (len(name), name)))
        for stem, names in groups.items()
        if not constant.keys() >= set(names)
    ]


def format_score(value):
    """A score."""
    return f"{value:.4f}" if abs(value) >= 0.01 or value == 0 else f"{value:.4g}"


def format_value(value):
    """The value of a hyperparameter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def notes(search):
    """What a reader of the table must know beside it, sentences."""
    fixed = ", ".join(f"{name} {format_value(v)}" for name, v in constants(search).items())
    missing = ", ".join(search.missing)
    return [
        *([f"Equal in all trials: {fixed}."] if fixed else []),
        *([f"Not recorded by this search: {missing}."] if missing else []),
    ]


def _rows(search):
    """The titles, then the cells of each trial, best first."""
    shown = columns(search)
    cells = [[column.show(trial) for column in shown] for trial in search.ranked]
    return [[column.title for column in shown], *cells]


def rich_table(search, width=None):
    """The trials, best first, as a `rich` table: its first columns that fit in a width."""
    from rich.table import Table
    from rich.text import Text  # which takes no markup from the names of others

    shown, hidden = [], []
    room = float("inf") if width is None else width - 1
    for title, *cells in zip(*_rows(search)):
        needed = 3 + max(map(len, [title, *cells]))
        if needed <= room:
            shown.append((title, cells))
            room -= needed
        else:
            hidden.append(title)
    wider = [f"Not shown: {', '.join(hidden)}."] if hidden else []
    caption = Text("\n".join([*notes(search), *wider]))
    table = Table(title=Text(search.name), caption=caption, caption_justify="left")
    for title, _ in shown:
        table.add_column(Text(title))
    for row in zip(*(cells for _, cells in shown)):
        table.add_row(*map(Text, row))
    return table


def markdown_table(search):
    """The trials, best first, as a table of Markdown that is legible as it is."""
    rows = [[_escaped(text) for text in row] for row in _rows(search)]
    widths = [max(3, *map(len, texts)) for texts in zip(*rows)]
    rows.insert(1, ["-" * (width - 1) + ":" for width in widths])
    lines = (" | ".join(map(str.rjust, row, widths)) for row in rows)
    table = "".join(f"| {line} |\n" for line in lines)
    return table + "".join(f"\n{_escaped(note)}\n" for note in notes(search))


def html_table(search):
    """The trials, best first, as a table of HTML."""
    titles, *rows = ([html.escape(text) for text in row] for row in _rows(search))
    lines = ["".join(f"<th>{title}</th>" for title in titles)]
    lines += ["".join(f"<td>{text}</td>" for text in row) for row in rows]
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>{table}</table>" + "".join(f"<p>{html.escape(n)}</p>" for n in notes(search))


def _escaped(text):
    return re.sub(r"([\\|<*`\[&])", r"\\\1", " ".join(text.split()))


def write_csv(search, path):
    """Writes the trials, best first, with all that is known of each.

    A hyperparameter has its own name, or `hyperparameter <name>` if another column has that.
    """
    names = search.hyperparameters
    titles = [f"hyperparameter {name}" if name in _CSV else name for name in names]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*_CSV, *titles])
        for trial in search.ranked:
            known = [getattr(trial, name) for name in _CSV]
            writer.writerow([*known, *map(trial.hyperparameters.get, names)])
