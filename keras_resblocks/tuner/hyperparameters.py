"""Parts of a search space, for a `keras_tuner.HyperModel` of one's own."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import keras_tuner

from keras_resblocks import validation
from keras_resblocks.models.specs import BLOCKS
from keras_resblocks.types import BlockOptions, Size, Tensor, Unpack


def parameters_of(values: Mapping[str, Any]) -> keras_tuner.HyperParameters:
    """The `keras_tuner.HyperParameters` with these values."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


def hp_activation(
    hp: keras_tuner.HyperParameters,
    values: Sequence[str] = ("relu", "elu", "gelu", "silu"),
    *,
    name: str = "activation",
) -> str:
    """An activation by its name, for the blocks and for any Keras layer.

    Args:
        hp: the `keras_tuner.HyperParameters`.
        values: the names to choose from.
        name: of the hyperparameter.

    Returns:
        The name of the activation.

    Examples:
        >>> import keras_tuner
        >>> from keras_resblocks.tuner import hp_activation
        >>> hp_activation(keras_tuner.HyperParameters())
        'relu'
    """
    return hp.Choice(name, list(values))


def hp_regularizer(
    hp: keras_tuner.HyperParameters,
    values: Sequence[float] = (0.0, 1e-5, 1e-4, 1e-3),
    *,
    name: str = "l2",
) -> keras.regularizers.Regularizer | None:
    """An L2 penalty of a searched strength.

    Args:
        hp: the `keras_tuner.HyperParameters`.
        values: the strengths to choose from.
        name: of the hyperparameter.

    Returns:
        The regularizer; None for a strength of 0.

    Raises:
        ValueError: for a negative strength.

    Examples:
        >>> import keras_tuner
        >>> from keras_resblocks.tuner import hp_regularizer
        >>> hp_regularizer(keras_tuner.HyperParameters(), [1e-4, 1e-3]).l2
        0.0001
    """
    for value in values:
        validation.non_negative_number("values", value)
    return l2(hp.Choice(name, list(values)))


def l2(strength):
    """The L2 penalty of that strength; None for 0."""
    return keras.regularizers.L2(strength) if strength else None


def hp_residual_stage(
    hp: keras_tuner.HyperParameters,
    x: Tensor,
    name: str,
    *,
    depths: Sequence[int] = (1, 2, 3),
    widths: Sequence[int] = (16, 32, 64),
    blocks: Sequence[Literal["residual", "bottleneck"]] = ("residual", "bottleneck"),
    strides: Size = 1,
    **block_options: "Unpack[BlockOptions]",
) -> Tensor:
    """Residual blocks of searched kind, number and width on a tensor.

    Args:
        hp: the `keras_tuner.HyperParameters`.
        x: a Keras tensor, `(batch, *spatial, channels)` or channels first.
        name: of the stage, which its hyperparameters (`{name}_block`, `{name}_depth` and
            `{name}_width`) and its layers (`{name}_block1`, ...) begin with.
        depths: numbers of blocks to choose from.
        widths: numbers of `filters` to choose from.
        blocks: of `"residual"` and `"bottleneck"`.
        strides: of the first block.
        **block_options: for all blocks.

    Returns:
        The tensor after the last block.

    Raises:
        ValueError: for another kind of block, and as `ResidualBlock`.

    Examples:
        >>> import keras
        >>> import keras_tuner
        >>> from keras_resblocks.tuner import hp_activation, hp_residual_stage
        >>> def build(hp):
        ...     inputs = keras.Input((32, 32, 3))
        ...     x = hp_residual_stage(hp, inputs, "stage1", activation=hp_activation(hp))
        ...     outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
        ...     model = keras.Model(inputs, outputs)
        ...     model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        ...     return model
        >>> tuner = keras_tuner.RandomSearch(build, "val_loss", max_trials=20)
    """
    for block in blocks:
        validation.one_of("blocks", block, ("residual", "bottleneck"))
    block_class = BLOCKS[hp.Choice(f"{name}_block", list(blocks))]
    depth = hp.Choice(f"{name}_depth", list(depths))
    filters = hp.Choice(f"{name}_width", list(widths))
    for b in range(1, depth + 1):
        x = block_class(filters, strides, name=f"{name}_block{b}", **block_options)(x)
        strides = 1
    return x
