"""Memory: how each backend says that it ran out, and how to give it back after a trial."""

import contextlib
import gc
import re

import keras

# The exceptions of TensorFlow, PyTorch and Python; JAX says it in the message of a general one.
_SHORTAGE = re.compile(
    r"\b(ResourceExhaustedError|OutOfMemoryError|MemoryError)\b"
    r"|RESOURCE_EXHAUSTED|out of memory|not enough memory|can't allocate memory"
    r"|STATUS_ALLOC_FAILED"  # of cuBLAS and cuDNN
)


def is_out_of_memory(error):
    """Whether an exception, or a traceback as text, says that memory ran out."""
    if not isinstance(error, str):
        names = " ".join(parent.__name__ for parent in type(error).__mro__)
        error = f"{names}: {error}"
    return bool(_SHORTAGE.search(error))


@contextlib.contextmanager
def only_new_garbage():
    """A context in which garbage is looked for among what was made within it.

    Keras and KerasTuner look for it before each trial; with TensorFlow imported, that took 0.6 s,
    a tenth of a short search.
    """
    if gc.get_freeze_count():  # by somebody else, whom `unfreeze` would surprise
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def held():
    """What TensorFlow holds for good at this moment, for `release`."""
    return set(_function_gradients())


def release(known):
    """Drops what TensorFlow would hold for good of models trained since `known` was `held()`."""
    gradients = _function_gradients()
    for name in set(gradients) - known:
        del gradients[name]


def _function_gradients():
    """TensorFlow's registry of the gradients of functions; empty on another backend.

    A function that is called inside another one, as Keras's train step is, gets an entry there
    that nothing ever removes: it would keep the graph of each trained model for good (20 MB
    for a small one). TensorFlow has no public way to it.
    """
    if keras.backend.backend() != "tensorflow":
        return {}
    try:
        from tensorflow.python.framework.ops import gradient_registry

        return gradient_registry._registry
    except (ImportError, AttributeError):  # as it is called in TensorFlow 2.18 to 2.21
        return {}
