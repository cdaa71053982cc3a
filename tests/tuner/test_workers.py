"""A search by a chief and workers, in processes of their own, survives the loss of any of them."""

import collections
import multiprocessing.pool
import os
import pathlib
import signal
import socket
import time

import keras
import keras_tuner
import numpy as np
import pytest

from keras_resblocks import launcher, tuner
from keras_resblocks.tuner import memory, storage, workers

TIMEOUT = 2  # seconds after which a silent worker counts as dead
KINDS = {
    "random": (tuner.RandomSearch, {"max_trials": 8}),
    "grid": (tuner.GridSearch, {"max_trials": 8}),
    "bayesian": (tuner.BayesianOptimization, {"max_trials": 6, "num_initial_points": 4}),
    "hyperband": (tuner.Hyperband, {"max_epochs": 4, "factor": 2}),
}
HANGS = "hangs"  # the name of a worker that hangs in its second trial


class NoModel:
    """Mixed into a tuner: trials that take a moment and write down who ran them."""

    runs = 0

    def run_trial(self, trial, *args, **kwargs):
        self.runs += 1
        note(self.directory, "begun", trial.trial_id, self.tuner_id)
        self.work(trial)
        values = trial.hyperparameters.values
        return values["x"] + values["y"] / 100 + values.get("tuner/epochs", 0) / 1000

    def work(self, trial):
        time.sleep(0.05)
        if HANGS in self.tuner_id and self.runs == 2:
            time.sleep(600)

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        note(self.directory, "ended", trial.trial_id, self.tuner_id)


class Reported(NoModel):
    """Hangs after it has reported the result of its second trial."""

    def work(self, trial):
        time.sleep(0.05)

    def _run_and_update_trial(self, trial, *args, **kwargs):
        super()._run_and_update_trial(trial, *args, **kwargs)
        if HANGS in self.tuner_id and self.runs == 2:
            note(self.directory, "reported", trial.trial_id)
            time.sleep(600)


class Long(NoModel):
    """Trials that take longer than a worker may be silent."""

    def work(self, trial):
        time.sleep(1.5 * TIMEOUT)


class Deadly(NoModel):
    """Its third trial ends the process."""

    def work(self, trial):
        time.sleep(0.05)
        if trial.trial_id == "2":
            os.kill(os.getpid(), signal.SIGKILL)


class Failing(NoModel):
    """Fails, in both workers."""

    def work(self, trial):
        wait_until(lambda: len({name for _, name in events(self.directory, "begun")}) == 2)
        raise ValueError("a bug")


class OutOfMemory(NoModel):
    """Runs out of memory in all but the last trials."""

    def work(self, trial):
        if int(trial.trial_id) < 6:
            raise memory.OutOfMemoryTrialError("out of memory")


class Counting(NoModel):
    """Says how often it asked for a trial."""

    asked = 0

    def work(self, trial):
        time.sleep(2 if self.tuner_id == "worker_slow" else 0)

    def pre_create_trial(self):
        super().pre_create_trial()
        self.asked += 1

    def on_search_end(self):
        note(self.directory, "asked", self.asked)


def note(directory, event, *words):
    with open(os.path.join(directory, "events.txt"), "a") as file:
        print(event, *words, file=file)


def events(directory, event):
    path = pathlib.Path(directory) / "events.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.split()[1:]) for line in lines if line.split()[0] == event]


def engine_of(kind, directory, mixin=NoModel, **options):
    tuner_class, arguments = KINDS[kind]
    hp = keras_tuner.HyperParameters()
    for name in ("x", "y"):
        hp.Choice(name, list(range(30)))
    return type(f"Quick{tuner_class.__name__}", (mixin, tuner_class), {})(
        objective=keras_tuner.Objective("score", "max"),
        hyperparameters=hp,
        seed=1,
        directory=directory,
        project_name=kind,
        **{"worker_timeout": TIMEOUT, "chief_timeout": 20, **arguments, **options},
    )


def member(tuner_id, port, kind, directory, options):  # in a process of its own
    os.environ.update(
        KERASTUNER_TUNER_ID=tuner_id,
        KERASTUNER_ORACLE_IP="127.0.0.1",
        KERASTUNER_ORACLE_PORT=str(port),
    )
    os.dup2(os.open(directory / f"{tuner_id}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    engine = engine_of(kind, directory, **options)
    engine.search()
    best = engine.oracle.get_best_trials(1)[0]
    note(directory, "over", tuner_id, len(engine.oracle.trials), best.score)


class Crew:
    """The processes of a search."""

    def __init__(self, kind, directory, **options):
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["keras_resblocks.tuner", "sklearn.gaussian_process"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.kind, self.directory, self.options = kind, directory, options
        self.members = {}

    def start(self, *names, **options):
        for name in names:
            options = {**self.options, **options}
            arguments = (name, self.port, self.kind, self.directory, options)
            self.members[name] = self.processes.Process(target=member, args=arguments)
            self.members[name].start()

    def kill(self, name):
        os.kill(self.members[name].pid, signal.SIGKILL)
        self.members[name].join()

    def wait(self, seconds=60):
        """The exit codes, None of who still runs."""
        deadline = time.monotonic() + seconds
        for process in self.members.values():
            process.join(max(0, deadline - time.monotonic()))
        return {name: process.exitcode for name, process in self.members.items()}

    def output(self, name):
        return (self.directory / f"{name}.out").read_text()

    def end(self):
        for process in self.members.values():
            process.kill()
            process.join()


@pytest.fixture
def crew(tmp_path):
    crews = []

    def make(kind, **options):
        crews.append(Crew(kind, tmp_path, **options))
        return crews[-1]

    yield make
    for made in crews:
        made.end()


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs_of(directory):
    return collections.Counter(trial_id for trial_id, _ in events(directory, "begun"))


def finished(kind, directory):
    """The search, taken up without a chief."""
    engine = engine_of(kind, directory)
    assert sorted(engine.oracle.end_order) == sorted(engine.oracle.trials)
    assert all(trial.status == "COMPLETED" for trial in engine.oracle.trials.values())
    assert len(engine.oracle.trials) == engine.oracle.total_trials()
    return engine


@pytest.mark.parametrize("kind", KINDS)
def test_the_trial_of_a_killed_worker_is_run_by_another(kind, crew, tmp_path):
    search = crew(kind)
    search.start("chief", f"worker_{HANGS}")
    wait_until(lambda: len(events(tmp_path, "begun")) == 2)
    lost_id, _ = events(tmp_path, "begun")[1]
    search.start("worker0")
    wait_until(lambda: len(events(tmp_path, "begun")) > 2)
    search.kill(f"worker_{HANGS}")
    codes = search.wait(60)  # the last trial takes a moment
    assert codes["chief"] == codes["worker0"] == 0
    assert (lost_id, "worker0") in events(tmp_path, "ended")
    expected = dict.fromkeys(finished(kind, tmp_path).oracle.trials, 1) | {lost_id: 2}
    assert runs_of(tmp_path) == expected
    lost = f"trial {lost_id} lost its worker worker_{HANGS} and is run again"
    assert lost in search.output("chief")


def test_a_result_that_was_reported_counts_though_its_worker_was_killed(crew, tmp_path):
    search = crew("random", mixin=Reported)
    search.start("chief", f"worker_{HANGS}")
    wait_until(lambda: events(tmp_path, "reported"))
    search.kill(f"worker_{HANGS}")
    search.start("worker0")
    assert search.wait()["chief"] == 0
    finished("random", tmp_path)
    assert set(runs_of(tmp_path).values()) == {1}


def test_a_long_trial_stays_with_a_worker_that_gives_signs_of_life(crew, tmp_path):
    search = crew("random", mixin=Long, max_trials=2)
    search.start("chief", "worker0", "worker1")
    assert set(search.wait().values()) == {0}
    assert runs_of(tmp_path) == {"0": 1, "1": 1}


def test_chief_and_workers_see_the_same_results(crew, tmp_path):
    search = crew("random")
    search.start("chief", "worker0", "worker1")
    assert set(search.wait().values()) == {0}
    finished("random", tmp_path)
    seen = events(tmp_path, "over")
    assert {name for name, *_ in seen} == set(search.members)
    assert len({tuple(results) for _, *results in seen}) == 1
    assert "trial  8 of 8 | score" in search.output("chief")
    assert "trial" not in search.output("worker0")


def test_a_chief_that_is_started_again_goes_on_with_its_workers(crew, tmp_path):
    search = crew("random", max_trials=40)
    search.start("chief", "worker0", "worker1")
    wait_until(lambda: len(events(tmp_path, "ended")) > 5)
    search.kill("chief")
    search.start("chief")
    assert set(search.wait().values()) == {0}
    assert len(finished_as(tmp_path, max_trials=40)) == 40
    assert set(runs_of(tmp_path).values()) == {1}


def finished_as(directory, **options):
    return engine_of("random", directory, **options).oracle.end_order


def test_a_worker_whose_chief_is_gone_ends_with_an_error(crew, tmp_path):
    search = crew("random", max_trials=1000, chief_timeout=1)
    search.start("chief", "worker0")
    wait_until(lambda: events(tmp_path, "ended"))
    search.kill("chief")
    assert search.wait(20)["worker0"] == 1
    assert f"ChiefLostError: No chief answers at 127.0.0.1:{search.port}" in search.output(
        "worker0"
    )


def train(port, directory):  # in a process of its own
    os.environ.update(
        KERASTUNER_TUNER_ID="worker0",
        KERASTUNER_ORACLE_IP="127.0.0.1",
        KERASTUNER_ORACLE_PORT=str(port),
    )
    search = engine_of("random", directory, mixin=Trained, hypermodel=dense, chief_timeout=1)
    x = np.ones((2, 1), "float32")
    try:
        search.search(x, x, epochs=1_000_000)
    except tuner.ChiefLostError:
        note(directory, "lost")


class Trained:
    """Trials that train a model, and say that they do."""

    def on_epoch_end(self, trial, model, epoch, logs=None):
        if epoch == 1:
            note(self.directory, "training")


def dense(hp):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanMetricWrapper(zero, name="score")])
    return model


def zero(y_true, y_pred):
    return 0 * y_pred


def test_a_worker_does_not_train_on_for_a_chief_that_is_gone(crew, tmp_path):
    search = crew("random")
    search.start("chief")
    worker = search.processes.Process(target=train, args=(search.port, tmp_path))
    search.members["worker0"] = worker
    worker.start()
    wait_until(lambda: events(tmp_path, "training"))
    search.kill("chief")
    worker.join(30)
    assert not worker.is_alive()
    assert events(tmp_path, "lost")


def test_a_worker_that_comes_late_finds_the_search_over(crew, tmp_path):
    search = crew("random", chief_timeout=1)
    search.start("chief", "worker0")
    assert set(search.wait().values()) == {0}
    search.start("worker_late")
    assert search.wait(20)["worker_late"] == 0
    assert ("worker_late", "8") in [words[:2] for words in events(tmp_path, "over")]


def test_the_chief_ends_though_nobody_is_left_to_be_told(crew, tmp_path):
    search = crew("random", mixin=Reported, max_trials=2)
    search.start("chief", f"worker_{HANGS}")
    wait_until(lambda: events(tmp_path, "reported"))
    search.kill(f"worker_{HANGS}")
    assert search.wait(30)["chief"] == 0
    finished_as(tmp_path, max_trials=2)


def test_a_trial_that_ends_its_workers_is_given_up(crew, tmp_path):
    search = crew("random", mixin=Deadly)
    search.start("chief", *(f"worker{number}" for number in range(4)))
    codes = search.wait()
    assert codes.pop("chief") == 0
    assert sorted(codes.values()) == [-signal.SIGKILL] * workers.MAX_LOSSES + [0]
    trials = engine_of("random", tmp_path).oracle.trials
    assert runs_of(tmp_path)["2"] == workers.MAX_LOSSES
    assert [key for key, trial in trials.items() if trial.status == "FAILED"] == ["2"]
    assert "lost its worker" in trials["2"].message
    assert len(trials) == 8


def test_failures_in_a_row_end_chief_and_workers(crew, tmp_path):
    search = crew("random", mixin=Failing, chief_timeout=2)
    search.start("chief", "worker0", "worker1")
    codes = search.wait(30)
    assert codes["chief"] == 1
    assert None not in codes.values()
    assert "RuntimeError: Number of consecutive failures" in search.output("chief")
    assert "ValueError: a bug" in search.output("chief")


def test_running_out_of_memory_in_workers_does_not_end_the_search(crew, tmp_path):
    search = crew("random", mixin=OutOfMemory)
    search.start("chief", "worker0", "worker1")
    assert set(search.wait().values()) == {0}
    trials = engine_of("random", tmp_path).oracle.trials
    assert sorted(trial.status for trial in trials.values()) == ["COMPLETED"] * 2 + ["FAILED"] * 6


def test_an_idle_worker_does_not_flood_the_chief(crew, tmp_path):
    search = crew("random", mixin=Counting, max_trials=2)
    search.start("chief", "worker_slow", "worker0")
    assert set(search.wait().values()) == {0}
    assert max(int(asked) for (asked,) in events(tmp_path, "asked")) < 100


def test_overwriting_is_for_the_chief(crew, tmp_path):
    search = crew("random", overwrite=True, max_trials=30)
    search.start("chief", "worker0")
    wait_until(lambda: len(events(tmp_path, "ended")) > 3)
    search.start("worker_late")
    assert set(search.wait().values()) == {0}
    assert len(finished_as(tmp_path, max_trials=30)) == 30
    assert set(runs_of(tmp_path).values()) == {1}


class TestTheOracleOfAChief:
    @pytest.fixture
    def oracle(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "0")
        oracle = engine_of("random", tmp_path, max_trials=2).oracle
        oracle.verbose = 0
        return oracle

    def lose(self, oracle, tuner_id):
        oracle.leases._heard[tuner_id] -= 2 * TIMEOUT

    def end(self, oracle, trial, score):
        if oracle.get_trial(trial.trial_id).score is None:
            oracle.update_trial(trial.trial_id, {"score": score})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)

    @pytest.mark.parametrize("first", ["the silent one", "the other"])
    def test_counts_the_first_of_two_results(self, first, oracle):
        silent = keras_tuner.engine.trial.Trial.from_state(oracle.create_trial("a").get_state())
        self.lose(oracle, "a")
        other = keras_tuner.engine.trial.Trial.from_state(oracle.create_trial("b").get_state())
        assert silent.trial_id == other.trial_id
        order = [(silent, 0.25), (other, 0.75)]
        for trial, score in order if first == "the silent one" else reversed(order):
            self.end(oracle, trial, score)
        assert oracle.end_order == ["0"]
        assert oracle.trials["0"].score == (0.25 if first == "the silent one" else 0.75)
        assert not oracle.ongoing_trials

    def test_takes_the_result_of_a_silent_worker_before_another_has_its_trial(self, oracle):
        trial = oracle.create_trial("a")
        self.lose(oracle, "a")
        assert not oracle.check_over()
        self.end(oracle, trial, 0.5)
        assert oracle.create_trial("b").trial_id == "1"

    def test_lets_nobody_go_while_a_trial_runs(self, oracle):
        trials = [oracle.create_trial("a"), oracle.create_trial("b")]
        assert oracle.create_trial("c").status == "IDLE"
        for trial in trials:
            self.end(oracle, trial, 0.5)
        for tuner_id in ("a", "b", "c"):
            assert not oracle.check_over()
            assert oracle.create_trial(tuner_id).status == "STOPPED"
        assert oracle.check_over()
        assert oracle.create_trial("late").status == "STOPPED"

    def test_gives_its_trial_to_a_worker_that_was_started_again(self, oracle):
        assert oracle.create_trial("a").trial_id == oracle.create_trial("a").trial_id

    def test_its_own_work_is_nobodys_silence(self, oracle, monkeypatch):
        oracle.create_trial("a")
        now = time.monotonic()
        with oracle.leases.paused():
            monkeypatch.setattr(workers.time, "monotonic", lambda: now + 2 * TIMEOUT)
        assert not oracle.leases.pop_silent()
        monkeypatch.setattr(workers.time, "monotonic", lambda: now + 4 * TIMEOUT)
        assert oracle.leases.pop_silent() == ["a"]

    def test_answers_after_an_error(self, oracle):
        with pytest.raises(KeyError):
            oracle.get_trial("none")
        with multiprocessing.pool.ThreadPool(1) as pool:
            trial = pool.apply_async(oracle.create_trial, ["a"]).get(timeout=10)
        assert trial.status == "RUNNING"

    def test_is_taken_up_with_its_leases(self, oracle, tmp_path):
        trial = oracle.create_trial("a")
        oracle.save()
        storage.write_json(tmp_path / "random" / "chief.json", {})
        again = engine_of("random", tmp_path, max_trials=2).oracle
        assert again.ongoing_trials["a"].trial_id == trial.trial_id
        assert again.create_trial("b").trial_id == "1"
        self.lose(again, "a")
        again.verbose = 0
        assert not again.check_over()
        assert again._retry_queue == [trial.trial_id]


def test_without_a_chief_nothing_is_leased(tmp_path):
    engine = engine_of("random", tmp_path)
    engine.search(verbose=0)
    assert engine.oracle.leases is None
    assert "over" not in engine.oracle.get_state()


def test_a_process_has_one_search(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "0")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    searched = type(workers._SEARCHED)()
    searched.set()
    monkeypatch.setattr(workers, "_SEARCHED", searched)
    with pytest.raises(RuntimeError, match="one search"):
        engine_of("random", tmp_path).search()


@pytest.mark.parametrize("name", ["worker_timeout", "chief_timeout"])
@pytest.mark.parametrize("value", [0, -1, "long"])
def test_a_timeout_is_a_positive_number(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive number"):
        engine_of("random", tmp_path, **{name: value})


def test_a_chief_that_is_launched_again_overwrites_nothing(tmp_path, monkeypatch):
    engine_of("random", tmp_path).search(verbose=0)
    monkeypatch.setenv(launcher.RESTARTED, "1")
    assert len(engine_of("random", tmp_path, overwrite=True).oracle.trials) == 8
