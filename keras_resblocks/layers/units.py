"""The unit that everything is made of: convolution, normalization, activation."""

import functools
from collections.abc import Sequence
from typing import Any

import keras

from keras_resblocks import validation
from keras_resblocks.layers import steps, templates
from keras_resblocks.layers.composite import KernelComposite, fresh
from keras_resblocks.layers.initializers import NumpyHeNormal
from keras_resblocks.layers.pooling import AdaptiveAveragePooling, Pooling, Subsampling
from keras_resblocks.layers.steps import symmetric_padding, window_output
from keras_resblocks.layers.wiring import Chain, Concatenation
from keras_resblocks.types import (
    Config,
    Constraint,
    Initializer,
    Padding,
    Pluggable,
    Regularizer,
    Shape,
    Size,
    Tensor,
    UnitArguments,
    Unpack,
)


class ConvComposite(KernelComposite):
    """A `Composite` with the options of its convolutions, as `ResidualBlock` says what they are."""

    _arguments = (
        *("activation", "normalization", "padding", "use_bias"),
        *("bias_initializer", "bias_regularizer", "bias_constraint", "folded", "fused"),
    )
    paddings = ("symmetric", "same")

    def __init__(
        self,
        *,
        activation: Pluggable = "relu",
        normalization: Pluggable = "batch",
        padding: Padding = "symmetric",
        use_bias: bool | None = None,
        kernel_initializer: Initializer = NumpyHeNormal,
        bias_initializer: Initializer = "zeros",
        bias_regularizer: Regularizer = None,
        bias_constraint: Constraint = None,
        folded: bool = False,
        fused: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(kernel_initializer=kernel_initializer, **options)
        self.activation = templates.activation.get(activation)
        self.normalization = templates.normalization.get(normalization)
        self.padding = validation.one_of("padding", padding, self.paddings)
        self.use_bias = use_bias if use_bias is None else validation.boolean("use_bias", use_bias)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.folded = validation.boolean("folded", folded)
        self.fused = validation.boolean("fused", fused)

    def unit_options(self) -> Config:
        """The options for a unit, or for a layer that this one is made of."""
        names = (*ConvComposite._arguments, "data_format")
        return {**self.kernel_options(), **{name: fresh(getattr(self, name)) for name in names}}

    def add_steps(
        self, branch: Sequence[Any], site: templates.Site, prefix: str = "", last: str | None = None
    ) -> Chain:
        """Makes the layers of a branch given as steps, named as by `steps.names`; or `last`."""
        names = list(steps.names(branch, prefix))
        if last and names:
            names[-1] = last
        parts = [self._add_step(step, site, name) for step, name in zip(branch, names)]
        return Chain(parts, fused=self.fused)

    def _add_step(self, step, site, name):
        if isinstance(step, templates.Template):
            return self.add_copy(step, name, site)
        if not isinstance(step, steps.Split):
            return self.add(make_layer(step, name, self.unit_options()))
        branches = [
            self.add_steps(branch, site, f"{name}branch{i}_")
            for i, branch in enumerate(step.branches, start=1)
        ]
        return Concatenation(branches, axis=self.channel_axis, name=f"{name}concat")


def normalization_and_bias(normalization, use_bias, folded, site):
    """What normalizes the output of a convolution at a site, and whether that has a bias."""
    if folded and normalization is not None and normalization.is_batch_normalization(site):
        return None, True
    return normalization, normalization is None if use_bias is None else use_bias


@keras.saving.register_keras_serializable(package="keras_resblocks")
class ConvUnit(ConvComposite):
    """A convolution of the input's rank, then normalization, then activation.

    `output = activation(normalization(convolution(input)))`

    Args:
        filters: number of output channels.
        kernel_size: an integer, or one for each spatial axis.
        strides: an integer, or one for each spatial axis.
        groups: number of groups of channels convolved separately.
        dilation_rate: an integer, or one for each spatial axis.
        zero_init: start with an output of zero: by a zero gamma where a normalization with one
            follows, else by a zero kernel and bias.
        padding: as in `ResidualBlock`; also `"valid"`, no padding.
        **options: as in `ResidualBlock`, as far as they are of a convolution.

    Raises:
        ValueError: as `ResidualBlock`.

    Input shape:
        `(batch, *spatial, channels)` with one, two or three spatial axes, or channels first.

    Output shape:
        `(batch, *ceil(spatial / strides), filters)` unless `padding="valid"`.

    Examples:
        >>> import keras
        >>> from keras_resblocks.layers import ConvUnit
        >>> ConvUnit(16, 3, strides=2, normalization="group")(keras.Input((32, 32, 3))).shape
        (None, 16, 16, 16)
    """

    _arguments = ("filters", "kernel_size", "strides", "groups", "dilation_rate", "zero_init")
    paddings = ("symmetric", "same", "valid")

    def __init__(
        self,
        filters: int,
        kernel_size: Size = 1,
        strides: Size = 1,
        *,
        groups: int = 1,
        dilation_rate: Size = 1,
        zero_init: bool = False,
        **options: "Unpack[UnitArguments]",
    ) -> None:
        super().__init__(**options)
        self.filters = validation.positive_int("filters", filters)
        self.kernel_size = validation.positive_ints("kernel_size", kernel_size)
        self.strides = validation.positive_ints("strides", strides)
        self.groups = validation.divisor("groups", groups, "filters", self.filters)
        self.dilation_rate = validation.positive_ints("dilation_rate", dilation_rate)
        validation.strides_or_dilation(self.strides, self.dilation_rate)
        self.zero_init = validation.boolean("zero_init", zero_init)

    def compose(self, input_shape: Shape) -> None:
        validation.divisor("groups", self.groups, "input channels", self.channels(input_shape))
        self.compute_output_shape(input_shape)  # raises where the window does not fit
        rank = len(input_shape) - 2
        site = self.site(self.full_shape(None, (None,) * rank, self.filters))
        normalization, use_bias = normalization_and_bias(
            self.normalization, self.use_bias, self.folded, site
        )
        zero_gamma = (
            self.zero_init and normalization is not None and normalization.can_start_at_zero(site)
        )
        gamma = {"gamma_initializer": "zeros"} if zero_gamma else {}
        pad = self._add_padding(rank)
        zero_kernel = self.zero_init and not zero_gamma
        self.chain = Chain(
            [
                pad,
                self._add_convolution(rank, use_bias, pad is not None, zero_kernel),
                self.add_copy(normalization, "norm", site, **gamma),
                self.add_copy(self.activation, "act", site),
                self.cast_back(normalization, self.activation),
            ],
            fused=self.fused,
        )
        self.chain.build(input_shape)

    def _add_padding(self, rank):
        """The layer that pads; None where the convolution does it by itself."""
        sizes = validation.per_axis("kernel_size", self.kernel_size, rank)
        rates = validation.per_axis("dilation_rate", self.dilation_rate, rank)
        if max(rates) > 1:  # Keras would centre a window of even size
            is_needed = any(size % 2 == 0 for size in sizes)
        else:
            is_needed = validation.exceeds_one(self.strides) and max(sizes) > 1
        if self.padding != "symmetric" or not is_needed:
            return None
        amounts = tuple(
            tuple(rate * amount for amount in symmetric_padding(size))
            for size, rate in zip(sizes, rates)
        )
        return self.add(
            rank_layer("ZeroPadding", rank)(
                amounts[0] if rank == 1 else amounts,
                data_format=self.data_format,
                dtype=self.given_dtype,
                name="pad",
            )
        )

    def _add_convolution(self, rank, use_bias, is_padded, zero_kernel):
        options = self.unit_options()
        for name in ("activation", "normalization", "padding", "use_bias", "folded", "fused"):
            del options[name]
        if zero_kernel:
            options.update(kernel_initializer="zeros", bias_initializer="zeros")
        is_one = not validation.exceeds_one(self.kernel_size)
        pads_nothing = is_padded or is_one or self.padding == "valid"
        return self.add(
            _convolution_class(rank, self.data_format)(
                self.filters,
                validation.per_axis("kernel_size", self.kernel_size, rank),
                strides=validation.per_axis("strides", self.strides, rank),
                padding="valid" if pads_nothing else "same",
                dilation_rate=validation.per_axis("dilation_rate", self.dilation_rate, rank),
                groups=self.groups,
                use_bias=use_bias,
                name="conv",
                **options,
            )
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self.chain(inputs, training)

    def inlined(self) -> Chain | None:
        """The chain to compute instead of a slow call of this layer; None if more is in it."""
        is_a_chain = type(self) is ConvUnit and self.activity_regularizer is None
        return self.chain if is_a_chain else None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        spatial = window_output(
            self.spatial_shape(input_shape),
            self.kernel_size,
            self.strides,
            self.padding,
            self.dilation_rate,
        )
        return self.full_shape(input_shape[0], spatial, self.filters)


class _BiasFirst:
    """Adds the bias to the convolution, not the convolution to the bias.

    In channels-first maps as wide as there are filters, Keras 3.15 on TensorFlow would take a bias
    that comes second for one of the last axis.
    """

    def call(self, inputs):
        outputs = self.convolution_op(inputs, self.kernel)
        if self.bias is None:
            return outputs
        return keras.ops.reshape(self.bias, (1, -1) + (1,) * self.rank) + outputs


@functools.cache
def _convolution_class(rank, data_format):
    stock = rank_layer("Conv", rank)
    if data_format == "channels_last" or keras.backend.backend() != "tensorflow":
        return stock
    return type(stock.__name__, (_BiasFirst, stock), {})


def rank_layer(name, rank):
    """The Keras class of that name and rank: `rank_layer("Conv", 2)` is `Conv2D`."""
    return getattr(keras.layers, f"{name}{rank}D")


_LAYERS = {
    steps.Conv: ConvUnit,
    steps.Pool: Pooling,
    steps.AdaptivePool: AdaptiveAveragePooling,
    steps.Subsample: Subsampling,
}


def make_layer(step, name, options):
    """The layer of a step other than a `Split`; `options` as of `ConvComposite.unit_options`."""
    layer_class = _LAYERS[type(step)]
    known = {*layer_class.__signature__.parameters, "dtype"}
    followed = {key: value for key, value in options.items() if key in known}
    given = {key: value for key, value in vars(step).items() if value != steps.INHERIT}
    return layer_class(name=name, **{**followed, **given})
