"""What the tests of searches share: data, tuners, small models, and a callback that looks on."""

import itertools
import os
import time

import keras
import keras_tuner
import numpy as np
import pytest

from keras_resblocks import tuner

SHAPE = (8, 8, 1)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, *SHAPE)).astype("float32"), np.arange(24) % 3
X[:, 0, 0, 0] = 3 * Y  # something to learn
DATA = {"x": X, "y": Y, "validation_data": (X, Y), "batch_size": 12}

# The arguments of a short search, by the name of the tuner.
TUNERS = {
    "RandomSearch": {"max_trials": 2},
    "GridSearch": {"max_trials": 2},
    "BayesianOptimization": {"max_trials": 2, "num_initial_points": 1},
    "Hyperband": {"max_epochs": 2, "factor": 2},  # five trials
}


def parameters(values=(), **more):
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values, **more)
    return hp


# A space of 64 candidates.
FREE = {
    **{"blocks": "residual", "activations": "relu", "regularizers": 0.0, "stages": 2},
    **{"depths": (1, 2, 3, 4), "widths": (4, 8, 16, 32), "learning_rates": 1e-3},
}


def as_set(found):
    """Of values of hyperparameters."""
    return {tuple(sorted(values.items())) for values in found}


def within_budget(share, hypermodel_class=tuner.ResNetHyperModel, **options):
    """A hypermodel that has a share of its candidates within its budget, and these."""
    options = {**FREE, **options}
    free = hypermodel_class(SHAPE, 3, **options)
    hp = parameters()
    free.declare_hyperparameters(hp)
    names = [parameter.name for parameter in hp.space]
    found = itertools.product(*(parameter.values for parameter in hp.space))
    found = [dict(zip(names, values)) for values in found]
    params = [free.cost(parameters(values)).params for values in found]
    limit = int(np.quantile(params, share))
    feasible = [values for values, count in zip(found, params) if count <= limit]
    return hypermodel_class(SHAPE, 3, **options, max_params=limit), as_set(feasible)


def trials_of(engine):
    """In the order of their start."""
    return [engine.oracle.trials[trial_id] for trial_id in engine.oracle.start_order]


def proposals(hypermodel, count, directory):
    """Hyperparameters that a random search issues; nothing is trained."""
    options = {"max_trials": count, "seed": 1, "directory": directory}
    engine = tuner.RandomSearch(hypermodel, "val_accuracy", **options)
    while (trial := engine.oracle.create_trial("tuner0")).status == "RUNNING":
        yield trial.hyperparameters
        engine.oracle.update_trial(trial.trial_id, {"val_accuracy": 0.0})
        trial.status = "COMPLETED"
        engine.oracle.end_trial(trial)


def classifier(*layers, optimizer="adam", **options):
    """A compiled model of three classes: the layers, and one that is dense."""
    head = [keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input(SHAPE), *layers, *head])
    options = {"metrics": ["accuracy"], **options}
    model.compile(optimizer, "sparse_categorical_crossentropy", **options)
    return model


class Epochs(keras.callbacks.Callback):
    """Lists the epochs that all trials begin; may interrupt the search after some of them."""

    def __init__(self, until=None):
        super().__init__()
        self.until, self.begun = until, []

    def __deepcopy__(self, memo):
        return self

    def on_epoch_begin(self, epoch, logs=None):
        if len(self.begun) == self.until:
            raise KeyboardInterrupt
        self.begun.append(epoch)


def interrupted(search, after, callbacks=()):
    """Interrupts a search after some epochs; what it returns next, and the epochs it begins."""
    with pytest.raises(KeyboardInterrupt):
        search(callbacks=[*callbacks, Epochs(after)])
    rest = Epochs()
    return search(callbacks=[*callbacks, rest]), rest.begun


class Notes(keras.callbacks.Callback):
    """Writes a line an epoch: process, epoch, iterations of the optimizer; may then end it."""

    def __init__(self, path, at_epoch=None, end=None, seconds=0.0):
        super().__init__()
        self.path, self.at_epoch, self.end, self.seconds = path, at_epoch, end, seconds

    def on_epoch_begin(self, epoch, logs=None):
        iterations = int(self.model.optimizer.iterations)
        with open(self.path, "ab", buffering=0) as file:  # one write, whole or not at all
            file.write(f"{os.getpid()} {epoch} {iterations}\n".encode())
        time.sleep(self.seconds)
        if epoch == self.at_epoch:
            self.end()


def noted(path):
    """(process, epoch, iterations) of all epochs."""
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
