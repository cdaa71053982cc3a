"""The records of a search, from the files of KerasTuner and from studies of Optuna."""

import itertools
import random

import keras
import keras_tuner
import numpy as np
import optuna
import pytest
from projects import observed, trial, write_project

from keras_resblocks import tuner
from keras_resblocks.tuner.reports.records import SearchRecords, TrialRecord
from keras_resblocks.tuner.reports.sources import project_records, search_records


def build(hp):
    model = keras.Sequential(
        [
            keras.layers.Dense(hp.Choice("units", [2, 4, 8]), hp.Choice("act", ["relu", "elu"])),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def project(tmp_path):
    """The records of a project of these trials."""

    def read(trials, written=None, objective=None):
        return project_records(write_project(tmp_path / "a", trials, written), objective)

    return read


def test_a_directory_of_kerastuner_is_read(tmp_path):
    options = {"max_trials": 2, "seed": 1, "directory": tmp_path}
    engine = keras_tuner.RandomSearch(build, "val_loss", **options)
    x, y = np.random.default_rng(0).normal(size=(24, 4)).astype("float32"), np.arange(24) % 3
    engine.search(x, y, validation_data=(x, y), epochs=2, verbose=0)
    search = project_records(tmp_path)  # holds this one project
    assert search.name == "untitled_project"
    assert (search.objective, search.direction) == ("val_loss", "min")
    oracle = engine.oracle
    assert [t.trial_id for t in search.trials] == oracle.start_order
    for record in search.trials:
        theirs = oracle.trials[record.trial_id]
        assert record.score == theirs.score
        assert record.values == theirs.hyperparameters.values
        assert record.params == engine.load_model(theirs).count_params()
        assert (record.macs, record.seconds, record.history) == (None, None, {})
    assert search.best.score == oracle.get_best_trials()[0].score
    assert search.best.load_model(build).count_params() == search.best.params
    assert search.space == {"units": "2, 4, 8", "act": "relu, elu"}


def test_a_search_of_ours_says_what_it_was(tmp_path):
    space = {"depths": 1, "widths": (2, 3), "stages": 1, "max_params": 9999}
    hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, **space)
    options = {"max_trials": 1, "seed": 7, "directory": tmp_path}
    engine = tuner.RandomSearch(hypermodel, "val_accuracy", **options)
    x, y = np.zeros((6, 8, 8, 1), "float32"), np.arange(6) % 3
    engine.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    search = search_records(engine)
    model = engine.get_best_models(1)[0]
    assert (search.best.params, search.best.macs > 0) == (model.count_params(), True)
    ours = search.best.load_model(hypermodel)
    np.testing.assert_array_equal(model.predict(x, verbose=0), ours.predict(x, verbose=0))
    assert int(ours.optimizer.iterations) == 1
    assert search.about["budget"] == {"max_params": 9999}
    assert (search.about["hypermodel"], search.about["seed"]) == ("ResNetHyperModel", 7)
    assert search.about["versions"]["keras"] == keras.__version__


def test_a_trial_whose_weights_were_not_kept_has_no_model():
    with pytest.raises(ValueError, match=r"Trial 3 must have weights.*`keep_checkpoints`"):
        TrialRecord(3, "03", "COMPLETED").load_model(lambda hp: None)


RECORD = {
    "cost": {"params": 10, "trainable_params": 8, "macs": None, "activation_memory": 99},
    "history": {"loss": [2.0, 1.0], "val_accuracy": [0.4, 0.5]},
    "seconds": {"total": 3.5, "training": 2.5},
    "summary": "Model: ...",
}


def test_the_record_beside_a_trial_is_read(project):
    search = project([trial({"x": 1}, 0.5, **RECORD)])
    assert search.best == TrialRecord(
        *(0, "00", "COMPLETED", 0.5, {"x": 1}, 10, 8, None, 99),
        *(RECORD["history"], 3.5, 2.5, None, "Model: ..."),
    )
    assert search.best.epochs == 2
    assert search.missing == ["multiply-accumulates"]


@pytest.mark.parametrize("key", RECORD)
@pytest.mark.parametrize("left", [{}, None])
def test_every_part_of_a_record_may_be_absent(key, left, project):
    record = {k: v for k, v in RECORD.items() if k != key}
    record |= {} if left is None else {key: left}
    assert project([trial({}, 0.5, **record)]).best.score == 0.5


def test_values_of_hyperband_are_no_hyperparameters(project):
    values = {"x": 1, "tuner/epochs": 8, "tuner/initial_epoch": 3, "tuner/trial_id": "0001"}
    record = project([trial(values, 0.5)]).best
    assert record.hyperparameters == {"x": 1}
    assert (record.epochs, record.first_epoch) == (8, 3)


def test_a_metric_that_was_reported_every_epoch_is_a_curve(project):
    record = project([trial({}, 5.0, metrics={"val_accuracy": observed(5.0, steps=3)})]).best
    assert record.history == {"val_accuracy": [3.0, 4.0, 5.0]}


def two_metrics(accuracy, loss, score):
    metrics = {"val_accuracy": observed(accuracy), "val_loss": observed(loss, "min")}
    return trial({}, score, metrics=metrics)


WRITTEN = {"objective": {"name": "f1", "direction": "max"}}


@pytest.mark.parametrize(
    ("trials", "written", "asked", "expected"),
    [
        ([two_metrics(0.5, 2.0, 0.5)], None, None, ("val_accuracy", "max")),
        ([two_metrics(0.5, 2.0, 2.0)], None, None, ("val_loss", "min")),
        ([two_metrics(0.5, 0.5, 0.5), two_metrics(0.1, 0.5, 0.5)], None, None, ("val_loss", "min")),
        ([two_metrics(0.5, 2.0, 0.7)], WRITTEN, None, ("f1", "max")),
        ([two_metrics(0.5, 0.5, 0.5)], None, "val_loss", ("val_loss", "min")),
        ([two_metrics(0.5, 2.0, 0.7)], None, keras_tuner.Objective("f1", "max"), ("f1", "max")),
        ([trial({}, status="RUNNING")], None, None, ("score", None)),
        ([], None, None, ("score", None)),
        (
            [trial({}, 0.5, metrics={n: observed(0.5) for n in ("accuracy", "val_accuracy")})],
            *(None, None, ("val_accuracy", "max")),
        ),
        (
            [trial({}, 3.0, metrics={"default_objective": observed(3.0, "min")})],
            *(None, None, ("default_objective", "min")),
        ),
    ],
)
def test_the_objective_is_found(trials, written, asked, expected, project):
    search = project(trials, written, asked)
    assert (search.objective, search.direction) == expected


@pytest.mark.parametrize(
    ("trials", "asked", "message"),
    [
        ([two_metrics(0.5, 2.0, 0.7)], None, "`objective`.*none of their metrics.*Received"),
        ([two_metrics(0.5, 0.5, 0.5)], None, "`objective`.*val_accuracy and of val_loss"),
        ([two_metrics(0.5, 2.0, 0.5)], "val_loss", "`objective`.*val_accuracy.*'val_loss'"),
        ([two_metrics(0.5, 2.0, 0.5)], "f1", "`objective`.*Received: objective='f1'"),
    ],
)
def test_an_objective_that_is_not_clear_is_an_error(trials, asked, message, project):
    with pytest.raises(ValueError, match=message):
        project(trials, None, asked)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], r"`directory`.*Received: .*projects a, b$"),
        (["notes.txt"], r"`directory`.*Received: .*holds only notes\.txt$"),
        ([], r"`directory`.*Received: .*is empty$"),
        (None, r"`directory`.*Received: .*no directory"),
    ],
)
def test_a_directory_without_one_project_says_what_is_there(names, message, tmp_path):
    folder = tmp_path / "results"
    if names is not None:
        folder.mkdir()
        for name in names:
            (folder / name).touch() if "." in name else write_project(folder / name, [])
    with pytest.raises(ValueError, match=message):
        project_records(folder)


def test_a_damaged_trial_hides_no_other(tmp_path):
    folder = write_project(tmp_path / "a", [trial({}, 0.5), trial({}, 0.7)])
    (folder / "trial_00" / "trial.json").write_text("{")
    first, second = project_records(folder).trials
    assert first.status == "UNREADABLE"
    assert "trial_00" in first.message
    assert second.score == 0.7


def test_trials_come_in_the_order_of_their_start_even_if_it_is_lost(tmp_path):
    folder = write_project(tmp_path / "a", [trial({}, x / 10) for x in range(3)])
    (folder / "oracle.json").unlink()
    assert [t.trial_id for t in project_records(folder).trials] == ["00", "01", "02"]


@pytest.mark.parametrize(
    ("score", "status"),
    [(float("nan"), "INVALID"), (float("inf"), "COMPLETED"), (0.5, "RUNNING"), (None, "FAILED")],
)
def test_only_a_completed_trial_has_a_score(score, status, project):
    search = project([trial({}, 0.2), trial({}, score, status)])
    assert [t.score for t in search.ranked] == [0.2, None]


def test_of_equal_scores_the_smallest_model_is_best():
    records = [TrialRecord(n, str(n), "COMPLETED", 0.5, params=p) for n, p in enumerate((5, 3, 3))]
    search = SearchRecords("s", "val_accuracy", "max", tuple(records))
    assert [t.number for t in search.ranked] == [1, 2, 0]


@pytest.mark.parametrize("direction", ["min", "max"])
@pytest.mark.parametrize("seed", range(5))
def test_the_pareto_front_is_what_nothing_beats(direction, seed):
    rng = random.Random(seed)
    trials = tuple(
        TrialRecord(
            *(n, str(n), "COMPLETED", rng.choice([None, *range(6)])),
            macs=rng.choice([None, *range(8)]),  # few values: many ties
        )
        for n in range(40)
    )
    search = SearchRecords("s", "score", direction, trials)
    sign = 1 if direction == "max" else -1
    points = [t for t in trials if t.score is not None and t.macs is not None]

    def beats(a, b):
        no_worse = a.macs <= b.macs and sign * a.score >= sign * b.score
        return no_worse and (a.macs, a.score) != (b.macs, b.score)

    expected = {b.number for b in points if not any(beats(a, b) for a in points)}
    front = search.pareto_front("macs")
    assert {t.number for t in front} == expected
    assert all(a.macs <= b.macs for a, b in itertools.pairwise(front))


def test_a_front_of_an_unknown_cost_is_an_error():
    with pytest.raises(ValueError, match=r"`cost`.*params.*Received: cost='size'"):
        SearchRecords("s", "score", "max", ()).pareto_front("size")


def test_a_study_of_optuna_is_read():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="study", direction="minimize")
    trials = [
        ("COMPLETE", 2.0, {"user_attrs": {"record": RECORD}}),
        ("PRUNED", 9.0, {"intermediate_values": {1: 7.0, 0: 8.0}}),
        ("COMPLETE", 9.0, {"user_attrs": {"over_budget": True}}),
        ("FAIL", None, {}),
        ("FAIL", None, {"user_attrs": {"void": "no further candidate"}}),
    ]
    x = {"x": optuna.distributions.IntDistribution(0, 9)}
    for state, value, fields in trials:
        state = optuna.trial.TrialState[state]
        fields |= {"state": state, "value": value, "params": {"x": 1}, "distributions": x}
        study.add_trial(optuna.trial.create_trial(**fields))
    search = search_records(study, "val_loss")
    assert (search.name, search.objective, search.direction) == ("study", "val_loss", "min")
    assert [(t.number, t.status, t.score) for t in search.trials] == [
        (0, "COMPLETED", 2.0),
        (1, "PRUNED", None),
        (3, "FAILED", None),
    ]
    assert search.best.params == 10
    assert search.trials[1].history == {"val_loss": [8.0, 7.0]}
    assert search.trials[0].seconds == 3.5
    assert search.trials[1].seconds >= 0  # as Optuna counts, for want of a record
    assert search.space == {"x": "0 to 9"}
