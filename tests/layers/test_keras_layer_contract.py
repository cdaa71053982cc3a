"""Keras's own test of a layer, on every public one."""

import keras
import pytest
from helpers import registered_function
from keras.src.testing import TestCase

import keras_resblocks as kr

IMAGES = (5, 4, 4)


def prelu(*axes):
    return keras.layers.PReLU(shared_axes=[*axes])


# The layer and its arguments; the shapes of an input and its output, without the batch; how many
# trainable weights there are, and of other things.
CASES = {
    "residual": (
        kr.ResidualBlock,
        {"filters": 6, "strides": 2, "activation": "elu", "kernel_regularizer": "l2"},
        (IMAGES, (3, 2, 6), 9),
        {"non_trainable_weights": 6, "losses": 3, "seed_generators": 0},
    ),
    "preactivation residual of signals": (
        kr.ResidualBlock,
        {
            "filters": 4,
            "preactivation": True,
            "activation": prelu(1),
            "drop_path_rate": 0.2,
        },
        ((5, 3), (5, 4), 11),
        {"non_trainable_weights": 4, "seed_generators": 1},
    ),
    "residual of volumes": (
        kr.ResidualBlock,
        {"filters": 4, "strides": 2, "shortcut": "zero_pad", "activation": registered_function},
        ((4, 3, 4, 2), (2, 2, 2, 4), 6),
    ),
    "rematerialized": (
        kr.ResidualBlock,
        {"filters": 4, "drop_path_rate": 0.2, "kernel_regularizer": "l2", "remat": True},
        (IMAGES, IMAGES, 6),
        {"non_trainable_weights": 4, "seed_generators": 1, "losses": 2},
    ),
    "bottleneck": (
        kr.BottleneckBlock,
        {"filters": 2, "strides": 2, "attention": "squeeze_excite", "shortcut": "avg_pool"},
        ((6, 4, 4), (3, 2, 8), 16),
    ),
    "atrous bottleneck with a custom policy": (
        kr.BottleneckBlock,
        {
            "filters": 2,
            "strides": 2,
            "expansion": 3,
            "atrous": True,
            "dilation_rate": 2,
            "normalization": keras.layers.GroupNormalization(2),
            "shortcut": kr.shortcuts.ProjectionShortcut("always", normalization=None),
        },
        (IMAGES, (5, 4, 6), 11),
    ),
    "inception without padding": (
        kr.InceptionBlock,
        {"branches": [[1, (2, 3)], ["max_pool"]], "strides": 2, "padding": "valid"},
        (IMAGES, (2, 1, 6), 6),
    ),
    "inception with filters and a shortcut": (
        kr.InceptionBlock,
        {
            "branches": [[2], ["avg_pool", [[(1, (1, 3))], [(1, (3, 1))]]]],
            "filters": 4,
            "shortcut": "identity",
            "residual_scale": 0.3,
            "exit_activation": prelu(1, 2),
        },
        (IMAGES, IMAGES, 12),
        {"non_trainable_weights": 6},
    ),
    "squeeze and excite": (
        kr.SqueezeExcite,
        {"reduction": 2, "activation": "elu", "kernel_regularizer": "l2"},
        (IMAGES, IMAGES, 4),
        {"non_trainable_weights": 0, "losses": 2},
    ),
    "efficient channel attention": (
        kr.EfficientChannelAttention,
        {"kernel_size": 3, "gate_activation": "hard_sigmoid"},
        (IMAGES, IMAGES, 1),
        {"non_trainable_weights": 0},
    ),
    "stochastic depth": (
        kr.StochasticDepth,
        {"rate": 0.3, "seed": 7},
        (IMAGES, IMAGES, 0),
        {"seed_generators": 1},
    ),
    "random shift": (
        kr.training.RandomShift,
        {"factor": 0.25, "seed": 7},
        (IMAGES, IMAGES, 0),
        {"seed_generators": 1},
    ),
    "convolution unit": (
        kr.layers.ConvUnit,
        {"filters": 4, "kernel_size": 3, "strides": 2, "groups": 2, "activation": "elu"},
        (IMAGES, (3, 2, 4), 3),
    ),
    "max pooling": (kr.layers.Pooling, {"kind": "max", "strides": 2}, (IMAGES, (3, 2, 4), 0)),
    "average pooling to the end": (
        kr.layers.Pooling,
        {"kind": "avg", "pool_size": 3, "strides": 2, "padding": "ceil"},
        (IMAGES, (2, 2, 4), 0),
    ),
    "adaptive average pooling": (
        kr.layers.AdaptiveAveragePooling,
        {"output_size": (2, 3)},
        (IMAGES, (2, 3, 4), 0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_layer_keeps_the_contract_of_keras(name):
    layer_class, arguments, (input_shape, output_shape, trainable), *counts = CASES[name]
    counts = {"trainable_weights": trainable, **(counts[0] if counts else {})}
    TestCase().run_layer_test(
        layer_class,
        arguments,
        input_shape=(2, *input_shape),
        expected_output_shape=(2, *output_shape),
        run_training_check=trainable > 0,
        supports_masking=True if layer_class is kr.StochasticDepth else None,
        **{f"expected_num_{what}": count for what, count in counts.items()},
    )


def test_every_public_layer_has_a_case():
    public = {
        value
        for module in (kr, kr.layers, kr.training)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, keras.layers.Layer)
    }
    assert public == {layer_class for layer_class, *_ in CASES.values()}
