"""What the options of the blocks do, wherever they have to reach."""

import itertools
import math

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    DATA_FORMATS,
    assert_close,
    assert_reloads,
    built,
    covering,
    label,
    make_block,
    model_of,
    random_array,
    registered_function,
    revived,
    shape_of,
    snapshot,
    to_numpy,
    twin_of,
)
from keras import layers

import keras_resblocks as kr

SHAPE = shape_of(2)
LAYOUT = {"residual": 3, "bottleneck": 4, "inception": 5}  # convolutions, the shortcut's included


def convolutions(block):
    units = {weight.path.rsplit("/", 2)[0] for weight in block.weights if "/conv/" in weight.path}
    return [getattr(block, path.split("/", 1)[1]).conv for path in sorted(units)]


# Access by name.


def test_paths_inside_branches_are_distinct():
    branches = [[2], [[[1], [2]], [[1], [(1, 3), 2]]], ["max_pool", "avg_pool", 1]]
    block = kr.InceptionBlock(branches, shortcut="projection_always", name="block")
    model_of(block, shape=SHAPE)
    paths = [weight.path for weight in block.weights]
    assert len(set(paths)) == len(paths)
    assert "block/branch1_conv1/conv/kernel" in paths
    assert "block/shortcut/conv/kernel" in paths
    assert block.compute_output_shape(SHAPE) == (2, 5, 4, 2 + 1 + 2 + 1)


@pytest.mark.parametrize("kind", ["residual", "bottleneck"])
def test_lora_on_a_convolution_of_a_block(kind):
    model = model_of(make_block(kind, name="block"), shape=SHAPE)
    block, inputs = model.get_layer("block"), random_array(SHAPE)
    before = to_numpy(model(inputs))
    block.conv2.conv.enable_lora(2)
    assert_close(model(inputs), before)
    paths = {weight.path for weight in block.trainable_weights}
    assert "block/conv2/conv/lora_kernel_a" in paths
    assert "block/conv2/conv/kernel" not in paths

    kernel = to_numpy(block.conv2.conv.variables[0]).copy()
    model.compile("adam", "mse")
    model.fit(inputs, random_array(SHAPE, seed=1), epochs=2, verbose=0)
    assert_close(block.conv2.conv.variables[0], kernel, 0)
    assert not np.allclose(to_numpy(model(inputs)), before)


# Regularizers, constraints, initializers.


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("shortcut", ["projection_always", "avg_pool"])
@pytest.mark.parametrize("preactivation", [False, True])
def test_options_of_kernels_and_biases_reach_every_convolution(kind, shortcut, preactivation):
    options = {
        "kernel_initializer": keras.initializers.Constant(0.25),
        "kernel_regularizer": keras.regularizers.L2(0.01),
        "kernel_constraint": keras.constraints.MaxNorm(2.0),
        "bias_initializer": keras.initializers.Constant(3.0),
        "bias_regularizer": keras.regularizers.L1(0.1),
        "bias_constraint": "non_neg",
    }
    block = make_block(
        kind, 6, 2, shortcut=shortcut, preactivation=preactivation, use_bias=True, **options
    )
    block.build(SHAPE)
    found = convolutions(block)
    assert len(found) == LAYOUT[kind]
    for conv in found:
        assert_close(conv.kernel, np.full(conv.kernel.shape, 0.25))
        assert_close(conv.bias, np.full(conv.bias.shape, 3.0))
        assert conv.kernel_constraint.max_value == 2.0
        assert isinstance(conv.bias_constraint, keras.constraints.NonNeg)
    kernels = sum(0.25**2 * math.prod(conv.kernel.shape) for conv in found)
    biases = sum(3.0 * conv.filters for conv in found)
    assert_close(sum(block.losses), 0.01 * kernels + 0.1 * biases, 1e-4)


@pytest.mark.parametrize("attention", ["squeeze_excite", "efficient_channel"])
def test_kernel_options_reach_a_named_attention(attention):
    options = {"kernel_regularizer": "l2", "kernel_constraint": "non_neg"}
    block = built(kr.ResidualBlock(4, attention=attention, **options), SHAPE)
    kernels = [weight for weight in block.weights if weight.name == "kernel"]
    gates = [weight for weight in kernels if "attention" in weight.path]
    assert len(gates) == (2 if attention == "squeeze_excite" else 1)
    assert len(block.losses) == len(kernels)
    assert all(isinstance(gate.constraint, keras.constraints.NonNeg) for gate in gates)


def test_attention_template_keeps_its_own_kernel_options():
    block = kr.ResidualBlock(4, attention=kr.SqueezeExcite(2), kernel_regularizer="l2")
    block.build(SHAPE)
    assert block.attention.reduce.kernel_regularizer is None


@pytest.mark.parametrize(
    "given", ["he_normal", keras.initializers.HeNormal()], ids=["name", "object"]
)
@pytest.mark.parametrize("kind", BLOCKS)
def test_equal_shaped_kernels_start_different_also_in_a_model_made_from_json(kind, given):
    options = {"kernel_initializer": given, "bias_initializer": "random_normal", "use_bias": True}
    blocks = [make_block(kind, **options) for _ in range(2)]
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, [block(inputs) for block in blocks])
    for one in (model, keras.models.model_from_json(model.to_json())):
        values = [to_numpy(w) for w in one.weights if w.name in ("kernel", "bias")]
        for this, that in itertools.combinations(values, 2):
            assert this.shape != that.shape or not np.allclose(this, that)


@pytest.mark.parametrize(
    ("use_bias", "normalization", "biased"),
    [
        (None, "batch", (False, False)),
        (None, None, (True, True)),
        (True, "batch", (True, True)),
        (False, None, (False, False)),
    ],
)
def test_bias_is_where_no_normalization_follows_unless_told(use_bias, normalization, biased):
    block = built(kr.ResidualBlock(4, use_bias=use_bias, normalization=normalization), SHAPE)
    assert (block.conv1.conv.use_bias, block.conv2.conv.use_bias) == biased


def test_last_convolution_of_a_preactivation_block_is_biased():
    block = built(kr.ResidualBlock(6, preactivation=True), SHAPE)
    biased = [unit.conv.use_bias for unit in (block.conv1, block.conv2, block.shortcut)]
    assert biased == [False, True, True]


# Initialisation as the identity.

ACTIVATIONS = {
    "relu": "relu",
    "elu": "elu",
    "layer": layers.PReLU(),
    "function": registered_function,
    "none": None,
}
IDENTITIES = {
    "kind": BLOCKS,
    "normalization": (None, "batch", "layer", "group"),
    "attention": (None, "squeeze_excite"),
    "preactivation": (False, True),
    "activation": tuple(ACTIVATIONS),
}


def is_known(case):
    return case["preactivation"] or case["activation"] == "relu"


@pytest.mark.parametrize("case", covering(IDENTITIES, is_known), ids=label)
def test_zero_initialised_block_starts_as_the_identity_and_what_follows_the_sum(case):
    options = {**case, "activation": ACTIVATIONS[case["activation"]]}
    block = make_block(shortcut="identity", zero_init_residual=True, **options)
    x = random_array(SHAPE)
    block.build(SHAPE)
    for training in (False, True):
        expected = x if case["preactivation"] else np.maximum(x, 0)
        assert_close(block(x, training=training), expected, 1e-6)


@pytest.mark.parametrize(
    "normalization", [layers.BatchNormalization(scale=False), layers.UnitNormalization(), "batch"]
)
@pytest.mark.parametrize("filters", [4, 6])
def test_zero_initialised_block_starts_as_its_shortcut_without_a_gain_too(normalization, filters):
    block = kr.ResidualBlock(filters, normalization=normalization, zero_init_residual=True)
    x = random_array(SHAPE)
    block.build(SHAPE)
    shortcut = block.shortcut(x) if filters == 6 else x
    assert_close(block(x), keras.ops.relu(shortcut), 1e-6)


def test_zero_initialised_block_learns():
    model = keras.Sequential([keras.Input(SHAPE[1:]), kr.ResidualBlock(4, zero_init_residual=True)])
    before = snapshot(model)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(random_array(SHAPE), random_array(SHAPE, 1), epochs=3, verbose=0)
    assert not any(np.array_equal(b, a) for b, a in zip(before, snapshot(model)))


def test_blocks_do_not_start_at_zero_unless_told():
    block, x = kr.ResidualBlock(4), random_array(SHAPE)
    assert not np.allclose(to_numpy(block(x)), np.maximum(x, 0), atol=1e-2)


# Precision.

TEMPLATES = {
    "activation": ("relu", layers.ELU(alpha=0.3), layers.PReLU(), registered_function, None),
    "normalization": (
        "batch",
        "layer",
        "group",
        "instance",
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        keras.Sequential([layers.LayerNormalization(), layers.ELU(alpha=0.3)]),
        None,
    ),
    "attention": ("squeeze_excite", "efficient_channel", kr.SqueezeExcite(2), None),
    "shortcut": ("projection_always", "avg_pool", "zero_pad", layers.Conv2D(4, 1), None),
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_mixed_precision_reaches_every_part(name, preactivation, policy):
    for value in TEMPLATES[name]:
        options = {name: value, "preactivation": preactivation}
        block = kr.ResidualBlock(4, dtype=policy, **options)
        block.build(SHAPE)
        outputs = block(random_array(SHAPE))
        assert keras.backend.standardize_dtype(outputs.dtype) == policy.removeprefix("mixed_")
        assert {weight.dtype for weight in block.weights} == {"float32"}
        assert np.isfinite(to_numpy(outputs)).all()


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_global_policy_is_followed(kind, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    block = make_block(
        kind, strides=2, activation=layers.PReLU(), attention="squeeze_excite", shortcut="avg_pool"
    )
    keras.config.set_dtype_policy("float32")
    model = model_of(block, shape=SHAPE)
    outputs = model(random_array(SHAPE))
    compute = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(outputs.dtype) == compute
    loaded = assert_reloads(model, random_array(SHAPE), tmp_path)
    assert loaded.layers[-1].dtype_policy.name == policy


@pytest.mark.parametrize("kind", BLOCKS)
def test_policy_of_the_layer_wins_over_the_global_one(kind):
    keras.config.set_dtype_policy("mixed_bfloat16")
    for dtype in ("float32", keras.DTypePolicy("float32")):
        block = make_block(kind, dtype=dtype, activation=layers.PReLU(), attention="squeeze_excite")
        block.build(SHAPE)
        assert keras.backend.standardize_dtype(block(random_array(SHAPE)).dtype) == "float32"


def test_mixed_precision_is_close_to_full_precision():
    full = built(make_block("bottleneck", 4, 2), SHAPE)
    mixed = built(make_block("bottleneck", 4, 2, dtype="mixed_bfloat16"), SHAPE)
    x = random_array(SHAPE)
    np.testing.assert_allclose(to_numpy(mixed(x)), to_numpy(full(x)), rtol=0.1, atol=0.1)


# Shapes.


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("strides", [1, 2])
def test_open_spatial_sizes_take_any_input(kind, rank, strides):
    open_shape = shape_of(rank, spatial=(None,) * 3)
    options = {"attention": "squeeze_excite", "shortcut": "avg_pool"}
    block = make_block(kind, 6, strides, **options)
    model = model_of(block, shape=open_shape)
    assert model.output_shape == (None, *(None,) * rank, 6)
    for spatial in ((6, 4, 2), (4, 6, 4)):
        shape = shape_of(rank, spatial=spatial)
        fixed = twin_of(block, make_block(kind, 6, strides, **options), shape)
        assert_close(model(random_array(shape)), fixed(random_array(shape)))


BOTH_FORMATS = {
    "kind": BLOCKS,
    "rank": (1, 2, 3),
    "normalization": ("batch", "layer", "group", None),
    "shortcut": ("projection", "zero_pad", "avg_pool"),
    "attention": (None, "squeeze_excite", "efficient_channel"),
    "preactivation": (False, True),
    "padding": ("symmetric", "same"),
}


@pytest.mark.parametrize("case", covering(BOTH_FORMATS), ids=label)
def test_channels_first_is_channels_last_transposed(case):
    options = dict(case)
    rank = options.pop("rank")
    # No last axis is as long as any convolution has filters: there Keras 3.15's `ops.add` takes
    # the bias of a stock channels-first convolution for a channels-last one, on TensorFlow.
    spatial = (9, 13, 15)
    last, first = (
        built(
            make_block(filters=6, strides=2, data_format=form, **options),
            shape_of(rank, data_format=form, spatial=spatial),
        )
        for form in DATA_FORMATS
    )
    x = random_array(shape_of(rank, spatial=spatial))
    y = to_numpy(first(np.moveaxis(x, -1, 1)))
    # Of few channels that are nearly equal, a variance near zero magnifies rounding; without
    # a normalization values of ten are added up to small ones.
    tolerance = 1e-5 if case["normalization"] in ("batch", "group") else 1e-4
    assert_close(np.moveaxis(y, 1, -1), last(x), tolerance)


def test_data_format_follows_the_setting_at_construction():
    keras.config.set_image_data_format("channels_first")
    block = kr.ResidualBlock(6)
    keras.config.set_image_data_format("channels_last")
    assert block.data_format == "channels_first"
    assert block.compute_output_shape((2, 3, 4, 5)) == (2, 6, 4, 5)
    assert kr.ResidualBlock.from_config(block.get_config()).data_format == "channels_first"


@pytest.mark.parametrize("kind", BLOCKS)
def test_one_pixel_is_enough(kind):
    shape = (2, 1, 1, 4)
    block = built(make_block(kind, 6, 2), shape)
    assert block(random_array(shape)).shape == (2, 1, 1, 6)


# Drop path.


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_dropped_samples_are_zero_and_the_others_scaled(rate):
    inputs = np.ones((2000, 2, 3, 1), "float32")
    outputs = to_numpy(kr.StochasticDepth(rate, seed=3)(inputs, training=True))
    per_sample = outputs.reshape(2000, -1)
    assert (per_sample == per_sample[:, :1]).all()
    dropped = per_sample[:, 0] == 0
    np.testing.assert_allclose(per_sample[~dropped], 1 / (1 - rate), rtol=1e-6)
    assert abs(dropped.mean() - rate) < 0.05  # about four standard deviations
    assert abs(per_sample.mean() - 1) < 0.1


def test_stochastic_depth_is_the_identity_at_inference_and_at_rate_zero():
    x = random_array(SHAPE)
    assert_close(kr.StochasticDepth(0.9)(x), x, 0)
    assert_close(kr.StochasticDepth(0.9)(x, training=False), x, 0)
    assert_close(kr.StochasticDepth(0.0)(x, training=True), x, 0)


def test_seed_gives_a_reproducible_sequence_of_different_masks():
    x = np.ones((64, 2), "float32")
    sequences = []
    for _ in range(2):
        layer = kr.StochasticDepth(0.5, seed=11)
        sequences.append([to_numpy(layer(x, training=True)) for _ in range(3)])
    np.testing.assert_array_equal(*sequences)
    assert not np.array_equal(sequences[0][0], sequences[0][1])


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_drops_its_branch_and_keeps_its_shortcut(kind):
    shape = (64, 4, 4, 4)
    linear = {"shortcut": "identity", "normalization": None, "activation": None}
    block = built(make_block(kind, drop_path_rate=0.5, **linear), shape)
    x = random_array(shape)
    branch = to_numpy(block(x)) - x
    residual = to_numpy(block(x, training=True)) - x
    dropped = np.abs(residual).reshape(64, -1).max(axis=1) < 1e-6
    assert 16 < dropped.sum() < 48
    assert_close(residual[~dropped], 2 * branch[~dropped], 1e-4)


def test_fused_or_not_reaches_what_a_block_is_made_of():
    for fused in (True, False):
        block = built(kr.InceptionBlock([[2], ["max_pool", 2]], fused=fused), SHAPE)
        for part in (block, block.branch1_conv1, block.branch2_pool1, revived(block)):
            assert part.fused is fused
