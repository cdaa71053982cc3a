"""Networks that exist already: as blocks, with other options, and as Keras's own layers."""

from keras_resblocks.models.existing.options import with_options
from keras_resblocks.models.existing.plain import to_plain_keras
from keras_resblocks.models.existing.recognition import from_keras

__all__ = ["from_keras", "to_plain_keras", "with_options"]
