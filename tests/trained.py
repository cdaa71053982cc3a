"""Models as after training, without training."""

import dataclasses
import math

import keras
import numpy as np
from helpers import to_numpy

import keras_resblocks as kr
from keras_resblocks.models.published import get_spec


def trained(model, seed=0):
    """`model` with weights and statistics that are neither trivial nor explode with depth."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name.endswith(("variance", "gamma")):
            value = rng.uniform(0.5, 1.0, weight.shape)
        elif weight.name.endswith("kernel"):
            fan_in = math.prod(weight.shape[:-1])
            value = rng.standard_normal(weight.shape, "float32") * math.sqrt(2 / fan_in)
        else:
            value = rng.normal(0, 0.1, weight.shape)
        weight.assign(value.astype("float32"))
    return model


def network(name_or_spec, **arguments):
    """A trained network; its own initializers, which JAX would compile, are not run."""
    arguments = {"kernel_initializer": "zeros", "classifier_activation": None, **arguments}
    return trained(kr.create_model(name_or_spec, **arguments))


def shrunk(name):
    """The spec of a published network with each of its distinct blocks once, and narrow."""
    spec = get_spec(name)
    if isinstance(spec, kr.InceptionSpec):
        stages = tuple(tuple(dict.fromkeys(stage)) for stage in spec.stages)
        return dataclasses.replace(spec, stages=stages, aux_heads=())
    width = 32 if "groups" in spec.options else 16
    depths = tuple(min(depth, 2) for depth in spec.depths)
    return dataclasses.replace(spec, depths=depths, width=width)


# Of the published networks that differ in more than depth and width, the first.
DISTINCT = sorted({repr(shrunk(name)): name for name in reversed(kr.list_models())}.values())


def images(model, batch=2, spatial=(), seed=0):
    """Random images for a model of one input, `spatial` where its sizes are open."""
    sizes = iter(spatial)
    shape = [next(sizes) if n is None else n for n in model.input_shape[1:]]
    return np.random.default_rng(seed).normal(size=(batch, *shape)).astype("float32")


def outputs_of(model, inputs):
    """The outputs as a list of arrays; by one compilation on JAX, which is slow layer by layer."""
    if keras.backend.backend() == "jax":
        outputs = model.predict_on_batch(inputs)
    else:
        outputs = model(inputs, training=False)
    return [to_numpy(y) for y in keras.tree.flatten(outputs)]


def assert_equal_outputs(one, other, inputs, tolerance=1e-4):
    """The outputs differ by no more than that share of the largest."""
    for a, b in zip(outputs_of(one, inputs), outputs_of(other, inputs), strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a).max() > 0
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * np.abs(a).max())


def normalizations(model):
    """The paths of the batch normalizations."""
    return [w.path.rpartition("/")[0] for w in model.weights if w.name == "moving_variance"]
