"""What the arguments of `create_model` do to a whole network."""

import dataclasses
import itertools
import warnings

import keras
import numpy as np
import pytest
from helpers import assert_close, random_array, randomize, shape_of, to_numpy
from networks import (
    BRANCHES,
    TINY,
    all_layers,
    blocks_of,
    by_path,
    copy_weights,
    count,
    layers_of_class,
    outputs_of,
    quick_model,
)
from trained import images

import keras_resblocks as kr
from keras_resblocks.layers import Conv, ConvUnit, Pool, Pooling

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)

tiny = pytest.mark.parametrize("kind", TINY)


def kernels(model):
    return [weight for weight in model.weights if weight.name == "kernel"]


# The options of the blocks, everywhere


def test_elu_and_l2_reach_all_of_resnet50():
    model = kr.create_model(
        "resnet50", activation="elu", kernel_regularizer="l2", input_shape=(32, 32, 3)
    )
    activations = [layer.activation for layer in layers_of_class(model, keras.layers.Activation)]
    assert len(activations) == 49  # of the stem, and three for each of 16 blocks
    assert set(activations) == {keras.activations.elu}
    assert layers_of_class(model, keras.layers.ReLU) == []
    assert "relu" not in model.to_json().lower()
    # 49 convolutions and the stem's, 4 on shortcuts, and the classifier's
    assert len(kernels(model)) == len(model.losses) == 54
    expected = sum(0.01 * float(np.sum(to_numpy(kernel) ** 2)) for kernel in kernels(model))
    assert float(sum(map(to_numpy, model.losses))) == pytest.approx(expected, rel=1e-4)


@tiny
@pytest.mark.parametrize("option", ["kernel_regularizer", "kernel_constraint", "bias_regularizer"])
def test_an_option_of_kernels_and_biases_reaches_every_one(kind, option):
    value = keras.constraints.MaxNorm() if "constraint" in option else keras.regularizers.L1(0.1)
    model = quick_model(TINY[kind], use_bias=True, **{option: value})
    owners = [layer for layer in all_layers(model) if hasattr(layer, "kernel")]
    assert len(owners) == len(kernels(model)) > 5
    assert all(type(getattr(owner, option)) is type(value) for owner in owners)
    assert len(model.losses) == ("regularizer" in option) * len(owners)


@tiny
def test_an_initializer_reaches_every_kernel(kind):
    ones = keras.initializers.Constant(0.125)
    model = kr.create_model(TINY[kind], kernel_initializer=ones, zero_init_residual=False)
    for kernel in kernels(model):
        np.testing.assert_array_equal(to_numpy(kernel), 0.125)


@tiny
def test_a_template_gives_every_place_its_own_weights(kind):
    model = quick_model(TINY[kind], activation=keras.layers.PReLU(shared_axes=[1, 2]))
    copies = layers_of_class(model, keras.layers.PReLU)
    assert len(copies) > 3
    assert len({id(copy.alpha) for copy in copies}) == len(copies)
    assert layers_of_class(model, keras.layers.Activation) == []


@tiny
def test_normalization_none_leaves_none(kind):
    model = quick_model(TINY[kind], normalization=None)
    assert not [path for path in by_path(model) if "norm" in path]
    assert len([weight for weight in model.weights if weight.name == "bias"]) == len(kernels(model))


@pytest.mark.parametrize("preactivation", [False, True])
@tiny
def test_dtype_reaches_every_layer(kind, preactivation):
    model = quick_model(
        TINY[kind],
        dtype="mixed_bfloat16",
        preactivation=preactivation,
        attention="squeeze_excite",
        activation=keras.layers.PReLU(shared_axes=[1, 2]),
    )
    inputs = (model, model.layers[0])
    inside = [layer for layer in all_layers(model) if layer not in inputs]
    assert {layer.dtype_policy.name for layer in inside} == {"mixed_bfloat16"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert keras.backend.standardize_dtype(model.outputs[0].dtype) == "bfloat16"
    assert np.isfinite(outputs_of(model, images(model))).all()


def test_dtype_may_be_a_policy_and_leaves_the_global_one_alone():
    policy = keras.DTypePolicy("float16")
    model = quick_model(TINY["residual"], dtype=policy, preactivation=True)
    assert {weight.dtype for weight in model.weights} == {"float16"}
    assert keras.config.dtype_policy().name == "float32"


@tiny
@pytest.mark.parametrize("preactivation", [False, True])
def test_channels_first_computes_the_same(kind, preactivation):
    options = {"preactivation": preactivation, "attention": "squeeze_excite"}
    last = randomize(quick_model(TINY[kind], **options))
    *spatial, channels = TINY[kind].input_shape
    first = quick_model(TINY[kind], data_format="channels_first", **options)
    assert first.input_shape == (None, channels, *spatial)
    copy_weights(last, first)
    x = images(last)
    assert_close(outputs_of(first, np.moveaxis(x, -1, 1)), outputs_of(last, x), 1e-4)


def test_channels_first_may_be_the_global_setting():
    keras.config.set_image_data_format("channels_first")
    model = quick_model(TINY["bottleneck"])
    assert model.input_shape == (None, 3, 16, 14)
    assert {block.data_format for block in blocks_of(model)} == {"channels_first"}
    assert kr.cost(TINY["bottleneck"]) == kr.cost(model)


@pytest.mark.parametrize("spatial", [(64,), (9, 8, 10)], ids=["signal", "volume"])
@pytest.mark.parametrize("spec", [*TINY.values(), "resnet20_cifar"], ids=[*TINY, "published"])
def test_networks_of_signals_and_volumes(spec, spatial):
    arguments = {"input_shape": (*spatial, 2), "classes": 3}
    model = quick_model(spec, **arguments)
    ranks = {type(layer).__name__[-2] for layer in layers_of_class(model, *CONVOLUTIONS)}
    assert ranks == {str(len(spatial))}
    assert outputs_of(model, images(model)).shape == (2, 3)
    assert kr.cost(spec, **arguments) == kr.cost(model)


@pytest.mark.parametrize(
    ("spec", "shortcut"),
    [
        (kr.ResNetSpec("residual", (2, 1, 3), 4), "projection"),
        (kr.ResNetSpec("residual", (2, 1, 3), 4), "zero_pad"),
        (kr.InceptionSpec((BRANCHES, BRANCHES[:1])), "projection"),
    ],
)
def test_drop_path_rate_grows_linearly(spec, shortcut):
    spec = dataclasses.replace(spec, stem=(Conv(4, 3),))
    model = quick_model(spec, drop_path_rate=0.4, shortcut=shortcut, input_shape=(8, 8, 3))
    rates = [block.drop_path_rate for block in blocks_of(model)]
    np.testing.assert_allclose(rates, np.linspace(0, 0.4, len(rates)))
    assert len(rates) >= 3


def test_drop_path_is_drawn_in_training_only():
    spec = kr.ResNetSpec("residual", (6,), 4, stem=(Conv(4, 3),), input_shape=(8, 8, 3))
    model = kr.create_model(spec, drop_path_rate=0.9, normalization=None, zero_init_residual=False)
    x = images(model)
    assert_close(outputs_of(model, x), outputs_of(model, x), 0)
    drawn = [to_numpy(model(x, training=True)) for _ in range(8)]
    assert any(np.abs(a - b).max() > 1e-4 for a, b in itertools.combinations(drawn, 2))


# Pre-activation, plain networks, and where blocks start


@pytest.mark.parametrize("kind", ["residual", "bottleneck"])
def test_preactivation_of_a_v1_spec_is_a_v2_network(kind):
    spec = kr.ResNetSpec(
        kind, (2, 1), 4, stem=(Conv(4, 3), Conv(8, 3), Pool("max", 2, 2)), input_shape=(12, 12, 3)
    )
    model = quick_model(spec, preactivation=True)
    first, last = (model.get_layer(f"stem_conv{i}") for i in (1, 2))
    assert None not in (first.normalization, first.activation)
    assert (last.normalization, last.activation) == (None, None)
    assert all(block.preactivation for block in blocks_of(model))
    names = [layer.name for layer in model.layers]
    assert names[-4:] == ["head_norm", "head_act", "head_pool", "head"]
    paths = by_path(model)
    assert "stage1_block1/entry_norm/gamma" in paths
    final = "conv2" if kind == "residual" else "conv3"
    assert f"stage1_block1/{final}/norm/gamma" not in paths
    assert f"stage1_block1/{final}/conv/bias" in paths
    assert "stage2_block1/shortcut/conv/kernel" in paths
    assert "stage2_block1/shortcut/norm/gamma" not in paths


@pytest.mark.parametrize("stem", [(), (Pool("max", 3, 2),)], ids=["none", "pool"])
def test_preactivation_needs_no_convolution_in_the_stem(stem):
    spec = kr.ResNetSpec("residual", (1,), 4, stem=stem, input_shape=(8, 8, 3), classes=2)
    model = quick_model(spec, preactivation=True)
    assert outputs_of(model, images(model)).shape == (2, 2)


def test_without_a_top_preactivation_still_ends_activated():
    model = quick_model(TINY["residual"], preactivation=True, include_top=False)
    assert model.layers[-1].name == "head_act"
    assert to_numpy(randomize(model)(images(model, spatial=(12, 12)))).min() == 0


def test_shortcut_none_is_a_plain_network():
    plain = quick_model(TINY["residual"], shortcut=None)
    assert not [path for path in by_path(plain) if "shortcut" in path]
    assert not any(block.zero_init_residual for block in blocks_of(plain))
    whole = kr.create_model(TINY["residual"], shortcut=None, include_top=False)
    x = images(whole, spatial=(12, 12))
    assert np.abs(outputs_of(whole, x)).max() > 0
    # With nothing past the branch, a branch of zeros is all there is.
    for name in ("gamma", "beta"):
        by_path(whole)[f"stage2_block1/conv2/norm/{name}"].assign(np.zeros(8))
    assert np.abs(outputs_of(whole, x)).max() == 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preactivation": True},
        {"preactivation": True, "activation": "elu"},
        {"normalization": "group"},
        {"normalization": None},
        {"shortcut": "avg_pool"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["residual", "bottleneck"])
def test_a_deeper_network_starts_as_the_shallower_one(kind, options):
    stem = (Conv(4, 3),)
    shallow, deep = (
        kr.create_model(
            kr.ResNetSpec(kind, depths, 4, stem, input_shape=(8, 8, 3), classes=3), **options
        )
        for depths in ((1, 1), (3, 2))
    )
    randomize(shallow)
    assert len(deep.weights) > len(shallow.weights)
    copy_weights(shallow, deep)
    x = images(shallow)
    assert_close(outputs_of(deep, x), outputs_of(shallow, x), 1e-6)


def test_zero_init_residual_false_starts_with_full_branches():
    model = quick_model(TINY["residual"], zero_init_residual=False)
    default = quick_model(TINY["residual"])
    path = "stage1_block1/conv2/norm/gamma"
    np.testing.assert_array_equal(to_numpy(by_path(model)[path]), 1)
    np.testing.assert_array_equal(to_numpy(by_path(default)[path]), 0)


# Input, top and name


@tiny
def test_without_a_top_a_network_ends_in_features_of_any_size(kind):
    model = quick_model(TINY[kind], include_top=False)
    assert model.input_shape == (None, None, None, 3)
    assert model.output_shape[:3] == (None, None, None)
    assert model.layers[-1].name.startswith("stage2_block")
    assert outputs_of(model, random_array((1, 16, 14, 3))).shape[-1] == model.output_shape[-1]
    assert outputs_of(model, random_array((1, 21, 9, 3))).shape[-1] == model.output_shape[-1]


@tiny
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_pooling_reduces_the_features(kind, data_format):
    options = {"include_top": False, "data_format": data_format}
    x = random_array(shape_of(2, 3, data_format, spatial=(16, 14)))
    features = outputs_of(randomize(quick_model(TINY[kind], **options)), x)
    axes = (1, 2) if data_format == "channels_last" else (2, 3)
    for pooling, reduce in {"avg": np.mean, "max": np.max}.items():
        pooled = randomize(quick_model(TINY[kind], pooling=pooling, **options))
        assert_close(outputs_of(pooled, x), reduce(features, axis=axes), 1e-4)


def test_input_tensor_is_the_input():
    inputs = keras.Input((12, 10, 3), name="images")
    model = quick_model(TINY["residual"], input_tensor=inputs)
    assert model.inputs[0] is inputs
    assert model.output_shape == (None, 1000)


def test_input_tensor_may_come_out_of_other_layers():
    inputs = keras.Input((12, 10, 3))
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    model = randomize(quick_model(TINY["residual"], input_tensor=scaled))
    plain = randomize(quick_model(TINY["residual"]))
    x = images(plain)
    assert [layer.name.split("_")[0] for layer in model.layers[1:3]] == ["rescaling", "stem"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Keras's, of an unexpected structure
        outputs = model(255 * x)
    assert_close(outputs, outputs_of(plain, x), 1e-4)


def test_input_shape_may_leave_sizes_open():
    model = quick_model(TINY["residual"], input_shape=(None, 9, 1))
    assert model.input_shape == (None, None, 9, 1)
    assert outputs_of(model, random_array((2, 5, 9, 1))).shape == (2, 1000)


def test_classes_is_the_number_of_outputs():
    assert quick_model(TINY["residual"]).output_shape == (None, 1000)
    for given, expected in {None: 5, 3: 3, np.int64(4): 4}.items():
        assert quick_model(TINY["bottleneck"], classes=given).output_shape == (None, expected)


@tiny
def test_classifier_activation_none_gives_logits(kind):
    probabilities = randomize(quick_model(TINY[kind]))
    logits = randomize(quick_model(TINY[kind], classifier_activation=None))
    x = images(logits)
    assert_close(keras.ops.softmax(outputs_of(logits, x)), outputs_of(probabilities, x), 1e-5)
    assert_close(np.sum(outputs_of(probabilities, x), -1), np.ones(2), 1e-5)
    sigmoid = randomize(quick_model(TINY[kind], classifier_activation="sigmoid"))
    assert_close(keras.ops.sigmoid(outputs_of(logits, x)), outputs_of(sigmoid, x), 1e-5)


def test_name_is_the_networks_name_unless_given():
    assert quick_model("resnet20_cifar").name == "resnet20_cifar"
    assert quick_model("resnet20_cifar", name="mine").name == "mine"
    assert quick_model(TINY["residual"], name="mine").name == "mine"
    assert "stage" not in quick_model(TINY["residual"]).name


def test_a_user_option_goes_before_the_specs():
    model = quick_model(TINY["bottleneck"], use_bias=False, stride_in_1x1=False)
    assert not [path for path in by_path(model) if "conv/bias" in path]
    assert not any(block.stride_in_1x1 for block in blocks_of(model))


def test_steps_of_the_stem_may_have_options_of_their_own():
    conv = Conv(4, 3, padding="valid", activation="elu", normalization=None)
    stem = (conv, Pool("max", [2, 2], 2, padding="same"))
    model = quick_model(kr.ResNetSpec("residual", (1,), 4, stem, input_shape=(9, 9, 3)))
    stem = model.get_layer("stem_conv1")
    assert isinstance(stem, ConvUnit)
    assert stem.output.shape == (None, 7, 7, 4)
    assert stem.use_bias is None
    assert "stem_conv1/conv/bias" in by_path(model)
    pool = model.get_layer("stem_pool1")
    assert isinstance(pool, Pooling)
    assert pool.output.shape == (None, 4, 4, 4)


def test_dropout_of_a_spec_stands_before_the_classifier():
    names = [layer.name for layer in quick_model(TINY["inception"]).layers]
    assert names[-4:] == ["head_pool", "head_flatten", "head_dropout", "head"]


def test_depths_widths_and_strides_are_those_of_the_spec():
    fields = {"stem": [Conv(4, 3)], "strides": [2, 3], "stride_at": "last"}
    spec = kr.ResNetSpec("residual", [1, 2], [4, 6], input_shape=(24, 24, 3), **fields)
    model = quick_model(spec)
    sizes = [(block.filters, block.strides) for block in blocks_of(model)]
    assert sizes == [(4, 2), (6, 1), (6, 3)]
    assert count(model.weights) == kr.cost(spec).params


def test_a_network_trains():
    model = kr.create_model(TINY["bottleneck"], activation="elu", kernel_regularizer="l2")
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [to_numpy(weight).copy() for weight in model.trainable_weights]
    model.fit(images(model), np.array([0, 1]), epochs=2, verbose=0)
    pairs = zip(map(to_numpy, model.trainable_weights), before)
    moved = [np.abs(weight - old).max() > 0 for weight, old in pairs]
    assert all(moved[-2:])
    assert sum(moved) > len(moved) / 2
