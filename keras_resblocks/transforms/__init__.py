"""Trained models, made ready to run."""

from keras_resblocks.transforms.folding import fold_batch_norm
from keras_resblocks.transforms.inference import inference_function
from keras_resblocks.transforms.onnx import export_onnx

__all__ = ["export_onnx", "fold_batch_norm", "inference_function"]
