"""Keras, imported once the arguments are read, on the backend that they name."""

import contextlib
import importlib.util
import os
import sys
import tempfile


def start(chosen=None):
    """Imports the package on the chosen backend, or Keras's own choice; the backend's name."""
    if chosen and importlib.util.find_spec(chosen) is None:
        raise ValueError(f"`--backend` must be installed. Received: {chosen}")
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.update({"KERAS_BACKEND": chosen} if chosen else {})
        with _without_noise():
            import keras
    import keras

    from keras_resblocks import api as api  # which registers what a saved model may hold

    running = keras.backend.backend()
    if chosen not in (None, running):
        raise ValueError(f"`--backend` must be that of this process, {running}. Received: {chosen}")
    return running


def import_tensorflow():
    """Imports TensorFlow where it is installed, as Keras does on any backend to save a model."""
    if importlib.util.find_spec("tensorflow"):
        with _without_noise():
            import tensorflow as tensorflow  # now, as its noise cannot be hidden later


@contextlib.contextmanager
def _without_noise():
    """Hides what TensorFlow prints at its import at any log level, unless that fails."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(shown, hidden.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
