"""The normalizations that follow a convolution become part of it, and nothing else changes."""

import warnings

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    DATA_FORMATS,
    assert_close,
    covering,
    label,
    make_block,
    model_of,
    random_array,
    shape_of,
    snapshot,
)
from keras import layers
from trained import (
    DISTINCT,
    assert_equal_outputs,
    images,
    network,
    normalizations,
    outputs_of,
    shrunk,
    trained,
)

import keras_resblocks as kr
from keras_resblocks.layers import ConvUnit


def folded(model, left=()):
    """The folded model, in which these normalizations must be left."""
    before = snapshot(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = kr.fold_batch_norm(model)
    reports = [str(w.message) for w in caught if "batch normalizations are left" in str(w.message)]
    assert normalizations(result) == list(left)
    assert len(reports) == bool(left)
    assert all(path in reports[0] for path in left[:8])
    for weight, value in zip(snapshot(model), before):
        np.testing.assert_array_equal(weight, value)
    return result


def assert_folds(model, inputs, left=()):
    result = folded(model, left)
    assert_equal_outputs(model, result, inputs)
    return result


def assert_saves(model, path):
    model.save(path / "model.keras")
    reloaded = keras.saving.load_model(path / "model.keras")
    for weight, other in zip(model.weights, reloaded.weights, strict=True):
        assert weight.path == other.path
        assert_close(weight, other, 0)


# Published networks.

FOLDABLE = [name for name in DISTINCT if name != "googlenet"]  # which has no normalization
DEEP = ("inception_resnet_v2_keras", "resnet152d", "resnetv2_152", "wide_resnet28_10_cifar")


def is_entry(path):
    return path.endswith("/entry_norm") or path == "head_norm"


def assert_network_folds(model, path):
    inputs = images(model)
    left = [name for name in normalizations(model) if is_entry(name)]
    result = assert_folds(model, inputs, left)
    assert [layer.name for layer in result.layers] == [layer.name for layer in model.layers]
    assert kr.cost(result).macs == kr.cost(model).macs
    assert_saves(result, path)


@pytest.mark.parametrize("name", FOLDABLE)
def test_each_distinct_block_of_the_published_networks_folds(name, tmp_path):
    assert_network_folds(network(shrunk(name), input_shape=(80, 96, 3), classes=4), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_deep_networks_fold(name, tmp_path):
    size = 32 if name.endswith("cifar") else 80
    model = network(name, input_shape=(size, size, 3), classes=4)
    assert_network_folds(model, tmp_path)


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
    model = network(shrunk("resnet50"), **{"input_shape": (48, 64, 3), **arguments})
    assert_folds(model, images(model, spatial=(48, 64)))


def test_auxiliary_heads_fold():
    model = network("googlenet_bn", input_shape=(96, 96, 3), classes=4, aux_heads=True)
    assert_folds(model, images(model))


def test_cost_of_a_folded_network_is_known_without_building_it():
    model = network(shrunk("resnet50"), input_shape=(32, 32, 3))
    result = folded(model)
    assert kr.cost(shrunk("resnet50"), input_shape=(32, 32, 3), folded=True) == kr.cost(result)
    assert kr.cost(result).params < kr.cost(model).params


def test_features_of_a_folded_network_are_those_of_the_network():
    model = network(shrunk("resnet18"), input_shape=(32, 32, 3))
    maps, expected = kr.features(folded(model)), kr.features(model)
    assert [(m.name, m.strides) for m in maps] == [(m.name, m.strides) for m in expected]


# Blocks and units.

NORMALIZATIONS = {
    "batch": "batch",
    "unscaled": layers.BatchNormalization(scale=False, epsilon=0.1),
    "uncentred": layers.BatchNormalization(center=False),
    "bare": layers.BatchNormalization(scale=False, center=False),
}
OTHERS = {
    "plain": {},
    "atrous": {"dilation_rate": 2, "atrous": True},
    "same": {"padding": "same"},
    "frozen": {"trainable": False},
    "zero_init": {"zero_init_residual": True},
    "grouped": {"groups": 2},
}
OPTIONS = {
    "kind": BLOCKS,
    "rank": (1, 2, 3),
    "data_format": DATA_FORMATS,
    "normalization": tuple(NORMALIZATIONS),
    "strides": (1, 2),
    "use_bias": (None, True, False),
    "shortcut": ("projection", "avg_pool"),
    "other": tuple(OTHERS),
}


def is_valid(case):
    # The inception block of the helpers ends in a pooling, and has odd numbers of filters.
    return not (case["kind"] == "inception" and case["other"] in ("zero_init", "grouped"))


@pytest.mark.parametrize("case", covering(OPTIONS, is_valid), ids=label)
def test_blocks_fold(case, tmp_path):
    block = make_block(
        case["kind"],
        8,
        case["strides"],
        normalization=NORMALIZATIONS[case["normalization"]],
        use_bias=case["use_bias"],
        shortcut=case["shortcut"],
        data_format=case["data_format"],
        name="block",
        **OTHERS[case["other"]],
    )
    shape = shape_of(case["rank"], 4, case["data_format"])
    model = trained(model_of(block, shape=shape))
    inputs = random_array(shape)
    result = assert_folds(model, inputs)
    assert result.get_layer("block").trainable == block.trainable
    assert_saves(result, tmp_path)


@pytest.mark.parametrize("kind", BLOCKS)
def test_preactivation_entries_are_left(kind):
    block = make_block(kind, 8, 2, preactivation=True, shortcut="projection", name="block")
    model = trained(model_of(block, shape=shape_of()))
    assert_folds(model, random_array(shape_of()), ["block/entry_norm"])


@pytest.mark.parametrize("normalization", [None, "layer", "group", "instance"])
def test_other_normalizations_stay_as_they_are(normalization):
    model = trained(model_of(kr.ResidualBlock(8, normalization=normalization), shape=shape_of()))
    result = folded(model)
    assert len(result.weights) == len(model.weights)
    assert_equal_outputs(model, result, random_array(shape_of()), 1e-6)


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Doubled(layers.BatchNormalization):
    def call(self, inputs, **options):
        return 2.0 * super().call(inputs, **options)


def test_subclass_of_batch_normalization_is_left():
    model = trained(
        model_of(ConvUnit(4, 3, normalization=Doubled(), name="unit"), shape=shape_of())
    )
    assert_folds(model, random_array(shape_of()), ["unit/norm"])


def test_normalization_of_another_axis_is_left():
    unit = ConvUnit(4, 3, normalization=layers.BatchNormalization(axis=2), name="unit")
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
    block = kr.ResidualBlock(4, preactivation=True, name="block")
    model = trained(model_of(block, layers.Conv2D(3, 1), shape=shape_of()))
    block.conv1.conv.enable_lora(2)
    block.conv2.conv.enable_lora(2)
    assert_folds(trained(model), random_array(shape_of()), ["block/entry_norm"])


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
@pytest.mark.parametrize("is_list", [False, True], ids=["functional", "sequential"])
def test_pairs_of_stock_layers_fold(name, is_list, tmp_path):
    rank, make = PAIRS[name]
    shape = shape_of(rank)
    stack = [make(), layers.BatchNormalization(name="norm"), layers.ReLU(), layers.Dense(3)]
    if is_list:
        model = trained(keras.Sequential([keras.Input(shape[1:]), *stack]))
    else:
        model = trained(model_of(*stack, shape=shape))
    result = assert_folds(model, random_array(shape))
    assert "norm" not in [layer.name for layer in result.layers]
    assert_saves(result, tmp_path)


def two_users(x):
    y = layers.Conv2D(4, 1)(x)
    return layers.Add()([y, layers.BatchNormalization(name="norm")(y)])


def also_an_output(x):
    y = layers.Conv2D(4, 1)(x)
    return [y, layers.BatchNormalization(name="norm")(y)]


def shared_convolution(x):
    conv = layers.Conv2D(4, 1)
    return [layers.BatchNormalization(name="norm")(conv(x)), conv(x + 1)]


def shared_normalization(x):
    norm = layers.BatchNormalization(name="norm")
    return [norm(layers.Conv2D(4, 1)(x)), norm(layers.Conv2D(4, 1)(x))]


def activated(x):
    return layers.BatchNormalization(name="norm")(layers.Conv2D(4, 1, activation="relu")(x))


def of_another_axis(x):
    return layers.BatchNormalization(axis=2, name="norm")(layers.Conv2D(4, 1)(x))


def in_training(x):
    return layers.BatchNormalization(name="norm")(layers.Conv2D(4, 1)(x), training=True)


def of_the_input(x):
    return layers.Conv2D(4, 1)(layers.BatchNormalization(name="norm")(x))


@pytest.mark.parametrize(
    "build",
    [
        two_users,
        also_an_output,
        shared_convolution,
        shared_normalization,
        activated,
        of_another_axis,
        in_training,
        of_the_input,
    ],
)
def test_stock_layers_that_are_no_pair_are_left(build):
    x = keras.Input(shape_of()[1:])
    model = trained(keras.Model(x, build(x)))
    result = folded(model, ["norm"])
    inputs = random_array(shape_of())
    for a, b in zip(outputs_of(model, inputs), outputs_of(result, inputs), strict=True):
        assert_close(a, b)


def test_block_called_in_training_is_left():
    x = keras.Input(shape_of()[1:])
    block = kr.ResidualBlock(4, name="block")
    model = trained(keras.Model(x, block(x, training=True)))
    folded(model, ["block/conv1/norm", "block/conv2/norm"])


def test_nested_and_shared_models_and_time_distributed_blocks_fold():
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), layers.Conv2D(4, 3), layers.BatchNormalization()], name="inner"
    )
    x = keras.Input((3, 6, 6, 4))
    wrapped = layers.TimeDistributed(kr.ResidualBlock(4))(x)
    first, second = layers.TimeDistributed(inner)(x), inner(x[:, 0])
    model = trained(keras.Model({"x": x}, {"a": first, "b": second, "c": wrapped}))
    inputs = {"x": random_array((2, 3, 6, 6, 4))}
    result = assert_folds(model, inputs)
    assert set(result(inputs)) == {"a", "b", "c"}
    assert len(result.weights) == 2 + 2 * 2


def test_an_adapted_normalization_before_a_network_is_kept():
    x = random_array((4, 6, 6, 3)) * 7 + 5
    normalize = layers.Normalization()
    model = model_of(normalize, kr.ResidualBlock(4), shape=x.shape)
    normalize.adapt(x)
    assert_folds(model, x)


def test_optimizer_and_losses_are_left_behind():
    model = trained(model_of(kr.ResidualBlock(4), shape=shape_of()))
    model.compile("adam", lambda y, predicted: keras.ops.mean(predicted))
    assert not folded(model).compiled
    assert model.compiled


def test_keras_applications_fold():
    model = trained(
        keras.applications.MobileNetV2(
            input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=5, classifier_activation=None
        )
    )
    result = assert_folds(model, images(model))
    assert len(result.layers) < len(model.layers)


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.block = kr.ResidualBlock(4)

    def call(self, inputs):
        return self.block(inputs)


@pytest.mark.parametrize(
    "model", [Subclassed(), keras.Sequential([layers.Dense(3)]), kr.ResidualBlock(4), None]
)
def test_what_is_no_graph_is_refused(model):
    with pytest.raises(ValueError, match="`model` must be a functional model"):
        kr.fold_batch_norm(model)
