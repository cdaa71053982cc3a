"""Every trial counts: none is over budget, and running out of memory ends no search."""

import itertools
import traceback

import keras
import keras_tuner
import numpy as np
import pytest
from helpers import is_installed

from keras_resblocks import tuner
from keras_resblocks.tuner import memory

IMAGE = (8, 8, 1)
TUNERS = {
    "random": (tuner.RandomSearch, {"max_trials": 20}),
    "bayesian": (tuner.BayesianOptimization, {"max_trials": 14, "num_initial_points": 4}),
    "hyperband": (tuner.Hyperband, {"max_epochs": 8, "factor": 2}),
    "grid": (tuner.GridSearch, {"max_trials": None}),
}


class NoTraining:
    """Mixed into a tuner: the score of a trial is a number from its values."""

    def run_trial(self, trial, *args, **kwargs):
        values = trial.hyperparameters.values
        return values["depth_1"] + values["width"] / 100 + values.get("tuner/epochs", 0) / 1000


def space(**options):
    options = {"depths": (1, 2, 3, 4), "widths": (4, 8, 16, 32), "stages": 2, **options}
    return tuner.ResNetHyperModel(IMAGE, 3, **options)


def all_candidates(hypermodel):
    """The parameters of every candidate, by its values."""
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    names = [parameter.name for parameter in hp.space]
    candidates = {}
    for values in itertools.product(*(parameter.values for parameter in hp.space)):
        hp.values = dict(zip(names, values))
        candidates[tuple(sorted(hp.values.items()))] = hypermodel.cost(hp).params
    return candidates


def engine_of(kind, hypermodel, directory, seed=1, **options):
    tuner_class, arguments = TUNERS[kind]
    quick_class = type(f"Quick{kind}", (NoTraining, tuner_class), {})
    return quick_class(
        hypermodel,
        objective="val_accuracy",
        seed=seed,
        directory=directory,
        project_name=kind,
        **{**arguments, **options},
    )


@pytest.fixture(scope="module")
def tight():
    """A space with 60% of it over budget, and the candidates that are not."""
    fixed = {"blocks": "residual", "activations": "relu", "regularizers": 0.0}
    options = {**fixed, "learning_rates": (1e-3, 1e-2)}
    costs = all_candidates(space(**options))
    limit = int(np.quantile(list(costs.values()), 0.4))
    feasible = {values for values, params in costs.items() if params <= limit}
    assert 0.35 < len(feasible) / len(costs) < 0.45
    return space(**options, max_params=limit), feasible


@pytest.mark.parametrize("kind", TUNERS)
def test_every_trial_of_a_space_mostly_over_budget_is_useful(kind, tight, tmp_path):
    hypermodel, feasible = tight
    engine = engine_of(kind, hypermodel, tmp_path)
    engine.search(verbose=0)
    trials = list(engine.oracle.trials.values())
    own = [
        tuple(sorted((k, v) for k, v in trial.hyperparameters.values.items() if "/" not in k))
        for trial in trials
    ]
    assert all(trial.status == "COMPLETED" for trial in trials)
    assert set(own) <= feasible
    expected = {"random": 20, "bayesian": 14, "grid": len(feasible)}
    expected["hyperband"] = engine.oracle.total_trials()
    assert len(trials) == expected[kind]
    if kind != "hyperband":  # whose later rounds go on with the best of the earlier ones
        assert len(set(own)) == len(own)


def test_a_grid_search_goes_on_after_it_was_stopped(tight, tmp_path):
    hypermodel, feasible = tight
    engine_of("grid", hypermodel, tmp_path, max_trials=5).search(verbose=0)
    engine = engine_of("grid", hypermodel, tmp_path)
    engine.search(verbose=0)
    assert len(engine.oracle.trials) == len(feasible)


def out_of_memory_errors():
    """What running out of memory raises, on each backend that is installed and in Python."""
    yield "python", lambda: MemoryError()
    if is_installed("tensorflow"):

        def tensorflow():
            import tensorflow as tf

            return tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

        yield "tensorflow", tensorflow
    if is_installed("jax"):

        def jax():
            import jax

            return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

        yield "jax", jax
    if is_installed("torch"):

        def torch():
            import torch

            return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        yield "torch", torch
        yield (
            "torch_cpu",
            lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
        )
        yield (
            "torch_cublas",
            lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
        )


def raising(make):
    def run_out_of_memory():
        raise make()

    return run_out_of_memory


def ask_for_too_much():
    return keras.ops.ones((2**46,))


# TensorFlow asks for ten seconds before it gives up: once.
SHORTAGES = {"python": (raising(MemoryError), 5), "for real": (ask_for_too_much, 1)}


class TooLarge(keras_tuner.HyperModel):
    """Fails in the first trials."""

    def __init__(self, fail, times=5):
        super().__init__()
        self.fail, self.times_left = fail, times

    def build(self, hp):
        units = hp.Int("units", 2, 99)
        layers = [keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input(IMAGE), *layers])
        loss = "sparse_categorical_crossentropy"
        model.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
        return model

    def fit(self, hp, model, *args, **kwargs):
        if self.times_left:
            self.times_left -= 1
            self.fail()
        return super().fit(hp, model, *args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORTAGES)
def test_trials_out_of_memory_are_recorded_and_the_search_goes_on(name, tmp_path):
    fail, times = SHORTAGES[name]
    engine = tuner.RandomSearch(
        TooLarge(fail, times), "val_accuracy", max_trials=times + 1, seed=1, directory=tmp_path
    )
    x, y = np.ones((4, *IMAGE), "float32"), np.array([0, 1, 2, 0])
    engine.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    statuses = [engine.oracle.trials[key].status for key in engine.oracle.end_order]
    assert statuses == ["FAILED"] * times + ["COMPLETED"]
    messages = [trial.message for trial in engine.oracle.trials.values() if trial.message]
    assert len(messages) == times
    assert all(map(memory.is_out_of_memory, messages))


OUT_OF_MEMORY = dict(out_of_memory_errors())


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_every_way_to_say_out_of_memory_is_known(name):
    error = OUT_OF_MEMORY[name]()
    assert memory.is_out_of_memory(error)
    assert memory.is_out_of_memory("".join(traceback.format_exception(error)))


def test_other_failures_end_the_search_as_before(tmp_path):
    hypermodel = TooLarge(raising(lambda: ValueError("a bug")))
    engine = tuner.RandomSearch(
        hypermodel, "val_accuracy", max_trials=6, seed=1, directory=tmp_path
    )
    with pytest.raises(RuntimeError, match="a bug"):
        engine.search(np.ones((4, *IMAGE), "float32"), np.zeros(4), epochs=1, verbose=0)


@pytest.mark.parametrize("message", ["shapes do not match", "", "memory of a layer"])
def test_other_errors_are_not_taken_for_it(message):
    assert not memory.is_out_of_memory(ValueError(message))


class Counting(tuner.ResNetHyperModel):
    """Counts how often it is asked what a candidate is."""

    asked = 0

    def identity(self, values):
        self.asked += 1
        return super().identity(values)


def test_a_draw_after_many_trials_asks_nothing_about_them(tmp_path):
    rates = tuner.Range(1e-4, 1e-2)
    hypermodel = Counting(IMAGE, 3, stages=1, learning_rates=rates, max_params=10_000)
    engine = engine_of("random", hypermodel, tmp_path, max_trials=None)
    for _ in range(30):
        trial = engine.oracle.create_trial("tuner0")
        engine.oracle.update_trial(trial.trial_id, {"val_accuracy": 0.5})
        trial.status = "COMPLETED"
        engine.oracle.end_trial(trial)
    hypermodel.asked = 0
    engine.oracle.populate_space("31")
    assert hypermodel.asked < 10
