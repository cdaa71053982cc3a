"""Layers to drop into a Keras model."""

from keras_resblocks.layers import shortcuts
from keras_resblocks.layers.attention import EfficientChannelAttention, SqueezeExcite
from keras_resblocks.layers.inception import InceptionBlock
from keras_resblocks.layers.initializers import NumpyHeNormal
from keras_resblocks.layers.pooling import AdaptiveAveragePooling, Pooling
from keras_resblocks.layers.residual import BottleneckBlock, ResidualBlock
from keras_resblocks.layers.steps import AdaptivePool, Conv, Pool, Split, Subsample
from keras_resblocks.layers.stochastic_depth import StochasticDepth
from keras_resblocks.layers.units import ConvUnit

__all__ = [
    "AdaptiveAveragePooling",
    "AdaptivePool",
    "BottleneckBlock",
    "Conv",
    "ConvUnit",
    "EfficientChannelAttention",
    "InceptionBlock",
    "NumpyHeNormal",
    "Pool",
    "Pooling",
    "ResidualBlock",
    "Split",
    "SqueezeExcite",
    "StochasticDepth",
    "Subsample",
    "shortcuts",
]
