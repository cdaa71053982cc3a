"""Our tuners do for users' hypermodels what KerasTuner's do."""

import json

import keras
import keras_tuner
import numpy as np
import pytest
from helpers import to_numpy
from searches import TUNERS, trials_of
from users import ARGUMENTS, HYPERMODELS, made

from keras_resblocks import tuner

# What differs between the tuners differs on no backend: one is tested on all of them, and the
# others on PyTorch, which is the quickest for a few steps.
KINDS = [*TUNERS] if keras.backend.backend() == "torch" else ["RandomSearch"]
HOOKS = ("on_search_begin", "pre_create_trial", "on_trial_begin", "on_epoch_begin")
HOOKS += ("on_batch_begin", "on_batch_end", "on_epoch_end", "on_trial_end", "on_search_end")


class Log(keras.callbacks.Callback):
    """Writes down when it is called; all trials share one."""

    def __init__(self, events):
        super().__init__()
        self.events = events

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, logs=None):
        self.events.append("train")

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("epoch", epoch, sorted(logs)))

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(("batch", batch))

    def on_train_end(self, logs=None):
        self.events.append("trained")


def recorded(tuner_class, events, methods):
    """A subclass whose hooks write down when they are called."""

    def hook(name):
        def called(self, *args, **kwargs):
            events.append(name)
            return getattr(super(subclass, self), name)(*args, **kwargs)

        return called

    subclass = type("Recorded", (tuner_class,), {**{n: hook(n) for n in HOOKS}, **methods})
    return subclass


def seeded(build):
    """Makes every build begin alike."""

    def build_alike(hp):
        keras.utils.set_random_seed(7)
        return build(hp)

    return build_alike


def outcome(module, kind, case, directory):
    """All that a user can see of a search."""
    events, left, error = [], [], None
    hypermodel, arguments = made(case)
    if isinstance(hypermodel, keras_tuner.HyperModel):
        hypermodel.build, fit_model = seeded(hypermodel.build), hypermodel.fit

        def fit_and_keep(hp, model, *args, **kwargs):
            results = fit_model(hp, model, *args, **kwargs)
            left.append(sizes(model))
            return results

        hypermodel.fit = fit_and_keep
    else:
        hypermodel = seeded(hypermodel)
    options = case.get("tuner", {})
    options = options() if callable(options) else options
    if kind != "RandomSearch":  # how a trial is run differs no more: an epoch is enough
        arguments |= {"epochs": 1, **({"batch_size": 16} if "batch_size" in arguments else {})}
    arguments["callbacks"] = [*arguments.get("callbacks", ()), Log(events)]
    tuner_class = recorded(getattr(module, kind), events, case.get("methods", {}))
    engine = tuner_class(
        hypermodel,
        **{"objective": "val_loss", **TUNERS[kind], **options},
        seed=3,
        directory=directory / module.__name__,
        project_name="search",
    )
    try:
        engine.search(**arguments, verbose=0)
    except Exception as raised:
        error = type(raised)
    trials = trials_of(engine)
    own = "tuner/max_epochs"
    return {
        "values": [{k: v for k, v in t.hyperparameters.values.items() if k != own} for t in trials],
        "statuses": [trial.status for trial in trials],
        "scores": [trial.score for trial in trials],
        "best steps": [trial.best_step for trial in trials],
        "metrics": [json.dumps(trial.metrics.get_config(), default=float) for trial in trials],
        "events": events,
        "weights left": left,
        "error": error,
        "best": best_weights(engine),
    }


def best_weights(engine):
    """Those of the best model, a number each; what is raised instead if there is none."""
    try:
        return sizes(engine.get_best_models(1)[0])
    except Exception:  # ours is a sentence, KerasTuner's that of a file
        return "no best model"


def sizes(model):
    return [float(np.abs(to_numpy(weight)).sum()) for weight in model.weights]


def assert_alike(kind, case, directory):
    if case.get("only", keras.backend.backend()) != keras.backend.backend():
        pytest.skip("of another backend")
    expected = outcome(keras_tuner, kind, case, directory)
    actual = outcome(tuner, kind, case, directory)
    values = [repr(sorted(trial.items())) for trial in expected["values"]]
    repeats = [i for i, value in enumerate(values) if value in values[:i]]
    if repeats and kind == "BayesianOptimization":  # which does so; ours tries another candidate
        parts = ("values", "statuses", "scores", "best steps", "metrics")
        expected = {part: expected[part][: repeats[0]] for part in parts}
        assert len({repr(sorted(trial.items())) for trial in actual["values"]}) == len(values)
        actual = {part: actual[part][: repeats[0]] for part in parts}
    for part, value in expected.items():
        assert repr(actual[part]) == repr(value), part  # as text, NaN is equal to NaN


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HYPERMODELS)
def test_a_search_is_that_of_kerastuner(name, kind, tmp_path):
    assert_alike(kind, HYPERMODELS[name], tmp_path)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the same on every backend")
@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_mean_what_they_mean_to_kerastuner(name, tmp_path):
    assert_alike("RandomSearch", ARGUMENTS[name], tmp_path)
