"""A search that was killed, or lost a state file, goes on where it was."""

import collections
import json
import multiprocessing
import os
import pathlib
import random
import signal
import time

import keras_tuner
import numpy as np
import pytest

from keras_resblocks import json_files, tuner

KILLS = {"random": 20, "grid": 8, "bayesian": 8, "hyperband": 8}
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
    for _ in range(KILLS[kind]):
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_with_a_file_of_kerastuner_still_to_be_written_goes_on(kind, tmp_path):
    """KerasTuner looks for this one, and writes it when the first trial has ended."""
    shorter, longer = {"max_trials": 2}, {"max_trials": 3}
    if kind == "hyperband":
        shorter = longer = {"max_epochs": 2}
    before = scores(search(kind, tmp_path, **shorter))
    (tmp_path / kind / "tuner0.json").unlink()
    (tmp_path / "events.txt").unlink()
    assert before.items() <= scores(search(kind, tmp_path, **longer)).items()
    assert not before.keys() & events(tmp_path)["begun"].keys()


@pytest.mark.parametrize("name", ["oracle.json", "trial_0/trial.json"])
def test_damaged_state_is_an_error_that_says_what_to_do(name, tmp_path):
    search("random", tmp_path, max_trials=3)
    (tmp_path / "random" / name).write_text("{")
    with pytest.raises(ValueError, match=r"damaged.*overwrite=True"):
        engine_of("random", tmp_path, max_trials=3)
    engine_of("random", tmp_path, max_trials=3, overwrite=True)


def test_trials_without_the_state_of_their_search_are_not_begun_again(tmp_path):
    search("random", tmp_path, max_trials=2)
    (tmp_path / "random" / "oracle.json").unlink()
    with pytest.raises(ValueError, match=r"oracle\.json"):
        engine_of("random", tmp_path, max_trials=2)


def test_writing_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "state.json"
    json_files.write(path, {"a": 1})
    cycle = []
    cycle.append(cycle)
    with pytest.raises(ValueError, match="Circular"):
        json_files.write(path, cycle)
    assert json.loads(path.read_text()) == {"a": 1}
    json_files.write(path, {"b": np.ones(2)})
    assert json_files.read(path) == {"b": [1.0, 1.0]}
