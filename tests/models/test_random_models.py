"""Random models, saved on one backend and loaded on the others: whatever options meet."""

import random

import keras
import numpy as np
import pytest
from helpers import (
    BACKENDS,
    is_installed,
    make_block,
    random_array,
    randomize,
    run_python,
    to_numpy,
)

from keras_resblocks.layers import AdaptiveAveragePooling, ConvUnit, Pooling

MODELS = 40
OTHERS = [name for name in BACKENDS if name != keras.backend.backend()]

LOAD = """
    import pathlib
    import sys

    import keras
    import numpy as np

    import keras_resblocks

    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
        data = np.load(path.with_suffix(".npz"))
        y = keras.ops.convert_to_numpy(keras.models.load_model(path)(data["x"]))
        error = np.abs(y - data["y"]).max() / np.abs(data["y"]).max()
        print(path.stem, y.shape == data["y"].shape and error < 1e-4, error)
"""

OPTIONS = {
    "activation": ("relu", "elu", "gelu", "silu", None, keras.layers.LeakyReLU(0.2)),
    "normalization": ("batch", "layer", "group", "instance", None),
    "shortcut": ("projection", "projection_always", "zero_pad", "avg_pool"),
    "preactivation": (False, True),
    "attention": (None, "squeeze_excite", "efficient_channel"),
    "drop_path_rate": (0.0, 0.2),
    "padding": ("symmetric", "same"),
    "use_bias": (None, True),
    "kernel_regularizer": (None, "l2"),
    "fused": (True, False),
    "remat": (False, True),
}
UNIT_OPTIONS = ("activation", "normalization", "padding", "use_bias")


def random_layer(rng):
    options = {name: rng.choice(values) for name, values in OPTIONS.items()}
    strides = rng.choice((1, 1, 2, 3))
    if rng.random() < 0.2:
        kind, size = rng.choice(("max", "avg")), rng.choice((2, 3))
        return Pooling(kind, max(size, strides), strides, padding=options["padding"])
    if rng.random() < 0.2:
        unit = {name: options[name] for name in UNIT_OPTIONS}
        return ConvUnit(4, rng.choice((1, 2, 3)), strides, groups=rng.choice((1, 2)), **unit)
    if strides == 1 and rng.random() < 0.3:
        options["dilation_rate"] = 2
    kind = rng.choice(("residual", "bottleneck", "inception"))
    if kind != "inception":
        options["groups"] = rng.choice((1, 2))
    return make_block(kind, rng.choice((4, 8)), strides, **options)


def random_model(rng):
    rank = rng.choice((1, 2, 2, 3))
    x = inputs = keras.Input((*(rng.choice((7, 9, 12)) for _ in range(rank)), 4))
    for _ in range(rng.choice((1, 2, 3))):
        layer = random_layer(rng)
        try:
            x = layer(x)
        except ValueError:  # as of channels that a shortcut cannot take away
            continue
    if rng.random() < 0.2:
        x = AdaptiveAveragePooling(2)(x)
    return randomize(keras.Model(inputs, x), seed=rng.randrange(1000))


@pytest.mark.slow
def test_random_models_are_the_same_on_every_backend(tmp_path):
    installed = [name for name in OTHERS if is_installed(name)]
    if not installed:
        pytest.skip("no other backend is installed")
    rng = random.Random(0)
    for i in range(MODELS):
        model = random_model(rng)
        x = random_array((2, *model.input_shape[1:]))
        model.save(tmp_path / f"{i:02}.keras")
        np.savez(tmp_path / f"{i:02}.npz", x=x, y=to_numpy(model(x)))
    for backend in installed:
        lines = run_python(LOAD, tmp_path, backend=backend).splitlines()
        assert len(lines) == MODELS
        assert [line for line in lines if " True " not in line] == []
