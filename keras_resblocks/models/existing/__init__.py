"""Networks that exist already: with other options, and as Keras's own layers."""

from keras_resblocks.models.existing.options import with_options
from keras_resblocks.models.existing.plain import to_plain_keras

__all__ = ["to_plain_keras", "with_options"]
