"""Convolutions that JAX computes as a product on a CPU."""

import itertools

import keras
import numpy as np
import pytest
from fused import assert_equal_results, unit_pair
from helpers import assert_close, built, make_block, model_of, random_array, to_numpy

import keras_resblocks as kr

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX")

SMALL = (2, 2, 3, 4)  # maps with fewer positions than a 3x3 kernel has taps


def program(layer, shape, platforms=("cpu",)):
    """What a layer's call becomes on some platforms, as text."""
    import jax

    call = jax.jit(lambda x: layer(x))
    return call.trace(np.zeros(shape, "float32")).lower(lowering_platforms=platforms).as_text()


def has_convolution(layer, shape, **options):
    return "stablehlo.convolution" in program(layer, shape, **options)


@pytest.mark.parametrize(
    ("kernel_size", "size", "options", "is_product"),
    [
        (1, 8, {}, True),
        (1, 8, {"strides": 2}, True),
        (3, 3, {}, True),
        (3, 6, {"strides": 2}, True),
        (3, 4, {}, False),
        (5, 5, {}, True),
        (7, 7, {}, False),
        (1, 8, {"groups": 2}, False),
        (1, 8, {"fused": False}, False),
    ],
)
def test_pointwise_and_small_ones_are_products_on_a_cpu(kernel_size, size, options, is_product):
    unit = kr.layers.ConvUnit(4, kernel_size, **options)
    shape = (2, size, size, 4)
    unit.build(shape)
    assert has_convolution(unit, shape) != is_product
    assert has_convolution(unit, shape, platforms=("tpu",))


@pytest.mark.parametrize(("filters", "is_product"), [(4, False), (64, True)])
def test_where_little_is_computed_the_convolution_stays(filters, is_product, monkeypatch):
    monkeypatch.undo()  # of conftest.py's limit
    unit = kr.layers.ConvUnit(filters, 3)
    shape = (2, 2, 2, filters)
    unit.build(shape)
    assert has_convolution(unit, shape) != is_product


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["symmetric", "same", "valid"])
def test_windows_of_every_form(rank, padding):
    import jax

    # Kernel size, strides, dilation rate.
    windows = [(1, 3, 1), (2, 1, 1), (3, 1, 2), (2, 1, 2), (5, 2, 1)]
    for (kernel_size, strides, rate), size in itertools.product(windows, (1, 2, 4)):
        if padding == "valid" and 1 + rate * (kernel_size - 1) > size:
            continue
        shape = (2, size, size + 1, size + 2)[: rank + 1] + (3,)
        pair = unit_pair(
            shape, 4, kernel_size, strides=strides, padding=padding, dilation_rate=rate
        )
        x = random_array(shape)
        assert_close(*(jax.jit(unit)(x) for unit in pair), 1e-4)


def test_derivatives_of_every_kind_are_those_of_the_convolution():
    import jax

    fused, stock = (
        built(make_block("bottleneck", 4, 2, activation="elu", fused=fused), SMALL)
        for fused in (True, False)
    )
    x, direction = random_array(SMALL), random_array(SMALL, 1)
    for transform in (
        lambda f: jax.jvp(f, (x,), (direction,))[1],
        lambda f: jax.jvp(jax.grad(lambda x: (f(x) ** 2).sum()), (x,), (direction,))[1],
        lambda f: jax.vmap(lambda one: f(one[None]))(x),
        lambda f: jax.grad(lambda x: (jax.checkpoint(f)(x) ** 2).sum())(x),
        lambda f: jax.jit(f)(x),
    ):
        assert_close(transform(stock), transform(fused), 1e-4)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_half_precision(dtype):
    pair = unit_pair(SMALL, dtype=dtype)
    assert_equal_results(*pair, random_array(SMALL), tolerance=0.06)


def test_a_low_rank_adaptation_of_a_kernel_counts():
    fused, stock = unit_pair(SMALL)
    for unit in (fused, stock):
        unit.conv.enable_lora(2)
        unit.conv.lora_kernel_b.assign(np.ones(unit.conv.lora_kernel_b.shape))
    stock.conv.lora_kernel_a.assign(fused.conv.lora_kernel_a)
    assert_equal_results(fused, stock, random_array(SMALL))


def test_an_export_with_open_sizes_keeps_the_convolution():
    import jax
    from jax import export

    model = model_of(make_block("residual", 4, 2), shape=(2, None, None, 3))
    batch, height, width = export.symbolic_shape("b, h, w")
    shape = jax.ShapeDtypeStruct((batch, height, width, 3), "float32")
    exported = export.export(jax.jit(lambda x: model(x, training=False)))(shape)
    x = random_array((3, 6, 5, 3))
    assert_close(exported.call(x), to_numpy(model(x, training=False)))
