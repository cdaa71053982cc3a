"""Project directories made up for tests, in the layout of KerasTuner."""

import json


def observed(value, direction="max", steps=1):
    """A metric of a trial, whose best value is `value`."""
    sign = 1 if direction == "max" else -1
    values = [value - sign * (steps - 1 - step) for step in range(steps)]
    return {
        "direction": direction,
        "observations": [{"value": [value], "step": step} for step, value in enumerate(values)],
    }


def trial(values, score=None, status="COMPLETED", metrics=None, message=None, **record):
    """The content of `trial.json` and of `record.json`."""
    if metrics is None:
        metrics = {} if score is None else {"val_accuracy": observed(score)}
    state = {
        "hyperparameters": {"space": [], "values": values},
        "metrics": {"metrics": metrics},
        "score": score,
        "best_step": 0,
        "status": status,
        "message": message,
    }
    return state, record


def write_project(folder, trials, search=None):
    """Writes the files of a project whose trials are as `trial` gives them; its folder."""
    ids = [f"{number:02d}" for number in range(len(trials))]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "oracle.json", {"start_order": ids})
    if search:
        write_json(folder / "search.json", search)
    for trial_id, (state, record) in zip(ids, trials):
        (folder / f"trial_{trial_id}").mkdir()
        path = folder / f"trial_{trial_id}" / "trial.json"
        write_json(path, {"trial_id": trial_id, **state})
        if record:
            write_json(path.with_name("record.json"), record)
    return folder


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
