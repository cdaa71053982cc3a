"""The maps inside a network, its resolution, its auxiliary classifiers, its stages of any parts."""

import dataclasses

import keras
import numpy as np
import pytest
from conversions import reloaded
from helpers import assert_close, model_of, random_array, randomize, to_numpy
from networks import (
    BRANCHES,
    TINY,
    all_layers,
    blocks_of,
    by_path,
    copy_weights,
    count,
    quick_model,
)
from trained import images

import keras_resblocks as kr
from keras_resblocks.layers import AdaptivePool, Conv, ConvUnit, Pool, Pooling
from keras_resblocks.models import AuxHead

tiny = pytest.mark.parametrize("kind", TINY)


# The outputs of the stages.

UNEVEN = kr.ResNetSpec(
    "residual", (1, 2), 4, stem=(Conv(4, 3, (2, 1)), Pool("max", 3, 2)), input_shape=(16, 12, 3)
)
STEPS = kr.InceptionSpec(
    (BRANCHES, (Pool("max", 3, 2), *BRANCHES, Conv(4, 3, 3))),
    stem=(Conv(4, 3),),
    input_shape=(18, 12, 3),
)

STRIDES = {
    "residual": (TINY["residual"], {}, [1, 2]),
    "bottleneck": (TINY["bottleneck"], {}, [4, 8]),
    "inception": (TINY["inception"], {}, [2, 2]),
    "preactivation": (TINY["residual"], {"preactivation": True}, [1, 2]),
    "dilated": (TINY["bottleneck"], {"output_stride": 4}, [4, 4]),
    "atrous": (TINY["residual"], {"atrous": True}, [1, 1]),
    "strided at the end of stages": (
        kr.ResNetSpec("residual", (2, 2), 4, stem=(), strides=(2, 3), stride_at="last"),
        {"input_shape": (12, 18, 3)},
        [2, 6],
    ),
    "uneven stem": (UNEVEN, {}, [(4, 2), (8, 4)]),
    "uneven stem, dilated": (UNEVEN, {"output_stride": 4}, [(4, 2), (4, 2)]),
    "steps in stages": (STEPS, {}, [1, 6]),
    "channels first": (TINY["bottleneck"], {"data_format": "channels_first"}, [4, 8]),
    "signals": (TINY["bottleneck"], {"input_shape": (24, 3)}, [4, 8]),
    "no top": (TINY["residual"], {"include_top": False}, [1, 2]),
    "resnet50": ("resnet50", {}, [4, 8, 16, 32]),
    "resnet50v2_keras": ("resnet50v2_keras", {}, [8, 16, 32, 32]),
    "resnet20_cifar": ("resnet20_cifar", {}, [1, 2, 4]),
    "googlenet": ("googlenet", {}, [8, 16, 32]),
    "googlenet_torchvision": ("googlenet_torchvision", {"aux_heads": True}, [8, 16, 32]),
    "resnet50, dilated": ("resnet50", {"output_stride": 16}, [4, 8, 16, 16]),
}


@pytest.mark.parametrize("case", STRIDES)
def test_features_are_the_stages_with_their_strides(case):
    spec, arguments, strides = STRIDES[case]
    model = quick_model(spec, **arguments)
    features = kr.features(model)
    assert [feature.name for feature in features] == [
        f"stage{number}" for number, _ in enumerate(strides, start=1)
    ]
    assert [feature.strides for feature in features] == strides
    channels_first = arguments.get("data_format") == "channels_first"
    spatial = slice(2, None) if channels_first else slice(1, -1)
    image = model.input.shape[spatial]
    for feature in features:
        steps = np.broadcast_to(feature.strides, len(image))
        expected = [n and -(-n // step) for n, step in zip(image, steps)]
        assert list(feature.output.shape[spatial]) == expected
        blocks = [layer for layer in model.layers if layer.name.startswith(f"{feature.name}_")]
        assert feature.output is blocks[-1].output


def backbone(model):
    return keras.Model(model.input, {f.name: f.output for f in kr.features(model)})


@tiny
def test_features_make_a_backbone(kind):
    model = randomize(quick_model(TINY[kind], include_top=False))
    x = random_array((2, 21, 14, 3))
    maps = backbone(model).predict_on_batch(x)
    assert list(maps) == ["stage1", "stage2"]
    for feature in kr.features(model):
        spatial = tuple(-(-n // feature.strides) for n in (21, 14))
        assert maps[feature.name].shape == (2, *spatial, feature.output.shape[-1])
    assert_close(maps["stage2"], model.predict_on_batch(x), 1e-6)


def test_features_of_a_preactivation_network_are_the_sums():
    model = randomize(quick_model(TINY["residual"], preactivation=True, include_top=False))
    maps = backbone(model).predict_on_batch(random_array((2, 8, 6, 3)))
    assert all(array.min() < 0 for array in maps.values())


def test_features_of_a_network_on_other_layers_count_its_own_strides():
    inputs = keras.Input((12, 10, 3))
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    model = quick_model(TINY["residual"], input_tensor=scaled)
    assert [feature.strides for feature in kr.features(model)] == [1, 2]


@pytest.mark.parametrize("case", ["uneven stem, dilated", "steps in stages", "preactivation"])
def test_features_of_a_loaded_network(case, tmp_path):
    spec, arguments, strides = STRIDES[case]
    model = randomize(quick_model(spec, **arguments))
    loaded = reloaded(model, tmp_path)
    assert [feature.strides for feature in kr.features(loaded)] == strides
    x = random_array((2, *model.input_shape[1:]))
    expected = backbone(model).predict_on_batch(x)
    for name, array in backbone(loaded).predict_on_batch(x).items():
        assert_close(array, expected[name], 1e-6)


def test_features_of_another_model_raise():
    for layer in (keras.layers.Conv2D(4, 3, strides=2), kr.ResidualBlock(4, name="block")):
        model = model_of(layer, shape=(1, 8, 8, 3))
        with pytest.raises(ValueError, match=r"`model` must be a model of `create_model`.*Receiv"):
            kr.features(model)


# A given output stride.

FOUR_STAGES = kr.ResNetSpec(
    "residual",
    (1, 2, 1, 2),
    (2, 4, 4, 6),
    stem=(Conv(4, 3, 2), Pool("max", 3, 2)),
    input_shape=(64, 48, 3),
    classes=3,
)
DILATED = {
    "residual": (FOUR_STAGES, {}),
    "residual strided last": (dataclasses.replace(FOUR_STAGES, stride_at="last"), {}),
    "bottleneck": (dataclasses.replace(FOUR_STAGES, block="bottleneck"), {}),
    "bottleneck strided last and in the 1x1": (
        dataclasses.replace(FOUR_STAGES, block="bottleneck", stride_at="last"),
        {"stride_in_1x1": True, "expansion": 2},
    ),
    "zero padding": (
        dataclasses.replace(FOUR_STAGES, width=(4, 4, 6, 6)),
        {"shortcut": "zero_pad"},
    ),
    "preactivation": (FOUR_STAGES, {"preactivation": True}),
    "subsampled shortcuts": (
        dataclasses.replace(
            FOUR_STAGES, block="bottleneck", width=4, strides=(2, 2, 2, 1), stride_at="last"
        ),
        {"preactivation": True, "shortcut": kr.shortcuts.ProjectionShortcut("channels")},
    ),
    "biased shortcuts": (
        FOUR_STAGES,
        {"shortcut": kr.shortcuts.ProjectionShortcut("always", use_bias=True, normalization=None)},
    ),
}


def configs(model):
    return [block.get_config() for block in blocks_of(model)]


@pytest.mark.parametrize(
    ("case", "output_stride"),
    [
        *[(case, 8) for case in DILATED],
        *[("residual", 16), ("bottleneck strided last and in the 1x1", 16)],
    ],
)
def test_dilated_stages_agree_with_the_strided_ones_where_those_look(case, output_stride):
    spec, options = DILATED[case]
    strided = randomize(quick_model(spec, **options))
    dilated, same = (quick_model(spec, output_stride=n, **options) for n in (output_stride, 32))
    assert configs(same) == configs(strided)  # which has that stride
    assert [w.path for w in dilated.weights] == [w.path for w in strided.weights]
    dilated.set_weights(strided.get_weights())
    x = random_array((1, *spec.input_shape))
    expected, maps = (backbone(model).predict_on_batch(x) for model in (strided, dilated))
    blocks = blocks_of(dilated)
    assert output_stride > 8 or max(block.dilation_rate for block in blocks) > 1
    for feature, dense in zip(kr.features(strided), kr.features(dilated)):
        assert dense.strides == min(feature.strides, output_stride)
        is_beyond = feature.strides > output_stride
        for block in (block for block in blocks if block.name.startswith(dense.name)):
            assert block.atrous == (is_beyond and block.strides != 1)
            assert block.dilation_rate == 1 or is_beyond
        step = feature.strides // dense.strides
        assert_close(maps[dense.name][:, ::step, ::step], expected[feature.name], 1e-4)
    assert max(feature.strides for feature in kr.features(strided)) == 32


def test_an_odd_image_lines_up_too():
    strided = randomize(quick_model(FOUR_STAGES, include_top=False))
    dilated = quick_model(FOUR_STAGES, include_top=False, output_stride=8)
    dilated.set_weights(strided.get_weights())
    x = random_array((1, 65, 43, 3))
    outputs = dilated.predict_on_batch(x)
    assert outputs.shape == (1, 9, 6, 6)
    assert_close(outputs[:, ::4, ::4], strided.predict_on_batch(x), 1e-4)


def test_a_smaller_output_stride_is_more_work_by_the_same_weights():
    costs = [kr.cost(FOUR_STAGES, output_stride=stride) for stride in (8, 16, 32)]
    assert costs[0].macs > costs[1].macs > costs[2].macs
    assert len({cost.params for cost in costs}) == 1
    assert costs[2] == kr.cost(FOUR_STAGES)


# Auxiliary classifiers.

HEADS = kr.InceptionSpec(
    ((BRANCHES[0],), (Pool("max", 3, 2), *BRANCHES)),
    stem=(Conv(4, 3),),
    options={"normalization": None},
    aux_heads=(
        AuxHead("stage1_block1", Pool("avg", 3, 2, padding="valid"), filters=4, units=8),
        AuxHead("stage2_block1", AdaptivePool(2), filters=3, units=5, dropout=0.5),
    ),
    input_shape=(9, 7, 3),
    classes=5,
)


def test_auxiliary_classifiers_are_further_outputs():
    model = quick_model(HEADS, aux_heads=True)
    assert [output.shape for output in model.outputs] == [(None, 5)] * 3
    assert model.output_names == ["head", "aux1_head", "aux2_head"]
    assert [layer.name for layer in model.layers if layer.name.startswith("aux2")] == [
        f"aux2_{name}" for name in ("pool", "conv1", "conv2", "flatten", "head_dropout", "head")
    ]
    assert model.get_layer("aux1_head_dropout").rate == 0.7
    assert model.get_layer("aux2_head_dropout").rate == 0.5
    assert model.get_layer("aux1_conv1").output.shape == (None, 4, 3, 4)
    assert model.get_layer("aux1_conv2").output.shape == (None, 1, 1, 8)
    assert model.get_layer("aux2_conv1").output.shape == (None, 2, 2, 3)
    assert model.get_layer("aux1_pool").input is model.get_layer("stage1_block1").output


def test_auxiliary_classifiers_compute_what_stock_layers_do():
    model = randomize(quick_model(HEADS, aux_heads=True))
    x = images(model)
    stock = keras.Sequential(
        [
            keras.layers.AveragePooling2D(3, 2),
            keras.layers.Conv2D(4, 1, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    source = keras.Model(model.input, model.get_layer("stage1_block1").output)
    stock.build(source.output.shape)
    conv1, conv2, head = (model.get_layer(f"aux1_{name}") for name in ("conv1", "conv2", "head"))
    kernel, bias = conv2.get_weights()
    stock.set_weights([*conv1.get_weights(), kernel.reshape(-1, 8), bias, *head.get_weights()])
    expected = stock.predict_on_batch(source.predict_on_batch(x))
    assert_close(model.predict_on_batch(x)[1], expected)


def test_a_network_with_auxiliary_classifiers_trains():
    model = kr.create_model(HEADS, aux_heads=True)
    model.compile("adam", loss=["sparse_categorical_crossentropy"] * 3, loss_weights=[1, 0.3, 0.3])
    before = {path: to_numpy(weight).copy() for path, weight in by_path(model).items()}
    targets = np.array([0, 1])
    logs = model.train_on_batch(images(model), [targets] * 3, return_dict=True)
    assert np.isfinite(logs["loss"])
    after = by_path(model)
    for path in ("head/bias", "aux1_head/bias", "aux2_head/bias", "aux1_conv2/conv/bias"):
        assert np.abs(to_numpy(after[path]) - before[path]).max() > 0, path


def test_the_main_output_is_what_it_is_without_auxiliary_classifiers_and_all_are_saved(tmp_path):
    model = randomize(quick_model(HEADS, aux_heads=True))
    plain = quick_model(HEADS)
    copy_weights(model, plain)
    x = images(model)
    outputs = model.predict_on_batch(x)
    assert_close(outputs[0], plain.predict_on_batch(x), 1e-6)
    loaded = reloaded(model, tmp_path)
    assert loaded.output_names == ["head", "aux1_head", "aux2_head"]
    for output, wanted in zip(loaded.predict_on_batch(x), outputs, strict=True):
        assert_close(output, wanted, 1e-6)
    others = set(by_path(model)) - set(by_path(plain))
    assert {path.split("_")[0] for path in others} == {"aux1", "aux2"}


def test_options_reach_the_auxiliary_classifiers():
    model = quick_model(
        HEADS,
        aux_heads=True,
        activation="elu",
        normalization="group",
        kernel_regularizer="l2",
        bias_constraint="non_neg",
        classifier_activation=None,
        dtype="mixed_bfloat16",
    )
    inside = {
        layer.path: layer
        for layer in all_layers(model)
        if layer.path and layer.path.startswith("aux")
    }
    owners = {path: layer for path, layer in inside.items() if hasattr(layer, "kernel")}
    assert sorted(owners) == [
        f"aux{i}_{name}" for i in (1, 2) for name in ("conv1/conv", "conv2/conv", "head")
    ]
    for layer in owners.values():
        assert isinstance(layer.kernel_regularizer, keras.regularizers.L2)
        assert isinstance(layer.bias_constraint, keras.constraints.NonNeg)
    activations = [layer for layer in inside.values() if type(layer) is keras.layers.Activation]
    assert [layer.activation for layer in activations] == [keras.activations.elu] * 4
    assert inside["aux1_head"].activation is keras.activations.linear
    assert "aux1_conv1/norm/gamma" in by_path(model)
    assert "aux1_conv2/norm/gamma" not in by_path(model)  # the dense layer has a bias instead
    assert {layer.dtype_policy.name for layer in inside.values()} == {"mixed_bfloat16"}


def test_auxiliary_classifiers_of_channels_first_images():
    last, first = (
        quick_model(HEADS, aux_heads=True, data_format=data_format)
        for data_format in ("channels_last", "channels_first")
    )
    assert first.input_shape == (None, 3, 9, 7)
    assert first.get_layer("aux1_conv1").output.shape == (None, 4, 4, 3)
    assert first.get_layer("aux2_pool").output.shape == (None, 8, 2, 2)
    shapes = [
        {path: weight.shape for path, weight in by_path(model).items()} for model in (last, first)
    ]
    assert shapes[0] == shapes[1]


# Stages of blocks, of their arguments, and of steps.


def spec_of(*stages, **fields):
    fields = {"stem": (Conv(4, 3),), "input_shape": (12, 10, 3), "classes": 3, **fields}
    return kr.InceptionSpec(stages, **fields)


REDUCTION = {"branches": (((4, 3),), ("max_pool",)), "strides": 2, "padding": "valid"}
RESIDUAL = {
    "branches": ((2,), (2, (3, 3)), ("max_pool",)),
    "filters": 8,
    "shortcut": "identity",
    "residual_scale": 0.2,
}
AS_JSON = spec_of(({**REDUCTION, "branches": [[[4, 3]], ["max_pool"]], "strides": [2, 2]},))
EVERYTHING = spec_of(
    (BRANCHES[0],),
    (Pool("max", 3, 2), Conv(4, 3), BRANCHES[1], Pool("avg", 2, 1), REDUCTION),
    (Conv(8, 1), RESIDUAL, {**RESIDUAL, "exit_activation": None}, Conv(6, 3)),
)
SOME_SHORTCUTS = spec_of(
    (Conv(8, 1), RESIDUAL, REDUCTION, Conv(8, 1), RESIDUAL),
    (BRANCHES[0], Conv(8, 1), RESIDUAL),
)


def test_stages_hold_blocks_steps_and_arguments():
    model = randomize(quick_model(EVERYTHING))
    assert [layer.name for layer in model.layers if layer.name.startswith("stage")] == [
        "stage1_block1",
        *[f"stage2_{name}" for name in ("pool1", "conv1", "block1", "pool2", "block2")],
        *[f"stage3_{name}" for name in ("conv1", "block1", "block2", "conv2")],
    ]
    assert isinstance(model.get_layer("stage2_pool1"), Pooling)
    assert isinstance(model.get_layer("stage2_conv1"), ConvUnit)
    assert model.get_layer("stage2_conv1").kernel_size == 3
    reduction, scaled, linear = (
        model.get_layer(name) for name in ("stage2_block2", "stage3_block1", "stage3_block2")
    )
    assert (reduction.strides, reduction.padding) == (2, "valid")
    assert reduction.output.shape == (None, (6 - 3) // 2 + 1, (5 - 3) // 2 + 1, 12)
    assert (scaled.filters, scaled.residual_scale) == (8, 0.2)
    assert (scaled.exit_activation, linear.exit_activation) == ("inherit", None)
    assert [feature.strides for feature in kr.features(model)] == [1, 4, 4]
    assert model.predict_on_batch(images(model)).shape == (2, 3)


def test_arguments_may_be_lists_as_json_has_them():
    assert AS_JSON.stages[0][0].arguments()["branches"] == REDUCTION["branches"]
    assert kr.cost(AS_JSON) == kr.cost(spec_of((REDUCTION,)))


def test_a_spec_of_the_parts_of_a_spec_is_equal():
    assert spec_of(*EVERYTHING.stages) == EVERYTHING


def test_arguments_of_a_block_go_before_options_of_the_network():
    options = {"activation": "elu", "normalization": None, "exit_activation": "tanh"}
    model = quick_model(
        spec_of((BRANCHES[0], {"branches": BRANCHES[0], **options})),
        activation="gelu",
        exit_activation="softsign",
    )
    first, second = blocks_of(model)
    assert (first.activation.config, second.activation.config) == ("gelu", "elu")
    assert (first.exit_activation.config, second.exit_activation.config) == ("softsign", "tanh")
    assert (first.normalization is None, second.normalization is None) == (False, True)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({**REDUCTION, "stride": 2}, ["`stride`", "'strides'", "InceptionBlock", "stride=2"]),
        ({**REDUCTION, "expansion": 2}, ["`expansion`", "expansion=2"]),
        ({"strides": 2}, ["`branches`", "branches=None"]),
        ({}, ["`branches`", "branches=None"]),
        ({"branches": [[0]]}, ["`branches`", "branches=[[0]]"]),
        (4, ["`branches`", "branches=4"]),
        (AdaptivePool(2), ["`branches`", "AdaptivePool"]),
    ],
    ids=str,
)
def test_a_part_that_is_no_block_and_no_step_raises(part, said):
    with pytest.raises(ValueError, match="Received") as raised:
        spec_of((BRANCHES[0], part))
    assert [text for text in said if text not in str(raised.value)] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"exit_activation": "rellu"}, "`exit_activation`.*Did you mean 'relu'"),
        ({"filters": "8"}, "`filters` must be a positive integer"),
        ({"strides": 2, "padding": "valid", "branches": ((2,), ((4, 3),))}, "equal spatial sizes"),
    ],
    ids=["exit_activation", "filters", "padding"],
)
def test_bad_arguments_of_a_block_raise_when_built_and_when_counted(arguments, said):
    spec = spec_of(({"branches": BRANCHES[0], **arguments},))
    for ask in (kr.create_model, kr.cost):
        with pytest.raises(ValueError, match=said):
            ask(spec)


def test_options_of_shortcuts_reach_the_blocks_that_have_one():
    model = quick_model(SOME_SHORTCUTS, drop_path_rate=0.4, zero_init_residual=True)
    blocks = blocks_of(model)
    assert [block.shortcut_policy is not None for block in blocks] == [1, 0, 1, 0, 1]
    # Linearly with the depth, counted in blocks of either kind.
    np.testing.assert_allclose([block.drop_path_rate for block in blocks], [0, 0, 0.2, 0, 0.4])
    assert [block.zero_init_residual for block in blocks] == [1, 0, 1, 0, 1]


def test_zero_initialised_blocks_of_an_inception_network_start_as_their_shortcuts():
    deep, shallow = (
        kr.create_model(
            spec_of((Conv(8, 3), *[RESIDUAL] * depth)), zero_init_residual=True, include_top=False
        )
        for depth in (3, 0)
    )
    randomize(shallow)
    copy_weights(shallow, deep)
    x = random_array((2, 6, 5, 3))
    assert_close(deep.predict_on_batch(x), shallow.predict_on_batch(x), 1e-6)


def test_options_of_shortcuts_are_refused_where_no_block_has_one():
    for option, value in {"drop_path_rate": 0.4, "zero_init_residual": True}.items():
        with pytest.raises(ValueError, match=option):
            quick_model(spec_of(BRANCHES), **{option: value})


def test_a_spec_and_a_block_may_have_options_of_shortcuts_of_their_own():
    own = {**RESIDUAL, "drop_path_rate": 0.3}
    spec = spec_of((Conv(8, 1), own, RESIDUAL, REDUCTION), options={"zero_init_residual": True})
    blocks = blocks_of(quick_model(spec))
    assert [block.zero_init_residual for block in blocks] == [True, True, False]
    assert [block.drop_path_rate for block in blocks] == [0.3, 0.0, 0.0]


# The cost of all of that.

PRELU = keras.layers.PReLU(shared_axes=[1, 2])
DILATABLE = ("residual strided last", "bottleneck", "zero padding")
COSTS = [
    *[
        (DILATED[case][0], {"output_stride": stride, **DILATED[case][1]})
        for case in DILATABLE
        for stride in (4, 8, 16, 32)
    ],
    (HEADS, {"aux_heads": True}),
    (HEADS, {"aux_heads": True, "classes": 7}),
    (HEADS, {"aux_heads": True, "normalization": "batch"}),
    (HEADS, {"aux_heads": True, "activation": PRELU, "use_bias": False}),
    (HEADS, {"aux_heads": True, "preactivation": True}),
    (HEADS, {"aux_heads": True, "padding": "same", "input_shape": (8, 11, 2)}),
    (HEADS, {"aux_heads": True, "input_shape": (2, 9, 7), "data_format": "channels_first"}),
    (HEADS, {"aux_heads": True, "input_shape": (12, 3)}),
    (EVERYTHING, {}),
    (EVERYTHING, {"activation": PRELU}),
    (EVERYTHING, {"activation": "elu", "preactivation": True, "normalization": "group"}),
    (EVERYTHING, {"use_bias": True, "attention": "squeeze_excite"}),
    (EVERYTHING, {"exit_activation": PRELU}),
    (EVERYTHING, {"input_shape": (None, 9, 2)}),
    *[
        (spec_of((Conv(8, 1), {**RESIDUAL, "exit_activation": exit_activation})), {})
        for exit_activation in ("tanh", PRELU, keras.saving.serialize_keras_object(PRELU))
    ],
    (AS_JSON, {}),
    (spec_of(BRANCHES), {"dilation_rate": [2, 1]}),
    (TINY["residual"], {"dilation_rate": [2, 1], "atrous": True}),
    (SOME_SHORTCUTS, {"drop_path_rate": 0.4, "zero_init_residual": True}),
]


@pytest.mark.parametrize(("spec", "arguments"), COSTS)
def test_cost_is_that_of_the_model(spec, arguments):
    model = quick_model(spec, **arguments)
    predicted = kr.cost(spec, **arguments)
    assert predicted == kr.cost(model)
    assert predicted.params == count(model.weights)
    assert predicted.trainable_params == count(model.trainable_weights)
