"""Networks that are saved, and weights that come from a file."""

import pathlib

import keras
import pytest
from conversions import reloaded
from helpers import assert_close, randomize
from networks import TINY, VARIANTS, outputs_of, quick_model
from trained import images

import keras_resblocks as kr


def test_layer_normalization_of_channels_first_at_the_head_is_loaded(tmp_path):
    options = dict(preactivation=True, normalization="layer", data_format="channels_first")
    model = randomize(quick_model(TINY["residual"], **options))
    loaded = reloaded(model, tmp_path)
    assert_close(outputs_of(loaded, images(model)), outputs_of(model, images(model)), 1e-6)


@pytest.mark.parametrize("kind", TINY)
def test_a_network_is_cloned(kind):
    model = quick_model(TINY[kind], **VARIANTS["v2"])
    clone = keras.models.clone_model(model)
    assert [weight.path for weight in clone.weights] == [weight.path for weight in model.weights]
    clone.set_weights(randomize(model).get_weights())
    assert_close(outputs_of(clone, images(model)), outputs_of(model, images(model)), 1e-6)


@pytest.mark.parametrize(
    ("kind", "as_path"),
    [("residual", str), ("bottleneck", pathlib.Path), ("inception", pathlib.Path)],
)
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
