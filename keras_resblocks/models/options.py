"""The options of a network: the published ones, then the user's, checked."""

import functools
import inspect

import keras

from keras_resblocks import validation
from keras_resblocks.layers import shortcuts, templates
from keras_resblocks.layers.attention import attention
from keras_resblocks.layers.residual import exit_activations
from keras_resblocks.models.published import SPECS
from keras_resblocks.models.specs import BLOCKS


def merge_options(spec, block_options, function=None):
    """The block options in force: the network's own, then the user's of `function`, checked."""
    known = known_options(BLOCKS[spec.block])
    given = {**spec.default_options(), **block_options}
    beside = known_options(function) if function else ()
    validation.known_arguments("the model and its blocks", given, known, beside)
    options = {**known, **given}
    options["data_format"] = validation.one_of(
        "data_format",
        options["data_format"] or keras.config.image_data_format(),
        ("channels_last", "channels_first"),
    )
    options = read_options(options)
    is_given = "zero_init_residual" in {**spec.options, **block_options}
    if options["shortcut"] is None and not is_given:
        options["zero_init_residual"] = False  # a plain network has no shortcut to start as
    return options


def read_options(options):
    """The options, the pluggable ones as templates and policies."""
    return {
        key: _READERS[key](value) if key in _READERS else value for key, value in options.items()
    }


# Read once for the whole network, rather than by every block.
_READERS = {
    "activation": templates.activation.get,
    "normalization": templates.normalization.get,
    "attention": attention.get,
    "exit_activation": exit_activations.get,
    "strides": functools.partial(validation.positive_ints, "strides"),
    "dilation_rate": functools.partial(validation.positive_ints, "dilation_rate"),
    "drop_path_rate": functools.partial(validation.rate, "drop_path_rate"),
    "shortcut": shortcuts.get,
}


@functools.cache
def known_options(function):
    """The options of a block, or of a function that makes some, with their defaults."""
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return {**options, "dtype": None}


def check_input_shape(spec, input_shape, include_top, data_format):
    """The shape of one image: what was given, checked, or the spec's."""
    channels_first = data_format == "channels_first"
    if input_shape is None:
        *spatial, channels = spec.input_shape
        if not include_top:
            spatial = [None] * len(spatial)
        return (channels, *spatial) if channels_first else (*spatial, channels)
    try:
        shape = tuple(input_shape)
        sizes = [size for size in shape if size is not None]
        valid = 2 <= len(shape) <= 4 and [validation.positive_int("", n) for n in sizes]
    except (TypeError, ValueError):
        valid = False
    if not valid or shape[0 if channels_first else -1] is None:
        raise ValueError(
            "`input_shape` must hold one, two or three spatial sizes (positive, or None) and the "
            f"number of channels. Received: input_shape={input_shape!r}"
        )
    if include_top and spec.final_pool is not None and None in shape:
        raise ValueError(
            "`input_shape` must have no open sizes where the spec has a `final_pool`: its "
            f"result is flattened. Received: input_shape={input_shape!r}"
        )
    return shape


def check_parts(spec, include_top, aux_heads, output_stride, block_options):
    """Checks what `create_model` and `cost` are asked to add or to change."""
    validation.boolean("aux_heads", aux_heads)
    if aux_heads and not (include_top and spec.aux_heads):
        names = [name for name, other in SPECS.items() if other.aux_heads]
        raise ValueError(
            f"`aux_heads=True` needs `include_top=True` and a network that has some: {names}. "
            f"Received: aux_heads=True, include_top={include_top!r}"
        )
    for name in ("dilation_rate", "atrous"):
        if output_stride is not None and name in block_options:
            raise ValueError(
                f"`output_stride` must be None where `{name}` is given, which it would set. "
                f"Received: output_stride={output_stride!r}, {name}={block_options[name]!r}"
            )
