"""The fused operations of PyTorch."""

import platform

import keras
import numpy as np
import pytest
from fused import IMAGES, assert_equal_results, unit_pair
from helpers import (
    DATA_FORMATS,
    assert_close,
    built,
    make_block,
    model_of,
    product,
    random_array,
    run_python,
    shape_of,
    to_numpy,
)

import keras_resblocks as kr
from keras_resblocks.layers import ConvUnit, Pooling

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="about PyTorch")


@pytest.fixture
def only_fused(monkeypatch):
    """Makes it an error to call a Keras convolution, normalization or padding."""

    def refuse(self, *args, **kwargs):
        raise AssertionError(f"{self.name} was called")

    for rank in (1, 2, 3):
        monkeypatch.setattr(getattr(keras.layers, f"Conv{rank}D"), "__call__", refuse)
        monkeypatch.setattr(getattr(keras.layers, f"ZeroPadding{rank}D"), "__call__", refuse)
    monkeypatch.setattr(keras.layers.BatchNormalization, "__call__", refuse)


@pytest.mark.parametrize("data_format", DATA_FORMATS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("preactivation", [False, True])
def test_stock_layers_are_not_called(only_fused, rank, data_format, preactivation):
    shape = shape_of(rank, 4, data_format)
    for strides, kernel_size in ((1, 3), (2, 3), (2, 2), (1, 1)):
        block = kr.ResidualBlock(
            4,
            strides,
            kernel_size=kernel_size,
            preactivation=preactivation,
            data_format=data_format,
        )
        block.build(shape)
        for training in (True, False):
            block(random_array(shape), training=training)


def test_float32_in_a_scope_of_mixed_precision(only_fused):
    unit = built(ConvUnit(4, 3, dtype="mixed_bfloat16"), IMAGES)
    outputs = unit(random_array(IMAGES), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert {weight.dtype for weight in unit.weights} == {"float32"}


def test_input_is_left_as_it_is():
    x = keras.ops.convert_to_tensor(random_array(IMAGES))
    before = to_numpy(x).copy()
    blocks = [
        kr.ResidualBlock(4, shortcut=None, exit_activation="relu"),
        kr.ResidualBlock(4, preactivation=True, normalization=None),
        kr.ResidualBlock(4, zero_init_residual=True),
    ]
    for block in blocks:
        block(x, training=True)
        np.testing.assert_array_equal(to_numpy(x), before)


def test_gradients_lie_as_their_variables_do():
    # Else the optimizer would walk through memory in two orders at once.
    for kernel_size in (1, 3):
        unit = built(ConvUnit(6, kernel_size), IMAGES)
        unit(random_array(IMAGES), training=True).sum().backward()
        kernel = unit.conv.kernel.value
        assert kernel.is_contiguous()
        assert kernel.grad.is_contiguous()


# Channels, kernel size, size of the maps, options: the kernel has more values than its data.
LARGE_KERNELS = [
    (16, 3, 1, {}),
    (16, 3, 1, {"use_bias": True}),
    (16, 2, 1, {"padding": "same", "data_format": "channels_first"}),
    (64, 1, 2, {}),
    (64, 1, 3, {"strides": 2}),
    (64, 3, 2, {"dilation_rate": 2, "data_format": "channels_first"}),
    (64, 3, 3, {"strides": 2, "use_bias": True}),
    (64, 2, 3, {"padding": "valid"}),
]


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("channels", "kernel_size", "size", "options"), LARGE_KERNELS)
def test_kernels_larger_than_the_data(channels, kernel_size, size, options, dtype):
    data_format = options.get("data_format", "channels_last")
    for rank in (1, 2, 3) if channels == 16 else (2,):
        shape = shape_of(rank, channels, data_format, batch=1, spatial=(size,) * rank)
        pair = unit_pair(shape, channels, kernel_size, normalization=None, dtype=dtype, **options)
        tolerance = 1e-5 if dtype == "float32" else 0.03
        assert_equal_results(*pair, random_array(shape), tolerance=tolerance)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_an_empty_batch(kernel_size):
    unit = built(ConvUnit(6, kernel_size), IMAGES)
    assert tuple(unit(np.zeros((0, *IMAGES[1:]), "float32")).shape) == (0, *IMAGES[1:-1], 6)


def test_derivatives_of_every_kind_with_a_large_kernel():
    import torch

    shape = (1, 2, 2, 64)
    fused, stock = unit_pair(shape, 64, 3, normalization=None, activation="elu")
    x, direction = (torch.from_numpy(random_array(shape, seed)) for seed in (0, 1))

    def jvp(function):
        return torch.func.jvp(function, (x,), (direction,))[1]

    def penalty(unit):
        inputs = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((unit(inputs) ** 2).sum(), inputs, create_graph=True)
        return torch.autograd.grad((gradient**2).sum(), unit.conv.kernel.value)[0]

    for transform in (
        jvp,
        lambda f: jvp(torch.func.grad(lambda x: (f(x) ** 2).sum())),
        penalty,
    ):
        expected = transform(stock)
        scale = abs(expected).max()
        assert_close(transform(fused) / scale, expected / scale, 1e-4)
    each = torch.func.vmap(lambda one: fused(one[None])[0])(torch.cat([x, direction]))
    assert_close(each, torch.cat([stock(x), stock(direction)]))


def test_compiled_and_exported():
    import torch

    model = model_of(make_block("bottleneck", 4, 2), shape=(None, *IMAGES[1:]))
    x = keras.ops.convert_to_tensor(random_array(IMAGES))
    expected = model(x)
    assert_close(torch.compile(model, backend="eager")(x), expected)
    program = torch.export.export(model.eval(), (x,))
    assert_close(program.module()(x), expected)
    targets = [str(node.target) for node in program.graph.nodes]
    assert any("conv2d" in target for target in targets)
    assert not any("transpose2d" in target for target in targets)  # a convolution as such


POOLINGS = {
    "kind": ("max", "avg"),
    "pool_size": (3, 2),
    "strides": (1, 2),
    "padding": ("symmetric", "valid", "same", "ceil"),
    "rank": (1, 2, 3),
    "data_format": DATA_FORMATS,
}


def test_poolings_are_those_of_keras():
    for case in product(POOLINGS):
        options = dict(case)
        shape = shape_of(options.pop("rank"), 3, options["data_format"], batch=2)
        layers = [Pooling(**options, fused=fused) for fused in (True, False)]
        for layer in layers:
            layer.build(shape)
        try:
            assert_equal_results(*layers, random_array(shape) - 3.0)
        except Exception as error:
            raise AssertionError(case) from error


def test_poolings_are_pytorchs_own(monkeypatch):
    monkeypatch.setattr(keras.ops, "max_pool", None)
    monkeypatch.setattr(keras.ops, "average_pool", None)
    for kind in ("max", "avg"):
        Pooling(kind, 3, 2)(random_array(IMAGES))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's memory")
def test_memory_of_a_step_is_kept_for_the_next_one():
    printed = run_python(
        """
        import resource
        import torch
        import keras_resblocks.layers.fused.torch

        def page_faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            blocks = [torch.ones(2**18) for _ in range(48)]  # of 1 MiB
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        print(page_faults(), page_faults())
        """
    )
    first, second = map(int, printed.split())
    assert second < first / 10
