"""Published networks as Keras's own layers, and those as blocks again."""

import keras
import pytest
from helpers import model_of, random_array
from networks import blocks_of
from trained import DISTINCT, assert_equal_outputs, images, network, shrunk

import keras_resblocks as kr
from keras_resblocks.layers.composite import Composite

# Of a squeeze-and-excitation block, the plain form is no pattern of `from_keras`.
EXCEPTIONS = {"seresnet50"}
QUICK = {"resnet18", "resnet18d", "resnetv2_101", "resnet101_keras", "inception_resnet_v2_keras"}


def options_of(layer):
    """The names, classes and options of the layers inside, but for how weights begin."""
    if isinstance(layer, Composite):
        return [(layer.name, options_of(sublayer)) for sublayer in layer.sublayers()]
    config = layer.get_config()
    return type(layer).__name__, {k: v for k, v in config.items() if "initializer" not in k}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in DISTINCT
        if name not in EXCEPTIONS
    ],
)
def test_a_network_has_its_blocks_again(name):
    size = (75, 75, 3) if name.startswith(("inception", "googlenet")) else (64, 64, 3)
    model = network(shrunk(name), input_shape=size, classes=4)
    again = kr.from_keras(kr.to_plain_keras(model))
    before, after = blocks_of(model), blocks_of(again)
    assert [block.name for block in after] == [block.name for block in before]
    assert [type(block) for block in after] == [type(block) for block in before]
    for block, other in zip(after, before):
        assert options_of(block) == options_of(other)
    assert_equal_outputs(model, again, images(model), 1e-5)


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_attention_is_no_pattern(name):
    plain = kr.to_plain_keras(network(shrunk(name), input_shape=(32, 32, 3), classes=4))
    with pytest.raises(ValueError, match="residual or inception patterns"):
        kr.from_keras(plain)


def test_a_penalty_leaves_the_outputs_as_they_are():
    model = network(shrunk("resnet18"), input_shape=(32, 32, 3), classes=4)
    changed = kr.with_options(kr.to_plain_keras(model), kernel_regularizer="l2")
    kernels = [weight for weight in changed.weights if weight.name == "kernel"]
    assert len(changed.losses) == len(kernels) > 16
    assert_equal_outputs(model, changed, images(model), 1e-5)


@pytest.mark.parametrize(
    "convert",
    [kr.to_plain_keras, lambda model: kr.from_keras(kr.to_plain_keras(model))],
    ids=["to_plain_keras", "from_keras"],
)
def test_an_adapted_normalization_is_kept(convert):
    x = random_array((4, 8, 8, 3)) * 7 + 5
    normalize = keras.layers.Normalization()
    model = model_of(normalize, kr.ResidualBlock(4), shape=x.shape)
    normalize.adapt(x)
    assert_equal_outputs(model, convert(model), x, 1e-5)
