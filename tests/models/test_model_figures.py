"""The published networks are the published networks: parameters, work, names, shapes."""

import pytest
from networks import COURSE, NETWORKS, OTHERS, facts

import keras_resblocks as kr

# name: (all parameters, trainable parameters); None where no figure was published.
PARAMETERS = {
    # torchvision
    "resnet18": (None, 11_689_512),
    "resnet34": (None, 21_797_672),
    "resnet50": (None, 25_557_032),
    "resnet101": (None, 44_549_160),
    "resnet152": (None, 60_192_808),
    # keras.applications
    "resnet50_keras": (25_636_712, None),
    "resnet101_keras": (44_707_176, None),
    "resnet152_keras": (60_419_944, None),
    "resnet50v2_keras": (25_613_800, None),
    "resnet101v2_keras": (44_675_560, None),
    "resnet152v2_keras": (60_380_648, None),
    # He et al. 2016a, table 6, with option A
    "resnet20_cifar": (None, 269_722),
    "resnet32_cifar": (None, 464_154),
    "resnet44_cifar": (None, 658_586),
    "resnet56_cifar": (None, 853_018),
    "resnet110_cifar": (None, 1_727_962),
    # timm
    "resnet18d": (None, 11_708_744),
    "resnet34d": (None, 21_816_904),
    "resnet50d": (None, 25_576_264),
    "resnet101d": (None, 44_568_392),
    "resnet152d": (None, 60_212_040),
    "resnetv2_50": (None, 25_549_352),
    "resnetv2_101": (None, 44_541_480),
    "resnetv2_152": (None, 60_185_128),
    "wide_resnet50_2": (None, 68_883_240),
    "wide_resnet101_2": (None, 126_886_696),
    "resnext50_32x4d": (None, 25_028_904),
    "resnext101_32x8d": (None, 88_791_336),
    "seresnet50": (None, 28_088_024),
    # He et al. 2016b, table 4; Zagoruyko & Komodakis 2016, table 4
    "preact_resnet164_cifar": (None, 1_703_258),
    "wide_resnet28_10_cifar": (None, 36_479_194),
    "inception_v3_keras": (23_851_784, None),
    "inception_resnet_v2_keras": (55_873_736, None),
    "googlenet_torchvision": (None, 6_624_904),
    "googlenet_torchvision_aux": (None, 13_004_888),
    "googlenet": (6_998_552, 6_998_552),
    "googlenet_96": (5_977_530, 5_977_530),
    "googlenet_bn": (7_020_392, None),
    "course": (23_600_006, 23_546_886),
    "resnet18_biased_shortcuts": (12_053_608, 12_045_800),
    "resnet34_biased_shortcuts": (22_735_912, 22_720_680),
}

# Billions of multiply-accumulates at 224x224, and millions of activations as timm reports them.
WORK = {
    "resnet18": (1.814, 2.48),
    "resnet34": (3.664, 3.74),
    "resnet50": (4.089, 11.11),
    "resnet101": (7.801, 16.23),
    "resnet152": (11.514, 22.56),
    "resnet50_keras": (3.858, None),
    "resnet50v2_keras": (3.482, None),
    "resnet50d": (4.329, None),
    "resnext50_32x4d": (4.230, 14.40),
    "wide_resnet50_2": (None, 14.40),
    "googlenet": (1.583, None),
}

# Of each stage: its blocks, and the pixels and channels that it ends with.
STAGES = {
    "resnet18": ((2, 2, 2, 2), (56, 28, 14, 7), (64, 128, 256, 512)),
    "resnet34": ((3, 4, 6, 3), (56, 28, 14, 7), (64, 128, 256, 512)),
    "resnet50": ((3, 4, 6, 3), (56, 28, 14, 7), (256, 512, 1024, 2048)),
    "resnet101": ((3, 4, 23, 3), (56, 28, 14, 7), (256, 512, 1024, 2048)),
    "resnet152": ((3, 8, 36, 3), (56, 28, 14, 7), (256, 512, 1024, 2048)),
    "resnet50_keras": ((3, 4, 6, 3), (56, 28, 14, 7), (256, 512, 1024, 2048)),
    "resnet50v2_keras": ((3, 4, 6, 3), (28, 14, 7, 7), (256, 512, 1024, 2048)),
    "resnet152v2_keras": ((3, 8, 36, 3), (28, 14, 7, 7), (256, 512, 1024, 2048)),
    "resnet20_cifar": ((3, 3, 3), (32, 16, 8), (16, 32, 64)),
    "resnet110_cifar": ((18, 18, 18), (32, 16, 8), (16, 32, 64)),
    "googlenet": ((2, 5, 2), (28, 14, 7), (480, 832, 1024)),
    "course": ((3, 4, 6, 3), (15, 8, 4, 2), (256, 512, 1024, 2048)),
}

# Some paths of weights, which say what each is for.
PATHS = {
    "resnet50": (
        "stem_conv1/conv/kernel",
        "stem_conv1/norm/moving_mean",
        "stage3_block1/conv2/conv/kernel",
        "stage3_block1/conv3/norm/beta",
        "stage3_block1/shortcut/conv/kernel",
        "stage3_block1/shortcut/norm/gamma",
        "head/kernel",
        "head/bias",
    ),
    "resnet50_keras": ("stage1_block2/conv1/conv/bias", "stage4_block3/conv3/norm/gamma"),
    "resnet50v2_keras": (
        "stage2_block1/entry_norm/gamma",
        "stage2_block1/shortcut/conv/bias",
        "head_norm/beta",
    ),
    "resnet20_cifar": ("stage2_block1/conv1/conv/kernel",),
    "googlenet": ("stem_conv3/conv/bias", "stage1_block1/branch3_conv2/conv/kernel"),
}


def test_list_models_gives_every_name_in_order():
    assert kr.list_models() == sorted(set(PARAMETERS) - set(OTHERS))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_network_is_the_published_one(name):
    """One test, since each network is built once where its test runs."""
    measured = facts(name)
    params, trainable = PARAMETERS[name]
    assert params in (None, measured.params)
    assert trainable in (None, measured.trainable)

    name_or_spec, arguments = NETWORKS[name]
    predicted = kr.cost(name_or_spec, **arguments)
    assert (predicted.params, predicted.trainable_params) == (measured.params, measured.trainable)
    assert predicted == measured.cost
    assert predicted.macs > 0

    assert len(set(measured.paths)) == len(measured.paths)
    assert set(PATHS.get(name, ())) <= set(measured.paths)
    first, *others = measured.layer_names
    assert first.startswith("input")
    if name in kr.list_models():  # the others may have auxiliary classifiers
        assert others[-1] == "head"
        assert all(other.startswith(("stem_", "stage", "head")) for other in others)


@pytest.mark.parametrize("name", STAGES)
def test_stages_have_the_published_blocks_and_sizes(name):
    depths, pixels, channels = STAGES[name]
    assert [layer for layer in facts(name).layer_names if "_block" in layer] == [
        f"stage{s}_block{b}" for s, depth in enumerate(depths, start=1) for b in range(1, depth + 1)
    ]
    shapes = facts(name).stage_shapes.values()
    assert list(shapes) == [(None, n, n, count) for n, count in zip(pixels, channels)]


def test_the_course_network_has_its_classes():
    assert facts("course").output_shape == (None, COURSE.classes)


def test_stages_of_resnet18_with_biased_shortcuts():
    parameters = [157_056, 543_488, 2_168_320, 8_662_016]
    assert list(facts("resnet18_biased_shortcuts").stage_params.values()) == parameters


def test_option_a_shortcuts_have_no_weights():
    assert not [path for path in facts("resnet110_cifar").paths if "shortcut" in path]


@pytest.mark.parametrize("name", WORK)
def test_work_is_the_published_one(name):
    macs, activations = WORK[name]
    cost = kr.cost(name)
    assert macs is None or cost.macs / 1e9 == pytest.approx(macs, rel=1e-3)
    assert activations is None or cost.activations / 1e6 == pytest.approx(activations, abs=0.006)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("resnet??", ["resnet18", "resnet34", "resnet50"]),
        ("googlenet*", ["googlenet", "googlenet_bn", "googlenet_torchvision"]),
        ("resnet*v2_keras", ["resnet101v2_keras", "resnet152v2_keras", "resnet50v2_keras"]),
        ("resnet*[02]_cifar", ["resnet110_cifar", "resnet20_cifar", "resnet32_cifar"]),
        ("vgg*", []),
    ],
)
def test_list_models_filters_by_glob(pattern, names):
    assert kr.list_models(pattern) == names


FUNCTIONS = (kr.ResNet18, kr.ResNet34, kr.ResNet50, kr.ResNet101, kr.ResNet152, kr.GoogLeNet)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_build_the_network_of_their_name(function):
    model = function(include_top=False, input_shape=(32, 32, 3), kernel_initializer="zeros")
    assert model.name == function.__name__.lower()
    assert [layer.name for layer in model.layers[1:]] == [
        name for name in facts(model.name).layer_names[1:] if not name.startswith("head")
    ]
    assert kr.cost(model) == kr.cost(model.name, include_top=False, input_shape=(32, 32, 3))
