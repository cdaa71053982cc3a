"""The blocks against the same computation in stock Keras layers, and in NumPy."""

import keras
import numpy as np
import pytest
from helpers import assert_close, built, random_array, to_numpy
from keras import layers, ops

import keras_resblocks as kr

SHAPE = (2, 5, 6, 4)


def random_tensor(shape):
    return ops.convert_to_tensor(random_array(shape))


def numpy_convolution(x, kernel, strides=1, padding=0):
    """As `torch.nn.Conv2d(..., padding=padding)` defines it, channels last."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows[:, ::strides, ::strides], kernel)


def numpy_norm(x, norm):
    gamma, beta, mean, variance = map(to_numpy, (*norm.trainable_weights, *norm.variables[2:4]))
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def numpy_unit(x, unit, strides=1, padding=0):
    return numpy_norm(numpy_convolution(x, to_numpy(unit.conv.kernel), strides, padding), unit.norm)


def relu(x):
    return np.maximum(x, 0)


class PlainKeras:
    """Stock layers on the weights of a block's units."""

    def __init__(self, training):
        self.training = training

    def convolution(self, x, conv, filters, kernel_size=1, strides=1, padding=0):
        if padding:
            x = layers.ZeroPadding2D(padding)(x)
        layer = layers.Conv2D(filters, kernel_size, strides, use_bias=conv.use_bias)
        layer.build(x.shape)
        layer.set_weights(conv.get_weights())
        return layer(x)

    def norm(self, x, norm):
        layer = layers.BatchNormalization(epsilon=1e-5)
        layer.build(x.shape)
        layer.set_weights(norm.get_weights())
        return layer(x, training=self.training)

    def unit(self, x, unit, *window, **options):
        return self.norm(self.convolution(x, unit.conv, *window, **options), unit.norm)


@pytest.fixture(params=[False, True], ids=["inference", "training"])
def training(request):
    return request.param


@pytest.mark.parametrize(
    ("filters", "strides"), [(4, 1), (6, 1), (4, 2)], ids=["identity", "widening", "strided"]
)
def test_residual_block(filters, strides, training):
    x = random_tensor(SHAPE)
    block = built(kr.ResidualBlock(filters, strides), SHAPE)
    plain = PlainKeras(training)

    y = ops.relu(plain.unit(x, block.conv1, filters, 3, strides, padding=1))
    y = plain.unit(y, block.conv2, filters, 3, padding=1)
    is_identity = (filters, strides) == (4, 1)
    shortcut = x if is_identity else plain.unit(x, block.shortcut, filters, 1, strides)
    assert hasattr(block, "shortcut") != is_identity
    assert_close(block(x, training=training), ops.relu(y + shortcut))


@pytest.mark.parametrize("strides", [1, 2])
def test_preactivation_residual_block(strides, training):
    x = random_tensor(SHAPE)
    block = built(kr.ResidualBlock(6, strides, preactivation=True, activation="elu"), SHAPE)
    plain = PlainKeras(training)

    activated = ops.elu(plain.norm(x, block.entry_norm))
    y = ops.elu(plain.unit(activated, block.conv1, 6, 3, strides, padding=1))
    y = plain.convolution(y, block.conv2.conv, 6, 3, padding=1)
    shortcut = plain.convolution(activated, block.shortcut.conv, 6, 1, strides)
    assert_close(block(x, training=training), y + shortcut)


@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize(
    ("filters", "strides"), [(1, 1), (2, 1), (2, 2)], ids=["identity", "widening", "strided"]
)
def test_bottleneck_block(filters, strides, stride_in_1x1, training):
    x = random_tensor(SHAPE)
    block = built(kr.BottleneckBlock(filters, strides, stride_in_1x1=stride_in_1x1), SHAPE)
    plain = PlainKeras(training)
    first, second = (strides, 1) if stride_in_1x1 else (1, strides)

    y = ops.relu(plain.unit(x, block.conv1, filters, 1, first))
    y = ops.relu(plain.unit(y, block.conv2, filters, 3, second, padding=1))
    y = plain.unit(y, block.conv3, 4 * filters)
    is_identity = (filters, strides) == (1, 1)
    shortcut = x if is_identity else plain.unit(x, block.shortcut, 4 * filters, 1, strides)
    assert hasattr(block, "shortcut") != is_identity
    assert_close(block(x, training=training), ops.relu(y + shortcut))


@pytest.mark.parametrize("strides", [1, 2])
def test_preactivation_bottleneck_block(strides, training):
    x = random_tensor(SHAPE)
    block = built(kr.BottleneckBlock(2, strides, expansion=strides * 2, preactivation=True), SHAPE)
    plain = PlainKeras(training)

    activated = ops.relu(plain.norm(x, block.entry_norm))
    y = ops.relu(plain.unit(activated, block.conv1, 2))
    y = ops.relu(plain.unit(y, block.conv2, 2, 3, strides, padding=1))
    y = plain.convolution(y, block.conv3.conv, 4 * strides)
    is_identity = strides == 1
    shortcut = (
        x if is_identity else plain.convolution(activated, block.shortcut.conv, 8, 1, strides)
    )
    assert_close(block(x, training=training), y + shortcut)


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_inception_block_v1(normalization, training):
    x = random_tensor(SHAPE)
    block = built(kr.InceptionBlock.v1(3, (2, 4), (1, 2), 5, normalization=normalization), SHAPE)
    plain = PlainKeras(training)
    unit = plain.unit
    if normalization is None:  # the paper's: biases instead

        def unit(x, unit, *window, **options):
            assert unit.conv.use_bias
            return plain.convolution(x, unit.conv, *window, **options)

    y1 = ops.relu(unit(x, block.branch1_conv1, 3))
    y2 = ops.relu(unit(x, block.branch2_conv1, 2))
    y2 = ops.relu(unit(y2, block.branch2_conv2, 4, 3, padding=1))
    y3 = ops.relu(unit(x, block.branch3_conv1, 1))
    y3 = ops.relu(unit(y3, block.branch3_conv2, 2, 5, padding=2))
    y4 = layers.MaxPooling2D(3, 1, padding="same")(x)
    y4 = ops.relu(unit(y4, block.branch4_conv1, 5))
    expected = ops.concatenate([y1, y2, y3, y4], axis=-1)
    assert expected.shape[-1] == 3 + 4 + 2 + 5
    assert_close(block(x, training=training), expected)


def test_inception_block_with_a_shortcut_a_scale_and_a_split(training):
    x = random_tensor(SHAPE)
    block = built(
        kr.InceptionBlock(
            [[2, [[(1, (1, 3))], [(2, (3, 1))]]], ["avg_pool", 1]],
            shortcut="identity",
            residual_scale=0.2,
        ),
        SHAPE,
    )
    plain = PlainKeras(training)

    y = ops.relu(plain.unit(x, block.branch1_conv1, 2))
    y11 = layers.ZeroPadding2D((0, 1))(y)
    y11 = plain.unit(y11, block.branch1_branch1_conv1, 1, (1, 3))
    y12 = layers.ZeroPadding2D((1, 0))(y)
    y12 = plain.unit(y12, block.branch1_branch2_conv1, 2, (3, 1))
    y2 = layers.AveragePooling2D(3, 1, padding="same")(x)
    y2 = plain.unit(y2, block.branch2_conv1, 1)
    expected = ops.relu(0.2 * ops.concatenate([y11, y12, y2], axis=-1) + x)
    assert_close(block(x, training=training), expected)


def test_training_moves_the_statistics_as_in_plain_keras():
    x = random_tensor(SHAPE)
    block = built(kr.ResidualBlock(6), SHAPE)
    plain_norm = layers.BatchNormalization(epsilon=1e-5, momentum=0.9)
    plain_norm.build((2, 5, 6, 6))
    plain_norm.set_weights(block.shortcut.norm.get_weights())
    block(x, training=True)
    plain_norm(PlainKeras(True).convolution(x, block.shortcut.conv, 6), training=True)
    assert_close(block.shortcut.norm.moving_mean, plain_norm.moving_mean)
    assert_close(block.shortcut.norm.moving_variance, plain_norm.moving_variance)


def numpy_zero_padded(x, block, strides):
    x = x[:, ::strides, ::strides]
    return np.concatenate([x, np.zeros((*x.shape[:-1], 6 - x.shape[-1]), "float32")], axis=-1)


def numpy_projected(x, block, strides):
    return numpy_unit(x, block.shortcut, strides)


def numpy_identity(x, block, strides):
    return x


@pytest.mark.parametrize(
    ("shortcut", "channels", "strides", "carried"),
    [
        ("zero_pad", 4, 2, numpy_zero_padded),
        ("zero_pad", 4, 1, numpy_zero_padded),
        ("zero_pad", 6, 2, numpy_zero_padded),
        ("zero_pad", 6, 1, numpy_identity),
        ("projection", 4, 2, numpy_projected),
        ("projection", 4, 1, numpy_projected),
        ("projection", 6, 1, numpy_identity),
        ("projection_always", 6, 1, numpy_projected),
        ("identity", 6, 1, numpy_identity),
    ],
)
def test_bottleneck_as_wide_inside_as_outside_against_numpy(shortcut, channels, strides, carried):
    x = random_array((2, 5, 6, channels))
    block = built(kr.BottleneckBlock(6, strides, expansion=1, shortcut=shortcut), x.shape)

    y = relu(numpy_unit(x, block.conv1))
    y = relu(numpy_unit(y, block.conv2, strides, padding=1))
    y = numpy_unit(y, block.conv3)
    assert_close(block(x), relu(y + carried(x, block, strides)))


@pytest.mark.parametrize("strides", [1, 2])
def test_average_pooled_shortcut_against_numpy(strides):
    x = random_array((2, 4, 6, 4))
    block = built(kr.ResidualBlock(6, strides, shortcut="avg_pool"), x.shape)
    pooled = x.reshape(2, 4 // strides, strides, 6 // strides, strides, 4).mean((2, 4))

    y = relu(numpy_unit(x, block.conv1, strides, padding=1))
    y = numpy_unit(y, block.conv2, padding=1)
    assert_close(block(x), relu(y + numpy_unit(pooled, block.shortcut)))


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_symmetric_padding_is_that_of_pytorch(size, kernel_size, strides):
    x = random_array((2, size, size, 2))
    unit = built(
        kr.layers.ConvUnit(3, kernel_size, strides, activation=None, normalization=None), x.shape
    )
    unit.conv.bias.assign(np.zeros(3))
    kernel = to_numpy(unit.conv.kernel)
    expected = numpy_convolution(x, kernel, strides, padding=(kernel_size - 1) // 2)
    assert_close(unit(x), expected)


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("kernel_size", [2, 3, 4])
@pytest.mark.parametrize("strides", [1, 2])
def test_same_padding_is_that_of_keras(size, kernel_size, strides):
    x = random_array((2, size, size, 2))
    unit = built(
        kr.layers.ConvUnit(
            3, kernel_size, strides, padding="same", activation=None, normalization=None
        ),
        x.shape,
    )
    plain = layers.Conv2D(3, kernel_size, strides, padding="same")
    plain.build(x.shape)
    plain.set_weights(unit.conv.get_weights())
    assert_close(unit(x), plain(x))


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
def test_symmetric_and_same_padding_are_equal_at_stride_1(kernel_size):
    x = random_array(SHAPE)
    symmetric = built(kr.ResidualBlock(4, kernel_size=kernel_size), SHAPE)
    same = built(kr.ResidualBlock(4, kernel_size=kernel_size, padding="same"), SHAPE)
    assert_close(symmetric(x), same(x))


def test_symmetric_and_same_padding_differ_at_stride_2():
    x = random_array((2, 6, 6, 4))
    symmetric = built(kr.ResidualBlock(4, 2), x.shape)
    same = built(kr.ResidualBlock(4, 2, padding="same"), x.shape)
    assert not np.allclose(to_numpy(symmetric(x)), to_numpy(same(x)), atol=1e-2)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dilation_rate", [1, 2])
def test_groups_and_dilation_are_those_of_the_stock_convolution(groups, dilation_rate):
    x = random_array(SHAPE)
    unit = built(
        kr.layers.ConvUnit(
            6, 3, groups=groups, dilation_rate=dilation_rate, normalization=None, activation=None
        ),
        SHAPE,
    )
    plain = layers.Conv2D(6, 3, padding="same", groups=groups, dilation_rate=dilation_rate)
    plain.build(SHAPE)
    plain.set_weights(unit.conv.get_weights())
    assert_close(unit(x), plain(x))


def test_one_number_for_each_axis():
    x = random_array(SHAPE)
    block = built(
        kr.ResidualBlock(4, (2, 1), kernel_size=(3, 5), normalization=None, activation=None), SHAPE
    )
    plain = keras.Sequential(
        [
            layers.ZeroPadding2D((1, 2)),
            layers.Conv2D(4, (3, 5), (2, 1)),
            layers.Conv2D(4, (3, 5), padding="same"),
        ]
    )
    plain.build(SHAPE)
    plain.set_weights(block.conv1.conv.get_weights() + block.conv2.conv.get_weights())
    projection = layers.Conv2D(4, 1, (2, 1))
    projection.build(SHAPE)
    projection.set_weights(block.shortcut.conv.get_weights())
    assert_close(block(x), plain(x) + projection(x))
    assert block.compute_output_shape(SHAPE) == (2, 3, 6, 4)
