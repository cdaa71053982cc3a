"""Residual and inception blocks for Keras 3, and the networks built from them."""

from keras_resblocks.checkpoints import (
    list_weights,
    load_keras_weights,
    load_torch_weights,
    preprocessing,
    to_torch_state_dict,
)
from keras_resblocks.layers import (
    BottleneckBlock,
    EfficientChannelAttention,
    InceptionBlock,
    NumpyHeNormal,
    ResidualBlock,
    SqueezeExcite,
    StochasticDepth,
    shortcuts,
)
from keras_resblocks.models import (
    GoogLeNet,
    InceptionSpec,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
    ResNetSpec,
    cost,
    create_model,
    features,
    list_models,
)
from keras_resblocks.training import (
    PackedOptimizer,
    RandomShift,
    SmoothedSparseCategoricalCrossentropy,
)
from keras_resblocks.transforms import export_onnx, fold_batch_norm, inference_function

__version__ = "0.1.0"

__all__ = [
    "BottleneckBlock",
    "EfficientChannelAttention",
    "GoogLeNet",
    "InceptionBlock",
    "InceptionSpec",
    "NumpyHeNormal",
    "PackedOptimizer",
    "RandomShift",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNetSpec",
    "ResidualBlock",
    "SmoothedSparseCategoricalCrossentropy",
    "SqueezeExcite",
    "StochasticDepth",
    "cost",
    "create_model",
    "export_onnx",
    "features",
    "fold_batch_norm",
    "inference_function",
    "list_models",
    "list_weights",
    "load_keras_weights",
    "load_torch_weights",
    "preprocessing",
    "shortcuts",
    "to_torch_state_dict",
]
