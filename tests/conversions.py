"""What a model must have in common with its plain form, and with what is folded."""

import itertools
import re
import warnings

import keras
import numpy as np
from helpers import assert_close, random_array, snapshot
from trained import assert_equal_outputs, normalizations

import keras_resblocks as kr
from keras_resblocks.models.graphs import functional


def converted(model, convert):
    """What it becomes; the model itself is left as it is."""
    before = snapshot(model)
    result = convert(model)
    for weight, value in zip(snapshot(model), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    return result


def inputs_of(model, batch=2):
    """Random arrays, in the structure of its inputs."""
    seeds = itertools.count()  # no two inputs are alike
    return keras.tree.map_structure(
        lambda x: random_array((batch, *x.shape[1:]), next(seeds)), functional(model).input
    )


def reloaded(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def assert_saves(model, path):
    for weight, other in zip(model.weights, reloaded(model, path).weights, strict=True):
        assert weight.path == other.path
        assert_close(weight, other, 0)


# The plain form.


def operations_of(layer):
    """The layer, and all layers and operations inside it."""
    yield layer
    inside = [layer.layer] if hasattr(layer, "layer") else getattr(layer, "operations", [])
    for operation in inside:
        yield from operations_of(operation)


def plain_of(model):
    plain = converted(model, kr.to_plain_keras)
    modules = {type(operation).__module__.split(".")[0] for operation in operations_of(plain)}
    assert "keras_resblocks" not in modules
    assert not re.search(r"keras_resblocks[.>]", plain.to_json())
    assert len(plain.weights) == len(model.weights)
    return plain


def assert_plain(model, inputs, path=None, tolerance=1e-5):
    """The plain form, with equal outputs; also when it is saved in a folder and loaded."""
    plain = plain_of(model)
    for one in (plain, reloaded(plain, path)) if path else (plain,):
        assert_equal_outputs(model, one, inputs, tolerance)
    return plain


def plain_path(path):
    """The path of a weight in the plain model, from the one in the model."""
    *names, weight = re.sub("(?<!attention)/conv/", "/", path).split("/")
    return "_".join(names) + "/" + weight


def assert_equal_weights(model, plain, tolerance=0):
    expected = {plain_path(weight.path): weight for weight in model.weights}
    assert sorted(weight.path for weight in plain.weights) == sorted(expected)
    for weight in plain.weights:
        assert_close(weight, expected[weight.path], tolerance)


# Folding.


def entries(model):
    """The batch normalizations that no convolution stands before."""
    return [p for p in normalizations(model) if p.endswith("/entry_norm") or p == "head_norm"]


def folded(model, left=()):
    """The folded model, in which these normalizations must be left."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = converted(model, kr.fold_batch_norm)
    reports = [str(w.message) for w in caught if "batch normalizations are left" in str(w.message)]
    assert normalizations(result) == list(left)
    assert len(reports) == bool(left)
    assert all(path in reports[0] for path in left[:8])
    return result


def assert_folds(model, inputs, left=()):
    """The folded model, with equal outputs."""
    result = folded(model, left)
    assert_equal_outputs(model, result, inputs)
    return result
