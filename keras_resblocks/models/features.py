"""The maps inside a network, for detection and segmentation."""

import re
import typing

import keras

from keras_resblocks.layers import steps


class Feature(typing.NamedTuple):
    """The output of a stage.

    Attributes:
        name: `"stage1"`, `"stage2"`, ...
        output: a Keras tensor, `(batch, *spatial, channels)` or channels first.
        strides: how many times smaller than the image it is; a tuple if the axes differ.

    Examples:
        >>> from keras_resblocks import create_model, features
        >>> features(create_model("resnet18", input_shape=(64, 64, 3)))[-1].output.shape
        (None, 2, 2, 512)
    """

    name: str
    output: keras.KerasTensor
    strides: int | tuple[int, ...]


def features(model: keras.Model) -> list[Feature]:
    """The outputs of every stage of a network, the largest first, with their strides.

    Args:
        model: a model of `create_model`.

    Returns:
        A list of `Feature`. Those of a pre-activation network are the sums, before the
        normalization and activation that the next block would begin with.

    Raises:
        ValueError: if no layer is named as those of `create_model` are.

    Examples:
        >>> import keras
        >>> from keras_resblocks import create_model, features
        >>> model = create_model("resnet18", include_top=False)
        >>> [(feature.name, feature.strides) for feature in features(model)]
        [('stage1', 4), ('stage2', 8), ('stage3', 16), ('stage4', 32)]
        >>> backbone = keras.Model(model.input, {f.name: f.output for f in features(model)})
    """
    found, strides = {}, 1
    for layer in model.layers:
        if layer.name.startswith(("stem_", "stage")):
            is_atrous = getattr(layer, "atrous", False)
            strides = steps.times(strides, 1 if is_atrous else getattr(layer, "strides", 1))
            if stage := re.match(r"stage\d+(?=_)", layer.name):
                found[stage[0]] = Feature(stage[0], layer.output, strides)
    if not found:
        raise ValueError(
            "`model` must be a model of `create_model`, with layers called `stage1_block1`, ... "
            f"Received: layers {[layer.name for layer in model.layers][:5]}"
        )
    return list(found.values())
