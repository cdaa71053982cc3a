"""What is alike in the modules of the backends."""

import keras


def in_turn(calls):
    """The calls, one after another, as a function of `(inputs, training)`."""
    calls = list(calls)

    def run(inputs, training):
        for call in calls:
            inputs = call(inputs, training)
        return inputs

    return run


def where(is_known, calls, stock_calls):
    """The calls in turn for inputs of a known kind; else those of the stock layers."""
    run, run_stock = in_turn(calls), in_turn(stock_calls)

    def call(inputs, training):
        return (run if is_known(inputs) else run_stock)(inputs, training)

    return call


def is_unmasked(inputs):
    """Whether a normalization, which heeds a mask, has none to heed."""
    return getattr(inputs, "_keras_mask", None) is None


def is_convolution(layer):
    """Whether a layer is what Keras calls so, and no more; a subclass may compute anything."""
    return (
        type(layer) in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
        and layer.activation is keras.activations.linear
        and layer.activity_regularizer is None
    )


def convolution(layer, convolve):
    """A convolution as a function of `(inputs, training)`: `convolve(x, kernel)`, and its bias."""

    def call(inputs, training):
        x = keras.ops.cast(inputs, layer.compute_dtype)
        outputs = convolve(x, keras.ops.cast(layer.kernel, layer.compute_dtype))
        return outputs + keras.ops.cast(layer.bias, outputs.dtype) if layer.use_bias else outputs

    return call


def is_batch_normalization(layer):
    """Whether a built layer is what Keras calls so, over the axis of the channels, and no more.

    A subclass may compute anything.
    """
    return (
        type(layer) is keras.layers.BatchNormalization
        and not getattr(layer, "renorm", False)
        and not layer.synchronized
        and layer.activity_regularizer is None
        and data_format_of(layer) is not None
    )


def data_format_of(norm):
    """Where a built normalization has the channels; None if neither first nor last."""
    ndim = norm.input_spec.ndim
    return {ndim - 1: "channels_last", 1: "channels_first"}.get(norm.axis % ndim)
