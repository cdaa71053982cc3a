"""Models that exist already: with other options."""

from keras_resblocks.models.existing.options import with_options

__all__ = ["with_options"]
