"""What Keras lacks for the training of image classifiers."""

from keras_resblocks.training.augmentation import RandomShift
from keras_resblocks.training.losses import SmoothedSparseCategoricalCrossentropy
from keras_resblocks.training.optimizers import DiscriminativeOptimizer, PackedOptimizer

__all__ = [
    "DiscriminativeOptimizer",
    "PackedOptimizer",
    "RandomShift",
    "SmoothedSparseCategoricalCrossentropy",
]
