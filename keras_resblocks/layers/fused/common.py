"""What is alike in the modules of the backends."""

import itertools

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


def is_ungrouped(layer):
    """Whether a convolution is the product of each window with all of its kernel."""
    return is_convolution(layer) and layer.data_format == "channels_last" and layer.groups == 1


def convolution(layer, convolve):
    """A convolution as a function of `(inputs, training)`: `convolve(x, kernel)`, and its bias."""

    def call(inputs, training):
        x = keras.ops.cast(inputs, layer.compute_dtype)
        outputs = convolve(x, keras.ops.cast(layer.kernel, layer.compute_dtype))
        return outputs + keras.ops.cast(layer.bias, outputs.dtype) if layer.use_bias else outputs

    return call


def positions_of(sizes, window, amounts, strides, dilation_rate):
    """How many outputs a window has along each axis.

    Args:
        sizes: of the input.
        window: the sizes of the window.
        amounts: what is padded before and after each axis.
        strides, dilation_rate: an integer for each axis.
    """
    return [
        (size + sum(amount) - 1 - rate * (taps - 1)) // stride + 1
        for size, taps, amount, stride, rate in zip(sizes, window, amounts, strides, dilation_rate)
    ]


def product_of_patches(x, kernel, amounts, strides, dilation_rate, multiply=keras.ops.matmul):
    """A convolution of channels-last maps as the product of two matrices.

    Args:
        x: of shape `(batch, *sizes, channels)`.
        kernel: of shape `(*window, channels, filters)`.
        amounts, strides, dilation_rate: as of `positions_of`.
        multiply: the function of patches `(batch, *positions, n)` and a matrix `(n, filters)`.
    """
    sizes, window, filters = x.shape[1:-1], kernel.shape[:-2], kernel.shape[-1]
    positions = positions_of(sizes, window, amounts, strides, dilation_rate)
    taps = [
        _live_taps(*axis) for axis in zip(window, strides, dilation_rate, amounts, positions, sizes)
    ]
    x = keras.ops.pad(x, ((0, 0), *amounts, (0, 0))) if any(map(any, amounts)) else x
    patches = []
    for offsets in itertools.product(*taps):
        axes = zip(offsets, positions, strides, dilation_rate)
        steps = (slice(o * d, o * d + (n - 1) * s + 1, s) for o, n, s, d in axes)
        patches.append(x[(slice(None), *steps)])
    matrix = kernel[tuple(slice(offsets.start, offsets.stop) for offsets in taps)]
    matrix = keras.ops.reshape(matrix, (-1, filters))
    patches = keras.ops.concatenate(patches, axis=-1) if len(patches) > 1 else patches[0]
    return multiply(patches, matrix)


def _live_taps(size, stride, rate, amount, count, extent):
    """The range of taps along an axis without those at its ends that only ever meet padding."""

    def meets(tap):
        first = tap * rate - amount[0]
        return any(0 <= first + position * stride < extent for position in range(count))

    live = list(filter(meets, range(size)))
    return range(live[0], live[-1] + 1) if live else range(1)


def is_batch_normalization(layer):
    """Whether a built layer is what Keras calls so, over the axis of the channels, and no more."""
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
