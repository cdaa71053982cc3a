"""A loss that Keras lacks."""

import keras

from keras_resblocks import validation


@keras.saving.register_keras_serializable(package="keras_resblocks")
class SmoothedSparseCategoricalCrossentropy(keras.losses.Loss):
    """Cross-entropy of class numbers whose one-hot form is smoothed (Szegedy et al. 2016, 7).

    Args:
        label_smoothing: share in [0, 1) of each label that is spread over all classes.
        name, **kwargs: as in `keras.losses.Loss`.
    """

    def __init__(self, label_smoothing=0.1, name="smoothed_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.label_smoothing = validation.rate("label_smoothing", label_smoothing)

    def call(self, y_true, y_pred):
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        one_hot = keras.ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            one_hot, y_pred, label_smoothing=self.label_smoothing
        )

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
