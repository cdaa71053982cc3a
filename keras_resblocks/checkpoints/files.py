"""Reading checkpoint files: each function gives NumPy arrays by key, or a clear `ValueError`."""

import contextlib
import os
import tempfile

import numpy as np

from keras_resblocks.checkpoints.layout import is_numeric


def missing_package(package, purpose, extra):
    """The error for an optional package that is not installed."""
    return ImportError(
        f"{purpose} needs `{package}`, which is not installed: "
        f"pip install {package} (or the extra, keras-resblocks[{extra}])"
    )


def read_torch_file(path):
    """The tensors of a `.safetensors` file, or of what `torch.save` wrote, as arrays.

    A `.safetensors` file is read without PyTorch. Any other is read by PyTorch as data only
    (`weights_only=True`): an object that is no tensor is an error, and nothing of it is run.
    """
    path = os.fspath(path)
    return _read_safetensors(path) if path.endswith(".safetensors") else _read_pickle(path)


def _read_safetensors(path):
    try:
        import safetensors.numpy
    except ImportError:
        raise missing_package("safetensors", "Reading a .safetensors file", "pretrained") from None
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def _read_pickle(path):
    try:
        import torch  # nothing else reads its format safely
    except ImportError:
        raise missing_package("torch", "Reading what `torch.save` wrote", "torch") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path, error) from error
    return state_dict_arrays(content, path)


def state_dict_arrays(content, source="the state dict"):
    """Arrays from a state dict of tensors or arrays, or from one inside a training checkpoint."""
    if isinstance(content, dict):
        for name in ("state_dict", "model"):
            if isinstance(content.get(name), dict):
                content = content[name]
    if not isinstance(content, dict) or not content:
        raise ValueError(
            "`weights` must be a state dict: names and tensors. "
            f"Received: {type(content)} in {source}"
        )
    return {str(key): _array(key, value) for key, value in content.items()}


def _array(key, value):
    if isinstance(value, np.ndarray):
        return value
    if not all(hasattr(value, name) for name in ("detach", "cpu", "numpy")):
        raise ValueError(f"`weights` must hold tensors only. Received: {key}={value!r}")
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()  # also bfloat16


def read_h5_layers(path):
    """The layers of a Keras 1 or 2 `.h5` file: dict of layer names to lists of arrays."""
    import h5py

    with _h5_file(path, h5py) as file:
        group = file.get("model_weights", file)  # inside a whole saved model
        names = _names(group, "layer_names")
        if not names:
            raise ValueError(
                "`weights` must be a `.h5` file of keras.applications (one that ends in "
                "`.weights.h5` is for `create_model(weights=...)`). "
                f"Received: weights={os.fspath(path)!r}, which has no layer names"
            )
        layers = {
            name: [np.asarray(layer[weight]) for weight in _names(layer, "weight_names")]
            for name, layer in ((name, group[name]) for name in names)
        }
    return {name: arrays for name, arrays in layers.items() if arrays}


def _names(group, attribute):
    """A list of names; Keras splits a long one into numbered parts."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def weights_h5_shapes(path):
    """Dict of the name of each variable in a `.weights.h5` file to its shape.

    The shape is None where it holds no numbers. The state of an optimizer is left out, as Keras
    does when a model has none.
    """
    import h5py

    shapes = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and "/vars/" in f"/{name}":
            shapes[name] = item.shape if is_numeric(item) else None

    with _h5_file(path, h5py) as file:
        file.visititems(visit)
    return {name: shape for name, shape in shapes.items() if not name.startswith("optimizer/")}


def saved_shapes(model):
    """What `weights_h5_shapes` would say of a file saved from `model` now."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.weights.h5")
        model.save_weights(path)
        return weights_h5_shapes(path)


@contextlib.contextmanager
def _h5_file(path, h5py):
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    return ValueError(
        f"`weights` must be a whole file of its kind, with nothing in it but weights; "
        f"{os.fspath(path)!r} could not be read, and nothing of it was run or loaded. "
        f"Received: {type(error).__name__}: {error}"
    )
