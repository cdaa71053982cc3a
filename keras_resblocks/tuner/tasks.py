"""What a network is trained for: its last activation, its loss, its metrics, what to optimize."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import keras_tuner

from keras_resblocks.training import SmoothedSparseCategoricalCrossentropy


class Task(NamedTuple):
    """A kind of learning."""

    activation: str  # of the last layer
    loss: str
    smoothed_loss: Any  # function of a label smoothing above 0; None if there is none
    metrics: Callable  # of the number of outputs
    objective: tuple[str, str]  # name and direction


def _smoothed_binary(smoothing):
    return keras.losses.BinaryCrossentropy(label_smoothing=smoothing)


def _binary_metrics(**options):
    return [
        keras.metrics.BinaryAccuracy(name="accuracy"),
        keras.metrics.AUC(name="auc", **options),
    ]


_sigmoid = functools.partial(
    Task, activation="sigmoid", loss="binary_crossentropy", smoothed_loss=_smoothed_binary
)

TASKS = {
    "classification": Task(
        activation="softmax",
        loss="crossentropy",  # of class numbers or one-hot labels: Keras sees which
        smoothed_loss=SmoothedSparseCategoricalCrossentropy,
        metrics=lambda classes: ["accuracy"],
        objective=("val_accuracy", "max"),
    ),
    "binary": _sigmoid(
        metrics=lambda classes: _binary_metrics(), objective=("val_accuracy", "max")
    ),
    "multilabel": _sigmoid(
        metrics=lambda classes: _binary_metrics(multi_label=True, num_labels=classes),
        objective=("val_auc", "max"),
    ),
    "regression": Task(
        activation="linear",
        loss="mean_squared_error",
        smoothed_loss=None,
        metrics=lambda classes: [keras.metrics.RootMeanSquaredError(name="rmse"), "mae"],
        objective=("val_rmse", "min"),
    ),
}


def objective_of(task):
    """The `keras_tuner.Objective` that fits a task, by its name."""
    return keras_tuner.Objective(*TASKS[task].objective)
