"""The maps inside a network, for detection and segmentation."""

import re
import typing

import keras

from keras_resblocks.layers import steps


class Feature(typing.NamedTuple):
    """The output of a stage."""

    name: str  # "stage1", "stage2", ...
    output: keras.KerasTensor
    strides: (
        int | tuple[int, ...]
    )  # how many times smaller than the image, for each spatial axis if a tuple


def features(model: keras.Model) -> list[Feature]:
    """The outputs of every stage of a network, the largest first, with their strides.

    Args:
        model: a model of `create_model`.

    Returns:
        A list of `Feature`. Those of a pre-activation network are the sums, before the
        normalization and activation that the next block would begin with.

    Example:

    >>> maps = features(create_model("resnet50", include_top=False))
    >>> [(feature.name, feature.strides) for feature in maps]
    [('stage1', 4), ('stage2', 8), ('stage3', 16), ('stage4', 32)]
    >>> backbone = keras.Model(model.input, {feature.name: feature.output for feature in maps})
    """
    found = {}
    strides = 1
    for layer in model.layers:
        if layer.name.startswith(("stem_", "stage")):
            strides = steps.times(strides, _strides(layer))
            stage = re.match(r"stage\d+(?=_)", layer.name)
            if stage:
                found[stage[0]] = Feature(stage[0], layer.output, strides)
    if not found:
        raise ValueError(
            "`model` must be a model of `create_model`, with layers called `stage1_block1`, ... "
            f"Received: layers {[layer.name for layer in model.layers][:5]}"
        )
    return list(found.values())


def _strides(layer):
    if getattr(layer, "atrous", False):
        return 1
    return getattr(layer, "strides", 1)
