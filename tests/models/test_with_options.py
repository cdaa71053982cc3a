"""A model with other options: what was asked for is changed, and nothing else."""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from conversions import converted, inputs_of, reloaded
from helpers import (
    assert_close,
    make_block,
    model_of,
    random_array,
    randomize,
    registered_function,
    shape_of,
    snapshot,
    to_numpy,
)
from keras import layers
from trained import outputs_of

import keras_resblocks as kr

L2 = keras.regularizers.L2(1e-3)


def quiet(model, **options):
    """The changed model, after a check that `model` is not and that no warning is given."""
    policies = [layer.dtype_policy.name for layer in model.layers]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        changed = converted(model, functools.partial(kr.with_options, **options))
    assert policies == [layer.dtype_policy.name for layer in model.layers]
    assert changed.name == model.name
    assert not {id(w) for w in model.weights} & {id(w) for w in changed.weights}
    assert not changed.compiled
    return changed


def assert_same_outputs(one, other, inputs, tolerance=0):
    for a, b in zip(outputs_of(one, inputs), outputs_of(other, inputs), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)


def assert_equal_weights(one, other):
    for a, b in zip(snapshot(one), snapshot(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_saves(model, path):
    loaded = reloaded(model, path)
    assert structure(loaded) == structure(model)
    assert_equal_weights(model, loaded)
    assert len(loaded.losses) == len(model.losses)
    return loaded


def structure(model):
    """The layers with their activations and policies."""
    parts = [(type(x), x.name, x.dtype_policy.name) for x in leaves(model)]
    return parts, list(activations(model))


def kernels(model):
    """The weights that are kernels, but for recurrent ones."""
    return [
        w for w in model.weights if w.name in ("kernel", "depthwise_kernel", "pointwise_kernel")
    ]


def leaves(layer):
    """The layers of models, blocks and wrappers."""
    inner = getattr(layer, "layers", None) or (
        layer.sublayers() if hasattr(layer, "sublayers") else []
    )
    if isinstance(layer, layers.TimeDistributed):
        inner = [layer.layer]
    for sublayer in inner:
        yield from leaves(sublayer)
    if not inner:
        yield layer


def activations(model):
    """The names of the activations."""
    for layer in dict.fromkeys(leaves(model)):
        if isinstance(layer, (layers.ReLU, layers.PReLU, layers.LeakyReLU)):
            yield type(layer).__name__
        elif hasattr(layer, "activation"):
            yield layer.activation.__name__


# Published networks.


def test_resnet50_of_keras_with_elu_and_a_penalty(tmp_path):
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=5)
    changed = quiet(model, activation="elu", kernel_regularizer=L2)
    assert [layer.name for layer in changed.layers] == [layer.name for layer in model.layers]
    assert_equal_weights(model, changed)
    assert [w.path for w in model.weights] == [w.path for w in changed.weights]
    assert len(model.losses) == 0
    assert len(changed.losses) == len(kernels(changed)) == 54
    expected = sum(1e-3 * np.square(to_numpy(kernel)).sum() for kernel in kernels(model))
    assert_close(sum(changed.losses), expected, 1e-4)
    assert list(activations(model)).count("relu") == 49
    was_relu = ["elu" if name == "relu" else name for name in activations(model)]
    assert list(activations(changed)) == was_relu
    assert was_relu[-1] == "softmax"
    loaded = assert_saves(changed, tmp_path)
    assert_same_outputs(changed, loaded, random_array((2, 32, 32, 3)))


@pytest.mark.slow
def test_squeeze_and_excite_of_mobilenet_stays():
    model = keras.applications.MobileNetV3Small(
        weights=None, input_shape=(32, 32, 3), classes=4, include_preprocessing=False
    )
    changed = quiet(model, activation="elu")
    sixes = [layer for layer in model.layers if isinstance(layer, layers.ReLU) and layer.max_value]
    assert len(sixes) == 9
    for layer in sixes:
        assert changed.get_layer(layer.name).max_value == 6
    others = [layer.name for layer in changed.layers if isinstance(layer, layers.ReLU)]
    assert others == [layer.name for layer in sixes]


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Centred(layers.Layer):
    """A normalization of one's own."""

    def build(self, shape):
        self.centre = self.add_weight(name="centre", shape=(shape[-1],), initializer="zeros")

    def call(self, inputs):
        return inputs - self.centre


SMALL = kr.ResNetSpec("residual", (1, 1), 4, input_shape=(16, 16, 3), classes=3)
INCEPTION = kr.InceptionSpec([[[[4], [4, (6, 3)], ["max_pool", 2]]]], stem=SMALL.stem[:1])


def network(spec=SMALL, **arguments):
    return randomize(kr.create_model(spec, input_shape=(16, 16, 3), classes=3, **arguments))


def separable():
    return model_of(
        layers.SeparableConv2D(6, 3, activation="relu"),
        layers.DepthwiseConv2D(3, activation=keras.activations.relu),
        layers.Conv2DTranspose(4, 3),
        layers.GroupNormalization(2),
        layers.LeakyReLU(0.3),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax"),
        shape=(2, 8, 8, 3),
    )


def recurrent():
    return model_of(
        layers.Conv1D(6, 3, activation="relu"),
        layers.LayerNormalization(),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(4, activation="relu")),
        layers.SimpleRNN(3),
        layers.Dense(3, activation="sigmoid"),
        shape=(2, 8, 3),
    )


def attention():
    x = keras.Input((5, 6))
    y = layers.MultiHeadAttention(2, 3)(x, x)
    y = layers.RMSNormalization()(x + y)
    y = layers.EinsumDense("abc,cd->abd", (None, 8), activation="gelu")(y)
    return randomize(keras.Model(x, layers.Dense(2)(keras.ops.relu(y))))


def sequential():
    stack = [layers.Dense(6), layers.BatchNormalization(), layers.Activation("tanh")]
    head = layers.Dense(2, activation="softmax")
    return randomize(keras.Sequential([keras.Input((5,)), *stack, head], name="mlp"))


def shared_and_nested():
    """A convolution called twice, and a model called alone and for each step."""
    stack = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()]
    inner = keras.Sequential([keras.Input((6, 6, 4)), *stack], name="inner")
    conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="twice")
    x = keras.Input((2, 6, 6, 4), name="x")
    first, second = inner(conv(conv(x[:, 0]))), layers.TimeDistributed(inner)(x)
    block = layers.TimeDistributed(kr.ResidualBlock(4))(second)
    pooled = layers.GlobalAveragePooling2D()(first)
    outputs = {"a": layers.Dense(2, activation="softmax")(pooled), "b": layers.Flatten()(block)}
    return randomize(keras.Model({"x": x}, outputs))


def blocks_of_rank_1():
    return model_of(
        make_block("inception", 8, name="first"),
        kr.BottleneckBlock(2, 2, preactivation=True, attention=kr.SqueezeExcite(2)),
        shape=shape_of(1),
    )


def shared_relu():
    relu = layers.ReLU(name="relu")
    x = keras.Input((5,))
    y = layers.BatchNormalization()(relu(layers.Dense(4)(x)), training=True)
    return randomize(keras.Model(x, layers.Dense(2)(relu(layers.Dense(7)(y)))))


class Case(NamedTuple):
    """What is built, and how many kernels, activations and normalizations options change."""

    make: Callable
    kernels: int
    activations: int
    normalizations: int


MODELS = {
    "network": Case(network, 8, 5, 7),
    "inception": Case(lambda: network(INCEPTION), 6, 5, 5),
    "rank 1": Case(blocks_of_rank_1, 10, 7, 7),
    "separable": Case(separable, 5, 3, 1),
    "recurrent": Case(recurrent, 6, 2, 1),
    "attention": Case(attention, 6, 2, 1),
    "sequential": Case(sequential, 2, 1, 1),
    "nested": Case(shared_and_nested, 5, 4, 3),
    "shared": Case(shared_relu, 3, 1, 1),
}
SWEPT = pytest.mark.parametrize("name", MODELS)


@functools.cache
def made(name):
    """A model of the table; no test changes it."""
    return MODELS[name].make()


def noisy(model, **options):
    """The changed model, and how many normalizations begin fresh as it warns."""
    with pytest.warns(UserWarning, match="normalizations begin fresh") as caught:
        changed = kr.with_options(model, **options)
    (message,) = {str(w.message) for w in caught if "begin fresh" in str(w.message)}
    return changed, int(message.split()[0])


@SWEPT
def test_what_is_of_training_leaves_the_outputs(name, tmp_path):
    model = made(name)
    changed = quiet(
        model,
        kernel_regularizer=L2,
        bias_regularizer="l1",
        kernel_constraint="max_norm",
        bias_constraint="non_neg",
        kernel_initializer="zeros",
        bias_initializer="ones",
    )
    assert_same_outputs(model, changed, inputs_of(model))
    assert [layer.name for layer in changed.layers] == [layer.name for layer in quiet(model).layers]
    in_attention = ("reduce/bias", "expand/bias")  # where blocks have no options of biases
    biases = [w for w in changed.weights if w.name == "bias" and not w.path.endswith(in_attention)]
    assert len(kernels(changed)) == MODELS[name].kernels
    assert len(changed.losses) == MODELS[name].kernels + len(biases)
    expected = sum(1e-3 * np.square(to_numpy(kernel)).sum() for kernel in kernels(model))
    expected += sum(0.01 * np.abs(to_numpy(bias)).sum() for bias in biases)
    assert_close(sum(changed.losses), expected, 1e-4)
    for kernel in kernels(changed):
        assert isinstance(kernel.constraint, keras.constraints.MaxNorm)
    assert_saves(changed, tmp_path)
    without = quiet(changed, kernel_regularizer=None, bias_regularizer=None)
    assert len(without.losses) == 0


@SWEPT
def test_hidden_activations_are_replaced(name, tmp_path):
    model = made(name)
    changed = quiet(model, activation=registered_function)
    before, after = list(activations(model)), list(activations(changed))
    assert after.count("registered_function") == MODELS[name].activations
    assert_equal_weights(model, changed)
    for kept in ("softmax", "sigmoid"):
        assert after.count(kept) == before.count(kept)
    assert_saves(changed, tmp_path)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "recurrent"])
def test_activation_with_weights_is_copied_for_each_place(name, tmp_path):
    model = made(name)
    axes = [1] if name == "attention" else None
    changed = quiet(model, activation=layers.PReLU("ones", shared_axes=axes))
    assert list(activations(changed)).count("PReLU") > 0
    linear = quiet(model, activation=None)
    assert_same_outputs(changed, linear, inputs_of(model), 1e-5)
    assert_saves(changed, tmp_path)


def test_activation_with_weights_comes_behind_a_convolution():
    changed = quiet(separable(), activation=layers.PReLU())
    names = [layer.name for layer in changed.layers if isinstance(layer, layers.PReLU)]
    assert names == ["separable_conv2d_activation", "depthwise_conv2d_activation", "leaky_re_lu"]


def test_shared_activation_without_weights_becomes_one_with_weights_for_each_place():
    changed = quiet(shared_relu(), activation=layers.PReLU())
    shapes = [layer.alpha.shape for layer in changed.layers if isinstance(layer, layers.PReLU)]
    assert shapes == [(4,), (7,)]
    again = quiet(changed, activation=layers.PReLU(alpha_initializer="ones"))
    assert_same_outputs(changed, again, random_array((2, 5)))


@SWEPT
def test_normalizations_of_another_class_begin_fresh(name, tmp_path):
    model = made(name)
    changed, fresh = noisy(model, normalization=Centred())
    assert fresh == MODELS[name].normalizations
    assert len([w for w in changed.weights if w.name == "centre"]) == fresh
    assert_saves(changed, tmp_path)


@SWEPT
def test_policy_of_most_layers_is_replaced(name, tmp_path):
    model = made(name)
    changed = quiet(model, dtype="mixed_bfloat16")
    policies = {layer.dtype_policy.name for layer in leaves(changed) if layer.weights}
    assert policies == {"mixed_bfloat16"}
    assert {weight.dtype for weight in changed.weights} == {"float32"}
    back = quiet(changed, dtype="float32")
    assert structure(back) == structure(quiet(model))
    assert_equal_weights(model, back)
    assert_saves(changed, tmp_path)


# What stays.


def functional(build, shape=(6,)):
    x = keras.Input(shape)
    return randomize(keras.Model(x, build(x)))


def gated_by_dense_layers(x):
    gate = layers.Dense(4, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    gate = layers.Reshape((1, 1, 4))(layers.Dense(4, activation="sigmoid", name="gate")(gate))
    return layers.Conv2D(2, 1)(x * gate)


def gated_by_an_operation(x):
    gate = keras.ops.sigmoid(layers.Conv2D(4, 1)(layers.LeakyReLU()(x)))
    return layers.Conv2D(2, 1, activation="relu")(layers.Multiply()([x, gate]))


def gated_by_a_model(x):
    stack = [layers.GlobalAveragePooling2D(keepdims=True), layers.Dense(4, activation="relu")]
    gate = keras.Sequential([keras.Input(x.shape[1:]), *stack, layers.Dense(4, "hard_sigmoid")])
    return layers.Conv2D(2, 1)(layers.Multiply()([layers.ReLU()(x), gate(layers.ReLU()(x))]))


def outputs_of_several_kinds(x):
    hidden = layers.Dense(4, activation="tanh")(layers.ELU()(x))
    probabilities = layers.Dense(4, activation="softmax")(hidden)
    return [layers.Dense(2, activation="relu")(probabilities), layers.ReLU()(hidden), hidden]


def output_of_a_wrapper(x):
    x = layers.TimeDistributed(layers.Dense(4, activation="relu"))(x)
    return layers.TimeDistributed(layers.Dense(2, activation="sigmoid"))(x)


def operations(x):
    x = keras.activations.relu(layers.Dense(4)(x), negative_slope=0.1)
    return layers.Dense(2)(keras.ops.softmax(keras.ops.gelu(layers.Dense(4)(x))))


@pytest.mark.parametrize(
    ("build", "shape", "expected"),
    [
        (gated_by_dense_layers, (5, 5, 4), ["elu", "sigmoid", "linear"]),
        (gated_by_an_operation, (5, 5, 4), ["elu", "linear", "relu"]),
        (gated_by_a_model, (5, 5, 4), ["ReLU", "elu", "elu", "hard_sigmoid", "linear"]),
        (outputs_of_several_kinds, (6,), ["elu", "tanh", "softmax", "relu", "ReLU"]),
        (output_of_a_wrapper, (3, 6), ["elu", "sigmoid"]),
        (operations, (6,), ["linear", "elu", "linear", "elu", "linear"]),
    ],
)
def test_gates_and_outputs_stay(build, shape, expected):
    changed = quiet(functional(build, shape), activation="elu")
    assert sorted(activations(changed)) == sorted(expected)


@pytest.mark.parametrize("exit_activation", ["inherit", None, "tanh"])
def test_exit_of_a_block_is_hidden_where_it_is_none_of_its_own(exit_activation):
    block = kr.ResidualBlock(4, exit_activation=exit_activation)
    changed = quiet(model_of(block, layers.Conv2D(2, 1), shape=shape_of()), activation="elu")
    expected = {"inherit": "inherit", None: None, "tanh": "elu"}[exit_activation]
    config = changed.layers[1].get_config()
    assert (config["activation"], config["exit_activation"]) == ("elu", expected)


def test_layers_that_have_a_policy_of_their_own_keep_it():
    model = functional(
        lambda x: layers.Dense(2, "softmax", dtype="float32")(
            kr.ResidualBlock(4, dtype="mixed_bfloat16")(
                layers.Conv1D(4, 1, dtype="mixed_bfloat16")(x)
            )
        ),
        (5, 4),
    )
    changed = quiet(model, dtype="mixed_float16", activation=layers.PReLU())
    policies = [layer.dtype_policy.name for layer in changed.layers[1:]]
    assert policies == ["mixed_float16", "mixed_float16", "float32"]
    assert {layer.dtype_policy.name for layer in leaves(changed.layers[2])} == {"mixed_float16"}


# Normalizations.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (layers.BatchNormalization(), layers.BatchNormalization(epsilon=0.1, momentum=0.5)),
        (layers.BatchNormalization(scale=False), layers.BatchNormalization()),
        (layers.GroupNormalization(2), "instance"),
        (layers.LayerNormalization(), layers.LayerNormalization(center=False)),
    ],
)
def test_normalization_of_the_same_class_keeps_its_weights(before, after):
    model = model_of(
        before, kr.ResidualBlock(4, normalization=before), layers.ReLU(), shape=shape_of()
    )
    changed = quiet(model, normalization=after)
    values = {weight.path: to_numpy(weight) for weight in model.weights}
    paths = [weight.path for weight in changed.weights if weight.path in values]
    assert len(paths) >= 1 + 2 * 2
    for weight in changed.weights:
        new = np.ones(4) if weight.name == "gamma" else None
        np.testing.assert_array_equal(to_numpy(weight), values.get(weight.path, new))


def test_normalizations_are_removed():
    model = model_of(layers.Conv2D(4, 3, use_bias=False), kr.ResidualBlock(4), shape=shape_of())
    model = functional(lambda x: model(layers.BatchNormalization(name="norm")(x)), (5, 4, 4))
    changed = quiet(model, normalization=None)
    assert {weight.name for weight in changed.weights} == {"kernel", "bias"}
    assert isinstance(changed.get_layer("norm"), layers.Identity)
    assert changed.get_layer("norm").name == "norm"


@pytest.mark.parametrize("name", ["group", "instance"])
def test_axis_of_the_channels_is_that_of_the_normalization_before(name):
    norm = layers.BatchNormalization(axis=1)
    model = functional(lambda x: layers.Flatten()(norm(layers.ReLU()(x))), (6, 5, 5))
    changed, _ = noisy(model, normalization=name)
    (after,) = [layer for layer in changed.layers if isinstance(layer, layers.GroupNormalization)]
    assert (after.axis, after.groups) == (1, 6 if name == "instance" else 2)


def test_normalization_called_in_training_may_become_another():
    _, fresh = noisy(shared_relu(), normalization="layer")
    assert fresh == 1
    kept = quiet(shared_relu(), normalization=layers.BatchNormalization(epsilon=0.1))
    (norm,) = [layer for layer in kept.layers if isinstance(layer, layers.BatchNormalization)]
    mean = to_numpy(norm.moving_mean)
    kept(random_array((2, 5)))
    assert norm.epsilon == 0.1
    assert not np.array_equal(mean, to_numpy(norm.moving_mean))


def test_normalization_of_a_shortcut_of_its_own_is_replaced():
    shortcut = kr.shortcuts.ProjectionShortcut("always", normalization="layer")
    model = model_of(kr.ResidualBlock(4, shortcut=shortcut), shape=shape_of())
    changed = quiet(noisy(model, normalization="group")[0], normalization="group")
    norms = [type(x) for x in leaves(changed) if "gamma" in [w.name for w in x.weights]]
    assert norms == [layers.GroupNormalization] * 3


# Layers that are adapted, wrapped, preprocess or are of one's own.


@pytest.mark.parametrize(
    "option", [{"kernel_regularizer": L2}, {"activation": "elu"}], ids=", ".join
)
def test_low_rank_adaptation_stays(option, tmp_path):
    block = kr.ResidualBlock(4)
    dense = layers.Dense(4, activation="relu")
    model = model_of(block, dense, layers.Dense(2), shape=shape_of(1))
    block.conv1.conv.enable_lora(2)
    dense.enable_lora(2)
    changed = quiet(randomize(model), **option)
    assert_equal_weights(model, changed)
    assert [w.trainable for w in changed.weights] == [w.trainable for w in model.weights]
    loaded = reloaded(changed, tmp_path)  # where the adaptation is part of the kernel
    assert_same_outputs(changed, loaded, random_array(shape_of(1)), 1e-5)


def test_maps_of_dtype_policies_stay():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")
    policies["block/conv1"] = keras.DTypePolicy("float32")
    block = kr.ResidualBlock(4, dtype=policies, name="block")
    model = model_of(block, layers.ReLU(dtype=policies), shape=shape_of())
    changed = quiet(model, kernel_regularizer=L2)
    assert changed.layers[1].conv1.compute_dtype == "float32"
    assert changed.layers[1].conv2.compute_dtype == "bfloat16"


def test_float8_kernels_stay():
    model = randomize(model_of(kr.ResidualBlock(4, attention="squeeze_excite"), shape=shape_of()))
    model.quantize("float8")
    assert_same_outputs(model, quiet(model, activation="relu"), random_array(shape_of()))


def test_quantized_kernels_take_some_options():
    model = randomize(
        keras.Sequential([keras.Input((6,)), layers.Dense(4, "relu"), layers.Dense(2)])
    )
    model.quantize("int8")
    assert_equal_weights(model, quiet(model, activation="elu", bias_regularizer="l2"))
    for option in ("kernel_regularizer", "dtype"):
        with pytest.raises(ValueError, match=f"`{option}` must not be given .* quantized"):
            kr.with_options(model, **{option: {"dtype": "float16"}.get(option, "l2")})


def test_vocabularies_stay():
    lookup = layers.IntegerLookup()
    lookup.adapt(np.array([3, 5, 5, 7]))
    x = keras.Input((1,), dtype="int64")
    model = keras.Model(x, layers.Dense(2)(layers.Embedding(5, 3)(lookup(x))))
    changed = quiet(model, kernel_regularizer=L2)
    assert changed.layers[1].get_vocabulary() == [-1, 5, 7, 3] == lookup.get_vocabulary()
    assert_same_outputs(model, changed, np.array([[3], [7]]))


def test_spectral_normalization_is_entered():
    conv = layers.SpectralNormalization(layers.Conv2D(4, 3, activation="relu"))
    model = model_of(conv, layers.Flatten(), layers.Dense(2), shape=shape_of())
    changed = quiet(model, activation="elu", kernel_regularizer=L2)
    assert changed.layers[1].layer.activation is keras.activations.elu
    assert len(changed.losses) == 2
    assert_equal_weights(model, changed)


class Own(layers.Layer):
    """A layer that is not registered."""

    def __init__(self, kernel_regularizer=None, activation="relu", **options):
        super().__init__(**options)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.activation = keras.activations.get(activation)

    def build(self, shape):
        self.kernel = self.add_weight(shape=shape[1:], regularizer=self.kernel_regularizer)

    def call(self, inputs):
        return self.activation(inputs * self.kernel)

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "activation": keras.activations.serialize(self.activation),
        }


def test_layers_of_ones_own_have_the_options_of_their_config():
    double = layers.Lambda(lambda x: x * FACTOR)
    model = model_of(Own(), double, layers.Dense(2), shape=(2, 6))
    changed = quiet(model, activation="elu", kernel_regularizer=L2)
    assert changed.layers[1].activation is keras.activations.elu
    assert len(changed.losses) == 2
    assert_same_outputs(model, quiet(model, bias_regularizer="l2"), random_array((2, 6)))


def test_activation_with_weights_has_no_place_inside_some_layers():
    own = model_of(Own(), layers.Dense(2), shape=(2, 6))
    for name, model in {"Own": own, "TimeDistributed": made("recurrent")}.items():
        with pytest.raises(ValueError, match=f"`activation` must be a function for the {name}"):
            kr.with_options(model, activation=layers.PReLU())


FACTOR = 2.0


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activaton": "elu"}, "`activaton` must be .*Did you mean 'activation'"),
        ({"activation": "elo"}, "`activation` must be .*Did you mean 'elu'"),
        ({"activation": lambda x: x}, "`activation` must not be or contain a lambda"),
        ({"kernel_regularizer": "l7"}, "`kernel_regularizer` must be .* Received: .*'l7'"),
        ({"kernel_regularizer": lambda x: x}, "`kernel_regularizer` must be "),
        ({"bias_constraint": 3}, "`bias_constraint` must be .* Received: bias_constraint=3"),
        ({"kernel_initializer": "he"}, "`kernel_initializer` must be "),
        ({"dtype": "float"}, "`dtype` must be "),
        ({"activation": "elu"}, "`activation` must be .* nothing does"),
        ({"normalization": "batch"}, "`normalization` must be .* nothing does"),
        ({"bias_regularizer": "l2"}, "`bias_regularizer` must be .* nothing does"),
    ],
)
def test_option_that_is_wrong_or_has_no_place_is_refused(options, message):
    model = model_of(layers.Dense(3, use_bias=False), layers.Softmax(), shape=(2, 4))
    with pytest.raises(ValueError, match=message) as raised:
        kr.with_options(model, **options)
    assert len(str(raised.value)) < 1000


def test_without_options_it_is_a_copy():
    model = sequential()
    assert_same_outputs(model, quiet(model), random_array((2, 5)))
