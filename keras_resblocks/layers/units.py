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
    """A `Composite` with the options of its convolutions, and units made with them.

    Args:
        activation: None, a name, a function, a config dict or a Keras layer.
        normalization: the same; `"batch"`, `"layer"`, `"group"` and `"instance"` are the names.
        padding: `"symmetric"` pads both sides alike, as the papers and PyTorch do, or `"same"`
            as Keras and TensorFlow do. They differ only where strides are more than 1.
        use_bias: whether the convolutions have a bias. None: where no normalization follows.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: of every convolution. Kernels begin with values
            of `NumpyHeNormal`.
        folded: whether batch normalizations that follow a convolution are part of it, as
            `fold_batch_norm` makes them: a bias replaces them.
        fused: whether convolutions, batch normalizations, poolings and ReLUs are computed by the
            backend's own fused operations, to the same results but for rounding. Faster on
            PyTorch, on TensorFlow (normalizations) and on JAX on a CPU (pointwise convolutions
            and those of small maps). False: by a call of each Keras layer.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.
    """

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
        return {
            "activation": self.activation,
            "normalization": self.normalization,
            "padding": self.padding,
            "use_bias": self.use_bias,
            **self.kernel_options(),
            "bias_initializer": fresh(self.bias_initializer),
            "bias_regularizer": self.bias_regularizer,
            "bias_constraint": self.bias_constraint,
            "folded": self.folded,
            "fused": self.fused,
            "data_format": self.data_format,
            "dtype": self.given_dtype,
        }

    def add_steps(
        self, branch: Sequence[Any], site: templates.Site, prefix: str = "", last: str | None = None
    ) -> Chain:
        """Makes and tracks the layers of a branch given as steps; returns what computes it.

        They are called `conv1`, `pool1`, ... behind `prefix`; the last one `last`, if given.
        """
        names = list(steps.names(branch, prefix))
        if last and names:
            names[-1] = last
        parts = [self._add_step(step, site, name) for step, name in zip(branch, names)]
        return Chain(parts, fused=self.fused)

    def _add_step(self, step, site, name):
        if isinstance(step, steps.Split):
            return self._add_split(step, site, name)
        if isinstance(step, templates.Template):
            return self.add_copy(step, name, site)
        return self.add(make_layer(step, name, self.unit_options()))

    def _add_split(self, split, site, name):
        return Concatenation(
            [
                self.add_steps(branch, site, f"{name}branch{i}_")
                for i, branch in enumerate(split.branches, start=1)
            ],
            axis=self.channel_axis,
            name=f"{name}concat",
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "activation": templates.serialize(self.activation),
            "normalization": templates.serialize(self.normalization),
            "padding": self.padding,
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "folded": self.folded,
            "fused": self.fused,
        }


def normalization_and_bias(normalization, use_bias, folded, site):
    """What normalizes the output of a convolution, and whether that has a bias.

    Args:
        normalization, use_bias, folded: as of `ConvComposite`.
        site: of the normalization.
    """
    if folded and normalization is not None and normalization.is_batch_normalization(site):
        return None, True
    return normalization, normalization is None if use_bias is None else use_bias


def make_layer(step, name, options):
    """The layer called `name` that computes a step other than a `Split`.

    Args:
        options: dict as of `ConvComposite.unit_options`.
    """
    placed = {key: options[key] for key in ("data_format", "dtype") if key in options}
    if isinstance(step, steps.Pool):
        padding = options["padding"] if step.padding == steps.INHERIT else step.padding
        return Pooling(
            step.kind,
            step.pool_size,
            step.strides,
            padding=padding,
            pad_value=step.pad_value,
            fused=options["fused"],
            name=name,
            **placed,
        )
    if isinstance(step, steps.AdaptivePool):
        return AdaptiveAveragePooling(step.output_size, name=name, **placed)
    if isinstance(step, steps.Subsample):
        return Subsampling(step.filters, step.strides, name=name, **placed)
    return ConvUnit(
        step.filters,
        step.kernel_size,
        step.strides,
        groups=step.groups,
        dilation_rate=step.dilation_rate,
        zero_init=step.zero_init,
        name=name,
        **{**options, **step.overrides()},
    )


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
        self.chain = Chain(
            [
                self._add_padding(rank),
                self._add_convolution(rank, use_bias, self.zero_init and not zero_gamma),
                self.add_copy(normalization, "norm", site, **gamma),
                self.add_copy(self.activation, "act", site),
                self.cast_back(normalization, self.activation),
            ],
            fused=self.fused,
        )
        self.chain.build(input_shape)

    def _add_padding(self, rank):
        if self.padding != "symmetric" or not self._pads_differently():
            return None
        sizes = validation.per_axis("kernel_size", self.kernel_size, rank)
        rates = validation.per_axis("dilation_rate", self.dilation_rate, rank)
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

    def _pads_differently(self):
        # At stride 1 symmetric padding is what "same" does, and needs no layer of its own, but
        # for a dilated window of even size, which "same" would centre.
        sizes = self.kernel_size if isinstance(self.kernel_size, tuple) else (self.kernel_size,)
        if validation.exceeds_one(self.dilation_rate):
            return any(size % 2 == 0 for size in sizes)
        return validation.exceeds_one(self.strides) and validation.exceeds_one(self.kernel_size)

    def _add_convolution(self, rank, use_bias, zero_kernel):
        options = self.unit_options()
        for name in ("activation", "normalization", "padding", "use_bias", "folded", "fused"):
            del options[name]
        if zero_kernel:
            options.update(kernel_initializer="zeros", bias_initializer="zeros")
        same = self.padding == "same" or (
            self.padding == "symmetric" and not self._pads_differently()
        )
        return self.add(
            _convolution_class(rank, self.data_format)(
                self.filters,
                validation.per_axis("kernel_size", self.kernel_size, rank),
                strides=validation.per_axis("strides", self.strides, rank),
                padding="same" if same and validation.exceeds_one(self.kernel_size) else "valid",
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
        """The chain to be computed in place of a call of this layer; None if there is more to it.

        Of a small layer, the call itself takes as long as what it computes.
        """
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

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "groups": self.groups,
            "dilation_rate": self.dilation_rate,
            "zero_init": self.zero_init,
        }


class _BiasFirst:
    """A convolution that is right for channels-first maps as wide as there are filters.

    There Keras 3.15 on TensorFlow would take the bias that comes second for one of the last
    axis.
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
