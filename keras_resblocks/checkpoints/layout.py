"""How a checkpoint says a model's weights, and the one place where they are assigned."""

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np

from keras_resblocks.validation import cut

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
    """The name of a layer by the first rule that matches its path; None for none.

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
    is_partial = any(problems[name] for name in ("unexpected", "not of numbers"))
    raise_problems(problems, "" if is_partial else _hint(weights, layout, arrays))
    values = {path: entry.read(arrays[entry.key]) for path, entry in entries.items()}
    for path, value in values.items():
        weights[path].assign(value)


def _hint(weights, layout, arrays):
    """Which arguments make the arrays fit, if any do."""
    entries, arrays = dict(layout.entries), dict(arrays)
    _fit_first_convolution(weights, entries, arrays)
    _leave_out_head(entries, arrays)
    if any(np.shape(arrays.get(entry.key)) != entry.shape for entry in entries.values()):
        return ""
    return (
        " For another number of classes or channels, give `classes` and `input_shape` to "
        "`create_model` with `weights`, or `new_head=True, adapt_channels=True` to the loader."
    )


def is_numeric(array):
    """Whether an array, or None, holds nothing but numbers."""
    # Kind V has the small floats that NumPy does not know itself.
    return array is None or array.dtype.kind in "fiub" or "float" in array.dtype.name


def raise_problems(problems, hint=""):
    """Raises a `ValueError` that lists the keys under each heading, if there are any."""
    found = [f"{len(keys)} {heading} ({_few(keys)})" for heading, keys in problems.items() if keys]
    if found:
        raise ValueError(
            f"`weights` must have what the model has. Received: {'; '.join(found)}. "
            f"Nothing was loaded.{hint}"
        )


def _few(names, limit=8, characters=260):
    """The first names, as many as fit."""
    first = []
    for name in (cut(name, 160) for name in names[:limit]):
        if first and len(", ".join([*first, name])) > characters:
            break
        first.append(name)
    more = f", and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return f"{', '.join(first)}{more}"


def _fit_first_convolution(weights, entries, arrays):
    """Fits the kernels that see the image to the model's number of channels."""
    kernels = [path for path in entries if path.endswith("/kernel")]
    first_layer = kernels[0].partition("/")[0]
    channels = weights[kernels[0]].shape[-2]
    for path in kernels:  # without a stem, a block's shortcut sees the image as well
        if path.startswith(f"{first_layer}/") and weights[path].shape[-2] == channels:
            _fit_kernel(entries[path], channels, arrays)


def _fit_kernel(entry, channels, arrays):
    array = arrays.get(entry.key)
    if array is None or array.ndim != len(entry.shape) or not is_numeric(array):
        return
    kernel = entry.read(array)
    if 0 != kernel.shape[-2] != channels:
        arrays[entry.key] = entry.write(fitted_kernel(kernel, channels))


def fitted_kernel(kernel, channels):
    """A kernel `(*window, channels, filters)` for another number of channels, as timm does it.

    Summed for one channel; otherwise repeated or cut, and scaled by the old number over the new.
    """
    if channels == 1:
        return kernel.sum(axis=-2, keepdims=True)
    given = kernel.shape[-2]
    return np.take(kernel, np.arange(channels) % given, axis=-2) * (given / channels)


def _leave_out_head(entries, arrays):
    head = {path: entry for path, entry in entries.items() if HEAD.match(path)}
    if any(np.shape(arrays.get(entry.key)) != entry.shape for entry in head.values()):
        for path, entry in head.items():
            del entries[path]
            arrays.pop(entry.key, None)
