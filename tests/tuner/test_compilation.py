"""Less waiting for compilers: what is compiled once, and how many steps run at once."""

import contextlib

import keras
import numpy as np
import pytest
from helpers import run_python
from small_search import SMALL_SEARCH

from keras_resblocks import tuner
from keras_resblocks.tuner import compilation

SEARCH = f"""
    import os
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    import keras
    {SMALL_SEARCH.lstrip()}
    if keras.backend.backend() == "jax":
        import jax
        print(jax.config.jax_compilation_cache_dir)
    print(len(os.listdir(os.path.join(sys.argv[1], "untitled_project", "compiled"))))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")
def test_jax_keeps_what_it_compiles_in_the_folder_of_the_search(tmp_path):
    after, files = run_python(SEARCH, str(tmp_path)).split()
    assert after == "None"  # as it was before
    assert int(files) > 0


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")
def test_a_cache_that_is_set_stays(tmp_path):
    import jax

    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    try:
        with compilation.compilation_cache(tmp_path / "ours"):
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="of the others")
def test_nothing_changes_on_another_backend(tmp_path):
    with compilation.compilation_cache(tmp_path / "compiled"):
        pass
    assert not (tmp_path / "compiled").exists()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow alone")
def test_tensorflow_leaves_graphs_as_they_are_within_a_search_alone():
    import tensorflow as tf

    def is_left():
        return tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]

    on_cpu = not tf.config.list_physical_devices("GPU")
    with contextlib.suppress(KeyError), compilation.plain_graphs():
        assert is_left() == on_cpu
        raise KeyError
    assert not is_left()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")
def test_jax_compiles_with_less_care_while_a_model_is_built_alone():
    import jax

    with contextlib.suppress(KeyError), compilation.quick_programs():
        assert jax.config.read("jax_disable_most_optimizations")
        raise KeyError
    assert not jax.config.read("jax_disable_most_optimizations")


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")
def test_the_search_builds_its_models_so(tmp_path):
    import jax

    seen = {"build": [], "fit": []}

    class Watching(tuner.ResNetHyperModel):
        def build(self, hp):
            seen["build"].append(jax.config.read("jax_disable_most_optimizations"))
            return super().build(hp)

        def fit(self, *args, **kwargs):
            seen["fit"].append(jax.config.read("jax_disable_most_optimizations"))
            return super().fit(*args, **kwargs)

    x, y = np.zeros((4, 8, 8, 1), "float32"), np.zeros(4)
    hypermodel = Watching((8, 8, 1), 2, depths=1, widths=4, stages=1)
    engine = tuner.RandomSearch(hypermodel, "loss", max_trials=1, directory=tmp_path)
    engine.search(x, y, verbose=0)
    assert seen == {"build": [True, True], "fit": [False]}  # built once to see the space


@pytest.mark.parametrize(
    ("samples", "batch_size", "expected"),
    [(None, 32, 1), (32, 32, 1), (256, 32, 2), (1149, 32, 9), (60_000, 32, 16), (1, 32, 1)],
)
def test_steps_at_once_suit_the_number_of_samples(samples, batch_size, expected):
    expected = 1 if keras.backend.backend() == "torch" else expected
    assert compilation.steps_per_execution(samples, batch_size) == expected
