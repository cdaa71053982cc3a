"""Models as ONNX files, converted from TensorFlow by tf2onnx."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_resblocks.models.graphs import check_graph, random_inputs
from keras_resblocks.transforms.folding import fold
from keras_resblocks.types import FilePath

_PACKAGES = ("tensorflow", "tf2onnx", "onnx", "onnxruntime")
_TOLERANCE = 1e-4


def export_onnx(
    model: keras.Model,
    path: FilePath,
    *,
    examples: Sequence[Any] | None = None,
    opset: int | None = None,
) -> None:
    """Writes a model as an ONNX file for inference.

    Batch normalizations are folded (see `fold_batch_norm`) and tf2onnx converts the model on
    TensorFlow; on JAX and PyTorch in a process of its own, for which custom layers must be
    written with `keras.ops`, in a module that can be imported.

    Axes that are open in the model, the batch among them, are open in the file. Inputs are named
    after the input layers; outputs after their keys in a dict, or after the layers that they
    come from, in the order of `predict`. The file is only written where onnxruntime computes
    the same as the model.

    Args:
        model: a functional or `Sequential` model that computes in float32. Its inputs may be
            integers. Random augmentation in it is off, as in `predict`.
        path: the file, which is replaced if there is one.
        examples: batches to compare outputs on, each as the model takes it. By default two
            random ones: one and three samples, about 100 pixels where an axis is open.
        opset: version of the ONNX operators. By default tf2onnx's own choice.

    Raises:
        ValueError: if `model` is not a graph of layers, is quantized, computes in another
            precision, or has a part that TensorFlow or tf2onnx cannot convert.
        RuntimeError: if an output differs by more than 1e-4 of its largest value.
        ImportError: if a package is missing (`pip install "keras-resblocks[onnx]"`).

    Examples:
        >>> import numpy as np
        >>> import onnxruntime
        >>> from keras_resblocks import ResNetSpec, create_model, export_onnx
        >>> model = create_model(ResNetSpec(depths=(1,)), input_shape=(32, 32, 3), classes=6)
        >>> export_onnx(model, "model.onnx")
        >>> session = onnxruntime.InferenceSession("model.onnx")
        >>> images = np.zeros((2, 32, 32, 3), "float32")
        >>> (probabilities,) = session.run(None, {session.get_inputs()[0].name: images})
        >>> probabilities.shape
        (2, 6)
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'`export_onnx` needs {", ".join(missing)}: pip install "keras-resblocks[onnx]"'
        )
    import onnxruntime

    check_graph(model)
    _check_precision(model)
    folded, _ = fold(model)
    if examples is None:
        examples = [random_inputs(folded, *shape) for shape in ((1, (96, 96)), (3, (113, 89)))]
    expected = [dict(_leaves(model.predict_on_batch(example))) for example in examples]
    names = _output_names(folded, expected[0] if expected else dict(_leaves(folded.output)))
    convert = _convert if keras.backend.backend() == "tensorflow" else _convert_in_child
    content = convert(folded, opset, names)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for example, outputs in zip(examples, expected):
        _compare(session, example, {names[path]: array for path, array in outputs.items()})
    _write(path, content)


def _check_precision(model):
    for layer in model._flatten_layers():  # Keras has no public way to layers inside of layers
        policy = layer.dtype_policy
        is_passed_on = isinstance(layer, (keras.Model, keras.layers.InputLayer))
        is_float = "float" in str(policy.compute_dtype) and not is_passed_on
        expectation = None
        if policy.quantization_mode is not None:
            expectation = "not be quantized: export it before `quantize`"
        elif is_float and policy.compute_dtype != "float32":
            expectation = "compute in float32"
        if expectation:
            raise ValueError(
                f"`model` must {expectation}. "
                f"Received: layer `{layer.path}` with dtype={policy.name!r}"
            )


def _convert(model, opset, names):
    """The model as the bytes of an ONNX file; on TensorFlow."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    opsets = tf2onnx.constants.OPSET_TO_IR_VERSION
    if opset is not None and opset not in opsets:
        raise ValueError(
            f"`opset` must be {min(opsets)} to {max(opsets)}, which tf2onnx "
            f"{tf2onnx.__version__} writes, or None. Received: opset={opset!r}"
        )
    signature = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in model.inputs]

    @tf.function(input_signature=signature, autograph=False)
    def infer(*arrays):
        outputs = model(keras.tree.pack_sequence_as(model.input, list(arrays)), training=False)
        return {names[path]: tensor for path, tensor in _leaves(outputs)}

    # Keras wraps grouped convolutions in functions for XLA, which tf2onnx takes for operations:
    # run eagerly, they are traced as part of this one.
    are_eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        proto, _ = tf2onnx.convert.from_function(
            infer, signature, opset=opset, custom_op_handlers=_HANDLERS
        )
    finally:
        tf.config.run_functions_eagerly(are_eager)
    unknown = {node.op_type for node in proto.graph.node if not onnx.defs.has(node.op_type)}
    if unknown:
        raise ValueError(
            "`model` must be made of operations that tf2onnx can convert. "
            f"Received: {', '.join(sorted(unknown))}"
        )
    _make_constants(proto.graph, infer.get_concrete_function(), len(signature))
    _arrange(proto.graph.input, [tensor.name for tensor in model.inputs])
    _arrange(proto.graph.output, [*names.values()])
    return proto.SerializeToString()


def _make_constants(graph, function, count):
    """Makes constants of inputs after the first, tensors that layers hold (`Normalization`)."""
    from onnx import numpy_helper

    held = zip(function.inputs[count:], function.captured_inputs)
    held = {inner.name: tensor for inner, tensor in held}
    for value in [value for value in graph.input if value.name in held]:
        array = held[value.name].numpy()
        graph.initializer.append(numpy_helper.from_array(array, value.name))
        graph.input.remove(value)


def _difference(graph, node, name, args):
    """Converts an operation that ONNX has but for its difference from 1."""
    (is_subtracted,) = args  # the type of the node is changed already
    one = graph.make_const(f"{name}_one", np.float32(1)).output[0]
    difference = graph.insert_new_node_on_output("Sub", node.output[0])
    operands = [one, node.output[0]] if is_subtracted else [node.output[0], one]
    graph.replace_inputs(difference, operands)


def _grouped(graph, node, name, args):
    """Converts a convolution of volumes, for which tf2onnx sets no groups."""
    from tf2onnx.onnx_opset.nn import ConvOp

    is_last = node.get_attr_str("data_format") == "NDHWC"
    channels = graph.get_shape(node.input[0])[-1 if is_last else 1]
    groups = channels // graph.get_shape(node.input[1])[-2]
    ConvOp.any_version(graph.opset, graph, node)
    node.set_attr("group", groups)


# TensorFlow's operations in an exact `gelu` and in `celu`, which tf2onnx 1.17 does not know, and
# one that it converts wrongly.
_HANDLERS = {
    "Erfc": (_difference, ["Erf", True]),
    "Expm1": (_difference, ["Exp", False]),
    "Conv3D": (_grouped, ["Conv3D"]),
}


def _leaves(structure, path=""):
    """Pairs of a path and what is there, dicts in their own order."""
    is_dict = isinstance(structure, dict)
    if not is_dict and not isinstance(structure, (list, tuple)):
        yield path, structure
        return
    for key, value in structure.items() if is_dict else enumerate(structure):
        yield from _leaves(value, f"{path}_{key}" if path else str(key))


def _output_names(model, paths):
    """From paths to keys where the outputs are a dict, otherwise to layers; no two alike."""
    layers = {id(x): name for x, name in zip(model.outputs, model.output_names)}
    tensors = dict(_leaves(model.output))
    names, taken = {}, {tensor.name for tensor in model.inputs}
    for i, path in enumerate(paths):
        name = path if isinstance(model.output, dict) else layers[id(tensors[path])]
        names[path] = f"{name}_{i}" if name in taken else name
        taken.add(names[path])
    return names


def _arrange(values, names):
    """Puts the inputs or outputs of a graph in the order of `names` and names their open axes."""
    ordered = sorted(values, key=lambda value: names.index(value.name))
    for value in ordered:
        for i, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_param = f"{value.name}_{i}" if i else "batch"
    del values[:]
    values.extend(ordered)


def _convert_in_child(model, opset, names):
    """What `_convert` returns, by a process that runs TensorFlow."""
    parts = _parts(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save(os.path.join(folder, "model.keras"))
        environment = {
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "-1",  # this process may hold all of the memory
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONSAFEPATH": "1",  # no other module is found than in this process
        }
        code = f"from {__name__} import _child; _child({folder!r}, {opset!r}, {names!r}, {parts!r})"
        child = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        if child.returncode:
            said = "\n".join(child.stderr.strip().splitlines()[-6:])
            raise ValueError(
                "`model` must be one that TensorFlow can load and tf2onnx convert, in a process "
                f"of its own. Received, from that process:\n{said[-2000:]}"
            )
        with open(os.path.join(folder, "model.onnx"), "rb") as file:
            return file.read()


def _child(folder, opset, names, parts):
    # Keras loads what is not registered by these names alone.
    objects = {name: getattr(importlib.import_module(module), name) for module, name in parts}
    path = os.path.join(folder, "model.keras")
    options = {"compile": False, "safe_mode": False}  # it is our own file
    model = keras.saving.load_model(path, custom_objects=objects, **options)
    with open(os.path.join(folder, "model.onnx"), "wb") as file:
        file.write(_convert(model, opset, names))


def _parts(model):
    """Module and name of the classes and functions of a model that are not Keras's own."""
    used = {type(layer) for layer in model._flatten_layers()}  # see `_check_precision`
    values = keras.tree.flatten(keras.saving.serialize_keras_object(model))
    names = {value for value in values if isinstance(value, str)}
    used.update(filter(None, map(keras.saving.get_registered_object, names)))
    used = [thing for thing in used if not thing.__module__.startswith("keras.")]
    for thing in used:
        module = sys.modules[thing.__module__]
        if module.__name__ == "__main__" or getattr(module, thing.__name__, None) is not thing:
            raise ValueError(
                "`model` must be made of classes and functions that a process of TensorFlow can "
                "import: define them at the top of a module, or export on TensorFlow "
                f"(KERAS_BACKEND=tensorflow). Received: {thing.__qualname__} of {module.__name__}"
            )
    return sorted({(thing.__module__, thing.__name__) for thing in used})


def _compare(session, example, expected):
    arrays = map(np.asarray, keras.tree.flatten(example))
    inputs = dict(zip((tensor.name for tensor in session.get_inputs()), arrays))
    for name, received in zip(expected, session.run([*expected], inputs)):
        ours, difference = expected[name], np.inf
        largest = max(np.abs(ours).max(initial=0.0), 1e-30)
        if ours.shape == received.shape:
            difference = np.abs(np.subtract(ours, received, dtype="float64")).max(initial=0.0)
        if not difference / largest <= _TOLERANCE:
            raise RuntimeError(
                f"The file's output `{name}` must be the model's to {_TOLERANCE} of the largest "
                f"value. It differs by {difference / largest:.2g}, on {ours.shape} and "
                f"{received.shape}; nothing was written."
            )


def _write(path, content):
    """Writes a file whole, or leaves what there is."""
    half_written = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(half_written, "wb") as file:
            file.write(content)
        os.replace(half_written, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # as it is, once it has replaced the other
            os.remove(half_written)
