"""A trained model as one function, compiled by its backend."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_resblocks.transforms.folding import fold


def inference_function(model: keras.Model) -> Callable[[Any], Any]:
    """A function that computes what `model` does in inference, and nothing else.

    Batch normalizations are folded (see `fold_batch_norm`), and the backend compiles the rest:

    - TensorFlow: a graph with constants in place of variables, for any batch and open size.
    - JAX: `jax.jit` over constants, for each shape that comes.
    - PyTorch: `torch.compile`, for each of the first eight shapes that come; it takes from ten
      seconds to minutes. Where that fails, as without a C++ compiler, a warning says so once and
      the folded model runs as it is.

    Call the function once for each shape before its time counts. It holds a copy of the weights:
    later changes of `model` are not seen. On a CPU, `export_onnx` and onnxruntime are faster.

    Args:
        model: a functional or `Sequential` model; it is left as it is.

    Returns:
        A function of one argument, what the model takes: an array, or a list, tuple or dict of
        them. It returns what the model returns: NumPy arrays for NumPy arrays, and the
        backend's tensors, on its device, for tensors. No gradients flow through it.

    Raises:
        ValueError: if `model` is not a graph of layers; from the function, for inputs of other
            shapes than the model's.

    Examples:
        >>> import numpy as np
        >>> from keras_resblocks import create_model, inference_function
        >>> predict = inference_function(create_model("resnet20_cifar"))
        >>> predict(np.zeros((8, 32, 32, 3))).shape
        (8, 10)
    """
    folded, _ = fold(model)
    run = _COMPILERS[keras.backend.backend()](folded)
    dtypes = [tensor.dtype for tensor in folded.inputs]

    def infer(inputs):
        arrays = _flat(inputs, folded)
        results = run(*map(keras.ops.convert_to_tensor, arrays, dtypes))
        if not any(map(keras.ops.is_tensor, arrays)):
            results = map(keras.ops.convert_to_numpy, results)
        return keras.tree.pack_sequence_as(folded.output, list(results))

    return infer


# Each makes a function of the model's flat inputs, tensors, that returns its flat outputs.


def _on_tensorflow(model):
    import tensorflow as tf  # Keras has no concrete functions

    signature = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
    # Constants made outside of the function would be captured as its inputs.
    run = tf.function(_pure(model, tf.constant), input_signature=signature, autograph=False)
    return run.get_concrete_function()


def _on_jax(model):
    import jax  # Keras has no compiled functions outside of `predict`

    return jax.jit(_pure(model, np.asarray))


def _pure(model, constant):
    """The model as a function of its inputs, with weights that are constants."""
    weights = [
        [keras.ops.convert_to_numpy(variable) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def run(*inputs):
        inputs = keras.tree.pack_sequence_as(model.input, list(inputs))
        constants = ([constant(value) for value in values] for values in weights)
        outputs, _ = model.stateless_call(*constants, inputs, training=False)
        return keras.tree.flatten(outputs)

    return run


def _on_torch(model):
    import torch  # Keras compiles its training and prediction steps alone

    def call(*inputs):
        inputs = keras.tree.pack_sequence_as(model.input, list(inputs))
        return keras.tree.flatten(model(inputs, training=False))

    function = torch.compile(call, dynamic=False)  # open sizes fail in many ways

    @torch.no_grad()
    def run(*inputs):
        nonlocal function
        try:
            return function(*inputs)
        except Exception as error:  # compilers, and what they cannot trace, fail in many ways
            if function is call:
                raise
            results = call(*inputs)  # or the error is of the model
            function = call
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                "`torch.compile` failed, and the model runs with its batch normalizations folded "
                f"but not compiled: {reason[:200]}",
                stacklevel=3,
            )
            return results

    return run


_COMPILERS = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}


def _flat(arrays, model):
    """The arrays in the order of the model's inputs, their shapes checked."""
    if isinstance(arrays, dict) and not isinstance(model.input, dict):  # by name, as Keras allows
        arrays = [arrays.get(tensor.name) for tensor in model.inputs]
    arrays = keras.tree.flatten(arrays)
    shapes = [getattr(array, "shape", None) for array in arrays]
    if len(arrays) != len(model.inputs) or not all(map(_fits, shapes, model.inputs)):
        expected = keras.tree.map_structure(lambda tensor: tensor.shape, model.input)
        raise ValueError(
            f"The inputs must be arrays of the model's shapes, {expected}. "
            f"Received: {[shape and tuple(shape) for shape in shapes]}"
        )
    return arrays


def _fits(shape, tensor):
    if shape is None or len(shape) != len(tensor.shape):
        return False
    return all(size in (None, given) for size, given in zip(tensor.shape, shape))
