"""`cost` of a description is what the built network has, and building is not how it knows."""

import dataclasses
import math
import random

import keras
import numpy as np
import pytest
from helpers import DATA_FORMATS
from networks import NETWORKS, TINY, all_layers, count, quick_model

import keras_resblocks as kr
from keras_resblocks.layers import Conv, Pool

SPATIAL = {1: (17,), 2: (12, 9), 3: (8, 6, 5)}


def stems(rank):
    return {
        "none": (),
        "pool": (Pool("max", 3, 2),),
        "conv": (Conv(4, 3),),
        "imagenet": (Conv(4, 7, 2), Pool("max", 3, 2)),
        "deep": (Conv(4, 3, 2), Conv(4, 3), Pool("avg", 2, 2, padding="same")),
        "padded": (
            Conv(4, 5, use_bias=True, normalization=None, padding="same"),
            Conv(4, 2, padding="valid"),
        ),
        "own_parts": (
            Conv(4, [3] * rank, activation="elu", normalization="layer"),
            Conv(4, 1, groups=2, activation=keras.saving.serialize_keras_object(prelu(rank))),
        ),
    }


def prelu(rank, data_format="channels_last"):
    first = 1 if data_format == "channels_last" else 2
    return keras.layers.PReLU(shared_axes=list(range(first, first + rank)))


ACTIVATIONS = {
    "none": lambda *_: None,
    "relu": lambda *_: "relu",
    "elu": lambda *_: keras.layers.ELU(alpha=0.5),
    "prelu": prelu,
    "prelu_everywhere": lambda *_: keras.layers.PReLU(),  # as many weights as positions
}
NORMALIZATIONS = {
    "none": lambda: None,
    "batch": lambda: "batch",
    "layer": lambda: "layer",
    "group": lambda: "group",
    "instance": lambda: "instance",
    "batch_without_scale": lambda: keras.layers.BatchNormalization(scale=False),
    "frozen_batch": lambda: keras.layers.BatchNormalization(trainable=False),
    "group_without_center": lambda: keras.layers.GroupNormalization(groups=2, center=False),
    "layer_from_config": lambda: keras.saving.serialize_keras_object(
        keras.layers.LayerNormalization(scale=False)
    ),
}
ATTENTIONS = {
    "none": lambda: None,
    "squeeze_excite": lambda: "squeeze_excite",
    "squeeze_excite_prelu": lambda: kr.SqueezeExcite(2, activation=keras.layers.PReLU()),
    "efficient_channel": lambda: "efficient_channel",
    "efficient_channel_5": lambda: kr.EfficientChannelAttention(5),
}
PLAIN_OPTIONS = {
    "preactivation": (False, True),
    "use_bias": (None, True, False),
    "padding": ("symmetric", "same"),
}
SHORTCUTS = (
    "projection",
    "projection_always",
    "avg_pool",
    "zero_pad",
    None,
    kr.shortcuts.ProjectionShortcut(use_bias=True, normalization=None),
    kr.shortcuts.ProjectionShortcut("channels", normalization="layer"),
    kr.shortcuts.AvgPoolShortcut(use_bias=True),
)


class Draws:
    """Random choices by name: what was offered, and what was taken."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.offered, self.taken = set(), set()

    def choose(self, name, choices):
        choice = self.random.choice(list(choices))
        self.offered |= {(name, str(offer)) for offer in choices}
        self.taken.add((name, str(choice)))
        return choices[choice] if isinstance(choices, dict) else choice


def random_network(seed):
    """A small network, the arguments for it, and the draws: valid by construction."""
    draws = Draws(seed)
    rank = draws.choose("rank", (1, 2, 3))
    data_format = draws.choose("data_format", DATA_FORMATS)
    kind = draws.choose("block", ("residual", "bottleneck", "inception"))
    stem = draws.choose("stem", stems(rank))
    activation = draws.choose("activation", ACTIVATIONS)(rank, data_format)
    options = {
        "activation": activation,
        "normalization": draws.choose("normalization", NORMALIZATIONS)(),
        "attention": draws.choose("attention", ATTENTIONS)(),
        "shortcut": draws.choose("shortcut", SHORTCUTS),
        "data_format": data_format,
        **{name: draws.choose(name, choices) for name, choices in PLAIN_OPTIONS.items()},
    }
    make_spec = random_inception if kind == "inception" else random_resnet
    spec, stride = make_spec(draws, rank, kind, stem, options)

    spatial = SPATIAL[rank]
    if min(spatial) > 4 * stride * math.prod(step.strides for step in stem):
        spec = dataclasses.replace(spec, final_pool=draws.choose("final_pool", (None, 2)))
    if spec.final_pool is None and not isinstance(activation, keras.layers.PReLU):
        spatial = tuple(draws.choose("size", {"open": None, "known": n}) for n in spatial)
    arguments = {
        "input_shape": (4, *spatial) if data_format == "channels_first" else (*spatial, 4),
        "include_top": draws.choose("include_top", (True, True, False)),
        "classes": draws.choose("classes", (1, 7)),
    }
    if draws.choose("options", ("of the spec", "of the call")) == "of the spec":
        return dataclasses.replace(spec, options=options), arguments, draws
    return spec, {**arguments, **options}, draws


def random_resnet(draws, rank, kind, stem, options):
    depths = draws.choose("depths", ((2,), (1, 2), (2, 1), (1, 1, 2)))
    width = 4
    if options["shortcut"] != "zero_pad":  # which cannot drop channels
        width = tuple(draws.choose("width", (4, 8)) for _ in depths)
    spec = kr.ResNetSpec(
        kind,
        depths,
        width,
        stem,
        strides=draws.choose(
            "strides", {"default": None, "2": (2,) * len(depths), "1": (1,) * len(depths)}
        ),
        stride_at=draws.choose("stride_at", ("first", "last")),
    )
    options["kernel_size"] = draws.choose(
        "kernel_size", {"1": 1, "2": 2, "3": 3, "list": [3] * rank, "uneven": (1, 2, 3)[:rank]}
    )
    options["groups"] = draws.choose("groups", (1, 2, 4))
    if set(spec.stage_strides()) == {1}:
        options["dilation_rate"] = draws.choose("dilation_rate", (1, 2))
    if options["shortcut"] is not None:
        options["drop_path_rate"] = draws.choose("drop_path_rate", (0.0, 0.2))
    if kind == "bottleneck":
        options["stride_in_1x1"] = draws.choose("stride_in_1x1", (False, True))
        options["expansion"] = draws.choose("expansion", (1, 2, 4))
    return spec, math.prod(spec.stage_strides())


def random_inception(draws, rank, kind, stem, options):
    branches = {
        "flat": [[4], [2, (4, 3)], ["max_pool", 2]],
        "split": [[4, [[2], [(2, (3,) * rank)]]], ["avg_pool", 4]],
    }
    if options["shortcut"] == "zero_pad":
        options["shortcut"] = "projection"
    depths = draws.choose("depths", ((2,), (1, 2)))
    stages = [[draws.choose("branches", branches) for _ in range(depth)] for depth in depths]
    options["dilation_rate"] = draws.choose("dilation_rate", (1, 2))
    return kr.InceptionSpec(stages, stem=stem), 2 ** (len(stages) - 1)


@pytest.fixture
def layers_made(monkeypatch):
    """The classes of the layers made from here on."""
    made = []
    initialize = keras.layers.Layer.__init__

    def recording(self, *args, **kwargs):
        made.append(type(self))
        initialize(self, *args, **kwargs)

    monkeypatch.setattr(keras.layers.Layer, "__init__", recording)
    return made


BLOCKS = (kr.ResidualBlock, kr.BottleneckBlock, kr.InceptionBlock, kr.layers.ConvUnit)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@pytest.mark.parametrize("seed", range(100))
def test_cost_of_a_random_spec_is_that_of_the_model_that_it_does_not_build(seed, layers_made):
    spec, arguments, _ = random_network(seed)
    layers_made.clear()
    predicted = kr.cost(spec, **arguments)
    # Copies of templates are made.
    assert not [cls for cls in layers_made if issubclass(cls, (*BLOCKS, *CONVOLUTIONS))]
    model = quick_model(spec, **arguments)
    assert predicted.params == count(model.weights)
    assert predicted.trainable_params == count(model.trainable_weights)
    assert predicted.macs == kr.cost(model).macs
    assert (predicted.macs is None) == (None in arguments["input_shape"])


def test_the_random_specs_take_every_choice():
    all_draws = [random_network(seed)[-1] for seed in range(100)]
    offered = set().union(*(draws.offered for draws in all_draws))
    assert len({name for name, _ in offered}) > 20
    assert set().union(*(draws.taken for draws in all_draws)) == offered


@pytest.mark.parametrize("name", NETWORKS)
def test_cost_of_a_name_makes_no_layer(name, layers_made):
    name_or_spec, _ = NETWORKS[name]
    options = {"activation": "elu", "normalization": "group", "attention": "squeeze_excite"}
    assert kr.cost(name_or_spec).params > 0
    assert kr.cost(name_or_spec, **options).params > 0
    assert layers_made == []


def test_the_watch_on_layers_sees_a_layer(layers_made):
    keras.layers.Dense(1)
    assert layers_made == [keras.layers.Dense]


def test_cost_is_computed_anew_for_each_input_shape():
    small = kr.cost("resnet18", input_shape=(32, 32, 3))
    large = kr.cost("resnet18", input_shape=(64, 64, 3))
    assert small.params == large.params
    # All but the 512,000 of the classifier grow with the area.
    assert large.macs - 512_000 == 4 * (small.macs - 512_000)


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "resnet20_cifar"])
def test_open_sizes_leave_the_work_unknown_and_the_parameters_known(name):
    opened = kr.cost(name, input_shape=(None, None, 3))
    assert opened.macs is None
    assert opened.params == kr.cost(name).params


def test_a_model_of_open_sizes_does_unknown_work():
    model = quick_model(TINY["residual"], input_shape=(None, 8, 3))
    assert kr.cost(model).macs is None
    assert kr.cost(model).params == count(model.weights)


def test_cost_counts_the_classifier_by_its_classes():
    features = kr.cost("resnet50", include_top=False, input_shape=(224, 224, 3))
    for classes in (1000, 10):
        whole = kr.cost("resnet50", classes=classes)
        assert whole.params - features.params == 2049 * classes
        assert whole.macs - features.macs == 2048 * classes


@pytest.mark.parametrize("kind", TINY)
def test_work_is_that_of_every_convolution_and_dense_call(kind, monkeypatch):
    done = []
    model = quick_model(TINY[kind], attention="squeeze_excite", fused=False)  # layer by layer
    for layer in all_layers(model):
        if hasattr(layer, "kernel"):
            monkeypatch.setattr(layer, "call", counting(layer, done))
    model(np.zeros((1, *model.input_shape[1:]), "float32"))
    assert len(done) == len([path for path in model.weights if path.name == "kernel"])
    assert sum(done) == kr.cost(TINY[kind], attention="squeeze_excite").macs


def counting(layer, done):
    call = layer.call

    def counted(*args, **kwargs):
        outputs = call(*args, **kwargs)
        done.append(math.prod(layer.kernel.shape) * math.prod(outputs.shape[1:-1]))
        return outputs

    return counted


def test_cost_of_a_model_of_stock_layers():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, strides=2, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    convolution, dense = 3 * 3 * 3 * 4, 4 * 4 * 4 * 10
    assert kr.cost(model) == kr.models.Cost(
        params=convolution + 4 + 16 + dense + 10,
        trainable_params=convolution + 4 + 8 + dense + 10,
        macs=convolution * 4 * 4 + dense,
        activations=4 * 4 * 4 + 10,
    )


def test_cost_of_a_model_with_a_network_inside():
    backbone = quick_model(TINY["residual"], include_top=False, input_shape=(12, 10, 3))
    inputs = keras.Input((12, 10, 3))
    model = keras.Model(inputs, backbone(keras.layers.Rescaling(2.0)(inputs)))
    assert kr.cost(model) == kr.cost(backbone)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_cost_follows_a_normalization_along_another_axis(axis):
    spec = kr.ResNetSpec("residual", (1,), 4, stem=(Conv(4, 3),), input_shape=(12, 10, 3))
    options = {
        "normalization": keras.layers.BatchNormalization(axis=axis),
        "data_format": "channels_last",
    }
    assert kr.cost(spec, **options) == kr.cost(kr.create_model(spec, **options))
