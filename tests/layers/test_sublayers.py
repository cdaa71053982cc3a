"""What was done to a sublayer, and dtypes that one was given, survive saving."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    assert_reloads,
    covering,
    label,
    make_block,
    random_array,
    reloaded,
    to_numpy,
)

import keras_resblocks as kr

IMAGE = (8, 8, 4)


def model_of(layer):
    inputs = keras.Input(IMAGE)
    return keras.Model(inputs, layer(inputs))


def adapt(block):
    block.conv2.conv.enable_lora(2, lora_alpha=3)
    for weight in block.conv2.conv.trainable_weights:
        weight.assign(0.1 * np.random.default_rng(0).normal(size=weight.shape))


def quantize(block):
    for layer in (block.attention.reduce, block.attention.expand):
        layer.quantize("int8")


def quantize_to_float8(block):
    block.attention.reduce.quantize("float8")


def freeze(block):
    block.conv1.conv.trainable = False
    block.conv2.trainable = False


def trained(block):
    return sorted(weight.path for weight in block.trainable_weights)


CHANGES = {
    "adapted": (adapt, lambda block: (block.conv2.conv.lora_rank, block.conv2.conv.lora_alpha)),
    "quantized": (quantize, lambda block: block.attention.expand.dtype_policy.name),
    "float8": (quantize_to_float8, lambda block: block.attention.reduce.dtype_policy.name),
    "frozen": (freeze, trained),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_sublayer_is_saved_as_it_is(name, tmp_path):
    change, what = CHANGES[name]
    model = model_of(make_block("residual", 4, attention="squeeze_excite", name="block"))
    unchanged = what(model.get_layer("block")) if name == "frozen" else None
    change(model.get_layer("block"))
    x = random_array((2, *IMAGE))
    expected = to_numpy(model(x))
    for _ in range(2):  # what was loaded can be saved as well
        loaded = reloaded(model, tmp_path)
        assert_close(loaded(x), expected)
        block = loaded.get_layer("block")
        assert what(block) == what(model.get_layer("block")) != unchanged
        assert trained(block) == trained(model.get_layer("block"))
        model = loaded


def test_an_unchanged_block_says_nothing_of_its_sublayers():
    block = make_block("residual", 4)
    model_of(block)
    assert "sublayers" not in block.get_config()


# Dtypes.

POLICY = "mixed_bfloat16"
TEMPLATES = {
    "layer": keras.layers.BatchNormalization(dtype="float32"),
    "config": {
        "module": "keras.layers",
        "class_name": "BatchNormalization",
        "config": {"dtype": "float32"},
        "registered_name": None,
    },
}


CASES = {
    "kind": ("residual", "bottleneck"),
    "activation": ("relu", None),
    "preactivation": (False, True),
    "normalization": tuple(TEMPLATES),
}


@pytest.mark.parametrize("case", covering(CASES), ids=label)
def test_a_template_keeps_the_dtype_that_it_was_given(case):
    block = make_block(**{**case, "normalization": TEMPLATES[case["normalization"]]}, dtype=POLICY)
    for layer in (block, type(block).from_config(block.get_config())):
        outputs = model_of(layer)(random_array((2, *IMAGE)))
        assert layer.conv1.norm.dtype_policy.name == "float32"
        assert layer.conv1.conv.dtype_policy.name == POLICY
        assert "bfloat16" in str(outputs.dtype)


def test_a_template_without_a_dtype_follows_the_block():
    saved = keras.saving.serialize_keras_object(keras.layers.BatchNormalization())
    assert saved["config"]["dtype"]["config"] == {"name": "float32"}  # which nobody asked for
    for normalization in ("batch", keras.layers.BatchNormalization(), saved):
        block = kr.ResidualBlock(4, normalization=normalization, dtype=POLICY)
        model_of(block)
        assert block.conv1.norm.dtype_policy.name == POLICY


@pytest.mark.parametrize("is_global", [True, False])
def test_a_map_of_dtypes_reaches_sublayers_by_their_paths(is_global, tmp_path):
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies["block/conv1/conv"] = POLICY
    policies["block/conv2/norm"] = "bfloat16"
    if is_global:
        keras.config.set_dtype_policy(policies)
    options = {} if is_global else {"dtype": policies}
    model = model_of(kr.ResidualBlock(4, 2, name="block", attention="squeeze_excite", **options))
    keras.config.set_dtype_policy("float32")
    loaded = assert_reloads(model, random_array((2, *IMAGE)), tmp_path, 1e-5)
    for one in (model, loaded):
        block = one.get_layer("block")
        dtypes = [block.conv1.conv.compute_dtype, block.conv1.norm.compute_dtype]
        assert dtypes == ["bfloat16", "float32"]
        assert block.conv2.norm.variable_dtype == "bfloat16"
        assert one.output.dtype == "float32"
