"""What a search found: tables, and one page that needs nothing beside it."""

import collections
import dataclasses
import datetime
import importlib.resources
import pathlib
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import keras_tuner

from keras_resblocks.tuner.reports import charts, tables
from keras_resblocks.tuner.reports.records import SearchRecords, TrialRecord
from keras_resblocks.tuner.reports.sources import search_records
from keras_resblocks.types import FilePath

if TYPE_CHECKING:
    import optuna
    import ray.tune

# What a search may be given as.
Source: TypeAlias = "FilePath | keras_tuner.Tuner | optuna.Study | ray.tune.ResultGrid"


@dataclasses.dataclass(frozen=True)
class Report:
    """What a search found, as `report` returns it. Printing it prints the table of its trials.

    Attributes:
        search: the `SearchRecords`.
        importance: the share in [0, 1] of each hyperparameter in the differences of the scores,
            most important first: a heuristic.
        paths: of the files, by their names.

    Examples:
        >>> from keras_resblocks.tuner import report
        >>> found = report("digits/untitled_project")  # needs: search
        >>> print(found)
        >>> found.best.hyperparameters, found.pareto_front("params"), found.importance
        >>> found.paths["report.html"]
    """

    search: SearchRecords
    importance: dict[str, float]
    paths: dict[str, pathlib.Path]

    @property
    def rows(self) -> list[TrialRecord]:
        """The trials, a `TrialRecord` each, best first; last those without a score."""
        return self.search.ranked

    @property
    def best(self) -> TrialRecord | None:
        """The best trial, None if none has a score."""
        return self.search.best

    def pareto_front(self, cost: str) -> list[TrialRecord]:
        """As `SearchRecords.pareto_front`.

        Args:
            cost: as there.

        Returns:
            A list of `TrialRecord`, cheapest first.
        """
        return self.search.pareto_front(cost)

    def __str__(self) -> str:
        return tables.markdown_table(self.search)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        yield tables.rich_table(self.search, options.max_width)

    def _repr_html_(self) -> str:
        return tables.html_table(self.search)


def report(
    source: Source,
    out: FilePath | None = None,
    *,
    objective: str | keras_tuner.Objective | None = None,
) -> Report:
    """Reads what a search found, and writes it as a page. Needs the extra `plot`.

    Writes `trials.csv`, `trials.md` and `report.html`, one page that works offline. Its interactive
    charts are the score of each trial, score against parameters, multiply-accumulates, activation
    memory, time and further objectives with their Pareto fronts, the learning curves, the
    importance of the hyperparameters and parallel coordinates: those that the search recorded
    enough for.

    Args:
        source: the directory of a KerasTuner project, of this package or not, or one that holds a
            single project; or a tuner, an Optuna study, or what `ray_search` returned.
        out: the folder to write into; by default `report` in the project, or
            `<name of the search>_report` in the working directory.
        objective: a `keras_tuner.Objective` or the name of a metric, if a directory does not tell.

    Returns:
        A `Report`.

    Raises:
        ValueError: if there is no project, or more than one, or if the objective is not clear.

    Examples:
        >>> import optuna
        >>> from keras_resblocks.tuner import report
        >>> study = optuna.create_study(study_name="mine")
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=5)
        >>> found = report(study)
        >>> found.paths["report.html"].as_posix()
        'mine_report/report.html'
    """
    search = search_records(source, objective)
    if out is None and search.folder:
        out = search.folder / "report"
    folder = pathlib.Path(out or f"{charts.file_name(search.name)}_report")
    folder.mkdir(parents=True, exist_ok=True)
    names = ("report.html", "trials.csv", "trials.md")
    found = Report(search, charts.importance(search), {name: folder / name for name in names})
    tables.write_csv(search, found.paths["trials.csv"])
    found.paths["trials.md"].write_text(str(found), encoding="utf-8")
    found.paths["report.html"].write_text(_page(search, found.importance), encoding="utf-8")
    return found


def trial_rows(tuner: Source) -> list[TrialRecord]:
    """The trials of a search, in the order of their start.

    Args:
        tuner: after its search, or amid it; or what `report` takes.

    Returns:
        A list of `TrialRecord`.

    Raises:
        ValueError: if there is no trial yet.

    Examples:
        >>> from keras_resblocks.tuner import trial_rows
        >>> [trial.score for trial in trial_rows(tuner)]  # needs: search
    """
    return list(search_records(tuner).trials)


def print_trials(tuner: Source) -> None:
    """Prints the trials of a search as a table, the best first. Needs the package `rich`.

    Args:
        tuner: after its search, or amid it; or what `report` takes.

    Raises:
        ValueError: if there is no trial yet.

    Examples:
        >>> from keras_resblocks.tuner import print_trials
        >>> print_trials(tuner)  # needs: search
    """
    from rich.console import Console

    console = Console()
    table = tables.rich_table(search_records(tuner), console.width if console.is_terminal else None)
    if not console.is_terminal:  # a file has room for all columns
        console.width = max(100, 14 * len(table.columns))
    console.print(table)


def plot_trials(tuner: Source, path: FilePath) -> None:
    """Saves a plot of the score of each trial against its number of parameters, by matplotlib.

    Args:
        tuner: after its search; or what `report` takes.
        path: of the image file, PNG by its suffix.

    Raises:
        ValueError: if there is no trial yet.

    Examples:
        >>> from keras_resblocks.tuner import plot_trials
        >>> plot_trials(tuner, "trials.png")  # needs: search
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    search = search_records(tuner)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for trials, style in ((search.scored, "o"), (search.pareto_front("params"), "-")):
        known = [trial for trial in trials if trial.params]
        axes.plot([t.params for t in known], [t.score for t in known], style)
    axes.set(xlabel="parameters", ylabel=search.objective.replace("$", r"\$"), xscale="log")
    figure.savefig(path, dpi=150)


def _page(search, importance):
    import jinja2
    import markupsafe
    from plotly.offline import get_plotlyjs

    drawn = charts.charts(search, importance)
    template = importlib.resources.files(__package__).joinpath("report.html.j2")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    # A long name may go on in a new line after each of its parts, and within long ones.
    environment.filters["breakable"] = lambda text: markupsafe.Markup("<wbr>").join(
        re.findall(r"[^_]{6}(?=[^\W_]{4})|.+?(?:_|$)", text, re.DOTALL)
    )
    times = [trial.seconds for trial in search.trials if trial.seconds is not None]
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        search=search,
        best=search.best,
        statuses=collections.Counter(trial.status.lower() for trial in search.trials),
        time=datetime.timedelta(seconds=round(sum(times))) if times else None,
        tables=tables,
        charts=drawn,
        plotly=get_plotlyjs() if drawn else "",
    )
