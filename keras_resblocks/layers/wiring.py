"""How layers are connected: one after another, or side by side.

Plain callables rather than layers: they add no level to the weights' paths, since Keras tracks
the layers under their owner's attributes.
"""

import inspect

import keras

from keras_resblocks.layers import fused
from keras_resblocks.layers.fused.common import in_turn


class Chain:
    """Layers, one after another; what is None is left out.

    Args:
        fused: whether to compute them by the backend's own fused operations, if it has some.
        owns_input: whether nothing else reads the input, so that it may be overwritten.
    """

    def __init__(self, layers, fused=False, owns_input=False):
        self.layers = [layer for layer in layers if layer is not None]
        self.fused = fused
        self.owns_input = owns_input

    def __call__(self, inputs, training=None):
        return self.run(inputs, training)

    def build(self, shape):
        """Builds the layers and returns the shape of the output."""
        for layer in self.layers:
            shape = _build(layer, shape)
        backend = fused.of_backend(self.fused)
        self.run = (
            backend.fuse(self.layers, _stock, _inlined, self.owns_input)
            if backend
            else in_turn(map(_stock, self.layers))
        )
        return tuple(shape)

    def has_weights(self):
        """Whether anything here has a weight; once built."""
        return any(part.weights for part in self.layers)


class Concatenation:
    """Layers or chains side by side on one input, concatenated along the channels."""

    def __init__(self, branches, axis, name):
        self.branches = branches
        self.axis = axis
        self.name = name

    def __call__(self, inputs, training=None):
        return keras.ops.concatenate(
            [branch(inputs, training) for branch in self.branches], self.axis
        )

    def build(self, shape):
        """Builds the branches and returns the shape of the output."""
        shapes = [_build(branch, shape) for branch in self.branches]
        output_shape = list(shapes[0])
        output_shape[self.axis] = sum(branch_shape[self.axis] for branch_shape in shapes)
        return tuple(output_shape)


class Scale:
    """Multiplies by a constant."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, inputs, training=None):
        return inputs * self.factor


class Cast:
    """Casts to a dtype."""

    def __init__(self, dtype):
        self.dtype = dtype

    def __call__(self, inputs, training=None):
        return keras.ops.cast(inputs, self.dtype)


def _build(part, shape):
    if isinstance(part, (Scale, Cast)):
        return shape
    if not isinstance(part, keras.layers.Layer):
        return part.build(shape)
    part.build(shape)
    try:
        return part.compute_output_shape(shape)
    except NotImplementedError:  # as Keras allows: a symbolic call tells it as well
        return part(keras.KerasTensor(shape)).shape


def _stock(part):
    """A part of a chain as a function of `(inputs, training)`."""
    if not isinstance(part, keras.layers.Layer):
        return part
    if "training" in inspect.signature(part.call).parameters:
        return lambda inputs, training: part(inputs, training=training)
    return lambda inputs, training: part(inputs)


def _inlined(part):
    """As `_stock`, but a layer that is a chain and nothing else is that chain."""
    return getattr(part, "inlined", lambda: None)() or _stock(part)
