"""Every kind of bad input, and what its message says."""

import functools

import keras
import pytest
from helpers import refusal, shape_of

import keras_resblocks as kr
from keras_resblocks.layers import AdaptiveAveragePooling, ConvUnit, Pooling

IMAGES = (2, 4, 4, 4)

ACTIVATIONS = ["'elu'", "'relu'", "'gelu'", "'leaky_relu'"]
NORMALIZATIONS = ["'batch'", "'group'", "'instance'", "'layer'"]
ATTENTIONS = ["'efficient_channel'", "'squeeze_excite'"]
SHORTCUTS = ["'avg_pool'", "'identity'", "'projection'", "'projection_always'", "'zero_pad'"]
PADDINGS = ["'symmetric'", "'same'"]
REGISTER = ["lambda", "register_keras_serializable"]
PLUGGABLE = ("activation", "exit_activation", "normalization", "attention", "shortcut")
ANY = []  # nothing but what every message says


def maker(layer_class, **defaults):
    return lambda **options: layer_class(**{**defaults, **options})


residual = maker(kr.ResidualBlock, filters=4)
bottleneck = maker(kr.BottleneckBlock, filters=4)
inception = maker(kr.InceptionBlock, branches=[[4]])
inception_v1 = maker(
    kr.InceptionBlock.v1, conv1x1=4, conv3x3=(1, 2), conv5x5=(1, 2), pool_projection=4
)
unit = maker(ConvUnit, filters=4)
pooling = maker(Pooling, kind="max")
projection = kr.shortcuts.ProjectionShortcut

# What is made; its arguments, of which the message quotes the first in backticks, and says what
# was received; and whatever else the message must say.
CONSTRUCTION = [
    # Sizes.
    *[
        (make, {name: value}, ["positive integer"])
        for make, names in [
            (residual, ("filters", "strides", "kernel_size", "dilation_rate", "groups")),
            (bottleneck, ("filters", "strides", "expansion")),
            (inception, ("strides",)),
        ]
        for name in names
        for value in (0, -1, 1.5, "2", None, True)
    ],
    *[
        (inception, {"filters": value}, ["positive integer"])
        for value in (0, -1, 1.5, "8", True, (8,))
    ],
    *[
        (AdaptiveAveragePooling, {"output_size": value}, ANY)
        for value in (0, -1, 1.5, "2", None, True, (), (2, 0), (1, 1, 1, 1))
    ],
    (residual, {"strides": (1, 0)}, ANY),
    (residual, {"strides": (1, 1, 1, 1)}, ["each spatial axis"]),
    (residual, {"kernel_size": ()}, ANY),
    (kr.SqueezeExcite, {"reduction": 0}, ["positive integer"]),
    (kr.EfficientChannelAttention, {"kernel_size": 4}, ["odd"]),
    (kr.EfficientChannelAttention, {"kernel_size": -3}, ANY),
    (unit, {"filters": 0}, ANY),
    (pooling, {"pool_size": 0}, ANY),
    (pooling, {"strides": 0}, ANY),
    # Groups that do not divide, strides with dilation.
    (residual, {"groups": 3}, ["divide", "filters (4)"]),
    (bottleneck, {"groups": 3}, ["divide", "filters (4)"]),
    (inception, {"groups": 2, "branches": [[2, (3, 3)]]}, ["divide", "filters (3)"]),
    *[
        (make, {"strides": 2, "dilation_rate": 2}, ["`dilation_rate`", "dilation_rate=2", "both"])
        for make in (residual, bottleneck, inception)
    ],
    # Rates.
    *[
        (residual, {"drop_path_rate": value}, ["[0, 1)"])
        for value in (-0.1, 1.0, 1, 2, "0.1", None, True, float("nan"))
    ],
    (kr.StochasticDepth, {"rate": 1.0}, ["[0, 1)"]),
    (kr.StochasticDepth, {"rate": -0.1}, ["[0, 1)"]),
    (inception, {"residual_scale": "x"}, ["number"]),
    (inception, {"residual_scale": float("nan")}, ANY),
    # Names.
    (residual, {"activation": "rellu"}, [*ACTIVATIONS, "mean 'relu'"]),
    (residual, {"normalization": "bath"}, [*NORMALIZATIONS, "'batch'?"]),
    (residual, {"exit_activation": "rellu"}, [*ACTIVATIONS, "mean 'relu'"]),
    (residual, {"exit_activation": "foo"}, ACTIVATIONS),
    (residual, {"attention": "squeeze"}, ATTENTIONS),
    (residual, {"shortcut": "projecton"}, [*SHORTCUTS, "mean 'projection'"]),
    (residual, {"shortcut": "none"}, SHORTCUTS),
    (lambda shortcut: kr.shortcuts.get(shortcut), {"shortcut": "nope"}, SHORTCUTS),
    (lambda shortcut: kr.shortcuts.deserialize(shortcut), {"shortcut": {"a": 1}}, SHORTCUTS),
    (kr.shortcuts.LayerShortcut, {"layer": None}, ["Keras layer"]),
    (kr.SqueezeExcite, {"activation": "x"}, ACTIVATIONS),
    (residual, {"padding": "valid"}, PADDINGS),
    (bottleneck, {"padding": "valid"}, PADDINGS),
    *[(make, {"padding": "ceil"}, PADDINGS) for make in (residual, bottleneck, inception, unit)],
    (inception, {"padding": "vald"}, ["mean 'valid'"]),
    (pooling, {"padding": "floor"}, ["'ceil'"]),
    (residual, {"data_format": "nhwc"}, ["channels_last", "channels_first"]),
    (Pooling, {"kind": "min"}, ["'max'", "'avg'"]),
    (projection, {"when": "never"}, ["'shape'"]),
    # Lambdas.
    *[
        (residual, {name: value}, REGISTER)
        for name in PLUGGABLE
        for value in (
            lambda x: x,
            keras.layers.Lambda(lambda x: x),
            keras.Sequential([keras.layers.Lambda(lambda x: x)]),
        )
    ],
    (
        # The layer is made where the warning of a lambda is expected.
        lambda activation: residual(activation=keras.layers.Activation(activation)),
        {"activation": lambda x: x},
        ["activation=<Activation", *REGISTER],
    ),
    (projection, {"normalization": lambda x: x}, ["normalization=<function", *REGISTER]),
    # Things of another kind.
    *[
        (residual, {name: value}, ["config dict"])
        for name in PLUGGABLE
        for value in (3, keras.layers.ELU, ["relu"])
    ],
    *[(residual, {name: {"class_name": "Nope", "config": {}}}, ["Nope"]) for name in PLUGGABLE],
    (
        residual,
        {"activation": functools.partial(keras.activations.elu, alpha=0.2)},
        ["activation=functools.partial", "function"],
    ),
    (residual, {"shortcut": kr.shortcuts.IdentityShortcut}, ["shortcut=<class", "instance"]),
    # Switches.
    *[
        (make, {name: value}, ["True or False"])
        for make, names in [
            (residual, ("preactivation", "use_bias", "zero_init_residual", "remat", "atrous")),
            (bottleneck, ("atrous", "stride_in_1x1")),
            (inception, ("atrous",)),
        ]
        for name in names
        for value in (1, "yes")
    ],
    (projection, {"use_bias": "no"}, ANY),
    # Options that mean nothing together.
    (residual, {"zero_init_residual": True, "shortcut": None}, ["shortcut=None"]),
    (residual, {"drop_path_rate": 0.1, "shortcut": None}, ["shortcut=None"]),
    (inception, {"drop_path_rate": 0.1}, ["shortcut=None"]),
    (inception, {"zero_init_residual": True, "filters": 4}, ["shortcut=None"]),
    *[
        (pooling, {"pad_value": 0.0, "padding": given}, [f"={given!r}", '`padding="symmetric"`'])
        for given in ("same", "valid", "ceil")
    ],
    # Branches.
    *[
        (inception, {"branches": branches}, ANY)
        for branches in ([], None, 4, "max_pool", [4], [[]], [[4], []], [[4, [[]]]])
    ],
    *[
        (inception, {"branches": [[step]]}, ANY)
        for step in ("maxpool", 0, -4, True, 4.0, (4, 0), ("4", 3), (4, 3, 1), (), {"filters": 4})
    ],
    (inception_v1, {"conv3x3": 4}, ["pair"]),
    (inception_v1, {"conv5x5": (1,)}, ["pair"]),
    # Unknown arguments.
    (residual, {"activatoin": "elu"}, ["'activation'", "ResidualBlock"]),
    (bottleneck, {"activatoin": "elu"}, ["'activation'", "BottleneckBlock"]),
    (inception, {"activatoin": "elu"}, ["'activation'", "InceptionBlock"]),
    (residual, {"expansion": 4}, ["'filters'", "ResidualBlock"]),
    (residual, {"foo": 1}, ["'trainable'"]),
    (residual, {"branches": []}, ANY),
    (bottleneck, {"residual_scale": 2}, ANY),
    (kr.SqueezeExcite, {"ratio": 4}, ["'reduction'"]),
    (pooling, {"size": 3}, ["'pool_size'"]),
]


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(("make", "options", "said"), CONSTRUCTION)
def test_bad_argument_raises_at_construction(make, options, said):
    message = refusal(lambda: make(**options), said, r"^[^\n]*Received:")
    expectation, _, received = message.rpartition("Received:")
    [argument, value], *_ = options.items()
    assert f"`{argument}`" in message
    has_plain_repr = value is None or isinstance(value, (bool, int, float, str, tuple, list))
    assert (f"{argument}={value!r}" if has_plain_repr else f"{argument}=") in received
    assert expectation.strip()


# What is made, and what the message must say of its branches.
BRANCHES = [
    *[
        (
            lambda branches=branches: inception(
                branches=branches, shortcut="identity", zero_init_residual=True
            ),
            ["`zero_init_residual=True`", f"branches={branches!r}"],
        )
        for branches in ([["max_pool"]], [[(3, 3)], [1, "max_pool"]])
    ],
    (lambda: inception_v1(conv3x3=(1, 0)), ["`branches`", "branches=", "(0, 3)"]),
]


@pytest.mark.parametrize(("make", "said"), BRANCHES)
def test_branches_that_do_not_do_are_shown(make, said):
    refusal(make, said)


# What is built, the input's shape, and what the message must say.
BUILD = [
    # The identity, where shapes change.
    *[
        (block, (2, 4, 4, channels), ['`shortcut="identity"`', "projection", f"{channels} input"])
        for block, channels in [
            (residual(shortcut="identity"), 3),
            (residual(shortcut="identity"), 5),
            (bottleneck(shortcut="identity"), 4),
            (inception(shortcut="identity"), 3),
            (inception(filters=3, shortcut="identity"), 4),
        ]
    ],
    *[
        (residual(shortcut="identity", **options), IMAGES, ['`shortcut="identity"`', *said])
        for options, said in [
            ({"strides": 2}, ["strides=2"]),
            ({"strides": 2, "atrous": True}, []),
            ({"strides": (1, 2)}, ["(1, 2)"]),
        ]
    ],
    (
        residual(filters=2, shortcut="zero_pad"),
        IMAGES,
        ['`shortcut="zero_pad"`', "4 input", "2 output"],
    ),
    # Other shortcuts that lead elsewhere.
    (
        residual(shortcut=kr.shortcuts.LayerShortcut(keras.layers.Conv2D(3, 1))),
        IMAGES,
        ["`shortcut`", "(2, 4, 4, 4)", "(2, 4, 4, 3)"],
    ),
    (residual(filters=8, shortcut=keras.layers.ReLU()), IMAGES, ["`shortcut`", "(2, 4, 4, 8)"]),
    # Groups that do not divide the channels.
    (residual(groups=2), (2, 4, 4, 3), ["`groups`", "input channels (3)", "groups=2"]),
    (unit(groups=4), (2, 4, 6), ["`groups`", "(6)", "groups=4"]),
    # Ranks, channels and sizes.
    *[
        (layer, shape, [type(layer).__name__, "rank 3, 4 or 5", f"input_shape={shape}"])
        for layer in (
            residual(),
            bottleneck(),
            inception(),
            kr.SqueezeExcite(),
            kr.EfficientChannelAttention(),
            unit(),
            pooling(),
            AdaptiveAveragePooling(2),
        )
        for shape in ((2,), (2, 4), (2, 4, 4, 4, 4, 4))
    ],
    *[
        (layer, shape, ["channel dimension", "defined", "data_format", f"input_shape={shape}"])
        for layer, shape in [
            (residual(), (2, 4, 4, None)),
            (bottleneck(), (2, 4, None)),
            (inception(), (2, 4, 4, 4, None)),
            (residual(data_format="channels_first"), (2, None, 4, 4)),
            (kr.SqueezeExcite(), (2, 4, 4, None)),
            (unit(), (2, 4, 4, None)),
        ]
    ],
    *[
        (layer, shape, ["empty", f"input_shape={shape}"])
        for layer in (residual(), bottleneck(), inception(), pooling())
        for shape in ((2, 0, 4, 4), (2, 4, 0, 4), (2, 0, 4))
    ],
    *[
        (layer, IMAGES, ["`input_shape`", "without padding", "(5, 5)", "(4, 4)"])
        for layer in (
            unit(kernel_size=5, padding="valid"),
            pooling(pool_size=5, padding="valid"),
            inception(branches=[[(4, 5)]], strides=2, padding="valid"),
        )
    ],
    *[
        (make(strides=(1, 2)), shape, ["`strides`", f"{len(shape) - 2} integers", "strides=(1, 2)"])
        for make in (residual, bottleneck, inception)
        for shape in ((2, 4, 4), (2, 4, 4, 4, 4))
    ],
    (residual(kernel_size=(3, 3)), (2, 4, 4), ["`kernel_size`", "kernel_size=(3, 3)"]),
    (AdaptiveAveragePooling((2, 2)), (2, 4, 4), ["`output_size`", "output_size=(2, 2)"]),
    (pooling(pool_size=(2, 2)), (2, 4, 4), ["`pool_size`", "pool_size=(2, 2)"]),
]


@pytest.mark.parametrize(("layer", "shape", "said"), BUILD)
def test_shape_that_does_not_fit_raises_at_build(layer, shape, said):
    refusal(lambda: layer.build(shape), said)


@pytest.mark.parametrize("make", [residual, bottleneck, inception])
def test_rank_is_checked_when_called_in_a_model_and_when_asked_for_the_shape(make):
    for shape in ((4,), (4, 4, 4, 4, 4)):
        with pytest.raises(ValueError, match="rank 3, 4 or 5"):
            make()(keras.Input(shape))
    for shape, said in (((2, 4), "rank 3, 4 or 5"), ((2, 0, 4), "empty")):
        with pytest.raises(ValueError, match=said):
            make().compute_output_shape(shape)


def test_arguments_of_every_keras_layer_are_accepted():
    block = kr.ResidualBlock(4, name="mine", trainable=False, dtype="float64", autocast=False)
    assert block.name == "mine"


def test_failed_build_leaves_a_block_that_can_be_built():
    block = kr.ResidualBlock(4, shortcut="identity")
    with pytest.raises(ValueError, match="identity"):
        block.build((2, 4, 4, 3))
    block.build(shape_of(2))
    assert len(block.trainable_weights) == 6
