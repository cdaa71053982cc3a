"""A search that was killed, or lost a state file, goes on where it was."""

import collections
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import time

import keras_tuner
import pytest

from keras_resblocks import tuner
from keras_resblocks.tuner import storage

KILLS = 15  # of each kind of search
KINDS = {
    "random": (tuner.RandomSearch, {"max_trials": 24}),
    "grid": (tuner.GridSearch, {"max_trials": 24}),
    "bayesian": (tuner.BayesianOptimization, {"max_trials": 24, "num_initial_points": 4}),
    "hyperband": (tuner.Hyperband, {"max_epochs": 8, "factor": 2}),
}


class NoModel:
    """Mixed into a tuner: trials that take a moment and write down what they did."""

    def run_trial(self, trial, *args, **kwargs):
        self.note("begun", trial)
        time.sleep(0.005)
        values = trial.hyperparameters.values
        return values["x"] + values["y"] / 100 + values.get("tuner/epochs", 0) / 1000

    def _run_and_update_trial(self, trial, *args, **kwargs):
        super()._run_and_update_trial(trial, *args, **kwargs)
        self.note("ended", trial)  # the oracle has the score, on disk

    def note(self, event, trial):
        os.makedirs(self.directory, exist_ok=True)
        with open(os.path.join(self.directory, "events.txt"), "a") as file:
            file.write(f"{event} {trial.trial_id}\n")


def engine_of(kind, directory, **options):
    tuner_class, arguments = KINDS[kind]
    hp = keras_tuner.HyperParameters()
    for name in ("x", "y"):
        hp.Choice(name, list(range(30)))
    quick_class = type(f"Quick{tuner_class.__name__}", (NoModel, tuner_class), {})
    return quick_class(
        objective=keras_tuner.Objective("score", "max"),
        hyperparameters=hp,
        seed=1,
        directory=directory,
        project_name=kind,
        **{**arguments, **options},
    )


def search(kind, directory, **options):
    engine = engine_of(kind, directory, **options)
    engine.search(verbose=0)
    return engine


def run_search(kind, directory, options):  # in a process of its own
    search(kind, directory, **options)


def events(directory):
    """How often each trial was begun, and ended."""
    path = pathlib.Path(directory) / "events.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    counted = {"begun": collections.Counter(), "ended": collections.Counter()}
    for line in lines:
        event, trial_id = line.split()
        counted[event][trial_id] += 1
    return counted


def scores(engine):
    return {key: trial.score for key, trial in engine.oracle.trials.items()}


# So long that no search is over before it was killed that often; a Bayesian one takes its time.
LONG = {
    "random": {"max_trials": 100},
    "grid": {"max_trials": 100},
    "bayesian": {},
    "hyperband": {"max_epochs": 16},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_search_killed_at_random_moments_loses_and_repeats_nothing(kind, tmp_path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["keras_resblocks.tuner", "sklearn.gaussian_process"])
    expected = search(kind, tmp_path / "whole", **LONG[kind])

    rng = random.Random(0)
    killed = tmp_path / "killed"
    killed.mkdir()
    for _ in range(KILLS):
        begun = sum(events(killed)["begun"].values())
        process = processes.Process(target=run_search, args=(kind, killed, LONG[kind]))
        process.start()
        while process.is_alive() and sum(events(killed)["begun"].values()) == begun:
            time.sleep(0.001)
        process.join(timeout=rng.uniform(0, 0.03))  # about the time of a trial and its files
        assert process.is_alive()  # else the search was over too soon for this test
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    engine = search(kind, killed, **LONG[kind])

    assert scores(engine) == scores(expected)
    assert all(trial.status == "COMPLETED" for trial in engine.oracle.trials.values())
    assert max(events(killed)["ended"].values()) == 1
    assert sorted(engine.oracle.end_order) == sorted(scores(engine))


def state_files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*.json*"))


@pytest.mark.filterwarnings("ignore:.*restored from its twin")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_a_search_that_lost_a_state_file_goes_on(kind, damage, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    shorter, longer = {"max_trials": 2}, {"max_trials": 3}
    if kind == "hyperband":
        shorter = longer = {"max_epochs": 2}
    before = scores(search(kind, half, **shorter))
    expected = scores(search(kind, shutil.copytree(half, tmp_path / "whole"), **longer))
    for number, name in enumerate(state_files(half)):
        copy = shutil.copytree(half, tmp_path / f"copy{number}")
        (copy / "events.txt").unlink()
        path = copy / name
        if damage == "missing":
            path.unlink()
        else:
            text = path.read_text()
            path.write_text(text[: len(text) // 2] if damage == "truncated" else "")
        engine = search(kind, copy, **longer)
        assert scores(engine) == expected, name
        assert not before.keys() & events(copy)["begun"].keys(), name


def test_a_repair_is_a_warning_that_names_the_file(tmp_path):
    search("random", tmp_path, max_trials=2)
    (tmp_path / "random" / "oracle.json").write_text("{")
    with pytest.warns(UserWarning, match=r"oracle\.json' was damaged, and restored"):
        engine_of("random", tmp_path, max_trials=2)


@pytest.mark.parametrize("name", ["oracle.json", "trial_00/trial.json"])
def test_a_file_damaged_with_its_twin_is_named(name, tmp_path):
    search("random", tmp_path, max_trials=3)
    path = tmp_path / "random" / name.replace("00", "0")
    for damaged in (path, path.with_name(path.name + storage.TWIN)):
        damaged.write_text("{")
    with pytest.raises(ValueError, match="overwrite=True") as raised:
        engine_of("random", tmp_path, max_trials=3)
    assert str(path) in str(raised.value)
    engine_of("random", tmp_path, max_trials=3, overwrite=True)


def test_trials_without_the_state_of_their_search_are_not_begun_anew(tmp_path):
    search("random", tmp_path, max_trials=2)
    for path in (tmp_path / "random").glob("oracle.json*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"oracle\.json"):
        engine_of("random", tmp_path, max_trials=2)


def test_a_file_of_kerastuner_without_a_twin_is_read(tmp_path):
    search("random", tmp_path, max_trials=2)
    for path in tmp_path.rglob(f"*{storage.TWIN}"):
        path.unlink()
    assert len(scores(search("random", tmp_path, max_trials=3))) == 3


def test_writing_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "state.json"
    storage.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        storage.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "state.json.twin"]
