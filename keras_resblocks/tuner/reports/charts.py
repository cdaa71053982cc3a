"""The charts of a report, by plotly and Optuna."""

import html
import re
import textwrap
import typing

from keras_resblocks.tuner.reports import tables
from keras_resblocks.tuner.reports.records import COSTS

BLUE, LIGHT, ORANGE, GREY = "#2563eb", "#93b4f5", "#ea580c", "#d1d5db"
_MOST_LINES, _MOST_AXES = 100, 10  # of one chart; a browser takes seconds for thousands
_CONFIG = {
    # A list of its own: one of plotly's default buttons sends the chart to a server.
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    "plotlyServerURL": "",
    "displaylogo": False,
    "responsive": True,
}


class Chart(typing.NamedTuple):
    """A chart: its title, a plotly figure, and a note."""

    title: str
    figure: typing.Any
    note: str = ""
    is_wide: bool = False

    def html(self):
        """The chart as a part of a page that has plotly's script."""
        figure, margin = self.figure, self.figure.layout.margin
        figure.update_layout(
            title=None,
            template="plotly_white",
            height=figure.layout.height or 420,
            font={"family": "system-ui, sans-serif", "size": 13, "color": "#1f2937"},
            # At the top is room for plotly's buttons above a legend or menu.
            margin={"l": 70, "r": margin.r or 20, "t": 80, "b": 60},
            legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            hoverlabel={"align": "left", "bgcolor": "white"},
            hovermode="closest",
        )
        options = {"full_html": False, "include_plotlyjs": False, "config": _CONFIG}
        return figure.to_html(div_id=file_name(self.title), **options)


def file_name(text):
    """Text as the name of a file."""
    return re.sub(r"\W+", "_", text).strip("_").lower()


def charts(search, importance):
    """All charts that the data of a search is enough for, each a `Chart`."""
    hover = _hover(search)
    costs = [name for name in (*search.others, *COSTS) if name != "trainable_params"]
    drawn = [
        _history(search, hover),
        *(_front(search, name, hover) for name in costs),
        _curves(search),
        _importance(importance),
        _parallel(search, importance),
    ]
    return [chart for chart in drawn if chart]


def importance(search):
    """The share of each hyperparameter in the differences of the scores: a heuristic.

    Optuna's mean decrease of impurity in a random forest: its fANOVA takes minutes for a thousand
    trials, and its PED-ANOVA says little of twenty. The epochs that Hyperband gave a trial are
    shown as well (`epochs (Hyperband)`): their effect is not that of the hyperparameters.

    Returns:
        A dict, most important first; the shares sum to 1. Empty with fewer than 4 scored trials,
        or if nothing varied. The same search gives the same shares.
    """
    import optuna

    scores = {trial.score for trial in search.scored}
    if len(search.scored) < 4 or len(scores) == 1 or not _varying(search):
        return {}
    forest = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
    study = _study(search, search.scored)
    shares = optuna.importance.get_param_importances(study, evaluator=forest)
    return {html.unescape(name): float(share) for name, share in shares.items()}


def _varying(search):
    """The hyperparameters that vary, safe in a page: a list by name, in the order of `scored`."""
    chosen = [dict(trial.hyperparameters) for trial in search.scored]
    for trial, values in zip(search.scored, chosen):
        if "tuner/epochs" in trial.values:
            values["epochs (Hyperband)"] = trial.epochs
    varying = {}
    for name in sorted(set().union(*chosen)):
        # Optuna's forest takes no trial that lacks a value.
        values = [one.get(name, "absent") for one in chosen]
        if len(set(values)) > 1:
            varying[html.escape(name)] = [
                value if isinstance(value, (bool, int, float)) else html.escape(str(value))
                for value in values
            ]
    return varying


def _study(search, trials):
    """A study of Optuna in memory of these trials in this order; None is a failed one."""
    import optuna

    varying = _varying(search)
    kinds = {name: _distribution(values) for name, values in varying.items()}
    chosen = dict(zip((trial.number for trial in search.scored), zip(*varying.values())))
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction=f"{search.direction}imize")
    optuna.logging.set_verbosity(before)
    for trial in trials:
        if trial is None:
            frozen = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL)
        else:
            params = dict(zip(kinds, chosen.get(trial.number, ())))
            given = {"params": params, "distributions": kinds}
            frozen = optuna.trial.create_trial(value=trial.score, **given)
        study.add_trial(frozen)
    return study


def _distribution(values):
    """What values may have been drawn from: few, or words, are choices."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    choices = list(dict.fromkeys(values))
    if all(type(value) in (int, float) for value in choices):  # a flag is no number
        low, high = min(choices), max(choices)
        if len(choices) > 12:
            return FloatDistribution(low, high, log=low > 0 and high > 100 * low)
        choices.sort()
    return CategoricalDistribution(choices)


def _hover(search):
    """What a point says: the number of its trial and its hyperparameters."""
    shown = tables.hyperparameter_columns(search)

    def text(trial):
        cells = ", ".join(f"{c.title}: {c.show(trial)}" for c in shown if c.show(trial))
        lines = [f"trial {trial.number}", *textwrap.wrap(cells, 60)]
        return "<br>".join(map(html.escape, lines))

    return {trial.number: text(trial) for trial in search.trials}


def _history(search, hover):
    if not search.best:
        return None
    from optuna.visualization import plot_optimization_history

    scored = {trial.number: trial for trial in search.scored}
    study = _study(search, map(scored.get, range(max(scored) + 1)))
    figure = plot_optimization_history(study, target_name=html.escape(search.objective))
    points, best, _ = figure.data
    texts = [hover[number] for number in points.x]
    points.update(hovertext=texts, hovertemplate="%{hovertext}<br>%{y:.4f}<extra></extra>")
    points.update(marker_color=LIGHT, name="trials")
    best.update(name="best so far", line={"shape": "hv", "color": ORANGE}, hoverinfo="skip")
    figure.update_xaxes(title="trial", **_whole_numbers(max(points.x)))
    return Chart("Score of each trial", figure)


def _front(search, name, hover):
    """Score against a cost or a further objective; Optuna's front has no logarithmic axis."""
    import plotly.graph_objects as go

    label = COSTS.get(name, name)
    costs = {trial.number: search.value(trial, name) for trial in search.scored}
    # The axis of a cost is logarithmic, without a 0; a metric may be less.
    costs = {n: cost for n, cost in costs.items() if (cost if name in COSTS else cost is not None)}
    if not costs:
        return None
    front = [trial for trial in search.pareto_front(name) if trial.number in costs]
    rest = [trial for trial in search.scored if trial.number in costs and trial not in front]
    figure = go.Figure()
    for title, trials, mode, color in (
        ("trials", rest, "markers", LIGHT),
        ("Pareto front", front, "lines+markers", BLUE),
    ):
        figure.add_scatter(
            x=[costs[trial.number] for trial in trials],
            y=[trial.score for trial in trials],
            name=title,
            mode=mode,
            marker={"color": color, "size": 9, "line": {"color": "white", "width": 1}},
            line={"color": ORANGE, "width": 1.5, "shape": "hv"},
            hovertext=[hover[trial.number] for trial in trials],
            hovertemplate="%{hovertext}<br>%{xaxis.title.text}: %{x:,}<br>%{y:.4f}<extra></extra>",
        )
    figure.update_xaxes(title=html.escape(label))
    figure.update_yaxes(title=html.escape(search.objective))
    if name in COSTS:
        ratio = max(costs.values()) / min(costs.values())
        dtick = "D2" if 6 < ratio < 1e3 else None  # 1, 2 and 5 of each decade
        figure.update_xaxes(type="log", tickformat="~s", dtick=dtick)
    return Chart(f"{search.objective} against {label.split(' (')[0]}", figure)


def _curves(search):
    """The metrics over the epochs, one at a time; the better a trial, the darker its curve."""
    import plotly.graph_objects as go
    from plotly.colors import sample_colorscale

    trained = [trial for trial in search.ranked if trial.history]
    drawn = trained[:_MOST_LINES]
    if not drawn:
        return None
    names = dict.fromkeys(name for trial in drawn for name in trial.history)
    metrics = sorted(names, key=lambda name: name != search.objective)
    shades = sample_colorscale("Blues", [0.9 - 0.6 * n / len(drawn) for n in range(len(drawn))])
    figure, buttons = go.Figure(), []
    for metric in metrics:
        for trial, shade in reversed([*zip(drawn, shades)]):  # the best comes last, on top
            is_best = trial is search.best
            color = GREY if trial.score is None else ORANGE if is_best else shade
            values = trial.history.get(metric, [])
            figure.add_scatter(
                x=[trial.first_epoch + epoch for epoch in range(1, len(values) + 1)],
                y=values,
                name=f"trial {trial.number}",
                mode="lines+markers" if len(values) == 1 else "lines",
                line={"color": color, "width": 2.5 if is_best else 1.2},
                visible=metric == metrics[0],
            )
        label, visible = html.escape(metric), [m == metric for m in metrics for _ in drawn]
        args = [{"visible": visible}, {"yaxis.title.text": label}]
        buttons.append({"label": label, "method": "update", "args": args})
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.03, "yanchor": "bottom"}
    figure.update_layout(updatemenus=[menu], showlegend=False)
    longest = max(epoch for trace in figure.data for epoch in trace.x)
    figure.update_xaxes(title="epoch", **_whole_numbers(longest))
    figure.update_yaxes(title=html.escape(metrics[0]))
    return Chart("Learning curves", figure, _note(drawn, trained, "the best"))


def _importance(importance):
    if not importance:
        return None
    import plotly.graph_objects as go

    figure = go.Figure(layout_height=110 + 26 * len(importance))
    figure.add_bar(
        x=list(importance.values()),
        y=list(map(html.escape, importance)),
        orientation="h",
        marker_color=BLUE,
        texttemplate="%{x:.0%}",
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    figure.update_xaxes(title="share of importance", tickformat=".0%")
    figure.update_yaxes(automargin=True, type="category", autorange="reversed")
    return Chart("Hyperparameter importance", figure)


def _parallel(search, importance):
    """The score and the most important hyperparameters."""
    if not importance:
        return None
    from optuna.visualization import plot_parallel_coordinate

    scored, names = search.scored, [html.escape(name) for name in importance][:_MOST_AXES]
    drawn = scored[:: -(-len(scored) // _MOST_LINES)]
    study = _study(search, drawn)
    figure = plot_parallel_coordinate(study, names, target_name=html.escape(search.objective))
    figure.update_traces(marker_showscale=False)  # the score has an axis
    figure.update_xaxes(automargin=True, ticklabeloverflow="allow")
    figure.update_layout(margin_r=60)
    note = _note(drawn, scored, "evenly over the ranking,")
    if len(names) < len(importance):
        note = f"The {len(names)} most important hyperparameters. {note}"
    return Chart("Parallel coordinates", figure, note, is_wide=True)


def _whole_numbers(most):
    return {"tickformat": "d", "dtick": 1 if most <= 10 else None}


def _note(drawn, trials, which):
    hidden = len(trials) - len(drawn)
    return f"Drawn are {which} {len(drawn)} of {len(trials)} trials." if hidden else ""
