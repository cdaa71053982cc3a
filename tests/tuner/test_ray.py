"""A search by Ray Tune: what comes out, a worker that dies, and going on."""

import os
import sys

import keras
import keras_tuner
import numpy as np
import pytest

from keras_resblocks import tuner
from keras_resblocks.tuner.reports.sources import search_records

ray = pytest.importorskip("ray")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 8, 8, 1)).astype("float32"), np.arange(24) % 3
DATA = {"x": X, "y": Y, "validation_data": (X, Y), "batch_size": 8}


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
    """A small model; one whose training fails where `fails` is a number of units."""

    def __init__(self, fails=None):
        super().__init__()
        self.fails = fails

    def build(self, hp):
        with hp.name_scope("body"):
            units = hp.Choice("units", [1, 2, 3])
        if units == self.fails:
            raise ValueError("a bug")
        layers = [keras.layers.Dense(units, "relu"), keras.layers.GlobalAveragePooling2D()]
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3, "softmax")]
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


class Notes(keras.callbacks.Callback):
    """Writes a line an epoch: epoch and iterations of the optimizer; one worker dies, once."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch, logs=None):
        with open(self.folder / "notes.txt", "ab", buffering=0) as file:
            file.write(f"{epoch} {int(self.model.optimizer.iterations)}\n".encode())
        if epoch == 2:
            try:
                (self.folder / "died").touch(exist_ok=False)
            except FileExistsError:
                return
            os._exit(9)


def search(hypermodel, folder, **options):
    return tuner.ray_search(
        hypermodel, "search", storage_path=folder, seed=1, verbose=0, **{**DATA, **options}
    )


def parameters(values):
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


@pytest.mark.slow
def test_the_trial_of_a_worker_that_died_goes_on_from_its_last_epoch(tmp_path):
    options = {"max_trials": 3, "objective": ["val_accuracy", "params"], "epochs": 4}
    results = search(Sized(), tmp_path, callbacks=[Notes(tmp_path)], **options)
    assert len(results) == 3
    assert (tmp_path / "died").exists()
    lines = [line.split() for line in (tmp_path / "notes.txt").read_text().splitlines()]
    assert sorted(epoch for epoch, _ in lines) == sorted([*"0123" * 3, "2"])
    assert all(int(iterations) == 3 * int(epoch) for epoch, iterations in lines)
    assert len({result.config["body/units"] for result in results}) == 3

    records = search_records(results)
    assert (records.name, records.objective, records.direction) == ("search", "val_accuracy", "max")
    for result, record in zip(results, records.trials):
        assert record.score == result.metrics["val_accuracy"] == max(record.history["val_accuracy"])
        assert len(record.history["val_accuracy"]) == 4
        model = Sized().build(parameters(result.config))
        assert record.params == result.metrics["params"] == model.count_params()
        with result.checkpoint.as_directory() as folder:
            model.load_weights(f"{folder}/best.weights.h5")
        assert model.evaluate(X, Y, verbose=0)[1] == pytest.approx(record.score, abs=1e-4)
    front = records.pareto_front("params")
    assert front[0].params == min(record.params for record in records.trials)
    assert records.best.score == front[-1].score

    with pytest.warns(UserWarning, match="3 trials and not 6"):
        again = search(Sized(), tmp_path, **{**options, "max_trials": 6})
    ids, ids_before = ({one.metrics["trial_id"] for one in grid} for grid in (again, results))
    assert ids == ids_before
    assert len((tmp_path / "notes.txt").read_text().splitlines()) == len(lines)


@pytest.mark.slow
def test_failures_are_results_and_an_exhausted_space_ends_the_search(tmp_path):
    with pytest.warns(UserWarning, match="3 trials and not 4"):
        results = search(Sized(fails=3), tmp_path, max_trials=4, objective="val_accuracy")
    records = search_records(results)
    assert {record.values["body/units"] for record in records.trials} == {1, 2, 3}
    (failed,) = [record for record in records.trials if record.score is None]
    assert (failed.status, failed.values["body/units"]) == ("FAILED", 3)
    assert "ValueError: a bug" in failed.message


@pytest.mark.slow
def test_candidates_are_within_the_budget_and_a_misspelt_objective_is_an_error(tmp_path):
    hypermodel = tuner.ResNetHyperModel(
        (8, 8, 1), 3, blocks="residual", stages=1, depths=(1, 2), widths=(2, 16), max_params=1500
    )
    objective = keras_tuner.Objective("val_acuracy", "max")
    with pytest.raises(RuntimeError, match=r"(?s)`objective`.*val_accuracy.*'val_acuracy'"):
        search(hypermodel, tmp_path, max_trials=1, objective=objective)


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
