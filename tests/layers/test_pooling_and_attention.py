"""Poolings, over those positions of a window that are inside; and gates over the channels."""

import keras
import numpy as np
import pytest
from helpers import DATA_FORMATS, assert_close, built, random_array, revived, shape_of, to_numpy
from keras import layers, ops

import keras_resblocks as kr
from keras_resblocks.layers import AdaptiveAveragePooling, Pooling

SHAPE = shape_of(2)
REDUCE = {"max": np.max, "avg": np.mean}

on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="compares with PyTorch")


def windows_of(n, size, strides, padding):
    """Start and end, within an axis of n positions, of each window."""
    before = 0
    if padding in ("valid", "ceil"):
        steps = (n - size) / strides
        count = int(np.floor(steps) if padding == "valid" else np.ceil(steps)) + 1
    else:
        count = -(-n // strides)
        total = size - 1 if padding == "symmetric" else max((count - 1) * strides + size - n, 0)
        before = total // 2
    starts = [i * strides - before for i in range(count)]
    return [(max(start, 0), min(start + size, n)) for start in starts]


def reduced(x, windows, reduce):
    """Over each spatial axis of an array channels last, in turn: a window is a box."""
    for axis, pairs in enumerate(windows, start=1):
        parts = [reduce(x.take(range(*pair), axis), axis, keepdims=True) for pair in pairs]
        x = np.concatenate(parts, axis)
    return x


def assert_reduces(pooling, shape, windows, reduce=np.mean):
    """`shape` is channels last; the layer may have the other format."""
    is_first = pooling.data_format == "channels_first"
    x = random_array(shape) - 5  # all negative: a zero of padding would be the maximum
    expected = reduced(x, windows, reduce)
    given = np.moveaxis(x, -1, 1) if is_first else x
    outputs = to_numpy(pooling(given))
    assert outputs.shape == pooling.compute_output_shape(given.shape)
    assert_close(np.moveaxis(outputs, 1, -1) if is_first else outputs, expected)


@pytest.mark.parametrize("kind", REDUCE)
@pytest.mark.parametrize("padding", ["symmetric", "same", "valid", "ceil"])
@pytest.mark.parametrize("spatial", [(8,), (9,), (10,), (7, 6), (5, 4, 6)], ids=str)
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_pooling_counts_only_what_is_inside(kind, padding, spatial, data_format):
    for size in (1, 2, 3, 5):
        for strides in (1, 2, 3):
            if padding in ("valid", "ceil") and size > min(spatial):
                continue
            if padding == "ceil" and size < strides:
                continue
            pooling = Pooling(kind, size, strides, padding=padding, data_format=data_format)
            windows = [windows_of(n, size, strides, padding) for n in spatial]
            assert_reduces(pooling, (2, *spatial, 3), windows, REDUCE[kind])


@pytest.mark.parametrize("kind", REDUCE)
def test_pooling_with_a_window_for_each_axis(kind):
    windows = [windows_of(6, 2, 1, "ceil"), windows_of(8, 4, 3, "ceil")]
    pooling = Pooling(kind, (2, 4), (1, 3), padding="ceil")
    assert_reduces(pooling, (2, 6, 8, 3), windows, REDUCE[kind])


def test_ceil_pooling_of_an_open_size_is_open():
    pooling = Pooling("max", 3, 2, padding="ceil")
    assert pooling.compute_output_shape((None, None, 6, 3)) == (None, None, 3, 3)
    assert revived(pooling).padding == "ceil"


@pytest.mark.parametrize("kind", REDUCE)
@pytest.mark.parametrize(("size", "strides"), [(2, 3), (1, 2), ((3, 2), (2, 3))], ids=str)
def test_ceil_windows_smaller_than_the_strides_raise(kind, size, strides):
    pooling = Pooling(kind, size, strides, padding="ceil")
    for ask in (pooling.compute_output_shape, pooling.build):
        with pytest.raises(ValueError, match=r'`padding="ceil"` .*no smaller than the strides'):
            ask((2, 9, 9, 3))


@on_torch
@pytest.mark.parametrize(("size", "strides"), [(3, 2), (2, 2), (3, 3), (3, 1)])
def test_ceil_pooling_is_that_of_pytorch(size, strides):
    from torch.nn.functional import max_pool2d

    pooling = Pooling("max", size, strides, padding="ceil", data_format="channels_first")
    for n in range(size - strides + 1, 8):
        x = ops.convert_to_tensor(random_array((2, 3, n, 8)))
        assert_close(pooling(x), max_pool2d(x, size, strides, ceil_mode=True))


ADAPTIVE = [((14,), 4), ((6,), 4), ((3,), 4), ((4,), 4), ((7, 5), 1)]
ADAPTIVE += [((14, 6), (4, 3)), ((6, 3), 4), ((3, 4, 6), (4, 4, 2)), ((5, 4, 6), 4)]


@pytest.mark.parametrize("data_format", DATA_FORMATS)
@pytest.mark.parametrize(("spatial", "output_size"), ADAPTIVE, ids=str)
def test_adaptive_pooling_averages_its_windows(spatial, output_size, data_format):
    sizes = output_size if isinstance(output_size, tuple) else (output_size,) * len(spatial)
    windows = [
        [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]
        for n, count in zip(spatial, sizes)
    ]
    pooling = AdaptiveAveragePooling(output_size, data_format=data_format)
    assert_reduces(pooling, (2, *spatial, 3), windows)
    again = revived(pooling)
    assert (again.output_size, again.data_format) == (output_size, data_format)


@on_torch
@pytest.mark.parametrize(
    ("spatial", "output_size"), [case for case in ADAPTIVE if len(case[0]) == 2], ids=str
)
def test_adaptive_pooling_is_that_of_pytorch(spatial, output_size):
    from torch.nn.functional import adaptive_avg_pool2d

    x = ops.convert_to_tensor(random_array((2, 3, *spatial)))
    pooling = AdaptiveAveragePooling(output_size, data_format="channels_first")
    assert_close(pooling(x), adaptive_avg_pool2d(x, output_size))


@pytest.mark.parametrize("shape", [(2, None, 6, 3), (2, 6, None, 3)])
def test_adaptive_pooling_of_an_open_size_raises(shape):
    pooling = AdaptiveAveragePooling(4)
    assert pooling.compute_output_shape(shape) == (2, 4, 4, 3)
    with pytest.raises(ValueError, match=r"`input_shape` must have known sizes.*None"):
        pooling.build(shape)


def test_inception_block_pools_negative_values_rightly():
    x = -1 - np.abs(random_array(SHAPE))
    block = kr.InceptionBlock([["max_pool"]], activation="elu")
    block.build(SHAPE)
    assert to_numpy(block(x)).max() <= -1
    assert_close(block(x), layers.MaxPooling2D(3, 1, padding="same")(x))


def spatial_axes(rank, data_format):
    first = 1 if data_format == "channels_last" else 2
    return tuple(range(first, first + rank))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_squeeze_excite_is_its_formula(rank, data_format):
    shape, axes = shape_of(rank, 8, data_format), spatial_axes(rank, data_format)
    gate = built(kr.SqueezeExcite(4, data_format=data_format), shape)
    x = random_array(shape)
    (w1, b1), (w2, b2) = (map(to_numpy, dense.weights) for dense in (gate.reduce, gate.expand))
    gates = sigmoid(np.maximum(x.mean(axes) @ w1 + b1, 0) @ w2 + b2)
    assert w1.shape == (8, 2)
    assert_close(gate(x), x * np.expand_dims(gates, axes))


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_efficient_channel_attention_is_its_formula(data_format):
    shape, axes = shape_of(2, 8, data_format), spatial_axes(2, data_format)
    gate = built(kr.EfficientChannelAttention(3, data_format=data_format), shape)
    x = random_array(shape)
    means = np.pad(x.mean(axes), ((0, 0), (1, 1)))
    kernel = to_numpy(gate.conv.kernel).ravel()
    gates = sigmoid(sum(kernel[i] * means[:, i : i + 8] for i in range(3)))
    assert_close(gate(x), x * np.expand_dims(gates, axes))


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
