"""What may follow the sum or the concatenation, and reductions without padding."""

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
    refusal,
    registered_function,
    revived,
    shape_of,
    to_numpy,
    twin_of,
)
from keras import layers

import keras_resblocks as kr

SHAPE = shape_of(2)

# The activation after the sum, or after the branch where there is no sum.

EXIT_ACTIVATIONS = {
    "none": (None, lambda x: x),
    "name": ("tanh", np.tanh),
    "function": (keras.activations.softsign, lambda x: x / (1 + np.abs(x))),
    "registered": (registered_function, lambda x: x / (1 + np.exp(-x))),
    "layer": (layers.LeakyReLU(0.3), lambda x: np.where(x < 0, 0.3 * x, x)),
    "config": (
        keras.saving.serialize_keras_object(layers.ReLU(max_value=0.5)),
        lambda x: np.clip(x, 0, 0.5),
    ),
}
FORMS = [
    {"preactivation": preactivation, "shortcut": shortcut}
    for preactivation in (False, True)
    for shortcut in ("projection_always", None)
]


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_exit_activation_comes_last(kind, form):
    options = {"activation": "elu", **form}
    linear = built(make_block(kind, exit_activation=None, **options), SHAPE)
    x = random_array(SHAPE)
    total = to_numpy(linear(x))
    inherited = "elu" if form == FORMS[0] else None  # after a sum of linear branches
    cases = {**EXIT_ACTIVATIONS, "inherited": ("inherit", keras.activations.get(inherited))}
    for exit_activation, formula in cases.values():
        block = make_block(kind, exit_activation=exit_activation, **options)
        for layer in (block, revived(block)):
            assert_close(twin_of(linear, layer, SHAPE)(x), formula(total))
    assert make_block(kind, **options).get_config()["exit_activation"] == "inherit"


@pytest.mark.parametrize("preactivation", [False, True])
def test_a_template_has_weights_of_its_own_at_the_exit(preactivation):
    options = {"activation": layers.PReLU(shared_axes=[1, 2]), "preactivation": preactivation}
    block = kr.ResidualBlock(4, exit_activation=options["activation"], name="block", **options)
    model_of(block, shape=SHAPE)
    alphas = [weight.path for weight in block.weights if weight.name == "alpha"]
    first = "block/entry_act/alpha" if preactivation else "block/conv1/act/alpha"
    assert first in alphas
    assert "block/exit_act/alpha" in alphas
    assert len(alphas) == (3 if preactivation else 2)
    linear = kr.ResidualBlock(4, exit_activation=None, **options)
    linear.build(SHAPE)
    linear.set_weights(
        [to_numpy(weight) for weight in block.weights if "exit_act" not in weight.path]
    )
    x = random_array(SHAPE)
    total = to_numpy(linear(x))
    assert total.min() < 0
    alpha = to_numpy(block.exit_act.alpha)
    assert_close(block(x), np.where(total < 0, alpha * total, total))


# A linear convolution after the concatenation.

BRANCHES = ((2,), (2, (3, 3)), ("max_pool", 1))


@pytest.mark.parametrize("preactivation", [False, True])
def test_filters_are_the_unit_conv1_without_a_norm(preactivation):
    block = kr.InceptionBlock(
        BRANCHES, filters=4, shortcut="identity", preactivation=preactivation, name="block"
    )
    model_of(block, shape=SHAPE)
    paths = {weight.path for weight in block.weights}
    assert {path for path in paths if path.startswith("block/conv1/")} == {
        "block/conv1/conv/kernel",
        "block/conv1/conv/bias",
    }
    assert block.conv1.conv.kernel.shape == (1, 1, 2 + 3 + 1, 4)
    for unit in ("branch1_conv1", "branch2_conv2", "branch3_conv1"):
        assert getattr(block, unit).activation is not None  # the branches end as ever
        assert f"block/{unit}/norm/gamma" in paths


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_filters_change_the_channels_alone(rank, strides):
    shape = shape_of(rank)
    plain = kr.InceptionBlock(BRANCHES, strides)
    block = kr.InceptionBlock(BRANCHES, strides, filters=7, shortcut="projection")
    expected = (*plain.compute_output_shape(shape)[:-1], 7)
    assert block.compute_output_shape(shape) == expected
    assert model_of(block, shape=shape).output_shape == (None, *expected[1:])


@pytest.mark.parametrize(
    "branches", [BRANCHES, (("max_pool",),), ((2,), (2, "avg_pool")), ((2, (3, 3)), ("max_pool",))]
)
@pytest.mark.parametrize("preactivation", [False, True])
def test_zero_initialised_filters_start_as_the_shortcut(branches, preactivation):
    options = {"shortcut": "identity", "residual_scale": 0.2, "zero_init_residual": True}
    x = random_array(SHAPE)
    for activation in ("relu", "elu", None):
        block = kr.InceptionBlock(
            branches, filters=4, preactivation=preactivation, activation=activation, **options
        )
        block.build(SHAPE)
        expected = x if preactivation else keras.activations.get(activation)(x)
        for training in (False, True):
            assert_close(block(x, training=training), expected, 1e-6)


# Reductions without padding.

REDUCTION = (((5, 3),), (2, (3, 3), (4, 3)), ("max_pool",))


@pytest.mark.parametrize("strides", [2, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_valid_reduction_knows_its_shape(rank, strides):
    spatial = (5, 8, 9)[:rank]
    block = kr.InceptionBlock(REDUCTION, strides, padding="valid")
    shape = shape_of(rank, spatial=spatial)
    expected = (2, *((n - 3) // strides + 1 for n in spatial), 5 + 4 + 4)
    unknown = shape_of(rank, spatial=(None,) * 3)
    assert block.compute_output_shape(shape) == expected
    assert block.compute_output_shape(unknown) == (2, *(None,) * rank, 5 + 4 + 4)
    assert not block.built
    block.build(shape)
    # The backend's own word, rather than the layer's.
    real = keras.Operation.compute_output_spec(block, keras.KerasTensor(shape))
    assert tuple(real.shape) == expected


# Branches, an input's shape, and what the message says.
BAD_REDUCTIONS = [
    ([[(4, 3)], [4]], (2, 9, 9, 4), ["equal spatial sizes", "(4, 4)", "(5, 5)"]),
    ([[(4, 3)], [2, (4, 5)]], (2, 9, 9, 4), ["equal spatial sizes", "(4, 4)", "(3, 3)"]),
    ([["max_pool"], [(4, (1, 3))]], (2, 9, 9, 4), ["equal spatial sizes", "(4, 4)", "(5, 4)"]),
    ([[2, [[(4, 3)], [4]]]], (2, 9, 9, 4), ["equal spatial sizes", "(4, 4)", "(5, 5)"]),
    (REDUCTION, (2, 2, 9, 4), ["without padding does not fit"]),
]


@pytest.mark.parametrize(("branches", "shape", "said"), BAD_REDUCTIONS)
def test_branches_that_do_not_meet_or_fit_raise(branches, shape, said):
    block = kr.InceptionBlock(branches, 2, padding="valid")
    for ask in (block.compute_output_shape, block.build):
        refusal(lambda ask=ask: ask(shape), said)
    padded = kr.InceptionBlock(branches, 2).compute_output_shape(shape)
    assert padded[1:3] == ((shape[1] + 1) // 2, 5)


@pytest.mark.parametrize("options", [{}, {"shortcut": "projection"}, {"filters": 4}], ids=str)
def test_without_strides_valid_changes_nothing(options):
    x = random_array(SHAPE)
    plain = built(kr.InceptionBlock(REDUCTION, **options), SHAPE)
    valid = twin_of(plain, kr.InceptionBlock(REDUCTION, padding="valid", **options), SHAPE)
    assert_close(valid(x), plain(x), 0)
    assert valid.compute_output_shape(SHAPE) == plain.compute_output_shape(SHAPE)
