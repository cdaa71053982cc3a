"""The shortcut policies, and a user's own."""

import json

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    assert_close,
    assert_reloads,
    built,
    make_block,
    model_of,
    random_array,
    registered_function,
    shape_of,
    side_by_side,
    to_numpy,
)
from keras import layers

import keras_resblocks as kr
from keras_resblocks import shortcuts
from keras_resblocks.layers import Pool

SHAPE = shape_of(2)
NAMES = ("identity", "zero_pad", "projection", "projection_always", "avg_pool")


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class PooledShortcut(shortcuts.Shortcut):
    """Made of steps."""

    def __init__(self, pool_size=2):
        self.pool_size = pool_size

    def steps(self, channels, filters, strides):
        return (Pool("max", self.pool_size, strides), self.convolution(filters))

    def get_config(self):
        return {"pool_size": self.pool_size}


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class DenseShortcut(shortcuts.Shortcut):
    """Made of Keras layers."""

    def steps(self, channels, filters, strides):
        return (layers.AveragePooling2D(strides, padding="same"), layers.Dense(filters))


class UnregisteredShortcut(DenseShortcut):
    pass


POLICIES = {
    **{name: name for name in NAMES},
    "none": None,
    "strict": shortcuts.IdentityShortcut(),
    "biased": shortcuts.ProjectionShortcut(use_bias=True, normalization=None),
    "channels": shortcuts.ProjectionShortcut("channels"),
    "other norm": shortcuts.ProjectionShortcut("always", normalization="group"),
    "templated norm": shortcuts.AvgPoolShortcut(
        use_bias=False, normalization=layers.BatchNormalization(momentum=0.5)
    ),
    "layer": layers.Conv2D(4, 1),
    "function": registered_function,
    "steps": PooledShortcut(3),
    "layers": DenseShortcut(),
}


@pytest.mark.parametrize("given", POLICIES)
def test_policy_round_trips(given):
    policy = shortcuts.get(POLICIES[given])
    config = json.loads(json.dumps(shortcuts.serialize(policy)))
    revived = shortcuts.get(config)
    assert revived == policy
    assert shortcuts.deserialize(config) == policy
    assert repr(revived) == repr(policy)
    assert hash(revived) == hash(policy)


def test_names_serialize_to_themselves_and_policies_are_equal_by_what_they_do():
    for name in (*NAMES, None):
        assert shortcuts.serialize(shortcuts.get(name)) == name
    assert shortcuts.serialize(shortcuts.ProjectionShortcut()) == "projection"
    assert shortcuts.get(None) is None
    assert shortcuts.ProjectionShortcut() == shortcuts.ProjectionShortcut()
    assert shortcuts.ProjectionShortcut("always") != shortcuts.ProjectionShortcut()
    assert shortcuts.IdentityShortcut() != shortcuts.ZeroPadShortcut()
    assert len({shortcuts.ZeroPadShortcut(), shortcuts.ZeroPadShortcut()}) == 1


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_with_the_policies_reload_and_give_equal_outputs(kind, tmp_path):
    blocks = [make_block(kind, shortcut=policy) for policy in POLICIES.values()]
    assert_reloads(side_by_side(blocks, SHAPE), random_array(SHAPE), tmp_path)


@pytest.mark.parametrize("given", ["steps", "layers", "zero_pad", "projection", "avg_pool"])
@pytest.mark.parametrize("preactivation", [False, True])
def test_policy_carries_the_input_past_a_zero_branch(given, preactivation):
    linear = {"activation": None, "normalization": None, "zero_init_residual": True}
    block = kr.ResidualBlock(6, 2, shortcut=POLICIES[given], preactivation=preactivation, **linear)
    block.build(SHAPE)
    x = expected = random_array(SHAPE)
    for layer in block.bypass.layers:
        expected = layer(expected)
    assert expected.shape == (2, 3, 2, 6)
    assert_close(block(x), expected)


def test_shortcut_of_steps_follows_the_options_of_the_block():
    block = built(kr.ResidualBlock(6, 2, shortcut=PooledShortcut(), kernel_regularizer="l2"), SHAPE)
    assert block.shortcut.conv.kernel_regularizer is not None
    assert isinstance(block.shortcut.norm, layers.BatchNormalization)
    assert block.shortcut_pool1.pool_size == 2


def test_one_policy_serves_many_blocks():
    policy = DenseShortcut()
    model = model_of(*(make_block("residual", shortcut=policy) for _ in range(3)), shape=SHAPE)
    assert len({id(weight) for weight in model.weights}) == len(model.weights)
    assert sum("shortcut/kernel" in weight.path for weight in model.weights) == 3


def test_unregistered_policy_works_in_the_process():
    block = built(kr.ResidualBlock(6, 2, shortcut=UnregisteredShortcut()), SHAPE)
    assert block(random_array(SHAPE)).shape == (2, 3, 2, 6)


@pytest.mark.parametrize(
    ("options", "use_bias", "norm"),
    [
        ({}, False, layers.BatchNormalization),
        ({"normalization": None}, True, type(None)),
        ({"use_bias": True}, True, layers.BatchNormalization),
        ({"use_bias": True, "normalization": None}, True, type(None)),
        ({"use_bias": False, "normalization": None}, False, type(None)),
        ({"normalization": "layer"}, False, layers.LayerNormalization),
        ({"normalization": "group"}, False, layers.GroupNormalization),
    ],
    ids=str,
)
@pytest.mark.parametrize("policy", [shortcuts.ProjectionShortcut, shortcuts.AvgPoolShortcut])
def test_projection_has_the_bias_and_normalization_it_is_told(policy, options, use_bias, norm):
    block = built(kr.ResidualBlock(6, 2, shortcut=policy(**options)), SHAPE)
    assert block.shortcut.conv.use_bias == use_bias
    assert isinstance(getattr(block.shortcut, "norm", None), norm)
    assert not hasattr(block.shortcut, "act")


@pytest.mark.parametrize(
    ("when", "filters", "strides", "has_weights"),
    [
        ("shape", 4, 1, False),
        ("shape", 6, 1, True),
        ("shape", 4, 2, True),
        ("channels", 4, 1, False),
        ("channels", 6, 1, True),
        ("channels", 4, 2, False),
        ("always", 4, 1, True),
    ],
)
def test_projection_is_there_when_it_should_be(when, filters, strides, has_weights):
    policy = shortcuts.ProjectionShortcut(when)
    block = built(kr.ResidualBlock(filters, strides, shortcut=policy), SHAPE)
    assert any("shortcut" in weight.path for weight in block.weights) == has_weights


def test_subsampled_shortcut_takes_every_other_position():
    policy = shortcuts.ProjectionShortcut("channels")
    block = kr.ResidualBlock(4, 2, shortcut=policy, zero_init_residual=True)
    block.build(SHAPE)
    x = random_array(SHAPE)
    assert_close(block(x), np.maximum(x[:, ::2, ::2], 0))


def test_preactivation_reads_the_activated_input_only_where_the_shortcut_has_weights():
    x = random_array(SHAPE)
    plain, projected = (kr.ResidualBlock(filters, preactivation=True) for filters in (4, 6))
    for block in (plain, projected):
        for weight in built(block, SHAPE).conv2.conv.weights:
            weight.assign(np.zeros(weight.shape))
    assert_close(plain(x), x)
    activated = projected.entry_act(projected.entry_norm(x))
    assert_close(projected(x), projected.shortcut(activated))
    assert not hasattr(projected.shortcut, "norm")


def test_no_shortcut_is_a_plain_network():
    x = random_array(SHAPE)
    block = built(kr.ResidualBlock(4, shortcut=None), SHAPE)
    assert_close(block(x), block.conv2(block.conv1(x)))
    assert to_numpy(block(x)).min() >= 0
