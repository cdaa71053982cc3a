"""A search by Optuna: what comes out, what goes on, and workers that die at any moment."""

import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import keras
import keras_tuner
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from searches import DATA, SHAPE, Epochs, Notes, X, Y, classifier, noted, parameters
from users import HYPERMODELS, made

from keras_resblocks import tuner

SCORE = keras_tuner.Objective("score", "max")


class Quick(keras_tuner.HyperModel):
    """Scores without a model; a list says which trials raise what."""

    def __init__(self, errors=()):
        super().__init__()
        self.errors = iter(errors)

    def build(self, hp):
        return hp.Choice("x", list(range(30))), hp.Float("y", 1e-4, 1.0, sampling="log")

    def fit(self, hp, model, **arguments):
        error = next(self.errors, None)
        if error:
            raise error
        return model[0] + model[1]


def network(**options):
    fixed = {"blocks": "residual", "stages": 1, "activations": "relu", "regularizers": 0.0}
    options = {"depths": 1, "widths": (2, 3, 4), "learning_rates": (1e-3, 1e-2), **options}
    return tuner.ResNetHyperModel(SHAPE, 3, **fixed, **options)


def dense(hp, *layers, **options):
    rate = hp.Float("rate", 1e-4, 1e-2, sampling="log")
    optimizer = keras.optimizers.Adam(rate)
    return classifier(*layers, optimizer=optimizer, run_eagerly=True, **options)


def search(hypermodel, storage=None, **options):
    storage = optuna.storages.InMemoryStorage() if storage is None else storage
    if isinstance(hypermodel, Quick):
        options = {"objective": SCORE, "max_trials": 5, **options}
    return tuner.optuna_search(
        hypermodel, "study", storage, **{"max_trials": 2, "seed": 1, "verbose": 0, **options}
    )


def states(study):
    return "".join(trial.state.name[0] for trial in study.trials)


# What comes out


def test_a_trial_has_its_best_epoch_its_record_and_its_weights(tmp_path):
    hypermodel = network(max_params=1000)
    options = {"objective": "val_loss", "directory": tmp_path, "keep_checkpoints": 2, "epochs": 3}
    study = search(hypermodel, max_trials=4, **options, **DATA)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    for trial in study.trials:
        record = trial.user_attrs["record"]
        cost = hypermodel.cost(parameters(trial.params))
        assert trial.user_attrs["params"] == record["cost"]["params"] == cost.params <= 1000
        assert trial.user_attrs["macs"] == cost.macs
        assert trial.user_attrs["activation_memory"] == 4 * cost.activations
        assert trial.value == min(record["history"]["val_loss"])
        assert list(trial.intermediate_values.values()) == record["history"]["val_loss"]
        assert 0 < record["seconds"]["training"] <= trial.user_attrs["seconds"]
        assert "stage1_block1" in record["summary"]
    best = sorted(study.trials, key=lambda trial: trial.value)[:2]
    folders = [tmp_path / "study" / f"trial_{trial.number}" for trial in best]
    assert {*tmp_path.glob("study/*")} == {*folders}
    for trial, folder in zip(best, folders):
        assert [path.name for path in folder.iterdir() if path.is_file()] == ["best.weights.h5"]
        model = hypermodel.build(parameters(trial.params))
        model.load_weights(folder / "best.weights.h5")
        assert model.evaluate(X, Y, verbose=0)[0] == pytest.approx(trial.value, abs=1e-4)


def test_several_objectives_have_a_front_in_the_study_and_in_the_report(tmp_path):
    def sized(hp):
        return dense(hp, keras.layers.Dense(hp.Int("units", 1, 9), "relu"))

    objective = ["params", "val_loss", "val_accuracy"]
    study = search(sized, objective=objective, max_trials=5, directory=tmp_path, **DATA)
    assert study.metric_names == objective
    for trial in study.trials:
        history = trial.user_attrs["record"]["history"]
        assert trial.values == [
            trial.user_attrs["params"],
            history["val_loss"][0],
            history["val_accuracy"][0],
        ]
    front = {trial.number for trial in study.best_trials}
    assert {path.name for path in tmp_path.glob("study/*")} == {f"trial_{n}" for n in front}
    found = tuner.report(study, tmp_path / "report")
    assert (found.search.objective, found.search.others) == ("val_loss", {"val_accuracy": "max"})
    assert {trial.number for trial in found.pareto_front("params")} <= front
    assert len(found.pareto_front("params")) >= 1
    assert len(found.pareto_front("val_accuracy")) >= 1
    page = found.paths["report.html"].read_text()
    assert all(text in page for text in ("val_loss", "val_accuracy", "Pareto front"))


def test_the_dashboard_opens_the_study_and_shows_what_a_trial_costs(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    url = f"sqlite:///{tmp_path / 'search.db'}"
    (trial,) = search(dense, url, max_trials=1, **DATA).trials

    def get(path):
        answers = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "after=0"}
        app = dashboard.wsgi(url)
        body = app(environ, lambda status, headers, *rest: answers.append(status))
        assert answers == ["200 OK"]
        return json.loads(b"".join(body))

    (summary,) = get("/api/studies")["study_summaries"]
    assert summary["study_name"] == "study"
    (shown,) = get(f"/api/studies/{summary['study_id']}")["trials"]
    attributes = {one["key"]: one["value"] for one in shown["user_attrs"]}
    assert int(attributes["params"]) == trial.user_attrs["params"]
    assert int(attributes["macs"]) == trial.user_attrs["macs"]
    assert {"trainable_params", "activation_memory", "seconds"} <= attributes.keys()


ASKED_FOR = {
    "hyperparameters in fit": {"units", "shuffle"},
    "hyperparameters in our fit": {"width", "rate", "late_rate"},
    "restored weights": {"units"},
    "folds in fit": {"units"},
    "a metric per class": {"units"},
    "an own training step": {"units"},
}


@pytest.mark.parametrize("name", ASKED_FOR)
def test_what_users_write_is_searched(name, tmp_path):
    hypermodel, arguments = made(HYPERMODELS[name])
    study = search(hypermodel, objective="val_loss", directory=tmp_path, **arguments)
    assert states(study) == "CC"
    assert all(ASKED_FOR[name] <= trial.params.keys() for trial in study.trials)
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 2
    assert all(trial.user_attrs["params"] > 0 for trial in study.trials)
    if name != "folds in fit":  # whose score is not that of one model
        best = min(tuner.trial_rows(study), key=lambda record: record.score)
        assert best.load_model(hypermodel).count_params() == best.params


def test_each_trial_has_a_copy_of_the_callbacks():
    class Counting(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            assert self.epochs == epoch + 1

    counting = Counting()
    assert states(search(dense, epochs=2, callbacks=[counting], **DATA)) == "CC"
    assert counting.epochs == 0


def test_a_pruner_ends_trials_early_and_they_count():
    class Worse(Quick):
        """Reports four epochs, worse ones in each trial."""

        trials = 0

        def fit(self, hp, model, callbacks=(), **arguments):
            self.trials += 1
            for epoch in range(4):
                for callback in callbacks:
                    callback.on_epoch_end(epoch, {"score": epoch - 10.0 * self.trials})
            return 3 - 10.0 * self.trials

    study = search(Worse(), max_trials=9, pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    assert states(study) == "CC" + "P" * 7  # more in a row than failures may be
    assert len(study.trials[-1].intermediate_values) == 1


# Errors


def test_failures_are_recorded_with_their_traceback():
    errors = [ValueError("a bug"), ValueError("a bug"), None, ValueError("b")]
    study = search(Quick(errors), max_trials=2)
    assert states(study) == "FFCFC"
    assert "ValueError: a bug" in study.trials[0].user_attrs["failure"]
    assert "Traceback" in study.trials[0].user_attrs["failure"]
    assert "failure" not in study.trials[2].user_attrs


def test_out_of_memory_ends_nothing():
    study = search(Quick([MemoryError("too large")] * 4), max_trials=1)
    assert states(study) == "FFFFC"


def test_three_failures_in_a_row_end_the_call_and_not_the_study():
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(RuntimeError, match=r"(?s)3 trials.*in a row.*Traceback.*ValueError: a bug"):
        search(Quick([ValueError("a bug")] * 9), storage)
    assert states(search(Quick(), storage)) == "FFFCCCCC"


def test_what_fit_returns_is_scored_by_its_best_epoch_or_mean_and_must_be_a_number():
    class Returns(Quick):
        def fit(self, hp, model, **arguments):
            return next(self.errors)

    nan, several = float("nan"), np.array([0.5, 1.0])
    results = [
        nan,
        1.0,
        {"score": [nan, 2.0]},
        [1.0, 2.0],
        {"score": several},
        {"score": [several]},
    ]
    study = search(Returns(results))
    assert states(study) == "FCCCCC"
    assert "`score` is not a number" in study.trials[0].user_attrs["failure"]
    assert [trial.value for trial in study.trials[1:]] == [1.0, 2.0, 1.5, 0.75, 0.75]


def test_a_fatal_error_ends_the_call():
    with pytest.raises(keras_tuner.errors.FatalError, match="stop"):
        search(Quick([keras_tuner.errors.FatalError("stop")]))


def test_a_fit_that_returns_nothing_ends_the_call():
    class Silent(Quick):
        def fit(self, hp, model, **arguments):
            super().fit(hp, model, **arguments)

    with pytest.raises(keras_tuner.errors.FatalError, match=r"must return.*Received: None"):
        search(Silent())


def test_a_misspelt_objective_is_an_error_after_the_first_epoch():
    options = {"objective": keras_tuner.Objective("val_acuracy", "max")}
    with pytest.raises(ValueError, match=r"`objective`.*val_accuracy.*Received.*'val_acuracy'"):
        search(dense, epochs=3, callbacks=[epochs := Epochs()], **options, **DATA)
    assert epochs.begun == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_trials": 0}, "`max_trials`.*Received: max_trials=0"),
        ({"grace_period": 0}, "`grace_period`.*Received"),
        ({"keep_checkpoints": 0}, "`keep_checkpoints`.*Received"),
        ({"max_reruns": -1}, "`max_reruns`.*Received"),
        ({"objective": 3}, "`objective`.*Received: objective=3"),
        ({"objective": ["params", "macs"]}, "`objective`.*at least one metric.*Received"),
        ({"objective": "unheard_of"}, "unheard_of"),
        ({"objective": [SCORE, "macs"], "pruner": optuna.pruners.MedianPruner()}, "`pruner`"),
        ({"hypermodel": 3}, "`hypermodel`.*Received: hypermodel=3"),
        ({"storage": "study.txt"}, "`storage`.*Received: storage='study.txt'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    options = {"hypermodel": Quick(), **options}
    with pytest.raises(ValueError, match=message):
        search(options.pop("hypermodel"), **options)


def test_a_study_of_another_objective_or_space_is_refused():
    storage = optuna.storages.InMemoryStorage()
    search(network(), storage, max_trials=1, **DATA)
    for objective in ("val_loss", keras_tuner.Objective("other", "max")):
        with pytest.raises(ValueError, match=r"`objective`.*val_accuracy \(maximize\).*Received"):
            search(network(), storage, objective=objective)
    with pytest.raises(ValueError, match=r"`hypermodel`.*`width`.*Received"):
        search(network(widths=(2, 8)), storage)


# Going on


def test_a_larger_number_goes_on_and_a_late_call_returns_at_once(tmp_path):
    study = search(Quick(), tmp_path / "a.journal")
    assert states(study) == "CCCCC"
    again = search(Quick([AssertionError("runs")]), tmp_path / "a.journal", max_trials=3)
    assert again.trials == study.trials
    further = search(Quick(), tmp_path / "a.journal", max_trials=7)
    assert states(further) == "C" * 7
    params, whole, other = (
        [trial.params for trial in study.trials]
        for study in (further, search(Quick(), max_trials=7), search(Quick(), seed=2))
    )
    assert params == whole
    assert params[:2] != other[:2]


def test_a_space_that_is_exhausted_ends_the_search():
    with pytest.warns(UserWarning, match="no further candidate"):
        study = search(network(widths=(2, 3), learning_rates=1e-3), max_trials=9, **DATA)
    assert states(study) == "CCF"
    assert study.trials[-1].user_attrs["void"] == "no further candidate"
    assert len(tuner.trial_rows(study)) == 2


def test_what_is_printed_is_a_line_a_trial(capfd):
    level = optuna.logging.get_verbosity()
    search(Quick(), verbose=0)
    assert optuna.logging.get_verbosity() == level
    assert "".join(capfd.readouterr()) == ""
    search(Quick([ValueError("a bug")]), verbose=1, max_trials=2)
    lines = capfd.readouterr().out.splitlines()
    failed = r"trial 0 \| failed after \d s: ValueError: a bug \| no best yet \| 0/2, \d s left"
    assert re.fullmatch(failed, lines[0])
    assert re.fullmatch(r"trial 2 \| score [\d.]+ in \d s \| best .* \| 2/2", lines[2])


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("callbacks", "epochs"),
    [
        ([], [0, 1, 2, 2, 3]),
        ([keras.callbacks.EarlyStopping("loss", patience=9)], [0, 1, 2, 0, 1, 2, 3]),
    ],
    ids=["goes_on", "has_a_state_and_starts_over"],
)
def test_an_interrupted_trial_is_run_again_at_once(callbacks, epochs, tmp_path):
    storage = optuna.storages.InMemoryStorage()
    options = {"epochs": 4, "max_trials": 1, "directory": tmp_path, **DATA}
    notes = tmp_path / "notes.txt"
    with pytest.raises(KeyboardInterrupt):
        search(dense, storage, callbacks=[*callbacks, Notes(notes, 2, interrupt)], **options)
    study = search(dense, storage, callbacks=[*callbacks, Notes(notes)], **options)
    assert states(study) == "FC"
    assert study.trials[0].params == study.trials[1].params
    assert [epoch for _, epoch, _ in noted(notes)] == epochs
    assert all(iterations == 2 * epoch for _, epoch, iterations in noted(notes))
    curve = study.trials[1].user_attrs["record"]["history"]["val_accuracy"]
    assert len(curve) == len(study.trials[1].intermediate_values) == 4
    assert study.best_value == max(curve)
    model = dense(parameters(study.best_params))
    model.load_weights(tmp_path / "study" / "trial_1" / "best.weights.h5")
    assert model.evaluate(X, Y, verbose=0)[1] == pytest.approx(study.best_value, abs=1e-4)


def test_an_interrupted_trial_without_weights_is_run_again(tmp_path):
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(KeyboardInterrupt):
        search(Quick([None, KeyboardInterrupt()]), storage, directory=tmp_path)
    study = search(Quick(), storage, directory=tmp_path)
    assert states(study) == "CFCCCC"
    assert study.trials[2].params == study.trials[1].params


def test_a_worker_that_was_taken_for_dead_goes_on():
    storage = optuna.storages.InMemoryStorage()
    taken = []

    class Suspended(Quick):
        def fit(self, hp, model, **arguments):
            if not taken:
                study = optuna.load_study(study_name="study", storage=storage)
                taken.append(study.tell(study.trials[-1].number, state=TrialState.FAIL))
            return super().fit(hp, model, **arguments)

    assert states(search(Suspended(), storage, max_trials=3)) == "FCCC"


def test_a_trial_that_two_workers_ask_for_is_run_once():
    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(KeyboardInterrupt):
        search(Quick([None, KeyboardInterrupt()]), storage)
    study = optuna.load_study(study_name="study", storage=storage)
    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, study.trials[1])
    assert states(search(Quick(), storage)) == "CFCFCCC"
    assert len({trial.params["x"] for trial in study.trials if trial.state.name[0] == "C"}) == 5


def test_what_a_dead_worker_left_is_kept_until_its_trial_is_run_again(tmp_path):
    storage = optuna.storages.InMemoryStorage()
    study = search(Quick(), storage, max_trials=1, directory=tmp_path)
    lost = study.ask()
    left = tmp_path / "study" / f"trial_{lost.number}"
    left.mkdir(parents=True)
    study.tell(lost, state=TrialState.FAIL)
    assert states(search(Quick(), storage, max_trials=3, directory=tmp_path)) == "CFCC"
    assert left.exists()
    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, study.trials[lost.number])
    assert states(search(Quick(), storage, max_trials=5, directory=tmp_path)) == "CFCCCC"
    assert not left.exists()


# Many workers, one of which dies


def as_user(command):
    """PostgreSQL refuses to be run by root."""
    root = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return [*root, *command] if os.getuid() == 0 else command


def postgres_program(name):
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = (str(folder / name) for folder in folders if (folder / name).exists())
    return shutil.which(name) or next(found, None)


@pytest.fixture
def postgresql():
    """URL of a database of our own."""
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    if not (initdb and server):
        pytest.skip("PostgreSQL is not installed")
    psycopg = pytest.importorskip("psycopg")
    folder = pathlib.Path(subprocess.check_output(as_user(["mktemp", "-d"]), text=True).strip())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, options = str(folder / "data"), ["-h", "127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run(as_user([initdb, "-D", data, "-U", "test", "-A", "trust"]), check=True, **quiet)
    process = subprocess.Popen(as_user([server, "-D", data, "-p", str(port), *options]), **quiet)
    address = f"127.0.0.1:{port}/postgres"
    try:
        for _ in range(100):
            try:
                psycopg.connect(f"postgresql://test@{address}").close()
                break
            except psycopg.OperationalError:  # still starting
                time.sleep(0.1)
        yield f"postgresql+psycopg://test@{address}"
    finally:
        process.send_signal(signal.SIGINT)  # a fast shutdown
        process.wait(timeout=60)
        shutil.rmtree(folder)


@pytest.fixture
def sqlite(tmp_path):
    return f"sqlite:///{tmp_path / 'search.db'}"


def work(storage, folder, callback):
    options = {"epochs": 4, "max_trials": 8, "directory": folder, "grace_period": 4.0, **DATA}
    search(dense, storage, callbacks=[callback], seed=None, **options)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_the_trial_of_a_killed_worker_is_run_again_from_its_last_epoch(database, request, tmp_path):
    url = request.getfixturevalue(database)
    context = multiprocessing.get_context("forkserver")  # which imports once
    context.set_forkserver_preload(["keras_resblocks.tuner", "sqlalchemy", "psycopg", __name__])
    notes = tmp_path / "notes.txt"
    ends = [(2, die), (None, None), (None, None)]
    workers = [
        context.Process(target=work, args=(url, tmp_path, Notes(notes, *end, seconds=0.4)))
        for end in ends
    ]
    for worker in workers:  # all make the tables, at once
        worker.start()
    for worker in workers:
        worker.join(timeout=180)
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, 0, 0]
    victim = workers[0].pid
    study = optuna.load_study(study_name="study", storage=url)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert 8 <= len(complete) <= 10
    assert len({tuple(trial.params.items()) for trial in complete}) == len(complete)
    ((again, number),) = [
        (trial, trial.system_attrs["failed_trial"])
        for trial in complete
        if "failed_trial" in trial.system_attrs
    ]
    lost = study.trials[number]
    assert (lost.state, lost.params) == (TrialState.FAIL, again.params)
    assert [epoch for pid, epoch, _ in noted(notes) if pid == victim] == [0, 1, 2]
    ran = [epoch for pid, epoch, _ in noted(notes) if pid != victim]
    count = len(complete)
    assert [ran.count(epoch) for epoch in range(4)] == [count - 1, count - 1, count, count]
    assert all(iterations == 2 * epoch for _, epoch, iterations in noted(notes))
    assert len(again.user_attrs["record"]["history"]["val_accuracy"]) == 4
    best = tmp_path / "study" / f"trial_{study.best_trial.number}" / "best.weights.h5"
    assert best.exists()
