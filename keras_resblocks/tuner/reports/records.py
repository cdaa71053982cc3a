"""What a search left behind, as data: read from a KerasTuner project, a tuner or an Optuna study.

A directory of stock KerasTuner has the values and the score of each trial, and a checkpoint whose
parameters can be counted. Beside them there may be

- `search.json`: `{"objective": {"name", "direction"}, "hypermodel": {...}}`;
- `trial_<id>/record.json`: `{"cost": {"params", "trainable_params", "macs", "activation_memory"},
  "history": {"loss": [...]}, "seconds": {"total", "training"}, "summary": "..."}`.

Whatever is not there is None, or empty.
"""

import dataclasses
import math
import pathlib

import keras

from keras_resblocks.models import Cost, cost
from keras_resblocks.tuner import storage

COSTS = {
    "params": "parameters",
    "trainable_params": "trainable parameters",
    "macs": "multiply-accumulates",
    "activation_memory": "activation memory (bytes)",
    "seconds": "time (s)",
}
_INTERNAL = "tuner/"  # what KerasTuner's Hyperband adds to the values of a trial


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """A trial.

    Attributes:
        number: as the search counts: from 1 in the order of start in KerasTuner, from 0 in Optuna.
        trial_id: the search's own name of the trial.
        status: `"COMPLETED"`, `"FAILED"`, `"RUNNING"`, ...; `"UNREADABLE"` if its file is damaged.
        score: of the objective; None if the trial was not completed.
        values: all its values, those of Hyperband (`tuner/epochs`, ...) included.
        params, trainable_params, macs, activation_memory: what its model costs; memory in bytes.
        history: a list of values, one an epoch, by the name of the metric.
        seconds, training_seconds: that the trial took, and its training.
        message: what a trial that failed said.
        summary: of its model, as text.
    """

    number: int
    trial_id: str
    status: str
    score: float | None = None
    values: dict = dataclasses.field(default_factory=dict)
    params: int | None = None
    trainable_params: int | None = None
    macs: int | None = None
    activation_memory: int | None = None
    history: dict = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    training_seconds: float | None = None
    message: str | None = None
    summary: str | None = None

    @property
    def hyperparameters(self):
        """The values without those of Hyperband."""
        return {k: v for k, v in self.values.items() if not k.startswith(_INTERNAL)}

    @property
    def epochs(self):
        """The epoch up to which the model was trained; None if that is not known."""
        length = max(map(len, self.history.values()), default=0)
        return self.values.get(f"{_INTERNAL}epochs", length or None)

    @property
    def first_epoch(self):
        """Epochs that another trial had trained the model for, before this one went on."""
        return self.values.get(f"{_INTERNAL}initial_epoch", 0)

    @property
    def cost(self):
        """The `Cost` of the model."""
        return Cost(self.params, self.trainable_params, self.macs)


@dataclasses.dataclass(frozen=True)
class SearchRecords:
    """A search.

    Attributes:
        name: of the project or study.
        objective: name of what was optimized.
        direction: `"min"` or `"max"`; None if no trial has a score and so there is no telling.
        trials: a `TrialRecord` for each, by number.
        folder: of the project, a `pathlib.Path`; None for a study.
        hypermodel: how the space was described, if the search wrote that down.
    """

    name: str
    objective: str
    direction: str | None
    trials: tuple
    folder: pathlib.Path | None = None
    hypermodel: dict = dataclasses.field(default_factory=dict)

    @property
    def hyperparameters(self):
        """The names of the hyperparameters, sorted."""
        return sorted({name for trial in self.trials for name in trial.hyperparameters})

    @property
    def scored(self):
        """The trials with a score, best first; of equal ones the smallest, then the first."""

        def rank(trial):
            return (
                -self.gain(trial),
                math.inf if trial.params is None else trial.params,
                trial.number,
            )

        return sorted((trial for trial in self.trials if trial.score is not None), key=rank)

    @property
    def ranked(self):
        """All trials: those with a score, best first, then the others."""
        return self.scored + [trial for trial in self.trials if trial.score is None]

    @property
    def best(self):
        """The best trial, None if no trial has a score."""
        return next(iter(self.scored), None)

    @property
    def missing(self):
        """What no trial has a record of."""
        names = {**COSTS, "history": "learning curves", "summary": "model summaries"}
        return [
            names[field].split(" (")[0]
            for field in names
            if not any(getattr(trial, field) for trial in self.trials)
        ]

    def gain(self, trial):
        """The score, or its negative where less is better."""
        return trial.score if self.direction == "max" else -trial.score

    def known(self, cost):
        """The trials that have a score and the cost, cheapest first, of equal ones the best."""
        trials = [trial for trial in self.scored if getattr(trial, cost) is not None]
        return sorted(trials, key=lambda trial: getattr(trial, cost))

    def pareto_front(self, cost):
        """The trials that no other one beats: as good for less, or better for the same.

        Args:
            cost: `"params"`, `"trainable_params"`, `"macs"`, `"activation_memory"` or `"seconds"`.

        Returns:
            A list of `TrialRecord`, cheapest first. Trials equal in both are all in it.

        Raises:
            ValueError: for another `cost`.
        """
        if cost not in COSTS:
            raise ValueError(f"`cost` must be one of {', '.join(COSTS)}. Received: cost={cost!r}")

        def equal(trial, other):
            return trial.score == other.score and getattr(trial, cost) == getattr(other, cost)

        front = []
        for trial in self.known(cost):
            last = front[-1] if front else None
            if last is None or self.gain(trial) > self.gain(last) or equal(trial, last):
                front.append(trial)
        return front


def search_records(source, objective=None):
    """The records of a search.

    Args:
        source: the directory of a KerasTuner project (or one that holds a single project), a
            tuner, or an Optuna study.
        objective: what the search optimized, a `keras_tuner.Objective` or the name of a metric.
            Needed only if a directory does not tell.

    Raises:
        ValueError: if there is no project, or more than one, or if the objective is not clear.
    """
    if hasattr(source, "oracle"):
        return tuner_records(source)
    if hasattr(source, "study_name"):
        return study_records(source, objective)
    return project_records(source, objective)


def tuner_records(tuner):
    """The records of a tuner's search, with the costs that its hypermodel can tell."""
    search = project_records(tuner.project_dir, tuner.oracle.objective)
    if not hasattr(tuner.hypermodel, "cost"):
        return search

    def with_cost(trial):
        live = tuner.oracle.trials.get(trial.trial_id)
        if live is None or trial.macs is not None:
            return trial
        cost = tuner.hypermodel.cost(live.hyperparameters)
        fields = ("params", "trainable_params", "macs")
        return dataclasses.replace(trial, **{name: getattr(cost, name) for name in fields})

    return dataclasses.replace(search, trials=tuple(map(with_cost, search.trials)))


def project_records(directory, objective=None):
    """The records of a KerasTuner project; `directory` and `objective` as in `search_records`."""
    folder = _project_folder(pathlib.Path(directory))
    order = (storage.read_intact(folder / "oracle.json") or {}).get("start_order", [])
    folders = {path.name.removeprefix("trial_"): path for path in folder.glob("trial_*")}
    late = sorted(folders.keys() - set(order), key=lambda key: (len(key), key))
    states = {key: storage.read_intact(path / "trial.json") for key, path in folders.items()}
    search = storage.read_intact(folder / "search.json") or {}
    name, direction = _objective(
        objective, search.get("objective"), [state for state in states.values() if state]
    )
    trials = tuple(
        _trial(number, key, folders[key], states[key])
        for number, key in enumerate([*order, *late], start=1)
        if key in folders
    )
    return SearchRecords(
        folder.resolve().name, name, direction, trials, folder, search.get("hypermodel") or {}
    )


def study_records(study, objective=None):
    """The records of an Optuna study.

    A trial may have the content of a `record.json` as its user attribute `record`. One with a
    true user attribute `over_budget` was never trained, and is left out.

    Args:
        study: an `optuna.Study` with one objective.
        objective: a name for it; by default its metric name, or `"value"`.
    """
    if len(study.directions) != 1:
        raise ValueError(
            f"`study` must have one objective. Received: a study with {len(study.directions)}"
        )
    names = {"COMPLETE": "COMPLETED", "FAIL": "FAILED"}
    name, _ = _named(objective)
    name = name or (getattr(study, "metric_names", None) or ["value"])[0]

    def record(trial):
        status = names.get(trial.state.name, trial.state.name)
        recorded = _recorded(trial.user_attrs.get("record") or {})
        steps = sorted(trial.intermediate_values)
        if steps and not recorded["history"]:
            recorded["history"] = {name: [trial.intermediate_values[step] for step in steps]}
        return TrialRecord(
            trial.number,
            str(trial.number),
            status,
            _finite(trial.value) if status == "COMPLETED" else None,
            dict(trial.params),
            message=trial.user_attrs.get("message"),
            **recorded,
        )

    trials = (trial for trial in study.trials if not trial.user_attrs.get("over_budget"))
    direction = study.directions[0].name.lower()[:3]  # of MAXIMIZE and MINIMIZE
    return SearchRecords(study.study_name, name, direction, tuple(map(record, trials)))


def _project_folder(directory):
    if _is_project(directory):
        return directory
    if not directory.is_dir():
        raise ValueError(
            "`directory` must be that of a KerasTuner project. "
            f"Received: {str(directory)!r}, which is no directory"
        )
    inside = sorted(path for path in directory.iterdir())
    projects = [path for path in inside if path.is_dir() and _is_project(path)]
    if len(projects) == 1:
        return projects[0]
    what = "projects" if projects else "only"
    names = ", ".join(path.name for path in projects or inside) or "nothing"
    raise ValueError(
        "`directory` must be that of a KerasTuner project, or hold exactly one. "
        f"Received: {str(directory)!r}, which holds {what} {names}"
    )


def _is_project(folder):
    names = ("oracle.json", f"oracle.json{storage.TWIN}")
    return any((folder / name).is_file() for name in names) or any(
        folder.glob("trial_*/trial.json")
    )


def _trial(number, key, folder, state):
    if not state:
        message = f"{str(folder / 'trial.json')!r} is missing or damaged."
        return TrialRecord(number, key, "UNREADABLE", message=message)
    recorded = _recorded(storage.read_intact(folder / "record.json") or {})
    if recorded["params"] is None:
        recorded["params"] = _checkpoint_params(folder / "checkpoint.weights.h5")
    if not recorded["history"]:  # a tuner of one's own may have reported every epoch
        metrics = _metrics(state).items()
        curves = {name: _means(metric) for name, metric in metrics}
        recorded["history"] = {name: curve for name, curve in curves.items() if len(curve) > 1}
    return TrialRecord(
        number,
        key,
        state["status"],
        _finite(state["score"]) if state["status"] == "COMPLETED" else None,
        state["hyperparameters"]["values"],
        message=state.get("message"),
        **recorded,
    )


def _recorded(record):
    cost, seconds = record.get("cost") or {}, record.get("seconds") or {}
    names = ("params", "trainable_params", "macs", "activation_memory")
    return {
        **{name: cost.get(name) for name in names},
        "history": record.get("history") or {},
        "seconds": seconds.get("total"),
        "training_seconds": seconds.get("training"),
        "summary": record.get("summary"),
    }


def _checkpoint_params(path):
    """Parameters in a weights file of Keras, None if there is none that can be read."""
    import h5py

    sizes = []

    def visit(name, item):
        # Keras keeps the variables of every object, and the optimizer is one, in a group `vars`.
        if isinstance(item, h5py.Dataset) and "optimizer" not in name.split("/"):
            sizes.append(item.size)

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except OSError:  # missing, or half-written by a trial under way
        return None
    return sum(sizes)


def _objective(asked, written, states):
    """Name and direction of the objective.

    KerasTuner writes down neither. But the score of a trial is the best value of the objective
    among its metrics, and a metric has a direction.
    """
    scored = [state for state in states if _finite(state["score"]) is not None]
    directions = {
        name: metric["direction"] for state in states for name, metric in _metrics(state).items()
    }
    matching = [
        name
        for name in directions
        if scored and all(_is_score(_metrics(state).get(name), state["score"]) for state in scored)
    ]
    name, direction = _named(asked)
    if name is not None:
        direction = direction or directions.get(name)
        if direction is None or (name in directions and matching and name not in matching):
            raise ValueError(
                "`objective` must be what the search optimized"
                + (f", {' or '.join(matching)}. " if matching else ", a `keras_tuner.Objective`. ")
                + f"Received: objective={name!r}"
            )
        return name, direction
    if written:
        return written["name"], written["direction"]
    if not scored:
        return "score", None
    if len({directions[name] for name in matching}) != 1:
        raise ValueError(
            "`objective` must be given, as a `keras_tuner.Objective`: the scores of the trials are "
            f"those of {' and of '.join(matching) or 'none of their metrics'}. "
            "Received: objective=None"
        )
    # Several only if they are equal in every trial: a search is for a validation metric, mostly.
    return min((not name.startswith("val_"), name) for name in matching)[1], directions[matching[0]]


def _named(objective):
    if objective is None or isinstance(objective, str):
        return objective, None
    return objective.name, objective.direction


def _metrics(state):
    return state["metrics"]["metrics"]


def _means(metric):
    """A value for each step, the mean over the executions of a trial."""
    values = (observation["value"] for observation in metric["observations"])
    return [sum(value) / len(value) for value in values]


def _is_score(metric, score):
    """Whether a score is the best value of a metric, None for one that the trial lacks."""
    values = [value for value in _means(metric) if not math.isnan(value)] if metric else []
    choose = max if metric and metric["direction"] == "max" else min
    return bool(values) and math.isclose(choose(values), score)


def _finite(value):
    return None if value is None or not math.isfinite(value) else float(value)


def describe(model):
    """What a trial's `record.json` says of its model: costs, and a summary."""
    if not isinstance(model, keras.Model):  # what a hypermodel builds may be anything
        return {"cost": {}, "summary": ""}
    counted = cost(model)
    bytes_in_float32 = None if counted.activations is None else 4 * counted.activations
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line), line_length=100)
    return {
        "cost": {
            "params": counted.params,
            "trainable_params": counted.trainable_params,
            "macs": counted.macs,
            "activation_memory": bytes_in_float32,
        },
        "summary": "\n".join(lines),
    }
