"""Memory: what its lack looks like on each backend, and how to give it back."""

import gc

import keras
import keras_tuner

# Of TensorFlow and of PyTorch; JAX says it in the message of a general error.
_NAMES = {"ResourceExhaustedError", "OutOfMemoryError", "MemoryError", "OutOfMemoryTrialError"}
_WORDS = (*_NAMES, "RESOURCE_EXHAUSTED", "out of memory", "not enough memory")


class OutOfMemoryTrialError(keras_tuner.errors.FailedTrialError):
    """The trial needed more memory than there is."""


def is_out_of_memory(error):
    """Whether an exception, or the message of one, says that memory ran out."""
    if isinstance(error, str):
        return any(word in error for word in _WORDS)
    names = {parent.__name__ for parent in type(error).__mro__}
    return bool(names & _NAMES) or is_out_of_memory(str(error))


def release():
    """Gives back what the models of a trial held."""
    keras.utils.clear_session(free_memory=True)
    gc.collect()
