"""The residual block, and its two published forms."""

import dataclasses
import inspect
import operator

import keras

from keras_resblocks import validation
from keras_resblocks.layers import attention as attentions
from keras_resblocks.layers import shortcuts, steps, templates
from keras_resblocks.layers.rematerialization import rematerialized
from keras_resblocks.layers.steps import branch_output
from keras_resblocks.layers.stochastic_depth import StochasticDepth
from keras_resblocks.layers.units import ConvComposite
from keras_resblocks.layers.wiring import Chain, Scale
from keras_resblocks.types import (
    BlockArguments,
    Config,
    Pluggable,
    Shape,
    Size,
    Tensor,
    UnitArguments,
    Unpack,
)

exit_activations = templates.Slot(
    "exit_activation", {**templates.activation.names, templates.INHERIT: templates.INHERIT}
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a block consists of, as data, for a given number of input channels."""

    entry: bool  # whether normalization and activation come first
    branch: tuple
    shortcut: tuple | None  # None: there is no sum
    exit: templates.Template | None  # the activation that follows the sum


def plan_block(
    branch,
    channels,
    *,
    strides,
    shortcut,
    preactivation,
    activation,
    exit_activation=templates.INHERIT,
    dilation_rate=1,
    atrous=False,
    zero_init_residual=False,
):
    """The `Plan` of a block; its arguments are the block's.

    Post-activation (v1) and pre-activation (v2) are one sequence, shifted by a phase:

    | | entry | branch | last convolution | exit |
    |---|---|---|---|---|
    | post-activation | | Conv Norm Act ... | Conv Norm | Act |
    | pre-activation | Norm Act | Conv Norm Act ... | Conv | |
    """
    filters = steps.output_channels(branch, channels)
    is_sum = shortcut is not None
    if is_sum or preactivation:
        branch = steps.with_linear_end(branch, preactivation, zero_init_residual)
    bypass = None
    if is_sum:
        bypass = _shortcut_steps(shortcut, channels, filters, strides, preactivation)
        bypass = steps.with_dilation(bypass, dilation_rate, atrous) if atrous else bypass
    if exit_activation == templates.INHERIT:
        exit_activation = activation if is_sum and not preactivation else None
    return Plan(
        entry=preactivation,
        branch=steps.with_dilation(branch, dilation_rate, atrous),
        shortcut=bypass,
        exit=exit_activation,
    )


def _shortcut_steps(policy, channels, filters, strides, preactivation):
    def fitted(step):
        if not isinstance(step, steps.STEPS):
            return shortcuts.layer_template(step)
        if preactivation and getattr(step, "normalization", None) == templates.INHERIT:
            return dataclasses.replace(step, normalization=None)
        return step

    return tuple(map(fitted, policy.steps(channels, filters, strides)))


class Block(ConvComposite):
    """A branch, and a shortcut past it: `output = exit(branch(entry(input)) + shortcut(input))`.

    A subclass says what its branch is (`branch_steps`); see `plan_block` for the rest. The options
    are those of `ResidualBlock`.
    """

    _arguments = (
        *("strides", "preactivation", "drop_path_rate", "groups", "dilation_rate"),
        *("atrous", "exit_activation", "zero_init_residual", "remat"),
    )
    residual_scale = 1.0

    def __init__(
        self,
        strides: Size = 1,
        *,
        shortcut: shortcuts.Shortcut | Pluggable = "projection",
        preactivation: bool = False,
        attention: Pluggable = None,
        drop_path_rate: float = 0.0,
        groups: int = 1,
        dilation_rate: Size = 1,
        atrous: bool = False,
        exit_activation: Pluggable = templates.INHERIT,
        zero_init_residual: bool = False,
        remat: bool = False,
        **options: "Unpack[UnitArguments]",
    ) -> None:
        super().__init__(**options)
        self.strides = validation.positive_ints("strides", strides)
        # `block.shortcut` and `block.attention` are the layers that these two make.
        self.shortcut_policy = shortcuts.get(shortcut)
        self.attention_template = attentions.attention.get(attention)
        self.preactivation = validation.boolean("preactivation", preactivation)
        self.drop_path_rate = validation.rate("drop_path_rate", drop_path_rate)
        self.groups = validation.positive_int("groups", groups)
        self.dilation_rate = validation.positive_ints("dilation_rate", dilation_rate)
        self.atrous = validation.boolean("atrous", atrous)
        if not self.atrous:
            validation.strides_or_dilation(self.strides, self.dilation_rate)
        self.exit_activation = exit_activations.get(exit_activation)
        self.zero_init_residual = validation.boolean("zero_init_residual", zero_init_residual)
        self.remat = validation.boolean("remat", remat)
        if self.shortcut_policy is None and (self.zero_init_residual or self.drop_path_rate):
            raise ValueError(
                "`zero_init_residual` and `drop_path_rate` need a shortcut to fall back on. "
                f"Received: shortcut=None, zero_init_residual={zero_init_residual!r}, "
                f"drop_path_rate={drop_path_rate!r}"
            )

    def branch(self) -> tuple:
        """The residual branch as steps, before it is fitted to the shortcut."""
        names = inspect.signature(self.branch_steps).parameters
        return self.branch_steps(**{name: getattr(self, name) for name in names})

    def plan(self, channels: int) -> Plan:
        """The `Plan` for an input of that many channels."""
        return plan_block(
            self.branch(),
            channels,
            strides=self.strides,
            shortcut=self.shortcut_policy,
            preactivation=self.preactivation,
            activation=self.activation,
            exit_activation=self.exit_activation,
            dilation_rate=self.dilation_rate,
            atrous=self.atrous,
            zero_init_residual=self.zero_init_residual,
        )

    def compose(self, input_shape: Shape) -> None:
        plan = self.plan(self.channels(input_shape))
        output_shape = self.compute_output_shape(input_shape)
        before, after = self.site(input_shape), self.site(output_shape, self.kernel_options())
        entry = {"entry_norm": self.normalization, "entry_act": self.activation}
        self.entry = Chain(
            [self.add_copy(entry[name], name, before) for name in entry if plan.entry],
            fused=self.fused,
        )
        self.residual = Chain(
            [
                self.add_steps(plan.branch, before),
                self.add_copy(self.attention_template, "attention", after),
                self.cast_back(self.attention_template),
                Scale(self.residual_scale) if self.residual_scale != 1.0 else None,
                self._add_drop_path(),
            ]
        )
        self.bypass = self.add_steps(plan.shortcut or (), before, "shortcut_", last="shortcut")
        is_sum = plan.shortcut is not None
        self.exit = Chain(
            [self.add_copy(plan.exit, "exit_act", after), self.cast_back(plan.exit)],
            fused=self.fused,
            owns_input=is_sum,
        )
        self._build_chains(input_shape, output_shape)

        self.bypass_source = _second if self.bypass.has_weights() else _first
        self.merge = operator.add if is_sum else _first
        self.body = rematerialized(self, self._body) if self.remat else self._body

    def _build_chains(self, input_shape, output_shape):
        self.entry.build(input_shape)
        self.residual.build(input_shape)
        bypass_shape = self.bypass.build(input_shape)
        if self.shortcut_policy is not None and bypass_shape != output_shape:
            raise ValueError(
                f"`shortcut` must lead to the shape of the branch's output, {output_shape}. "
                f"Received: shortcut={self.shortcut_policy!r}, which leads to {bypass_shape}"
            )
        self.exit.build(output_shape)

    def _add_drop_path(self):
        rate, options = self.drop_path_rate, {"dtype": self.given_dtype, "name": "drop_path"}
        return self.add(StochasticDepth(rate, **options)) if rate else None

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self.body(inputs, training=training)

    def _body(self, inputs, training):
        activated = self.entry(inputs, training)
        residual = self.residual(activated, training)
        shortcut = self.bypass(self.bypass_source(inputs, activated), training)
        return self.exit(self.merge(residual, shortcut), training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = self.channels(input_shape)
        branch = steps.with_dilation(self.branch(), self.dilation_rate, self.atrous)
        spatial = branch_output(branch, self.spatial_shape(input_shape), self.padding)
        filters = steps.output_channels(branch, channels)
        return self.full_shape(input_shape[0], spatial, filters)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "shortcut": shortcuts.serialize(self.shortcut_policy),
            "attention": templates.serialize(self.attention_template),
        }


def _first(first, second):
    return first


def _second(first, second):
    return second


@keras.saving.register_keras_serializable(package="keras_resblocks")
class ResidualBlock(Block):
    """Two convolutions and a shortcut.

    `output = activation(norm(conv2(activation(norm(conv1(input))))) + shortcut(input))`, or
    with `preactivation=True`, `output = conv2(act(norm(conv1(act(norm(input)))))) + shortcut`.

    Args:
        filters: number of output channels.
        strides: of the first convolution; an integer, or one for each spatial axis.
        kernel_size: of both convolutions; an integer, or one for each spatial axis.
        shortcut: `"projection"` (where shapes differ), `"projection_always"`, `"identity"`,
            `"zero_pad"`, `"avg_pool"`, None for none, a `Shortcut`, a Keras layer, a function
            or a config dict.
        preactivation: whether normalization and activation come before the convolutions.
        activation: None, a name, a registered function, a Keras layer or a config dict. A layer
            is a template: each place gets a copy with weights of its own.
        normalization: likewise; `"batch"`, `"layer"`, `"group"` and `"instance"` are the names.
        attention: likewise, at the end of the branch; `"squeeze_excite"` and
            `"efficient_channel"` are the names.
        exit_activation: of the sum; likewise, or `"inherit"`: `activation` after a
            post-activation block with a shortcut, none elsewhere.
        drop_path_rate: probability in [0, 1) to drop a sample's branch in training.
        groups: number of groups of channels that are convolved separately.
        dilation_rate: of both convolutions; an integer, or one for each spatial axis.
        atrous: whether to dilate instead of striding, which keeps the input's resolution. With
            symmetric padding, every `strides`-th position has the strided block's value
            (Chen et al. 2017, "Rethinking Atrous Convolution", section 3.1).
        padding: `"symmetric"`, as in the paper and in PyTorch, or `"same"`, as in TensorFlow;
            they differ only where strides are more than 1.
        use_bias: whether the convolutions have a bias. None: where no normalization follows.
        zero_init_residual: whether the branch starts as zero, by a zero gamma or kernel at its
            end: the block starts as its shortcut and what its exit makes of it.
        remat: whether training computes the block again in the backward pass instead of keeping
            what lies between its layers: less memory, more time, the same results.
        kernel_initializer: of every convolution, the shortcut's too.
        kernel_regularizer: of every kernel.
        kernel_constraint: of every kernel.
        bias_initializer: of every bias.
        bias_regularizer: of every bias.
        bias_constraint: of every bias.
        folded: whether biases replace the batch normalizations that follow a convolution, as
            after `fold_batch_norm`.
        fused: whether to use the backend's own fused operations, with equal results but for
            rounding: faster on PyTorch, on TensorFlow (normalizations) and on JAX on a CPU
            (pointwise convolutions and small maps). False: each Keras layer is called.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.
        **options: `name`, `dtype`, `trainable`, ..., as in any Keras layer.

    Raises:
        ValueError: for an argument out of its range, at construction; for one that does not fit
            the input, when the block is built.

    Input shape:
        `(batch, *spatial, channels)` with one, two or three spatial axes, or channels first.

    Output shape:
        `(batch, *ceil(spatial / strides), filters)`, or channels first.

    Examples:
        >>> import keras
        >>> from keras_resblocks import ResidualBlock
        >>> block = ResidualBlock(64, strides=2, activation="elu")
        >>> block(keras.Input((32, 32, 3))).shape
        (None, 16, 16, 64)

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", section 3; 2016b,
        "Identity Mappings in Deep Residual Networks", section 4, for `preactivation`.
    """

    _arguments = ("filters", "kernel_size")

    def __init__(
        self,
        filters: int,
        strides: Size = 1,
        *,
        kernel_size: Size = 3,
        **options: "Unpack[BlockArguments]",
    ) -> None:
        super().__init__(strides, **options)
        self.filters = validation.positive_int("filters", filters)
        self.kernel_size = validation.positive_ints("kernel_size", kernel_size)
        validation.divisor("groups", self.groups, "filters", self.filters)

    @staticmethod
    def branch_steps(
        filters: int, strides: Size = 1, *, kernel_size: Size = 3, groups: int = 1
    ) -> tuple:
        """The branch as data; the arguments are the block's."""
        spatial = steps.Conv(filters, kernel_size, groups=groups)
        return (dataclasses.replace(spatial, strides=strides), spatial)


@keras.saving.register_keras_serializable(package="keras_resblocks")
class BottleneckBlock(Block):
    """A 1x1, a spatial and a 1x1 convolution, and a shortcut.

    `output = activation(norm(conv3(a(norm(conv2(a(norm(conv1(input)))))))) + shortcut(input))`

    Args:
        filters: the inner width; the block outputs `expansion * filters` channels.
        strides: of the spatial convolution; an integer, or one for each spatial axis.
        kernel_size: of the spatial convolution, as are `groups` and `dilation_rate`.
        expansion: how many times wider the output is than the inside.
        stride_in_1x1: whether the first 1x1 convolution is strided instead, as in the paper.
        **options: as in `ResidualBlock`.

    Raises:
        ValueError: as `ResidualBlock`.

    Input shape:
        `(batch, *spatial, channels)` with one, two or three spatial axes, or channels first.

    Output shape:
        `(batch, *ceil(spatial / strides), expansion * filters)`, or channels first.

    Examples:
        >>> import keras
        >>> from keras_resblocks import BottleneckBlock
        >>> BottleneckBlock(64)(keras.Input((56, 56, 64))).shape
        (None, 56, 56, 256)

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", section 4.1.
    """

    _arguments = ("filters", "kernel_size", "expansion", "stride_in_1x1")

    def __init__(
        self,
        filters: int,
        strides: Size = 1,
        *,
        kernel_size: Size = 3,
        expansion: int = 4,
        stride_in_1x1: bool = False,
        **options: "Unpack[BlockArguments]",
    ) -> None:
        super().__init__(strides, **options)
        self.filters = validation.positive_int("filters", filters)
        self.kernel_size = validation.positive_ints("kernel_size", kernel_size)
        self.expansion = validation.positive_int("expansion", expansion)
        self.stride_in_1x1 = validation.boolean("stride_in_1x1", stride_in_1x1)
        validation.divisor("groups", self.groups, "filters", self.filters)

    @staticmethod
    def branch_steps(
        filters: int,
        strides: Size = 1,
        *,
        kernel_size: Size = 3,
        groups: int = 1,
        expansion: int = 4,
        stride_in_1x1: bool = False,
    ) -> tuple:
        """The branch as data; the arguments are the block's."""
        return (
            steps.Conv(filters, 1, strides if stride_in_1x1 else 1),
            steps.Conv(filters, kernel_size, 1 if stride_in_1x1 else strides, groups=groups),
            steps.Conv(expansion * filters, 1),
        )
