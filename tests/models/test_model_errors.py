"""Bad input to a network: the argument, what is expected, what was received."""

import keras
import pytest
from networks import COURSE, TINY, quick_model

import keras_resblocks as kr
from keras_resblocks.layers import Conv, Pool, Subsample
from keras_resblocks.models import AuxHead

SPEC = TINY["residual"]


def create(model=SPEC, **arguments):
    return lambda: quick_model(model, **arguments)


def cost(model=SPEC, **arguments):
    return lambda: kr.cost(model, **arguments)


def resnet(**fields):
    return lambda: kr.ResNetSpec(**{"depths": (1, 1), "width": 4, **fields})


def inception(**fields):
    return lambda: kr.InceptionSpec(**{"stages": ([[[4], [(4, 3)]]],), **fields})


# Bad input that `create_model` and `cost` both refuse: model, arguments, what the message holds.
OF_BOTH = {
    "unknown name": ("vgg16", {}, ["The model must be", "'vgg16'"]),
    "close name": ("resnet5", {}, ["Did you mean", "'resnet50'", "Received: 'resnet5'"]),
    "close name in capitals": ("ResNet50", {}, ["Did you mean", "'resnet50'"]),
    "close variant": ("resnet50_v2_keras", {}, ["Did you mean", "'resnet50v2_keras'"]),
    "no name": (None, {}, ["The model must be", "Received: None"]),
    "a class": (kr.ResNetSpec, {}, ["The model must be", "ResNetSpec"]),
    "a list": (["resnet50"], {}, ["The model must be", "Received: ['resnet50']"]),
    "misspelt option": (
        "resnet18",
        {"activaton": "elu"},
        ["`activaton`", "Did you mean 'activation'", "Received: activaton='elu'"],
    ),
    "unknown option": ("resnet18", {"foo": 1}, ["`foo`", "'normalization'", "Received: foo=1"]),
    "argument of a block": ("resnet18", {"filters": 8}, ["`filters`", "Received: filters=8"]),
    "strides of a block": ("resnet18", {"strides": 1}, ["`strides`", "Received: strides=1"]),
    "option of another block": (
        "resnet18",
        {"expansion": 2},
        ["`expansion`", "Received: expansion=2"],
    ),
    "unknown activation": (
        SPEC,
        {"activation": "eluu"},
        ["`activation`", "Did you mean 'elu'", "'gelu'", "Received: activation='eluu'"],
    ),
    "lambda": (SPEC, {"activation": lambda x: x}, ["`activation`", "register", "Received: "]),
    "unknown normalization": (
        SPEC,
        {"normalization": "bach"},
        ["`normalization`", "'batch'", "Received: normalization='bach'"],
    ),
    "unknown shortcut": (
        SPEC,
        {"shortcut": "projected"},
        ["`shortcut`", "'projection'", "Received: shortcut='projected'"],
    ),
    "unknown attention": (
        SPEC,
        {"attention": "se"},
        ["`attention`", "'squeeze_excite'", "Received: attention='se'"],
    ),
    "unknown data format": (
        SPEC,
        {"data_format": "NCHW"},
        ["`data_format`", "'channels_first'", "Received: data_format='NCHW'"],
    ),
    "identity where shapes change": (
        SPEC,
        {"shortcut": "identity"},
        ['`shortcut="identity"`', "Received: 4 input channels for 8", "strides=2"],
    ),
    "zero padding where channels drop": (
        kr.ResNetSpec("residual", (1, 1), (8, 4), stem=(Conv(8, 3),), input_shape=(8, 8, 3)),
        {"shortcut": "zero_pad"},
        ['`shortcut="zero_pad"`', "Received: 8 input channels for 4"],
    ),
    "groups of filters": (SPEC, {"groups": 3}, ["`groups`", "filters", "Received: groups=3"]),
    "groups of channels": (
        kr.ResNetSpec("residual", (1,), 4, stem=(), input_shape=(8, 8, 3)),
        {"groups": 2},
        ["`groups`", "input channels (3)", "Received: groups=2"],
    ),
    "drop path rate of 1": (
        SPEC,
        {"drop_path_rate": 1},
        ["`drop_path_rate`", "[0, 1)", "Received: drop_path_rate=1"],
    ),
    "negative drop path rate": (
        SPEC,
        {"drop_path_rate": -0.1},
        ["`drop_path_rate`", "[0, 1)", "Received: drop_path_rate=-0.1"],
    ),
    "drop path rate in words": (
        SPEC,
        {"drop_path_rate": "much"},
        ["`drop_path_rate`", "[0, 1)", "Received: drop_path_rate='much'"],
    ),
    "kernel size of another rank": (
        SPEC,
        {"kernel_size": (3, 3), "input_shape": (8, 3)},
        ["`kernel_size`", "tuple of 1", "Received: kernel_size=(3, 3)"],
    ),
    "strides and dilation": (
        SPEC,
        {"dilation_rate": 2},
        ["`strides` and `dilation_rate`", "Received: strides=2, dilation_rate=2"],
    ),
    "no size": (SPEC, {"input_shape": (3,)}, ["`input_shape`", "Received: input_shape=(3,)"]),
    "four axes": (
        SPEC,
        {"input_shape": (8, 8, 8, 8, 3)},
        ["`input_shape`", "one, two or three", "Received: input_shape=(8, 8, 8, 8, 3)"],
    ),
    "an integer shape": (SPEC, {"input_shape": 8}, ["`input_shape`", "Received: input_shape=8"]),
    "zero size": (
        SPEC,
        {"input_shape": (0, 8, 3)},
        ["`input_shape`", "positive", "Received: input_shape=(0, 8, 3)"],
    ),
    "negative size": (
        SPEC,
        {"input_shape": (8, -8, 3)},
        ["`input_shape`", "positive", "Received: input_shape=(8, -8, 3)"],
    ),
    "fractional size": (
        SPEC,
        {"input_shape": (8.5, 8, 3)},
        ["`input_shape`", "Received: input_shape=(8.5, 8, 3)"],
    ),
    "open channels": (
        SPEC,
        {"input_shape": (8, 8, None)},
        ["`input_shape`", "channels", "Received: input_shape=(8, 8, None)"],
    ),
    "open channels first": (
        SPEC,
        {"input_shape": (None, 8, 8), "data_format": "channels_first"},
        ["`input_shape`", "channels", "Received: input_shape=(None, 8, 8)"],
    ),
    "too small for the top": (
        COURSE,
        {"input_shape": (5, 5, 3)},
        ["`input_shape`", "window of (2, 2)", "Received: spatial shape (1, 1)"],
    ),
    "too small for the stem": (
        COURSE,
        {"input_shape": (4, 4, 3)},
        ["`input_shape`", "window of (3, 3)", "Received: spatial shape (2, 2)"],
    ),
    "open size before a flat top": (
        COURSE,
        {"input_shape": (None, 64, 3)},
        ["`input_shape`", "`final_pool`", "Received: input_shape=(None, 64, 3)"],
    ),
    "no classes": (SPEC, {"classes": 0}, ["`classes`", "positive", "Received: classes=0"]),
    "negative classes": (SPEC, {"classes": -1}, ["`classes`", "Received: classes=-1"]),
    "fractional classes": (SPEC, {"classes": 2.5}, ["`classes`", "Received: classes=2.5"]),
    "classes in words": (SPEC, {"classes": "ten"}, ["`classes`", "Received: classes='ten'"]),
    "boolean classes": (SPEC, {"classes": True}, ["`classes`", "Received: classes=True"]),
    "misspelt option in a spec": (
        kr.ResNetSpec("residual", (1,), 4, options={"activaton": "elu"}),
        {},
        ["`activaton`", "Did you mean 'activation'", "Received: activaton='elu'"],
    ),
    "option of another block in a spec": (
        kr.ResNetSpec("residual", (1,), 4, options={"stride_in_1x1": True}),
        {},
        ["`stride_in_1x1`", "Received: stride_in_1x1=True"],
    ),
}

CASES = {
    **{f"create_model: {k}": (create(model, **a), m) for k, (model, a, m) in OF_BOTH.items()},
    **{f"cost: {k}": (cost(model, **a), m) for k, (model, a, m) in OF_BOTH.items()},
    "unknown keyword of a function": (
        lambda: kr.ResNet18(foo=1),
        ["`foo`", "Received: foo=1"],
    ),
    "misspelt keyword of a function": (
        lambda: kr.GoogLeNet(activaton="elu"),
        ["`activaton`", "Did you mean 'activation'", "Received: activaton='elu'"],
    ),
    "unknown pooling": (
        create(pooling="mean", include_top=False),
        ["`pooling`", "'avg'", "'max'", "Received: pooling='mean'"],
    ),
    "unknown pooling that a top would not use": (
        create(pooling="mean"),
        ["`pooling`", "Received: pooling='mean'"],
    ),
    "unknown classifier activation": (
        create(classifier_activation="softmx"),
        ["`classifier_activation`", "'softmax'", "Received: classifier_activation='softmx'"],
    ),
    "array as input tensor": (
        create(input_tensor=[1.0, 2.0]),
        ["`input_tensor`", "Keras tensor", "Received: input_tensor=[1.0, 2.0]"],
    ),
    "input tensor without an axis": (
        lambda: create(input_tensor=keras.Input((8,)))(),
        ["rank 3, 4 or 5", "Received: input_shape=(None, 8)"],
    ),
    "input tensor with open channels": (
        lambda: create(input_tensor=keras.Input((8, 8, None)))(),
        ["channel dimension", "Received: input_shape=(None, 8, 8, None)"],
    ),
    "empty input tensor": (
        lambda: create(input_tensor=keras.Input((8, 0, 3)))(),
        ["must not be empty", "Received: input_shape=(None, 8, 0, 3)"],
    ),
    "missing weights file": (
        create(weights="missing.weights.h5"),
        ["`weights`", "None", "path", ".weights.h5", "Received: weights='missing.weights.h5'"],
    ),
    "weights by another name": (
        create(weights="coco"),
        ["`weights`", "None", "path", "Received: weights='coco'"],
    ),
    "weights that are no path": (create(weights=3), ["`weights`", "Received: weights=3"]),
    "directory as weights": (create(weights="."), ["`weights`", "Received: weights='.'"]),
    "imagenet weights of another structure": (
        create("resnet50", weights="imagenet"),
        ['`weights="imagenet"`', "resnet50_keras", "timm/resnet50.a1_in1k", "for 'resnet50'"],
    ),
    "imagenet weights for a spec of one's own": (
        create(weights="imagenet"),
        ['`weights="imagenet"`', "resnet50_keras", "Received: weights='imagenet' for None"],
    ),
    "weights that torchvision does not have": (
        create("resnet50", weights="torchvision/resnet50.IMAGENET1K_V3"),
        ["`weights`", "torchvision/resnet50.IMAGENET1K_V2", "Received: weights='torchvision/res"],
    ),
    "a network that torchvision does not have": (
        create("resnet50", weights="torchvision/resnet5"),
        ["`weights`", "Did you mean 'resnet50'", "Received: weights='torchvision/resnet5'"],
    ),
    "no auxiliary classifiers": (
        create("resnet18", aux_heads=True),
        ["`aux_heads=True`", "googlenet_torchvision", "Received: aux_heads=True"],
    ),
    "auxiliary classifiers without a top": (
        create("googlenet", aux_heads=True, include_top=False),
        ["`aux_heads=True`", "`include_top=True`", "include_top=False"],
    ),
    "auxiliary classifiers in numbers": (
        create("googlenet", aux_heads=2),
        ["`aux_heads`", "True or False", "Received: aux_heads=2"],
    ),
    "auxiliary classifiers for open sizes": (
        create("googlenet", aux_heads=True, input_shape=(None, None, 3)),
        ["`input_shape`", "`aux_heads=True`", "stage2_block1"],
    ),
    "output stride that no stage has": (
        create("resnet18", output_stride=6),
        ["`output_stride`", "[4, 8, 16, 32]", "Received: output_stride=6"],
    ),
    "output stride of an inception network": (
        create("googlenet", output_stride=8),
        ["`output_stride`", "inception", "Received: output_stride=8"],
    ),
    "output stride and dilation": (
        create("resnet18", output_stride=8, dilation_rate=2),
        ["`output_stride`", "`dilation_rate`", "Received: output_stride=8, dilation_rate=2"],
    ),
    "drop path without a shortcut": (
        create(shortcut=None, drop_path_rate=0.5),
        ["`drop_path_rate`", "shortcut", "Received: shortcut=None", "drop_path_rate=0."],
    ),
    "zero start without a shortcut": (
        create(shortcut=None, zero_init_residual=True),
        ["`zero_init_residual`", "shortcut", "zero_init_residual=True"],
    ),
    "preactivation that is no boolean": (
        create(preactivation="yes"),
        ["`preactivation`", "True or False", "Received: preactivation='yes'"],
    ),
    "unknown padding": (create(padding="valid"), ["`padding`", "'same'", "padding='valid'"]),
    "arguments for a model that is built": (
        lambda: kr.cost(quick_model(SPEC), classes=3),
        ["`model`", "no further arguments", "classes=3"],
    ),
    "options for a model that is built": (
        lambda: kr.cost(quick_model(SPEC), activation="elu"),
        ["`model`", "no further arguments", "Received: activation='elu'"],
    ),
    "spec: auxiliary classifier after no layer": (
        inception(aux_heads=(AuxHead("stage9_block1", Pool("avg", 3)),)),
        ["`aux_heads`", "'stage1_block1'", "Received: AuxHead(after='stage9_block1'"],
    ),
    "spec: auxiliary classifier by name": (
        resnet(aux_heads=("stage1_block1",)),
        ["`aux_heads`", "Received: 'stage1_block1'"],
    ),
    "spec: unknown block": (
        resnet(block="basic"),
        ["`block`", "'residual'", "'bottleneck'", "Received: block='basic'"],
    ),
    "spec: inception block": (resnet(block="inception"), ["`block`", "block='inception'"]),
    "spec: no stages": (resnet(depths=()), ["`depths`", "non-empty", "Received: depths=()"]),
    "spec: one depth": (resnet(depths=3), ["`depths`", "tuple", "Received: depths=3"]),
    "spec: empty stage": (resnet(depths=(1, 0)), ["`depths`", "positive", "depths=0"]),
    "spec: fractional depth": (resnet(depths=(1, 1.5)), ["`depths`", "depths=1.5"]),
    "spec: no width": (resnet(width=0), ["`width`", "positive", "Received: width=0"]),
    "spec: width in words": (resnet(width="wide"), ["`width`", "Received: width='wide'"]),
    "spec: too few widths": (
        resnet(width=(4,)),
        ["`width`", "each of 2 stages", "Received: width=(4,)"],
    ),
    "spec: zero width": (resnet(width=(4, 0)), ["`width`", "positive", "Received: width=0"]),
    "spec: too many strides": (
        resnet(strides=(1, 2, 2)),
        ["`strides`", "each of 2 stages", "Received: strides=(1, 2, 2)"],
    ),
    "spec: one stride": (
        resnet(strides=2),
        ["`strides`", "each of 2 stages", "Received: strides=2"],
    ),
    "spec: zero stride": (resnet(strides=(1, 0)), ["`strides`", "Received: strides=0"]),
    "spec: unknown place of strides": (
        resnet(stride_at="middle"),
        ["`stride_at`", "'first'", "'last'", "Received: stride_at='middle'"],
    ),
    "spec: step as stem": (
        resnet(stem=Conv(4, 3)),
        ["`stem`", "tuple of `Conv` and `Pool`", "Received: stem=Conv("],
    ),
    "spec: names as stem": (
        resnet(stem=("conv",)),
        ["`stem`", "`Conv` and `Pool`", "Received: stem=('conv',)"],
    ),
    "spec: subsampling stem": (
        resnet(stem=(Subsample(4, 2),)),
        ["`stem`", "`Conv` and `Pool`", "Received: stem=(Subsample("],
    ),
    "spec: no final pool": (resnet(final_pool=0), ["`final_pool`", "final_pool=0"]),
    "spec: dropout of 1": (resnet(dropout=1.0), ["`dropout`", "[0, 1)", "dropout=1.0"]),
    "spec: no classes": (resnet(classes=0), ["`classes`", "positive", "Received: classes=0"]),
    "inception spec: no list": (inception(stages=4), ["`stages`", "Received: stages=4"]),
    "inception spec: empty stage": (
        inception(stages=([],)),
        ["`stages`", "non-empty", "Received: stages=([],)"],
    ),
    "inception spec: a number as block": (
        inception(stages=([4],)),
        ["`branches`", "Received: branches=4"],
    ),
    "inception spec: unknown step": (
        inception(stages=([[["median_pool"]]],)),
        ["`branches`", "'max_pool'", "'median_pool'", "Received: branches=[['median_pool']]"],
    ),
    "inception spec: stem": (inception(stem=3), ["`stem`", "Received: stem=3"]),
    "step: no filters": (lambda: Conv(0), ["`filters`", "Received: filters=0"]),
    "step: kernel size": (lambda: Conv(4, 0), ["`kernel_size`", "Received: kernel_size=0"]),
    "step: strides": (lambda: Conv(4, 3, "2"), ["`strides`", "Received: strides='2'"]),
    "step: groups": (lambda: Conv(4, groups=3), ["`groups`", "filters (4)", "groups=3"]),
    "step: dilation": (
        lambda: Conv(4, 3, dilation_rate=0),
        ["`dilation_rate`", "Received: dilation_rate=0"],
    ),
    "step: strides and dilation": (
        lambda: Conv(4, 3, 2, dilation_rate=2),
        ["`strides` and `dilation_rate`", "Received: strides=2, dilation_rate=2"],
    ),
    "step: kind of pool": (lambda: Pool("median"), ["`kind`", "'max'", "kind='median'"]),
    "step: subsample": (lambda: Subsample(0), ["`filters`", "Received: filters=0"]),
    "auxiliary head: pool": (lambda: AuxHead("stage1_block1", None), ["`pool`", "pool=None"]),
    "auxiliary head: units": (
        lambda: AuxHead("stage1_block1", Pool("avg", 3), units=0),
        ["`units`", "units=0"],
    ),
    "step: size of pool": (lambda: Pool("max", -1), ["`pool_size`", "pool_size=-1"]),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_raises_what_was_expected_and_received(case):
    call, parts = CASES[case]
    with pytest.raises(ValueError, match=r"(?s).*") as raised:
        call()
    message = str(raised.value)
    assert [part for part in parts if part not in message] == [], message
    assert "Received: " in message


@pytest.mark.parametrize("name", ["resnet18", "resnet50v2_keras", "googlenet", "resnet20_cifar"])
def test_the_smallest_image_of_a_padded_network_is_a_pixel(name):
    model = quick_model(name, input_shape=(1, 1, 3), classes=2)
    assert model.output_shape == (None, 2)


def test_the_smallest_image_of_the_course_network():
    # 37 pixels: 19 after the stem's convolution, 9 after its pool, then 9, 5, 3 and 2.
    with pytest.raises(ValueError, match="`input_shape`"):
        quick_model(COURSE, input_shape=(36, 37, 3))
    assert quick_model(COURSE, input_shape=(37, 37, 3)).output_shape == (None, 6)
