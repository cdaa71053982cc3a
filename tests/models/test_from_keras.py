"""Keras models become the same networks of blocks; what is no block stays as it is."""

import collections
import functools

import blogs
import keras
import numpy as np
import pytest
from conversions import converted, reloaded
from helpers import covering, label, registered_function
from keras import layers
from networks import blocks_of, random_value
from trained import images, outputs_of

import keras_resblocks as kr

RESIDUAL, BOTTLENECK, INCEPTION = "ResidualBlock", "BottleneckBlock", "InceptionBlock"

BLOGS = {
    "course_resnet50": (blogs.course_resnet50, {BOTTLENECK: 8}),
    "resnet18": (blogs.basic_resnet, {RESIDUAL: 8}),
    "elu_resnet50": (blogs.elu_resnet50, {BOTTLENECK: 16}),
    "googlenet": (blogs.googlenet, {INCEPTION: 3}),
    "time_series": (blogs.time_series_resnet, {INCEPTION: 3}),
    "time_series_of_two": (lambda: blogs.time_series_resnet(kernel_sizes=(5, 5)), {RESIDUAL: 3}),
    "resnet_3d": (blogs.resnet_3d, {RESIDUAL: 4}),
    "cifar_resnet": (blogs.cifar_resnet, {RESIDUAL: 3}),
    "resnet_d": (blogs.resnet_d, {BOTTLENECK: 4}),
    "inception_resnet": (blogs.inception_resnet, {INCEPTION: 3}),
}
# What the first blocks are called: as the last of their layers.
NAMES = {
    "resnet18": ["re_lu_2", "re_lu_4"],
    "googlenet": ["inception_3a", "inception_3b", "inception_4a"],
    "cifar_resnet": ["activation_2", "activation_4", "activation_6"],
}


def with_random_weights(model, gain=0.7):
    """Random weights and statistics; a `gain` below one keeps a softmax from saturating."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        value = random_value(weight, rng)
        weight.assign(gain * value if "kernel" in weight.name else value)
    return model


def assert_same_outputs(model, other, tolerance=1e-5):
    inputs = images(model, spatial=(32, 32))
    for expected, actual in zip(outputs_of(model, inputs), outputs_of(other, inputs), strict=True):
        scale = np.abs(expected).max()
        assert np.ptp(expected, axis=0).max() > 1e-3 * scale  # the images are told apart
        assert np.abs(actual - expected).max() < tolerance * scale


def counts(model):
    return collections.Counter(type(block).__name__ for block in blocks_of(model))


def assert_recognized(model, expected, gain=0.7):
    """The recognized model: blocks of these counts, and equal outputs."""
    with_random_weights(model, gain)
    recognized = converted(model, kr.from_keras)
    assert counts(recognized) == expected
    assert_same_outputs(model, recognized)
    return recognized


def model_of(build):
    inputs = keras.Input((8, 8, CHANNELS))
    return keras.Model(inputs, build(inputs))


@pytest.mark.parametrize("name", BLOGS)
def test_networks_of_blogs_become_blocks(name):
    build, expected = BLOGS[name]
    recognized = assert_recognized(build(), expected)
    names = [block.name for block in blocks_of(recognized)]
    assert names[: len(NAMES.get(name, []))] == NAMES.get(name, [])
    if name == "inception_resnet":
        scales = [block.residual_scale for block in blocks_of(recognized)]
        assert scales == [0.17, 0.1, 0.2]


def test_a_concatenation_as_a_shortcut_stays_one():
    def branch(x, filters):
        return layers.ReLU()(layers.Conv2D(filters, 3, padding="same")(x))

    def build(x):
        y = layers.Conv2D(CHANNELS, 3, padding="same")(branch(branch(x, CHANNELS), CHANNELS))
        return layers.Add()([y, layers.Concatenate()([branch(x, 2), branch(x, 2)])])

    assert_recognized(model_of(build), {INCEPTION: 1})


APPLICATIONS = {
    "ResNet50": {BOTTLENECK: 16},
    "ResNet101": {BOTTLENECK: 33},
    "ResNet152": {BOTTLENECK: 50},
    "ResNet50V2": {BOTTLENECK: 16},
    "ResNet101V2": {BOTTLENECK: 33},
    "ResNet152V2": {BOTTLENECK: 50},
    "InceptionV3": {INCEPTION: 11},
    "InceptionResNetV2": {INCEPTION: 43},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_networks_of_keras_applications_become_blocks(name):
    size = 75 if "Inception" in name else 32
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=5, classifier_activation=None
    )
    assert_recognized(model, APPLICATIONS[name], gain=1.0)


# Every option of a block

CHOICES = {
    "kernel_sizes": [(3, 3), (1, 3, 1), (3, 2, 1)],
    "rank": [1, 2, 3],
    "preactivation": [False, True],
    "norm": ["batch", "layer", "group", None],
    "act": ["relu", "leaky_relu", "prelu", "function", "argument"],
    "use_bias": [False, True],
    "strides": [1, 2],
    "padding": ["same", "explicit"],
    "groups": [1, 2],
    "dilation_rate": [1, 2],
    "shortcut": ["identity", "projection", "bare", "avg_pool", "zero_pad", "subsample"],
    "regularizer": [None, "l2"],
    "exit_act": [True, False],
}

NORMS = {
    "batch": lambda: layers.BatchNormalization(epsilon=1e-4, momentum=0.8),
    "layer": lambda: layers.LayerNormalization(epsilon=1e-4),
    "group": lambda: layers.GroupNormalization(2),
    None: lambda: lambda x: x,
}
ACTS = {
    "relu": lambda: layers.Activation("relu"),
    "leaky_relu": lambda: layers.LeakyReLU(0.2),
    "prelu": lambda: layers.PReLU(shared_axes=[1]),
    "function": lambda: keras.activations.gelu,
    "argument": lambda: lambda x: x,
}
CHANNELS = 4


def is_valid(case):
    resamples = case["shortcut"] in ("avg_pool", "zero_pad", "subsample")
    return (
        (not resamples or case["strides"] == 2)
        and (case["shortcut"] != "identity" or case["strides"] == 1)
        and not (case["strides"] > 1 and case["dilation_rate"] > 1)
        and not (case["act"] == "argument" and (case["norm"] or case["preactivation"]))
        and not (case["norm"] is None and case["shortcut"] == "bare")
        and not (case["shortcut"] == "avg_pool" and case["padding"] == "explicit")
        and not (case["kernel_sizes"] == (3, 2, 1) and case["padding"] == "explicit")
    )


def block_in_plain_keras(x, case):
    """A residual block of Keras's own layers."""
    filters = CHANNELS if case["shortcut"] in ("identity", "subsample") else 2 * CHANNELS
    rank, pre, use_norm = case["rank"], case["preactivation"], case["norm"]

    def of_rank(name):
        return getattr(layers, f"{name}{rank}D")

    def conv(x, filters, size, strides=1, act=False):
        padding = "same"
        if size > 1 and case["padding"] == "explicit":
            x, padding = of_rank("ZeroPadding")(case["dilation_rate"] * (size // 2))(x), "valid"
        return of_rank("Conv")(
            filters,
            size,
            strides=strides,
            padding=padding,
            groups=case["groups"] if size > 1 else 1,
            dilation_rate=case["dilation_rate"] if size > 1 else 1,
            use_bias=case["use_bias"],
            kernel_regularizer=case["regularizer"],
            activation="tanh" if act and case["act"] == "argument" else None,
        )(x)

    def norm_act(x):
        return ACTS[case["act"]]()(NORMS[use_norm]()(x))

    entered = norm_act(x) if pre else x
    y = entered
    sizes = case["kernel_sizes"]
    for i, size in enumerate(sizes):
        is_last = i == len(sizes) - 1
        strided = case["strides"] if i == len(sizes) // 2 - (len(sizes) == 2) else 1
        y = conv(
            y, filters if is_last or len(sizes) == 2 else CHANNELS, size, strided, act=not is_last
        )
        if not is_last:
            y = norm_act(y)
        elif not pre:
            y = NORMS[use_norm]()(y)
    return y, shortcut_in_plain_keras(x, entered, filters, case, conv, of_rank)


def shortcut_in_plain_keras(x, entered, filters, case, conv, of_rank):
    kind, strides = case["shortcut"], case["strides"]
    if kind == "identity":
        return x
    if kind == "subsample":
        return of_rank("MaxPooling")(1, strides=strides)(x)
    if kind == "zero_pad":
        x = x[(slice(None), *(slice(None, None, strides),) * case["rank"])]
        return keras.ops.pad(x, ((0, 0),) * (case["rank"] + 1) + ((0, filters - CHANNELS),))
    if kind == "avg_pool":
        entered, strides = of_rank("AveragePooling")(strides, padding="same")(entered), 1
    y = conv(entered, filters, 1, strides)
    return y if kind == "bare" or case["preactivation"] else NORMS[case["norm"]]()(y)


@pytest.mark.parametrize("case", covering(CHOICES, is_valid), ids=label)
def test_blocks_with_any_options_are_recognized(case):
    inputs = keras.Input((9, 8, 7)[: case["rank"]] + (CHANNELS,))
    x = layers.Activation("tanh")(inputs)
    x = layers.Add()(block_in_plain_keras(x, case))
    if case["exit_act"] and not case["preactivation"]:
        x = ACTS[case["act"]]()(x)
    model = keras.Model(inputs, x)
    kind = {(3, 3): RESIDUAL, (1, 3, 1): BOTTLENECK}.get(case["kernel_sizes"], INCEPTION)
    recognized = assert_recognized(model, {kind: 1})
    assert not [layer for layer in recognized.layers if "Conv" in type(layer).__name__]
    assert len(recognized.losses) == len(model.losses)


# What is no block stays as it is


def conv_bn(x, filters=CHANNELS, size=3, epsilon=1e-3, **options):
    x = layers.Conv2D(filters, size, padding="same", **options)(x)
    return layers.BatchNormalization(epsilon=epsilon)(x)


def sound_block(x):
    y = conv_bn(layers.ReLU()(conv_bn(x)))
    return layers.ReLU()(layers.Add()([y, x]))


def residual(x, inside=layers.ReLU, second=conv_bn, first=conv_bn, act="relu"):
    """A residual block with a part of its own; `inside` makes what is between the convolutions."""
    return layers.Activation(act)(layers.Add()([second(inside()(first(x))), x]))


def with_tensor_that_is_used_elsewhere(x):
    y = layers.ReLU()(conv_bn(x))
    z = layers.ReLU()(layers.Add()([conv_bn(y), x]))
    return layers.Concatenate()([y, z])


def unet_skip(x):
    y = layers.ReLU()(conv_bn(layers.MaxPooling2D()(x)))
    return layers.Concatenate()([x, layers.UpSampling2D()(y)])


def with_shared_convolution(x):
    conv = layers.Conv2D(CHANNELS, 3, padding="same")
    return residual(x, first=conv, second=conv)


def projection_of_what_is_not_activated(x):
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(6, 3, padding="same")(layers.ReLU()(conv_bn(y)))
    return layers.Add()([y, layers.Conv2D(6, 1)(x)])


def normalization_after_activation(x):
    y = layers.Conv2D(CHANNELS, 3, padding="same", activation="relu")(x)
    y = layers.BatchNormalization()(y)
    return layers.Add()([layers.Conv2D(CHANNELS, 3, padding="same")(y), x])


def of_conv(**options):
    """Builds a block that has these options on its first convolution alone."""
    return lambda x: residual(x, first=lambda y: conv_bn(y, **options))


def in_mode(**mode):
    def second(x):
        y = layers.Conv2D(CHANNELS, 3, padding="same")(x)
        return layers.BatchNormalization()(y, **mode)

    return lambda x: residual(x, second=second)


def branches_on_different_tensors(x):
    bottleneck = layers.Conv2D(2, 1)(x)
    y = [layers.Conv2D(2, size, padding="same")(bottleneck) for size in (3, 5)]
    return layers.Concatenate()([*y, layers.Conv2D(2, 1)(layers.MaxPool2D(3, 1, "same")(x))])


def branches_along_an_axis_in_space(x):
    return layers.Concatenate(axis=1)([layers.ReLU()(conv_bn(x)), layers.ReLU()(conv_bn(x))])


NEAR_MISSES = {
    "tensor_used_elsewhere": with_tensor_that_is_used_elsewhere,
    "unet_skip": unet_skip,
    "shared_convolution": with_shared_convolution,
    "projection_of_what_is_not_activated": projection_of_what_is_not_activated,
    "normalization_after_activation": normalization_after_activation,
    "always_in_training": in_mode(training=True),
    "never_in_training": in_mode(training=False),
    "branches_on_different_tensors": branches_on_different_tensors,
    "branches_along_an_axis_in_space": branches_along_an_axis_in_space,
    "dropout": lambda x: residual(x, lambda: layers.Dropout(0.3)),
    "other_epsilon": lambda x: residual(x, second=lambda y: conv_bn(y, epsilon=1e-2)),
    "regularizer_on_one": of_conv(kernel_regularizer="l2"),
    "bias_on_one": of_conv(use_bias=False),
    "activity_regularizer": of_conv(activity_regularizer="l2"),
    "other_dtype": lambda x: residual(x, lambda: layers.ReLU(dtype="float16")),
    "regularized_activation": lambda x: residual(
        x, lambda: layers.Activation("relu", activity_regularizer="l1")
    ),
    "separable": lambda x: residual(x, first=layers.SeparableConv2D(CHANNELS, 3, padding="same")),
    "product": lambda x: layers.Multiply()([conv_bn(layers.ReLU()(conv_bn(x))), x]),
    "dense_connection": lambda x: layers.Concatenate()([x, layers.ReLU()(conv_bn(x))]),
    "activation_before_the_sum": lambda x: layers.Add()([layers.ReLU()(conv_bn(x)), x]),
    "unpadded": lambda x: layers.Add()([layers.Conv2D(CHANNELS, 3)(x), x[:, 1:-1, 1:-1]]),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_what_a_block_cannot_do_stays_as_it_is(name):
    model = model_of(lambda x: NEAR_MISSES[name](sound_block(x)))
    recognized = assert_recognized(model, {RESIDUAL: 1})
    assert [layer.name for layer in recognized.layers[2:]] == [
        layer.name for layer in model.layers[-len(recognized.layers) + 2 :]
    ]


def test_a_tensor_that_the_model_returns_stays():
    inputs = keras.Input((8, 8, CHANNELS))
    inner = conv_bn(inputs)
    outputs = sound_block(layers.Add()([conv_bn(layers.ReLU()(inner)), inputs]))
    assert_recognized(keras.Model(inputs, [inner, outputs]), {RESIDUAL: 1})


@pytest.mark.parametrize(
    "build",
    [
        lambda x: layers.Dense(2)(layers.Flatten()(x)),
        lambda x: layers.Conv2D(2, 3)(layers.ReLU()(conv_bn(x))),
        unet_skip,
    ],
)
def test_nothing_recognized_is_an_error(build):
    with pytest.raises(ValueError, match="residual or inception patterns"):
        kr.from_keras(model_of(build))


class Counter(layers.Layer):
    """What it computes changes from call to call, so that a copy is not equal."""

    calls = 0

    def call(self, inputs):
        Counter.calls += 1
        return inputs * Counter.calls


def test_unequal_outputs_are_an_error():
    model = model_of(lambda x: Counter()(sound_block(x)))
    with pytest.raises(ValueError, match=r"`model` must have the same outputs.*differ by"):
        kr.from_keras(model)


# The model that comes out, and the one that goes in


def small_network():
    inputs = keras.Input((8, 8, CHANNELS), name="images")
    x = sound_block(sound_block(inputs))
    branches = [layers.Conv2D(2, 1, activation="relu")(x), layers.Conv2D(2, 3, padding="same")(x)]
    branches[1] = layers.ReLU()(branches[1])
    x = layers.Concatenate(name="mixed")(branches)
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return with_random_weights(keras.Model(inputs, layers.Dense(3, name="head")(x), name="small"))


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_saved_and_loaded_on_both_sides(ending, tmp_path):
    original = small_network()
    original.save(tmp_path / f"plain.{ending}")
    recognized = kr.from_keras(keras.models.load_model(tmp_path / f"plain.{ending}"))
    assert counts(recognized) == {RESIDUAL: 2, INCEPTION: 1}
    loaded = reloaded(recognized, tmp_path)
    assert counts(loaded) == counts(recognized)
    assert_same_outputs(original, loaded)


def test_the_model_that_goes_in_is_left_as_it_is():
    model = small_network()
    model.compile("sgd", "mse")
    config, weights = model.get_config(), model.get_weights()
    recognized = kr.from_keras(model)
    assert model.get_config() == config
    assert all((a == b).all() for a, b in zip(model.get_weights(), weights))
    assert recognized.name == "small"
    assert not recognized.compiled
    assert recognized.input.name == "images"
    assert not {id(weight) for weight in model.weights} & {id(w) for w in recognized.weights}
    for weight in recognized.weights:
        weight.assign(np.zeros(weight.shape))
    assert all((a == b).all() for a, b in zip(model.get_weights(), weights))


def test_statistics_do_not_change_where_a_layer_is_always_in_training():
    def build(x):
        return layers.Dropout(0.5)(in_mode(training=True)(sound_block(x)), training=True)

    assert_recognized(model_of(build), {RESIDUAL: 1})


def test_nested_and_sequential_models_are_recognized_inside():
    backbone = model_of(sound_block)
    backbone.trainable = False
    model = keras.Sequential([keras.Input((8, 8, CHANNELS)), backbone, layers.Flatten()])
    recognized = assert_recognized(model, {RESIDUAL: 1})
    assert [layer.name for layer in recognized.layers[1:]] == [backbone.name, "flatten"]
    assert not recognized.trainable_weights


def test_a_model_that_is_called_twice_is_shared_again():
    inputs = [keras.Input((8, 8, CHANNELS), name=name) for name in "ab"]
    tower = keras.Model(inputs[0], sound_block(inputs[0]))
    outputs = {"difference": tower(inputs[0]) - 2.0 * tower(inputs[1])}
    model = with_random_weights(keras.Model(dict(zip("ab", inputs)), outputs))
    recognized = kr.from_keras(model)
    assert counts(recognized) == {RESIDUAL: 1}
    assert len(recognized.weights) == len(model.weights)
    assert list(recognized.input) == ["a", "b"]
    assert list(recognized.output) == ["difference"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtypes_are_kept(policy):
    keras.config.set_dtype_policy(policy)
    model = small_network()
    keras.config.set_dtype_policy("float32")
    recognized = kr.from_keras(model)
    assert counts(recognized) == {RESIDUAL: 2, INCEPTION: 1}
    assert {block.dtype_policy.name for block in blocks_of(recognized)} == {policy}


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantized_layers_stay(mode):
    inputs = keras.Input((8, 8, CHANNELS))
    x = layers.GlobalAveragePooling2D()(sound_block(inputs))
    model = with_random_weights(keras.Model(inputs, layers.Dense(3)(x)))
    model.quantize(mode)
    assert_same_outputs(model, converted(model, kr.from_keras), 0.03)


def test_channels_first_networks_are_recognized():
    keras.config.set_image_data_format("channels_first")
    inputs = keras.Input((CHANNELS, 8, 9))
    y = layers.BatchNormalization(axis=1)(layers.Conv2D(6, 3, padding="same")(inputs))
    y = layers.BatchNormalization(axis=1)(layers.Conv2D(6, 3, padding="same")(layers.ReLU()(y)))
    model = keras.Model(inputs, layers.ReLU()(y + layers.Conv2D(6, 1)(inputs)))
    keras.config.set_image_data_format("channels_last")
    (block,) = blocks_of(assert_recognized(model, {RESIDUAL: 1}))
    assert block.data_format == "channels_first"


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Mish(layers.Layer):
    def call(self, inputs):
        return inputs * keras.ops.tanh(keras.ops.softplus(inputs))


@pytest.mark.parametrize("act", [Mish, lambda: layers.Activation(registered_function)])
def test_activations_of_users_are_kept(act, tmp_path):
    model = model_of(lambda x: act()(residual(x, act, act="linear")))
    assert_same_outputs(model, reloaded(assert_recognized(model, {RESIDUAL: 1}), tmp_path))


def test_options_of_kernels_are_kept():
    options = dict(
        kernel_initializer=keras.initializers.HeNormal(seed=3),
        kernel_regularizer=keras.regularizers.L2(1e-3),
        bias_constraint="non_neg",
    )
    conv = functools.partial(conv_bn, **options)
    model = model_of(lambda x: residual(x, first=conv, second=conv))
    config = blocks_of(kr.from_keras(model))[0].get_config()
    for name, value in options.items():
        kind = getattr(keras, f"{name.split('_')[1]}s")
        assert config[name] == kind.serialize(kind.get(value))
