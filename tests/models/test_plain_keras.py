"""Blocks as Keras's own layers: equal outputs and training, in a file that needs nothing else."""

import dataclasses
import re

import keras
import numpy as np
import pytest
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
    snapshot,
    to_numpy,
)
from keras import layers
from trained import (
    DISTINCT,
    assert_equal_outputs,
    images,
    network,
    outputs_of,
    shrunk,
    trained,
)

import keras_resblocks as kr
from keras_resblocks.layers import AdaptiveAveragePooling, ConvUnit, Pooling
from keras_resblocks.models.graphs import functional
from keras_resblocks.models.published import get_spec
from keras_resblocks.training.pictures import from_pictures


def operations_of(layer):
    """The layer, and all layers and operations inside it."""
    yield layer
    inside = [layer.layer] if hasattr(layer, "layer") else getattr(layer, "operations", [])
    for operation in inside:
        yield from operations_of(operation)


def plain_of(model):
    """The plain form of a model, which is left as it is."""
    before = snapshot(model)
    plain = kr.to_plain_keras(model)
    for weight, value in zip(snapshot(model), before):
        np.testing.assert_array_equal(weight, value)
    modules = {type(operation).__module__.split(".")[0] for operation in operations_of(plain)}
    assert "keras_resblocks" not in modules
    assert not re.search(r"keras_resblocks[.>]", plain.to_json())
    return plain


def assert_plain(model, inputs, tolerance=1e-5):
    plain = plain_of(model)
    assert_equal_outputs(model, plain, inputs, tolerance)
    return plain


def reloaded(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def plain_path(path):
    """The path of a weight in the plain model, from the one in the model."""
    *names, weight = re.sub("(?<!attention)/conv/", "/", path).split("/")
    return "_".join(names) + "/" + weight


def plain_paths(weights):
    return sorted(plain_path(weight.path) for weight in weights)


def paths(weights):
    return sorted(weight.path for weight in weights)


def assert_equal_weights(model, plain, tolerance=0):
    expected = {plain_path(weight.path): weight for weight in model.weights}
    assert paths(plain.weights) == sorted(expected)
    for weight in plain.weights:
        assert_close(weight, expected[weight.path], tolerance)


# Published networks.


def small(name):
    return (75, 80, 3) if name.startswith(("inception", "googlenet")) else (32, 36, 3)


def narrow(name):
    """The spec of a published network of all its depth."""
    spec = get_spec(name)
    is_residual = isinstance(spec, kr.ResNetSpec)
    return dataclasses.replace(spec, width=shrunk(name).width) if is_residual else spec


def assert_network_is_plain(name, spec):
    model = network(spec, input_shape=small(name), classes=4)
    plain = plain_of(model)
    inputs = images(model)
    expected = to_numpy(model(inputs, training=False))
    difference = np.abs(to_numpy(plain(inputs, training=False)) - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max() < np.inf
    assert plain.count_params() == model.count_params()
    assert_equal_weights(model, plain)
    keras.Model(plain.input, [layer.output for layer in plain.layers])


@pytest.mark.parametrize("name", DISTINCT)
def test_each_distinct_block_of_the_published_networks_becomes_plain(name):
    assert_network_is_plain(name, shrunk(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", kr.list_models())
def test_every_published_network_becomes_plain(name):
    assert_network_is_plain(name, narrow(name))


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
    models = [network(shrunk(name), input_shape=small(name), name=name) for name in TO_LOAD]
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

OPTIONS = {
    "kind": BLOCKS,
    "rank": (1, 2, 3),
    "data_format": DATA_FORMATS,
    "preactivation": (False, True),
    "shortcut": (None, "zero_pad", "projection", "projection_always", "avg_pool"),
    "strides": (1, 2),
    "activation": (None, "elu", "prelu", "registered"),
    "normalization": (None, "batch", "layer", "group"),
    "attention": (None, "squeeze_excite", "efficient_channel"),
    "other": ("none", "same", "atrous", "biased", "folded", "remat", "unfused", "drop_path"),
}
LAYERS = {
    "prelu": lambda: layers.PReLU(shared_axes=[1]),
    "registered": lambda: registered_function,
}
OTHERS = {
    "none": {},
    "same": {"padding": "same"},
    "atrous": {"dilation_rate": 2, "atrous": True},
    "biased": {"use_bias": True},
    "folded": {"folded": True},
    "remat": {"remat": True},
    "unfused": {"fused": False},
    "drop_path": {"drop_path_rate": 0.5},
}


def is_valid(case):
    return case["shortcut"] is not None or case["other"] != "drop_path"


def options_of(case):
    options = {key: LAYERS.get(value, lambda v=value: v)() for key, value in case.items()}
    for key in ("kind", "rank", "strides", "other"):
        del options[key]
    return {**options, **OTHERS[case["other"]]}


@pytest.mark.parametrize("case", covering(OPTIONS, is_valid), ids=label)
def test_blocks_become_plain(case):
    shape = shape_of(case["rank"], 4, case["data_format"])
    options = {"kernel_regularizer": "l2", "kernel_constraint": "max_norm", **options_of(case)}
    block = make_block(case["kind"], 4 * case["strides"], case["strides"], name="block", **options)
    model = model_of(block, shape=shape)
    plain = assert_plain(model, random_array(shape))
    assert_equal_weights(model, plain)
    assert_close(sum(plain.losses), sum(model.losses), 1e-6)


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
    plain = assert_plain(model, random_array(shape_of()))
    assert_equal_weights(model, plain)
    assert_equal_outputs(model, reloaded(plain, tmp_path), random_array(shape_of()), 1e-5)


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
    for case in covering(
        options, lambda case: padding != "ceil" or case["size"] >= case["strides"]
    ):
        shape = shape_of(rank, 2, DATA_FORMATS[case["is_open"]], spatial=(case["length"], 9))
        data_format = DATA_FORMATS[case["is_open"]]
        open_shape = shape_of(rank, 2, data_format, spatial=(None, None))
        pool = Pooling(
            kind, case["size"], case["strides"], padding=padding, data_format=data_format
        )
        model = model_of(pool, shape=open_shape if case["is_open"] else shape)
        is_even = case["size"] > 1 and (case["strides"] > 1 or case["size"] % 2 == 0)
        is_padded = is_even and (kind, padding) == ("avg", "same")
        if is_padded and case["is_open"] and keras.backend.backend() == "torch":
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
    plain = assert_plain(model, random_array(shape))
    assert_equal_outputs(model, reloaded(plain, tmp_path), random_array(shape), 1e-5)


@pytest.mark.parametrize("width", [4, None])
def test_channels_first_with_a_bias_is_right_where_the_width_is_the_filters(width, tmp_path):
    unit = ConvUnit(4, 3, normalization=None, data_format="channels_first")
    model = model_of(unit, shape=(2, 3, 5, width))
    inputs = random_array((2, 3, 5, 4))
    plain = assert_plain(model, inputs)
    assert_equal_weights(model, plain)
    assert_equal_outputs(model, reloaded(plain, tmp_path), inputs, 1e-5)


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


def freeze_conv(block):
    block.conv1.conv.trainable = False


def freeze_unit(block):
    block.conv2.trainable = False


def freeze_block(block):
    block.trainable = False


def freeze_around(block):
    block.trainable = False
    block.conv1.trainable = True


@pytest.mark.parametrize("freeze", [freeze_conv, freeze_unit, freeze_block, freeze_around])
def test_what_is_frozen_stays_frozen(freeze, tmp_path):
    block = kr.ResidualBlock(8, 2, name="block")
    model = model_of(block, shape=shape_of())
    freeze(block)
    plain = plain_of(model)
    for one in (plain, reloaded(plain, tmp_path)):
        assert paths(one.trainable_weights) == plain_paths(model.trainable_weights)


def test_a_frozen_model_stays_frozen():
    model = model_of(kr.ResidualBlock(8, 2, name="block"), layers.Conv2D(2, 1), shape=shape_of())
    model.trainable = False
    model.get_layer("block").conv1.trainable = True
    plain = plain_of(model)
    assert not plain.trainable_weights
    assert plain.get_layer("block_conv1").trainable
    assert not plain.get_layer("block_conv2").trainable


def adapt(block):
    block.conv2.conv.enable_lora(2)
    for weight in block.conv2.conv.trainable_weights:
        weight.assign(0.1 * np.random.default_rng(0).normal(size=weight.shape))


def quantize(block):
    block.attention.reduce.quantize("int8")


def quantize_to_float8(block):
    block.attention.reduce.quantize("float8")


@pytest.mark.parametrize("change", [adapt, quantize, quantize_to_float8])
def test_changed_sublayers_stay_as_they_are(change, tmp_path):
    model = model_of(kr.ResidualBlock(4, attention="squeeze_excite", name="b"), shape=shape_of())
    change(model.get_layer("b"))
    x = random_array(shape_of())
    plain = assert_plain(model, x)
    assert_equal_outputs(model, reloaded(plain, tmp_path), x, 1e-5)
    assert paths(plain.trainable_weights) == plain_paths(model.trainable_weights)
    policy = plain.get_layer("b_attention_reduce").dtype_policy.name
    assert policy == model.get_layer("b").attention.reduce.dtype_policy.name


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
    x = random_array(shape_of())
    assert_equal_outputs(model, reloaded(assert_plain(model, x), tmp_path), x, 1e-5)


POLICY = "mixed_bfloat16"


def policy_map():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies["block/conv1/conv"] = POLICY
    policies["block/conv2/norm"] = "bfloat16"
    return policies


def normalization_of_its_own_dtype():
    return layers.BatchNormalization(dtype="float32")


DTYPES = {
    "mixed": lambda: {"dtype": POLICY},
    "map": lambda: {"dtype": policy_map()},
    "template": lambda: {"dtype": POLICY, "normalization": normalization_of_its_own_dtype()},
    "preactivation": lambda: {
        "dtype": POLICY,
        "normalization": normalization_of_its_own_dtype(),
        "preactivation": True,
    },
}


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes_are_kept(name, tmp_path):
    options = {"attention": "squeeze_excite", "fused": False, "shortcut": "identity"}
    block = kr.ResidualBlock(4, name="block", **options, **DTYPES[name]())
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
    return keras.Model(inputs, block(name="block")(inputs), **options)


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
    shared,
    nested,
    sequential,
    several_inputs,
    time_distributed,
    operations,
    by_keyword,
    nothing_of_ours,
)


@pytest.mark.parametrize("make", MODELS)
def test_other_models_become_plain(make, tmp_path):
    model = trained(make())
    plain = plain_of(model)
    assert len(plain.weights) == len(model.weights)
    inputs = keras.tree.map_structure(
        lambda x: random_array((2, *x.shape[1:])), functional(model).input
    )
    for one in (plain, reloaded(plain, tmp_path)):
        assert_equal_outputs(model, one, inputs, 1e-5)


def test_an_operation_gets_no_name_that_is_taken():
    model = operations()
    keras.utils.clear_session()  # names are counted from the beginning, as in another process
    assert_plain(model, random_array(shape_of()))


def test_an_adapted_normalization_stays_adapted():
    normalization = layers.Normalization()
    normalization.adapt(3 * random_array(shape_of()) + 1)
    inputs = keras.Input(shape_of()[1:])
    model = keras.Model(inputs, block()(normalization(inputs)))
    assert_plain(model, random_array(shape_of()))


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Gain(layers.Layer):
    """A layer of a user."""

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), name="gain")

    def call(self, inputs):
        return inputs * self.gain


TEMPLATES = {
    "activation": lambda: Gain(),
    "attention": lambda: keras.Sequential([layers.Conv2D(4, 1), Gain()]),
    "shortcut": lambda: keras.Sequential([ConvUnit(4, 1), kr.SqueezeExcite(2)]),
    "normalization": lambda: layers.UnitNormalization(),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_layers_of_others_stay_in_their_places(name, tmp_path):
    model = model_of(kr.ResidualBlock(4, name="b", **{name: TEMPLATES[name]()}), shape=shape_of())
    x = random_array(shape_of())
    assert_equal_outputs(model, reloaded(assert_plain(model, x), tmp_path), x, 1e-5)


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
    assert_plain(model, x)


# Errors.


class Squared(kr.ResidualBlock):
    """A block that computes something else."""

    def call(self, inputs, training=None):
        return keras.ops.square(super().call(inputs, training))


INEXPRESSIBLE = {
    "RandomShift": lambda: kr.training.RandomShift(name="it"),
    "Squared": lambda: Squared(4, name="it"),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_a_layer_that_keras_cannot_express_is_named(name):
    model = model_of(INEXPRESSIBLE[name](), shape=shape_of())
    with pytest.raises(ValueError, match=f"`model` must.* Received: layer 'it' of class {name}"):
        kr.to_plain_keras(model)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize("make", [Subclassed, keras.Sequential, lambda: "resnet50"])
def test_what_is_no_graph_is_refused(make):
    with pytest.raises(ValueError, match=r"`model` must be a functional model.* Received: model="):
        kr.to_plain_keras(make())
