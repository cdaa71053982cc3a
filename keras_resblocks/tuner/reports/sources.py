"""Records of a search, read from what KerasTuner, Optuna or Ray left behind.

A directory of stock KerasTuner has the space, the values and score of each trial, and a checkpoint
whose parameters can be counted. Our searches add what `keras_resblocks.tuner.descriptions` makes:
to `search.json` and each trial's `record.json`, to an Optuna study's user attributes `search` and
`record`, to Ray's checkpoints. Whatever is not there is None, or empty.
"""

import math
import pathlib

from keras_resblocks import json_files
from keras_resblocks.tuner.reports.records import COSTS, SearchRecords, TrialRecord


def search_records(source, objective=None):
    """The records of a search; the arguments and errors are those of `report`."""
    if hasattr(source, "oracle"):
        return project_records(source.project_dir, source.oracle.objective)
    if hasattr(source, "study_name"):
        return study_records(source, objective)
    if hasattr(source, "experiment_path"):
        return ray_records(source)
    return project_records(source, objective)


def project_records(directory, objective=None):
    """The records of a KerasTuner project."""
    folder = _project_folder(pathlib.Path(directory))
    oracle = json_files.read(folder / "oracle.json") or {}
    folders = {path.name.removeprefix("trial_"): path for path in folder.glob("trial_*")}
    started = oracle.get("start_order", [])
    late = sorted(folders.keys() - set(started), key=lambda key: (len(key), key))
    states = {key: json_files.read(path / "trial.json") for key, path in folders.items()}
    about = json_files.read(folder / "search.json") or {}
    found = list(filter(None, states.values()))
    trials = (
        _trial(int(key) if key.isdecimal() else number, key, folders[key], states[key])
        for number, key in enumerate([*started, *late])
        if key in folders
    )
    drawn = [one["config"] for one in oracle.get("hyperparameters", {}).get("space", [])]
    return SearchRecords(
        folder.resolve().name,
        *_objective(objective, about.get("objective"), found),
        tuple(trials),
        folder,
        space={config["name"]: _drawn_from(config) for config in drawn},
        about=about,
    )


def _project_folder(directory):
    if _is_project(directory):
        return directory
    expected = "`directory` must be that of a KerasTuner project"
    received = f"Received: {str(directory)!r}, which"
    if not directory.is_dir():
        raise ValueError(f"{expected}. {received} is no directory")
    inside = sorted(directory.iterdir())
    projects = [path for path in inside if _is_project(path)]
    if len(projects) == 1:
        return projects[0]
    names = ", ".join(path.name for path in projects or inside)
    what = "holds projects" if projects else "holds only" if inside else "is empty"
    raise ValueError(f"{expected}, or hold exactly one. {received} {what} {names}".rstrip())


def _is_project(folder):
    return (folder / "oracle.json").is_file() or any(folder.glob("trial_*/trial.json"))


def _trial(number, key, folder, state):
    if not state:
        message = f"{str(folder / 'trial.json')!r} is missing or damaged."
        return TrialRecord(number, key, "UNREADABLE", message=message)
    recorded = _recorded(json_files.read(folder / "record.json"))
    recorded["build_config"] = json_files.read(folder / "build_config.json")
    weights = folder / "checkpoint.weights.h5"
    if recorded["params"] is None:
        recorded["params"] = _checkpoint_params(weights)
    if not recorded["history"]:  # a tuner of one's own may have reported every epoch
        curves = {name: _means(metric) for name, metric in _metrics(state).items()}
        recorded["history"] = {name: curve for name, curve in curves.items() if len(curve) > 1}
    return TrialRecord(
        number,
        key,
        state["status"],
        _finite(state["score"]) if state["status"] == "COMPLETED" else None,
        state["hyperparameters"]["values"],
        message=state.get("message"),
        weights=_weights(weights),
        **recorded,
    )


def study_records(study, objective=None):
    """The records of an Optuna study: of several objectives, the first metric is the score.

    A trial with a user attribute `void` or a true `over_budget` was never trained, and is left out.
    """
    names = study.metric_names or [f"value {i}" for i in range(len(study.directions))]
    if len(names) == 1:
        names = [_name(objective) or (study.metric_names or ["value"])[0]]
    directions = dict(zip(names, [one.name.lower()[:3] for one in study.directions]))
    score, others = _score_and_others(directions)
    about = study.user_attrs.get("search", {})
    statuses = {"COMPLETE": "COMPLETED", "FAIL": "FAILED"}

    def record(trial):
        values = dict(zip(names, trial.values or ())) if trial.state.name == "COMPLETE" else {}
        recorded = _recorded(trial.user_attrs.get("record"))
        steps = sorted(trial.intermediate_values)
        if steps and not recorded["history"]:
            recorded["history"] = {score: [trial.intermediate_values[step] for step in steps]}
        if recorded["seconds"] is None and trial.duration is not None:  # as of a pruned one
            recorded["seconds"] = trial.duration.total_seconds()
        folder = about.get("directory")
        return TrialRecord(
            trial.number,
            str(trial.number),
            statuses.get(trial.state.name, trial.state.name),
            _finite(values.get(score)),
            dict(trial.params),
            message=trial.user_attrs.get("failure") or trial.user_attrs.get("message"),
            metrics={name: values.get(name) for name in others},
            weights=folder and _weights(f"{folder}/trial_{trial.number}/best.weights.h5"),
            **recorded,
        )

    unwanted = ("void", "over_budget")
    trials = [one for one in study.trials if not any(map(one.user_attrs.get, unwanted))]
    kinds = {name: kind for trial in trials for name, kind in trial.distributions.items()}
    return SearchRecords(
        study.study_name,
        score,
        directions[score],
        tuple(map(record, trials)),
        others=others,
        space={name: _drawn_from(vars(kind)) for name, kind in kinds.items()},
        about=about,
    )


def ray_records(results):
    """The records of a search by `ray_search`."""
    contents = [_ray_content(result) for result in results]
    objectives = next(filter(None, (content.get("objectives") for content in contents)), [])
    directions = {one["name"]: one["direction"] for one in objectives} or {"score": None}
    score, others = _score_and_others(directions)

    def record(number, result, content):
        metrics = result.metrics or {}
        value = _finite(metrics.get(score))
        return TrialRecord(
            number,
            metrics.get("trial_id", str(number)),
            "FAILED" if value is None else "COMPLETED",
            value,
            dict(result.config or {}),
            message=metrics.get("failure") or (str(result.error) if result.error else None),
            metrics={name: metrics.get(name) for name in others},
            weights=result.checkpoint and _weights(f"{result.checkpoint.path}/best.weights.h5"),
            **_recorded(content),
        )

    return SearchRecords(
        pathlib.PurePath(results.experiment_path).name,
        score,
        directions[score],
        tuple(record(i, *pair) for i, pair in enumerate(zip(results, contents))),
        others=others,
        about=next(filter(None, (content.get("search") for content in contents)), {}),
    )


def _ray_content(result):
    if result.checkpoint is None:
        return {}
    with result.checkpoint.as_directory() as folder:
        return json_files.read(pathlib.Path(folder) / "record.json") or {}


def _score_and_others(directions):
    """The name of the score among objectives, and the directions of other metrics by name."""
    metrics = [name for name in directions if name not in COSTS] or list(directions)
    score, *others = metrics
    return score, {name: directions[name] for name in others}


def _recorded(record):
    """The fields of a `TrialRecord` that a `record.json` tells, None for no such file."""
    record = record or {}
    cost, seconds = record.get("cost") or {}, record.get("seconds") or {}
    names = ("params", "trainable_params", "macs", "activation_memory")
    return {
        **{name: cost.get(name) for name in names},
        "history": record.get("history") or {},
        "seconds": seconds.get("total"),
        "training_seconds": seconds.get("training"),
        "summary": record.get("summary"),
        "build_config": record.get("build_config"),
    }


def _weights(path):
    return str(path) if pathlib.Path(path).is_file() else None


def _drawn_from(config):
    """What a hyperparameter of KerasTuner or Optuna is drawn from, as text, by its attributes."""
    values = config.get("values", config.get("choices"))
    if values is not None:
        return ", ".join(map(str, values))
    low = config.get("min_value", config.get("low"))
    high = config.get("max_value", config.get("high"))
    if low is None:
        return str(config.get("value", "True, False"))  # of Fixed, of Boolean
    step = f", step {config['step']}" if config.get("step") not in (None, 1) else ""
    is_log = config.get("log") or config.get("sampling") == "log"
    return f"{low} to {high}{step}{', log' if is_log else ''}"


def _checkpoint_params(path):
    """Parameters in a weights file of Keras, None if there is none that can be read."""
    import h5py

    sizes = []

    def visit(name, item):
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
    matching = [n for n in directions if scored and all(_is_score(state, n) for state in scored)]
    if asked is not None:
        name = _name(asked)
        direction = getattr(asked, "direction", None) or directions.get(name)
        if direction is None or (name in directions and matching and name not in matching):
            what = " or ".join(matching) or "a `keras_tuner.Objective`"
            raise ValueError(
                f"`objective` must be what the search optimized, {what}. "
                f"Received: objective={name!r}"
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


def _name(objective):
    return getattr(objective, "name", objective)


def _metrics(state):
    return state["metrics"]["metrics"]


def _means(metric):
    """A value for each step, the mean over the executions of a trial."""
    values = (observation["value"] for observation in metric["observations"])
    return [sum(value) / len(value) for value in values]


def _is_score(state, name):
    """Whether the score of a trial is the best value of a metric."""
    metric = _metrics(state).get(name)
    values = [value for value in _means(metric) if not math.isnan(value)] if metric else []
    choose = max if metric and metric["direction"] == "max" else min
    return bool(values) and math.isclose(choose(values), state["score"])


def _finite(value):
    return None if value is None or not math.isfinite(value) else float(value)
