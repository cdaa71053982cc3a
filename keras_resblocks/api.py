"""The public names."""

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
    from_keras,
    list_models,
    to_plain_keras,
    with_options,
)
from keras_resblocks.transforms import export_onnx, fold_batch_norm, inference_function

# Models that a search has saved may hold what is in `training`: to import it is to register it.
from keras_resblocks import training as training  # isort: skip

__all__ = [
    "BottleneckBlock",
    "EfficientChannelAttention",
    "GoogLeNet",
    "InceptionBlock",
    "InceptionSpec",
    "NumpyHeNormal",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNetSpec",
    "ResidualBlock",
    "SqueezeExcite",
    "StochasticDepth",
    "cost",
    "create_model",
    "export_onnx",
    "features",
    "fold_batch_norm",
    "from_keras",
    "inference_function",
    "list_models",
    "list_weights",
    "load_keras_weights",
    "load_torch_weights",
    "preprocessing",
    "shortcuts",
    "to_plain_keras",
    "to_torch_state_dict",
    "with_options",
]
