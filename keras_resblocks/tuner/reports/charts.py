"""The charts of a report; each is data that plotly draws for the page, and matplotlib as PNG."""

import dataclasses
import html
import re

from keras_resblocks.tuner.reports import tables
from keras_resblocks.tuner.reports.records import COSTS

BLUE, LIGHT, ORANGE, GREY = "#2563eb", "#93b4f5", "#ea580c", "#d1d5db"
_LABELLED = 40  # of more points, only those on the front have their numbers
_CONFIG = {
    # A list of its own: one of plotly's default buttons sends the chart to a server.
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    "plotlyServerURL": "",
    "displaylogo": False,
    "responsive": True,
}


def charts(search, importance):
    """All charts that the data of a search is enough for."""
    costs = (cost for cost in COSTS if cost != "trainable_params")
    drawn = [ScoreChart(search, cost) for cost in costs]
    drawn += [CurvesChart(search), ImportanceChart(importance)]
    return [chart for chart in drawn if chart.has_data()]


def file_name(text):
    """Text as the name of a file."""
    return re.sub(r"\W+", "_", text).strip("_").lower()


class _Chart:
    """What the charts share: a title, from which the file is named, and two ways to be drawn."""

    title: str
    height = 420

    @property
    def name(self):
        return file_name(self.title)

    def figure(self):
        """The chart as a `plotly` figure."""
        import plotly.graph_objects as go

        figure = go.Figure(self.traces(go))
        figure.update_layout(
            template="plotly_white",
            height=self.height,
            font={"family": "system-ui, sans-serif", "size": 13, "color": "#1f2937"},
            margin={"l": 70, "r": 20, "t": 30, "b": 60},
            legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            hoverlabel={"align": "left", "bgcolor": "white"},
            hovermode="closest",
        )
        self.lay_out(figure)
        return figure

    def html(self):
        """The chart as a part of a page that has plotly's script."""
        return self.figure().to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=self.name,
            config=_CONFIG,
        )

    def save_png(self, path):
        """Saves the chart as an image."""
        from matplotlib.figure import Figure  # without pyplot: no window, no global state

        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.set_title(_plain(self.title))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        self.draw(axes)
        figure.savefig(path, dpi=150)


@dataclasses.dataclass
class ScoreChart(_Chart):
    """Score against a cost on a logarithmic axis, with the Pareto front."""

    search: object
    cost: str

    def __post_init__(self):
        front = self.search.pareto_front(self.cost)
        others = [trial for trial in self.search.known(self.cost) if trial not in front]
        # Nothing on a logarithmic axis is 0. The front comes last, and so lies on top.
        front, others = ([t for t in trials if self._x(t) > 0] for trials in (front, others))
        self.trials = others + front
        self.front = self._points(front)
        self.points = self._points(self.trials)
        self.colors = [LIGHT] * len(others) + [BLUE] * len(front)
        self.title = f"{self.search.objective} against {COSTS[self.cost].split(' (')[0]}"

    def _x(self, trial):
        return getattr(trial, self.cost)

    def _points(self, trials):
        return list(map(self._x, trials)), [trial.score for trial in trials]

    def has_data(self):
        return bool(self.trials)

    @property
    def spread(self):
        """How many times the least is in the most; on it depend the ticks."""
        return max(self.points[0]) / min(self.points[0])

    def traces(self, go):
        line = {"color": ORANGE, "width": 1.5, "shape": "hv"}
        front = dict(mode="lines", name="Pareto front", line=line, hoverinfo="skip")
        marker = {"color": self.colors, "size": 10, "line": {"color": "white", "width": 1}}
        points = dict(mode="markers", name="trials", marker=marker, hoverinfo="text")
        x, y = self.points
        columns = tables.columns(self.search)
        hover = [_hover_text(columns, trial) for trial in self.trials]
        return [
            go.Scatter(x=self.front[0], y=self.front[1], **front),
            go.Scatter(x=x, y=y, hovertext=hover, **points),
        ]

    def lay_out(self, figure):
        dtick = "D2" if 6 < self.spread < 1e3 else None  # 1, 2 and 5 of each decade
        figure.update_xaxes(type="log", tickformat="~s", dtick=dtick, title_text=COSTS[self.cost])
        figure.update_yaxes(title_text=html.escape(self.search.objective))

    def draw(self, axes):
        from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

        axes.set(xlabel=COSTS[self.cost], ylabel=_plain(self.search.objective))
        if not self.has_data():
            return
        axes.set_xscale("log")
        axes.step(*self.front, where="post", color=ORANGE, lw=1.5, label="Pareto front", zorder=1)
        axes.scatter(*self.points, color=self.colors, label="trials", zorder=2)
        offset = dict(xytext=(5, 4), textcoords="offset points")
        for trial, x, y, color in zip(self.trials, *self.points, self.colors):
            if len(self.trials) <= _LABELLED or color == BLUE:
                axes.annotate(str(trial.number), (x, y), fontsize=8, color="#4b5563", **offset)
        subs = (1, 2, 5) if self.spread < 1e3 else (1,)
        axes.xaxis.set_major_locator(MaxNLocator(5) if self.spread <= 6 else LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter("")
        axes.legend()


@dataclasses.dataclass
class CurvesChart(_Chart):
    """The metrics of every trial over its epochs; on the page one metric at a time."""

    search: object
    title = "Learning curves"

    def __post_init__(self):
        # The best trial comes last, and so lies on top.
        self.trials = [trial for trial in reversed(self.search.ranked) if trial.history]
        names = dict.fromkeys(name for trial in self.trials for name in trial.history)
        self.metrics = sorted(names, key=lambda name: name != self.search.objective)

    def has_data(self):
        return bool(self.trials)

    def curves(self, metric):
        """Epochs and values of each trial."""
        for trial in self.trials:
            values = trial.history.get(metric, [])
            first = trial.first_epoch + 1
            yield list(range(first, first + len(values))), values

    def styles(self):
        """Color, width and label of each trial: the better the darker, and the best apart."""
        best, count = self.search.best, len(self.trials)
        for place, trial in enumerate(self.trials, start=1):
            label = f"trial {trial.number}"
            if trial is best:
                yield ORANGE, 2.5, f"best {label}"
            elif trial.score is None:
                yield GREY, 1, f"{label} ({trial.status.lower()})"
            else:
                yield _blend("#cfdcf7", BLUE, place / count), 1.2, label

    def traces(self, go):
        return [
            go.Scatter(
                x=x,
                y=y,
                mode="lines+markers" if len(y) == 1 else "lines",
                line={"color": color, "width": width},
                name=html.escape(label),
                hovertemplate=f"{html.escape(label)}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
            )
            for (x, y), (color, width, label) in zip(self.curves(self.metrics[0]), self.styles())
        ]

    def lay_out(self, figure):
        def button(metric):
            xs, ys = zip(*self.curves(metric))
            label = html.escape(metric)
            axis = {"yaxis.title.text": label}
            return {"label": label, "method": "update", "args": [{"x": xs, "y": ys}, axis]}

        menu = {"buttons": list(map(button, self.metrics)), "x": 0, "xanchor": "left"}
        menu |= {"y": 1.03, "yanchor": "bottom", "showactive": True}
        figure.update_layout(updatemenus=[menu], showlegend=False, margin_t=60)
        figure.update_xaxes(title_text="epoch", tickformat="d")
        figure.update_yaxes(title_text=html.escape(self.metrics[0]))

    def draw(self, axes):
        from matplotlib.ticker import MaxNLocator

        for (x, y), (color, width, label) in zip(self.curves(self.metrics[0]), self.styles()):
            axes.plot(x, y, color=color, lw=width, marker="." if len(y) == 1 else "", label=label)
        axes.set(xlabel="epoch", ylabel=_plain(self.metrics[0]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[-1:], labels[-1:])


@dataclasses.dataclass
class ImportanceChart(_Chart):
    """A bar for each hyperparameter, the most important on top."""

    importance: dict
    title = "Hyperparameter importance"

    def __post_init__(self):
        self.names = list(reversed(self.importance))
        self.shares = [self.importance[name] for name in self.names]
        self.height = 110 + 36 * len(self.names)

    def has_data(self):
        return bool(self.names)

    def traces(self, go):
        names, color = list(map(html.escape, self.names)), {"color": BLUE}
        hover = "%{y}: %{x:.1%}<extra></extra>"
        bars = dict(orientation="h", marker=color, hovertemplate=hover)
        return [go.Bar(x=self.shares, y=names, text=self.shares, texttemplate="%{x:.0%}", **bars)]

    def lay_out(self, figure):
        figure.update_xaxes(title_text="share of importance", tickformat=".0%")
        figure.update_yaxes(automargin=True, type="category")

    def draw(self, axes):
        from matplotlib.ticker import PercentFormatter

        axes.barh(list(map(_plain, self.names)), self.shares, color=BLUE)
        axes.set(xlabel="share of importance")
        axes.xaxis.set_major_formatter(PercentFormatter(1))


def _hover_text(columns, trial):
    """All columns of a trial, one a line."""
    lines = (f"{column.title}: {column.show(trial)}" for column in columns)
    return "<br>".join(map(html.escape, lines))


def _plain(text):
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _blend(light, dark, share):
    """A color between two of the form #rrggbb."""
    pairs = zip(*(bytes.fromhex(color[1:]) for color in (light, dark)))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
