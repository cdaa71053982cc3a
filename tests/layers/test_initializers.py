"""How the kernels of blocks begin."""

import re

import keras
import numpy as np
import pytest
from helpers import BLOCKS, assert_close, make_block, shape_of, to_numpy

import keras_resblocks as kr

SHAPES = {
    "dense": (300, 64),
    "conv1d": (5, 48, 64),
    "conv2d": (3, 3, 32, 64),
    "conv2d of few channels": (7, 7, 3, 64),
    "conv3d": (3, 3, 3, 16, 32),
    "bias": (4096,),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_distribution_is_that_of_keras(shape):
    ours = to_numpy(kr.NumpyHeNormal(seed=1)(shape))
    keras_own = to_numpy(keras.initializers.HeNormal(seed=1)(shape))
    assert ours.shape == shape
    deviation = float(keras_own.std())
    assert ours.std() == pytest.approx(deviation, rel=0.03)
    assert abs(ours.mean()) < 0.05 * deviation
    assert np.abs(ours).max() == pytest.approx(float(np.abs(keras_own).max()), rel=0.03)  # cut off
    for share in (0.1, 0.25, 0.4):
        quantile = float(np.quantile(keras_own, share))
        assert np.quantile(ours, share) == pytest.approx(quantile, abs=0.07 * deviation)


def test_equal_seeds_give_equal_values():
    # These on every backend.
    values = to_numpy(kr.NumpyHeNormal(seed=1)((2, 2)))
    assert_close(values, [[1.9657266, -1.6239334], [1.1683888, 2.1396251]])
    assert not np.allclose(values, to_numpy(kr.NumpyHeNormal(seed=2)((2, 2))))


def test_without_a_seed_each_one_draws_its_own():
    initializer = kr.NumpyHeNormal()
    values = [to_numpy(i((3, 4))) for i in (initializer, initializer.clone())]
    assert not np.allclose(*values)
    keras.utils.set_random_seed(3)
    one = to_numpy(kr.NumpyHeNormal()((3, 4)))
    keras.utils.set_random_seed(3)
    assert_close(to_numpy(kr.NumpyHeNormal()((3, 4))), one)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", None])
def test_dtype_is_the_one_asked_for(dtype):
    values = kr.NumpyHeNormal(seed=1)((3, 3, 4, 8), dtype)
    assert keras.backend.standardize_dtype(values.dtype) == (dtype or keras.config.floatx())


def test_it_comes_back_from_its_config():
    initializer = kr.NumpyHeNormal(seed=7)
    again = keras.initializers.get(keras.initializers.serialize(initializer))
    assert type(again) is kr.NumpyHeNormal
    assert_close(to_numpy(again((3, 4))), to_numpy(initializer((3, 4))))


@pytest.mark.parametrize("seed", [-1, 0.5, True, "1"])
def test_another_seed_is_refused(seed):
    message = f"`seed` must be a non-negative integer. Received: seed={seed!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        kr.NumpyHeNormal(seed)


@pytest.mark.parametrize("kind", BLOCKS)
def test_kernels_of_blocks_begin_so_unless_told_otherwise(kind):
    assert type(make_block(kind).kernel_initializer) is kr.NumpyHeNormal
    other = make_block(kind, kernel_initializer="he_normal").kernel_initializer
    assert type(other) is keras.initializers.HeNormal


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")
@pytest.mark.parametrize(
    ("options", "expected"), [({}, 0), ({"kernel_initializer": "he_normal"}, 1)]
)
def test_jax_compiles_nothing_for_the_shape_of_a_kernel(options, expected):
    import jax

    compiled = []

    def note(event, seconds, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        kr.ResidualBlock(11, **options).build(shape_of(channels=11))
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert sum("truncated_normal" in name for name in compiled) == expected
