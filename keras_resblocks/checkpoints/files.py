"""Reading checkpoint files: each function gives NumPy arrays by key, or a clear `ValueError`."""

import collections
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping

import keras
import numpy as np

from keras_resblocks.checkpoints.layout import is_numeric
from keras_resblocks.validation import cut, shown


def missing_package(package, purpose, extra):
    """The error for an optional package that is not installed."""
    return ImportError(
        f"{purpose} needs `{package}`, which is not installed: "
        f"pip install {package} (or the extra, keras-resblocks[{extra}])"
    )


def read_torch_file(path):
    """The tensors of a `.safetensors` file, or of what `torch.save` wrote, as arrays.

    Nothing in the file is run: objects that are not tensors are errors, but for `_RECORDS`.
    """
    path = os.fspath(path)
    return _read_safetensors(path) if path.lower().endswith(".safetensors") else _read_pickle(path)


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
        with _passing_over_records(torch):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if found := re.search(r"(?:GLOBAL|globals\(\[) ?([\w.]+)", str(error)):
            error = ValueError(f"an object of `{found[1]}`; save the `state_dict()` by itself")
        raise _unreadable(path, error) from error
    return state_dict_arrays(content, path)


class _Record:
    """Stands for an object in a file that is not a tensor; keeps nothing and runs nothing."""

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        pass


# What training scripts save beside the weights: arguments, paths, and scores as NumPy's numbers.
_RECORDS = (
    "argparse.Namespace",
    *(f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath")),
    *(f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath")),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    "numpy.dtype",
    "_codecs.encode",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)


def _passing_over_records(torch):
    """A context in which PyTorch reads a `_Record` for each object of those names."""
    if torch.__version__ < (2, 6):  # which refuses the file
        return contextlib.nullcontext()
    return torch.serialization.safe_globals([(_Record, name) for name in _RECORDS])


# Names of a state dict inside a training checkpoint, averaged weights first.
_WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
)


def state_dict_arrays(content, source="the state dict"):
    """Arrays from a state dict of tensors or arrays, or from one inside a training checkpoint."""
    for _ in range(3):  # deep enough for any, and no endless loop
        content = _unwrapped(content)
    if not isinstance(content, Mapping) or not content:
        received = "nothing" if isinstance(content, Mapping) else type(content)
        raise ValueError(
            "`weights` must be a state dict: names and tensors. "
            f"Received: {received} in {cut(source)}"
        )
    return {str(key): _array(key, value) for key, value in content.items()}


def _unwrapped(content):
    """What a checkpoint has under one of the usual names, or itself."""
    if not isinstance(content, Mapping):
        return content
    inner = (content.get(name) for name in _WRAPPERS)
    return next((value for value in inner if isinstance(value, Mapping) and value), content)


def without_prefixes(arrays, expected):
    """The arrays without what wrappers put into their names (`module.`, `_orig_mod.`).

    Also without the one prefix, such as Lightning's `model.`, that hides most `expected` keys.
    """
    arrays = _with_keys(arrays, lambda key: _WRAPPING.sub("", key))
    counts = collections.Counter(
        key[:start]
        for key in arrays
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", key)))
        if key[start:] in expected
    )
    prefix = max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")
    if 2 * counts[prefix] <= len(expected):
        return arrays
    return _with_keys(arrays, lambda key: key.removeprefix(prefix))


_WRAPPING = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


def _with_keys(arrays, rename):
    renamed = {rename(key): array for key, array in arrays.items()}
    return renamed if len(renamed) == len(arrays) else arrays  # no two as one


def _array(key, value):
    if isinstance(value, np.ndarray):
        return value
    if not all(hasattr(value, name) for name in ("detach", "cpu", "numpy")):
        raise ValueError(
            "`weights` must hold tensors only, by themselves or under one of the names "
            f"{', '.join(_WRAPPERS)}. Received: {cut(key)}={shown(value)}"
        )
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
                f"Received: weights={shown(os.fspath(path))}, which has no layer names"
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
    """Dict of each variable of a model in a `.weights.h5` file to its shape; None if no numbers."""
    import h5py

    shapes = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and "/vars/" in f"/{name}":
            shapes[name] = item.shape if is_numeric(item) or _is_bfloat16(item) else None

    with _h5_file(path, h5py) as file:
        file.visititems(visit)
    return {name: shape for name, shape in shapes.items() if not name.startswith("optimizer/")}


def weights_h5_array(item):
    """The array of a variable in a `.weights.h5` file."""
    return item[()].view("bfloat16").astype("float32") if _is_bfloat16(item) else item[()]


def _is_bfloat16(item):
    return item.attrs.get("dtype") == "bfloat16"  # HDF5 itself knows bytes only


def read_keras_model(path):
    """The model in a `.keras` file; the ending in any letter case."""
    try:
        if os.fspath(path).endswith(".keras"):
            return keras.saving.load_model(path, compile=False)
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copy(path, os.path.join(folder, "model.keras"))
            return keras.saving.load_model(copy, compile=False)
    except Exception as error:
        raise _unreadable(path, error) from error


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
        f"{shown(os.fspath(path))} could not be read, and nothing of it was run or loaded. "
        f"Received: {type(error).__name__}: {cut(error, 600)}"
    )
