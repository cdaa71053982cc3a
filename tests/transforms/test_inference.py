import functools
import warnings

import keras
import numpy as np
import pytest
from conversions import inputs_of
from helpers import assert_close, make_block, model_of, random_array, randomize, to_numpy

import keras_resblocks as kr

SHAPE = (5, 12, 10, 3)
BACKEND = keras.backend.backend()

# What stands in the models of one block: the block's own options, and the kind.
BLOCKS = {
    "residual": ("residual", {"strides": 2}),
    "bottleneck": ("bottleneck", {"strides": 2, "activation": "elu"}),
    "grouped, dilated": ("bottleneck", {"groups": 2, "dilation_rate": 2}),
    "inception": ("inception", {"strides": 2}),
    "preactivation": ("residual", {"preactivation": True, "strides": 2}),
    "squeeze and excite": ("residual", {"attention": "squeeze_excite"}),
    "zero padded": ("residual", {"shortcut": "zero_pad", "strides": 2}),
    "average pooled": ("residual", {"shortcut": "avg_pool", "strides": 2}),
    "same padding": ("residual", {"padding": "same", "strides": 2}),
    "layer norm, no shortcut": ("residual", {"normalization": "layer", "shortcut": None}),
}


@pytest.fixture(autouse=True)
def _compiler(request):
    """Unless it is what a test is about, nothing is compiled on PyTorch."""
    if BACKEND != "torch" or request.node.get_closest_marker("compiled"):
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


def block_model(kind, options, shape=SHAPE):
    """A small model of two blocks between a stem and a classifier."""
    inputs = keras.Input(shape[1:])
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = keras.layers.BatchNormalization(name="stem_norm")(x)
    x = make_block(kind, 4, **{**options, "strides": 1})(x)
    x = make_block(kind, 8, **options)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(inputs, keras.layers.Dense(3)(x)))


def assert_same(model, infer, inputs, tolerance=1e-5):
    actual, expected = infer(inputs), model.predict(inputs, verbose=0)
    keras.tree.assert_same_structure(actual, expected)
    for ours, theirs in zip(keras.tree.flatten(actual), keras.tree.flatten(expected)):
        scale = max(np.abs(theirs).max(), 1e-3)
        assert np.isfinite(theirs).all()
        assert np.ptp(theirs) > 1e-3 * scale
        assert ours.dtype == theirs.dtype
        assert_close(ours / scale, theirs / scale, tolerance)


def signal(rank=1):
    shape = (2, 8, 7, 6)[: rank + 1] + (3,)
    return model_of(kr.ResidualBlock(4), kr.ResidualBlock(4, 2, activation="elu"), shape=shape)


def volume():
    return signal(rank=3)


def structured():
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 2), name="right")
    shared = kr.ResidualBlock(4, name="shared")
    a, b = shared(left), shared(keras.layers.Conv2D(3, 1, name="as_wide")(right))
    outputs = {"sum": a + b, "parts": [a, keras.layers.GlobalMaxPooling2D()(b)]}
    return keras.Model({"left": left, "right": right}, outputs)


def broadcast():
    images, scales = keras.Input((6, 5, 4)), keras.Input((1, 4))
    per_channel = keras.ops.max(scales, axis=0)  # over the batch: (1, 4)
    block = kr.ResidualBlock(4)
    outputs = [block(images) * per_channel, keras.ops.mean(images, axis=2) + per_channel]
    return keras.Model([images, scales], outputs)


def lists_of_one():
    inputs = keras.Input((6, 5, 4))
    return keras.Model([inputs], [kr.ResidualBlock(4)(inputs)])


def channels_first(kind):
    inputs = keras.Input((3, 10, 12))
    x = keras.layers.Conv2D(4, 3, strides=2, data_format="channels_first")(inputs)
    return keras.Model(inputs, make_block(kind, 4, strides=2, data_format="channels_first")(x))


def sequential():
    layers = [
        keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.DepthwiseConv2D(3, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(6.0),
        keras.layers.Dropout(0.5),
        keras.layers.Flatten(),
        keras.layers.Dense(3, activation="softmax"),
    ]
    return keras.Sequential([keras.Input(SHAPE[1:]), *layers])


MODELS = {name: functools.partial(block_model, *case) for name, case in BLOCKS.items()}
MODELS |= {f.__name__: f for f in (signal, volume, structured, broadcast, lists_of_one, sequential)}
if BACKEND != "tensorflow":  # which has no channels-first convolution on a CPU
    for kind in ("residual", "bottleneck", "inception"):
        MODELS[f"channels first, {kind}"] = functools.partial(channels_first, kind)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_predict_for_any_batch(name):
    model = randomize(MODELS[name]())
    infer = kr.inference_function(model)
    for batch in (1, 5):
        assert_same(model, infer, inputs_of(model, batch))


def test_inputs_in_a_list_may_be_given_by_name():
    a, b = keras.Input((4, 4, 2), name="a"), keras.Input((4, 4, 2), name="b")
    model = randomize(keras.Model([a, b], [kr.ResidualBlock(2)(a - b), a]))
    infer = kr.inference_function(model)
    arrays = [random_array((2, 4, 4, 2), seed=seed) for seed in (0, 1)]
    assert_same(model, infer, arrays)
    by_name = infer(dict(zip("ba", arrays[::-1])))
    assert_close(by_name[0], infer(arrays)[0])


def test_open_sizes():
    model = kr.create_model(
        kr.ResNetSpec("bottleneck", (1, 2), 4, input_shape=(16, 16, 3)),
        input_shape=(None, None, 3),
        classifier_activation=None,
        classes=4,
    )
    infer = kr.inference_function(randomize(model))
    for shape in ((1, 16, 16, 3), (2, 17, 12, 3), (3, 16, 16, 3)):
        assert_same(model, infer, random_array(shape))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_dtype_policy_is_kept(policy):
    options = {"dtype": policy, "strides": 2}
    inputs = keras.Input(SHAPE[1:])
    x = kr.ResidualBlock(4, **options)(inputs)
    model = randomize(keras.Model(inputs, kr.BottleneckBlock(2, expansion=2, **options)(x)))
    infer = kr.inference_function(model)
    actual = infer(keras.ops.convert_to_tensor(random_array(SHAPE)))
    assert keras.backend.standardize_dtype(actual.dtype) == "bfloat16"
    expected = model(random_array(SHAPE), training=False)
    scale = np.abs(to_numpy(expected)).max()
    assert_close(to_numpy(actual) / scale, to_numpy(expected) / scale, 2e-2)


def test_arrays_are_converted_as_the_model_does():
    model = block_model("residual", {})
    infer = kr.inference_function(model)
    pixels = np.random.default_rng(0).integers(0, 9, SHAPE, dtype="uint8")
    assert_close(infer(pixels), model.predict(pixels.astype("float32"), verbose=0), 1e-3)
    tensor = keras.ops.convert_to_tensor(pixels.astype("float32"))
    assert isinstance(infer(pixels), np.ndarray)
    assert keras.ops.is_tensor(infer(tensor))
    assert_close(infer(tensor), infer(pixels))


def test_model_is_left_as_it_is_and_its_later_weights_are_not_seen():
    model = block_model("residual", {})
    layers, weights = [layer.name for layer in model.layers], model.get_weights()
    first, second = random_array(SHAPE), random_array((2, *SHAPE[1:]), seed=1)
    expected = model.predict(second, verbose=0)
    infer = kr.inference_function(model)
    before = infer(first)
    assert [layer.name for layer in model.layers] == layers
    for weight, value in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, value)
    randomize(model, seed=1)
    assert np.abs(model.predict(first, verbose=0) - before).max() > 1e-3
    np.testing.assert_array_equal(infer(first), before)
    assert_close(infer(second), expected, 1e-3)  # a shape that had not come before


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others compile for each shape")
def test_another_batch_is_not_traced_again():
    calls = []

    @keras.saving.register_keras_serializable("keras_resblocks_tests")
    class Witness(keras.layers.Layer):
        def call(self, inputs):
            calls.append(tuple(inputs.shape))
            return inputs + 0.0

    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, Witness()(kr.ResidualBlock(4)(inputs)))
    infer = kr.inference_function(model)
    infer(random_array(SHAPE))
    traced = len(calls)
    assert traced
    for batch in (1, 2, 7):
        assert infer(random_array((batch, *SHAPE[1:]))).shape == (batch, 12, 10, 4)
    assert len(calls) == traced


@pytest.mark.parametrize("arrays", [np.zeros((1, 12, 10, 4)), np.zeros((12, 10, 3)), [], {"x": 1}])
def test_inputs_that_do_not_fit_are_refused(arrays):
    infer = kr.inference_function(block_model("residual", {}))
    with pytest.raises(ValueError, match=r"\(None, 12, 10, 3\)"):
        infer(arrays)


# PyTorch's compiler, which the other tests do without: it takes seconds for each model.

on_torch = pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch's compiler")


@on_torch
@pytest.mark.compiled
def test_compiled_model_takes_any_batch_and_size():
    inputs = keras.Input((None, None, 3))
    x = kr.ResidualBlock(4, 2, activation="elu")(inputs)
    model = randomize(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)))
    infer = kr.inference_function(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as of a compiler that fails
        for shape in ((1, 12, 10, 3), (5, 9, 7, 3)):
            assert_same(model, infer, random_array(shape))


@on_torch
def test_without_a_compiler_the_folded_model_runs_and_a_warning_says_so_once(monkeypatch):
    def compile_nothing(function, **options):
        def call(*inputs):
            raise RuntimeError("no C++ compiler was found\nand much more")

        return call

    monkeypatch.setattr("torch.compile", compile_nothing)
    model = block_model("residual", {})
    infer = kr.inference_function(model)
    with pytest.warns(UserWarning, match="not compiled: no C[+][+] compiler was found$"):
        infer(random_array(SHAPE))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert_same(model, infer, random_array(SHAPE))
