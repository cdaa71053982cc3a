"""The fused operations of TensorFlow."""

import keras
import pytest
from fused import IMAGES, assert_equal_results, unit_pair
from helpers import (
    assert_close,
    make_block,
    model_of,
    random_array,
    run_python,
    shape_of,
    snapshot,
    to_numpy,
)

import keras_resblocks as kr
from keras_resblocks.layers import ConvUnit

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow")


def operations(layer, shape, training=True, dtype="float32"):
    """The names of the operations in the graph of a layer's call."""
    import tensorflow as tf

    function = tf.function(lambda x: layer(x, training=training))
    graph = function.get_concrete_function(tf.TensorSpec(shape, dtype)).graph
    return [operation.type for operation in graph.get_operations()]


def count(layer, shape=IMAGES, **options):
    return operations(layer, shape, **options).count("FusedBatchNormV3")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("preactivation", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_each_normalization_is_one_operation(rank, preactivation, training):
    shape = shape_of(rank, 4)
    block = kr.BottleneckBlock(2, expansion=2, preactivation=preactivation)
    block.build(shape)
    assert count(block, shape, training=training) == 3
    assert count(block, (None,) * (rank + 1) + (4,), training=training) == 3


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_in_mixed_precision(dtype):
    block = make_block("residual", 4, dtype=dtype)
    block.build(IMAGES)
    assert count(block) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"fused": False},
        {"data_format": "channels_first"},
        {"dtype": "float64"},
        {"normalization": "group"},
        {"normalization": lambda: keras.layers.BatchNormalization(synchronized=True)},
    ],
    ids=["not wanted", "channels first", "float64", "group", "synchronized"],
)
def test_others_are_as_keras_computes_them(options):
    options = {key: value() if callable(value) else value for key, value in options.items()}
    block = kr.ResidualBlock(4, **options)
    assert not count(model_of(block, shape=(2, 4, 4, 4)), (2, 4, 4, 4))


@pytest.mark.parametrize("batch", [1, 3])
def test_compiled_by_xla(batch):
    import tensorflow as tf

    x = random_array((batch, 1, 1, 4) if batch == 1 else IMAGES)
    pair = unit_pair(x.shape)
    calls = [lambda x, unit=unit: unit(x, training=True) for unit in pair]
    assert_close(*(tf.function(call, jit_compile=True)(x) for call in calls))
    for a, b in zip(*map(snapshot, pair)):  # the variance is the biased one there too
        assert_close(a, b)


def test_second_derivatives():
    import tensorflow as tf

    unit = unit_pair(activation=None)[0]

    def written_out(x):  # in which Keras's own, by `tf.nn.moments`, is off by a percent
        gamma, beta, kernel = (
            keras.ops.cast(w, x.dtype) for w in (unit.norm.gamma, unit.norm.beta, unit.conv.kernel)
        )
        y = tf.nn.conv2d(x, kernel, 1, "SAME")
        y -= tf.reduce_mean(y, (0, 1, 2))
        return gamma * y / tf.sqrt(tf.reduce_mean(y**2, (0, 1, 2)) + unit.norm.epsilon) + beta

    def of_penalty(function, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                total = tf.reduce_sum(function(x) ** 3)
            penalty = tf.reduce_sum(inner.gradient(total, x) ** 2)
        return outer.gradient(penalty, x)

    x = tf.constant(random_array(IMAGES))
    actual = of_penalty(lambda x: unit(x, training=True), x)
    expected = of_penalty(written_out, tf.cast(x, "float64"))
    scale = float(abs(to_numpy(expected)).max())
    assert_close(to_numpy(actual) / scale, to_numpy(expected) / scale)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"use_bias": True}, {"padding": "same"}, {"strides": 3}, {"strides": 1}]
)
def test_pointwise_convolutions(rank, options):
    for size in (2, 5):
        shape = (3, *rank * [size], 4)
        pair = unit_pair(shape, 6, 1, **{"strides": 2, **options})
        for training in (True, False):
            assert_equal_results(*pair, random_array(shape), training=training)


@pytest.mark.parametrize(
    ("size", "options", "is_product"),
    [
        (3, {}, True),
        (4, {}, False),
        (6, {"strides": 2}, True),
        (7, {"strides": 2}, False),
        (None, {}, False),
        (3, {"groups": 2}, False),
        (3, {"kernel_size": 3}, False),
        (3, {"fused": False}, False),
    ],
)
def test_pointwise_ones_of_few_positions_are_products_in_training(size, options, is_product):
    unit = ConvUnit(8, **{"kernel_size": 1, **options})
    shape = (None, size, size, 16)
    unit.build(shape)
    assert ("MatMul" in operations(unit, shape)) == is_product
    assert "MatMul" not in operations(unit, shape, training=False)


SCRIPT = """
import numpy as np
import tensorflow as tf

from keras_resblocks.layers import ConvUnit

unit = ConvUnit(16, 1, strides=2)
unit.build((None, 32, 32, 8))


@tf.function
def step(x):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(unit(x, training=True))
    return tape.gradient(total, unit.trainable_weights)


for size in 60 * [32, 27, 32, 29, 5]:
    step(tf.random.normal((size, 32, 32, 8)))
"""


@pytest.mark.slow
def test_batches_of_several_sizes_do_not_crash():
    run_python(SCRIPT)
