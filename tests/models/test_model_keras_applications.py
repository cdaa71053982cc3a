"""`resnet50_keras` and `resnet50v2_keras` compute what keras.applications computes."""

import re

import keras
import numpy as np
import pytest
from helpers import random_array, to_numpy
from networks import by_path, outputs_of, quick_model

# The paths of keras.applications' weights, and ours.
RENAMES = (
    (r"conv1_conv/", "stem_conv1/conv/"),
    (r"conv1_bn/", "stem_conv1/norm/"),
    (r"conv(\d)_block(\d+)_0_conv/", r"stage\1_block\2/shortcut/conv/"),
    (r"conv(\d)_block(\d+)_0_bn/", r"stage\1_block\2/shortcut/norm/"),
    (r"conv(\d)_block(\d+)_(\d)_conv/", r"stage\1_block\2/conv\3/conv/"),
    (r"conv(\d)_block(\d+)_(\d)_bn/", r"stage\1_block\2/conv\3/norm/"),
    (r"conv(\d)_block(\d+)_preact_bn/", r"stage\1_block\2/entry_norm/"),
    (r"post_bn/", "head_norm/"),
    (r"predictions/", "head/"),
)


def our_path(path):
    for pattern, name in RENAMES:
        if re.match(pattern, path):
            path = re.sub(pattern, name, path)
            break
    # Their first stage of blocks is called conv2.
    return re.sub(r"stage(\d)", lambda match: f"stage{int(match[1]) - 1}", path)


def random_value(weight, rng):
    if weight.name == "kernel":
        return to_numpy(weight)  # keeps the signal's size; it is random already
    if weight.name in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, weight.shape)
    return 0.1 * rng.normal(size=weight.shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet50_keras", keras.applications.ResNet50),
        ("resnet50v2_keras", keras.applications.ResNet50V2),
    ],
)
@pytest.mark.parametrize("size", [64, 75])
def test_outputs_are_those_of_keras_applications(name, published, size):
    arguments = {"input_shape": (size, size, 3), "classes": 7, "classifier_activation": None}
    theirs = published(weights=None, **arguments)
    ours = quick_model(name, **arguments)
    weights, rng = by_path(ours), np.random.default_rng(0)
    assert {our_path(weight.path) for weight in theirs.weights} == set(weights)
    for weight in theirs.weights:
        value = random_value(weight, rng)
        weight.assign(value)
        weights[our_path(weight.path)].assign(value)

    x = random_array((2, size, size, 3))
    expected = outputs_of(theirs, x)
    assert np.ptp(expected, axis=0).min() > 0  # the images are told apart
    error = np.abs(outputs_of(ours, x) - expected).max() / np.abs(expected).max()
    assert error < 1e-4
