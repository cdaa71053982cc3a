"""Whatever is pluggable may be None, a name, a function, a config dict or a Keras layer."""

import json

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    assert_close,
    built,
    make_block,
    model_of,
    random_array,
    registered_function,
    run_python,
    shape_of,
    to_numpy,
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
    "none": (lambda: None, lambda x: x),
    "name": (lambda: "elu", keras.ops.elu),
    "name in capitals": (lambda: "ReLU", keras.ops.relu),
    "function of Keras": (lambda: keras.activations.elu, keras.ops.elu),
    "operation of Keras": (lambda: keras.ops.elu, keras.ops.elu),
    "registered function": (lambda: registered_function, registered_function),
    "registered name": (lambda: "keras_resblocks_tests>registered_function", registered_function),
    "layer": (lambda: layers.ELU(alpha=0.3), lambda x: keras.ops.elu(x, alpha=0.3)),
    "activation layer": (lambda: layers.Activation("elu"), keras.ops.elu),
    "layer with weights": (
        lambda: layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25)),
        lambda x: keras.ops.leaky_relu(x, 0.25),
    ),
    "layer with shared weights": (
        lambda: layers.PReLU(keras.initializers.Constant(0.25), shared_axes=[1, 2]),
        lambda x: keras.ops.leaky_relu(x, 0.25),
    ),
    "layer of the user": (lambda: Offset(), lambda x: x + 1),
    "layers in a row": (
        lambda: keras.Sequential([layers.ELU(alpha=0.3), Offset()]),
        lambda x: keras.ops.elu(x, alpha=0.3) + 1,
    ),
    "config of a layer": (
        lambda: keras.saving.serialize_keras_object(layers.ELU(alpha=0.3)),
        lambda x: keras.ops.elu(x, alpha=0.3),
    ),
    "config from JSON": (
        lambda: json.loads(json.dumps(keras.layers.serialize(layers.LeakyReLU(0.2)))),
        lambda x: keras.ops.leaky_relu(x, 0.2),
    ),
    "config of a function": (
        lambda: keras.activations.serialize(registered_function),
        registered_function,
    ),
}


@pytest.mark.parametrize("given", ACTIVATIONS)
def test_activation_may_be_given_in_every_way(given, tmp_path):
    make, meaning = ACTIVATIONS[given]
    unit = built(kr.layers.ConvUnit(4, activation=make(), normalization=None), SHAPE)
    for weight in getattr(unit, "act", Offset()).weights:
        weight.assign(np.full(weight.shape, 0.25 if "alpha" in weight.name else 1.0))
    inputs = random_array(SHAPE)
    assert_close(unit(inputs), meaning(unit.conv(inputs)))

    model = model_of(make_block("residual", 6, 2, activation=make()), shape=SHAPE)
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs), 1e-6)


def test_unregistered_function_works_in_the_process():
    unit = built(kr.layers.ConvUnit(4, activation=unregistered_function, normalization=None), SHAPE)
    inputs = random_array(SHAPE)
    assert_close(unit(inputs), 0.5 * unit.conv(inputs))
    with pytest.raises(TypeError, match="`activation`"):  # in which Keras wraps the ValueError
        type(unit).from_config(unit.get_config())
    with keras.saving.custom_object_scope({"unregistered_function": unregistered_function}):
        revived = type(unit).from_config(unit.get_config())
    revived.build(SHAPE)
    revived.set_weights(unit.get_weights())
    assert_close(revived(inputs), unit(inputs))


NORMALIZATIONS = {
    "none": (lambda: None, type(None)),
    "batch": (lambda: "batch", layers.BatchNormalization),
    "layer": (lambda: "layer", layers.LayerNormalization),
    "group": (lambda: "group", layers.GroupNormalization),
    "instance": (lambda: "instance", layers.GroupNormalization),
    "template": (lambda: layers.BatchNormalization(momentum=0.7), layers.BatchNormalization),
    "without weights": (lambda: layers.UnitNormalization(), layers.UnitNormalization),
    "user's": (lambda: Offset(), Offset),
    "function": (lambda: registered_function, layers.Activation),
    "config": (
        lambda: keras.layers.serialize(layers.GroupNormalization(2)),
        layers.GroupNormalization,
    ),
}


@pytest.mark.parametrize("given", NORMALIZATIONS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_normalization_may_be_given_in_every_way(given, data_format, tmp_path):
    make, layer_class = NORMALIZATIONS[given]
    shape = shape_of(2, data_format=data_format)
    block = kr.ResidualBlock(8, 2, normalization=make(), data_format=data_format, name="block")
    model = model_of(block, shape=shape)
    for unit in (block.conv1, block.conv2, block.shortcut):
        assert isinstance(getattr(unit, "norm", None), layer_class)
        assert unit.conv.use_bias == (make() is None)
    inputs = random_array(shape)
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs), 1e-6)


def test_options_of_a_normalization_template_are_kept():
    block = built(
        kr.ResidualBlock(
            4, normalization=layers.BatchNormalization(momentum=0.7, epsilon=0.1, scale=False)
        ),
        SHAPE,
    )
    for unit in (block.conv1, block.conv2):
        assert unit.norm.momentum == 0.7
        assert unit.norm.epsilon == 0.1
        assert unit.norm.gamma is None


def test_named_normalizations_have_the_constants_of_the_papers():
    batch = built(kr.ResidualBlock(4), SHAPE).conv1.norm
    assert (batch.epsilon, batch.momentum) == (1e-5, 0.9)
    assert built(kr.ResidualBlock(4, normalization="layer"), SHAPE).conv1.norm.epsilon == 1e-5


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_named_normalizations_normalize_what_they_say(data_format):
    shape = shape_of(2, 64, data_format)
    spatial, channel = ((1, 2), 3) if data_format == "channels_last" else ((2, 3), 1)
    over = {
        "batch": (0, *spatial),
        "layer": (channel,),
        "instance": spatial,
    }
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
    "squeeze_excite": (lambda: "squeeze_excite", kr.SqueezeExcite),
    "efficient_channel": (lambda: "efficient_channel", kr.EfficientChannelAttention),
    "template": (lambda: kr.SqueezeExcite(2, activation="elu"), kr.SqueezeExcite),
    "user's": (lambda: Offset(), Offset),
    "function": (lambda: registered_function, layers.Activation),
    "config": (
        lambda: keras.saving.serialize_keras_object(kr.EfficientChannelAttention(3)),
        kr.EfficientChannelAttention,
    ),
}


@pytest.mark.parametrize("given", ATTENTIONS)
@pytest.mark.parametrize("kind", BLOCKS)
def test_attention_may_be_given_in_every_way(given, kind, tmp_path):
    make, layer_class = ATTENTIONS[given]
    block = make_block(kind, attention=make(), name="block")
    model = model_of(block, shape=SHAPE)
    assert isinstance(block.attention, layer_class)
    inputs = random_array(SHAPE)
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs), 1e-6)


def test_attention_is_applied_at_the_end_of_the_branch():
    inputs = random_array(SHAPE)
    plain = built(kr.ResidualBlock(4, activation=None), SHAPE)
    attended = kr.ResidualBlock(4, activation=None, attention=unregistered_function)
    attended.build(SHAPE)
    attended.set_weights(plain.get_weights())
    assert_close(to_numpy(attended(inputs)) - inputs, 0.5 * (to_numpy(plain(inputs)) - inputs))


@pytest.mark.parametrize("kind", BLOCKS)
def test_shared_template_gives_distinct_weights(kind):
    template = layers.PReLU(shared_axes=[1, 2])
    norm = layers.BatchNormalization()
    attention = kr.SqueezeExcite(2)
    options = {"activation": template, "normalization": norm, "attention": attention}
    model = model_of(*(make_block(kind, **options) for _ in range(3)), shape=SHAPE)
    one = built(make_block(kind, **options), SHAPE)
    assert len(model.weights) == 3 * len(one.weights)
    assert len({id(weight) for weight in model.weights}) == len(model.weights)
    alphas = [weight for weight in model.weights if weight.name == "alpha"]
    assert len(alphas) >= 6
    for used in (template, norm, attention):
        assert not used.built
        assert used.weights == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.PReLU(shared_axes=[1, 2]),
        lambda: layers.PReLU(),
        lambda: keras.Sequential([layers.PReLU(), layers.ELU()]),
        lambda: Offset(),
    ],
)
def test_template_that_was_built_elsewhere_is_a_template_all_the_same(make):
    template = make()
    template(random_array((1, 9, 8, 3)))
    before = [to_numpy(weight).copy() for weight in template.weights]
    block = built(kr.ResidualBlock(6, 2, activation=template), SHAPE)
    assert block(random_array(SHAPE)).shape == (2, 3, 2, 6)
    assert not {id(w) for w in block.weights} & {id(w) for w in template.weights}
    for weight, value in zip(template.weights, before):
        assert_close(weight, value)


@pytest.mark.parametrize(
    "make", [layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization]
)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_normalization_that_was_built_elsewhere_is_a_template(make, data_format):
    template = make()
    template(random_array((1, 9, 8, 32)))
    shape = shape_of(2, 32, data_format)
    block = built(kr.ResidualBlock(64, 2, normalization=template, data_format=data_format), shape)
    assert block.conv1.norm.gamma.shape == (64,)
    expected = (2, 3, 2, 64) if data_format == "channels_last" else (2, 64, 3, 2)
    assert block(random_array(shape)).shape == expected


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
    shape = shape_of(2, data_format="channels_first")
    block = kr.ResidualBlock(
        4, attention=kr.SqueezeExcite(2), data_format="channels_first", name="block"
    )
    block.build(shape)
    assert block.attention.data_format == "channels_first"
    assert block.attention.reduce.kernel.shape == (4, 2)


def test_initializer_of_a_template_gives_each_copy_values_of_its_own():
    template = layers.PReLU(alpha_initializer=keras.initializers.RandomNormal())
    block = kr.ResidualBlock(4, activation=template)
    block.build(SHAPE)
    assert not np.allclose(to_numpy(block.conv1.act.alpha), to_numpy(block.exit_act.alpha))


def test_model_with_registered_function_loads_where_the_function_is_registered(tmp_path):
    code = """
        import sys
        import keras
        import keras_resblocks
        REGISTER
        def twice(x):
            return 2 * x

        path = sys.argv[1]
        if len(sys.argv) > 2:
            inputs = keras.Input((4, 4, 2))
            block = keras_resblocks.ResidualBlock(2, activation=twice)
            keras.Model(inputs, block(inputs)).save(path)
        else:
            keras.saving.load_model(path)
        print("done")
    """
    decorator = '@keras.saving.register_keras_serializable("mine")'
    path = tmp_path / "model.keras"
    assert "done" in run_python(code.replace("REGISTER", decorator), path, "save")
    assert "done" in run_python(code.replace("REGISTER", decorator), path)
