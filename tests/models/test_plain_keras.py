"""Blocks as Keras's own layers: equal outputs and training, in a file that needs nothing else."""

import keras
import numpy as np
import pytest
from conversions import (
    assert_equal_weights,
    assert_folds,
    assert_plain,
    assert_saves,
    entries,
    inputs_of,
    plain_of,
    plain_path,
    reloaded,
)
from helpers import (
    BLOCKS,
    DATA_FORMATS,
    assert_close,
    covering,
    label,
    make_block,
    model_of,
    random_array,
    registered_function,
    run_python,
    shape_of,
    to_numpy,
)
from keras import layers
from trained import images, network, outputs_of, shrunk, trained

import keras_resblocks as kr
from keras_resblocks.layers import AdaptiveAveragePooling, ConvUnit, Pooling
from keras_resblocks.models.graphs import functional
from keras_resblocks.training.pictures import from_pictures


def paths(weights):
    return sorted(weight.path for weight in weights)


def plain_paths(weights):
    return sorted(plain_path(weight.path) for weight in weights)


LOAD = """
    import sys

    sys.modules["keras_resblocks"] = None  # whatever imports it fails

    import keras
    import numpy as np

    for path in sys.argv[1:]:
        data = np.load(path + ".npz")
        model = keras.saving.load_model(path)
        outputs = keras.tree.flatten(model(data["inputs"]))
        for y, expected in zip(outputs, data["outputs"]):
            difference = np.abs(keras.ops.convert_to_numpy(y) - expected).max()
            assert difference <= 1e-5 * np.abs(expected).max()
        print(model.name)
"""
TO_LOAD = ("googlenet", "resnet18d", "resnet101v2_keras", "seresnet50")


def test_files_load_where_this_package_is_missing(tmp_path):
    models = [network(shrunk(name), input_shape=(64, 72, 3), name=name) for name in TO_LOAD]
    image = keras.Input((9, 9, 3), name="image")
    odd = Pooling("avg", 3, 2)(Pooling("max", 3, 2)(AdaptiveAveragePooling(7)(image)))
    odd = kr.ResidualBlock(3, attention="efficient_channel", drop_path_rate=0.5)(odd)
    models.append(trained(keras.Model(image, odd, name="odd")))
    files = []
    for model in models:
        files.append(tmp_path / f"{model.name}.keras")
        inputs = images(model)
        plain_of(model).save(files[-1])
        np.savez(f"{files[-1]}.npz", inputs=inputs, outputs=outputs_of(model, inputs))
    assert run_python(LOAD, *files).split() == [*TO_LOAD, "odd"]


# Blocks and units.

LAYERS = {
    "prelu": layers.PReLU(shared_axes=[1]),
    "registered": registered_function,
    "unscaled": layers.BatchNormalization(scale=False, epsilon=0.1),
    "uncentred": layers.BatchNormalization(center=False),
    "bare": layers.BatchNormalization(scale=False, center=False),
}
OTHERS = {
    "none": {},
    "same": {"padding": "same"},
    "atrous": {"dilation_rate": 2, "atrous": True},
    "biased": {"use_bias": True},
    "unbiased": {"use_bias": False},
    "folded": {"folded": True},
    "frozen": {"trainable": False},
    "grouped": {"groups": 2},
    "remat": {"remat": True},
    "unfused": {"fused": False},
    "drop_path": {"drop_path_rate": 0.5},
    "zero_init": {"zero_init_residual": True},
}
OPTIONS = {
    "kind": BLOCKS,
    "rank": (1, 2, 3),
    "data_format": DATA_FORMATS,
    "preactivation": (False, True),
    "shortcut": (None, "zero_pad", "projection", "projection_always", "avg_pool"),
    "strides": (1, 2),
    "activation": (None, "elu", "prelu", "registered"),
    "normalization": (None, "batch", "unscaled", "uncentred", "bare", "layer", "group"),
    "attention": (None, "squeeze_excite", "efficient_channel"),
    "other": tuple(OTHERS),
}


def is_valid(case):
    if case["shortcut"] is None and case["other"] in ("drop_path", "zero_init"):
        return False
    # The inception block of the helpers ends in a pooling, and has odd numbers of filters.
    return not (case["kind"] == "inception" and case["other"] in ("zero_init", "grouped"))


@pytest.mark.parametrize("case", covering(OPTIONS, is_valid), ids=label)
def test_blocks_become_plain_and_fold(case, tmp_path):
    shape = shape_of(case["rank"], 4, case["data_format"])
    options = {key: LAYERS.get(value, value) for key, value in case.items()}
    kind, _, strides, other = (options.pop(key) for key in ("kind", "rank", "strides", "other"))
    options |= {"kernel_regularizer": "l2", "kernel_constraint": "max_norm", **OTHERS[other]}
    block = make_block(kind, 4 * strides, strides, name="block", **options)
    model = trained(model_of(block, shape=shape))
    inputs = random_array(shape)
    plain = assert_plain(model, inputs)
    assert_equal_weights(model, plain)
    assert_close(sum(plain.losses), sum(model.losses), 1e-6)

    result = assert_folds(model, inputs, entries(model))
    if case["normalization"] in (None, "layer", "group"):
        assert len(result.weights) == len(model.weights)
    assert result.get_layer("block").trainable == block.trainable
    assert_saves(result, tmp_path)


SPLITS = {
    "scaled": dict(branches=[[2], ["avg_pool", 2]], filters=4, shortcut="identity"),
    "nested": dict(branches=[[2, [[(1, (1, 3))], [(1, (3, 1))]]], ["max_pool"]], strides=2),
    "two": dict(branches=[[[[1], [2]], [[2], [1]]]]),
    "one": dict(branches=[[3]], padding="valid", strides=2),
    "linear": dict(branches=[[2], [2]], shortcut="identity", residual_scale=-0.5),
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits_become_plain(name, tmp_path):
    options = {"residual_scale": 0.2, **SPLITS[name]}
    model = model_of(kr.InceptionBlock(**options, name="block"), shape=shape_of())
    assert_equal_weights(model, assert_plain(model, random_array(shape_of()), tmp_path))


def test_names_are_those_of_the_parts():
    block = kr.ResidualBlock(8, 2, shortcut="avg_pool", attention="squeeze_excite", name="block")
    shape = (None, 8, 8, 4)
    plain = kr.to_plain_keras(model_of(ConvUnit(4, 3, 2, name="stem"), block, shape=shape))
    assert {layer.name for layer in plain.layers[1:]} == {
        *("stem_pad", "stem", "stem_norm", "stem_act"),
        *("block_conv1_pad", "block_conv1", "block_conv1_norm", "block_conv1_act"),
        *("block_conv2", "block_conv2_norm"),
        *("block_attention_mean", "block_attention_reduce", "block_attention_reduce_act"),
        *("block_attention_expand", "block_attention_expand_act", "block_attention_gates"),
        *("block_attention_multiply", "block_add", "block_exit_act"),
        *("block_shortcut_pool1", "block_shortcut", "block_shortcut_norm"),
    }


def test_a_name_that_is_taken_is_told_apart():
    unit = layers.Conv2D(4, 1, name="block_conv1")
    model = model_of(unit, kr.ResidualBlock(4, name="block"), shape=shape_of())
    plain = assert_plain(model, random_array(shape_of()))
    assert plain.get_layer("block_conv1").kernel.shape == (1, 1, 4, 4)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("padding", ["symmetric", "same", "valid", "ceil"])
@pytest.mark.parametrize("rank", [1, 2])
def test_poolings_become_plain(kind, padding, rank):
    options = {"size": (1, 2, 3, 4), "strides": (1, 2, 3), "length": (7, 8), "is_open": (0, 1)}
    is_any = padding != "ceil"  # which would end with windows of nothing
    for case in covering(options, lambda case: is_any or case["size"] >= case["strides"]):
        size, strides, length, is_open = case.values()
        data_format = DATA_FORMATS[is_open]
        shape = shape_of(rank, 2, data_format, spatial=(length, 9))
        open_shape = shape_of(rank, 2, data_format, spatial=(None, None))
        pool = Pooling(kind, size, strides, padding=padding, data_format=data_format)
        model = model_of(pool, shape=open_shape if is_open else shape)
        is_even = size > 1 and (strides > 1 or size % 2 == 0)
        is_padded = is_even and (kind, padding) == ("avg", "same")
        if is_padded and is_open and keras.backend.backend() == "torch":
            with pytest.raises(ValueError, match="must have known sizes"):
                kr.to_plain_keras(model)
        else:
            assert_plain(model, random_array(shape) - 5)


@pytest.mark.parametrize("pad_value", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_padding_that_counts_becomes_plain(kind, pad_value):
    model = model_of(Pooling(kind, 3, 2, pad_value=pad_value), shape=shape_of())
    assert_plain(model, random_array(shape_of()) - 1)


@pytest.mark.parametrize("data_format", DATA_FORMATS)
@pytest.mark.parametrize("size", [1, 2, 3, (2, 3), 5])
def test_adaptive_poolings_become_plain(size, data_format, tmp_path):
    shape = shape_of(2, 3, data_format, spatial=(4, 6))
    model = model_of(AdaptiveAveragePooling(size, data_format=data_format), shape=shape)
    assert_plain(model, random_array(shape), tmp_path)


@pytest.mark.parametrize("width", [4, None])
def test_channels_first_with_a_bias_is_right_where_the_width_is_the_filters(width, tmp_path):
    unit = ConvUnit(4, 3, normalization=None, data_format="channels_first")
    model = model_of(unit, shape=(2, 3, 5, width))
    assert_equal_weights(model, assert_plain(model, random_array((2, 3, 5, 4)), tmp_path))


def shared_between_widths(*widths):
    unit = ConvUnit(4, 3, normalization=None, data_format="channels_first", name="unit")
    inputs = [keras.Input((3, 5, width)) for width in widths]
    return trained(keras.Model(inputs, [unit(x) for x in inputs]))


def test_channels_first_with_a_bias_is_not_shared_where_keras_would_be_right_once():
    model = shared_between_widths(5, 6)
    assert_plain(model, [random_array((2, 3, 5, width)) for width in (5, 6)])
    with pytest.raises(ValueError, match=r"`model` must not share.* Received: layer 'unit'"):
        kr.to_plain_keras(shared_between_widths(6, 4))


# What is kept of the layers.


@pytest.mark.parametrize("change", ["lora", "int8", "float8"])
def test_changed_sublayers_stay_as_they_are(change, tmp_path):
    block = kr.ResidualBlock(4, attention="squeeze_excite", name="b")
    model = model_of(block, shape=shape_of())
    if change == "lora":
        block.conv2.conv.enable_lora(2)
        for weight in block.conv2.conv.trainable_weights:
            weight.assign(0.1 * random_array(weight.shape))
    else:
        block.attention.reduce.quantize(change)
    plain = assert_plain(model, random_array(shape_of()), tmp_path)
    assert paths(plain.trainable_weights) == plain_paths(model.trainable_weights)
    policy = plain.get_layer("b_attention_reduce").dtype_policy.name
    assert policy == block.attention.reduce.dtype_policy.name


def test_objects_of_the_layers_are_kept():
    options = dict(
        kernel_initializer=kr.NumpyHeNormal(seed=3),
        kernel_regularizer=keras.regularizers.L1(0.1),
        kernel_constraint=keras.constraints.NonNeg(),
        bias_initializer="ones",
        use_bias=True,
        activity_regularizer=keras.regularizers.L2(0.2),
    )
    model = model_of(kr.ResidualBlock(4, name="b", **options), shape=shape_of())
    plain = plain_of(model)
    conv = plain.get_layer("b_conv1")
    assert conv.kernel_initializer.get_config() == keras.initializers.HeNormal(3).get_config()
    assert isinstance(conv.bias_initializer, keras.initializers.Ones)
    assert isinstance(conv.kernel_constraint, keras.constraints.NonNeg)
    assert plain.get_layer("b_output").activity_regularizer.l2 == pytest.approx(0.2)
    x = random_array(shape_of())
    for one in (model, plain):
        one(x)
    assert_close(sum(plain.losses), sum(model.losses), 1e-5)


def test_our_initializer_in_other_layers_becomes_keras_own(tmp_path):
    dense, lstm = (
        layer(3, kernel_initializer=kr.NumpyHeNormal()) for layer in (layers.Dense, layers.LSTM)
    )
    model = model_of(layers.Reshape((20, 4)), dense, lstm, shape=shape_of())
    assert_plain(model, random_array(shape_of()), tmp_path)


POLICY = "mixed_bfloat16"
POLICIES = keras.dtype_policies.DTypePolicyMap(
    default_policy="float32",
    policy_map={
        "block/conv1/conv": keras.DTypePolicy(POLICY),
        "block/conv2/norm": keras.DTypePolicy("bfloat16"),
    },
)
OWN_DTYPE = {"dtype": POLICY, "normalization": layers.BatchNormalization(dtype="float32")}
DTYPES = {
    "mixed": {"dtype": POLICY},
    "map": {"dtype": POLICIES},
    "template": OWN_DTYPE,
    "preactivation": {"preactivation": True, **OWN_DTYPE},
}


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes_are_kept(name, tmp_path):
    options = {"attention": "squeeze_excite", "fused": False, "shortcut": "identity"}
    block = kr.ResidualBlock(4, name="block", **options, **DTYPES[name])
    model = model_of(block, shape=shape_of())
    x = random_array(shape_of())
    plain = plain_of(model)
    assert plain.output.dtype == model.output.dtype
    for one in (plain, reloaded(plain, tmp_path)):
        assert_close(one(x), model(x), 1e-5)  # not compiled: a compiler may round less often
        for own, other in (
            (block.conv1.conv, "block_conv1"),
            (block.conv1.norm, "block_conv1_norm"),
            (block.attention.expand, "block_attention_expand"),
        ):
            layer = one.get_layer(other)
            assert layer.compute_dtype == own.compute_dtype
            assert layer.variable_dtype == own.variable_dtype


def test_a_map_of_dtype_policies_may_be_of_layers_without_a_path(tmp_path):
    pooling = layers.GlobalAveragePooling2D(dtype=POLICIES)
    model = model_of(kr.ResidualBlock(4, name="block", dtype=POLICIES), pooling, shape=shape_of())
    plain = plain_of(model)
    assert plain.output.dtype == model.output.dtype
    assert_close(reloaded(plain, tmp_path)(x := random_array(shape_of())), model(x), 1e-5)


# Training.


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("options", [{}, {"preactivation": True, "remat": True}], ids=str)
def test_a_step_of_training_is_the_same(kind, options):
    options = {"kernel_regularizer": "l2", "activity_regularizer": "l2", **options}
    block = make_block(kind, 8, 2, shortcut="projection", name="block", **options)
    model = trained(model_of(block, shape=shape_of()))
    plain = plain_of(model)
    x, y = random_array(shape_of()), random_array(model.compute_output_shape(shape_of()), 1)
    for one in (model, plain):
        one.compile(keras.optimizers.SGD(0.01), "mse")
        one.train_on_batch(x, y)
    assert_equal_weights(model, plain, 1e-5)
    assert any("moving" in weight.path for weight in plain.weights)


def test_stochastic_depth_drops_samples_as_often(tmp_path):
    model = model_of(kr.StochasticDepth(0.25, seed=1, name="drop"), shape=(2000, 2, 3))
    x = np.ones((2000, 2, 3), "float32")
    plain = assert_plain(model, x)
    for one in (plain, reloaded(plain, tmp_path)):
        outputs = to_numpy(one(x, training=True)).reshape(2000, 6)
        assert (outputs == outputs[:, :1]).all()
        assert np.unique(outputs) == pytest.approx([0, 1 / 0.75])
        assert outputs.mean() == pytest.approx(1, abs=0.05)
    assert plain.get_layer("drop").seed == 1


def test_a_layer_called_in_training_mode_stays_so():
    inputs = keras.Input(shape_of()[1:])
    model = trained(keras.Model(inputs, kr.ResidualBlock(4)(inputs, training=True)))
    assert_plain(model, random_array(shape_of()))


# Other models.


def block(filters=4, **options):
    return kr.ResidualBlock(filters, **options)


def inner_model(**options):
    inputs = keras.Input(shape_of()[1:])
    normalized = layers.BatchNormalization()(layers.Conv2D(4, 1)(inputs))
    return keras.Model(inputs, block(name="block")(normalized), **options)


def shared():
    inputs, layer, one = keras.Input(shape_of()[1:]), block(name="b"), layers.Conv2D(4, 1)
    return keras.Model(inputs, [layer(one(layer(inputs))), one(inputs)])


def nested():
    inputs, inner = keras.Input(shape_of()[1:]), inner_model(name="inner")
    outer = block(name="block")
    return keras.Model(inputs, {"a": outer(inner(inputs)), "b": inner(outer(inputs))})


def sequential():
    return keras.Sequential([keras.Input(shape_of()[1:]), block(), layers.Flatten()])


def several_inputs():
    inputs = {name: keras.Input(shape_of()[1:], name=name) for name in "ab"}
    return keras.Model(inputs, layers.Add()([block()(inputs["a"]), inputs["b"]]))


def time_distributed():
    inputs = keras.Input((3, *shape_of()[1:]))
    outputs = layers.TimeDistributed(block(), name="steps")(inputs)
    return keras.Model(inputs, layers.TimeDistributed(inner_model())(outputs))


def operations():
    inputs = keras.Input(shape_of()[1:])
    outputs = keras.ops.pad(inputs, [[0, 0], [1, 0], [0, 1], [0, 0]])
    return keras.Model(inputs, 2 * block()(Pooling("max", 3, 2)(outputs)) + 1)


def by_keyword():
    inputs = keras.Input(shape_of()[1:])
    return keras.Model(inputs, block()(inputs=inputs, training=False))


def nothing_of_ours():
    return keras.Sequential([keras.Input(shape_of()[1:]), layers.Conv2D(4, 3), layers.Flatten()])


MODELS = (
    *(shared, nested, sequential, several_inputs),
    *(time_distributed, operations, by_keyword, nothing_of_ours),
)


@pytest.mark.parametrize("make", MODELS)
def test_other_models_become_plain_and_fold(make, tmp_path):
    model = trained(make())
    assert_plain(model, inputs_of(model), tmp_path)
    result = assert_folds(model, inputs_of(model))
    keras.tree.assert_same_structure(result.output, functional(model).output)


def test_an_operation_gets_no_name_that_is_taken():
    model = operations()
    keras.utils.clear_session()  # names are counted from the beginning, as in another process
    assert_plain(model, random_array(shape_of()))


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Gain(layers.Layer):
    """A layer of a user."""

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), name="gain")

    def call(self, inputs):
        return inputs * self.gain


TEMPLATES = {
    "activation": Gain(),
    "attention": keras.Sequential([layers.Conv2D(4, 1), Gain()]),
    "shortcut": keras.Sequential([ConvUnit(4, 1), kr.SqueezeExcite(2)]),
    "normalization": layers.UnitNormalization(),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_layers_of_others_stay_in_their_places(name, tmp_path):
    model = model_of(kr.ResidualBlock(4, name="b", **{name: TEMPLATES[name]}), shape=shape_of())
    assert_plain(model, random_array(shape_of()), tmp_path)


@pytest.mark.parametrize("name", ["batch", "layer"])
def test_a_mask_is_heeded_as_before(name):
    inputs = keras.Input((6, 4))
    outputs = layers.Masking()(inputs)
    for shortcut in ("identity", "projection_always"):
        outputs = kr.ResidualBlock(4, shortcut=shortcut, normalization=name)(outputs)
    model = trained(keras.Model(inputs, layers.GlobalAveragePooling1D()(outputs)))
    x = random_array((2, 6, 4))
    x[0, 3:] = 0
    assert_plain(model, x)


def test_the_model_of_a_search_becomes_plain():
    model = from_pictures(network(shrunk("resnet18"), input_shape=(32, 32, 3), classes=3), "abc")
    x = np.random.default_rng(0).integers(0, 256, (2, 50, 43, 3)).astype("uint8")
    plain = assert_plain(model, x)
    assert_close(plain(x), plain(x, training=False))


# Errors.


class Squared(kr.ResidualBlock):
    """A block that computes something else."""

    def call(self, inputs, training=None):
        return keras.ops.square(super().call(inputs, training))


def test_a_layer_that_keras_cannot_express_is_named():
    for layer in (kr.training.RandomShift(name="it"), Squared(4, name="it")):
        name = type(layer).__name__
        with pytest.raises(ValueError, match=f"`model` must.*: layer 'it' of class {name}"):
            kr.to_plain_keras(model_of(layer, shape=shape_of()))
