"""Whole networks: specs, the builder, and what they cost."""

from keras_resblocks.models.builders import create_model, list_models
from keras_resblocks.models.cost import Cost, cost
from keras_resblocks.models.existing import from_keras, to_plain_keras, with_options
from keras_resblocks.models.features import Feature, features
from keras_resblocks.models.named import (
    GoogLeNet,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
)
from keras_resblocks.models.specs import AuxHead, InceptionSpec, ResNetSpec

__all__ = [
    "AuxHead",
    "Cost",
    "Feature",
    "GoogLeNet",
    "InceptionSpec",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNetSpec",
    "cost",
    "create_model",
    "features",
    "from_keras",
    "list_models",
    "to_plain_keras",
    "with_options",
]
