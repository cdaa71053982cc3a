"""Published networks as Keras's own layers, those as blocks again, and folded."""

import dataclasses
import functools

import keras
import pytest
from conversions import (
    assert_equal_weights,
    assert_folds,
    assert_plain,
    assert_saves,
    entries,
    reloaded,
)
from helpers import model_of, random_array, shape_of, to_numpy
from networks import blocks_of
from trained import DISTINCT, assert_equal_outputs, images, network, shrunk

import keras_resblocks as kr
from keras_resblocks.layers.composite import Composite
from keras_resblocks.models.published import get_spec

QUICK = {"resnet18", "resnet18d", "resnetv2_101", "resnet101_keras", "inception_resnet_v2_keras"}
DEEP = ("inception_resnet_v2_keras", "resnetv2_152")


def options_of(layer):
    """The names, classes and options of the layers inside, but for how weights begin."""
    if isinstance(layer, Composite):
        return [(layer.name, options_of(sublayer)) for sublayer in layer.sublayers()]
    config = layer.get_config()
    return type(layer).__name__, {k: v for k, v in config.items() if "initializer" not in k}


def assert_converts(name, spec, path):
    """A network of the spec becomes plain, and folds; returns it and its plain form."""
    size = (75, 80, 3) if name.startswith(("inception", "googlenet")) else (32, 64, 3)
    model = network(spec, input_shape=size, classes=4)
    inputs = images(model)
    plain = assert_plain(model, inputs)
    assert plain.count_params() == model.count_params()
    assert_equal_weights(model, plain)
    keras.Model(plain.input, [layer.output for layer in plain.layers])

    result = assert_folds(model, inputs, entries(model))
    assert [layer.name for layer in result.layers] == [layer.name for layer in model.layers]
    assert kr.cost(result).macs == kr.cost(model).macs
    assert_saves(result, path)
    return model, plain


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in DISTINCT]
)
def test_a_network_folds_becomes_plain_and_has_its_blocks_again(name, tmp_path):
    model, plain = assert_converts(name, shrunk(name), tmp_path)
    if name == "seresnet50":  # squeeze-and-excitation is no pattern of `from_keras`
        with pytest.raises(ValueError, match="residual or inception patterns"):
            kr.from_keras(plain)
        return
    again = kr.from_keras(plain)
    before, after = blocks_of(model), blocks_of(again)
    assert [block.name for block in after] == [block.name for block in before]
    assert [type(block) for block in after] == [type(block) for block in before]
    for block, other in zip(after, before):
        assert options_of(block) == options_of(other)
    assert_equal_outputs(model, again, images(model), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_a_deep_network_folds_and_becomes_plain(name, tmp_path):
    spec = get_spec(name)
    if isinstance(spec, kr.ResNetSpec):
        spec = dataclasses.replace(spec, width=shrunk(name).width)
    assert_converts(name, spec, tmp_path)


def test_a_penalty_leaves_the_outputs_as_they_are():
    model = network(shrunk("resnet18"), input_shape=(32, 32, 3), classes=4)
    changed = kr.with_options(kr.to_plain_keras(model), kernel_regularizer="l2")
    kernels = [weight for weight in changed.weights if weight.name == "kernel"]
    assert len(changed.losses) == len(kernels) > 16
    assert_equal_outputs(model, changed, images(model), 1e-5)


# What all that makes a model of a model has in common.

CONVERSIONS = {
    "to_plain_keras": kr.to_plain_keras,
    "from_keras": lambda model: kr.from_keras(kr.to_plain_keras(model)),
    "with_options": functools.partial(kr.with_options, kernel_regularizer="l2"),
    "fold_batch_norm": kr.fold_batch_norm,
}


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Normalized(keras.layers.Layer):
    """A layer of one's own with a normalization inside."""

    def build(self, shape):
        self.norm = keras.layers.Normalization()
        self.norm.build(shape)

    def call(self, inputs):
        return self.norm(inputs)


@pytest.mark.parametrize("name", CONVERSIONS)
def test_an_adapted_normalization_is_kept_and_what_was_compiled_is_left_behind(name):
    x = random_array((4, 8, 8, 3)) * 7 + 5
    normalize, own = keras.layers.Normalization(), Normalized()
    model = model_of(normalize, own, kr.ResidualBlock(4), shape=x.shape)
    normalize.adapt(x)
    own.norm.adapt(x)
    model.compile("adam", lambda y, predicted: keras.ops.mean(predicted))
    converted = CONVERSIONS[name](model)
    assert_equal_outputs(model, converted, x, 1e-5)
    assert model.compiled
    assert not converted.compiled


FROZEN = [
    {"kernel1": False},
    {"norm1": False, "norm2": False},
    {"conv2": False},
    {"block": False},
    {"block": False, "conv1": True},
    {"inner": False, "inner conv": True},
    {"model": False, "conv1": True},
]


def flags_of(model):
    """Which weights are trainable, by their values: they have different names, or another order."""
    is_trained = {id(weight) for weight in model.trainable_weights}
    return sorted(
        (to_numpy(weight).tobytes(), weight.trainable, id(weight) in is_trained)
        for weight in model.weights
    )


@pytest.mark.parametrize("flags", FROZEN, ids=str)
@pytest.mark.parametrize("name", ["to_plain_keras", "from_keras", "with_options"])
def test_what_is_frozen_stays_frozen(name, flags, tmp_path):
    stack = [keras.layers.Conv2D(4, 1), keras.layers.BatchNormalization()]
    inner, block = keras.Sequential([keras.Input(shape_of()[1:]), *stack]), kr.ResidualBlock(8, 2)
    model = model_of(inner, block, shape=shape_of())
    parts = {"model": model, "inner": inner, "inner conv": stack[0], "block": block}
    for i, unit in enumerate((block.conv1, block.conv2), start=1):
        parts |= {f"conv{i}": unit, f"kernel{i}": unit.conv, f"norm{i}": unit.norm}
    for part, flag in flags.items():
        parts[part].trainable = flag
    result = CONVERSIONS[name](model)
    for one in (result, reloaded(result, tmp_path)):
        assert flags_of(one) == flags_of(model)
    if name == "from_keras":
        assert blocks_of(result)[0].trainable == (flags != {"block": False})


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize("convert", [*CONVERSIONS.values(), kr.from_keras, kr.inference_function])
def test_what_is_no_graph_is_refused(convert):
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    for model in (Subclassed(), keras.Sequential(), unbuilt, kr.ResidualBlock(4), "resnet50", None):
        with pytest.raises(ValueError, match=r"`model` must be a functional model.* Received: m"):
            convert(model)
