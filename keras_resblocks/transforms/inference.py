"""A trained model as one function, as fast as its backend can make it."""

import importlib

import keras

from keras_resblocks.transforms.folding import fold


def inference_function(model):
    """A function that computes what `model` does in inference, and does nothing else.

    Batch normalizations are folded (see `fold_batch_norm`) and the weights are constants, which
    the backend may lay out, combine and precompute once:

    - TensorFlow: a graph for any batch and any open size, with constants in place of variables.
    - JAX: compiled by XLA for each shape that comes; on a CPU, 1x1 convolutions as products of
      matrices.
    - PyTorch: a graph for any batch, exported for each image size that comes; the convolutions
      with their biases, activations and sums in one call, their kernels packed beforehand.

    What is done once for a shape is done when it first comes: call the function once before
    its time counts. It holds a copy of the weights: later changes of `model` are not seen.

    Args:
        model: a functional or `Sequential` model; it is left as it is.

    Returns:
        A function of one argument, what the model takes: an array, or a list, tuple or dict of
        them. It returns what the model returns: NumPy arrays for NumPy arrays, and the
        backend's tensors, on its device, for tensors. No gradients flow through it.

    Raises:
        ValueError: if `model` is not a graph of layers; from the function, for inputs of other
            shapes than the model's.

    Example:

    >>> predict = inference_function(create_model("resnet50", weights="timm/resnet50.a1_in1k"))
    >>> predict(np.zeros((8, 224, 224, 3))).shape
    (8, 1000)
    """
    folded, _ = fold(model)
    backend = importlib.import_module(
        f"keras_resblocks.transforms.baking.{keras.backend.backend()}"
    )
    run = backend.bake(folded)
    inputs, outputs = folded.input, folded.output

    def infer(arrays):
        arrays = _flatten(arrays, inputs)
        results = run(
            *(
                keras.ops.convert_to_tensor(array, dtype=tensor.dtype)
                for array, tensor in zip(arrays, folded.inputs)
            )
        )
        if not any(map(keras.ops.is_tensor, arrays)):
            results = map(keras.ops.convert_to_numpy, results)
        return keras.tree.pack_sequence_as(outputs, list(results))

    return infer


def _flatten(arrays, inputs):
    """The arrays in the order of the model's inputs, their shapes checked."""
    tensors = keras.tree.flatten(inputs)
    if isinstance(arrays, dict) and not isinstance(inputs, dict):  # by name, as Keras allows
        arrays = [arrays.get(tensor.name) for tensor in tensors]
    arrays = keras.tree.flatten(arrays)
    shapes = [getattr(array, "shape", None) for array in arrays]
    if len(arrays) != len(tensors) or not all(map(_fits, shapes, tensors)):
        expected = keras.tree.map_structure(lambda tensor: tensor.shape, inputs)
        raise ValueError(
            f"The inputs must be arrays of the model's shapes, {expected}. "
            f"Received: {[shape and tuple(shape) for shape in shapes]}"
        )
    return arrays


def _fits(shape, tensor):
    return (
        shape is not None
        and len(shape) == len(tensor.shape)
        and all(size in (None, given) for size, given in zip(tensor.shape, shape))
    )
