"""Keras's own test of a layer, on every public one."""

import keras
import pytest
from helpers import registered_function
from keras.src.testing import TestCase

import keras_resblocks as kr

IMAGES = (2, 5, 4, 4)
HALVED = (2, 3, 2)

CASES = {
    "residual": (
        kr.ResidualBlock,
        {"filters": 6, "strides": 2, "activation": "elu", "kernel_regularizer": "l2"},
        IMAGES,
        {
            "expected_output_shape": (*HALVED, 6),
            "expected_num_trainable_weights": 9,
            "expected_num_non_trainable_weights": 6,
            "expected_num_losses": 3,
            "expected_num_seed_generators": 0,
        },
    ),
    "preactivation residual": (
        kr.ResidualBlock,
        {
            "filters": 4,
            "preactivation": True,
            "activation": registered_function,
            "drop_path_rate": 0.2,
        },
        IMAGES,
        {
            "expected_output_shape": IMAGES,
            "expected_num_trainable_weights": 7,
            "expected_num_non_trainable_weights": 4,
            "expected_num_seed_generators": 1,
        },
    ),
    "residual of signals": (
        kr.ResidualBlock,
        {"filters": 4, "activation": keras.layers.PReLU(shared_axes=[1])},
        (2, 5, 3),
        {"expected_output_shape": (2, 5, 4), "expected_num_trainable_weights": 11},
    ),
    "residual of volumes": (
        kr.ResidualBlock,
        {"filters": 4, "strides": 2, "shortcut": "zero_pad"},
        (2, 4, 3, 4, 2),
        {"expected_output_shape": (2, 2, 2, 2, 4), "expected_num_trainable_weights": 6},
    ),
    "bottleneck": (
        kr.BottleneckBlock,
        {"filters": 2, "strides": 2, "attention": "squeeze_excite", "shortcut": "avg_pool"},
        (2, 6, 4, 4),
        {"expected_output_shape": (2, 3, 2, 8), "expected_num_trainable_weights": 16},
    ),
    "bottleneck with a custom policy": (
        kr.BottleneckBlock,
        {
            "filters": 2,
            "expansion": 2,
            "normalization": keras.layers.GroupNormalization(2),
            "shortcut": kr.shortcuts.ProjectionShortcut("always", normalization=None),
        },
        IMAGES,
        {"expected_output_shape": IMAGES, "expected_num_trainable_weights": 11},
    ),
    "inception": (
        kr.InceptionBlock,
        {"branches": [[2], [1, (2, 3)], ["max_pool", 1]], "strides": 2},
        IMAGES,
        {"expected_output_shape": (*HALVED, 5), "expected_num_trainable_weights": 12},
    ),
    "inception with a shortcut": (
        kr.InceptionBlock,
        {
            "branches": [[2], ["avg_pool", [[(1, (1, 3))], [(1, (3, 1))]]]],
            "shortcut": "identity",
            "residual_scale": 0.3,
            "normalization": None,
        },
        IMAGES,
        {"expected_output_shape": IMAGES, "expected_num_trainable_weights": 6},
    ),
    "inception with filters and a shortcut": (
        kr.InceptionBlock,
        {
            "branches": [[2], [1, (2, 3)], ["max_pool", 1]],
            "filters": 4,
            "shortcut": "identity",
            "residual_scale": 0.3,
            "exit_activation": keras.layers.PReLU(shared_axes=[1, 2]),
        },
        IMAGES,
        {
            "expected_output_shape": IMAGES,
            "expected_num_trainable_weights": 15,
            "expected_num_non_trainable_weights": 8,
        },
    ),
    "inception without padding": (
        kr.InceptionBlock,
        {"branches": [[(2, 3)], ["max_pool"]], "strides": 2, "padding": "valid"},
        IMAGES,
        {"expected_output_shape": (2, 2, 1, 6), "expected_num_trainable_weights": 3},
    ),
    "atrous bottleneck": (
        kr.BottleneckBlock,
        {"filters": 2, "strides": 2, "expansion": 3, "atrous": True, "dilation_rate": 2},
        IMAGES,
        {"expected_output_shape": (2, 5, 4, 6), "expected_num_trainable_weights": 12},
    ),
    "rematerialized": (
        kr.ResidualBlock,
        {"filters": 4, "drop_path_rate": 0.2, "kernel_regularizer": "l2", "remat": True},
        IMAGES,
        {
            "expected_output_shape": IMAGES,
            "expected_num_trainable_weights": 6,
            "expected_num_non_trainable_weights": 4,
            "expected_num_seed_generators": 1,
            "expected_num_losses": 2,
        },
    ),
    "squeeze and excite": (
        kr.SqueezeExcite,
        {"reduction": 2, "activation": "elu", "kernel_regularizer": "l2"},
        IMAGES,
        {
            "expected_output_shape": IMAGES,
            "expected_num_trainable_weights": 4,
            "expected_num_non_trainable_weights": 0,
            "expected_num_losses": 2,
        },
    ),
    "efficient channel attention": (
        kr.EfficientChannelAttention,
        {"kernel_size": 3, "gate_activation": "hard_sigmoid"},
        IMAGES,
        {
            "expected_output_shape": IMAGES,
            "expected_num_trainable_weights": 1,
            "expected_num_non_trainable_weights": 0,
        },
    ),
    "stochastic depth": (
        kr.StochasticDepth,
        {"rate": 0.3, "seed": 7},
        IMAGES,
        {
            "expected_output_shape": IMAGES,
            "expected_num_trainable_weights": 0,
            "expected_num_seed_generators": 1,
            "supports_masking": True,
            "run_training_check": False,  # no weights to train
        },
    ),
    "random shift": (
        kr.training.RandomShift,
        {"factor": 0.25, "seed": 7},
        IMAGES,
        {
            "expected_output_shape": IMAGES,
            "expected_num_trainable_weights": 0,
            "expected_num_seed_generators": 1,
            "run_training_check": False,  # no weights to train
        },
    ),
    "convolution unit": (
        kr.layers.ConvUnit,
        {"filters": 4, "kernel_size": 3, "strides": 2, "groups": 2, "activation": "elu"},
        IMAGES,
        {"expected_output_shape": (*HALVED, 4), "expected_num_trainable_weights": 3},
    ),
    "max pooling": (
        kr.layers.Pooling,
        {"kind": "max", "strides": 2},
        IMAGES,
        {"expected_output_shape": (*HALVED, 4), "run_training_check": False},
    ),
    "average pooling": (
        kr.layers.Pooling,
        {"kind": "avg", "pool_size": 2, "strides": 2, "padding": "valid"},
        IMAGES,
        {"expected_output_shape": (2, 2, 2, 4), "run_training_check": False},
    ),
    "average pooling to the end": (
        kr.layers.Pooling,
        {"kind": "avg", "pool_size": 3, "strides": 2, "padding": "ceil"},
        IMAGES,
        {"expected_output_shape": (2, 2, 2, 4), "run_training_check": False},
    ),
    "adaptive average pooling": (
        kr.layers.AdaptiveAveragePooling,
        {"output_size": (2, 3)},
        IMAGES,
        {"expected_output_shape": (2, 2, 3, 4), "run_training_check": False},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_layer_keeps_the_contract_of_keras(name):
    layer_class, arguments, input_shape, expected = CASES[name]
    TestCase().run_layer_test(layer_class, arguments, input_shape=input_shape, **expected)


def test_every_public_layer_has_a_case():
    public = {
        value
        for module in (kr, kr.layers, kr.training)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, keras.layers.Layer)
    }
    assert public == {layer_class for layer_class, *_ in CASES.values()}
