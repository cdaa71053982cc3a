"""Residual and inception blocks for Keras 3."""

from keras_resblocks.layers import (
    BottleneckBlock,
    EfficientChannelAttention,
    InceptionBlock,
    ResidualBlock,
    SqueezeExcite,
    StochasticDepth,
    shortcuts,
)

__version__ = "0.1.0"

__all__ = [
    "BottleneckBlock",
    "EfficientChannelAttention",
    "InceptionBlock",
    "ResidualBlock",
    "SqueezeExcite",
    "StochasticDepth",
    "shortcuts",
]
