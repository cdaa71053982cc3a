"""Pooling whose padding does not count, and gates over the channels."""

import keras
import numpy as np
import pytest
from helpers import DATA_FORMATS, assert_close, built, random_array, shape_of, to_numpy
from keras import layers, ops

import keras_resblocks as kr
from keras_resblocks.layers import Pooling

SHAPE = shape_of(2)


def before(n, size, strides, padding):
    """What is padded before an axis of n positions: as in PyTorch, or as in TensorFlow."""
    if padding == "symmetric":
        return (size - 1) // 2
    return max((-(-n // strides) - 1) * strides + size - n, 0) // 2


def windows(x, size, strides, padding):
    """Of each position the part of its window that is inside."""
    rows, columns = (
        range(-before(n, size, strides, padding), n, strides)[: -(-n // strides)]
        for n in x.shape[1:3]
    )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            inside = x[:, max(row, 0) : row + size, max(column, 0) : column + size]
            yield i, j, inside


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_pooling_counts_only_what_is_inside(kind, size, strides, padding):
    x = random_array((2, 5, 6, 3)) - 5  # all negative: a zero of padding would be the maximum
    assert x.max() < 0
    outputs = to_numpy(Pooling(kind, size, strides, padding=padding)(x))
    reduce = np.max if kind == "max" else np.mean
    seen = 0
    for i, j, window in windows(x, size, strides, padding):
        np.testing.assert_allclose(outputs[:, i, j], reduce(window, axis=(1, 2)), rtol=1e-5)
        seen += 1
    assert seen == outputs.shape[1] * outputs.shape[2]


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["symmetric", "same", "valid"])
@pytest.mark.parametrize("strides", [1, 2])
def test_channels_first_is_channels_last_transposed(kind, rank, padding, strides):
    x = random_array(shape_of(rank))
    last, first = (
        Pooling(kind, 3, strides, padding=padding, data_format=form) for form in DATA_FORMATS
    )
    outputs = to_numpy(first(np.moveaxis(x, -1, 1)))
    assert_close(np.moveaxis(outputs, 1, -1), last(x))
    assert outputs.shape == first.compute_output_shape(np.moveaxis(x, -1, 1).shape)


@pytest.mark.parametrize(
    ("kind", "padding", "stock"),
    [
        ("max", "same", layers.MaxPooling2D),
        ("max", "valid", layers.MaxPooling2D),
        ("avg", "valid", layers.AveragePooling2D),
    ],
)
@pytest.mark.parametrize("strides", [1, 2])
def test_other_paddings_are_those_of_keras(kind, padding, stock, strides):
    x = random_array(SHAPE)
    assert_close(Pooling(kind, 3, strides, padding=padding)(x), stock(3, strides, padding)(x))


def test_inception_block_pools_negative_values_rightly():
    x = -1 - np.abs(random_array(SHAPE))
    block = kr.InceptionBlock([["max_pool"]], activation="elu")
    block.build(SHAPE)
    assert to_numpy(block(x)).max() <= -1
    assert_close(block(x), layers.MaxPooling2D(3, 1, padding="same")(x))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_squeeze_excite_is_its_formula(rank, data_format):
    shape = shape_of(rank, 8, data_format)
    gate = built(kr.SqueezeExcite(4, data_format=data_format), shape)
    x = random_array(shape)
    axes = (
        tuple(range(1, rank + 1)) if data_format == "channels_last" else tuple(range(2, rank + 2))
    )
    (w1, b1), (w2, b2) = (map(to_numpy, dense.weights) for dense in (gate.reduce, gate.expand))
    hidden = np.maximum(x.mean(axes) @ w1 + b1, 0)
    gates = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
    assert w1.shape == (8, 2)
    assert_close(gate(x), x * np.expand_dims(gates, axes))


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_efficient_channel_attention_is_its_formula(data_format):
    shape = shape_of(2, 8, data_format)
    gate = built(kr.EfficientChannelAttention(3, data_format=data_format), shape)
    x = random_array(shape)
    axes = (1, 2) if data_format == "channels_last" else (2, 3)
    means = np.pad(x.mean(axes), ((0, 0), (1, 1)))
    kernel = to_numpy(gate.conv.kernel).ravel()
    logits = sum(kernel[i] * means[:, i : i + 8] for i in range(3))
    assert_close(gate(x), x * np.expand_dims(1 / (1 + np.exp(-logits)), axes))


@pytest.mark.parametrize(
    ("channels", "size"), [(1, 1), (2, 1), (8, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)]
)
def test_adaptive_kernel_size_is_that_of_the_authors(channels, size):
    # As in the authors' code: t = int(abs((log2(C) + 1) / 2)); k = t if t is odd, else t + 1.
    gate = kr.EfficientChannelAttention()
    gate.build((2, 1, 1, channels))
    assert gate.conv.kernel.shape == (size, 1, 1)


def test_narrow_input_keeps_one_hidden_unit():
    gate = kr.SqueezeExcite(16)
    gate.build(SHAPE)
    assert gate.reduce.kernel.shape == (4, 1)


def test_gates_have_their_own_activations():
    gate = built(
        kr.SqueezeExcite(2, activation=layers.ELU(alpha=0.5), gate_activation="hard_sigmoid"), SHAPE
    )
    x = ops.convert_to_tensor(random_array(SHAPE))
    hidden = ops.elu(gate.reduce(ops.mean(x, axis=(1, 2))), alpha=0.5)
    gates = keras.activations.hard_sigmoid(gate.expand(hidden))
    assert_close(gate(x), x * gates[:, None, None, :])
