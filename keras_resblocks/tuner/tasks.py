"""What a network is trained for: its last activation, its loss, its metrics, what to optimize."""

import copy
import dataclasses
import typing

import keras
import keras_tuner

from keras_resblocks.training import SmoothedSparseCategoricalCrossentropy


def _binary_metrics(**options):
    return [
        keras.metrics.BinaryAccuracy(name="accuracy"),
        keras.metrics.AUC(name="auc", **options),
    ]


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of learning.

    Attributes:
        activation: of the last layer, by name.
        loss: for Keras's `compile`.
        smoothed_loss: function of a label smoothing above 0 to a loss, None if there is none.
        metrics: function of the number of outputs to a list of metrics.
        objective: name and direction of what a search optimizes.
    """

    activation: str
    loss: str
    smoothed_loss: typing.Callable | None
    metrics: typing.Callable
    objective: tuple


TASKS = {
    "classification": Task(
        activation="softmax",
        loss="crossentropy",  # of class numbers or one-hot labels: Keras sees which
        smoothed_loss=SmoothedSparseCategoricalCrossentropy,
        metrics=lambda classes: ["accuracy"],
        objective=("val_accuracy", "max"),
    ),
    "binary": Task(
        activation="sigmoid",
        loss="binary_crossentropy",
        smoothed_loss=lambda s: keras.losses.BinaryCrossentropy(label_smoothing=s),
        metrics=lambda classes: _binary_metrics(),
        objective=("val_accuracy", "max"),
    ),
    "multilabel": Task(
        activation="sigmoid",
        loss="binary_crossentropy",
        smoothed_loss=lambda s: keras.losses.BinaryCrossentropy(label_smoothing=s),
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


def fresh(value):
    """A copy of a loss or of metrics for one model: those of Keras have a state."""
    return copy.deepcopy(value)
