"""That a search can be repeated costs no import."""

import random
import sys

import keras
import numpy as np
import pytest
from helpers import run_python, to_numpy
from small_search import SMALL_SEARCH

from keras_resblocks.tuner.seeding import seed_all

SEARCH = f"""{SMALL_SEARCH}
    print("tensorflow" in sys.modules)
"""


def draws():
    """Of every generator that training draws from."""
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    dropped = keras.layers.Dropout(0.5)(np.ones((1, 20), "float32"), training=True)
    keras_own = keras.random.normal((3,))
    drawn = [random.random(), *np.random.rand(3)]
    for tensor in (layer.kernel, dropped, keras_own):
        drawn.extend(to_numpy(tensor).ravel())
    if keras.backend.backend() == "torch":
        import torch

        drawn.extend(torch.rand(3).tolist())
    return drawn


@pytest.mark.parametrize("has_tensorflow", [True, False])
def test_seeds_are_those_of_keras(has_tensorflow, monkeypatch):
    if not has_tensorflow:
        if keras.backend.backend() == "tensorflow":
            pytest.skip("TensorFlow is the backend")
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    drawn = []
    for seed in (keras.utils.set_random_seed, seed_all, seed_all):
        keras.utils.clear_session(free_memory=False)  # as a search does before it builds
        seed(5)
        drawn.append(draws())
    assert drawn[0] == drawn[1] == drawn[2]
    seed_all(6)
    assert draws() != drawn[0]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="of the others")
def test_a_search_on_another_backend_does_not_import_tensorflow(tmp_path):
    assert run_python(SEARCH, str(tmp_path)).split() == ["False"]
