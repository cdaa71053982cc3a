"""A search by Ray Tune: what comes out, a worker that dies, and going on."""

import functools
import os
import sys

import keras
import keras_tuner
import pytest
from helpers import randomize
from searches import DATA, SHAPE, Notes, classifier, noted, parameters

import keras_resblocks as kr
from keras_resblocks import tuner

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def _two_workers():
    variables = {
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # this module, by its name
    }
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": variables},
    )
    yield
    ray.shutdown()


class Sized(keras_tuner.HyperModel):
    """Four candidates, of 1 to 4 units; one whose training fails, and a budget."""

    def __init__(self, fails=None, most=4):
        super().__init__()
        self.fails, self.most = fails, most

    def build(self, hp):
        with hp.name_scope("body"):
            units = 1 + hp.Boolean("wide")
            with hp.conditional_scope("wide", [True]):
                wider = hp.Choice("wider", ["no", "yes"])
                with hp.conditional_scope("wider", ["yes"]):
                    if wider == "yes":
                        units = hp.Int("units", 3, 4)
        if units == self.fails:
            raise ValueError("a bug")
        return classifier(keras.layers.Dense(units, "relu"))

    def within_budget(self, values):
        return values.get("body/units", 0) <= self.most


def die_once(path):
    """Ends the process where no other has been before."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(9)


def search(hypermodel, folder, **options):
    return tuner.ray_search(
        hypermodel, "search", storage_path=folder, seed=1, verbose=0, **{**DATA, **options}
    )


def assert_has_its_weights(result, hypermodel, score):
    model = hypermodel.build(parameters(result.config))
    with result.checkpoint.as_directory() as folder:
        model.load_weights(f"{folder}/best.weights.h5")
    assert model.evaluate(DATA["x"], DATA["y"], verbose=0)[1] == pytest.approx(score, abs=1e-4)
    return model


@pytest.mark.slow
def test_the_trial_of_a_worker_that_died_goes_on_from_its_last_epoch(tmp_path):
    options = {"max_trials": 3, "objective": ["val_accuracy", "params"], "epochs": 4}
    notes, died = tmp_path / "notes.txt", tmp_path / "died"
    callback = Notes(notes, 2, functools.partial(die_once, died))
    results = search(Sized(), tmp_path, callbacks=[callback], **options)
    assert len(results) == 3
    assert died.exists()
    epochs = noted(notes)
    assert sorted(epoch for _, epoch, _ in epochs) == sorted([*range(4)] * 3 + [2])
    assert all(iterations == 2 * epoch for _, epoch, iterations in epochs)
    assert len({tuple(result.config.items()) for result in results}) == 3

    found = tuner.report(results, tmp_path / "report")
    records = found.search
    assert (records.name, records.objective, records.direction) == ("search", "val_accuracy", "max")
    for result, record in zip(results, records.trials):
        assert record.score == result.metrics["val_accuracy"] == max(record.history["val_accuracy"])
        assert len(record.history["val_accuracy"]) == 4
        model = assert_has_its_weights(result, Sized(), record.score)
        assert record.params == result.metrics["params"] == model.count_params()
    front = found.pareto_front("params")
    assert front[0].params == min(record.params for record in records.trials)
    assert records.best.score == front[-1].score

    with pytest.warns(UserWarning, match="3 trials and not 6"):
        again = search(Sized(), tmp_path, **{**options, "max_trials": 6})
    ids, ids_before = ({one.metrics["trial_id"] for one in grid} for grid in (again, results))
    assert ids == ids_before
    assert noted(notes) == epochs


@pytest.mark.slow
def test_failures_are_results_and_an_exhausted_space_ends_the_search(tmp_path):
    """Scopes within scopes count, and so does the budget."""
    hypermodel = Sized(fails=1, most=3)  # which is the first that is built
    with pytest.warns(UserWarning, match="3 trials and not 4"):
        results = search(hypermodel, tmp_path, max_trials=4, objective="val_accuracy")
    trials = tuner.trial_rows(results)
    values = [{k.partition("/")[2]: v for k, v in trial.values.items()} for trial in trials]
    expected = [{"wide": False}, {"wide": True, "wider": "no"}]
    expected += [{"wide": True, "wider": "yes", "units": 3}]
    assert sorted(values, key=len) == expected
    (failed,) = [trial for trial in trials if trial.score is None]
    assert (failed.status, failed.values["body/wide"]) == ("FAILED", False)
    assert "ValueError: a bug" in failed.message


@pytest.mark.slow
def test_a_misspelt_objective_is_an_error(tmp_path):
    objective = keras_tuner.Objective("val_acuracy", "max")
    with pytest.raises(RuntimeError, match=r"(?s)`objective`.*val_accuracy.*'val_acuracy'"):
        search(Sized(), tmp_path, max_trials=1, objective=objective)


class Own(tuner.FineTuneHyperModel):
    """Asks for a hyperparameter that it does not declare."""

    def build(self, hp):
        model = super().build(hp)
        model.optimizer.learning_rate = hp.Choice("own", [1e-2, 1e-3])
        return model


@pytest.mark.slow
def test_a_network_is_fine_tuned_also_by_a_hypermodel_with_hyperparameters_of_its_own(tmp_path):
    spec = kr.ResNetSpec("residual", depths=(1, 1), width=2)
    path = tmp_path / "small.weights.h5"
    randomize(kr.create_model(spec, input_shape=(8, 8, 3), classes=5)).save_weights(path)
    options = dict(network=(spec, path), warmup_epochs=1, l2=0.0, dropout=0.0, learning_rate=0.1)
    hypermodel = Own(SHAPE, 3, **options, unfrozen_stages=(0, 3), backbone_rate=1.0)
    results = search(hypermodel, tmp_path, max_trials=2, epochs=2)
    best = results.get_best_result("val_accuracy", "max")
    assert_has_its_weights(best, hypermodel, best.metrics["val_accuracy"])
    assert len({hypermodel.identity(result.config) for result in results}) == 2
    assert all({"unfrozen_stages", "own"} <= result.config.keys() for result in results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_trials": 0}, "`max_trials`.*Received: max_trials=0"),
        ({"max_reruns": -1}, "`max_reruns`.*Received"),
        ({"objective": "params"}, "`objective`.*at least one metric.*Received"),
        ({"objective": ["val_loss", "params"], "scheduler": "asha"}, "`scheduler`.*Received"),
    ],
)
def test_bad_arguments_are_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        search(Sized(), tmp_path, **{"max_trials": 1, **options})
