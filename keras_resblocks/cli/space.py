"""The search space that the options of a search describe."""

import contextlib

from keras_resblocks import tuner
from keras_resblocks.cli.options import LISTS, SETTINGS
from keras_resblocks.tuner import Range

HYPERMODELS = {"resnet": tuner.ResNetHyperModel, "inception": tuner.InceptionHyperModel}
_WORDS = {"none": None, "true": True, "false": False}


def space_of(options):
    """The arguments of the hypermodel."""
    given = {name: getattr(options, name) for name in (*SETTINGS, *LISTS)}
    space = {
        name: _values(value) if name in LISTS else value
        for name, value in given.items()
        if value is not None
    }
    if options.mixed_precision:
        space["dtype"] = f"mixed_{options.mixed_precision}"
    return {**space, "data_format": "channels_last"}


def _values(words):
    """What a list of the search space says."""
    if len(words) == 1 and ":" in words[0]:
        low, high, *sampling = words[0].split(":")
        return Range(_value(low), _value(high), sampling=":".join(sampling) or "linear")
    return [_value(word) for word in words]


def _value(word):
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(word)
    return _WORDS.get(word.lower(), word)
