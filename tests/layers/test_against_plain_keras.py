"""The blocks against the same computation in stock Keras layers, and convolutions in NumPy."""

import keras
import numpy as np
import pytest
from helpers import assert_close, built, covering, label, random_array, to_numpy
from keras import layers, ops

import keras_resblocks as kr

SHAPE = (2, 5, 6, 4)


@pytest.fixture
def x():
    return ops.convert_to_tensor(random_array(SHAPE))


class PlainKeras:
    """Stock layers on the weights of a block's units."""

    def __init__(self, training=False):
        self.training = training

    def convolution(self, x, unit, filters, kernel_size=1, strides=1, padding=0):
        """`padding`: positions on each side, as in PyTorch, or a word of Keras's."""
        if not isinstance(padding, str):
            x = layers.ZeroPadding2D(padding)(x)
            padding = "valid"
        options = {"padding": padding, "use_bias": unit.conv.use_bias}
        layer = layers.Conv2D(filters, kernel_size, strides, **options)
        layer.build(x.shape)
        layer.set_weights(unit.conv.get_weights())
        return layer(x)

    def norm(self, x, norm):
        layer = layers.BatchNormalization(epsilon=1e-5)
        layer.build(x.shape)
        layer.set_weights(norm.get_weights())
        return layer(x, training=self.training)

    def unit(self, x, unit, *window, **options):
        return self.norm(self.convolution(x, unit, *window, **options), unit.norm)

    def relu_unit(self, *arguments, **options):
        return ops.relu(self.unit(*arguments, **options))


plain_keras = pytest.mark.parametrize(
    "plain", [PlainKeras(False), PlainKeras(True)], ids=["inference", "training"]
)

# The block, and the convolutions of its branch: filters, kernel size, strides, padding.
KINDS = {
    "residual": (kr.ResidualBlock, lambda n, s: [(n, 3, s, 1), (n, 3, 1, 1)]),
    "bottleneck": (
        lambda n, s, **options: kr.BottleneckBlock(2, s, expansion=n // 2, **options),
        lambda n, s: [(2,), (2, 3, s, 1), (n,)],
    ),
    "bottleneck of the paper": (
        lambda n, s, **options: kr.BottleneckBlock(
            2, s, expansion=n // 2, stride_in_1x1=True, **options
        ),
        lambda n, s: [(2, 1, s), (2, 3, 1, 1), (n,)],
    ),
    "as wide inside as outside": (
        lambda n, s, **options: kr.BottleneckBlock(n, s, expansion=1, **options),
        lambda n, s: [(n,), (n, 3, s, 1), (n,)],
    ),
}


# What a shortcut makes of its input; `project` applies its unit.
CARRIED = {
    "all": lambda x, filters, strides, project: x,
    "padded": lambda x, filters, strides, project: ops.pad(
        x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (0, filters - x.shape[-1]))
    ),
    "projected": lambda x, filters, strides, project: project(x, filters, 1, strides),
    "pooled": lambda x, filters, strides, project: project(
        layers.AveragePooling2D(strides, padding="same")(x), filters
    ),
}
OPTIONS = {
    # Of an input of four channels: the policy, filters, strides and what is carried.
    "shortcut": (
        ("projection", 4, 1, "all"),
        ("projection", 6, 1, "projected"),
        ("projection", 4, 2, "projected"),
        ("projection_always", 4, 1, "projected"),
        ("identity", 4, 1, "all"),
        ("zero_pad", 4, 1, "all"),
        ("zero_pad", 4, 2, "padded"),
        ("zero_pad", 6, 1, "padded"),
        ("zero_pad", 6, 2, "padded"),
        ("avg_pool", 6, 1, "pooled"),
        ("avg_pool", 6, 2, "pooled"),
    ),
    "kind": tuple(KINDS),
    "preactivation": (False, True),
    "activation": ("relu", "elu"),
    "exit_activation": ("inherit", None),
    "training": (False, True),
}


@pytest.mark.parametrize("case", covering(OPTIONS), ids=label)
def test_block_is_its_formula(case, x):
    options = dict(case)
    plain = PlainKeras(options.pop("training"))
    make, windows_of = KINDS[options.pop("kind")]
    shortcut, filters, strides, carried = options.pop("shortcut")
    block = built(make(filters, strides, shortcut=shortcut, **options), SHAPE)
    *windows, last = windows_of(filters, strides)
    preactivation, act = case["preactivation"], keras.activations.get(case["activation"])
    bare = plain.convolution if preactivation else plain.unit

    def project(x, *window):
        return bare(x, block.shortcut, *window)

    y = act(plain.norm(x, block.entry_norm)) if preactivation else x
    # A shortcut without weights is of the input itself.
    is_projection = carried in ("projected", "pooled")
    bypass = CARRIED[carried](y if is_projection else x, filters, strides, project)
    for i, window in enumerate(windows, start=1):
        y = act(plain.unit(y, getattr(block, f"conv{i}"), *window))
    y = bare(y, getattr(block, f"conv{len(windows) + 1}"), *last) + bypass
    is_activated = case["exit_activation"] == "inherit" and not preactivation
    assert_close(block(x, training=plain.training), act(y) if is_activated else y)
    assert hasattr(block, "shortcut") == (carried != "all")


@plain_keras
@pytest.mark.parametrize("normalization", [None, "batch"])
def test_inception_block_v1(normalization, plain, x):
    block = built(kr.InceptionBlock.v1(3, (2, 4), (1, 2), 5, normalization=normalization), SHAPE)
    unit = plain.convolution if normalization is None else plain.unit  # the paper's has biases
    assert block.branch1_conv1.conv.use_bias == (normalization is None)

    y1 = ops.relu(unit(x, block.branch1_conv1, 3))
    y2 = ops.relu(unit(x, block.branch2_conv1, 2))
    y2 = ops.relu(unit(y2, block.branch2_conv2, 4, 3, padding=1))
    y3 = ops.relu(unit(x, block.branch3_conv1, 1))
    y3 = ops.relu(unit(y3, block.branch3_conv2, 2, 5, padding=2))
    y4 = layers.MaxPooling2D(3, 1, padding="same")(x)
    y4 = ops.relu(unit(y4, block.branch4_conv1, 5))
    expected = ops.concatenate([y1, y2, y3, y4], axis=-1)
    assert expected.shape[-1] == 3 + 4 + 2 + 5
    assert_close(block(x, training=plain.training), expected)


@plain_keras
def test_inception_block_with_a_shortcut_a_scale_and_a_split(plain, x):
    branches = [[2, [[(1, (1, 3))], [(2, (3, 1))]]], ["avg_pool", 1]]
    block = built(kr.InceptionBlock(branches, shortcut="identity", residual_scale=0.2), SHAPE)

    y = plain.relu_unit(x, block.branch1_conv1, 2)
    y11 = plain.unit(y, block.branch1_branch1_conv1, 1, (1, 3), padding=(0, 1))
    y12 = plain.unit(y, block.branch1_branch2_conv1, 2, (3, 1), padding=(1, 0))
    y2 = layers.AveragePooling2D(3, 1, padding="same")(x)
    y2 = plain.unit(y2, block.branch2_conv1, 1)
    expected = ops.relu(0.2 * ops.concatenate([y11, y12, y2], axis=-1) + x)
    assert_close(block(x, training=plain.training), expected)


BRANCHES = ((2,), (2, (3, 3)), ("max_pool", 1))


def concatenated(x, block, plain):
    """The `BRANCHES` in stock layers."""
    y1 = plain.relu_unit(x, block.branch1_conv1, 2)
    y2 = plain.relu_unit(x, block.branch2_conv1, 2)
    y2 = plain.relu_unit(y2, block.branch2_conv2, 3, 3, padding=1)
    y3 = layers.MaxPooling2D(3, 1, padding="same")(x)
    return ops.concatenate([y1, y2, plain.relu_unit(y3, block.branch3_conv1, 1)], axis=-1)


@plain_keras
@pytest.mark.parametrize("activation", ["relu", None])
def test_inception_resnet_block_is_that_of_the_paper(activation, plain, x):
    options = {"shortcut": "identity", "residual_scale": 0.17, "exit_activation": activation}
    block = built(kr.InceptionBlock(BRANCHES, filters=4, **options), SHAPE)
    expected = x + 0.17 * plain.convolution(concatenated(x, block, plain), block.conv1, 4)
    expected = ops.relu(expected) if activation else expected
    assert_close(block(x, training=plain.training), expected)


@pytest.mark.parametrize("use_bias", [None, True, False])
def test_filters_without_a_shortcut_are_a_linear_convolution(use_bias, x):
    block = built(kr.InceptionBlock(BRANCHES, filters=5, use_bias=use_bias), SHAPE)
    assert block.conv1.conv.use_bias is (use_bias is not False)
    assert block.branch1_conv1.conv.use_bias is bool(use_bias)
    plain = PlainKeras()
    assert_close(block(x), plain.convolution(concatenated(x, block, plain), block.conv1, 5))
    assert block.compute_output_shape(SHAPE) == (*SHAPE[:-1], 5)


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9])
def test_valid_reduction_is_that_of_inception_v3(size):
    x = ops.convert_to_tensor(random_array((2, size, size + 1, 4)))
    branches = [[(5, 3)], [2, (3, 3), (4, 3)], ["max_pool"]]
    block = built(kr.InceptionBlock(branches, 2, padding="valid"), x.shape)
    plain = PlainKeras()
    y1 = plain.relu_unit(x, block.branch1_conv1, 5, 3, 2)
    y2 = plain.relu_unit(x, block.branch2_conv1, 2)
    y2 = plain.relu_unit(y2, block.branch2_conv2, 3, 3, padding=1)
    y2 = plain.relu_unit(y2, block.branch2_conv3, 4, 3, 2)
    expected = ops.concatenate([y1, y2, layers.MaxPooling2D(3, 2)(x)], axis=-1)
    assert expected.shape == (2, (size - 3) // 2 + 1, (size - 2) // 2 + 1, 5 + 4 + 4)
    assert_close(block(x), expected)


def test_training_moves_the_statistics_as_in_plain_keras(x):
    block = built(kr.ResidualBlock(6), SHAPE)
    plain_norm = layers.BatchNormalization(epsilon=1e-5, momentum=0.9)
    plain_norm.build((2, 5, 6, 6))
    plain_norm.set_weights(block.shortcut.norm.get_weights())
    block(x, training=True)
    plain_norm(PlainKeras(True).convolution(x, block.shortcut, 6), training=True)
    assert_close(block.shortcut.norm.moving_mean, plain_norm.moving_mean)
    assert_close(block.shortcut.norm.moving_variance, plain_norm.moving_variance)


def numpy_convolution(x, kernel, strides, padding):
    """With symmetric padding as PyTorch's `padding=(size - 1) // 2`, with "same" as Keras's."""
    size, pads = len(kernel), [(0, 0)]
    for n in x.shape[1:3]:
        total = size - 1
        if padding == "same":
            total = max((-(-n // strides) - 1) * strides + size - n, 0)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [*pads, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows[:, ::strides, ::strides], kernel)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_paddings_are_those_of_pytorch_and_keras(padding, kernel_size, strides):
    options = {"padding": padding, "activation": None, "normalization": None}
    for spatial in ((5, 6), (7, 8)):
        x = random_array((2, *spatial, 2))
        unit = built(kr.layers.ConvUnit(3, kernel_size, strides, **options), x.shape)
        kernel, bias = map(to_numpy, unit.conv.weights)
        assert_close(unit(x), numpy_convolution(x, kernel, strides, padding) + bias)


@pytest.mark.parametrize("strides", [1, 2])
def test_symmetric_and_same_padding_differ_only_where_strides_are_more_than_1(strides):
    x = random_array((2, 6, 6, 4))
    outputs = [
        to_numpy(built(kr.ResidualBlock(4, strides, padding=padding), x.shape)(x))
        for padding in ("symmetric", "same")
    ]
    assert np.allclose(*outputs, rtol=1e-5, atol=1e-5) == (strides == 1)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dilation_rate", [1, 2])
def test_groups_and_dilation_are_those_of_the_stock_convolution(groups, dilation_rate, x):
    options = {"groups": groups, "dilation_rate": dilation_rate}
    unit = built(kr.layers.ConvUnit(6, 3, normalization=None, activation=None, **options), SHAPE)
    plain = layers.Conv2D(6, 3, padding="same", **options)
    plain.build(SHAPE)
    plain.set_weights(unit.conv.get_weights())
    assert_close(unit(x), plain(x))


def test_one_number_for_each_axis(x):
    options = {"kernel_size": (3, 5), "normalization": None, "activation": None}
    block = built(kr.ResidualBlock(4, (2, 1), **options), SHAPE)
    plain = PlainKeras()
    y = plain.convolution(x, block.conv1, 4, (3, 5), (2, 1), padding=(1, 2))
    y = plain.convolution(y, block.conv2, 4, (3, 5), padding="same")
    assert_close(block(x), y + plain.convolution(x, block.shortcut, 4, 1, (2, 1)))
    assert block.compute_output_shape(SHAPE) == (2, 3, 6, 4)
