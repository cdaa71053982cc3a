"""Channel attention: gates computed from the mean of each channel."""

import math

import keras

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.layers.composite import KernelComposite
from keras_resblocks.layers.wiring import Chain
from keras_resblocks.types import (
    GateArguments,
    KernelArguments,
    Pluggable,
    Shape,
    Tensor,
    Unpack,
)


class _ChannelGate(KernelComposite):
    """`output = input * gate(mean of the input over its spatial axes)`."""

    _arguments = ("gate_activation",)

    def __init__(
        self, *, gate_activation: Pluggable = "sigmoid", **options: "Unpack[KernelArguments]"
    ) -> None:
        super().__init__(**options)
        self.gate_activation = templates.activation.get(gate_activation)

    def gate(self, means: Tensor) -> Tensor:
        """The gates in (0, 1) from the means, both of shape `(batch, channels)`."""
        raise NotImplementedError

    def call(self, inputs: Tensor) -> Tensor:
        first = 1 if self.data_format == "channels_last" else 2
        spatial_axes = tuple(range(first, first + len(inputs.shape) - 2))
        gates = self.gate(keras.ops.mean(inputs, axis=spatial_axes))
        return inputs * keras.ops.expand_dims(gates, axis=spatial_axes)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.saving.register_keras_serializable(package="keras_resblocks")
class SqueezeExcite(_ChannelGate):
    """Scales each channel by a gate that sees all channels' means.

    `output = input * sigmoid(W2 relu(W1 mean(input) + b1) + b2)`

    Args:
        reduction: the hidden layer has `channels // reduction` units, at least one.
        activation: of the hidden layer; anything a block's `activation` may be.
        gate_activation: of the gate; likewise.
        kernel_initializer: of both dense layers. By the name `"squeeze_excite"`, a block makes
            this layer with its own kernel options.
        kernel_regularizer: of both dense layers.
        kernel_constraint: of both dense layers.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.
        **options: as in any Keras layer.

    Raises:
        ValueError: for an argument out of its range.

    Input shape:
        `(batch, *spatial, channels)`, or channels first.

    Output shape:
        That of the input.

    Examples:
        >>> from keras_resblocks import ResidualBlock, SqueezeExcite
        >>> block = ResidualBlock(64, attention=SqueezeExcite(reduction=8))

    References:
        Hu et al. 2018, "Squeeze-and-Excitation Networks", section 3.
    """

    _arguments = ("reduction", "activation")

    def __init__(
        self,
        reduction: int = 16,
        *,
        activation: Pluggable = "relu",
        **options: "Unpack[GateArguments]",
    ) -> None:
        super().__init__(**options)
        self.reduction = validation.positive_int("reduction", reduction)
        self.activation = templates.activation.get(activation)

    def compose(self, input_shape: Shape) -> None:
        batch, channels = input_shape[0], self.channels(input_shape)
        hidden = max(1, channels // self.reduction)
        site = self.site(input_shape)
        self.excitation = Chain(
            [
                self.add(keras.layers.Dense(hidden, name="reduce", **self.kernel_options())),
                self.add_copy(self.activation, "reduce_act", site),
                self.add(keras.layers.Dense(channels, name="expand", **self.kernel_options())),
                self.add_copy(self.gate_activation, "expand_act", site),
            ]
        )
        self.excitation.build((batch, channels))

    def gate(self, means: Tensor) -> Tensor:
        return self.excitation(means)


@keras.saving.register_keras_serializable(package="keras_resblocks")
class EfficientChannelAttention(_ChannelGate):
    """Scales each channel by a gate that sees the means of its neighbouring channels.

    `output = input * sigmoid(conv1d(mean(input)))`. One kernel of `kernel_size` weights slides
    along the channels.

    Args:
        kernel_size: odd number of neighbouring channels; by default `(log2(channels) + 1) / 2`
            cut to an integer and made odd (equation 12, as in the authors' code).
        gate_activation: of the gate; anything a block's `activation` may be.
        kernel_initializer: of the kernel. By the name `"efficient_channel"`, a block makes this
            layer with its own kernel options.
        kernel_regularizer: of the kernel.
        kernel_constraint: of the kernel.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.
        **options: as in any Keras layer.

    Raises:
        ValueError: for an even `kernel_size`, or another argument out of its range.

    Input shape:
        `(batch, *spatial, channels)`, or channels first.

    Output shape:
        That of the input.

    Examples:
        >>> from keras_resblocks import BottleneckBlock, EfficientChannelAttention
        >>> block = BottleneckBlock(64, attention="efficient_channel")
        >>> block = BottleneckBlock(64, attention=EfficientChannelAttention(kernel_size=5))

    References:
        Wang et al. 2020, "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural
        Networks", section 3.
    """

    _arguments = ("kernel_size",)

    def __init__(self, kernel_size: int | None = None, **options: "Unpack[GateArguments]") -> None:
        super().__init__(**options)
        if kernel_size is not None and validation.positive_int("kernel_size", kernel_size) % 2 == 0:
            raise validation.bad_argument("kernel_size", "be odd", kernel_size)
        self.kernel_size = kernel_size

    def compose(self, input_shape: Shape) -> None:
        batch, channels = input_shape[0], self.channels(input_shape)
        self.add(
            keras.layers.Conv1D(
                1,
                self.kernel_size or adaptive_kernel_size(channels),
                padding="same",
                use_bias=False,
                data_format="channels_last",  # the channels are the axis to slide along
                name="conv",
                **self.kernel_options(),
            )
        ).build((batch, channels, 1))
        self.excitation = Chain(
            [self.add_copy(self.gate_activation, "gate_act", self.site(input_shape))]
        )
        self.excitation.build((batch, channels))

    def gate(self, means: Tensor) -> Tensor:
        logits = self.conv(keras.ops.expand_dims(means, axis=-1))
        return self.excitation(keras.ops.squeeze(logits, axis=-1))


def adaptive_kernel_size(channels):
    """Wang et al. 2020, equation 12: the neighbourhood grows with the log of the channels."""
    return int((math.log2(channels) + 1) / 2) | 1  # an even size is made odd


def _recipe(layer_class):
    return lambda site: (layer_class, {"data_format": site.data_format, **site.kernel_options})


attention = templates.Slot(
    "attention",
    templates.named(
        {
            "squeeze_excite": _recipe(SqueezeExcite),
            "efficient_channel": _recipe(EfficientChannelAttention),
        }
    ),
)
