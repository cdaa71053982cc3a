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
    """A column: its title, a function that reads a trial's value or None, and one for its text."""

    title: str
    read: typing.Callable
    format: typing.Callable = str
    absent: typing.Callable = lambda trial: ""
    is_parameter: bool = False

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

    status = {"absent": lambda trial: trial.status.lower()}
    costs = {"epochs": "epochs", **COSTS}
    del costs["trainable_params"]
    known = [n for n in costs if any(getattr(trial, n) is not None for trial in search.trials)]
    return [
        Column("trial", lambda trial: trial.number),
        Column(search.objective, lambda trial: trial.score, format_score, **status),
        *map(metric, search.others),
        *_hyperparameter_columns(search),
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


def _hyperparameter_columns(search):
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

        title = stem if len(names) > 1 else names[0]
        return Column(title, read, format_value, is_parameter=True)

    for stem, names in groups.items():
        if not constant.keys() >= set(names):
            yield column(stem, sorted(names, key=lambda name: (len(name), name)))


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


def rich_table(search, width=None):
    """The trials, best first, as a `rich` table: its first columns that fit in a width."""
    from rich.table import Table
    from rich.text import Text  # which takes no markup from the names of others

    shown, hidden = [], []
    room = float("inf") if width is None else width - 1
    for column in columns(search):
        needed = 3 + max(len(text) for text in [column.title, *map(column.show, search.ranked)])
        (shown if needed <= room else hidden).append(column)
        room -= needed if needed <= room else 0
    titles = ", ".join(column.title for column in hidden)
    wider = [f"Not shown: {titles}."] if hidden else []
    caption = Text("\n".join([*notes(search), *wider]))
    table = Table(title=Text(search.name), caption=caption, caption_justify="left")
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
    table = "".join(f"| {line} |\n" for line in lines)
    return table + "".join(f"\n{_escaped(note)}\n" for note in notes(search))


def html_table(search):
    """The trials, best first, as a table of HTML."""
    shown = columns(search)
    rows = [[f"<th>{html.escape(column.title)}</th>" for column in shown]]
    for trial in search.ranked:
        rows.append([f"<td>{html.escape(column.show(trial))}</td>" for column in shown])
    table = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
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
