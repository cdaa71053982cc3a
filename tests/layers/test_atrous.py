"""Atrous blocks: dilated instead of strided, they agree with the strided ones where those look."""

import keras
import pytest
from helpers import (
    BLOCKS,
    assert_close,
    built,
    covering,
    label,
    make_block,
    random_array,
    shape_of,
    side_by_side,
    to_numpy,
    twin_of,
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


def each(value, rank):
    return value if isinstance(value, tuple) else (value,) * rank


def every(*strides):
    """The index of the positions, of an array channels last, that such strides leave."""
    return (slice(None), *(slice(None, None, step) for step in strides))


def assert_atrous_is_strided(make, shape, strides, dilation_rate=1, tolerance=1e-5):
    """`make(**options)` is the block; `dilation_rate` is that of the map it is applied to."""
    rank = len(shape) - 2
    rates = each(dilation_rate, rank)
    x = random_array(shape)
    atrous = built(make(atrous=True, dilation_rate=dilation_rate), shape)
    outputs = to_numpy(atrous(x))
    assert outputs.shape == atrous.compute_output_shape(shape) == (*shape[:-1], FILTERS)

    subsampled = x[every(*rates)]
    strided = twin_of(atrous, make(), subsampled.shape)
    assert [w.path.split("/", 1)[1] for w in strided.weights] == [
        w.path.split("/", 1)[1] for w in atrous.weights
    ]
    steps = [step * rate for step, rate in zip(each(strides, rank), rates)]
    assert_close(outputs[every(*steps)], strided(subsampled), tolerance)


@pytest.mark.parametrize("case", covering(OPTIONS, is_aligned), ids=label)
def test_strided_positions_of_an_atrous_block_are_the_strided_block(case):
    rank = case["rank"]
    strides = (2, 1, 3)[:rank] if case["strides"] == "uneven" else case["strides"]

    def make(**options):
        return MAKERS[case["maker"]](
            FILTERS,
            strides,
            shortcut=case["shortcut"],
            preactivation=case["preactivation"],
            activation="sigmoid",  # not zero at zero: padding comes after it
            **options,
        )

    shape = shape_of(rank, CHANNELS, spatial=SPATIAL)
    assert_atrous_is_strided(make, shape, strides, case["dilation_rate"])


@pytest.mark.parametrize("spatial", [(7, 8), (8, 5), (3, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("dilation_rate", [1, 2, (1, 3)], ids=str)
def test_sizes_may_be_odd_or_even_or_smaller_than_the_window(spatial, dilation_rate):
    def make(**options):
        options = {"preactivation": True, "normalization": "layer", **options}
        return kr.ResidualBlock(FILTERS, (2, 1), **options)

    # Of channels that are nearly equal, a variance near zero magnifies rounding.
    assert_atrous_is_strided(make, (2, *spatial, CHANNELS), (2, 1), dilation_rate, 1e-4)


@pytest.mark.parametrize(
    ("maker", "dilation_rate", "options"),
    [
        *(
            (maker, 1, {"kernel_size": size})
            for maker in ("residual", "bottleneck", "bottleneck_v1")
            for size in (1, 2, 4, 5, (3, 1), (2, 5))
        ),
        ("residual", 2, {"groups": 2}),
        ("bottleneck", 2, {"groups": 3}),
    ],
    ids=str,
)
def test_kernels_of_any_size_and_groups_line_up(maker, dilation_rate, options):
    def make(**more):
        return MAKERS[maker](FILTERS, 2, **options, **more)

    assert_atrous_is_strided(make, (2, 9, 8, CHANNELS), 2, dilation_rate)


@pytest.mark.parametrize("maker", MAKERS)
def test_channels_first_is_channels_last_transposed(maker):
    # No last axis is as long as a convolution has filters, as in the same test of all options.
    x = random_array((2, 9, 13, CHANNELS))
    options = {"atrous": True, "shortcut": "projection", "dilation_rate": 2}
    last = built(MAKERS[maker](FILTERS, 2, **options), x.shape)
    first = MAKERS[maker](FILTERS, 2, data_format="channels_first", **options)
    moved = x.transpose(0, 3, 1, 2)
    twin_of(last, first, moved.shape)
    assert_close(to_numpy(first(moved)).transpose(0, 2, 3, 1), last(x))


@pytest.mark.parametrize("maker", MAKERS)
def test_output_keeps_the_resolution_known_or_not(maker):
    block = MAKERS[maker](FILTERS, 2, atrous=True)
    for rank in (1, 2, 3):
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


def blocks(**options):
    return [make(FILTERS, 2, shortcut="projection", **options) for make in MAKERS.values()]


def test_weights_of_strided_blocks_fit_atrous_ones(tmp_path):
    shape = (2, 8, 6, CHANNELS)
    strided, atrous = side_by_side(blocks(), shape), side_by_side(blocks(atrous=True), shape, 1)
    strided.save_weights(tmp_path / "strided.weights.h5")
    atrous.load_weights(tmp_path / "strided.weights.h5")
    x = random_array(shape)
    for outputs, expected in zip(atrous(x), strided(x), strict=True):
        assert_close(to_numpy(outputs)[every(2, 2)], expected)


def test_a_layer_on_the_shortcut_keeps_its_strides():
    block = kr.ResidualBlock(
        FILTERS, 2, atrous=True, shortcut=keras.layers.Conv2D(FILTERS, 1, strides=2)
    )
    with pytest.raises(ValueError, match=r"`shortcut` must lead to .*\(2, 8, 8, 6\).*\(2, 4, 4, 6"):
        block.build((2, 8, 8, CHANNELS))
