"""Bad input to a network: the argument, what is expected, what was received."""

import functools

import keras
import pytest
from networks import COURSE, TINY, quick_model

import keras_resblocks as kr
from keras_resblocks.layers import Conv, Pool, Subsample
from keras_resblocks.models import AuxHead

SPEC = TINY["residual"]
SHRINKING = kr.ResNetSpec("residual", (1, 1), (8, 4), stem=(Conv(8, 3),), input_shape=(8, 8, 3))
STEMLESS = kr.ResNetSpec("residual", (1,), 4, stem=(), input_shape=(8, 8, 3))
MISSPELT = kr.ResNetSpec("residual", (1,), 4, options={"activaton": "elu"})
OF_BOTTLENECKS = kr.ResNetSpec("residual", (1,), 4, options={"stride_in_1x1": True})

IDENTITY = ('`shortcut="identity"`', "Received: 4 input channels for 8", "strides=2")
ZERO_PAD = ('`shortcut="zero_pad"`', "Received: 8 input channels for 4")

# What `create_model` and `cost` both refuse: a model, its arguments, and what the message holds.
# It also holds the first argument and its value, unless the case says what was received.
OF_BOTH = [
    ("vgg16", {}, "The model must be", "'vgg16'"),
    ("resnet5", {}, "Did you mean", "'resnet50'", "Received: 'resnet5'"),
    ("ResNet50", {}, "Did you mean", "'resnet50'"),
    ("resnet50_v2_keras", {}, "Did you mean", "'resnet50v2_keras'"),
    (None, {}, "The model must be", "Received: None"),
    (kr.ResNetSpec, {}, "The model must be", "ResNetSpec"),
    (["resnet50"], {}, "The model must be", "Received: ['resnet50']"),
    (MISSPELT, {}, "`activaton`", "Did you mean 'activation'", "Received: activaton='elu'"),
    (OF_BOTTLENECKS, {}, "`stride_in_1x1`", "Received: stride_in_1x1=True"),
    ("resnet18", {"activaton": "elu"}, "Did you mean 'activation'"),
    ("resnet18", {"foo": 1}, "'normalization'"),
    ("resnet18", {"filters": 8}),
    ("resnet18", {"strides": 1}),
    ("resnet18", {"expansion": 2}),
    (SPEC, {"activation": "eluu"}, "Did you mean 'elu'", "'gelu'"),
    (SPEC, {"activation": lambda x: x}, "`activation`", "register", "Received: "),
    (SPEC, {"normalization": "bach"}, "'batch'"),
    (SPEC, {"shortcut": "projected"}, "'projection'"),
    (SPEC, {"shortcut": "identity"}, *IDENTITY),
    (SHRINKING, {"shortcut": "zero_pad"}, *ZERO_PAD),
    (SPEC, {"attention": "se"}, "'squeeze_excite'"),
    (SPEC, {"data_format": "NCHW"}, "'channels_first'"),
    (SPEC, {"groups": 3}, "filters"),
    (STEMLESS, {"groups": 2}, "input channels (3)"),
    (SPEC, {"drop_path_rate": 1}, "[0, 1)"),
    (SPEC, {"drop_path_rate": -0.1}, "[0, 1)"),
    (SPEC, {"drop_path_rate": "much"}, "[0, 1)"),
    (SPEC, {"kernel_size": (3, 3), "input_shape": (8, 3)}, "tuple of 1"),
    (SPEC, {"dilation_rate": 2}, "`strides` and", "Received: strides=2, dilation_rate=2"),
    (SPEC, {"input_shape": (3,)}),
    (SPEC, {"input_shape": (8, 8, 8, 8, 3)}, "one, two or three"),
    (SPEC, {"input_shape": 8}),
    (SPEC, {"input_shape": (0, 8, 3)}, "positive"),
    (SPEC, {"input_shape": (8, -8, 3)}, "positive"),
    (SPEC, {"input_shape": (8.5, 8, 3)}),
    (SPEC, {"input_shape": (8, 8, None)}, "channels"),
    (SPEC, {"input_shape": (None, 8, 8), "data_format": "channels_first"}, "channels"),
    (COURSE, {"input_shape": (5, 5, 3)}, "window of (2, 2)", "Received: spatial shape (1, 1)"),
    (COURSE, {"input_shape": (4, 4, 3)}, "window of (3, 3)", "Received: spatial shape (2, 2)"),
    (COURSE, {"input_shape": (None, 64, 3)}, "`final_pool`"),
    (SPEC, {"classes": 0}, "positive"),
    (SPEC, {"classes": -1}),
    (SPEC, {"classes": 2.5}),
    (SPEC, {"classes": "ten"}),
    (SPEC, {"classes": True}),
]

create = functools.partial(quick_model, SPEC)
resnet18 = functools.partial(quick_model, "resnet18")
resnet50 = functools.partial(quick_model, "resnet50")
googlenet = functools.partial(quick_model, "googlenet")
resnet = functools.partial(kr.ResNetSpec, depths=(1, 1), width=4)
inception = functools.partial(kr.InceptionSpec, stages=([[[4], [(4, 3)]]],))
conv = functools.partial(Conv, 4)
head = functools.partial(AuxHead, "stage1_block1")

IMAGENET = ('`weights="imagenet"`', "resnet50_keras")


def cost_of_a_model(**arguments):
    return kr.cost(quick_model(SPEC), **arguments)


# The same, of anything else that takes arguments.
OTHERS = [
    (kr.ResNet18, {"foo": 1}),
    (kr.GoogLeNet, {"activaton": "elu"}, "Did you mean 'activation'"),
    (create, {"pooling": "mean", "include_top": False}, "'avg'", "'max'"),
    (create, {"pooling": "mean"}),
    (create, {"classifier_activation": "softmx"}, "'softmax'"),
    (create, {"input_tensor": [1.0, 2.0]}, "Keras tensor"),
    (create, {"weights": "missing.weights.h5"}, "None", "path", ".weights.h5"),
    (create, {"weights": "coco"}, "None", "path"),
    (create, {"weights": 3}),
    (create, {"weights": "."}),
    (create, {"weights": "imagenet"}, *IMAGENET, "Received: weights='imagenet' for None"),
    (
        *(resnet50, {"weights": "imagenet"}, *IMAGENET),
        *("timm/resnet50.a1_in1k", "Received: weights='imagenet' for 'resnet50'"),
    ),
    (
        resnet50,
        {"weights": "torchvision/resnet50.IMAGENET1K_V3"},
        "torchvision/resnet50.IMAGENET1K_V2",
    ),
    (resnet50, {"weights": "torchvision/resnet5"}, "Did you mean 'resnet50'"),
    (resnet18, {"aux_heads": True}, "`aux_heads=True`", "googlenet_torchvision", "Received: "),
    (
        googlenet,
        {"aux_heads": True, "include_top": False},
        *("`aux_heads=True`", "`include_top=True`", "Received: ", "include_top=False"),
    ),
    (googlenet, {"aux_heads": 2}, "True or False"),
    (
        googlenet,
        {"input_shape": (None, None, 3), "aux_heads": True},
        *("`input_shape`", "`aux_heads=True`", "Received: (None, None) at `stage2_block1`"),
    ),
    (resnet18, {"output_stride": 6}, "[4, 8, 16, 32]"),
    (googlenet, {"output_stride": 8}, "inception"),
    (resnet18, {"output_stride": 8, "dilation_rate": 2}, "`dilation_rate`", ", dilation_rate=2"),
    (
        create,
        {"shortcut": None, "drop_path_rate": 0.5},
        *("`drop_path_rate`", "Received: shortcut=None", "drop_path_rate=0."),
    ),
    (
        create,
        {"shortcut": None, "zero_init_residual": True},
        *("`zero_init_residual`", "Received: shortcut=None", "zero_init_residual=True"),
    ),
    (create, {"preactivation": "yes"}, "True or False"),
    (create, {"padding": "valid"}, "'same'"),
    (cost_of_a_model, {"classes": 3}, "`model`", "no further arguments", "Received: classes=3"),
    (cost_of_a_model, {"activation": "elu"}, "`model`", "no further", "Received: activation='elu'"),
    (resnet, {"aux_heads": ("stage1_block1",)}, "`aux_heads`", "Received: 'stage1_block1'"),
    (resnet, {"block": "basic"}, "'residual'", "'bottleneck'"),
    (resnet, {"block": "inception"}),
    (resnet, {"depths": ()}, "non-empty"),
    (resnet, {"depths": 3}, "tuple"),
    (resnet, {"depths": (1, 0)}, "`depths`", "positive", "Received: depths=0"),
    (resnet, {"depths": (1, 1.5)}, "`depths`", "Received: depths=1.5"),
    (resnet, {"width": 0}, "positive"),
    (resnet, {"width": "wide"}),
    (resnet, {"width": (4,)}, "each of 2 stages"),
    (resnet, {"width": (4, 0)}, "`width`", "positive", "Received: width=0"),
    (resnet, {"strides": (1, 2, 2)}, "each of 2 stages"),
    (resnet, {"strides": 2}, "each of 2 stages"),
    (resnet, {"strides": (1, 0)}, "`strides`", "Received: strides=0"),
    (resnet, {"stride_at": "middle"}, "'first'", "'last'"),
    (resnet, {"stem": Conv(4, 3)}, "tuple of `Conv` and `Pool`"),
    (resnet, {"stem": ("conv",)}, "`Conv` and `Pool`"),
    (resnet, {"stem": (Subsample(4, 2),)}, "`Conv` and `Pool`"),
    (resnet, {"final_pool": 0}),
    (resnet, {"dropout": 1.0}, "[0, 1)"),
    (resnet, {"classes": 0}, "positive"),
    (inception, {"stages": 4}),
    (inception, {"stages": ([],)}, "non-empty"),
    (inception, {"stages": ([4],)}, "`branches`", "Received: branches=4"),
    (
        inception,
        {"stages": ([[["median_pool"]]],)},
        *("`branches`", "'max_pool'", "'median_pool'", "Received: branches=[['median_pool']]"),
    ),
    (inception, {"stem": 3}),
    (
        inception,
        {"aux_heads": (AuxHead("stage9_block1", Pool("avg", 3)),)},
        *("`aux_heads`", "'stage1_block1'", "Received: AuxHead(after='stage9_block1'"),
    ),
    (Conv, {"filters": 0}),
    (conv, {"kernel_size": 0}),
    (conv, {"strides": "2"}),
    (conv, {"groups": 3}, "filters (4)"),
    (conv, {"dilation_rate": 0}),
    (conv, {"strides": 2, "dilation_rate": 2}, "and `dilation_rate`", ", dilation_rate=2"),
    (Pool, {"kind": "median"}, "'max'"),
    (functools.partial(Pool, "max"), {"pool_size": -1}),
    (Subsample, {"filters": 0}),
    (head, {"pool": None}),
    (head, {"units": 0, "pool": Pool("avg", 3)}),
]

CASES = [
    *((functools.partial(quick_model, model), *case) for model, *case in OF_BOTH),
    *((functools.partial(kr.cost, model), *case) for model, *case in OF_BOTH),
    *OTHERS,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case[1]) or "model")
def test_bad_input_raises_what_was_expected_and_received(case):
    call, arguments, *parts = case
    if arguments and not any(part.startswith("Received: ") for part in parts):
        name, value = next(iter(arguments.items()))
        parts += [f"`{name}`", f"Received: {name}={value!r}"]
    with pytest.raises(ValueError, match="Received: ") as raised:
        call(**arguments)
    message = str(raised.value)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8,), r"rank 3, 4 or 5.* Received: input_shape=\(None, 8\)"),
        ((8, 8, None), r"channel dimension.* Received: input_shape=\(None, 8, 8, None\)"),
        ((8, 0, 3), r"must not be empty.* Received: input_shape=\(None, 8, 0, 3\)"),
    ],
)
def test_input_tensor_of_a_shape_that_no_network_takes(shape, message):
    with pytest.raises(ValueError, match=message):
        create(input_tensor=keras.Input(shape))


@pytest.mark.parametrize("name", ["resnet18", "resnet50v2_keras", "googlenet", "resnet20_cifar"])
def test_the_smallest_image_of_a_padded_network_is_a_pixel(name):
    model = quick_model(name, input_shape=(1, 1, 3), classes=2)
    assert model.output_shape == (None, 2)


def test_the_smallest_image_of_the_course_network():
    # 37 pixels: 19 after the stem's convolution, 9 after its pool, then 9, 5, 3 and 2.
    with pytest.raises(ValueError, match="`input_shape`"):
        quick_model(COURSE, input_shape=(36, 37, 3))
    assert quick_model(COURSE, input_shape=(37, 37, 3)).output_shape == (None, 6)
