"""Every option of the blocks with every other: a bug lives in the combination nobody tried."""

import random

import keras
import pytest
from helpers import (
    BLOCKS,
    DATA_FORMATS,
    assert_close,
    assert_reloads,
    covering,
    label,
    make_block,
    model_of,
    pairs,
    product,
    random_array,
    registered_function,
    revived,
    shape_of,
)

# Values of options that are not names themselves.
GIVEN = {
    "function": keras.activations.gelu,
    "registered": registered_function,
    "a layer": keras.layers.ELU(alpha=0.3),
    "prelu": keras.layers.PReLU(shared_axes=[1]),
    "config": keras.saving.serialize_keras_object(keras.layers.LeakyReLU(0.1)),
    "template": keras.layers.BatchNormalization(momentum=0.5, scale=False),
}
SHORTCUTS = (None, "identity", "zero_pad", "projection", "projection_always", "avg_pool")

OPTIONS = {
    "kind": BLOCKS,
    "preactivation": (False, True),
    "shortcut": SHORTCUTS,
    "strides": (1, 2),
    "activation": (None, "elu", "function", "registered", "a layer", "prelu", "config"),
    "normalization": (None, "batch", "layer", "group", "instance", "template"),
    "rank": (1, 2, 3),
    "data_format": DATA_FORMATS,
}
CHANNELS = 4


def filters_of(case):
    # As in a network: where the resolution halves, the channels double.
    return CHANNELS * case["strides"]


def block_of(case, **options):
    options = {name: GIVEN.get(value, value) for name, value in case.items()} | options
    del options["rank"]
    return make_block(filters=filters_of(case), **options)


def input_shape_of(case, **options):
    return shape_of(case["rank"], CHANNELS, case["data_format"], **options)


def expected_shape_of(case):
    spatial = [-(-n // case["strides"]) for n in (5, 4, 6)]
    return shape_of(case["rank"], filters_of(case), case["data_format"], spatial=spatial)


def is_valid(case):
    return case["shortcut"] != "identity" or case["strides"] == 1


SAMPLE = random.Random(0).sample([*product(OPTIONS)], 120)


@pytest.mark.parametrize("case", [*covering(OPTIONS), *SAMPLE], ids=label)
def test_real_shape_is_as_computed(case):
    block, shape = block_of(case), input_shape_of(case)
    with keras.StatelessScope():  # the weights' values are not needed
        if not is_valid(case):
            with pytest.raises(ValueError, match="identity"):
                block.build(shape)
            return
        block.build(shape)
    # The data flow of `call`, run on symbolic tensors by the backend, and not the shape that the
    # layer says it has: `block.compute_output_spec` would ask `block.compute_output_shape`.
    real = keras.Operation.compute_output_spec(block, keras.KerasTensor(shape))
    assert tuple(real.shape) == expected_shape_of(case), case
    assert block.compute_output_shape(shape) == expected_shape_of(case), case


@pytest.mark.parametrize("kind", BLOCKS)
def test_config_round_trips_and_output_shape_needs_no_build_for_a_sample_of_the_product(kind):
    cases = [*product({**OPTIONS, "kind": (kind,)})]
    for case in random.Random(kind).sample(cases, 600):
        block = revived(block_of(case))
        assert block.compute_output_shape(input_shape_of(case)) == expected_shape_of(case), case
        unknown = {"batch": None, "spatial": (None,) * 3}
        assert block.compute_output_shape(input_shape_of(case, **unknown)) == shape_of(
            case["rank"], filters_of(case), case["data_format"], **unknown
        ), case
        assert not block.built


def test_covering_set_has_every_pair_of_valid_choices():
    cases = covering(OPTIONS, is_valid)
    met = set().union(*map(pairs, cases))
    wanted = set().union(*(pairs(case) for case in product(OPTIONS) if is_valid(case)))
    assert met == wanted
    assert len(cases) < 100


@pytest.mark.parametrize("case", covering(OPTIONS, is_valid), ids=label)
def test_saved_and_loaded_model_gives_equal_outputs(case, tmp_path):
    shape = input_shape_of(case)
    model = model_of(block_of(case, kernel_regularizer="l2"), shape=shape)
    loaded = assert_reloads(model, random_array(shape), tmp_path)
    assert_close(sum(loaded.losses), sum(model.losses), 1e-6)
