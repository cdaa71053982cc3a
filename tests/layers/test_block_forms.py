"""What may follow the sum or the concatenation, unpadded reductions, and poolings to the end."""

import json

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    DATA_FORMATS,
    assert_close,
    built,
    make_block,
    model_of,
    random_array,
    registered_function,
    shape_of,
    to_numpy,
)
from keras import layers, ops

import keras_resblocks as kr
from keras_resblocks.layers import AdaptiveAveragePooling, Pooling

SHAPE = shape_of(2)


def with_weights_of(source, layer):
    """`layer`, built for the same input as `source` and with its weights."""
    layer.build(SHAPE)
    layer.set_weights(source.get_weights())
    return layer


def stock_convolution(x, unit, filters, kernel_size=1, strides=1, padding="same"):
    """A stock layer on the weights of a block's unit."""
    layer = layers.Conv2D(
        filters, kernel_size, strides, padding=padding, use_bias=unit.conv.use_bias
    )
    layer.build(x.shape)
    layer.set_weights(unit.conv.get_weights())
    return layer(x)


def stock_norm(x, norm, training=False):
    layer = layers.BatchNormalization(epsilon=1e-5)
    layer.build(x.shape)
    layer.set_weights(norm.get_weights())
    return layer(x, training=training)


def stock_unit(x, unit, *window, training=False, **options):
    """Convolution, normalization and ReLU."""
    return ops.relu(stock_norm(stock_convolution(x, unit, *window, **options), unit.norm, training))


# The activation after the sum.

EXIT_ACTIVATIONS = {
    "none": (None, lambda x: x),
    "name": ("tanh", np.tanh),
    "function": (keras.activations.softsign, lambda x: x / (1 + np.abs(x))),
    "registered": (registered_function, lambda x: x / (1 + np.exp(-x))),
    "layer": (layers.LeakyReLU(0.3), lambda x: np.where(x < 0, 0.3 * x, x)),
    "config": (
        keras.saving.serialize_keras_object(layers.ReLU(max_value=0.5)),
        lambda x: np.clip(x, 0, 0.5),
    ),
}

exit_activations = pytest.mark.parametrize("given", EXIT_ACTIVATIONS)


@exit_activations
def test_exit_activation_follows_the_sum(given):
    exit_activation, formula = EXIT_ACTIVATIONS[given]
    x = random_array(SHAPE)
    block = built(kr.ResidualBlock(4, exit_activation=exit_activation), SHAPE)
    y = stock_unit(x, block.conv1, 4, 3)
    y = stock_norm(stock_convolution(y, block.conv2, 4, 3), block.conv2.norm)
    assert_close(block(x), formula(to_numpy(y) + x))


@exit_activations
def test_exit_activation_follows_the_sum_of_a_preactivation_block_too(given):
    exit_activation, formula = EXIT_ACTIVATIONS[given]
    x = random_array(SHAPE)
    block = built(kr.ResidualBlock(6, preactivation=True, exit_activation=exit_activation), SHAPE)
    activated = ops.relu(stock_norm(x, block.entry_norm))
    y = stock_convolution(stock_unit(activated, block.conv1, 6, 3), block.conv2, 6, 3)
    shortcut = stock_convolution(activated, block.shortcut, 6)
    assert_close(block(x), formula(to_numpy(y + shortcut)))


@exit_activations
@pytest.mark.parametrize("kind", BLOCKS)
def test_exit_activation_follows_the_branch_where_there_is_no_sum(kind, given):
    exit_activation, formula = EXIT_ACTIVATIONS[given]
    x = random_array(SHAPE)
    plain = built(make_block(kind, shortcut=None), SHAPE)
    block = with_weights_of(plain, make_block(kind, shortcut=None, exit_activation=exit_activation))
    assert_close(block(x), formula(to_numpy(plain(x))))


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(
    ("preactivation", "shortcut", "meant"),
    [
        (False, "projection_always", "elu"),
        (True, "projection_always", None),
        (False, None, None),
        (True, None, None),
    ],
)
def test_inherit_is_the_activation_after_a_sum_of_linear_branches(
    kind, preactivation, shortcut, meant
):
    x = random_array(SHAPE)
    options = {"activation": "elu", "preactivation": preactivation, "shortcut": shortcut}
    default = built(make_block(kind, **options), SHAPE)
    for exit_activation in ("inherit", meant):
        other = make_block(kind, exit_activation=exit_activation, **options)
        assert_close(with_weights_of(default, other)(x), default(x), 0)
    assert default.exit_activation == "inherit"
    assert default.get_config()["exit_activation"] == "inherit"


@pytest.mark.parametrize("preactivation", [False, True])
def test_a_template_has_weights_of_its_own_at_the_exit(preactivation):
    prelu = layers.PReLU(shared_axes=[1, 2])
    block = kr.ResidualBlock(
        4, activation=prelu, exit_activation=prelu, preactivation=preactivation, name="block"
    )
    model_of(block, shape=SHAPE)
    alphas = [weight.path for weight in block.weights if weight.name == "alpha"]
    first = "block/entry_act/alpha" if preactivation else "block/conv1/act/alpha"
    assert first in alphas
    assert "block/exit_act/alpha" in alphas
    assert len(alphas) == (3 if preactivation else 2)
    x = random_array(SHAPE)
    linear = kr.ResidualBlock(
        4, activation=prelu, exit_activation=None, preactivation=preactivation
    )
    linear.build(SHAPE)
    linear.set_weights(
        [to_numpy(weight) for weight in block.weights if "exit_act" not in weight.path]
    )
    total = to_numpy(linear(x))
    assert total.min() < 0
    alpha = to_numpy(block.exit_act.alpha)
    assert_close(block(x), np.where(total < 0, alpha * total, total))


@exit_activations
@pytest.mark.parametrize("kind", BLOCKS)
def test_exit_activation_round_trips(kind, given):
    block = make_block(kind, exit_activation=EXIT_ACTIVATIONS[given][0], shortcut="projection")
    config = json.dumps(block.get_config())
    revived = type(block).from_config(json.loads(config))
    assert json.dumps(revived.get_config()) == config
    x = random_array(SHAPE)
    built(block, SHAPE)
    assert_close(with_weights_of(block, revived)(x), block(x), 0)


# A linear convolution after the concatenation.

BRANCHES = ((2,), (2, (3, 3)), ("max_pool", 1))


def concatenated(x, block, training=False):
    """The `BRANCHES` in stock layers."""
    y1 = stock_unit(x, block.branch1_conv1, 2, training=training)
    y2 = stock_unit(x, block.branch2_conv1, 2, training=training)
    y2 = stock_unit(y2, block.branch2_conv2, 3, 3, training=training)
    y3 = layers.MaxPooling2D(3, 1, padding="same")(x)
    y3 = stock_unit(y3, block.branch3_conv1, 1, training=training)
    return ops.concatenate([y1, y2, y3], axis=-1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("activation", ["relu", None])
def test_inception_resnet_block_is_that_of_the_paper(activation, training):
    x = ops.convert_to_tensor(random_array(SHAPE))
    block = built(
        kr.InceptionBlock(
            BRANCHES,
            filters=4,
            shortcut="identity",
            residual_scale=0.17,
            exit_activation=activation,
        ),
        SHAPE,
    )
    up = stock_convolution(concatenated(x, block, training), block.conv1, 4)
    expected = x + 0.17 * up
    expected = ops.relu(expected) if activation else expected
    assert_close(block(x, training=training), expected)


@pytest.mark.parametrize("use_bias", [None, True, False])
def test_filters_without_a_shortcut_are_a_linear_convolution(use_bias):
    x = ops.convert_to_tensor(random_array(SHAPE))
    block = built(kr.InceptionBlock(BRANCHES, filters=5, use_bias=use_bias), SHAPE)
    assert block.conv1.conv.use_bias is (use_bias is not False)
    assert block.branch1_conv1.conv.use_bias is bool(use_bias)
    assert_close(block(x), stock_convolution(concatenated(x, block), block.conv1, 5))
    assert block.compute_output_shape(SHAPE) == (*SHAPE[:-1], 5)


@pytest.mark.parametrize("preactivation", [False, True])
def test_filters_are_the_unit_conv1_without_a_norm(preactivation):
    block = kr.InceptionBlock(
        BRANCHES, filters=4, shortcut="identity", preactivation=preactivation, name="block"
    )
    model_of(block, shape=SHAPE)
    paths = {weight.path for weight in block.weights}
    assert {path for path in paths if path.startswith("block/conv1/")} == {
        "block/conv1/conv/kernel",
        "block/conv1/conv/bias",
    }
    assert block.conv1.conv.kernel.shape == (1, 1, 2 + 3 + 1, 4)
    for unit in ("branch1_conv1", "branch2_conv2", "branch3_conv1"):
        assert getattr(block, unit).activation is not None  # the branches end as ever
        assert f"block/{unit}/norm/gamma" in paths


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_filters_change_the_channels_alone(rank, strides):
    shape = shape_of(rank)
    plain = kr.InceptionBlock(BRANCHES, strides)
    block = kr.InceptionBlock(BRANCHES, strides, filters=7, shortcut="projection")
    expected = (*plain.compute_output_shape(shape)[:-1], 7)
    assert block.compute_output_shape(shape) == expected
    assert model_of(block, shape=shape).output_shape == (None, *expected[1:])


@pytest.mark.parametrize(
    "branches", [BRANCHES, (("max_pool",),), ((2,), (2, "avg_pool")), ((2, (3, 3)), ("max_pool",))]
)
@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("activation", ["relu", "elu", None])
def test_zero_initialised_filters_start_as_the_shortcut(branches, preactivation, activation):
    block = kr.InceptionBlock(
        branches,
        filters=4,
        shortcut="identity",
        residual_scale=0.2,
        zero_init_residual=True,
        preactivation=preactivation,
        activation=activation,
    )
    block.build(SHAPE)
    x = random_array(SHAPE)
    expected = x if preactivation else keras.activations.get(activation)(x)
    for training in (False, True):
        assert_close(block(x, training=training), expected, 1e-6)


# Reductions without padding.

REDUCTION = (((5, 3),), (2, (3, 3), (4, 3)), ("max_pool",))


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9])
def test_valid_reduction_is_that_of_inception_v3(size):
    x = ops.convert_to_tensor(random_array((2, size, size + 1, 4)))
    block = built(kr.InceptionBlock(REDUCTION, 2, padding="valid"), x.shape)
    valid = {"strides": 2, "padding": "valid"}
    y1 = stock_unit(x, block.branch1_conv1, 5, 3, **valid)
    y2 = stock_unit(x, block.branch2_conv1, 2)
    y2 = stock_unit(y2, block.branch2_conv2, 3, 3, padding="same")
    y2 = stock_unit(y2, block.branch2_conv3, 4, 3, **valid)
    y3 = layers.MaxPooling2D(3, 2)(x)
    outputs = block(x)
    assert_close(outputs, ops.concatenate([y1, y2, y3], axis=-1))
    assert outputs.shape == (2, (size - 3) // 2 + 1, (size - 2) // 2 + 1, 5 + 4 + 4)


@pytest.mark.parametrize("strides", [2, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_valid_reduction_knows_its_shape(rank, strides):
    spatial = (5, 8, 9)[:rank]
    block = kr.InceptionBlock(REDUCTION, strides, padding="valid")
    shape = shape_of(rank, spatial=spatial)
    expected = (2, *((n - 3) // strides + 1 for n in spatial), 5 + 4 + 4)
    unknown = shape_of(rank, spatial=(None,) * 3)
    assert block.compute_output_shape(shape) == expected
    assert block.compute_output_shape(unknown) == (2, *(None,) * rank, 5 + 4 + 4)
    assert not block.built
    block.build(shape)
    # The backend's own word, rather than the layer's.
    real = keras.Operation.compute_output_spec(block, keras.KerasTensor(shape))
    assert tuple(real.shape) == expected


@pytest.mark.parametrize(
    ("branches", "sizes"),
    [
        ((((4, 3),), (4,)), ["(4, 4)", "(5, 5)"]),
        ((((4, 3),), (2, (4, 5))), ["(4, 4)", "(3, 3)"]),
        ((("max_pool",), ((4, (1, 3)),)), ["(4, 4)", "(5, 4)"]),
        (((2, (((4, 3),), (4,))),), ["(4, 4)", "(5, 5)"]),
    ],
)
def test_branches_that_lead_to_different_sizes_raise(branches, sizes):
    block = kr.InceptionBlock(branches, 2, padding="valid")
    for ask in (block.compute_output_shape, block.build):
        with pytest.raises(ValueError, match="equal spatial sizes") as raised:
            ask((2, 9, 9, 4))
        assert [size for size in sizes if size not in str(raised.value)] == []
    assert kr.InceptionBlock(branches, 2).compute_output_shape((2, 9, 9, 4))[1:3] == (5, 5)


def test_valid_window_that_does_not_fit_raises():
    block = kr.InceptionBlock(REDUCTION, 2, padding="valid")
    for ask in (block.compute_output_shape, block.build):
        with pytest.raises(ValueError, match="without padding does not fit"):
            ask((2, 2, 9, 4))


@pytest.mark.parametrize("options", [{}, {"shortcut": "projection"}, {"filters": 4}], ids=str)
def test_without_strides_valid_changes_nothing(options):
    x = random_array(SHAPE)
    plain = built(kr.InceptionBlock(REDUCTION, **options), SHAPE)
    valid = with_weights_of(plain, kr.InceptionBlock(REDUCTION, padding="valid", **options))
    assert_close(valid(x), plain(x), 0)
    assert valid.compute_output_shape(SHAPE) == plain.compute_output_shape(SHAPE)


# Poolings, against windows given as pairs of a start and an end.


def pooled(x, windows, reduce):
    """Over each spatial axis of an array channels last, in turn: a window is a box."""
    for axis, pairs in enumerate(windows, start=1):
        parts = [reduce(x.take(range(*pair), axis), axis, keepdims=True) for pair in pairs]
        x = np.concatenate(parts, axis)
    return x


def ceil_windows(n, size, strides):
    """Those that fit, and a last one as far as it goes, where positions are left."""
    pairs = [(start, start + size) for start in range(0, n - size + 1, strides)]
    if pairs[-1][1] < n:
        pairs.append((len(pairs) * strides, n))
    return pairs


def adaptive_windows(n, count):
    return [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]


def applied(make, x, data_format):
    """The output of `make(data_format=...)` channels last, for an input channels last."""
    layer = make(data_format=data_format)
    if data_format == "channels_last":
        outputs = to_numpy(layer(x))
        assert outputs.shape == make().compute_output_shape(x.shape)
        return outputs
    moved = np.moveaxis(x, -1, 1)
    outputs = to_numpy(layer(moved))
    assert outputs.shape == make(data_format=data_format).compute_output_shape(moved.shape)
    return np.moveaxis(outputs, 1, -1)


REDUCE = {"max": np.max, "avg": np.mean}

kinds = pytest.mark.parametrize("kind", REDUCE)
data_formats = pytest.mark.parametrize("data_format", DATA_FORMATS)
on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="compares with PyTorch")
ceil_sizes = pytest.mark.parametrize(("size", "strides"), [(3, 2), (2, 2), (3, 3), (3, 1)])


@kinds
@ceil_sizes
@pytest.mark.parametrize("n", range(3, 11))
def test_ceil_leaves_no_position_out(kind, size, strides, n):
    x = random_array((2, n, 3)) - 5  # all negative: a zero of padding would be the maximum
    windows = ceil_windows(n, size, strides)
    assert windows[-1][1] == n
    outputs = Pooling(kind, size, strides, padding="ceil")(x)
    assert_close(outputs, pooled(x, [windows], REDUCE[kind]))


@kinds
@ceil_sizes
@data_formats
@pytest.mark.parametrize("spatial", [(7, 6), (5, 4, 6)], ids=["images", "volumes"])
def test_ceil_pooling_of_images_and_volumes(kind, size, strides, data_format, spatial):
    x = random_array((2, *spatial, 3)) - 5

    def make(**options):
        return Pooling(kind, size, strides, padding="ceil", **options)

    windows = [ceil_windows(n, size, strides) for n in spatial]
    assert_close(applied(make, x, data_format), pooled(x, windows, REDUCE[kind]))


@kinds
def test_ceil_pooling_with_a_window_for_each_axis(kind):
    x = random_array((2, 6, 8, 3)) - 5
    outputs = Pooling(kind, (2, 4), (1, 3), padding="ceil")(x)
    windows = [ceil_windows(6, 2, 1), ceil_windows(8, 4, 3)]
    assert_close(outputs, pooled(x, windows, REDUCE[kind]))


def test_ceil_pooling_of_an_open_size_is_open():
    pooling = Pooling("max", 3, 2, padding="ceil")
    assert pooling.compute_output_shape((None, None, 6, 3)) == (None, None, 3, 3)
    assert Pooling.from_config(pooling.get_config()).padding == "ceil"


@kinds
@pytest.mark.parametrize(("size", "strides"), [(2, 3), (1, 2), ((3, 2), (2, 3))], ids=str)
def test_ceil_windows_smaller_than_the_strides_raise(kind, size, strides):
    pooling = Pooling(kind, size, strides, padding="ceil")
    for ask in (pooling.compute_output_shape, pooling.build):
        with pytest.raises(ValueError, match=r'`padding="ceil"` .*no smaller than the strides'):
            ask((2, 9, 9, 3))


ADAPTIVE = [((14,), 4), ((6,), 4), ((3,), 4), ((4,), 4), ((7, 5), 1)]
ADAPTIVE += [((14, 6), (4, 3)), ((6, 3), 4), ((3, 4, 6), (4, 4, 2)), ((5, 4, 6), 4)]


@data_formats
@pytest.mark.parametrize(("spatial", "output_size"), ADAPTIVE, ids=str)
def test_adaptive_pooling_averages_its_windows(spatial, output_size, data_format):
    x = random_array((2, *spatial, 3))

    def make(**options):
        return AdaptiveAveragePooling(output_size, **options)

    sizes = output_size if isinstance(output_size, tuple) else (output_size,) * len(spatial)
    windows = [adaptive_windows(n, count) for n, count in zip(spatial, sizes)]
    outputs = applied(make, x, data_format)
    assert outputs.shape == (2, *sizes, 3)
    assert_close(outputs, pooled(x, windows, np.mean))


@on_torch
@pytest.mark.parametrize(
    ("spatial", "output_size"), [case for case in ADAPTIVE if len(case[0]) == 2], ids=str
)
def test_adaptive_pooling_is_that_of_pytorch(spatial, output_size):
    from torch.nn.functional import adaptive_avg_pool2d

    x = ops.convert_to_tensor(random_array((2, 3, *spatial)))
    pooling = AdaptiveAveragePooling(output_size, data_format="channels_first")
    assert_close(pooling(x), adaptive_avg_pool2d(x, output_size))


@on_torch
@ceil_sizes
def test_ceil_pooling_is_that_of_pytorch(size, strides):
    from torch.nn.functional import max_pool2d

    pooling = Pooling("max", size, strides, padding="ceil", data_format="channels_first")
    for n in range(size - strides + 1, 8):
        x = ops.convert_to_tensor(random_array((2, 3, n, 8)))
        assert_close(pooling(x), max_pool2d(x, size, strides, ceil_mode=True))


@pytest.mark.parametrize("output_size", [4, (4, 3)], ids=str)
def test_adaptive_pooling_round_trips(output_size):
    pooling = AdaptiveAveragePooling(output_size, data_format="channels_first", name="mine")
    config = json.dumps(pooling.get_config())
    revived = AdaptiveAveragePooling.from_config(json.loads(config))
    assert revived.output_size == output_size
    assert json.dumps(revived.get_config()) == config


@pytest.mark.parametrize("shape", [(2, None, 6, 3), (2, 6, None, 3)])
def test_adaptive_pooling_of_an_open_size_raises(shape):
    pooling = AdaptiveAveragePooling(4)
    assert pooling.compute_output_shape(shape) == (2, 4, 4, 3)
    with pytest.raises(ValueError, match=r"`input_shape` must have known sizes.*None"):
        pooling.build(shape)
