"""Our own `.weights.h5` files, also for other classes and channels."""

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
    mismatches,
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

    If the classifier or the channels differ, Keras reads a copy of the file that is made to fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = os.path.join(folder, "own.weights.h5")
        model.save_weights(own)
        expected, found = files.weights_h5_shapes(own), files.weights_h5_shapes(path)
        head = [name for name in expected if _DENSE.match(name)]
        is_other_head = new_head and any(found.get(name) != expected[name] for name in head)
        left_out = []
        if is_other_head or not head:
            left_out = [name for name in found if _DENSE.match(name)]
        from_model = head if is_other_head else []
        kernels = _first_kernels(model, expected, found) if adapt_channels else {}
        fitted = {name: shape for name, shape in found.items() if name not in left_out}
        fitted.update({name: expected[name] for name in (*from_model, *kernels)})
        raise_problems(mismatches(expected, fitted))
        if left_out or from_model or kernels or not str(path).endswith(".weights.h5"):
            path = shutil.copy(path, os.path.join(folder, "fitted.weights.h5"))
            _change(path, own, left_out, from_model, kernels)
        model.load_weights(path)


def _first_kernels(model, expected, found):
    """Dict of the kernels that see another number of channels in the file to that of the model."""
    shapes = [w.shape for w in model.weights if w.path.endswith("/kernel") and len(w.shape) > 2]
    channels = shapes[0][-2] if shapes else None
    kernels = {}
    for name, ours in expected.items():
        theirs = found.get(name) or ()
        if len(theirs) == len(ours) > 2 and ours[-2] == channels:
            others_fit = (*theirs[:-2], theirs[-1]) == (*ours[:-2], ours[-1])
            if others_fit and 0 != theirs[-2] != channels:
                kernels[name] = channels
    return kernels


def _change(path, own, left_out, from_model, kernels):
    """Takes names out of a file, copies some from the model's own, and fits kernels."""
    import h5py

    with h5py.File(path, "a") as file, h5py.File(own, "r") as own_file:
        arrays = {name: files.weights_h5_array(own_file[name]) for name in from_model}
        for name, channels in kernels.items():
            arrays[name] = fitted_kernel(files.weights_h5_array(file[name]), channels)
        for name in {*left_out, *arrays}:
            if name in file:
                del file[name]
        for name, array in arrays.items():
            file[name] = array
