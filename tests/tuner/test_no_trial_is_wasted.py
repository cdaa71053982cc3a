"""Every trial counts: none is over budget, and running out of memory ends no search."""

import keras
import keras_tuner
import pytest
from helpers import is_installed
from searches import SHAPE, as_set, trials_of, within_budget

from keras_resblocks import tuner

TUNERS = {
    "RandomSearch": {"max_trials": 20},
    "BayesianOptimization": {"max_trials": 14, "num_initial_points": 4},
    "Hyperband": {"max_epochs": 8, "factor": 2},
    "GridSearch": {"max_trials": None},
}


class NoTraining:
    """Mixed into a tuner: the score of a trial is a number from its values."""

    def run_trial(self, trial, *args, **kwargs):
        values = trial.hyperparameters.values
        return values["depth_1"] + values["width"] / 100 + values.get("tuner/epochs", 0) / 1000


def engine_of(kind, hypermodel, directory, **options):
    quick_class = type(f"Quick{kind}", (NoTraining, getattr(tuner, kind)), {})
    options = {**TUNERS[kind], "seed": 1, "directory": directory, **options}
    return quick_class(hypermodel, objective="val_accuracy", **options)


@pytest.fixture(scope="module")
def tight():
    """A space with 60% of it over budget, and the candidates that are not."""
    hypermodel, feasible = within_budget(0.4, learning_rates=(1e-3, 1e-2))
    assert 0.35 < len(feasible) / 128 < 0.45
    return hypermodel, feasible


@pytest.mark.parametrize("kind", TUNERS)
def test_every_trial_of_a_space_mostly_over_budget_is_useful(kind, tight, tmp_path):
    hypermodel, feasible = tight
    if kind != "Hyperband":  # its number of trials is given
        engine_of(kind, hypermodel, tmp_path, max_trials=5).search(verbose=0)
    engine = engine_of(kind, hypermodel, tmp_path)  # goes on after it was stopped
    engine.search(verbose=0)
    trials = trials_of(engine)
    own = [
        {name: value for name, value in trial.hyperparameters.values.items() if "/" not in name}
        for trial in trials
    ]
    assert all(trial.status == "COMPLETED" for trial in trials)
    assert as_set(own) <= feasible
    expected = {"RandomSearch": 20, "BayesianOptimization": 14, "GridSearch": len(feasible)}
    rounds = (8 + 4 + 2 + 1) + (6 + 3 + 2) + (4 + 2) + 4
    assert len(trials) == expected.get(kind, rounds)
    if kind != "Hyperband":  # whose later rounds go on with the best of the earlier ones
        assert len(as_set(own)) == len(own)


@pytest.mark.parametrize("kind", TUNERS)
def test_the_defaults_may_be_over_budget(kind, tmp_path):
    fixed = {"blocks": "residual", "activations": "relu", "regularizers": 0.0, "stages": 1}
    options = dict(fixed, widths=(32, 8, 4), learning_rates=1e-3, max_params=2000)
    engine = engine_of(kind, tuner.ResNetHyperModel(SHAPE, 3, **options), tmp_path)
    engine.search(verbose=0)
    trials = trials_of(engine)
    assert trials
    assert all(trial.status == "COMPLETED" for trial in trials)
    assert {trial.hyperparameters.values["width"] for trial in trials} <= {4, 8}


class Counting(tuner.ResNetHyperModel):
    """Counts how often it is asked what a candidate is."""

    asked = 0

    def identity(self, values):
        self.asked += 1
        return super().identity(values)


def test_a_draw_after_many_trials_asks_nothing_about_them(tmp_path):
    rates = tuner.Range(1e-4, 1e-2)
    hypermodel = Counting(SHAPE, 3, stages=1, learning_rates=rates, max_params=10_000)
    engine_of("RandomSearch", hypermodel, tmp_path, max_trials=30).search(verbose=0)
    engine = engine_of("RandomSearch", hypermodel, tmp_path, max_trials=None)
    engine.oracle.create_trial("tuner0")
    hypermodel.asked = 0
    engine.oracle.create_trial("tuner1")
    assert hypermodel.asked < 10


def python():
    raise MemoryError


def tensorflow():
    import tensorflow as tf

    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def jax():
    import jax

    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")


def torch():
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def torch_on_cpu():
    raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")


def cublas():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")


def for_real():
    keras.ops.ones((2**46,))


SHORTAGES = [
    *(python, torch_on_cpu, cublas),
    *(fail for fail in (tensorflow, jax, torch) if is_installed(fail.__name__)),
    pytest.param(for_real, marks=pytest.mark.slow),  # TensorFlow asks for ten seconds
]


def search_that_fails(fail, directory):
    """A search with a failure in its first trial."""
    failures = [fail]

    class TooLarge(keras_tuner.HyperModel):
        def build(self, hp):
            return keras.Sequential([keras.layers.Dense(hp.Int("units", 2, 99))])

        def fit(self, hp, model, *args, **kwargs):
            if failures:
                failures.pop()()
            return 0.5

    options = {"max_trials": 2, "max_consecutive_failed_trials": 1, "seed": 1}
    engine = tuner.RandomSearch(TooLarge(), "val_accuracy", directory=directory, **options)
    engine.search(verbose=0)
    return engine


@pytest.mark.parametrize("fail", SHORTAGES)
def test_a_trial_out_of_memory_is_recorded_and_the_search_goes_on(fail, tmp_path):
    engine = search_that_fails(fail, tmp_path)
    trials = [engine.oracle.trials[key] for key in engine.oracle.end_order]
    assert [trial.status for trial in trials] == ["FAILED", "COMPLETED"]
    assert [bool(trial.message) for trial in trials] == [True, False]


@pytest.mark.parametrize("message", ["shapes do not match", "", "memory of a layer"])
def test_other_failures_end_the_search_as_before(message, tmp_path):
    def fail():
        raise ValueError(message)

    with pytest.raises(RuntimeError, match=f"ValueError.*{message}"):
        search_that_fails(fail, tmp_path)
