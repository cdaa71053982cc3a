"""Models as ONNX files, the same from every backend."""

import contextlib
import importlib
import os
import tempfile

import keras
import numpy as np

from keras_resblocks.transforms.folding import fold
from keras_resblocks.transforms.onnx_graph import Value
from keras_resblocks.transforms.onnx_operations import Writer

_TOLERANCE = 1e-4


def export_onnx(model, path, *, examples=None):
    """Writes a model as an ONNX file, for inference.

    The graph is written from the layers, with their batch normalizations folded (see
    `fold_batch_norm`), and so it is the same on every backend, whose own converters are not
    needed. Sizes that are open in the model, the batch among them, are open in the file. Inputs
    and outputs are laid out as the model's and called as its are.

    Before there is a file, onnxruntime computes from it what the model does, on two batches of
    different sizes.

    Args:
        model: a functional or `Sequential` model that computes in float32.
        path: of the file, which is replaced if there is one.
        examples: arrays to compare outputs on, each what the model takes. By default random
            ones: one and three samples, 96 and about 100 pixels where a size is open.

    Raises:
        ValueError: if the model is none of these, or has a layer or an operation that is not
            known here.
        RuntimeError: if outputs differ by more than 1e-4 of the largest.
        ImportError: if `onnx` or `onnxruntime` are not installed
            (`pip install keras-resblocks[onnx]`).

    Example:

    >>> export_onnx(create_model("resnet50", weights="timm/resnet50.a1_in1k"), "resnet50.onnx")
    >>> session = onnxruntime.InferenceSession("resnet50.onnx")
    >>> (probabilities,) = session.run(None, {session.get_inputs()[0].name: images})
    """
    onnx, runtime = map(_import, ("onnx", "onnxruntime"))
    folded, _ = fold(model)
    _check_dtypes(folded)
    inputs = [(tensor.name, Value(tensor.name, tuple(tensor.shape))) for tensor in folded.inputs]
    writer = Writer(onnx)
    values = writer.run(folded, [value for _, value in inputs])
    outputs = [*zip(_unique(folded.output_names), values)]
    file = writer.model(inputs, outputs).SerializeToString()
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for example in _random_examples(folded) if examples is None else examples:
        _compare(model, session, example)
    _write(path, file)


def _import(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`export_onnx` needs the package {name}: pip install keras-resblocks[onnx]"
        ) from error


def _check_dtypes(model):
    dtypes = {layer.compute_dtype for layer in model.layers} | {x.dtype for x in model.inputs}
    if dtypes != {"float32"}:
        raise ValueError(
            "`model` must have float32 inputs and compute in float32. "
            f"Received: {sorted(map(str, dtypes))}"
        )


def _unique(names):
    return [name if names.index(name) == i else f"{name}_{i}" for i, name in enumerate(names)]


def _random_examples(model):
    rng = np.random.default_rng(0)
    for batch, sizes in ((1, (96, 96, 96)), (3, (113, 89, 97))):
        arrays = []
        for tensor in model.inputs:
            open_sizes = iter(sizes)
            shape = [next(open_sizes) if n is None else n for n in tensor.shape[1:]]
            samples = tensor.shape[0] or batch
            arrays.append(rng.normal(size=(samples, *shape)).astype("float32"))
        yield keras.tree.pack_sequence_as(model.input, arrays)


def _compare(model, session, example):
    arrays = map(np.asarray, keras.tree.flatten(example))
    names = [tensor.name for tensor in session.get_inputs()]
    received = session.run(None, dict(zip(names, arrays)))
    expected = keras.tree.flatten(model.predict_on_batch(example))
    for tensor, ours, theirs in zip(session.get_outputs(), expected, received, strict=True):
        difference = np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-30)
        if ours.shape != theirs.shape or not difference <= _TOLERANCE:
            raise RuntimeError(
                f"The file's output `{tensor.name}` must be the model's to {_TOLERANCE} of the "
                f"largest value. It differs by {difference:.2g}, on {ours.shape} and "
                f"{theirs.shape}; nothing was written."
            )


def _write(path, content):
    """Writes a file whole, or leaves what there is."""
    folder, name = os.path.split(os.fspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder or ".")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
