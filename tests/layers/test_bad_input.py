"""Every kind of bad input, and what its message says."""

import functools

import keras
import pytest
from helpers import shape_of

import keras_resblocks as kr
from keras_resblocks.layers import AdaptiveAveragePooling, ConvUnit, Pooling

IMAGES = (2, 4, 4, 4)

ACTIVATIONS = ["'elu'", "'relu'", "'gelu'", "'leaky_relu'"]
NORMALIZATIONS = ["'batch'", "'group'", "'instance'", "'layer'"]
ATTENTIONS = ["'efficient_channel'", "'squeeze_excite'"]
SHORTCUTS = ["'avg_pool'", "'identity'", "'projection'", "'projection_always'", "'zero_pad'"]
REGISTER = ["lambda", "register_keras_serializable"]
PLUGGABLE = ("activation", "exit_activation", "normalization", "attention", "shortcut")


def config_of_an_unknown_class():
    return {"class_name": "Nope", "config": {}}


def residual(filters=4, strides=1, **options):
    return lambda: kr.ResidualBlock(filters, strides, **options)


def bottleneck(filters=4, strides=1, **options):
    return lambda: kr.BottleneckBlock(filters, strides, **options)


def inception(branches=((4,),), strides=1, **options):
    return lambda: kr.InceptionBlock(branches, strides, **options)


# What is made, the argument that the message quotes in backticks, what was received, and
# whatever else the message must say.
CONSTRUCTION = [
    # Sizes.
    *[
        (make(**{name: value}), name, f"{name}={value!r}", [expected])
        for make, name, expected in [
            (residual, "filters", "positive integer"),
            (residual, "strides", "positive integer"),
            (residual, "kernel_size", "positive integer"),
            (residual, "dilation_rate", "positive integer"),
            (residual, "groups", "positive integer"),
            (bottleneck, "filters", "positive integer"),
            (bottleneck, "strides", "positive integer"),
            (bottleneck, "expansion", "positive integer"),
            (inception, "strides", "positive integer"),
        ]
        for value in (0, -1, 1.5, "2", None, True)
    ],
    *[
        (inception(filters=value), "filters", f"filters={value!r}", ["positive integer"])
        for value in (0, -1, 1.5, "8", True, (8,))
    ],
    *[
        (lambda n=value: AdaptiveAveragePooling(n), "output_size", f"output_size={value!r}", [])
        for value in (0, -1, 1.5, "2", None, True, (), (2, 0), (1, 1, 1, 1))
    ],
    (residual(strides=(1, 0)), "strides", "strides=(1, 0)", []),
    (residual(strides=(1, 1, 1, 1)), "strides", "strides=(1, 1, 1, 1)", ["each spatial axis"]),
    (residual(kernel_size=()), "kernel_size", "kernel_size=()", []),
    (lambda: kr.SqueezeExcite(0), "reduction", "reduction=0", ["positive integer"]),
    (lambda: kr.EfficientChannelAttention(4), "kernel_size", "kernel_size=4", ["odd"]),
    (lambda: kr.EfficientChannelAttention(-3), "kernel_size", "kernel_size=-3", []),
    (lambda: ConvUnit(0), "filters", "filters=0", []),
    (lambda: Pooling("max", 0), "pool_size", "pool_size=0", []),
    (lambda: Pooling("max", strides=0), "strides", "strides=0", []),
    # Groups that do not divide, strides with dilation.
    (residual(groups=3), "groups", "groups=3", ["divide", "filters (4)"]),
    (bottleneck(groups=3), "groups", "groups=3", ["divide", "filters (4)"]),
    (inception([[2, (3, 3)]], groups=2), "groups", "groups=2", ["divide", "filters (3)"]),
    *[
        (make(strides=2, dilation_rate=2), name, "strides=2, dilation_rate=2", ["both"])
        for make in (residual, bottleneck, inception)
        for name in ("strides", "dilation_rate")
    ],
    # Rates.
    *[
        (residual(drop_path_rate=value), "drop_path_rate", f"={value!r}", ["[0, 1)"])
        for value in (-0.1, 1.0, 1, 2, "0.1", None, True, float("nan"))
    ],
    (lambda: kr.StochasticDepth(1.0), "rate", "rate=1.0", ["[0, 1)"]),
    (lambda: kr.StochasticDepth(-0.1), "rate", "rate=-0.1", ["[0, 1)"]),
    (inception(residual_scale="x"), "residual_scale", "residual_scale='x'", ["number"]),
    (inception(residual_scale=float("nan")), "residual_scale", "residual_scale=nan", []),
    # Names.
    (residual(activation="rellu"), "activation", "='rellu'", [*ACTIVATIONS, "mean 'relu'"]),
    (residual(normalization="bath"), "normalization", "='bath'", [*NORMALIZATIONS, "'batch'?"]),
    (
        residual(exit_activation="rellu"),
        "exit_activation",
        "='rellu'",
        [*ACTIVATIONS, "mean 'relu'"],
    ),
    (residual(exit_activation="foo"), "exit_activation", "exit_activation='foo'", ACTIVATIONS),
    (residual(attention="squeeze"), "attention", "attention='squeeze'", ATTENTIONS),
    (residual(shortcut="projecton"), "shortcut", "='projecton'", [*SHORTCUTS, "mean 'projection'"]),
    (residual(shortcut="none"), "shortcut", "shortcut='none'", SHORTCUTS),
    (lambda: kr.shortcuts.get("nope"), "shortcut", "shortcut='nope'", SHORTCUTS),
    (lambda: kr.SqueezeExcite(activation="x"), "activation", "activation='x'", ACTIVATIONS),
    (residual(padding="valid"), "padding", "padding='valid'", ["'symmetric'", "'same'"]),
    (bottleneck(padding="valid"), "padding", "padding='valid'", ["'symmetric'", "'same'"]),
    *[
        (make(padding="ceil"), "padding", "padding='ceil'", ["'symmetric'", "'same'"])
        for make in (residual, bottleneck, inception, lambda **o: lambda: ConvUnit(4, **o))
    ],
    (inception(padding="vald"), "padding", "padding='vald'", ["mean 'valid'"]),
    (lambda: Pooling("max", padding="floor"), "padding", "padding='floor'", ["'ceil'"]),
    (residual(data_format="nhwc"), "data_format", "='nhwc'", ["channels_last", "channels_first"]),
    (lambda: Pooling("min"), "kind", "kind='min'", ["'max'", "'avg'"]),
    (lambda: kr.shortcuts.ProjectionShortcut("never"), "when", "='never'", ["'shape'"]),
    # Lambdas.
    *[
        (residual(**{name: value}), name, f"{name}=", REGISTER)
        for name in PLUGGABLE
        for value in (
            lambda x: x,
            keras.layers.Lambda(lambda x: x),
            keras.Sequential([keras.layers.Lambda(lambda x: x)]),
        )
    ],
    (
        lambda: kr.ResidualBlock(4, activation=keras.layers.Activation(lambda x: x)),
        "activation",
        "activation=<Activation",
        REGISTER,
    ),
    (
        lambda: kr.shortcuts.ProjectionShortcut(normalization=lambda x: x),
        "normalization",
        "normalization=<function",
        REGISTER,
    ),
    # Things of another kind.
    *[
        (residual(**{name: value}), name, f"{name}=", ["config dict"])
        for name in PLUGGABLE
        for value in (3, keras.layers.ELU, ["relu"])
    ],
    *[
        (residual(**{name: config_of_an_unknown_class()}), name, f"{name}=", ["Nope"])
        for name in PLUGGABLE
    ],
    (
        residual(activation=functools.partial(keras.activations.elu, alpha=0.2)),
        "activation",
        "activation=functools.partial",
        ["function"],
    ),
    (residual(shortcut=kr.shortcuts.IdentityShortcut), "shortcut", "shortcut=<class", ["instance"]),
    # Switches.
    *[
        (make(**{name: value}), name, f"{name}={value!r}", ["True or False"])
        for make, name in [
            (residual, "preactivation"),
            (residual, "use_bias"),
            (residual, "zero_init_residual"),
            (residual, "atrous"),
            (bottleneck, "atrous"),
            (inception, "atrous"),
            (bottleneck, "stride_in_1x1"),
        ]
        for value in (1, "yes")
    ],
    (lambda: kr.shortcuts.ProjectionShortcut(use_bias="no"), "use_bias", "use_bias='no'", []),
    # Options that mean nothing together.
    (residual(shortcut=None, zero_init_residual=True), "zero_init_residual", "shortcut=None", []),
    (residual(shortcut=None, drop_path_rate=0.1), "drop_path_rate", "shortcut=None", []),
    (inception(drop_path_rate=0.1), "drop_path_rate", "shortcut=None", []),
    (
        inception([["max_pool"]], shortcut="identity", zero_init_residual=True),
        "zero_init_residual=True",
        "branches=[['max_pool']]",
        [],
    ),
    (
        inception([[(3, 3)], [1, "max_pool"]], shortcut="identity", zero_init_residual=True),
        "zero_init_residual=True",
        "branches=[[(3, 3)], [1, 'max_pool']]",
        [],
    ),
    (inception(filters=4, zero_init_residual=True), "zero_init_residual", "shortcut=None", []),
    *[
        (
            lambda padding=padding: Pooling("max", padding=padding, pad_value=0.0),
            "pad_value",
            f"pad_value=0.0, padding={padding!r}",
            ['`padding="symmetric"`'],
        )
        for padding in ("same", "valid", "ceil")
    ],
    # Branches.
    *[
        (inception(branches), "branches", f"branches={branches!r}", [])
        for branches in (
            [],
            None,
            4,
            "max_pool",
            [4],
            [[]],
            [[4], []],
            [["maxpool"]],
            [[0]],
            [[-4]],
            [[True]],
            [[4.0]],
            [[(4, 0)]],
            [[("4", 3)]],
            [[(4, 3, 1)]],
            [[()]],
            [[4, [[]]]],
            [[{"filters": 4}]],
        )
    ],
    (lambda: kr.InceptionBlock.v1(4, 4, (1, 2), 4), "conv3x3", "conv3x3=4", ["pair"]),
    (lambda: kr.InceptionBlock.v1(4, (1, 2), (1,), 4), "conv5x5", "conv5x5=(1,)", ["pair"]),
    (lambda: kr.InceptionBlock.v1(4, (1, 0), (1, 2), 4), "branches", "branches=", ["(0, 3)"]),
    # Unknown arguments.
    *[
        (make(activatoin="elu"), "activatoin", "activatoin='elu'", ["'activation'", who])
        for make, who in [
            (residual, "ResidualBlock"),
            (bottleneck, "BottleneckBlock"),
            (inception, "InceptionBlock"),
        ]
    ],
    (residual(expansion=4), "expansion", "expansion=4", ["'filters'", "ResidualBlock"]),
    (residual(branches=[]), "branches", "branches=[]", []),
    (bottleneck(residual_scale=2), "residual_scale", "residual_scale=2", []),
    (lambda: kr.SqueezeExcite(ratio=4), "ratio", "ratio=4", ["'reduction'"]),
    (lambda: Pooling("max", size=3), "size", "size=3", ["'pool_size'"]),
]


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(("make", "argument", "received", "said"), CONSTRUCTION)
def test_bad_argument_raises_at_construction(make, argument, received, said):
    with pytest.raises(ValueError, match=r"^[^\n]*Received:") as raised:
        make()
    message = str(raised.value)
    assert f"`{argument}`" in message
    expectation, _, what_was_received = message.rpartition("Received:")
    assert received in what_was_received
    assert expectation.strip()
    assert [part for part in said if part not in message] == []


def branch_of(filters):
    return kr.shortcuts.LayerShortcut(keras.layers.Conv2D(filters, 1))


# What is built, the input's shape, and what the message must say.
BUILD = [
    # The identity, where shapes change.
    *[
        (make, (2, 4, 4, channels), ['`shortcut="identity"`', "projection", f"{channels} input"])
        for make, channels in [
            (residual(4, shortcut="identity"), 3),
            (residual(4, shortcut="identity"), 5),
            (bottleneck(4, shortcut="identity"), 4),
            (inception(shortcut="identity"), 3),
            (inception(filters=3, shortcut="identity"), 4),
        ]
    ],
    (residual(4, 2, shortcut="identity"), IMAGES, ['`shortcut="identity"`', "strides=2"]),
    (residual(4, 2, shortcut="identity", atrous=True), IMAGES, ['`shortcut="identity"`']),
    (residual(4, (1, 2), shortcut="identity"), IMAGES, ['`shortcut="identity"`', "(1, 2)"]),
    (residual(2, shortcut="zero_pad"), IMAGES, ['`shortcut="zero_pad"`', "4 input", "2 output"]),
    # Other shortcuts that lead elsewhere.
    (residual(4, shortcut=branch_of(3)), IMAGES, ["`shortcut`", "(2, 4, 4, 4)", "(2, 4, 4, 3)"]),
    (residual(8, shortcut=keras.layers.ReLU()), IMAGES, ["`shortcut`", "(2, 4, 4, 8)"]),
    # Groups that do not divide the channels.
    (residual(4, groups=2), (2, 4, 4, 3), ["`groups`", "input channels (3)", "groups=2"]),
    (lambda: ConvUnit(4, groups=4), (2, 4, 6), ["`groups`", "(6)", "groups=4"]),
    # Ranks, channels and sizes.
    *[
        (make, shape, [make().__class__.__name__, "rank 3, 4 or 5", f"input_shape={shape}"])
        for make in (
            residual(),
            bottleneck(),
            inception(),
            lambda: kr.SqueezeExcite(),
            lambda: kr.EfficientChannelAttention(),
            lambda: ConvUnit(4),
            lambda: Pooling("max"),
            lambda: AdaptiveAveragePooling(2),
        )
        for shape in ((2,), (2, 4), (2, 4, 4, 4, 4, 4))
    ],
    *[
        (make, shape, ["channel dimension", "defined", "data_format", f"input_shape={shape}"])
        for make, shape in [
            (residual(), (2, 4, 4, None)),
            (bottleneck(), (2, 4, None)),
            (inception(), (2, 4, 4, 4, None)),
            (residual(data_format="channels_first"), (2, None, 4, 4)),
            (lambda: kr.SqueezeExcite(), (2, 4, 4, None)),
            (lambda: ConvUnit(4), (2, 4, 4, None)),
        ]
    ],
    *[
        (make, shape, ["empty", f"input_shape={shape}"])
        for make in (residual(), bottleneck(), inception(), lambda: Pooling("max"))
        for shape in ((2, 0, 4, 4), (2, 4, 0, 4), (2, 0, 4))
    ],
    *[
        (make, IMAGES, ["`input_shape`", "without padding", "(5, 5)", "(4, 4)"])
        for make in (
            lambda: ConvUnit(4, 5, padding="valid"),
            lambda: Pooling("max", 5, padding="valid"),
            inception([[(4, 5)]], 2, padding="valid"),
        )
    ],
    *[
        (make, shape, ["`strides`", f"{len(shape) - 2} integers", "strides=(1, 2)"])
        for make in (residual(4, (1, 2)), bottleneck(4, (1, 2)), inception(strides=(1, 2)))
        for shape in ((2, 4, 4), (2, 4, 4, 4, 4))
    ],
    (residual(kernel_size=(3, 3)), (2, 4, 4), ["`kernel_size`", "kernel_size=(3, 3)"]),
    (lambda: AdaptiveAveragePooling((2, 2)), (2, 4, 4), ["`output_size`", "output_size=(2, 2)"]),
    (lambda: Pooling("max", (2, 2)), (2, 4, 4), ["`pool_size`", "pool_size=(2, 2)"]),
]


@pytest.mark.parametrize(("make", "shape", "said"), BUILD)
def test_shape_that_does_not_fit_raises_at_build(make, shape, said):
    layer = make()
    with pytest.raises(ValueError, match="Received") as raised:
        layer.build(shape)
    message = str(raised.value)
    assert [part for part in said if part not in message] == []


@pytest.mark.parametrize("make", [residual(), bottleneck(), inception()])
@pytest.mark.parametrize("shape", [(4,), (4, 4, 4, 4, 4)])
def test_wrong_rank_raises_when_called_in_a_model(make, shape):
    with pytest.raises(ValueError, match="rank 3, 4 or 5"):
        make()(keras.Input(shape))


@pytest.mark.parametrize("make", [residual(), bottleneck(), inception()])
def test_compute_output_shape_refuses_what_build_refuses(make):
    with pytest.raises(ValueError, match="rank 3, 4 or 5"):
        make().compute_output_shape((2, 4))
    with pytest.raises(ValueError, match="empty"):
        make().compute_output_shape((2, 0, 4))


def test_arguments_of_every_keras_layer_are_accepted_and_listed():
    with pytest.raises(ValueError, match="'trainable'"):
        kr.ResidualBlock(4, foo=1)
    block = kr.ResidualBlock(4, name="mine", trainable=False, dtype="float64", autocast=False)
    assert block.name == "mine"


def test_failed_build_leaves_a_block_that_can_be_built():
    block = kr.ResidualBlock(4, shortcut="identity")
    with pytest.raises(ValueError, match="identity"):
        block.build((2, 4, 4, 3))
    block.build(shape_of(2))
    assert len(block.trainable_weights) == 6
