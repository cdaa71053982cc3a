"""Networks that are saved, and weights that come from a file."""

import pathlib

import keras
import numpy as np
import pytest
from helpers import assert_close, random_array, randomize, run_python, to_numpy
from networks import TINY, outputs_of, quick_model

import keras_resblocks as kr

tiny = pytest.mark.parametrize("kind", TINY)

VARIANTS = {
    "v1": {"activation": "elu", "kernel_regularizer": "l2"},
    "v2": {
        "preactivation": True,
        "activation": keras.layers.PReLU(shared_axes=[1, 2]),
        "normalization": "group",
        "attention": "squeeze_excite",
        "kernel_regularizer": keras.regularizers.L1L2(1e-3, 1e-2),
        "shortcut": kr.shortcuts.ProjectionShortcut(use_bias=True, normalization=None),
    },
}

RELOADED = (
    ("bottleneck", "v2"),
    ("inception", "v1"),
    ("inception", "v2"),
    ("residual", "v1"),
)

RELOAD = """
    import pathlib
    import sys

    import keras
    import numpy as np

    import keras_resblocks

    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
        model = keras.models.load_model(path)
        data = np.load(path.with_suffix(".npz"))
        outputs = model.predict_on_batch(data["x"])
        np.testing.assert_allclose(outputs, data["y"], rtol=1e-5, atol=1e-5)
        losses = [float(keras.ops.convert_to_numpy(loss)) for loss in model.losses]
        np.testing.assert_allclose(losses, data["losses"], rtol=1e-5)
        print(model.name, len(losses), keras_resblocks.cost(model).params)
"""


def images(model):
    return random_array((2, *model.input_shape[1:]))


def test_networks_reload_in_a_fresh_process(tmp_path):
    expected = []
    for kind, variant in RELOADED:
        name = f"{kind}_{variant}"
        model = randomize(quick_model(TINY[kind], name=name, **VARIANTS[variant]))
        x = images(model)
        losses = [float(to_numpy(loss)) for loss in model.losses]
        assert losses
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", x=x, y=outputs_of(model, x), losses=losses)
        expected.append(f"{name} {len(losses)} {kr.cost(model).params}")
    assert run_python(RELOAD, tmp_path).splitlines() == expected


def test_layer_normalization_of_channels_first_at_the_head_is_loaded(tmp_path):
    options = dict(preactivation=True, normalization="layer", data_format="channels_first")
    model = randomize(quick_model(TINY["residual"], **options))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(outputs_of(loaded, images(model)), outputs_of(model, images(model)), 1e-6)


@tiny
def test_a_network_is_cloned(kind):
    model = quick_model(TINY[kind], **VARIANTS["v2"])
    clone = keras.models.clone_model(model)
    assert [weight.path for weight in clone.weights] == [weight.path for weight in model.weights]
    clone.set_weights(randomize(model).get_weights())
    assert_close(outputs_of(clone, images(model)), outputs_of(model, images(model)), 1e-6)


@tiny
@pytest.mark.parametrize("as_path", [str, pathlib.Path])
def test_weights_come_from_a_file(kind, as_path, tmp_path):
    path = as_path(tmp_path / "network.weights.h5")
    model = randomize(quick_model(TINY[kind]))
    model.save_weights(path)
    loaded = quick_model(TINY[kind], weights=path)
    assert_close(outputs_of(loaded, images(model)), outputs_of(model, images(model)), 0)


def test_weights_of_another_network_do_not_load(tmp_path):
    path = tmp_path / "network.weights.h5"
    quick_model(TINY["residual"]).save_weights(path)
    with pytest.raises(ValueError, match=r"shape|layers|variables"):
        quick_model(TINY["residual"], weights=path, kernel_size=5)


def test_a_file_of_another_kind_does_not_load(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no weights")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        kr.create_model(TINY["residual"], weights=path)
