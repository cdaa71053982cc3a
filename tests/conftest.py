import collections
import gc
import math
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow has channels-first convolutions on a CPU by oneDNN only, which it takes by itself where
# there is AVX-512. Processes that tests start are as a user's: small networks train faster without.
with pytest.MonkeyPatch.context() as environment:
    if "TF_ENABLE_ONEDNN_OPTS" not in os.environ:
        environment.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    # With several threads, two trainings of a stock model on PyTorch may differ by 1e-3.
    environment.setenv("OMP_NUM_THREADS", "1")
    import keras

BACKENDS = ("tensorflow", "jax", "torch")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    """Of a test with many cases, a sixth is quick, at least four: others on each backend."""
    tests = collections.defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        step = math.ceil(len(cases) / max(4, len(cases) // 6))
        first = BACKENDS.index(keras.backend.backend()) % step
        for number, case in enumerate(cases):
            if number % step != first:
                case.add_marker("slow")


@pytest.fixture(scope="module", autouse=True)
def _no_library_is_searched_for_garbage():
    """Nor is what earlier modules have left: a backend keeps the graphs of all their models."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_keras_state():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
