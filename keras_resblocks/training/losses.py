"""A loss that Keras lacks."""

from typing import Any

import keras

from keras_resblocks import validation
from keras_resblocks.types import Config, Tensor


@keras.saving.register_keras_serializable(package="keras_resblocks")
class SmoothedSparseCategoricalCrossentropy(keras.losses.Loss):
    """Cross-entropy of labels that are smoothed.

    Takes class numbers of shape `(batch,)` or `(batch, 1)`, and one-hot labels of shape
    `(batch, classes)`.

    Args:
        label_smoothing: share in [0, 1) of each label that is spread over all classes.
        name: of the loss.
        **kwargs: as in `keras.losses.Loss`.

    Raises:
        ValueError: for a `label_smoothing` outside [0, 1).

    Examples:
        >>> import numpy as np
        >>> from keras_resblocks.tuner import SmoothedSparseCategoricalCrossentropy
        >>> loss = SmoothedSparseCategoricalCrossentropy(0.2)
        >>> round(float(loss(np.array([0]), np.array([[0.5, 0.5]], "float32"))), 4)
        0.6931

    References:
        Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """

    def __init__(
        self,
        label_smoothing: float = 0.1,
        name: str | None = "smoothed_crossentropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = validation.rate("label_smoothing", label_smoothing)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if y_true.shape[1:] != y_pred.shape[1:]:
            labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
            y_true = keras.ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            y_true, y_pred, label_smoothing=self.label_smoothing
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
