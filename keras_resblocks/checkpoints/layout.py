"""How a checkpoint says a model's weights, and the one place where they are assigned."""

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np

HEAD = re.compile(r"(aux\d+_)?head/")  # paths of the classifiers


def _same(array):
    return array


@dataclasses.dataclass(frozen=True)
class Entry:
    """A weight in a checkpoint.

    Attributes:
        key: its name there.
        shape: its shape there.
        read, write: from the array there to the one of the model, and back.
    """

    key: str
    shape: tuple
    read: Callable = _same
    write: Callable = _same


@dataclasses.dataclass(frozen=True)
class Layout:
    """A model's weights, as a kind of checkpoint has them.

    Attributes:
        entries: dict of each weight's path in the model to its `Entry`.
        constants: dict of key to an array that the model has fixed, as a gamma of ones is.
        is_optional: tells of a key whether a model may do without it: a classifier left out.
    """

    entries: Mapping
    constants: Mapping = dataclasses.field(default_factory=dict)
    is_optional: Callable = lambda key: False


def layers_of(model):
    """Dict of the path of each layer inside `model` that has weights to a dict of these by name.

    Raises:
        ValueError: if the model is not built of named layers, each with its own weights.
    """
    layers = collections.defaultdict(dict)
    for weight in model.weights:
        path, _, name = weight.path.rpartition("/")
        if name in layers[path]:
            raise ValueError(
                f"`model` must have one weight of each path. Received: {weight.path!r} twice"
            )
        layers[path][name] = weight
    return dict(layers)


def renamed(path, rules):
    """The name of a layer by the first rule whose pattern is that of its path; None for none.

    Args:
        path: of the layer in the model.
        rules: pairs of a pattern and a template of the match, or a function of its groups.
    """
    for pattern, name in rules:
        match = re.fullmatch(pattern, path)
        if match:
            return name(*match.groups()) if callable(name) else match.expand(name)
    return None


def assign(model, layout, arrays, *, new_head=False, adapt_channels=False):
    """Assigns the arrays of a checkpoint, all of them or none.

    Args:
        model: the Keras model.
        layout: the `Layout` of the checkpoint for that model.
        arrays: dict of key to NumPy array.
        new_head: whether a classifier for another number of classes is left as it is.
        adapt_channels: whether the first convolution is fitted to the model's channels.

    Raises:
        ValueError: if a key is missing, unexpected or of another shape; names them.
    """
    weights = {weight.path: weight for weight in model.weights}
    entries, arrays = dict(layout.entries), dict(arrays)
    if adapt_channels:
        _fit_first_convolution(weights, entries, arrays)
    if new_head:
        _leave_out_head(entries, arrays)
    expected = {
        **{entry.key: entry.shape for entry in entries.values()},
        **{key: array.shape for key, array in layout.constants.items()},
    }
    problems = {
        "missing": [key for key in expected if key not in arrays],
        "unexpected": [
            key for key in arrays if key not in expected and not layout.is_optional(key)
        ],
        "not of numbers": [key for key in expected if not is_numeric(arrays.get(key))],
        "of another shape": [
            f"{key}: expected {tuple(shape)}, received {arrays[key].shape}"
            for key, shape in expected.items()
            if key in arrays and arrays[key].shape != tuple(shape)
        ],
    }
    if not any(problems.values()):
        problems["not the constant that the model has there"] = [
            key for key, array in layout.constants.items() if not np.allclose(arrays[key], array)
        ]
    raise_problems(problems)
    values = {path: entry.read(arrays[entry.key]) for path, entry in entries.items()}
    for path, value in values.items():
        weights[path].assign(value)


def is_numeric(array):
    """Whether an array, or None, holds nothing but numbers."""
    # Kind V has the small floats that NumPy does not know itself.
    return array is None or array.dtype.kind in "fiub" or "float" in array.dtype.name


def raise_problems(problems, limit=8):
    """Raises a `ValueError` that lists the keys under each heading, if there are any."""
    found = []
    for heading, keys in problems.items():
        if keys:
            more = f", and {len(keys) - limit} more" if len(keys) > limit else ""
            found.append(f"{len(keys)} {heading} ({', '.join(keys[:limit])}{more})")
    if found:
        raise ValueError(
            f"`weights` must have what the model has. Received: {'; '.join(found)}. "
            "Nothing was loaded."
        )


def _fit_first_convolution(weights, entries, arrays):
    """Sums a kernel for RGB over its channels, or repeats it over as many as the model has."""
    kernels = [path for path in entries if path.endswith("/kernel")]
    first_layer = kernels[0].partition("/")[0]
    channels = weights[kernels[0]].shape[-2]
    for path in kernels:  # without a stem, a block's shortcut sees the image as well
        if path.startswith(f"{first_layer}/") and weights[path].shape[-2] == channels != 3:
            _fit_kernel(entries[path], channels, arrays)


def _fit_kernel(entry, channels, arrays):
    array = arrays.get(entry.key)
    if array is None or array.ndim != len(entry.shape) or not is_numeric(array):
        return
    kernel = entry.read(array)  # (*window, channels, filters)
    if kernel.shape[-2] != 3:
        return
    if channels == 1:
        kernel = kernel.sum(axis=-2, keepdims=True)
    else:
        kernel = np.take(kernel, np.arange(channels) % 3, axis=-2) * (3 / channels)
    arrays[entry.key] = entry.write(kernel)


def _leave_out_head(entries, arrays):
    head = {path: entry for path, entry in entries.items() if HEAD.match(path)}
    if any(np.shape(arrays.get(entry.key)) != entry.shape for entry in head.values()):
        for path, entry in head.items():
            del entries[path]
            arrays.pop(entry.key, None)
