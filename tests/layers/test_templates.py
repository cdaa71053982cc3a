"""Whatever is pluggable may be None, a name, a function, a config dict or a Keras layer."""

import json

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    DATA_FORMATS,
    assert_close,
    assert_equal_values,
    assert_reloads,
    built,
    make_block,
    model_of,
    random_array,
    registered_function,
    shape_of,
    side_by_side,
    snapshot,
    to_numpy,
    twin_of,
)
from keras import layers

import keras_resblocks as kr

SHAPE = shape_of(2)


def unregistered_function(x):
    return 0.5 * x


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Offset(layers.Layer):
    """A user's layer, with a weight and no data format."""

    def build(self, input_shape):
        self.offset = self.add_weight(shape=(), initializer="ones", name="offset")

    def call(self, inputs):
        return inputs + self.offset


# How it is given, and what it means.
ACTIVATIONS = {
    "none": (None, lambda x: x),
    "name": ("elu", keras.ops.elu),
    "name in capitals": ("ReLU", keras.ops.relu),
    "function of Keras": (keras.activations.elu, keras.ops.elu),
    "operation of Keras": (keras.ops.elu, keras.ops.elu),
    "registered function": (registered_function, registered_function),
    "registered name": ("keras_resblocks_tests>registered_function", registered_function),
    "layer": (layers.ELU(alpha=0.3), lambda x: keras.ops.elu(x, alpha=0.3)),
    "activation layer": (layers.Activation("elu"), keras.ops.elu),
    "layer with weights": (
        layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25)),
        lambda x: keras.ops.leaky_relu(x, 0.25),
    ),
    "layer with shared weights": (
        layers.PReLU(keras.initializers.Constant(0.25), shared_axes=[1, 2]),
        lambda x: keras.ops.leaky_relu(x, 0.25),
    ),
    "layer of the user": (Offset(), lambda x: x + 1),
    "layers in a row": (
        keras.Sequential([layers.ELU(alpha=0.3), Offset()]),
        lambda x: keras.ops.elu(x, alpha=0.3) + 1,
    ),
    "config of a layer": (
        keras.saving.serialize_keras_object(layers.ELU(alpha=0.3)),
        lambda x: keras.ops.elu(x, alpha=0.3),
    ),
    "config from JSON": (
        json.loads(json.dumps(keras.layers.serialize(layers.LeakyReLU(0.2)))),
        lambda x: keras.ops.leaky_relu(x, 0.2),
    ),
    "config of a function": (
        keras.activations.serialize(registered_function),
        registered_function,
    ),
}


@pytest.mark.parametrize("given", ACTIVATIONS)
def test_activation_may_be_given_in_every_way(given):
    activation, meaning = ACTIVATIONS[given]
    unit = built(kr.layers.ConvUnit(4, activation=activation, normalization=None), SHAPE)
    for weight in getattr(unit, "act", Offset()).weights:
        weight.assign(np.full(weight.shape, 0.25 if "alpha" in weight.name else 1.0))
    inputs = random_array(SHAPE)
    assert_close(unit(inputs), meaning(unit.conv(inputs)))


def test_blocks_with_every_activation_reload_and_give_equal_outputs(tmp_path):
    blocks = [kr.ResidualBlock(6, 2, activation=given) for given, _ in ACTIVATIONS.values()]
    assert_reloads(side_by_side(blocks, SHAPE), random_array(SHAPE), tmp_path)


def test_unregistered_function_works_in_the_process():
    unit = built(kr.layers.ConvUnit(4, activation=unregistered_function, normalization=None), SHAPE)
    inputs = random_array(SHAPE)
    assert_close(unit(inputs), 0.5 * unit.conv(inputs))
    with pytest.raises(TypeError, match="`activation`"):  # in which Keras wraps the ValueError
        type(unit).from_config(unit.get_config())
    with keras.saving.custom_object_scope({"unregistered_function": unregistered_function}):
        again = type(unit).from_config(unit.get_config())
    assert_close(twin_of(unit, again, SHAPE)(inputs), unit(inputs))


NORMALIZATIONS = {
    "none": (None, type(None)),
    "batch": ("batch", layers.BatchNormalization),
    "layer": ("layer", layers.LayerNormalization),
    "group": ("group", layers.GroupNormalization),
    "instance": ("instance", layers.GroupNormalization),
    "template": (layers.BatchNormalization(momentum=0.7), layers.BatchNormalization),
    "without weights": (layers.UnitNormalization(), layers.UnitNormalization),
    "user's": (Offset(), Offset),
    "function": (registered_function, layers.Activation),
    "config": (
        keras.layers.serialize(layers.GroupNormalization(2)),
        layers.GroupNormalization,
    ),
}


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_normalization_may_be_given_in_every_way(data_format, tmp_path):
    shape, options = shape_of(2, data_format=data_format), {"data_format": data_format}
    blocks = [
        kr.ResidualBlock(8, 2, normalization=given, **options)
        for given, _ in NORMALIZATIONS.values()
    ]
    model = side_by_side(blocks, shape)
    for block, (given, layer_class) in zip(blocks, NORMALIZATIONS.values()):
        for unit in (block.conv1, block.conv2, block.shortcut):
            assert isinstance(getattr(unit, "norm", None), layer_class)
            assert unit.conv.use_bias == (given is None)
    assert_reloads(model, random_array(shape), tmp_path)


def test_options_of_a_normalization_template_are_kept():
    template = layers.BatchNormalization(momentum=0.7, epsilon=0.1, scale=False)
    block = built(kr.ResidualBlock(4, normalization=template), SHAPE)
    for unit in (block.conv1, block.conv2):
        assert unit.norm.momentum == 0.7
        assert unit.norm.epsilon == 0.1
        assert unit.norm.gamma is None


def test_named_normalizations_have_the_constants_of_the_papers():
    batch = built(kr.ResidualBlock(4), SHAPE).conv1.norm
    assert (batch.epsilon, batch.momentum) == (1e-5, 0.9)
    assert built(kr.ResidualBlock(4, normalization="layer"), SHAPE).conv1.norm.epsilon == 1e-5


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_named_normalizations_normalize_what_they_say(data_format):
    shape = shape_of(2, 64, data_format)
    spatial, channel = ((1, 2), 3) if data_format == "channels_last" else ((2, 3), 1)
    over = {"batch": (0, *spatial), "layer": (channel,), "instance": spatial}
    for name, axes in over.items():
        unit = kr.layers.ConvUnit(64, activation=None, normalization=name, data_format=data_format)
        unit.build(shape)
        outputs = to_numpy(unit(random_array(shape), training=True))
        np.testing.assert_allclose(outputs.mean(axes), 0, atol=1e-4)
        np.testing.assert_allclose(outputs.std(axes), 1, atol=1e-2)


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (48, 16), (64, 32), (6, 2), (7, 1)])
def test_named_group_normalization_has_at_most_32_groups_that_divide(channels, groups):
    unit = built(kr.layers.ConvUnit(channels, normalization="group"), SHAPE)
    assert unit.norm.groups == groups


ATTENTIONS = {
    "squeeze_excite": ("squeeze_excite", kr.SqueezeExcite),
    "efficient_channel": ("efficient_channel", kr.EfficientChannelAttention),
    "template": (kr.SqueezeExcite(2, activation="elu"), kr.SqueezeExcite),
    "user's": (Offset(), Offset),
    "function": (registered_function, layers.Activation),
    "config": (
        keras.saving.serialize_keras_object(kr.EfficientChannelAttention(3)),
        kr.EfficientChannelAttention,
    ),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_attention_may_be_given_in_every_way(kind, tmp_path):
    blocks = [make_block(kind, attention=given) for given, _ in ATTENTIONS.values()]
    model = side_by_side(blocks, SHAPE)
    for block, (_, layer_class) in zip(blocks, ATTENTIONS.values()):
        assert isinstance(block.attention, layer_class)
    assert_reloads(model, random_array(SHAPE), tmp_path)


def test_attention_is_applied_at_the_end_of_the_branch():
    inputs = random_array(SHAPE)
    plain = built(kr.ResidualBlock(4, activation=None), SHAPE)
    attended = kr.ResidualBlock(4, activation=None, attention=unregistered_function)
    twin_of(plain, attended, SHAPE)
    assert_close(to_numpy(attended(inputs)) - inputs, 0.5 * (to_numpy(plain(inputs)) - inputs))


@pytest.mark.parametrize("kind", BLOCKS)
def test_shared_template_gives_distinct_weights(kind):
    options = {
        "activation": layers.PReLU(shared_axes=[1, 2]),
        "normalization": layers.BatchNormalization(),
        "attention": kr.SqueezeExcite(2),
    }
    model = model_of(*(make_block(kind, **options) for _ in range(3)), shape=SHAPE)
    one = built(make_block(kind, **options), SHAPE)
    assert len(model.weights) == 3 * len(one.weights)
    assert len({id(weight) for weight in model.weights}) == len(model.weights)
    assert sum(weight.name == "alpha" for weight in model.weights) >= 6
    for template in options.values():
        assert not template.built
        assert template.weights == []


@pytest.mark.parametrize(
    ("option", "make"),
    [
        ("activation", lambda: layers.PReLU(shared_axes=[1, 2])),
        ("activation", layers.PReLU),
        ("activation", lambda: keras.Sequential([layers.PReLU(), layers.ELU()])),
        ("activation", Offset),
        ("normalization", layers.BatchNormalization),
        ("normalization", layers.LayerNormalization),
        ("normalization", layers.GroupNormalization),
    ],
)
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_template_that_was_built_elsewhere_is_a_template_all_the_same(option, make, data_format):
    template = make()
    template(random_array((1, 9, 8, 32)))
    before = snapshot(template)
    shape, expected = (
        shape_of(2, channels, data_format, spatial=spatial)
        for channels, spatial in ((32, (5, 4)), (64, (3, 2)))
    )
    block = kr.ResidualBlock(64, 2, data_format=data_format, **{option: template})
    assert block(random_array(shape)).shape == expected
    assert not {id(w) for w in block.weights} & {id(w) for w in template.weights}
    assert_equal_values(snapshot(template), before, 0)
    if option == "normalization":
        assert block.conv1.norm.gamma.shape == (64,)


def test_template_is_not_tracked_and_may_change_afterwards():
    template = layers.ELU(alpha=0.3)
    block = kr.ResidualBlock(4, activation=template)
    config = json.dumps(block.get_config())
    template.alpha = 5.0
    block.build(SHAPE)
    assert json.dumps(block.get_config()) == config
    assert block.exit_act.alpha == 0.3
    assert block.exit_act is not template


def test_template_gets_the_data_format_of_the_block():
    block = kr.ResidualBlock(4, attention=kr.SqueezeExcite(2), data_format="channels_first")
    block.build(shape_of(2, data_format="channels_first"))
    assert block.attention.data_format == "channels_first"
    assert block.attention.reduce.kernel.shape == (4, 2)


def test_initializer_of_a_template_gives_each_copy_values_of_its_own():
    template = layers.PReLU(alpha_initializer=keras.initializers.RandomNormal())
    block = kr.ResidualBlock(4, activation=template)
    block.build(SHAPE)
    assert not np.allclose(to_numpy(block.conv1.act.alpha), to_numpy(block.exit_act.alpha))
