"""What the tests of checkpoints share: networks, comparisons, and files that are damaged."""

import sys

import numpy as np
import pytest
from helpers import refusal, to_numpy

import keras_resblocks as kr


def create(spec, **arguments):
    """A network whose kernels are zero, which JAX need not compile an initializer for."""
    return kr.create_model(spec, **{"kernel_initializer": "zeros", **arguments})


def by_path(model):
    """A copy of the weights."""
    return {weight.path: to_numpy(weight).copy() for weight in model.weights}


def without_head(values):
    return {path: value for path, value in values.items() if not path.startswith("head/")}


def fitted(kernel, channels):
    """A first kernel for another number of channels: repeated and scaled, or summed."""
    given = kernel.shape[-2]
    if channels == 1:
        return kernel.sum(axis=-2, keepdims=True)
    return kernel.take(np.arange(channels) % given, axis=-2) * np.float32(given / channels)


def assert_same(model, expected, near=()):
    """The very same weights as of a model, or by path; those of the paths `near` are rounded."""
    values = expected if isinstance(expected, dict) else by_path(expected)
    weights = by_path(model)
    assert {*weights} == {*values}
    for path, value in values.items():
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if path in near else {"rtol": 0}
        np.testing.assert_allclose(weights[path], value, err_msg=path, **tolerance)


def assert_refused(model, load, parts):
    """A message holds `parts`, and the model is as it was."""
    before = by_path(model)
    refusal(lambda: load(model), parts, r"(?s)`weights`.*Received: ")
    assert_same(model, before)


def assert_needs(package, use):
    """Without the package, the error says how to install it."""
    message = rf"`{package}`.*pip install {package} .*keras-resblocks\["
    with pytest.MonkeyPatch.context() as patch:
        for name in (package, f"{package}.numpy"):
            patch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=message):
            use()


# What is done to the bytes of a good file.
DAMAGE = {
    "cut at the beginning": lambda data: data[: len(data) // 50],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut at the end": lambda data: data[: int(0.999 * len(data))],
    "empty": lambda data: b"",
    "a text": lambda data: b"no weights at all\n" * 99,
}


def damaged(path, damage):
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    return path
