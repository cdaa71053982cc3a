"""Maps the keys of a checkpoint to the weights of a model, and assigns them."""

import collections
import dataclasses
import re
from collections.abc import Callable, Mapping

import numpy as np

from keras_resblocks import validation
from keras_resblocks.validation import cut

_HEAD = re.compile(r"(aux\d+_)?head/")  # paths of the classifiers


def _same(array):
    return array


@dataclasses.dataclass(frozen=True)
class Entry:
    """A weight in a checkpoint."""

    key: str
    shape: tuple
    read: Callable = _same  # from the array there to the one of the model
    write: Callable = _same  # and back


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
    """Dict of the path of each layer inside `model` to a dict of its weights by name."""
    layers = collections.defaultdict(dict)
    for weight in model.weights:
        path, _, name = weight.path.rpartition("/")
        if name in layers[path]:
            raise ValueError(
                f"`model` must have one weight of each path. Received: {weight.path!r} twice"
            )
        layers[path][name] = weight
    return dict(layers)


_BLOCK = re.compile(r"stage(\d+)_block(\d+)/(.+)")


def renamed(path, rules, block_rules=(), place=None):
    """The name of a layer by the first rule that matches its path; None for none.

    A rule is a pattern, and a template of the match or a function of its groups. Inside a block,
    `block_rules` match the rest of the path, and `{}` is for `place(stage, block)`.
    """
    block = _BLOCK.fullmatch(path) if block_rules else None
    rules, path = (block_rules, block[3]) if block else (rules, path)
    for pattern, name in rules:
        if match := re.fullmatch(pattern, path):
            name = name(*match.groups()) if callable(name) else match.expand(name)
            return name.replace("{}", place(int(block[1]), int(block[2]))) if block else name
    return None


def assign(model, layout, arrays, *, new_head, adapt_channels):
    """Assigns the arrays of a checkpoint by key, all of them or none.

    `new_head` and `adapt_channels` are as in `load_torch_weights`.
    """
    validation.boolean("new_head", new_head)
    validation.boolean("adapt_channels", adapt_channels)
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
    found = {
        key: array.shape
        for key, array in arrays.items()
        if key in expected or not layout.is_optional(key)
    }
    problems = mismatches(expected, found)
    problems["not of numbers"] = [key for key in expected if not is_numeric(arrays.get(key))]
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


def mismatches(expected, found):
    """The names of arrays whose shapes are not as expected, by what is wrong."""
    return {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name}: expected {shape}, received {found[name]}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    }


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
    """A kernel `(*window, channels, filters)` for another number of channels, as timm does it."""
    if channels == 1:
        return kernel.sum(axis=-2, keepdims=True)
    given = kernel.shape[-2]
    return np.take(kernel, np.arange(channels) % given, axis=-2) * (given / channels)


def _leave_out_head(entries, arrays):
    head = {path: entry for path, entry in entries.items() if _HEAD.match(path)}
    if any(np.shape(arrays.get(entry.key)) != entry.shape for entry in head.values()):
        # With all of a head of several layers: `fc.1.weight` where `fc.weight` would be.
        modules = tuple(re.sub(r"\w+$", "", entry.key) for entry in head.values())
        for path in head:
            del entries[path]
        for key in [key for key in arrays if key.startswith(modules)]:
            del arrays[key]
