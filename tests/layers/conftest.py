import keras
import pytest


@pytest.fixture(autouse=True)
def _products_of_any_size(monkeypatch):
    """On JAX, layers as small as in tests are computed as the large ones are."""
    if keras.backend.backend() == "jax":
        monkeypatch.setattr("keras_resblocks.layers.fused.jax._FEWEST_MACS", 0)
