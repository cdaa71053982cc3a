"""The networks that several test files measure, and what is measured of them."""

import dataclasses
import functools
import math
import re

import keras
import trained
from helpers import to_numpy

import keras_resblocks as kr
from keras_resblocks.layers import Conv, Pool

# ResNet-50 as the deep-learning course builds it: 64x64 pixels and 6 classes.
COURSE = kr.ResNetSpec(
    "bottleneck",
    (3, 4, 6, 3),
    64,
    stem=(Conv(64, 7, 2), Pool("max", 3, 2, padding="valid")),
    final_pool=2,
    options={"use_bias": True, "stride_in_1x1": True},
    input_shape=(64, 64, 3),
    classes=6,
)

# A biased 1x1 convolution without a normalization on every shortcut, all else biased too.
BIASED_SHORTCUTS = {
    "use_bias": True,
    "shortcut": kr.shortcuts.ProjectionShortcut("always", normalization=None),
}

BRANCHES = (((2,), (2, (4, 3)), ("max_pool", 2)), ((4,), (2, (3, 5)), ("avg_pool", 1)))

# No map is as wide as a biased convolution on it has filters: for channels-first images Keras
# 3.15 on TensorFlow would add the bias along the width.
TINY = {
    "residual": kr.ResNetSpec("residual", (2, 1), 4, stem=(Conv(4, 3),), input_shape=(12, 10, 3)),
    "bottleneck": kr.ResNetSpec(
        "bottleneck",
        (1, 2),
        2,
        stem=(Conv(4, 3, 2), Pool("max", 3, 2)),
        options={"use_bias": True, "stride_in_1x1": True},
        input_shape=(16, 14, 3),
        classes=5,
    ),
    "inception": kr.InceptionSpec(
        (BRANCHES, BRANCHES),
        stem=(Conv(4, 3), Pool("max", 3, 2)),
        final_pool=2,
        dropout=0.3,
        input_shape=(20, 18, 3),
        classes=5,
    ),
}

# Options for any of them.
VARIANTS = {
    "v1": {"activation": "elu", "kernel_regularizer": "l2"},
    "v2": {
        "preactivation": True,
        "activation": keras.layers.PReLU(shared_axes=[1, 2]),
        "normalization": "group",
        "attention": "squeeze_excite",
        "kernel_regularizer": keras.regularizers.L1L2(1e-3, 1e-2),
        "shortcut": kr.shortcuts.ProjectionShortcut(use_bias=True, normalization=None),
    },
}

OTHERS = {
    "googlenet_torchvision_aux": ("googlenet_torchvision", {"aux_heads": True}),
    "googlenet_96": ("googlenet", {"input_shape": (96, 96, 1), "classes": 10}),
    "course": (COURSE, {}),
    "resnet18_biased_shortcuts": ("resnet18", BIASED_SHORTCUTS),
    "resnet34_biased_shortcuts": ("resnet34", BIASED_SHORTCUTS),
}
NETWORKS = {name: (name, {}) for name in kr.list_models()} | OTHERS


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a built network shows; the network itself is let go."""

    params: int
    trainable: int
    cost: object
    layer_names: list
    paths: list
    stage_params: dict
    stage_shapes: dict  # of the last block's output
    output_shape: tuple


@functools.cache
def facts(name):
    """Builds the network called `name`, once, and measures it."""
    name_or_spec, arguments = NETWORKS[name]
    model = quick_model(name_or_spec, **arguments)
    stage_params, stage_shapes = {}, {}
    for layer in model.layers:
        match = re.fullmatch(r"stage(\d+)_block\d+", layer.name)
        if match:
            stage = int(match[1])
            stage_params[stage] = stage_params.get(stage, 0) + count(layer.weights)
            stage_shapes[stage] = layer.output.shape
    return Facts(
        params=count(model.weights),
        trainable=count(model.trainable_weights),
        cost=kr.cost(model),
        layer_names=[layer.name for layer in model.layers],
        paths=[weight.path for weight in model.weights],
        stage_params=stage_params,
        stage_shapes=stage_shapes,
        output_shape=model.output_shape,
    )


def quick_model(name_or_spec, **arguments):
    """A network whose kernels are zero, for where their values do not matter or are replaced.

    JAX compiles a random initializer for each shape.
    """
    return kr.create_model(name_or_spec, **{"kernel_initializer": "zeros", **arguments})


def outputs_of(model, images):
    """The output of a model of one, as an array."""
    (output,) = trained.outputs_of(model, images)
    return output


def random_value(weight, rng):
    """A value for a weight at which a deep network keeps the scale of its input."""
    if "kernel" in weight.name:
        return rng.normal(size=weight.shape) * math.sqrt(2 / math.prod(weight.shape[:-1]))
    if weight.name in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, weight.shape)
    return 0.1 * rng.normal(size=weight.shape)


def count(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def all_layers(layer):
    """The layer and every layer inside it, found as attributes."""
    yield layer
    if isinstance(layer, keras.Model):
        inside = layer.layers
    elif keras.backend.backend() == "torch":  # a module keeps its children out of `vars`
        inside = layer.children()
    else:
        inside = vars(layer).values()
    for child in inside:
        if isinstance(child, keras.layers.Layer):
            yield from all_layers(child)


def layers_of_class(model, *layer_classes):
    return [layer for layer in all_layers(model) if isinstance(layer, layer_classes)]


def blocks_of(model):
    return layers_of_class(model, kr.ResidualBlock, kr.BottleneckBlock, kr.InceptionBlock)


def by_path(model):
    return {weight.path: weight for weight in model.weights}


def copy_weights(source, target):
    """Copies weights by their paths; one of the two may have more than the other."""
    sources, targets = by_path(source), by_path(target)
    for path in min(sources, targets, key=len):
        targets[path].assign(to_numpy(sources[path]))
