"""The published networks are the published networks: parameters, work, names, shapes."""

import pytest
from networks import COURSE, NETWORKS, facts

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

# Billions of multiply-accumulates at 224x224.
GMACS = {
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "resnet101": 7.801,
    "resnet152": 11.514,
    "resnet50_keras": 3.858,
    "resnet50v2_keras": 3.482,
    "resnet50d": 4.329,
    "resnext50_32x4d": 4.230,
    "googlenet": 1.583,
}

NAMES = [
    "googlenet",
    "googlenet_bn",
    "googlenet_torchvision",
    "inception_resnet_v2_keras",
    "inception_v3_keras",
    "preact_resnet164_cifar",
    "resnet101",
    "resnet101_keras",
    "resnet101d",
    "resnet101v2_keras",
    "resnet110_cifar",
    "resnet152",
    "resnet152_keras",
    "resnet152d",
    "resnet152v2_keras",
    "resnet18",
    "resnet18d",
    "resnet20_cifar",
    "resnet32_cifar",
    "resnet34",
    "resnet34d",
    "resnet44_cifar",
    "resnet50",
    "resnet50_keras",
    "resnet50d",
    "resnet50v2_keras",
    "resnet56_cifar",
    "resnetv2_101",
    "resnetv2_152",
    "resnetv2_50",
    "resnext101_32x8d",
    "resnext50_32x4d",
    "seresnet50",
    "wide_resnet101_2",
    "wide_resnet28_10_cifar",
    "wide_resnet50_2",
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name):
    params, trainable = PARAMETERS[name]
    measured = facts(name)
    assert params in (None, measured.params)
    assert trainable in (None, measured.trainable)


def test_every_network_has_a_published_parameter_count_in_the_table():
    assert set(kr.list_models()) <= set(PARAMETERS)


@pytest.mark.parametrize("name", NETWORKS)
def test_cost_without_building_is_that_of_the_built_model(name):
    name_or_spec, arguments = NETWORKS[name]
    arguments = {key: value for key, value in arguments.items() if not key.startswith("classifier")}
    measured = facts(name)
    predicted = kr.cost(name_or_spec, **arguments)
    assert (predicted.params, predicted.trainable_params) == (measured.params, measured.trainable)
    assert predicted == measured.cost
    assert predicted.macs > 0


@pytest.mark.parametrize("name", GMACS)
def test_multiply_accumulates_are_the_published_ones(name):
    assert kr.cost(name).macs / 1e9 == pytest.approx(GMACS[name], rel=1e-3)


def test_course_network_halves_64_pixels_down_to_2():
    shapes = facts("course").stage_shapes
    assert [shape[1:] for shape in shapes.values()] == [
        (15, 15, 256),
        (8, 8, 512),
        (4, 4, 1024),
        (2, 2, 2048),
    ]
    assert facts("course").output_shape == (None, COURSE.classes)


def test_stages_of_resnet18_with_biased_shortcuts():
    assert facts("resnet18_biased_shortcuts").stage_params == {
        1: 157_056,
        2: 543_488,
        3: 2_168_320,
        4: 8_662_016,
    }


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("resnet18", (2, 2, 2, 2)),
        ("resnet34", (3, 4, 6, 3)),
        ("resnet50", (3, 4, 6, 3)),
        ("resnet101", (3, 4, 23, 3)),
        ("resnet152", (3, 8, 36, 3)),
        ("resnet50_keras", (3, 4, 6, 3)),
        ("resnet152v2_keras", (3, 8, 36, 3)),
        ("resnet20_cifar", (3, 3, 3)),
        ("resnet110_cifar", (18, 18, 18)),
        ("googlenet", (2, 5, 2)),
    ],
)
def test_blocks_are_called_by_stage_and_place(name, depths):
    blocks = [layer for layer in facts(name).layer_names if "_block" in layer]
    assert blocks == [
        f"stage{s}_block{b}" for s, depth in enumerate(depths, start=1) for b in range(1, depth + 1)
    ]


@pytest.mark.parametrize(
    ("name", "pixels_and_channels"),
    [
        ("resnet18", [(56, 64), (28, 128), (14, 256), (7, 512)]),
        ("resnet50", [(56, 256), (28, 512), (14, 1024), (7, 2048)]),
        ("resnet50_keras", [(56, 256), (28, 512), (14, 1024), (7, 2048)]),
        ("resnet50v2_keras", [(28, 256), (14, 512), (7, 1024), (7, 2048)]),
        ("resnet20_cifar", [(32, 16), (16, 32), (8, 64)]),
        ("googlenet", [(28, 480), (14, 832), (7, 1024)]),
    ],
)
def test_stages_end_at_the_published_sizes(name, pixels_and_channels):
    shapes = facts(name).stage_shapes.values()
    assert list(shapes) == [(None, n, n, channels) for n, channels in pixels_and_channels]


@pytest.mark.parametrize("name", NAMES)
def test_the_other_layers_are_called_stem_and_head(name):
    first, *others = facts(name).layer_names
    assert others[-1] == "head"
    assert first.startswith("input")
    assert all(other.startswith(("stem_", "stage", "head")) for other in others)


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        (
            "resnet50",
            [
                "stem_conv1/conv/kernel",
                "stem_conv1/norm/moving_mean",
                "stage3_block1/conv2/conv/kernel",
                "stage3_block1/conv3/norm/beta",
                "stage3_block1/shortcut/conv/kernel",
                "stage3_block1/shortcut/norm/gamma",
                "head/kernel",
                "head/bias",
            ],
        ),
        ("resnet50_keras", ["stage1_block2/conv1/conv/bias", "stage4_block3/conv3/norm/gamma"]),
        (
            "resnet50v2_keras",
            [
                "stage2_block1/entry_norm/gamma",
                "stage2_block1/shortcut/conv/bias",
                "head_norm/beta",
            ],
        ),
        ("resnet20_cifar", ["stage2_block1/conv1/conv/kernel"]),
        ("googlenet", ["stem_conv3/conv/bias", "stage1_block1/branch3_conv2/conv/kernel"]),
    ],
)
def test_weight_paths_say_what_a_weight_is_for(name, paths):
    assert set(paths) <= set(facts(name).paths)


@pytest.mark.parametrize("name", NETWORKS)
def test_weight_paths_are_unique(name):
    paths = facts(name).paths
    assert len(set(paths)) == len(paths)


def test_option_a_shortcuts_have_no_weights():
    assert not [path for path in facts("resnet110_cifar").paths if "shortcut" in path]


def test_list_models_gives_every_name():
    assert kr.list_models() == NAMES


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


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (kr.ResNet18, "resnet18"),
        (kr.ResNet34, "resnet34"),
        (kr.ResNet50, "resnet50"),
        (kr.ResNet101, "resnet101"),
        (kr.ResNet152, "resnet152"),
        (kr.GoogLeNet, "googlenet"),
    ],
)
def test_functions_build_the_network_of_their_name(function, name):
    model = function(include_top=False, input_shape=(32, 32, 3), kernel_initializer="zeros")
    assert model.name == name
    assert [layer.name for layer in model.layers[1:]] == [
        layer for layer in facts(name).layer_names[1:] if not layer.startswith("head")
    ]
    assert kr.cost(model) == kr.cost(name, include_top=False, input_shape=(32, 32, 3))
