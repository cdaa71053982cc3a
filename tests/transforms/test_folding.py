"""The normalizations that follow a convolution become part of it, and nothing else changes."""

import keras
import pytest
from conversions import assert_folds, assert_saves, folded
from helpers import DATA_FORMATS, assert_close, model_of, random_array, shape_of
from keras import layers
from trained import assert_equal_outputs, images, network, outputs_of, shrunk, trained

import keras_resblocks as kr
from keras_resblocks.layers import ConvUnit

# Networks; tests/models/test_round_trip.py folds each that is published.


@pytest.mark.parametrize(
    "arguments",
    [
        {"output_stride": 8},
        {"include_top": False, "input_shape": (None, None, 3)},
        {"padding": "same", "activation": "elu", "input_shape": (33, 47, 3)},
        {"drop_path_rate": 0.3, "attention": "efficient_channel"},
    ],
    ids=repr,
)
def test_networks_with_other_options_fold(arguments):
    spec, arguments = shrunk("resnet50"), {"input_shape": (48, 64, 3), **arguments}
    model = network(spec, **arguments)
    result = assert_folds(model, images(model, spatial=(48, 64)))
    assert kr.cost(spec, folded=True, **arguments) == kr.cost(result)
    assert kr.cost(result).params < kr.cost(model).params
    maps, expected = kr.features(result), kr.features(model)
    assert [(m.name, m.strides) for m in maps] == [(m.name, m.strides) for m in expected]


def test_auxiliary_heads_fold():
    model = network("googlenet_bn", input_shape=(96, 96, 3), classes=4, aux_heads=True)
    assert_folds(model, images(model))


# Blocks and units; test_plain_keras.py folds blocks of all options.


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Doubled(layers.BatchNormalization):
    def call(self, inputs, **options):
        return 2.0 * super().call(inputs, **options)


@pytest.mark.parametrize("normalization", [Doubled(), layers.BatchNormalization(axis=2)])
def test_subclass_and_normalization_of_another_axis_are_left(normalization):
    unit = ConvUnit(4, 3, normalization=normalization, name="unit")
    model = trained(model_of(unit, shape=shape_of()))
    assert_folds(model, random_array(shape_of()), ["unit/norm"])


def test_folding_twice_changes_nothing():
    model = trained(model_of(kr.ResidualBlock(8, 2), shape=shape_of()))
    once = folded(model)
    twice = folded(once)
    for one, other in zip(once.weights, twice.weights, strict=True):
        assert_close(one, other, 0)


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_map_as_wide_as_there_are_filters_folds(data_format):
    unit = ConvUnit(6, 3, data_format=data_format)
    shape = shape_of(2, 4, data_format, spatial=(5, 6))
    assert_folds(trained(model_of(unit, shape=shape)), random_array(shape))


def test_lora_becomes_part_of_the_kernel():
    block = kr.ResidualBlock(4, preactivation=True, attention="squeeze_excite", name="block")
    model = trained(model_of(block, layers.Conv2D(3, 1), shape=shape_of()))
    block.conv1.conv.enable_lora(2)
    block.conv2.conv.enable_lora(2)
    block.attention.reduce.enable_lora(2)
    assert_folds(trained(model), random_array(shape_of()), ["block/entry_norm"])


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantized_layers_stay(mode):
    block = kr.ResidualBlock(4, attention="squeeze_excite", name="block")
    model = trained(model_of(block, layers.Flatten(), layers.Dense(3), shape=shape_of()))
    model.quantize(mode)
    result = folded(model)
    assert result.layers[-1].dtype_policy.quantization_mode == mode
    assert_equal_outputs(model, result, random_array(shape_of()), 0.03)


def test_mixed_precision_folds_to_its_own_precision():
    policy = "mixed_bfloat16"
    model = trained(model_of(kr.ResidualBlock(8, 2, dtype=policy), shape=shape_of()))
    result = folded(model)
    assert result.layers[-1].dtype_policy.name == policy
    assert {weight.dtype for weight in result.weights} == {"float32"}
    assert_equal_outputs(model, result, random_array(shape_of()), 0.03)


def test_folded_block_is_folded_when_made_from_its_config():
    block = kr.ResidualBlock(8, folded=True)
    revived = kr.ResidualBlock.from_config(block.get_config())
    revived.build(shape_of())
    assert [weight.name for weight in revived.weights] == ["kernel", "bias"] * 3
    with pytest.raises(ValueError, match="`folded` must be True or False"):
        kr.ResidualBlock(8, folded=1)


# Keras's own layers, and models of one's own.

PAIRS = {
    "dense": (1, lambda: layers.Dense(6)),
    "conv1d": (1, lambda: layers.Conv1D(6, 3, strides=2, groups=2)),
    "conv2d": (2, lambda: layers.Conv2D(6, 3, padding="same", dilation_rate=2, use_bias=False)),
    "conv3d": (3, lambda: layers.Conv3D(6, 2)),
    "depthwise1d": (1, lambda: layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise2d": (2, lambda: layers.DepthwiseConv2D(3, depth_multiplier=3, use_bias=False)),
    "separable1d": (1, lambda: layers.SeparableConv1D(6, 3, use_bias=False)),
    "separable2d": (2, lambda: layers.SeparableConv2D(6, 3, depth_multiplier=2)),
    "transpose1d": (1, lambda: layers.Conv1DTranspose(6, 3, use_bias=False)),
    "transpose2d": (2, lambda: layers.Conv2DTranspose(6, 3, strides=2)),
    "transpose3d": (3, lambda: layers.Conv3DTranspose(5, 2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_stock_layers_fold(name, tmp_path):
    rank, make = PAIRS[name]
    shape = shape_of(rank)
    stack = [make(), layers.BatchNormalization(name="norm"), layers.ReLU(), layers.Dense(3)]
    if rank == 2:
        model = trained(keras.Sequential([keras.Input(shape[1:]), *stack]))
    else:
        model = trained(model_of(*stack, shape=shape))
    result = assert_folds(model, random_array(shape))
    assert "norm" not in [layer.name for layer in result.layers]
    assert_saves(result, tmp_path)


def two_users(x, conv, norm):
    y = conv(x)
    return layers.Add()([y, norm(y)])


def also_an_output(x, conv, norm):
    y = conv(x)
    return [y, norm(y)]


NO_PAIRS = {
    "two users": two_users,
    "also an output": also_an_output,
    "shared convolution": lambda x, conv, norm: [norm(conv(x)), conv(x + 1)],
    "shared normalization": lambda x, conv, norm: [norm(conv(x)), norm(layers.Conv2D(4, 1)(x))],
    "activated": lambda x, conv, norm: norm(layers.Conv2D(4, 1, activation="relu")(x)),
    "another axis": lambda x, conv, norm: layers.BatchNormalization(axis=2, name="norm")(conv(x)),
    "in training": lambda x, conv, norm: norm(conv(x), training=True),
    "of the input": lambda x, conv, norm: conv(norm(x)),
}


@pytest.mark.parametrize("name", NO_PAIRS)
def test_stock_layers_that_are_no_pair_are_left(name):
    x = keras.Input(shape_of()[1:])
    outputs = NO_PAIRS[name](x, layers.Conv2D(4, 1), layers.BatchNormalization(name="norm"))
    model = trained(keras.Model(x, outputs))
    result = folded(model, ["norm"])
    inputs = random_array(shape_of())
    for a, b in zip(outputs_of(model, inputs), outputs_of(result, inputs), strict=True):
        assert_close(a, b)


def test_block_called_in_training_is_left():
    x = keras.Input(shape_of()[1:])
    block = kr.ResidualBlock(4, name="block")
    model = trained(keras.Model(x, block(x, training=True)))
    folded(model, ["block/conv1/norm", "block/conv2/norm"])


def test_keras_applications_fold():
    model = trained(
        keras.applications.MobileNetV2(
            input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=5, classifier_activation=None
        )
    )
    result = assert_folds(model, images(model))
    assert len(result.layers) < len(model.layers)
