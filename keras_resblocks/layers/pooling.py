"""Layers without weights that reduce the resolution: pooling and subsampling."""

import functools
from typing import Literal

import keras

from keras_resblocks import validation
from keras_resblocks.layers import fused
from keras_resblocks.layers.composite import Composite
from keras_resblocks.layers.steps import symmetric_padding, window_output
from keras_resblocks.types import CompositeArguments, Shape, Size, Tensor, Unpack


@keras.saving.register_keras_serializable(package="keras_resblocks")
class Pooling(Composite):
    """Max or average pooling of the input's rank, over the positions inside the input.

    Padding does not count: no zero is the maximum of negative values, or part of an average.

    Args:
        kind: `"max"` or `"avg"`.
        pool_size: an integer, or one for each spatial axis.
        strides: an integer, or one for each spatial axis.
        padding: `"symmetric"`, `"same"` or `"valid"`, as in `ConvUnit`; or `"ceil"`, where the
            last window may reach past the end (PyTorch's `ceil_mode`).
        pad_value: what to pad with, so that the padding counts; only with symmetric padding.
            keras.applications' ResNetV2 pads a maximum with zeros.
        fused: as in `ResidualBlock`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.
        **options: as in any Keras layer.

    Raises:
        ValueError: for an argument out of its range, at construction; for a window that does not
            fit the input, when the layer is built.

    Input shape:
        `(batch, *spatial, channels)` with one, two or three spatial axes, or channels first.

    Output shape:
        `(batch, *ceil(spatial / strides), channels)` unless `padding` is `"valid"` or `"ceil"`.

    Examples:
        >>> import keras
        >>> from keras_resblocks.layers import Pooling
        >>> Pooling("max", 3, strides=2)(keras.Input((112, 112, 64))).shape
        (None, 56, 56, 64)
    """

    _arguments = ("kind", "pool_size", "strides", "padding", "pad_value", "fused")
    paddings = ("symmetric", "same", "valid", "ceil")

    def __init__(
        self,
        kind: Literal["max", "avg"],
        pool_size: Size = 3,
        strides: Size = 1,
        *,
        padding: Literal["symmetric", "same", "valid", "ceil"] = "symmetric",
        pad_value: float | None = None,
        fused: bool = True,
        **options: "Unpack[CompositeArguments]",
    ) -> None:
        super().__init__(**options)
        self.kind = validation.one_of("kind", kind, ("max", "avg"))
        self.pool_size = validation.positive_ints("pool_size", pool_size)
        self.strides = validation.positive_ints("strides", strides)
        self.padding = validation.one_of("padding", padding, self.paddings)
        if pad_value is not None and self.padding != "symmetric":
            raise ValueError(
                '`pad_value` needs `padding="symmetric"`. '
                f"Received: pad_value={pad_value!r}, padding={padding!r}"
            )
        self.pad_value = pad_value
        self.fused = validation.boolean("fused", fused)

    def compose(self, input_shape: Shape) -> None:
        rank = len(input_shape) - 2
        sizes = validation.per_axis("pool_size", self.pool_size, rank)
        strides = validation.per_axis("strides", self.strides, rank)
        self.compute_output_shape(input_shape)  # raises where the window does not fit
        amounts = {
            "symmetric": tuple(map(symmetric_padding, sizes)),
            "valid": ((0, 0),) * rank,
            "ceil": tuple((0, step - 1) for step in strides),
        }.get(self.padding)
        backend = fused.of_backend(self.fused)
        pool = None
        if backend and self.padding in ("symmetric", "valid") and self.pad_value is None:
            pool = backend.pooling(self.kind, sizes, strides, amounts, self.data_format)
        self.pool = pool or functools.partial(self._stock_pool, sizes, strides, amounts)

    def _stock_pool(self, sizes, strides, amounts, inputs):
        pool = functools.partial(
            keras.ops.max_pool if self.kind == "max" else keras.ops.average_pool,
            pool_size=sizes,
            strides=strides,
            data_format=self.data_format,
        )
        if self.padding == "same":
            if self.kind == "max" or keras.backend.backend() != "torch":
                return pool(inputs, padding="same")
            # There Keras would repeat the border (keras/src/backend/torch/nn.py).
            amounts = same_padding(self.spatial_shape(inputs.shape), sizes, strides)
        if not any(map(any, amounts)):
            return pool(inputs)
        neutral = -float("inf") if self.kind == "max" else 0.0
        value = neutral if self.pad_value is None else self.pad_value
        widths = self.full_shape((0, 0), amounts, (0, 0))

        def padded(x):
            return pool(keras.ops.pad(x, widths, constant_values=value))

        if self.kind == "max" or self.pad_value is not None:
            return padded(inputs)
        # The average of ones is the share of a window that lies inside the input.
        one_map = self.full_shape(slice(1), (slice(None),) * len(amounts), slice(1))
        return padded(inputs) / padded(keras.ops.ones_like(inputs[one_map]))

    def call(self, inputs: Tensor) -> Tensor:
        return self.pool(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        spatial = window_output(
            self.spatial_shape(input_shape), self.pool_size, self.strides, self.padding
        )
        return self.full_shape(input_shape[0], spatial, self.channels(input_shape))


def same_padding(spatial, sizes, strides):
    """What `padding="same"` pads before and after."""
    reach = [(-(-n // s) - 1) * s + k - n for n, k, s in zip(spatial, sizes, strides)]
    return tuple((max(r, 0) // 2, max(r, 0) - max(r, 0) // 2) for r in reach)


@keras.saving.register_keras_serializable(package="keras_resblocks")
class AdaptiveAveragePooling(Composite):
    """Average pooling to a given size, by windows that may overlap, as in PyTorch.

    Window `i` of `n` covers the positions from `floor(i * size / n)` to
    `ceil((i + 1) * size / n)`.

    Args:
        output_size: an integer, or one for each spatial axis.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.
        **options: as in any Keras layer.

    Raises:
        ValueError: for an `output_size` that is not positive, and for an input of open size.

    Input shape:
        `(batch, *spatial, channels)` with known sizes, or channels first.

    Output shape:
        `(batch, *output_size, channels)`, or channels first.

    Examples:
        >>> import keras
        >>> from keras_resblocks.layers import AdaptiveAveragePooling
        >>> AdaptiveAveragePooling(4)(keras.Input((14, 14, 512))).shape
        (None, 4, 4, 512)
    """

    _arguments = ("output_size",)

    def __init__(self, output_size: Size, **options: "Unpack[CompositeArguments]") -> None:
        super().__init__(**options)
        self.output_size = validation.positive_ints("output_size", output_size)

    def compose(self, input_shape: Shape) -> None:
        spatial = self.spatial_shape(input_shape)
        if None in spatial:
            expectation = "have known sizes to be pooled to a given size"
            raise validation.bad_argument("input_shape", expectation, input_shape)
        first_axis = 1 if self.data_format == "channels_last" else 2
        sizes = validation.per_axis("output_size", self.output_size, len(spatial))
        self.windows = {  # of each axis, as slices of the whole array
            axis: [
                (slice(None),) * axis + (slice(i * size // n, -(-(i + 1) * size // n)),)
                for i in range(n)
            ]
            for axis, (size, n) in enumerate(zip(spatial, sizes), start=first_axis)
        }

    def call(self, inputs: Tensor) -> Tensor:
        for axis, windows in self.windows.items():
            means = [keras.ops.mean(inputs[window], axis, keepdims=True) for window in windows]
            inputs = keras.ops.concatenate(means, axis)
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rank = len(input_shape) - 2
        sizes = validation.per_axis("output_size", self.output_size, rank)
        return self.full_shape(input_shape[0], sizes, self.channels(input_shape))


class Subsampling(Composite):
    """Every `strides`-th position, the channels padded with zeros up to `filters`."""

    def __init__(self, filters, strides=1, **options):
        super().__init__(**options)
        self.filters = filters
        self.strides = strides

    def compose(self, input_shape: Shape) -> None:
        rank = len(input_shape) - 2
        self.steps = tuple(
            slice(None, None, step)
            for step in self.full_shape(1, validation.per_axis("strides", self.strides, rank), 1)
        )
        missing = self.filters - self.channels(input_shape)
        self.widths = self.full_shape((0, 0), ((0, 0),) * rank, (0, missing))

    def call(self, inputs):
        return keras.ops.pad(inputs[self.steps], self.widths)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        spatial = window_output(self.spatial_shape(input_shape), 1, self.strides, "valid")
        return self.full_shape(input_shape[0], spatial, self.filters)
