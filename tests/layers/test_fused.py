"""With `fused=True` is computed what the Keras layers do: results, gradients, statistics."""

import keras
import numpy as np
import pytest
from fused import IMAGES, assert_equal_results, unit_pair
from helpers import (
    BLOCKS,
    DATA_FORMATS,
    assert_close,
    assert_equal_values,
    built,
    covering,
    label,
    make_block,
    model_of,
    random_array,
    randomize,
    shape_of,
    snapshot,
    to_numpy,
)

import keras_resblocks as kr
from keras_resblocks.layers import ConvUnit, Pooling
from keras_resblocks.layers.fused import of_backend

pytestmark = pytest.mark.skipif(
    of_backend(True) is None, reason="nothing is done differently on this backend"
)

OPTIONS = {
    "kind": BLOCKS,
    "rank": (1, 2, 3),
    "data_format": DATA_FORMATS,
    "preactivation": (False, True),
    "strides": (1, 2),
    "kernel_size": (3, 2, 1),
    "dilation_rate": (1, 2),
    "groups": (1, 2),
    "padding": ("symmetric", "same"),
    "use_bias": (None, True),
    "activation": ("relu", "elu", None),
    "normalization": ("batch", "group", None, "no scale", "no center"),
    "shortcut": ("projection", "avg_pool", None),
    "attention": (None, "squeeze_excite"),
}
NORMALIZATIONS = {
    "no scale": keras.layers.BatchNormalization(momentum=0.6, scale=False),
    "no center": keras.layers.BatchNormalization(epsilon=0.1, center=False),
}


def is_valid(case):
    has_options = case["kind"] != "inception" or (case["kernel_size"] == 3 and case["groups"] == 1)
    return has_options and not (case["strides"] > 1 and case["dilation_rate"] > 1)


def block_of(case, **options):
    options = {**case, **options}
    shape = shape_of(options.pop("rank"), 4, options["data_format"], batch=3)
    normalization = options["normalization"]
    options["normalization"] = NORMALIZATIONS.get(normalization, normalization)
    if options["kind"] == "inception":
        del options["kernel_size"]
    return built(make_block(filters=8, **options), shape), shape


@pytest.mark.parametrize("case", covering(OPTIONS, is_valid), ids=label)
def test_fused_equals_stock(case):
    # Where float64 is fused too: the rounding left is Keras's, which normalizes in float32.
    dtype = "float64" if keras.backend.backend() == "torch" else "float32"
    block, shape = block_of(case, dtype=dtype)
    stock, _ = block_of(case, dtype=dtype, fused=False)
    inputs = random_array(shape)
    for training in (True, False):
        assert_equal_results(block, stock, inputs, 1e-4, training)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["residual", "bottleneck"])
def test_half_precision(kind, dtype):
    block = built(make_block(kind, 4, 2, dtype=dtype), IMAGES)
    stock = built(make_block(kind, 4, 2, dtype=dtype, fused=False), IMAGES)
    # On JAX both add up in other orders, and differ from float32 by 0.06 and 0.03 themselves.
    tolerance = 0.1 if keras.backend.backend() == "jax" else 0.06
    assert_equal_results(block, stock, random_array(IMAGES), tolerance)


@pytest.mark.parametrize("frozen", ["block", "norm"])
def test_frozen_normalization_keeps_its_statistics(frozen):
    pair = unit_pair()
    for unit in pair:
        (unit if frozen == "block" else unit.norm).trainable = False
    before = snapshot(pair[0])
    assert_equal_results(*pair, random_array(IMAGES))
    assert_equal_values(snapshot(pair[0]), before, 0)


def test_training_is_that_of_the_call_around():
    unit, stock = unit_pair()
    inputs = keras.Input(IMAGES[1:])
    model, expected = (keras.Model(inputs, layer(inputs)) for layer in (unit, stock))
    x = random_array(IMAGES)
    for options in ({}, {"training": None}, {"training": False}, {"training": True}):
        assert_close(model(x, **options), expected(x, **options))
        assert_equal_values(snapshot(unit), snapshot(stock))


def test_values_assigned_after_a_call_are_used():
    unit, stock = unit_pair()
    x = random_array(IMAGES)
    unit(x)
    randomize(unit, seed=3)
    stock.set_weights(unit.get_weights())
    assert_equal_results(unit, stock, x)
    unit.conv.kernel.assign(np.zeros(unit.conv.kernel.shape))
    assert not to_numpy(unit.conv.kernel).any()
    unit.norm.beta.assign(np.zeros(unit.norm.beta.shape))
    unit.norm.moving_mean.assign(np.zeros(unit.norm.beta.shape))
    assert not to_numpy(unit(x)).any()


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_lora_enabled_after_the_build(kernel_size):
    pair = unit_pair(kernel_size=kernel_size)
    x = random_array(IMAGES)
    before = to_numpy(pair[0](x))
    for unit in pair:
        unit(x)
        unit.conv.enable_lora(2)
        randomize(unit, seed=2)
    assert abs(to_numpy(pair[0](x)) - before).max() > 1e-3
    assert_equal_results(*pair, x)


def test_masked_values_are_left_out_of_the_statistics():
    shape = (4, 6, 5)
    x = random_array(shape)
    x[:, 3:] = 0.0  # what `Masking` hides
    blocks = [kr.ResidualBlock(5, preactivation=True, fused=fused) for fused in (True, False)]
    models = [model_of(keras.layers.Masking(), block, shape=shape) for block in blocks]
    for model in models:
        model(x, training=True)
    assert_equal_values(*map(snapshot, models))
    visible = x[:, :3].mean(axis=(0, 1))
    mean = blocks[0].entry_norm.moving_mean
    before = to_numpy(mean).copy()
    models[0](x, training=True)
    assert_close(mean, 0.9 * before + 0.1 * visible)


BatchNormalization = keras.layers.BatchNormalization


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class _DoublingNormalization(BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize(
    ("normalization", "options"),
    [
        (_DoublingNormalization, {}),
        (BatchNormalization, {"axis": 1}),
        (BatchNormalization, {"activity_regularizer": "l2"}),
        (BatchNormalization, {"gamma_regularizer": "l2", "beta_constraint": "non_neg"}),
    ],
    ids=str,
)
def test_what_is_not_stock_is_called_as_it_is(normalization, options):
    pair = unit_pair(normalization=normalization(**options))
    assert_equal_results(*pair, random_array(IMAGES))
    assert_equal_values(*(unit.losses for unit in pair))


def test_one_value_a_channel_has_no_variance():
    shape = (1, 1, 1, 4)
    assert_equal_results(*unit_pair(shape), random_array(shape))


def test_block_used_twice_before_the_gradients():
    models = []
    for fused in (True, False):
        block = make_block("residual", 4, fused=fused)
        models.append(model_of(block, block, shape=IMAGES))
    assert_equal_results(*models, random_array(IMAGES), 1e-3)
    assert_equal_values(*map(snapshot, models))


def test_stateless_call_assigns_nothing():
    unit, stock = unit_pair()
    before = snapshot(unit)
    values = [
        [[v.value + 0.1 for v in layer.trainable_variables], layer.non_trainable_variables]
        for layer in (unit, stock)
    ]
    x = random_array(IMAGES)
    outputs, state = unit.stateless_call(*values[0], x, training=True)
    expected, expected_state = stock.stateless_call(*values[1], x, training=True)
    assert_equal_values([outputs, *state], [expected, *expected_state])
    assert_equal_values(snapshot(unit), before, 0)


@pytest.mark.parametrize(
    "optimizer", [lambda: keras.optimizers.SGD(0.01, 0.9), keras.optimizers.Adam]
)
def test_fit_leads_to_the_same_weights(optimizer):
    x, y = random_array((12, 8, 8, 3)), random_array((12, 4), 1)
    models = []
    for fused in (True, False):
        model = model_of(
            ConvUnit(4, 3, fused=fused),
            Pooling("max", 3, 2, fused=fused),
            kr.BottleneckBlock(2, 2, expansion=2, fused=fused),
            keras.layers.GlobalAveragePooling2D(),
            shape=(None, 8, 8, 3),
        )
        model.compile(optimizer=optimizer(), loss="mse")
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        models.append(model)
    assert_equal_values(*map(snapshot, models), 2e-4)
