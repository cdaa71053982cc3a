"""Atrous blocks: dilated instead of strided, they agree with the strided ones where those look."""

import json

import keras
import pytest
from helpers import (
    BLOCKS,
    assert_close,
    built,
    covering,
    label,
    make_block,
    model_of,
    random_array,
    shape_of,
    to_numpy,
)

import keras_resblocks as kr

CHANNELS, FILTERS = 4, 6
SPATIAL = (9, 6, 5)  # odd and even, and larger than a dilated window
# No convolution of volumes has one input channel: with strides of 3, oneDNN reads past it.
CONVOLUTIONS = ((2,), (2, (2, 3)), (2, (2, 3), (2, 3)))
UNEVEN = ((2, (4, 3)), (2, (2, 5)))
SPLIT = ((2, (((2, 3),), ((2, (2, 3))))), (2,))


def of_kind(kind, **fixed):
    def make(filters, strides, **options):
        return make_block(kind, filters, strides, **fixed, **options)

    return make


def of_branches(branches, **fixed):
    def make(filters, strides, **options):
        return kr.InceptionBlock(branches, strides, **fixed, **options)

    return make


MAKERS = {
    **{kind: of_kind(kind) for kind in BLOCKS},
    "bottleneck_v1": of_kind("bottleneck", stride_in_1x1=True),
    "inception_convolving": of_branches(CONVOLUTIONS),
    "inception_uneven": of_branches(UNEVEN),
    "inception_split": of_branches(SPLIT),
    "inception_expanding": of_branches(CONVOLUTIONS, filters=FILTERS),
}

OPTIONS = {
    "maker": tuple(MAKERS),
    "rank": (1, 2, 3),
    "strides": (2, 3, "uneven"),
    "dilation_rate": (1, 2),
    "shortcut": (None, "projection", "projection_always", "zero_pad", "avg_pool"),
    "preactivation": (False, True),
}


def is_aligned(case):
    """Whether the two have to agree: a pooling keeps its window, so nothing may dilate one."""
    pools = case["maker"] == "inception" or case["shortcut"] == "avg_pool"
    return not pools or case["dilation_rate"] == 1


def strides_of(case):
    return (2, 1, 3)[: case["rank"]] if case["strides"] == "uneven" else case["strides"]


def block_of(case, **options):
    options = {
        "shortcut": case["shortcut"],
        "preactivation": case["preactivation"],
        "activation": "sigmoid",  # not zero at zero: padding comes after it
        **options,
    }
    return MAKERS[case["maker"]](FILTERS, strides_of(case), **options)


def every(strides, rank):
    """The index of every position, of an array channels last, that such strides leave."""
    strides = strides if isinstance(strides, tuple) else (strides,) * rank
    return (slice(None), *(slice(None, None, step) for step in strides))


def times(strides, rate):
    return tuple(rate * step for step in strides) if isinstance(strides, tuple) else rate * strides


def assert_atrous_is_strided(make, shape, strides, dilation_rate=1, tolerance=1e-5):
    """`make(**options)` is the block; `dilation_rate` is that of the map it is applied to."""
    rank = len(shape) - 2
    x = random_array(shape)
    atrous = built(make(atrous=True, dilation_rate=dilation_rate), shape)
    outputs = to_numpy(atrous(x))
    assert outputs.shape == atrous.compute_output_shape(shape) == (*shape[:-1], FILTERS)

    subsampled = x[every(dilation_rate, rank)]
    strided = make()
    strided.build(subsampled.shape)
    assert [w.path.split("/", 1)[1] for w in strided.weights] == [
        w.path.split("/", 1)[1] for w in atrous.weights
    ]
    strided.set_weights(atrous.get_weights())
    positions = every(times(strides, dilation_rate), rank)
    assert_close(outputs[positions], strided(subsampled), tolerance)


@pytest.mark.parametrize("case", covering(OPTIONS, is_aligned), ids=label)
def test_strided_positions_of_an_atrous_block_are_the_strided_block(case):
    shape = shape_of(case["rank"], CHANNELS, spatial=SPATIAL)
    assert_atrous_is_strided(
        lambda **options: block_of(case, **options),
        shape,
        strides_of(case),
        case["dilation_rate"],
    )


@pytest.mark.parametrize("spatial", [(7, 8), (8, 5), (3, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("dilation_rate", [1, 2, (1, 3)], ids=str)
def test_sizes_may_be_odd_or_even_or_smaller_than_the_window(spatial, dilation_rate):
    x = random_array((2, *spatial, CHANNELS))
    options = {"preactivation": True, "normalization": "layer"}
    atrous = built(
        kr.ResidualBlock(FILTERS, (2, 1), atrous=True, dilation_rate=dilation_rate, **options),
        x.shape,
    )
    subsampled = x[every(dilation_rate, 2)]
    strided = kr.ResidualBlock(FILTERS, (2, 1), **options)
    strided.build(subsampled.shape)
    strided.set_weights(atrous.get_weights())
    rates = dilation_rate if isinstance(dilation_rate, tuple) else (dilation_rate,) * 2
    positions = every((2 * rates[0], rates[1]), 2)
    # Of channels that are nearly equal, a variance near zero magnifies rounding.
    assert_close(to_numpy(atrous(x))[positions], strided(subsampled), 1e-4)


@pytest.mark.parametrize("kernel_size", [1, 2, 4, 5, (3, 1), (2, 5)], ids=str)
@pytest.mark.parametrize("maker", ["residual", "bottleneck", "bottleneck_v1"])
def test_kernels_of_any_size_line_up(maker, kernel_size):
    def make(**options):
        return MAKERS[maker](FILTERS, 2, kernel_size=kernel_size, **options)

    assert_atrous_is_strided(make, (2, 9, 8, CHANNELS), 2)


@pytest.mark.parametrize(("maker", "groups"), [("residual", 2), ("bottleneck", 3)])
def test_grouped_convolutions_line_up(maker, groups):
    def make(**options):
        return MAKERS[maker](FILTERS, 2, groups=groups, **options)

    assert_atrous_is_strided(make, (2, 9, 6, CHANNELS), 2, 2)


@pytest.mark.parametrize("maker", MAKERS)
def test_channels_first_is_channels_last_transposed(maker):
    # No last axis is as long as a convolution has filters, as in the same test of all options.
    x = random_array((2, 9, 13, CHANNELS))
    options = {"atrous": True, "shortcut": "projection", "dilation_rate": 2}
    last = built(MAKERS[maker](FILTERS, 2, **options), x.shape)
    first = MAKERS[maker](FILTERS, 2, data_format="channels_first", **options)
    moved = x.transpose(0, 3, 1, 2)
    first.build(moved.shape)
    first.set_weights(last.get_weights())
    assert_close(to_numpy(first(moved)).transpose(0, 2, 3, 1), last(x))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_output_keeps_the_resolution_known_or_not(maker, rank):
    block = MAKERS[maker](FILTERS, 2, atrous=True)
    for spatial in (SPATIAL, (None,) * 3):
        shape = shape_of(rank, CHANNELS, spatial=spatial)
        assert block.compute_output_shape(shape) == (*shape[:-1], FILTERS)
    assert not block.built


@pytest.mark.parametrize("maker", MAKERS)
def test_without_strides_atrous_changes_nothing(maker):
    x = random_array((2, 6, 5, CHANNELS))
    plain = built(MAKERS[maker](FILTERS, 1, dilation_rate=2), x.shape)
    atrous = built(MAKERS[maker](FILTERS, 1, dilation_rate=2, atrous=True), x.shape)
    assert_close(atrous(x), plain(x), 0)


@pytest.mark.parametrize("maker", MAKERS)
def test_config_round_trips(maker):
    block = MAKERS[maker](FILTERS, (2, 1), atrous=True, dilation_rate=2)
    config = json.dumps(block.get_config())
    revived = type(block).from_config(json.loads(config))
    assert revived.atrous is True
    assert revived.strides == (2, 1)
    assert json.dumps(revived.get_config()) == config


@pytest.mark.parametrize("maker", MAKERS)
def test_saved_and_loaded_model_gives_equal_outputs(maker, tmp_path):
    shape = (2, 7, 6, CHANNELS)
    block = MAKERS[maker](FILTERS, 2, atrous=True, dilation_rate=2, shortcut="projection")
    model = model_of(block, shape=shape)
    model.save(tmp_path / "model.keras")
    x = random_array(shape)
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(x), model(x), 1e-6)


@pytest.mark.parametrize("maker", MAKERS)
def test_weights_of_a_strided_block_fit_an_atrous_one(maker, tmp_path):
    shape = (2, 8, 6, CHANNELS)
    strided, atrous = (
        model_of(MAKERS[maker](FILTERS, 2, shortcut="projection", **options), shape=shape, seed=i)
        for i, options in enumerate([{}, {"atrous": True}])
    )
    strided.save_weights(tmp_path / "strided.weights.h5")
    atrous.load_weights(tmp_path / "strided.weights.h5")
    x = random_array(shape)
    assert_close(to_numpy(atrous(x))[every(2, 2)], strided(x))


def test_a_layer_on_the_shortcut_keeps_its_strides():
    block = kr.ResidualBlock(
        FILTERS, 2, atrous=True, shortcut=keras.layers.Conv2D(FILTERS, 1, strides=2)
    )
    with pytest.raises(ValueError, match=r"`shortcut` must lead to .*\(2, 8, 8, 6\).*\(2, 4, 4, 6"):
        block.build((2, 8, 8, CHANNELS))
