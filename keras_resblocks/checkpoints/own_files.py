"""Our own `.weights.h5` files, also for other classes and channels."""

import collections
import os
import re
import shutil
import tempfile

from keras_resblocks.checkpoints import files
from keras_resblocks.checkpoints.layout import (
    Entry,
    Layout,
    fitted_kernel,
    layers_of,
    raise_problems,
)

# Keras names layers in the file by class and number; dense layers are classifiers only.
_DENSE = re.compile(r"layers/dense(_\d+)?/")


def own_layout(model):
    """The `Layout` of another model of ours: the same paths."""
    entries = {
        weight.path: Entry(weight.path, tuple(weight.shape))
        for weights in layers_of(model).values()
        for weight in weights.values()
    }
    present = {path.partition("/")[0] for path in entries}

    def is_optional(key):
        layer = key.partition("/")[0]
        return layer not in present and bool(re.fullmatch(r"head|aux\d+_\w+", layer))

    return Layout(entries, is_optional=is_optional)


def load_own_weights(model, path, *, new_head, adapt_channels):
    """Loads a `.weights.h5` file, all of it or nothing.

    A file that does not fit as it is gets a copy that does: with the model's own classifier, or
    its first kernel for another number of channels.
    """
    with tempfile.TemporaryDirectory() as folder:
        as_is = os.path.join(folder, "model.weights.h5")
        model.save_weights(as_is)
        expected, found = files.weights_h5_shapes(as_is), files.weights_h5_shapes(path)
        left_out, from_model, kernels = [], [], {}
        head = [name for name in expected if _DENSE.match(name)]
        if not head:
            left_out = [name for name in found if _DENSE.match(name)]
        elif new_head and any(found.get(name) != expected[name] for name in head):
            left_out = [name for name in found if _DENSE.match(name)]
            from_model = head
        if adapt_channels:
            kernels = _first_kernels(model, expected, found)
        fitted = {name: shape for name, shape in found.items() if name not in left_out}
        fitted.update({name: expected[name] for name in (*from_model, *kernels)})
        _check(expected, fitted)
        if left_out or from_model or kernels or not str(path).endswith(".weights.h5"):
            copy = shutil.copy(path, os.path.join(folder, "fitted.weights.h5"))
            _change(copy, as_is, left_out, from_model, kernels)
            path = copy
        model.load_weights(path)


def _check(expected, found):
    raise_problems(
        {
            "missing": [name for name in expected if name not in found],
            "unexpected": [name for name in found if name not in expected],
            "of another shape": [
                f"{name}: expected {shape}, received {found[name]}"
                for name, shape in expected.items()
                if found.get(name, shape) != shape
            ],
        }
    )


def _first_kernels(model, expected, found):
    """Dict of the names of kernels that see another number of channels to that of the model."""
    counts, groups = collections.Counter(), {}
    for layer in model.layers:
        kind = _snake_case(type(layer).__name__)
        groups[layer.name] = f"layers/{kind}_{counts[kind]}/" if counts[kind] else f"layers/{kind}/"
        counts[kind] += 1
    first = next(layer for layer in model.layers if any(len(w.shape) > 1 for w in layer.weights))
    shapes = [w.shape for w in first.weights if w.path.endswith("/kernel") and len(w.shape) > 2]
    channels = shapes[0][-2] if shapes else None
    kernels = {}
    for name, ours in expected.items():
        theirs = found.get(name) or ()
        if name.startswith(groups[first.name]) and len(theirs) == len(ours) > 2:
            sees_the_image = ours[-2] == channels
            others_fit = (*theirs[:-2], theirs[-1]) == (*ours[:-2], ours[-1])
            if sees_the_image and others_fit and 0 != theirs[-2] != ours[-2]:
                kernels[name] = ours[-2]
    return kernels


def _snake_case(name):
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _change(path, model_path, left_out, from_model, kernels):
    """Changes a file: takes names out, copies some from another file, and fits kernels."""
    import h5py

    with h5py.File(path, "a") as file, h5py.File(model_path, "r") as model_file:
        for name in left_out:
            del file[name]
        for name in from_model:
            if name in file:
                del file[name]
            file[name] = model_file[name][()]
        for name, channels in kernels.items():
            kernel = fitted_kernel(file[name][()], channels)
            del file[name]
            file[name] = kernel
