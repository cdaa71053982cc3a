"""What a search leaves: models, files, tables, and something to go on from."""

import json

import keras
import keras_tuner
import pytest
from searches import DATA, SHAPE, TUNERS, X, Y, trials_of

from keras_resblocks import tuner

SPACE = {"depths": (1, 2), "widths": (2, 3), "stages": 1, "activations": "relu"}
SPACE |= {"regularizers": 0.0, "blocks": "residual"}


def engine_of(directory, max_trials=3):
    options = {"max_trials": max_trials, "keep_checkpoints": 2, "seed": 1, "project_name": "p"}
    hypermodel = tuner.ResNetHyperModel(SHAPE, 3, **SPACE)
    return tuner.RandomSearch(hypermodel, "val_accuracy", directory=directory, **options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def engine(directory):
    """A search that is over."""
    engine = engine_of(directory)
    engine.search(**DATA, epochs=2, verbose=0)
    return engine


def test_the_tuners_are_those_of_kerastuner():
    assert all(issubclass(getattr(tuner, kind), getattr(keras_tuner, kind)) for kind in TUNERS)


def test_the_best_model_scores_and_loads(engine, directory):
    engine.get_best_models(1)[0].save(directory / "best.keras")
    loaded = keras.saving.load_model(directory / "best.keras")
    score = loaded.evaluate(X, Y, verbose=0)[1]
    assert score == pytest.approx(engine.oracle.get_best_trials(1)[0].score, abs=1e-4)


def test_the_best_checkpoints_are_kept(engine, directory):
    kept = {path.parent.name for path in directory.rglob("checkpoint.weights.h5")}
    assert kept == {f"trial_{trial.trial_id}" for trial in engine.oracle.get_best_trials(2)}
    assert len(engine.get_best_models(2)) == 2
    with pytest.raises(ValueError, match=r"`trial`.*best 2 trials.*Received"):
        engine.get_best_models(3)


def test_a_trial_is_written_down(engine, directory):
    assert len([*directory.glob("p/trial_*")]) == 3
    assert len(json.loads((directory / "p" / "oracle.json").read_text())["start_order"]) == 3
    for trial in trials_of(engine):
        record = json.loads((directory / "p" / f"trial_{trial.trial_id}/record.json").read_text())
        cost = engine.hypermodel.cost(trial.hyperparameters)
        assert record["cost"] == {
            "params": cost.params,
            "trainable_params": cost.trainable_params,
            "macs": cost.macs,
            "activation_memory": 4 * cost.activations,
        }
        assert {len(values) for values in record["history"].values()} == {2}
        assert 0 < record["seconds"]["training"] < record["seconds"]["total"]
        assert "stage1_block1" in record["summary"]
    described = json.loads((directory / "p" / "search.json").read_text())
    assert described["objective"] == {"name": "val_accuracy", "direction": "max"}


def test_the_same_call_finds_nothing_left_to_do(engine, directory):
    again = engine_of(directory)
    again.search(verbose=0)  # would fail without data
    assert [trial.status for trial in trials_of(again)] == ["COMPLETED"] * 3
    assert [trial.score for trial in trials_of(again)] == [t.score for t in trials_of(engine)]


def test_table_and_plot_show_every_trial(engine, directory, capsys):
    tuner.print_trials(engine)
    table = capsys.readouterr().out
    rows = tuner.trial_rows(engine)
    assert [row.number for row in rows] == [0, 1, 2]
    for row in rows:
        assert f"{row.score:.4f}" in table
        assert f"{row.cost.params:,}" in table
    tuner.plot_trials(engine, directory / "plot.png")
    assert (directory / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_winner_is_retrained_from_scratch(engine):
    model = engine.retrain_best(X, Y, epochs=3, batch_size=12, verbose=0)
    assert len(model.history.epoch) == 3
    assert int(model.optimizer.iterations) == 6
    searched = engine.get_best_models()[0]
    assert [w.shape for w in model.weights] == [w.shape for w in searched.weights]


def test_of_equal_scores_the_smallest_network_is_the_best_for_all(tmp_path, capsys):
    class Equal(tuner.ResNetHyperModel):
        def fit(self, hp, model, *args, **kwargs):
            super().fit(hp, model, *args, **kwargs)
            return {"val_accuracy": 0.5}

    network = Equal(SHAPE, 3, **{**SPACE, "depths": 1, "widths": (3, 2, 4), "learning_rates": 0.1})
    options = {"max_trials": 6, "keep_checkpoints": 1, "seed": 1, "directory": tmp_path}
    engine = tuner.RandomSearch(network, "val_accuracy", **options)
    engine.search(**DATA, epochs=1)
    params = {
        trial.trial_id: network.cost(trial.hyperparameters).params for trial in trials_of(engine)
    }
    best = min(params, key=params.get)
    assert best != "0"
    found = tuner.report(engine)
    weights = [path.parent.name for path in tmp_path.rglob("trial_*/*.weights.h5")]
    assert weights == [f"trial_{best}"]
    assert (found.best.trial_id, found.best.number) == (best, int(best))
    assert engine.get_best_models(1)[0].count_params() == params[best]
    assert f"({best}) |" in capsys.readouterr().out.splitlines()[-1]
    assert engine.retrain_best(X, Y).count_params() == params[best]
