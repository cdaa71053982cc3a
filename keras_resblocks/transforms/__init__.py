"""Trained models, made ready to run."""

from keras_resblocks.transforms.folding import fold_batch_norm

__all__ = ["fold_batch_norm"]
