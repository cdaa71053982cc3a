"""Weights of other libraries: in, out, and what was done to their images."""

from keras_resblocks.checkpoints.catalog import Weights, list_weights
from keras_resblocks.checkpoints.loading import (
    load_keras_weights,
    load_torch_weights,
    preprocessing,
    to_torch_state_dict,
)
from keras_resblocks.checkpoints.preprocessing import ImagePreprocessing

__all__ = [
    "ImagePreprocessing",
    "Weights",
    "list_weights",
    "load_keras_weights",
    "load_torch_weights",
    "preprocessing",
    "to_torch_state_dict",
]
