"""Memory: what its lack looks like on each backend, and how to give it back."""

import contextlib
import gc
import traceback

import keras
import keras_tuner

# Of TensorFlow and of PyTorch; JAX says it in the message of a general error.
_NAMES = {"ResourceExhaustedError", "OutOfMemoryError", "MemoryError", "OutOfMemoryTrialError"}
_WORDS = (
    *("RESOURCE_EXHAUSTED", "out of memory", "not enough memory", "can't allocate memory"),
    "STATUS_ALLOC_FAILED",  # of cuBLAS and cuDNN
)


class OutOfMemoryTrialError(keras_tuner.errors.FailedTrialError):
    """The trial needed more memory than there is."""


def is_out_of_memory(error):
    """Whether an exception, or the message of one, says that memory ran out."""
    if isinstance(error, str):
        return any(word in error for word in (*_NAMES, *_WORDS))
    names = {parent.__name__ for parent in type(error).__mro__}
    return bool(names & _NAMES) or is_out_of_memory(str(error))


@contextlib.contextmanager
def released():
    """Gives back, at its end, what the models made within it hold.

    Raises:
        OutOfMemoryTrialError: for any error within that says that memory ran out.
    """
    known, shortage = set(_function_gradients()), None
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # whose variables hold the model
        if not is_out_of_memory(error):
            raise
        shortage = f"Out of memory: {error}"
    finally:
        gradients = _function_gradients()
        for name in set(gradients) - known:
            del gradients[name]
        keras.utils.clear_session(free_memory=False)
        gc.collect()
    if shortage:
        raise OutOfMemoryTrialError(shortage)


@contextlib.contextmanager
def quickly_collected():
    """Spares the garbage collector what was there before: the libraries, some 0.2 s each time.

    Where the caller has frozen that already, it stays so.
    """
    gc.collect()
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
