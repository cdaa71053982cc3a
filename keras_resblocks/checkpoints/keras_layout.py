"""The weights of keras.applications' models: the names of their layers."""

import re

import keras

from keras_resblocks.checkpoints.layout import Entry, Layout, layers_of, renamed

_NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")


def keras_layout(model, layer_names):
    """The `Layout` of a checkpoint with layers of those names for a model.

    The names are today's (`conv2_block1_1_conv`), those before 2019 (`res2a_branch2a`), or the
    numbers of the inception networks (`conv2d_7`).
    """
    layers = layers_of(model)
    if any("/branch" in path for path in layers):
        names = _numbered(layers, layer_names)
    else:
        rules = _LEGACY if "bn_conv1" in layer_names else _RESNET
        names = {path: renamed(path, *rules) or path for path in layers}
    entries = {
        weight.path: Entry(f"{names[path]}/{leaf}", tuple(weight.shape))
        for path, weights in layers.items()
        for leaf, weight in weights.items()
    }
    heads = () if "head" in layers else ("predictions/", "fc1000/")
    return Layout(entries, is_optional=lambda key: key.startswith(heads))


# The arguments of `renamed`: rules, those inside blocks, and the place of a block.

_RESNET = (
    (
        ("stem_conv1/conv", "conv1_conv"),
        ("stem_conv1/norm", "conv1_bn"),
        ("head_norm", "post_bn"),
        ("head", "predictions"),
    ),
    (
        (r"conv(\d)/conv", r"{}_\1_conv"),
        (r"conv(\d)/norm", r"{}_\1_bn"),
        ("shortcut/conv", "{}_0_conv"),
        ("shortcut/norm", "{}_0_bn"),
        ("entry_norm", "{}_preact_bn"),
    ),
    lambda s, b: f"conv{s + 1}_block{b}",
)
_LEGACY = (
    (("stem_conv1/conv", "conv1"), ("stem_conv1/norm", "bn_conv1"), ("head", "fc1000")),
    (
        (r"conv(\d)/conv", lambda i: f"res{{}}_branch2{' abc'[int(i)]}"),
        (r"conv(\d)/norm", lambda i: f"bn{{}}_branch2{' abc'[int(i)]}"),
        ("shortcut/conv", "res{}_branch1"),
        ("shortcut/norm", "bn{}_branch1"),
    ),
    lambda s, b: f"{s + 1}{chr(ord('a') + b - 1)}",
)
_INCEPTION = (
    (
        ("stage3_conv1/conv", "conv_7b"),
        ("stage3_conv1/norm", "conv_7b_bn"),
        ("head", "predictions"),
    ),
    (("conv1/conv", "block{}_conv"),),
    lambda s, b: f"{(35, 17, 8)[s - 1]}_{b - 1}",
)


def _numbered(layers, layer_names):
    """Convolutions and normalizations by their order, but for those that have names."""
    named = {path: name for path in layers if (name := renamed(path, *_INCEPTION))}
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
