"""From a pattern to the block that computes the same, compared layer by layer."""

import contextlib
import functools
import itertools

import keras
import numpy as np

from keras_resblocks.layers import BottleneckBlock, ConvUnit, InceptionBlock, ResidualBlock
from keras_resblocks.layers.pooling import Pooling, Subsampling
from keras_resblocks.layers.residual import Block
from keras_resblocks.layers.shortcuts import AvgPoolShortcut, ProjectionShortcut
from keras_resblocks.layers.steps import times
from keras_resblocks.layers.templates import INHERIT
from keras_resblocks.models.existing.patterns import Part, Pattern, Split, example
from keras_resblocks.validation import exceeds_one

_KINDS = ("initializer", "regularizer", "constraint")
_BIAS_OPTIONS = [f"bias_{kind}" for kind in _KINDS]
_KERNEL_OPTIONS = [f"kernel_{kind}" for kind in _KINDS]


def block_of(pattern: Pattern, name: str) -> tuple[Block, list] | None:
    """The built block that computes what a pattern does, and pairs of a layer and its twin in it.

    None if there is no such block: each of its layers must equal the one in its place.
    """
    units = [part for part in _leaves(pattern.residual) if not part.plain]
    layers = [layer for layer in pattern.layers if isinstance(layer, keras.layers.Layer)]
    if (
        not units
        or any(unit.conv is None for unit in units)
        or any(isinstance(part, Split) for part in pattern.shortcut or ())
        or any(layer.activity_regularizer is not None for layer in layers)
        or len({layer.dtype_policy.name for layer in layers}) > 1
    ):
        return None
    with contextlib.suppress(ValueError):  # where a layer cannot be an option
        for block_class, options in _candidates(pattern, units):
            with contextlib.suppress(ValueError):  # where there is no block with these options
                block = block_class(**options, name=name)
                block.build(pattern.input_shape)
                if (pairs := _pairs(block, pattern)) is not None:
                    return block, pairs
    return None


# What a block may be


def _candidates(pattern, units):
    """Classes of blocks and options; what is hard to tell from the pattern is tried out."""
    options = _options(pattern, units)
    paddings = ({"padding": padding} for padding in ("symmetric", "same", "valid"))
    policies = ({"shortcut": policy} for policy in _policies(pattern, units[0].conv))
    for (block_class, own), padding, shortcut in itertools.product(
        _forms(pattern), paddings, policies
    ):
        yield block_class, {**options, **own, **padding, **shortcut}


def _forms(pattern):
    """Classes of blocks, with the options that are their own."""
    parts, scale = pattern.residual, {"residual_scale": pattern.scale}
    convs = [part.conv for part in parts if getattr(part, "conv", None)]
    if pattern.scale == 1.0 and len(convs) == len(parts) in (2, 3):
        options = {"filters": convs[1].filters, "kernel_size": _simple(convs[1].kernel_size)}
        if len(convs) == 2:
            yield ResidualBlock, options
        else:
            options["expansion"] = convs[2].filters // convs[1].filters
            yield BottleneckBlock, {**options, "stride_in_1x1": exceeds_one(convs[0].strides)}
    if isinstance(parts[0], Split) and len(parts) <= 2:
        filters = convs[0].filters if convs else None
        yield InceptionBlock, {"branches": _step(parts[0]), "filters": filters, **scale}
    if pattern.shortcut is not None:  # any other chain is a single branch
        yield InceptionBlock, {"branches": [list(map(_step, parts))], **scale}


def _step(part):
    if isinstance(part, Split):
        return [list(map(_step, branch)) for branch in part.branches]
    if part.plain:
        return "max_pool" if "Max" in type(part.plain[-1].layer).__name__ else "avg_pool"
    size = _simple(part.conv.kernel_size)
    return part.conv.filters if size == 1 else (part.conv.filters, size)


def _policies(pattern, conv):
    """Shortcuts, those that inherit from the block first."""
    if not pattern.shortcut:
        return [None if pattern.shortcut is None else "identity"]
    last = pattern.shortcut[-1]
    if last.plain:
        return [ProjectionShortcut("channels"), "zero_pad"]
    if last.conv is None:
        return [_template(last.act, conv)]
    own = {"use_bias": last.conv.use_bias, "normalization": _template(last.norm, conv)}
    kinds = [ProjectionShortcut, functools.partial(ProjectionShortcut, "always")]
    kinds = [AvgPoolShortcut] if len(pattern.shortcut) > 1 else kinds
    return [kind(**options) for options in ({}, own) for kind in kinds]


def _options(pattern, units):
    """The options that all blocks have, but for padding and shortcut."""
    entry = [unit.act for unit in pattern.entry]
    conv = next((unit.conv for unit in units if unit.conv.use_bias), units[0].conv)
    spatial = next((u.conv for u in units if exceeds_one(u.conv.kernel_size)), conv)
    norm = _first([*(unit.norm for unit in units), *entry[:-1]])
    act = _first([*(unit.act for unit in units), *entry[-1:]])
    exit_act = _first([unit.act for unit in pattern.exit])
    inherited_act = act if pattern.shortcut is not None and not entry else None
    is_inherited = _form(exit_act, conv) == _form(inherited_act, conv)
    follows_norm = all(unit.conv.use_bias == (unit.norm is None) for unit in units)
    return {
        "strides": _simple(_strides(pattern.residual)),
        "groups": spatial.groups,
        "dilation_rate": _simple(spatial.dilation_rate),
        "preactivation": bool(entry),
        "activation": _template(act, conv),
        "exit_activation": INHERIT if is_inherited else _template(exit_act, conv),
        "normalization": _template(norm, conv),
        "use_bias": None if follows_norm else units[0].conv.use_bias,
        "data_format": conv.data_format,
        "dtype": conv.dtype_policy.name,
        **{name: getattr(conv, name) for name in (*_KERNEL_OPTIONS, *_BIAS_OPTIONS)},
    }


def _template(layer, conv):
    """What to give a block for layers like this one: without its dtype, for any rank."""
    function = _function(layer)
    if layer is None or function is not None:
        return function
    config = {k: v for k, v in layer.get_config().items() if k not in ("dtype", "trainable")}
    if _axes(config.get("axis"), conv) == _axes(_channel_axis(conv), conv):
        config["axis"] = -1
    return type(layer).from_config({**config, "name": "template"})


def _strides(parts):
    """The product of the strides along a chain; of branches, along the first."""
    strides = 1
    for part in parts:
        if isinstance(part, Split):
            strides = times(strides, _strides(part.branches[0]))
            continue
        for layer in (part.conv, *(node.layer for node in part.plain)):
            strides = times(strides, getattr(layer, "strides", 1))
    return strides


def _simple(size):
    """An integer in place of equal ones."""
    return size[0] if isinstance(size, tuple) and len(set(size)) == 1 else size


def _first(layers):
    return next((layer for layer in layers if layer is not None), None)


def _leaves(parts):
    for part in parts:
        for branch in getattr(part, "branches", ()):
            yield from _leaves(branch)
        if not isinstance(part, Split):
            yield part


def _channel_axis(conv):
    return -1 if conv.data_format == "channels_last" else 1


# Comparison


def _pairs(block, pattern):
    """Pairs of a layer of the pattern and its twin in the block; None if they do not agree."""
    has_weights = block.bypass.has_weights()
    if pattern.entry and pattern.shortcut is not None and has_weights != pattern.activated:
        return None
    shortcut = pattern.shortcut or ()
    theirs = [*pattern.entry, *_leaves(pattern.residual), *shortcut, *pattern.exit]
    ours = list(map(_part, block.sublayers()))
    conv = next(part.conv for part in theirs if part.conv)
    splits = [x for x in pattern.layers if type(x).__name__ == "Concatenate"]
    if (
        len(ours) != len(theirs)
        or any(_axes(x.axis, conv) != _axes(block.channel_axis, conv) for x in splits)
        or not all(_agree(part, twin, conv) for part, twin in zip(theirs, ours))
    ):
        return None
    return [
        (getattr(part, name), getattr(twin, name))
        for part, twin in zip(theirs, ours)
        for name in ("conv", "norm", "act")
        if isinstance(getattr(part, name), keras.layers.Layer) and getattr(twin, name)
    ]


def _part(layer):
    if isinstance(layer, ConvUnit):
        return Part(**{sublayer.name: sublayer for sublayer in layer.sublayers()})
    is_plain = isinstance(layer, (Pooling, Subsampling))
    return Part(plain=[layer]) if is_plain else Part(act=layer)


def _agree(part, twin, conv):
    """Whether a part of a pattern and one of a block compute the same."""
    if part.plain and twin.plain:
        return all(_agree_at(size, part.plain, twin.plain[0]) for size in (15, 16))
    if part.plain or twin.plain:
        return False
    return _conv_form(part) == _conv_form(twin) and all(
        _form(getattr(part, name), conv) == _form(getattr(twin, name), conv)
        for name in ("norm", "act")
    )


def _agree_at(size, nodes, layer):
    inputs = outputs = example(nodes[0].inputs[0][1], size)
    for node in nodes:
        if not node.is_pure():
            return False
        outputs = node.run(outputs)
    actual, expected = map(keras.ops.convert_to_numpy, (layer(inputs), outputs))
    tolerance = 1e-5 if actual.dtype.itemsize > 2 else 1e-2
    is_same_shape = actual.shape == expected.shape
    return is_same_shape and np.allclose(actual, expected, rtol=tolerance, atol=tolerance)


def _form(layer, conv):
    """What a layer does to its input and weights, as data; of an activation, its function."""
    function = _function(layer)
    if layer is None or function is not None:
        return None if function is keras.activations.linear else function
    config = _config(layer)
    return type(layer), {**config, "axis": _axes(config.get("axis"), conv)}


def _function(layer):
    """The function that an activation is; None for a layer that is not just a function."""
    if isinstance(layer, keras.layers.Activation):
        return layer.activation
    if type(layer) is keras.layers.ReLU:
        is_plain = (layer.max_value, layer.negative_slope, layer.threshold) == (None, 0, 0)
        return keras.activations.relu if is_plain else None
    return None if isinstance(layer, keras.Operation) else layer


def _config(layer):
    """The config without what makes no difference once there are weights."""
    return {
        key: value
        for key, value in layer.get_config().items()
        if key not in ("name", "trainable", "dtype") and not key.endswith("_initializer")
    }


def _axes(axis, conv):
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return axis if axis is None else [n % (conv.rank + 2) for n in axes]


def _conv_form(unit):
    if unit.conv is None:
        return None
    unused = ("activation", "padding", *(() if unit.conv.use_bias else _BIAS_OPTIONS))
    return {k: v for k, v in _config(unit.conv).items() if k not in unused}, list(_pads(unit))


def _pads(unit):
    """For each axis what is padded before and after, and how, where that depends on the size."""
    conv, pads = unit.conv, ((0, 0),) * unit.conv.rank
    if unit.pad is not None:
        pads = (unit.pad.padding,) if conv.rank == 1 else unit.pad.padding
    for axis, (low, high) in enumerate(pads):
        total = conv.dilation_rate[axis] * (conv.kernel_size[axis] - 1)
        if conv.padding == "valid" or total == 0:
            yield low, high
        elif conv.padding == "same" and conv.strides[axis] == 1:
            yield low + total // 2, high + total - total // 2
        else:
            yield low, high, conv.padding
