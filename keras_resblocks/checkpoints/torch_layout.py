"""The weights of torchvision's and timm's models: their keys, and the order of their axes."""

import re

import keras
import numpy as np

from keras_resblocks.checkpoints.layout import Entry, Layout, layers_of, renamed
from keras_resblocks.layers.shortcuts import AvgPoolShortcut

_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def torch_layout(model):
    """The `Layout` of the PyTorch checkpoints for a model.

    A residual network has the keys of torchvision and of timm's `resnet.py`, a pre-activation
    one those of timm's `resnetv2.py`, GoogLeNet torchvision's and Inception-ResNet-v2 timm's.
    Layers that those do not know keep their own names.
    """
    layers = layers_of(model)
    name_of = _naming(model, layers)
    entries, constants = {}, {}
    for path, weights in layers.items():
        module = name_of(path)
        for name, weight in weights.items():
            key = f"{module}.{_LEAVES.get(name, name)}"
            entries[weight.path] = _entry(key, tuple(weight.shape), _CONVOLVED.search(module))
        if "moving_mean" in weights:  # theirs always scale and shift
            shape = weights["moving_mean"].shape
            if "gamma" not in weights:
                constants[f"{module}.weight"] = np.ones(shape, "float32")
            if "beta" not in weights:
                constants[f"{module}.bias"] = np.zeros(shape, "float32")
    present = {path.partition("/")[0] for path in layers}
    absent = [
        name_of(name)
        for name in _OPTIONAL
        if name not in present and (name == "head" or name_of(name) != name)
    ]
    return Layout(
        entries,
        constants,
        lambda key: (
            key.endswith(("num_batches_tracked", "n_averaged"))  # counts, no weights
            or any(key.startswith(f"{module}.") for module in absent)
        ),
    )


# What a model may do without, though the checkpoint has it.
_OPTIONAL = ("head", *(f"aux{i}_{part}" for i in (1, 2) for part in ("conv1", "conv2", "head")))

# Modules that are a 1x1 convolution there and a dense layer here.
_CONVOLVED = re.compile(r"(^|\.)(se\.fc\d|head\.fc)$")
# And a dense layer there that is a convolution over a whole map here.
_DENSE = re.compile(r"^aux\d\.fc1$")


def _entry(key, shape, is_convolved):
    if len(shape) < 2:
        return Entry(key, shape)
    plain = (shape[-1], shape[-2], *shape[:-2])  # (filters, channels, *window)
    published = plain
    if is_convolved:
        published = (*plain, 1, 1)
    elif _DENSE.match(key.rpartition(".")[0]):
        published = (plain[0], int(np.prod(plain[1:])))

    def read(array):
        array = array if published == plain else array.reshape(plain)
        return np.moveaxis(array, (0, 1), (-1, -2))

    def write(array):
        array = np.moveaxis(array, (-1, -2), (0, 1))
        return array if published == plain else array.reshape(published)

    return Entry(key, published, read, write)


def _naming(model, layers):
    """The function from the path of a layer to the name of the module in PyTorch."""
    if any(path.endswith("/entry_norm") for path in layers):
        rules = _resnet_v2_rules(layers)
    elif any("/branch" in path for path in layers):
        rules = (_inception_rules(model),)
    else:
        rules = _resnet_rules(model, layers)
    return lambda path: renamed(path, *rules) or path.replace("/", ".")


def _stem_depth(layers):
    return sum(re.fullmatch(r"stem_conv\d+/conv", path) is not None for path in layers)


def _own_name(rest):
    return f"{{}}.{rest.replace('/', '.')}"


# What these functions return are arguments of `renamed`.


def _resnet_rules(model, layers):
    """As in torchvision's and timm's `resnet.py`."""
    depth = _stem_depth(layers)
    # timm's ResNet-D has a pooling before each shortcut's convolution, if only for show.
    pooled = any(
        isinstance(getattr(layer, "shortcut_policy", None), AvgPoolShortcut)
        for layer in model.layers
    )

    def stem(i, part):
        if depth == 1:
            return {"conv": "conv1", "norm": "bn1"}[part]
        if part == "norm" and int(i) == depth:
            return "bn1"
        return f"conv1.{3 * int(i) - 3 + (part == 'norm')}"  # convolution, norm, activation

    block_rules = (
        (r"conv(\d)/conv", r"{}.conv\1"),
        (r"conv(\d)/norm", r"{}.bn\1"),
        ("shortcut/conv", f"{{}}.downsample.{0 + pooled}"),
        ("shortcut/norm", f"{{}}.downsample.{1 + pooled}"),
        ("attention/reduce", "{}.se.fc1"),
        ("attention/expand", "{}.se.fc2"),
        ("attention/conv", "{}.se.conv"),
        ("(.*)", _own_name),
    )
    rules = ((r"stem_conv(\d+)/(conv|norm)", stem), ("head", "fc"))
    return rules, block_rules, lambda s, b: f"layer{s}.{b - 1}"


def _resnet_v2_rules(layers):
    """As in timm's `resnetv2.py`."""
    number = "" if _stem_depth(layers) == 1 else r"\1"
    block_rules = (
        ("entry_norm", "{}.norm1"),
        (r"conv(\d)/conv", r"{}.conv\1"),
        (r"conv(\d)/norm", lambda i: f"{{}}.norm{int(i) + 1}"),
        ("shortcut/(conv|norm)", r"{}.downsample.\1"),
        ("(.*)", _own_name),
    )
    rules = (
        (r"stem_conv(\d+)/(conv|norm)", rf"stem.\2{number}"),
        ("head_norm", "norm"),
        ("head", "head.fc"),
    )
    return rules, block_rules, lambda s, b: f"stages.{s - 1}.blocks.{b - 1}"


def _inception_rules(model):
    """As in torchvision's `googlenet.py` or timm's `inception_resnet_v2.py`, or our own."""
    blocks = [re.match(r"stage(\d+)_block\d+$", layer.name) for layer in model.layers]
    stages = [match[1] for match in blocks if match]
    sizes = tuple(stages.count(stage) for stage in sorted({*stages}))
    rules = {(2, 5, 2): _googlenet_rules, (11, 21, 11): _inception_resnet_v2_rules}.get(sizes)
    return rules(model) if rules else ()


def _branch_module(model, first):
    """The function that names a layer of a branch; branches count from `first`."""
    branches = {layer.name: getattr(layer, "branches", ()) for layer in model.layers}

    def name(block, branch, i):
        steps = branches[block][int(branch) - 1]
        place = [j for j, step in enumerate(steps) if not isinstance(step, str)][int(i) - 1]
        number = int(branch) - 1 + first
        return f"branch{number}.{place}" if len(steps) > 1 else f"branch{number}"

    return name


_PART = {"conv": "conv", "norm": "bn"}
_BRANCH = r"(stage(\d+)_block(\d+))/branch(\d+)_conv(\d+)/(conv|norm)"


def _googlenet_rules(model):
    branch_module = _branch_module(model, first=1)

    def branch(block, s, b, *place_and_part):
        *place, part = place_and_part
        module = f"inception{int(s) + 2}{'abcde'[int(b) - 1]}"
        return f"{module}.{branch_module(block, *place)}.{_PART[part]}"

    return (
        (r"stem_conv(\d)/(conv|norm)", lambda i, part: f"conv{i}.{_PART[part]}"),
        (_BRANCH, branch),
        (r"aux(\d)_conv1/(conv|norm)", lambda i, part: f"aux{i}.conv.{_PART[part]}"),
        (r"aux(\d)_conv1", r"aux\1.conv"),
        (r"aux(\d)_conv2(/conv)?", lambda i, _: f"aux{i}.fc1"),
        (r"aux(\d)_head", r"aux\1.fc2"),
        ("head", "fc"),
    )


def _inception_resnet_v2_rules(model):
    branch_module = _branch_module(model, first=0)
    stem = ("1a", "2a", "2b", "3b", "4a")
    last = f"stage3_block{sum(layer.name.startswith('stage3_block') for layer in model.layers)}"

    def block_module(block, s, b):
        if block == last:
            return "block8"
        if b == "1":
            return f"mixed_{('5b', '6a', '7a')[int(s) - 1]}"
        return f"repeat{('', '_1', '_2')[int(s) - 1]}.{int(b) - 2}"

    def branch(block, s, b, *place_and_part):
        *place, part = place_and_part
        return f"{block_module(block, s, b)}.{branch_module(block, *place)}.{_PART[part]}"

    return (
        (r"stem_conv(\d)/(conv|norm)", lambda i, part: f"conv2d_{stem[int(i) - 1]}.{_PART[part]}"),
        (_BRANCH, branch),
        (r"(stage(\d+)_block(\d+))/conv1/conv", lambda *b: f"{block_module(*b)}.conv2d"),
        (r"stage3_conv1/(conv|norm)", lambda part: f"conv2d_7b.{_PART[part]}"),
        ("head", "classif"),
    )


def to_torch_arrays(model):
    """Dict of key to NumPy array, as a PyTorch checkpoint would have them."""
    layout = torch_layout(model)
    weights = {weight.path: weight for weight in model.weights}
    for layer in model._flatten_layers():  # Keras has no public way to layers inside of layers
        policy = layer.dtype_policy
        if policy.quantization_mode is not None:
            raise ValueError(
                "`model` must not be quantized, as PyTorch's layers are not. "
                f"Received: layer `{layer.path}` with dtype={policy.name!r}"
            )
        if hasattr(layer, "lora_kernel_a"):
            weights[f"{layer.path}/kernel"] = layer.kernel  # with LoRA's part
            del weights[layer.lora_kernel_a.path], weights[layer.lora_kernel_b.path]
    arrays = {
        entry.key: np.ascontiguousarray(entry.write(keras.ops.convert_to_numpy(weights[path])))
        for path, entry in layout.entries.items()
        if path in weights
    }
    return {**arrays, **layout.constants}
