"""The types of arguments that recur, and of the options that blocks and networks share."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import keras

if TYPE_CHECKING:
    from keras_resblocks.layers.shortcuts import Shortcut

if sys.version_info >= (3, 11):
    from typing import Unpack as Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack
else:
    Unpack = None  # stands in annotations that are strings, which nothing evaluates

Tensor: TypeAlias = Any
"""A tensor of the backend, or a `keras.KerasTensor`."""

Config: TypeAlias = dict[str, Any]
"""What `get_config` or `keras.saving.serialize_keras_object` returned."""

FilePath: TypeAlias = str | os.PathLike[str]
"""The path of a file or folder."""

Shape: TypeAlias = tuple[int | None, ...]
"""A shape, None for an open size."""

Size: TypeAlias = int | list[int] | tuple[int, ...]
"""One positive integer for all spatial axes, or one for each."""

Padding: TypeAlias = Literal["symmetric", "same", "valid"]
"""See `ResidualBlock` and `ConvUnit`."""

Pluggable: TypeAlias = str | Callable[..., Any] | keras.layers.Layer | Config | None
"""An `activation`, a `normalization` or an `attention`: a name, a function, a layer or a config."""

Initializer: TypeAlias = str | Callable[..., Any] | keras.initializers.Initializer | Config
"""What Keras takes as an initializer."""

Regularizer: TypeAlias = str | Callable[..., Any] | keras.regularizers.Regularizer | Config | None
"""What Keras takes as a regularizer."""

Constraint: TypeAlias = str | Callable[..., Any] | keras.constraints.Constraint | Config | None
"""What Keras takes as a constraint."""

DType: TypeAlias = str | keras.dtype_policies.DTypePolicy | Config | None
"""What Keras takes as the dtype of a layer."""


class LayerArguments(TypedDict, total=False):
    """Of every Keras layer."""

    name: str | None
    trainable: bool
    dtype: DType
    autocast: bool
    activity_regularizer: Regularizer


class CompositeArguments(LayerArguments, total=False):
    """Of `Pooling` and `AdaptiveAveragePooling`."""

    data_format: str | None


class KernelArguments(CompositeArguments, total=False):
    """Of a layer with kernels."""

    kernel_initializer: Initializer
    kernel_regularizer: Regularizer
    kernel_constraint: Constraint


class GateArguments(KernelArguments, total=False):
    """Of `SqueezeExcite` and `EfficientChannelAttention`."""

    gate_activation: Pluggable


class ModelOptions(TypedDict, total=False):
    """Of `with_options`."""

    dtype: DType
    activation: Pluggable
    normalization: Pluggable
    kernel_initializer: Initializer
    kernel_regularizer: Regularizer
    kernel_constraint: Constraint
    bias_initializer: Initializer
    bias_regularizer: Regularizer
    bias_constraint: Constraint


class _ConvOptions(ModelOptions, total=False):
    data_format: str | None
    padding: Padding
    use_bias: bool | None
    folded: bool
    fused: bool


class UnitArguments(_ConvOptions, LayerArguments, total=False):
    """Of `ConvUnit`."""


class _BranchOptions(_ConvOptions, total=False):
    preactivation: bool
    attention: Pluggable
    drop_path_rate: float
    dilation_rate: Size
    atrous: bool
    exit_activation: Pluggable
    zero_init_residual: bool
    remat: bool


class BranchArguments(_BranchOptions, LayerArguments, total=False):
    """Of `InceptionBlock`."""

    groups: int


class BlockArguments(BranchArguments, total=False):
    """Of `ResidualBlock` and `BottleneckBlock`."""

    shortcut: "Shortcut | Pluggable"


class InceptionArguments(BlockArguments, total=False):
    """Of `InceptionBlock.v1`."""

    strides: Size
    filters: int | None
    residual_scale: float


class NetworkOptions(_BranchOptions, total=False):
    """Of the blocks of a network, but for `groups`, which a search may list."""

    shortcut: "Shortcut | Pluggable"
    kernel_size: Size
    filters: int | None
    residual_scale: float
    expansion: int
    stride_in_1x1: bool


class BlockOptions(NetworkOptions, total=False):
    """Of the blocks of a network."""

    groups: int
