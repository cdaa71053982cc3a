"""A search by Optuna: what it suggests, what counts, and workers that die at any moment."""

import collections
import gc
import itertools
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import threading
import time

import keras
import keras_tuner
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from keras_resblocks import tuner
from keras_resblocks.tuner.studies import queue as queues
from keras_resblocks.tuner.studies.candidates import SuggestedHyperParameters

SCORE = keras_tuner.Objective("score", "max")


class Quick(keras_tuner.HyperModel):
    """Trials without a model that take a moment and note what they do."""

    def __init__(self, notes=None, seconds=0.0):
        super().__init__()
        self.notes = notes
        self.seconds = seconds

    def build(self, hp):
        return hp.Choice("x", list(range(30))), hp.Float("y", 1e-4, 1.0, sampling="log")

    def fit(self, hp, model, **arguments):
        self.note("begun", model)
        time.sleep(self.seconds)
        self.note("ended", model)
        return model[0] + model[1]

    def note(self, event, model):
        if self.notes is not None:
            line = f"{event} {os.getpid()} {model[0]} {model[1]}\n".encode()
            with open(self.notes, "ab", buffering=0) as file:  # one write, whole or not at all
                file.write(line)


def search(hypermodel, storage=None, **options):
    storage = optuna.storages.InMemoryStorage() if storage is None else storage
    options = {"objective": SCORE, "max_trials": 5, "seed": 1, "verbose": 0, **options}
    return tuner.optuna_search(hypermodel, "study", storage, **options)


def states(study):
    return collections.Counter(trial.state.name for trial in study.trials)


def complete(study):
    return study.get_trials(states=(TrialState.COMPLETE,))


# The hyperparameters


def parameters(*declare):
    hp = keras_tuner.HyperParameters()
    for declaration in declare:
        declaration(hp)
    return hp


KINDS = {
    "choice_str": (lambda hp: hp.Choice("p", ["a", "b"]), {"a", "b"}),
    "choice_int": (lambda hp: hp.Choice("p", [4, 1, 2]), {4, 1, 2}),
    "choice_float": (lambda hp: hp.Choice("p", [0.0, 1e-4]), {0.0, 1e-4}),
    "choice_bool": (lambda hp: hp.Choice("p", [True, False]), {1, 0}),  # KerasTuner makes ints
    "choice_of_one": (lambda hp: hp.Choice("p", ["a"]), {"a"}),
    "boolean": (lambda hp: hp.Boolean("p"), {True, False}),
    "fixed": (lambda hp: hp.Fixed("p", 7), {7}),
    "int": (lambda hp: hp.Int("p", 2, 5), {2, 3, 4, 5}),
    "int_of_one": (lambda hp: hp.Int("p", 2, 2), {2}),
    "int_step": (lambda hp: hp.Int("p", 6, 13, step=3), {6, 9, 12}),
    "int_log": (lambda hp: hp.Int("p", 1, 4, sampling="log"), {1, 2, 3, 4}),
    "int_log_step": (lambda hp: hp.Int("p", 2, 32, step=2, sampling="log"), {2, 4, 8, 16, 32}),
    "int_reverse_log": (lambda hp: hp.Int("p", 1, 3, sampling="reverse_log"), {1, 2, 3}),
    "float_step": (lambda hp: hp.Float("p", 0, 1, step=0.25), {0.0, 0.25, 0.5, 0.75, 1.0}),
    "float_short_step": (lambda hp: hp.Float("p", 0, 1, step=0.4), {0.0, 0.4, 0.8}),
    "float_log_step": (
        lambda hp: hp.Float("p", 0.5, 4.0, step=2, sampling="log"),
        {0.5, 1.0, 2.0, 4.0},
    ),
    "float": (lambda hp: hp.Float("p", -1, 2), (-1, 2)),
    "float_log": (lambda hp: hp.Float("p", 1e-4, 1, sampling="log"), (1e-4, 1)),
    "float_reverse_log": (lambda hp: hp.Float("p", 1.0, 4.0, sampling="reverse_log"), (1, 4)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_hyperparameter_is_suggested_over_its_whole_range(kind):
    declare, expected = KINDS[kind]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = []
    for _ in range(100):
        trial = study.ask()
        hp = SuggestedHyperParameters(trial)
        values.append(declare(hp))
        assert hp.get("p") == values[-1] == declare(hp)
        assert trial.params == ({} if kind == "fixed" else {"p": values[-1]})
        again = keras_tuner.HyperParameters()
        again.values = dict(trial.params)
        assert declare(again) == values[-1]
    if isinstance(expected, set):
        assert set(values) == expected
        assert {type(value) for value in values} == {type(value) for value in expected}
    else:
        assert all(expected[0] <= value <= expected[1] for value in values)
        assert len(set(values)) == len(values)


def by_scopes(hp):
    kind = hp.Choice("kind", ["mlp", "cnn"])
    with hp.conditional_scope("kind", ["mlp"]):
        units = hp.Int("units", 1, 100)
    with hp.conditional_scope("kind", ["cnn"]), hp.name_scope("conv"):
        filters = hp.Int("filters", 1, 100)
    rate = hp.Float("rate", 0.0, 1.0, parent_name="kind", parent_values=["cnn"])
    return kind, units, filters, rate


def by_ifs(hp):
    kind = hp.Choice("kind", ["mlp", "cnn"])
    if kind == "mlp":
        return kind, hp.Int("units", 1, 100), None, None
    with hp.name_scope("conv"):
        filters = hp.Int("filters", 1, 100)
    return kind, None, filters, hp.Float("rate", 0.0, 1.0)


@pytest.mark.parametrize("build", [by_scopes, by_ifs])
def test_only_active_hyperparameters_are_suggested(build):
    expected = {"mlp": {"kind", "units"}, "cnn": {"kind", "conv/filters", "rate"}}

    class Branches(Quick):
        def build(self, hp):
            return build(hp)

        def fit(self, hp, model, **arguments):
            assert model == build(hp)
            return sum(value for value in model[1:] if value is not None)

    study = search(Branches(), max_trials=12)
    assert states(study) == {"COMPLETE": 12}
    assert {trial.params["kind"] for trial in study.trials} == {"mlp", "cnn"}
    for trial in study.trials:
        assert set(trial.params) == expected[trial.params["kind"]]


def test_what_fit_asks_for_is_suggested_too():
    class Epochs(Quick):
        def fit(self, hp, model, **arguments):
            return hp.Int("epochs", 1, 50)

    study = search(Epochs())
    assert [trial.params["epochs"] for trial in study.trials] == [t.value for t in study.trials]


# What is tried


def image_space(**options):
    fixed = {"blocks": "residual", "activations": "relu", "regularizers": 0.0, "stages": 2}
    options = {"depths": (1, 2, 3, 4), "widths": (4, 8, 16, 32), **fixed, **options}
    return tuner.ResNetHyperModel((8, 8, 1), 3, **options)


class NoTraining:
    def fit(self, hp, model, **arguments):
        return float(hp.get("depth_1"))


def test_no_trial_is_over_budget_or_a_repetition():
    options = {
        **{"blocks": "residual", "activations": "relu", "regularizers": 0.0, "stages": 2},
        **{"depths": (1, 2, 3, 4), "widths": (4, 8, 16, 32), "learning_rates": 1e-3},
    }
    free = tuner.ResNetHyperModel((8, 8, 1), 3, **options)
    costs = {}
    for depth_1, depth_2, width in itertools.product((1, 2, 3, 4), (1, 2, 3, 4), (4, 8, 16, 32)):
        values = {"depth_1": depth_1, "depth_2": depth_2, "width": width}
        hp = keras_tuner.HyperParameters()
        hp.values = dict(values)
        costs[tuple(sorted(values.items()))] = free.cost(hp).params
    limit = int(np.quantile(list(costs.values()), 0.2))
    feasible = {values for values, params in costs.items() if params <= limit}

    class Limited(NoTraining, tuner.ResNetHyperModel):
        builds = 0

        def build(self, hp):
            Limited.builds += 1
            self.candidate(hp)

    limited = Limited((8, 8, 1), 3, max_params=limit, **options)
    with pytest.warns(UserWarning, match="no further candidate"):
        study = search(limited, max_trials=len(feasible) + 5)  # which is not to be had
    tried = [tuple(sorted(trial.params.items())) for trial in complete(study)]
    assert set(tried) == feasible
    assert len(tried) == len(feasible)
    assert Limited.builds == len(feasible) + 1  # to learn the space
    assert len(study.trials) == len(feasible) + 1
    assert study.trials[-1].user_attrs[queues.VOID] == "no further candidate"


def test_a_space_whose_default_is_over_budget_is_searched():
    limited = image_space(widths=(32, 4), stages=1, depths=1, max_params=2000)
    x, y = np.ones((4, 8, 8, 1), "float32"), np.array([0, 1, 2, 0])
    study = search(limited, max_trials=2, objective="accuracy", x=x, y=y, epochs=1)
    assert states(study) == {"COMPLETE": 2}
    assert {trial.params["width"] for trial in study.trials} == {4}


def test_a_space_without_a_budget_ends_when_all_is_tried():
    class Small(Quick):
        def build(self, hp):
            return hp.Choice("x", [1, 2]), hp.Int("y", 1, 3)

    with pytest.warns(UserWarning, match="no further candidate"):
        study = search(Small(), max_trials=9)
    assert sorted(trial.value for trial in complete(study)) == [2, 3, 3, 4, 4, 5]


@pytest.mark.parametrize(
    "sampler",
    [
        lambda: optuna.samplers.RandomSampler(seed=1),
        lambda: optuna.samplers.TPESampler(seed=1, multivariate=True),
        lambda: optuna.samplers.GridSampler({"x": [1, 2, 3], "z": [4, 5]}, seed=1),
        lambda: optuna.samplers.BruteForceSampler(seed=1),
    ],
    ids=["random", "multivariate", "grid", "brute_force"],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_another_sampler_can_be_given(sampler):
    class Grid(Quick):
        def build(self, hp):
            return hp.Choice("x", [1, 2, 3]), hp.Choice("z", [4, 5])

    study = search(Grid(), max_trials=6, sampler=sampler())
    assert states(study) == {"COMPLETE": 6}
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 6


def test_the_same_seed_runs_the_same_trials_also_if_stopped_in_between(tmp_path):
    def candidates(study):
        return [trial.params for trial in study.trials]

    first = candidates(search(Quick(), max_trials=12))  # the first ten are drawn at random
    assert candidates(search(Quick(), max_trials=12)) == first
    assert candidates(search(Quick(), max_trials=2, seed=2)) != first[:2]
    for max_trials in (4, 12):
        stopped = search(Quick(), tmp_path / "a.journal", max_trials=max_trials)
    assert candidates(stopped) == first


# What comes out


def images(count=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    return {"x": x, "y": np.arange(count) % 3, "validation_data": (x, np.arange(count) % 3)}


def test_a_trial_has_its_best_epoch_and_its_record(tmp_path):
    hypermodel = image_space(stages=1, depths=(1, 2), widths=(2, 3, 4), max_params=1000)
    study = search(
        hypermodel,
        objective="val_loss",
        max_trials=4,
        directory=tmp_path,
        keep_checkpoints=2,
        epochs=3,
        **images(),
    )
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    for trial in study.trials:
        record = trial.user_attrs["record"]
        hp = keras_tuner.HyperParameters()
        hp.values = dict(trial.params)
        assert record["cost"]["params"] == hypermodel.cost(hp).params <= 1000
        assert record["cost"]["macs"] == hypermodel.cost(hp).macs
        assert trial.value == min(record["history"]["val_loss"])
        assert list(trial.intermediate_values.values()) == record["history"]["val_loss"]
        assert 0 < record["seconds"]["training"] <= record["seconds"]["total"]
        assert "stage1_block1" in record["summary"]
    ranked = sorted(study.trials, key=lambda trial: trial.value)
    paths = {tmp_path / "study" / f"trial_{trial.number}.weights.h5" for trial in ranked[:2]}
    assert set((tmp_path / "study").iterdir()) == paths
    hp = keras_tuner.HyperParameters()
    hp.values = dict(study.best_params)
    model = hypermodel.build(hp)
    model.load_weights(tmp_path / "study" / f"trial_{study.best_trial.number}.weights.h5")
    data = images()
    loss = model.evaluate(data["x"], data["y"], verbose=0)[0]
    assert loss == pytest.approx(study.best_value, abs=1e-4)


def test_a_function_is_a_hypermodel_and_callbacks_are_copied():
    class Counting(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            assert self.epochs == epoch + 1

    def build(hp):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(hp.Int("units", 1, 9))])
        model.compile("sgd", "mse")
        return model

    counting = Counting()
    x = np.ones((4, 3), "float32")
    study = search(
        build, objective="loss", x=x, y=x[:, :1], epochs=2, max_trials=2, callbacks=[counting]
    )
    assert states(study) == {"COMPLETE": 2}
    assert counting.epochs == 0
    units = study.best_params["units"]
    assert study.best_trial.user_attrs["record"]["cost"] == {
        "params": 4 * units,
        "trainable_params": 4 * units,
        "macs": 3 * units,
        "activation_memory": 4 * units,
    }


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (3, 3.0),
        (np.float32(0.5), 0.5),
        ({"score": 2.0, "other": 5}, 2.0),
        ([1.0, {"score": 2.0}], 1.5),
    ],
)
def test_fit_may_return_what_kerastuner_takes(result, value):
    class Result(Quick):
        def fit(self, hp, model, **arguments):
            return result

    assert search(Result(), max_trials=1).best_value == value


def test_a_pruner_ends_trials_early():
    class Learns(Quick):
        def fit(self, hp, model, callbacks=(), **arguments):
            for epoch in range(4):
                for callback in callbacks:
                    callback.on_epoch_end(epoch, {"score": model[0] + epoch / 10})
            return model[0] + 0.3

    pruner = optuna.pruners.MedianPruner(n_startup_trials=3)
    study = search(Learns(), max_trials=12, pruner=pruner)
    counts = states(study)
    assert counts["PRUNED"] > 0
    assert sum(counts.values()) == 12
    assert all(len(t.intermediate_values) == 4 for t in complete(study))


class Fails(Quick):
    """Raises in the trials that are listed."""

    def __init__(self, errors):
        super().__init__()
        self.errors = iter(errors)

    def fit(self, hp, model, **arguments):
        error = next(self.errors, None)
        if error:
            raise error
        return model[0]


def test_failures_are_recorded_and_count():
    study = search(Fails([ValueError("a bug"), ValueError("a bug"), None, ValueError("b")]))
    assert [trial.state.name for trial in study.trials] == [
        *("FAIL", "FAIL", "COMPLETE", "FAIL", "COMPLETE")
    ]
    assert "Traceback" in study.trials[0].user_attrs["failure"]
    assert "ValueError: a bug" in study.trials[0].user_attrs["failure"]


def test_out_of_memory_is_recorded_and_ends_nothing():
    study = search(Fails([MemoryError("too large")] * 4))
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * 4 + ["COMPLETE"]
    assert study.trials[0].user_attrs["failure"] == "Out of memory: too large"


def test_three_failures_in_a_row_end_the_call_and_not_the_study():
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(RuntimeError, match=r"(?s)3 trials.*in a row.*ValueError: a bug"):
        search(Fails([ValueError("a bug")] * 9), storage, max_trials=9)
    study = search(Quick(), storage, max_trials=9)
    assert states(study) == {"FAIL": 3, "COMPLETE": 6}


def test_an_objective_that_is_not_measured_or_no_number_is_a_failure():
    class Diverges(Quick):
        def fit(self, hp, model, **arguments):
            return {"score": float("nan")} if model[0] % 2 else {"accuracy": 1.0}

    with pytest.raises(RuntimeError, match=r"`score` is not a number|Received: objective='score'"):
        search(Diverges())


def test_a_fatal_error_ends_the_call():
    with pytest.raises(keras_tuner.errors.FatalError):
        search(Fails([keras_tuner.errors.FatalError("stop")]))


def test_an_interrupted_trial_is_run_again_at_once():
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(KeyboardInterrupt):
        search(Fails([None, KeyboardInterrupt()]), storage)
    study = search(Quick(), storage, grace_period=1000.0)
    assert states(study) == {"COMPLETE": 5, "FAIL": 1}
    assert study.trials[2].params == study.trials[1].params


def test_optuna_logs_as_before_afterwards(capfd):
    level = optuna.logging.get_verbosity()
    search(Quick(), verbose=0)
    assert optuna.logging.get_verbosity() == level
    assert "".join(capfd.readouterr()) == ""
    search(Quick(), verbose=1, max_trials=2)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("2 of 2 over")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_trials": 0}, "`max_trials`.*Received: max_trials=0"),
        ({"grace_period": 0}, "`grace_period`.*Received"),
        ({"keep_checkpoints": 0}, "`keep_checkpoints`.*Received"),
        ({"max_reruns": -1}, "`max_reruns`.*Received"),
        ({"objective": 3}, "`objective`.*Received: objective=3"),
        ({"objective": "unheard_of"}, "unheard_of"),
        ({"hypermodel": 3}, "`hypermodel`.*Received: hypermodel=3"),
        ({"storage": "study.txt"}, "`storage`.*Received: storage='study.txt'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    options = {"hypermodel": Quick(), **options}
    with pytest.raises(ValueError, match=message):
        search(options.pop("hypermodel"), **options)


def test_a_study_of_the_other_direction_is_refused():
    storage = optuna.storages.InMemoryStorage()
    search(Quick(), storage)
    with pytest.raises(ValueError, match=r"`objective`.*maximize.*Received"):
        search(Quick(), storage, objective=keras_tuner.Objective("score", "min"))


# Many workers, some of which die


def as_user(command):
    """PostgreSQL refuses to be run by root."""
    return (
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        if (os.getuid() == 0)
        else command
    )


def postgres_program(name):
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name) or next(
        (str(folder / name) for folder in folders if (folder / name).exists()), None
    )


@pytest.fixture(scope="module")
def postgres():
    """URL of a server of our own, up to the name of the database."""
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    if not (initdb and server):
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    folder = pathlib.Path(subprocess.check_output(as_user(["mktemp", "-d"]), text=True).strip())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run(as_user([initdb, "-D", data, "-U", "test", "-A", "trust"]), **run)
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
    process = subprocess.Popen(
        as_user([server, "-D", data, *options]), stderr=subprocess.DEVNULL, cwd="/"
    )
    try:
        yield f"postgresql+psycopg://test@127.0.0.1:{port}/"
    finally:
        process.send_signal(signal.SIGINT)  # a fast shutdown
        process.wait(timeout=60)
        shutil.rmtree(folder)


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def storage(request, tmp_path):
    """A storage, empty, as an argument that processes can share."""
    if request.param == "journal":
        return str(tmp_path / "search.journal")
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'search.db'}"
    import psycopg

    url = request.getfixturevalue("postgres")
    name = f"search_{time.monotonic_ns()}"
    address = url.replace("+psycopg", "") + "postgres"
    for _ in range(100):
        try:
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            break
        except psycopg.OperationalError:  # still starting
            time.sleep(0.1)
    return url + name


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_resblocks.tuner", "sqlalchemy", "psycopg", __name__])
    return context


GRACE = 3.0  # long enough for a busy machine


def work(notes, seconds, storage, options):
    gc.freeze()
    search(Quick(notes, seconds), storage, **{"grace_period": GRACE, "seed": None, **options})


def start(processes, notes, seconds, storage, **options):
    process = processes.Process(target=work, args=(notes, seconds, storage, options))
    process.start()
    return process


def noted(notes):
    """(event, process, candidate) of all lines."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [(event, int(pid), (x, y)) for event, pid, x, y in (line.split() for line in lines)]


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def join(workers):
    for worker in workers:
        worker.join(timeout=180)
        assert worker.exitcode == 0


def kill(worker):
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()


def loaded(storage):
    from keras_resblocks.tuner.studies.search import open_storage

    return optuna.load_study(study_name="study", storage=open_storage(storage))


def candidates(trials):
    return collections.Counter(tuple(trial.params.items()) for trial in trials)


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_run_again_and_the_count_is_exact(
    storage, processes, tmp_path
):
    notes = tmp_path / "notes.txt"
    workers = [start(processes, notes, 0.3, storage, max_trials=10) for _ in range(3)]
    victim = workers[0]
    wait_for(lambda: any(pid == victim.pid for _, pid, _ in noted(notes)))
    wait_for(lambda: [event for event, pid, _ in noted(notes) if pid == victim.pid][-1] == "begun")
    kill(victim)
    join(workers[1:])
    events = noted(notes)
    lost = [candidate for event, pid, candidate in events if pid == victim.pid][-1]
    assert ("begun", victim.pid, lost) in events
    assert any(event == "ended" and candidate == lost for event, _, candidate in events)
    study = loaded(storage)
    assert len(complete(study)) == 10
    assert set(candidates(complete(study)).values()) == {1}
    runs = [
        trial
        for trial in study.trials
        if tuple(map(str, trial.params.values())) == lost
        and not queues.is_void(trial)  # both survivors may ask for the slot: one gives way
    ]
    assert [trial.state.name for trial in runs] == ["FAIL", "COMPLETE"]
    assert runs[0].user_attrs[queues.DIED]
    assert runs[1].user_attrs[queues.RERUN_OF] == runs[0].number

    late = start(processes, notes, 0.3, storage, max_trials=10)
    join([late])
    assert len(loaded(storage).trials) == len(study.trials)  # and it has taken none
    join([start(processes, notes, 0.0, storage, max_trials=12)])
    assert len(complete(loaded(storage))) == 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_workers_killed_at_random_moments_lose_and_repeat_nothing(
    seed, storage, processes, tmp_path
):
    notes = tmp_path / "notes.txt"
    rng = random.Random(seed)
    max_trials = 40

    def begin():
        return start(processes, notes, 0.05, storage, max_trials=max_trials)

    workers = [begin() for _ in range(3)]
    kills = 0
    while kills < 12:
        before = len(noted(notes))
        wait_for(lambda before=before: len(noted(notes)) > before)
        time.sleep(rng.uniform(0, 0.15))  # about what a trial takes, and what is written of it
        victim = rng.randrange(3)
        if workers[victim].is_alive():
            kill(workers[victim])
            kills += 1
        workers[victim] = begin()
    join(workers)
    study = loaded(storage)
    assert len(complete(study)) == max_trials
    assert set(candidates(complete(study)).values()) == {1}
    died = [t for t in study.trials if t.user_attrs.get(queues.DIED) and t.params]
    drawn = [t for t in died if t.user_attrs.get(queues.DRAWN)]
    assert candidates(drawn).keys() <= candidates(complete(study)).keys()
    assert not study.get_trials(states=(TrialState.RUNNING,))


@pytest.mark.slow
def test_workers_that_race_for_the_last_slots_take_no_more(storage, processes, tmp_path):
    notes = tmp_path / "notes.txt"
    for max_trials in (1, 2, 4):
        join([start(processes, notes, 0.0, storage, max_trials=max_trials) for _ in range(4)])
        study = loaded(storage)
        assert len(complete(study)) == max_trials
        assert sum(event == "begun" for event, _, _ in noted(notes)) == max_trials


@pytest.mark.slow
def test_a_worker_that_was_frozen_and_taken_for_dead_changes_nothing(storage, processes, tmp_path):
    notes = tmp_path / "notes.txt"
    workers = [start(processes, notes, 0.3, storage, max_trials=6) for _ in range(2)]
    frozen = workers[0]
    wait_for(lambda: any(pid == frozen.pid for _, pid, _ in noted(notes)))
    os.kill(frozen.pid, signal.SIGSTOP)
    join(workers[1:])
    study = loaded(storage)
    os.kill(frozen.pid, signal.SIGCONT)
    join(workers)
    assert len(complete(study)) == 6
    assert len(loaded(storage).trials) == len(study.trials)
    assert complete(loaded(storage)) == complete(study)


def test_threads_that_race_take_no_more():
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(study_name="study", storage=storage)
    claims = []

    def take():
        queue = queues.Queue(study, storage, 10, 60.0, 3)
        while len(queue.slots()) < 10:
            claim = queue.claim()
            if claim:
                claims.append(claim.number)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == 10
    assert sorted(claims) == [trial.number for trial in queues.slots(study.trials)]


@pytest.fixture
def lone():
    """Makes queues on a study in memory, each as if of another worker."""
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(study_name="study", storage=storage)
    return lambda **options: queues.Queue(
        study, storage, **{"max_trials": 1, "grace_period": 0.01, "max_reruns": 2, **options}
    )


def bury(queue):
    queue.bury_the_dead()
    time.sleep(2 * queue.grace_period)
    queue.bury_the_dead()


def test_a_worker_killed_before_it_drew_gives_its_slot_back(lone):
    assert lone().claim()
    queue = lone()
    assert len(queue.slots()) == 1
    bury(queue)
    assert queue.slots() == []
    assert queue.claim().number == 1


def test_only_one_worker_runs_a_dead_ones_trial(lone):
    lone().claim().set_attr(queues.DRAWN, True)
    first, second = lone(), lone()
    bury(first)
    (died,) = first.slots()
    assert first.needs_rerun(died)
    assert first.claim() is None  # the slot is not free
    assert first.claim(died)
    assert second.claim(died) is None
    assert len(second.slots()) == 1


def test_a_candidate_that_kills_its_workers_counts_as_failed_in_the_end(lone):
    lone().claim().set_attr(queues.DRAWN, True)
    queue = lone()
    for _ in range(2):
        bury(queue)
        (died,) = queue.slots()
        assert queue.needs_rerun(died)
        queue.claim(died)
    bury(queue)
    (died,) = queue.slots()
    assert queue.is_over(died)
    assert queue.claim() is None


def test_a_live_worker_is_not_buried(lone):
    claim = lone(grace_period=0.2).claim()
    with claim:
        bury(lone(grace_period=0.2))
        claim.end(TrialState.COMPLETE, {}, 1.0)
    assert claim.trial().state == TrialState.COMPLETE


def test_a_worker_that_was_taken_for_dead_drops_its_trial():
    storage = optuna.storages.InMemoryStorage()

    class Frozen(Quick):
        def fit(self, hp, model, callbacks=(), **arguments):
            study = optuna.load_study(study_name="study", storage=storage)
            trial = study.trials[-1]
            if not taken:
                taken.append(trial.number)
                storage.set_trial_user_attr(trial._trial_id, queues.DIED, True)
                study.tell(trial.number, state=TrialState.FAIL)
            return model[0]

    taken = []
    study = search(Frozen(), storage)
    assert taken == [0]
    assert states(study) == {"FAIL": 1, "COMPLETE": 5}
    assert study.trials[1].params == study.trials[0].params
