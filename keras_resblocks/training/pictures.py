"""What the best model of a search has around it: pictures come in, names come out."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_resblocks")
class FitSize(keras.layers.Layer):
    """Resizes images as Pillow's antialiased `BILINEAR` does, unlike `keras.layers.Resizing`.

    It is two products of matrices, which every converter of models knows.

    Args:
        size: height and width to resize to.

    Inputs of shape `(batch, height, width, channels)`, of open height and width.
    """

    def __init__(self, size: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = tuple(size)

    def call(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        rows, columns = map(self._filter, (height, width), self.size)
        return ops.einsum("bhwc,yh,xw->byxc", inputs, rows, columns)

    def _filter(self, length, size):
        """How much each of `length` pixels counts in each of `size`, shape `(size, length)`."""
        scale = ops.cast(length, "float32") / size
        centers = (ops.arange(size, dtype="float32") + 0.5) * scale
        distances = ops.abs(ops.arange(length, dtype="float32") + 0.5 - centers[:, None])
        weights = ops.relu(1 - distances / ops.maximum(scale, 1.0))
        return ops.cast(weights / ops.sum(weights, axis=1, keepdims=True), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.size, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="keras_resblocks")
class Labels(keras.layers.Layer):
    """Passes on what a model predicts, and keeps in its file what that means.

    Args:
        names: of the outputs, in their order; empty for numbers without names.
        background: the gray, 0 to 255, that was below transparent pictures in training.
    """

    def __init__(self, names: Sequence[str], background: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = list(names)
        self.background = background

    def call(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "names": self.names, "background": self.background}


def from_pictures(
    network: keras.Model, names: Sequence[str], divisor: int = 255, background: int = 255
) -> keras.Model:
    """A network with resizing and scaling before it, and the names of its outputs behind it.

    Args:
        network: for one input, of shape `(batch, *spatial, channels)`.
        names, background: as in `Labels`.
        divisor: scales the input to what the network was trained with: 255 for a model that takes
            bytes, 65535 for integers of 16 bits, and 1 for the network's own numbers.

    Returns:
        A model that is not compiled. If the network's images have two dimensions, it takes those
        of any size.
    """
    *size, channels = network.input_shape[1:]
    is_flat = len(size) == 2
    dtype = {255: "uint8", 65535: "uint16"}.get(divisor, "float32")
    inputs = keras.Input((*([None, None] if is_flat else size), channels), dtype=dtype)
    x = inputs
    if divisor != 1:
        x = keras.layers.Rescaling(1 / divisor, dtype="float32")(x)
    if is_flat:
        x = FitSize(size, dtype="float32")(x)
    return keras.Model(inputs, Labels(names, background, dtype="float32")(network(x)))
