"""What a search found: tables, images and one page that needs nothing beside it."""

import collections
import dataclasses
import datetime
import importlib.resources
import pathlib

from keras_resblocks.tuner.reports import charts, tables
from keras_resblocks.tuner.reports.importance import hyperparameter_importance
from keras_resblocks.tuner.reports.records import SearchRecords, search_records, tuner_records


@dataclasses.dataclass(frozen=True)
class Report:
    """What a search found. Printing it prints the table of its trials.

    Attributes:
        search: the `SearchRecords`.
        importance: see `hyperparameter_importance`.
        paths: of the files, by their names.
    """

    search: SearchRecords
    importance: dict
    paths: dict

    @property
    def rows(self):
        """The trials, a `TrialRecord` each, best first; last those without a score."""
        return self.search.ranked

    @property
    def best(self):
        """The best trial, None if none has a score."""
        return self.search.best

    def pareto_front(self, cost):
        """As `SearchRecords.pareto_front`."""
        return self.search.pareto_front(cost)

    def __str__(self):
        missing = ", ".join(self.search.missing)
        note = f"\nNot recorded by this search: {missing}.\n" if missing else ""
        return tables.markdown_table(self.search) + note

    def __rich__(self):
        return tables.rich_table(self.search)


def report(source, out=None, *, objective=None):
    """Says what a search found. Needs the extra `plot`.

    Writes `report.html`, one page that works offline, with interactive charts; `trials.csv` and
    `trials.md`; and each chart as PNG. The charts are score against parameters, multiply-
    accumulates, activation memory and time, with their Pareto fronts, the learning curves, and
    the importance of the hyperparameters; each of them only if the search recorded what it needs.

    Args:
        source: the directory of a KerasTuner project, of this package or of KerasTuner itself, or
            one that holds a single project; or a tuner; or an Optuna study.
        out: the folder to write into. By default `report` in the project, or
            `<study name>_report` in the working directory.
        objective: what the search optimized, a `keras_tuner.Objective` or the name of a metric.
            Needed only if a directory does not tell.

    Returns:
        A `Report`.

    Raises:
        ValueError: if there is no project, or more than one, or if the objective is not clear.

    Example:

    >>> found = report("search_results/random")
    >>> print(found)  # the table
    >>> found.best.hyperparameters, found.pareto_front("params"), found.importance
    >>> found.paths["report.html"]
    """
    search = search_records(source, objective)
    importance = hyperparameter_importance(search)
    drawn = charts.charts(search, importance)
    folder = pathlib.Path(out or _default_folder(search))
    folder.mkdir(parents=True, exist_ok=True)
    names = ["report.html", "trials.csv", "trials.md", *(f"{chart.name}.png" for chart in drawn)]
    found = Report(search, importance, {name: folder / name for name in names})

    tables.write_csv(search, found.paths["trials.csv"])
    found.paths["trials.md"].write_text(str(found), encoding="utf-8")
    for chart in drawn:
        chart.save_png(found.paths[f"{chart.name}.png"])
    found.paths["report.html"].write_text(_page(search, drawn), encoding="utf-8")
    return found


def trial_rows(tuner):
    """The trials of a tuner, a `TrialRecord` each, in the order of their start."""
    return list(tuner_records(tuner).trials)


def print_trials(tuner):
    """Prints the trials of a tuner as a table, the best first."""
    from rich.console import Console

    table = tables.rich_table(tuner_records(tuner))
    Console(width=max(100, 14 * len(table.columns))).print(table)


def plot_trials(tuner, path):
    """Saves a plot of the score of each trial against its number of parameters.

    Args:
        tuner: whose search is over.
        path: of the image file, PNG by its suffix.
    """
    charts.ScoreChart(tuner_records(tuner), "params").save_png(path)


def _default_folder(search):
    return search.folder / "report" if search.folder else f"{charts.file_name(search.name)}_report"


def _page(search, drawn):
    import jinja2
    from plotly.offline import get_plotlyjs

    template = importlib.resources.files(__package__).joinpath("report.html.j2")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    times = [trial.seconds for trial in search.trials if trial.seconds is not None]
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        search=search,
        best=search.best,
        statuses=collections.Counter(trial.status.lower() for trial in search.trials),
        time=datetime.timedelta(seconds=round(sum(times))) if times else None,
        columns=tables.columns(search),
        format_score=tables.format_score,
        format_value=tables.format_value,
        charts=[(chart, chart.html()) for chart in drawn],
        plotly=get_plotlyjs() if drawn else "",
    )
