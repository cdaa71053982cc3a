"""The shortcut policies, and a user's own."""

import json

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    assert_close,
    built,
    make_block,
    model_of,
    random_array,
    registered_function,
    shape_of,
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


def test_names_serialize_to_themselves():
    for name in NAMES:
        assert shortcuts.serialize(shortcuts.get(name)) == name
    assert shortcuts.serialize(shortcuts.ProjectionShortcut()) == "projection"
    assert shortcuts.serialize(None) is None
    assert shortcuts.get(None) is None


def test_policies_are_equal_by_what_they_do():
    assert shortcuts.ProjectionShortcut() == shortcuts.ProjectionShortcut()
    assert shortcuts.ProjectionShortcut("always") != shortcuts.ProjectionShortcut()
    assert shortcuts.IdentityShortcut() != shortcuts.ZeroPadShortcut()
    assert len({shortcuts.ZeroPadShortcut(), shortcuts.ZeroPadShortcut()}) == 1


@pytest.mark.parametrize("given", POLICIES)
@pytest.mark.parametrize("kind", BLOCKS)
def test_model_with_the_policy_reloads_and_gives_equal_outputs(given, kind, tmp_path):
    model = model_of(make_block(kind, shortcut=POLICIES[given]), shape=SHAPE)
    inputs = random_array(SHAPE)
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs), 1e-6)


@pytest.mark.parametrize("given", ["steps", "layers", "zero_pad", "projection", "avg_pool"])
@pytest.mark.parametrize("preactivation", [False, True])
def test_policy_carries_the_input_past_a_zero_branch(given, preactivation):
    block = kr.ResidualBlock(
        6,
        2,
        shortcut=POLICIES[given],
        preactivation=preactivation,
        activation=None,
        normalization=None,
        zero_init_residual=True,
    )
    block.build(SHAPE)
    x = random_array(SHAPE)
    expected = x
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
    ("policy", "use_bias", "norm"),
    [
        (shortcuts.ProjectionShortcut(), False, layers.BatchNormalization),
        (shortcuts.ProjectionShortcut(normalization=None), True, type(None)),
        (shortcuts.ProjectionShortcut(use_bias=True), True, layers.BatchNormalization),
        (shortcuts.ProjectionShortcut(use_bias=True, normalization=None), True, type(None)),
        (shortcuts.ProjectionShortcut(use_bias=False, normalization=None), False, type(None)),
        (shortcuts.ProjectionShortcut(normalization="layer"), False, layers.LayerNormalization),
        (
            shortcuts.AvgPoolShortcut(normalization="group"),
            False,
            layers.GroupNormalization,
        ),
    ],
)
def test_projection_has_the_bias_and_normalization_it_is_told(policy, use_bias, norm):
    block = built(kr.ResidualBlock(6, 2, shortcut=policy), SHAPE)
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
    block = kr.ResidualBlock(
        4, 2, shortcut=shortcuts.ProjectionShortcut("channels"), zero_init_residual=True
    )
    block.build(SHAPE)
    x = random_array(SHAPE)
    assert_close(block(x), np.maximum(x[:, ::2, ::2], 0))


def test_preactivation_reads_the_activated_input_only_where_the_shortcut_has_weights():
    x = random_array(SHAPE)
    options = {"preactivation": True, "zero_init_residual": True}
    plain = built(kr.ResidualBlock(4, **options), SHAPE)
    plain.conv2.conv.kernel.assign(np.zeros((3, 3, 4, 4)))
    plain.conv2.conv.bias.assign(np.zeros(4))
    assert_close(plain(x), x)

    projected = built(kr.ResidualBlock(6, **options), SHAPE)
    projected.conv2.conv.kernel.assign(np.zeros((3, 3, 6, 6)))
    projected.conv2.conv.bias.assign(np.zeros(6))
    activated = projected.entry_act(projected.entry_norm(x))
    assert_close(projected(x), projected.shortcut(activated))
    assert not hasattr(projected.shortcut, "norm")


def test_no_shortcut_is_a_plain_network():
    x = random_array(SHAPE)
    block = built(kr.ResidualBlock(4, shortcut=None), SHAPE)
    assert_close(block(x), block.conv2(block.conv1(x)))
    assert to_numpy(block(x)).min() >= 0
