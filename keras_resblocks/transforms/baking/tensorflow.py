"""A model with its weights built in, on TensorFlow."""

import tensorflow as tf  # Keras has no concrete functions

from keras_resblocks.transforms.baking import pure


def bake(model):
    """A concrete function; TensorFlow folds, lays out and combines what is constant."""
    signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
    # Constants made outside of the function would be captured as its inputs.
    run = tf.function(pure(model, tf.constant), input_signature=signature, autograph=False)
    return run.get_concrete_function()
