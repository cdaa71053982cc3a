"""Models that are saved are the same in another process, and on the other backends."""

import random

import keras
import numpy as np
import pytest
from helpers import BACKENDS, is_installed, make_block, randomize, run_python, to_numpy
from networks import TINY, VARIANTS, quick_model
from trained import images

import keras_resblocks as kr
from keras_resblocks.layers import AdaptiveAveragePooling, ConvUnit, Pooling

LOAD = """
    import pathlib
    import sys

    import keras
    import numpy as np

    import keras_resblocks

    folder, tolerance = sys.argv[1:]
    for path in sorted(pathlib.Path(folder).glob("*.keras")):
        data = np.load(path.with_suffix(".npz"))
        model = keras.models.load_model(path)
        y = keras.ops.convert_to_numpy(model(data["x"]))
        assert y.shape == data["y"].shape
        error, scale = np.abs(y - data["y"]).max(), np.abs(data["y"]).max()
        assert error <= float(tolerance) * scale, (path, error, scale)
        losses = [float(keras.ops.convert_to_numpy(loss)) for loss in model.losses]
        np.testing.assert_allclose(losses, data["losses"], rtol=1e-5)
        print(model.name, len(losses), keras_resblocks.cost(model).params)
"""


def save(model, folder):
    """Saves a model and what it computes; returns the line that `LOAD` prints of it."""
    x = images(model)
    losses = [float(to_numpy(loss)) for loss in model.losses]
    model.save(folder / f"{model.name}.keras")
    np.savez(folder / f"{model.name}.npz", x=x, y=to_numpy(model(x)), losses=losses)
    return f"{model.name} {len(losses)} {kr.cost(model).params}"


NETWORKS = (("bottleneck", "v2"), ("inception", "v1"), ("inception", "v2"), ("residual", "v1"))


def test_networks_reload_in_a_fresh_process(tmp_path):
    models = [
        randomize(quick_model(TINY[kind], name=f"{kind}_{variant}", **VARIANTS[variant]))
        for kind, variant in NETWORKS
    ]
    assert all(model.losses for model in models)
    expected = [save(model, tmp_path) for model in models]
    assert run_python(LOAD, tmp_path, 4e-5).splitlines() == expected


# Models in which any options meet.

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


def random_model(rng, name):
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
    return randomize(keras.Model(inputs, x, name=name), seed=rng.randrange(1000))


@pytest.mark.slow
def test_random_models_are_the_same_on_every_backend(tmp_path):
    others = [b for b in BACKENDS if b != keras.backend.backend() and is_installed(b)]
    if not others:
        pytest.skip("no other backend is installed")
    rng = random.Random(0)
    expected = [save(random_model(rng, f"model{i:02}"), tmp_path) for i in range(40)]
    for backend in others:
        assert run_python(LOAD, tmp_path, 1e-4, backend=backend).splitlines() == expected
