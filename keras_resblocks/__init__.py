"""Residual and inception blocks for Keras 3, and the networks built from them."""

import pathlib
import sys

__version__ = "0.2.0"


def _is_command_line():
    """Whether this process is `python -m keras_resblocks` or `keras-resblocks`."""
    command = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    name = pathlib.PurePath(*command[-1:]).name.removesuffix(".exe")
    return name == "keras-resblocks" or command[-2:] == ["-m", __name__]


# The command line reads its arguments before it imports Keras, which takes seconds.
if not _is_command_line():
    from keras_resblocks import api, layers as layers, models as models, training as training  # isort: skip
    from keras_resblocks.api import *  # noqa: F403

    __all__ = api.__all__
