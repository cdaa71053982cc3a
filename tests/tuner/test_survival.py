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
import pytest

from keras_resblocks import tuner

# By tuner: how often it is killed, its arguments, and what makes a search so long that it is not
# over before it was killed that often; a Bayesian one takes its time.
KINDS = {
    "RandomSearch": (20, {"max_trials": 24}, {"max_trials": 100}),
    "GridSearch": (8, {"max_trials": 24}, {"max_trials": 100}),
    "BayesianOptimization": (8, {"max_trials": 24, "num_initial_points": 4}, {}),
    "Hyperband": (8, {"max_epochs": 8, "factor": 2}, {"max_epochs": 16}),
}


class NoModel:
    """Mixed into a tuner: trials that take a moment and write down what they did."""

    def run_trial(self, trial, *args, **kwargs):
        self.note("begun", trial)
        time.sleep(0.005)
        values = trial.hyperparameters.values
        return values["x"] + values["y"] / 100 + values.get("tuner/epochs", 0) / 1000

    def on_trial_end(self, trial):
        self.note("ended", trial)  # the oracle has the score, on disk
        super().on_trial_end(trial)

    def note(self, event, trial):
        with open(os.path.join(self.directory, "events.txt"), "a") as file:
            file.write(f"{event} {trial.trial_id}\n")


def engine_of(kind, directory, **options):
    hp = keras_tuner.HyperParameters()
    for name in ("x", "y"):
        hp.Choice(name, list(range(30)))
    options = {**KINDS[kind][1], "seed": 1, "directory": directory, "project_name": "p", **options}
    options |= {"objective": keras_tuner.Objective("score", "max"), "hyperparameters": hp}
    return type(f"Quick{kind}", (NoModel, getattr(tuner, kind)), {})(**options)


def search(kind, directory, **options):
    engine = engine_of(kind, directory, **options)
    engine.search(verbose=0)
    return engine


def run_search(kind, directory, options):  # in a process of its own
    search(kind, directory, **options)


def events(directory):
    """How often each trial was begun, and ended."""
    path = pathlib.Path(directory) / "events.txt"
    counted = {"begun": collections.Counter(), "ended": collections.Counter()}
    for line in path.read_text().splitlines() if path.exists() else ():
        event, trial_id = line.split()
        counted[event][trial_id] += 1
    return counted


def scores(engine):
    return {key: trial.score for key, trial in engine.oracle.trials.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_search_killed_at_random_moments_loses_and_repeats_nothing(kind, tmp_path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["keras_resblocks.tuner", "sklearn.gaussian_process"])
    times, _, long = KINDS[kind]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = search(kind, whole, **long)
    rng = random.Random(0)
    for _ in range(times):
        begun = sum(events(killed)["begun"].values())
        process = processes.Process(target=run_search, args=(kind, killed, long))
        process.start()
        while process.is_alive() and sum(events(killed)["begun"].values()) == begun:
            time.sleep(0.001)
        process.join(timeout=rng.uniform(0, 0.03))  # about the time of a trial and its files
        assert process.is_alive()  # else the search was over too soon for this test
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    engine = search(kind, killed, **long)
    assert scores(engine) == scores(expected)
    assert all(trial.status == "COMPLETED" for trial in engine.oracle.trials.values())
    assert max(events(killed)["ended"].values()) == 1
    assert sorted(engine.oracle.end_order) == sorted(scores(engine))


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_with_a_file_of_kerastuner_still_to_be_written_goes_on(kind, tmp_path):
    """KerasTuner looks for this one, and writes it when the first trial has ended."""
    shorter, longer = {"max_trials": 2}, {"max_trials": 3}
    if kind == "Hyperband":
        shorter = longer = {"max_epochs": 2}
    before = scores(search(kind, tmp_path, **shorter))
    (tmp_path / "p" / "tuner0.json").unlink()
    (tmp_path / "events.txt").unlink()
    assert before.items() <= scores(search(kind, tmp_path, **longer)).items()
    assert not before.keys() & events(tmp_path)["begun"].keys()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("oracle.json", "{", r"damaged.*overwrite=True"),
        ("trial_0/trial.json", "{", r"damaged.*overwrite=True"),
        ("oracle.json", None, r"oracle\.json"),
    ],
)
def test_damaged_or_lost_state_is_an_error_that_says_what_to_do(name, content, message, tmp_path):
    search("RandomSearch", tmp_path, max_trials=3)
    path = tmp_path / "p" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=message):
        engine_of("RandomSearch", tmp_path, max_trials=3)
    engine_of("RandomSearch", tmp_path, max_trials=3, overwrite=True)


def test_writing_replaces_a_file_as_a_whole(tmp_path):
    engine = search("RandomSearch", tmp_path, max_trials=2)
    path = tmp_path / "p" / "oracle.json"
    before = json.loads(path.read_text())
    engine.oracle.end_order.append(engine.oracle.end_order)
    with pytest.raises(ValueError, match="Circular"):
        engine.oracle.save()
    assert json.loads(path.read_text()) == before
