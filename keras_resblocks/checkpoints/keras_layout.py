"""The weights of keras.applications' models: the names of their layers."""

import re

import keras

from keras_resblocks.checkpoints.layout import Entry, Layout, layers_of, renamed

_NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")


def keras_layout(model, layer_names):
    """The `Layout` for a model of the checkpoint that has layers of those names.

    Three namings are known: today's (`conv2_block1_1_conv`), the one before 2019
    (`res2a_branch2a`), and the numbered one of the inception networks (`conv2d_7`).
    """
    layers = layers_of(model)
    if "bn_conv1" in layer_names:
        names = {path: renamed(path, _LEGACY) or path for path in layers}
    elif any("/branch" in path for path in layers):
        names = _numbered(layers, layer_names)
    else:
        names = {path: renamed(path, _RESNET) or path for path in layers}
    entries = {
        weight.path: Entry(f"{names[path]}/{leaf}", tuple(weight.shape))
        for path, weights in layers.items()
        for leaf, weight in weights.items()
    }
    heads = () if "head" in layers else ("predictions/", "fc1000/")
    return Layout(entries, is_optional=lambda key: key.startswith(heads) if heads else False)


def _place(s, b):
    return f"conv{int(s) + 1}_block{b}"


_PART = {"conv": "conv", "norm": "bn"}
_BLOCK = r"stage(\d)_block(\d+)/"
_RESNET = (
    (r"stem_conv1/(conv|norm)", lambda part: f"conv1_{_PART[part]}"),
    (_BLOCK + r"conv(\d)/(conv|norm)", lambda s, b, i, x: f"{_place(s, b)}_{i}_{_PART[x]}"),
    (_BLOCK + r"shortcut/(conv|norm)", lambda s, b, x: f"{_place(s, b)}_0_{_PART[x]}"),
    (_BLOCK + "entry_norm", lambda s, b: f"{_place(s, b)}_preact_bn"),
    ("head_norm", "post_bn"),
    ("head", "predictions"),
)


def _legacy_place(part, s, b):
    return f"{'res' if part == 'conv' else 'bn'}{int(s) + 1}{chr(ord('a') + int(b) - 1)}"


_LEGACY = (
    (r"stem_conv1/conv", "conv1"),
    (r"stem_conv1/norm", "bn_conv1"),
    (
        _BLOCK + r"conv(\d)/(conv|norm)",
        lambda s, b, i, part: f"{_legacy_place(part, s, b)}_branch2{'abc'[int(i) - 1]}",
    ),
    (_BLOCK + r"shortcut/(conv|norm)", lambda s, b, part: f"{_legacy_place(part, s, b)}_branch1"),
    ("head", "fc1000"),
)


def _numbered(layers, layer_names):
    """Convolutions and normalizations by their order, but for those that have names."""
    named = {path: name for path in layers if (name := renamed(path, _INCEPTION))}
    for part, kind in (("conv", "conv2d"), ("norm", "batch_normalization")):
        theirs = sorted(
            (name for name in layer_names if re.fullmatch(rf"{kind}(_\d+)?", name)),
            key=lambda name: int(name.removeprefix(kind).strip("_") or 0),
        )
        ours = [path for path in layers if path.endswith(f"/{part}") and path not in named]
        # Where there are too few of theirs, the rest is missing by a name it would have.
        theirs += [f"{kind}_{i}" for i in range(len(theirs), len(ours))]
        named.update(zip(ours, theirs))
    return {path: named.get(path, path) for path in layers}


def _expansion(s, b):
    return f"block{(35, 17, 8)[int(s) - 1]}_{int(b) - 1}_conv"


_INCEPTION = (
    (_BLOCK + "conv1/conv", _expansion),
    (r"stage3_conv1/conv", "conv_7b"),
    (r"stage3_conv1/norm", "conv_7b_bn"),
    ("head", "predictions"),
)


def arrays_of_layers(layers):
    """Dict of `layer/weight` to array, from one of layer names to lists of arrays."""
    return {
        f"{layer}/{leaf}": array
        for layer, arrays in layers.items()
        for leaf, array in zip(_leaves(arrays), arrays)
    }


def _leaves(arrays):
    """What the weights of a layer are, from their order, which Keras has never changed."""
    if arrays[0].ndim > 1:
        return ("kernel", "bias", *map(str, range(2, len(arrays))))
    if len(arrays) <= 4:
        return _NORM_LEAVES[-len(arrays) :]
    return map(str, range(len(arrays)))


def layers_of_model(model):
    """Dict of layer names to lists of arrays, of a model of keras.applications."""
    return {
        layer.name: [keras.ops.convert_to_numpy(weight) for weight in layer.weights]
        for layer in model.layers
        if layer.weights
    }
