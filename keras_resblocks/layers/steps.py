"""Stacks of convolutions as data, and their shapes.

Blocks, shortcuts and stems are tuples of *steps*; `units.make_layer` makes layers of them.
"""

import dataclasses
import functools
from typing import Any, Literal

from keras_resblocks import validation
from keras_resblocks.layers.templates import INHERIT
from keras_resblocks.shown import ShortRepr
from keras_resblocks.types import Size
from keras_resblocks.validation import exceeds_one


@dataclasses.dataclass(frozen=True, repr=False)
class Conv(ShortRepr):
    """A convolution, then its normalization and activation, as data.

    `"inherit"`, the default of some, is for the option of the network or block that it stands in.

    Attributes:
        filters: number of output channels.
        kernel_size: an integer, or one for each spatial axis.
        strides: an integer, or one for each spatial axis.
        groups: number of groups of channels convolved separately.
        dilation_rate: an integer, or one for each spatial axis.
        padding: as in `ConvUnit`.
        use_bias: as in `ConvUnit`.
        activation: as in `ConvUnit`.
        normalization: as in `ConvUnit`.
        zero_init: as in `ConvUnit`.

    Raises:
        ValueError: for a number that is not positive, `groups` that do not divide `filters`, and
            for a convolution that is both strided and dilated.

    Examples:
        >>> from keras_resblocks.layers import Conv, Pool
        >>> stem = (Conv(32, 3, strides=2), Conv(64, 3), Pool("max", 3, 2))
        >>> stem[0]
        Conv(filters=32, kernel_size=3, strides=2)
    """

    filters: int
    kernel_size: Size = 1
    strides: Size = 1
    groups: int = 1
    dilation_rate: Size = 1
    padding: str = INHERIT
    use_bias: bool | str | None = INHERIT
    activation: Any = INHERIT  # `types.Pluggable`, or a `Template`
    normalization: Any = INHERIT
    zero_init: bool = False

    def __post_init__(self) -> None:
        validation.positive_int("filters", self.filters)
        validation.divisor("groups", self.groups, "filters", self.filters)
        _check_windows(self, "kernel_size", "strides", "dilation_rate")
        validation.strides_or_dilation(self.strides, self.dilation_rate)

    def overrides(self) -> dict[str, Any]:
        """The options that differ from the owner's."""
        options = ("padding", "use_bias", "activation", "normalization")
        return {name: getattr(self, name) for name in options if getattr(self, name) != INHERIT}


@dataclasses.dataclass(frozen=True, repr=False)
class Pool(ShortRepr):
    """A pooling over a window, as data.

    Attributes:
        kind: `"max"` or `"avg"`.
        pool_size: an integer, or one for each spatial axis.
        strides: an integer, or one for each spatial axis.
        padding: as in `Pooling`; `"inherit"` for that of the network or block.
        pad_value: as in `Pooling`.

    Raises:
        ValueError: for another `kind`, or a number that is not positive.

    Examples:
        >>> from keras_resblocks.layers import Pool
        >>> Pool("avg", 3, 2)
        Pool(kind='avg', strides=2)
    """

    kind: Literal["max", "avg"]
    pool_size: Size = 3
    strides: Size = 1
    padding: str = INHERIT
    pad_value: float | None = None

    def __post_init__(self) -> None:
        validation.one_of("kind", self.kind, ("max", "avg"))
        _check_windows(self, "pool_size", "strides")


@dataclasses.dataclass(frozen=True, repr=False)
class AdaptivePool(ShortRepr):
    """An average pooling to a given size, from any known size, as data.

    Attributes:
        output_size: an integer, or one for each spatial axis.

    Raises:
        ValueError: for a size that is not positive.

    Examples:
        >>> from keras_resblocks.layers import AdaptivePool
        >>> from keras_resblocks.models import AuxHead
        >>> head = AuxHead("stage3_block1", AdaptivePool(4))
    """

    output_size: Size

    def __post_init__(self) -> None:
        _check_windows(self, "output_size")


@dataclasses.dataclass(frozen=True, repr=False)
class Subsample(ShortRepr):
    """Every `strides`-th position, the channels padded with zeros, as data: for shortcuts.

    Attributes:
        filters: number of output channels, no fewer than there are.
        strides: an integer, or one for each spatial axis.

    Raises:
        ValueError: for a number that is not positive.

    Examples:
        >>> from keras_resblocks import shortcuts
        >>> shortcuts.ZeroPadShortcut().steps(channels=16, filters=32, strides=2)
        (Subsample(filters=32, strides=2),)
    """

    filters: int
    strides: Size = 1

    def __post_init__(self) -> None:
        validation.positive_int("filters", self.filters)
        _check_windows(self, "strides")


@dataclasses.dataclass(frozen=True, repr=False)
class Split(ShortRepr):
    """Branches side by side on the same input, concatenated along the channels, as data.

    Attributes:
        branches: a tuple of branches, each a tuple of steps.

    Examples:
        >>> from keras_resblocks.layers import Conv, Pool, Split
        >>> split = Split(((Conv(32),), (Conv(16), Conv(32, 3)), (Pool("max"), Conv(16))))
    """

    branches: tuple[tuple, ...]


STEPS = (Conv, Pool, Subsample, Split)


def _check_windows(step, *fields):
    for field in fields:  # as tuples, where not integers: steps can be looked up in a dict
        object.__setattr__(step, field, validation.positive_ints(field, getattr(step, field)))


def names(steps, prefix=""):
    """A name for each step behind `prefix`: `conv1`, `pool1`, `conv2`, ...

    That of a split is the prefix for its branches: none for the first, then `split2_`, ...
    """
    counts = {}
    for step in steps:
        kind = type(step).__name__.lower()
        counts[kind] = counts.get(kind, 0) + 1
        if isinstance(step, Split):
            yield prefix if counts[kind] == 1 else f"{prefix}{kind}{counts[kind]}_"
        else:
            yield f"{prefix}{kind}{counts[kind]}"


def output_channels(branch, channels):
    """The number of channels after the steps, given that before them."""
    for step in branch:
        if isinstance(step, Split):
            channels = sum(output_channels(inner, channels) for inner in step.branches)
        elif isinstance(step, (Conv, Subsample)):
            channels = step.filters
    return channels


def is_spatial(step):
    """Whether the step looks at more than one position."""
    if isinstance(step, Split):
        return any(is_spatial(inner) for branch in step.branches for inner in branch)
    return isinstance(step, Pool) or exceeds_one(step.kernel_size)


def with_dilation(branch, rate, atrous=False):
    """The branch with its windows spread by `rate`; with `atrous` also dilated, not strided.

    Atrous, what comes after a strided step is dilated by those strides instead. Poolings lose
    their strides and keep their window.
    """
    if not (atrous or exceeds_one(rate)):
        return branch
    dilated = []
    for step in branch:
        if isinstance(step, STEPS):  # a shortcut may have layers, which stay what they are
            dilated.append(_dilated(step, rate, atrous))
            rate = times(rate, step_strides(step)) if atrous else rate
        else:
            dilated.append(step)
    return tuple(dilated)


def _dilated(step, rate, atrous):
    if isinstance(step, Split):
        return Split(tuple(with_dilation(inner, rate, atrous) for inner in step.branches))
    changes = {"strides": 1} if atrous else {}
    if isinstance(step, Conv) and exceeds_one(step.kernel_size):
        changes["dilation_rate"] = rate
    return dataclasses.replace(step, **changes)


def step_strides(step):
    """The strides of a step; of a split, those of its first branch, as of any."""
    if isinstance(step, Split):
        return functools.reduce(times, map(step_strides, step.branches[0]), 1)
    return step.strides


def times(a, b):
    """The product of strides, each an integer or one for each spatial axis."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        rank = len(a if isinstance(a, tuple) else b)
        pairs = zip(validation.per_axis("", a, rank), validation.per_axis("", b, rank))
        return tuple(x * y for x, y in pairs)
    return a * b


def with_strides(branch, strides, **changes):
    """The branch with `strides`, and `changes`, on its last spatial step, else its last step."""
    if not exceeds_one(strides):
        return branch
    index = max((i for i, step in enumerate(branch) if is_spatial(step)), default=len(branch) - 1)
    step = branch[index]
    if isinstance(step, Split):
        step = Split(tuple(with_strides(inner, strides, **changes) for inner in step.branches))
    else:
        step = dataclasses.replace(step, strides=strides, **changes)
    return (*branch[:index], step, *branch[index + 1 :])


def with_linear_end(branch, preactivation, zero_init=False):
    """The branch with no activation after its last convolution, to be added to the shortcut.

    In a pre-activation block, no normalization follows it either (He et al. 2016b, figure 4).
    """
    *start, last = branch
    if isinstance(last, Split):
        last = Split(
            tuple(with_linear_end(inner, preactivation, zero_init) for inner in last.branches)
        )
    elif isinstance(last, Conv):
        last = dataclasses.replace(
            last,
            activation=None,
            normalization=None if preactivation else last.normalization,
            zero_init=zero_init,
        )
    return (*start, last)


def symmetric_padding(size):
    """What to pad before and after so that a window at stride 1 keeps the size."""
    return (size - 1) // 2, size // 2


def branch_output(branch, spatial, padding):
    """The spatial shape after the steps of a branch."""
    for step in branch:
        if isinstance(step, Split):
            sizes = {branch_output(inner, spatial, padding) for inner in step.branches}
            if len(sizes) > 1:
                raise ValueError(
                    "The branches must lead to equal spatial sizes. "
                    f"Received: {sorted(sizes, key=str)} from {tuple(spatial)}"
                )
            (spatial,) = sizes
        else:
            spatial = step_output(step, spatial, padding)
    return spatial


def step_output(step, spatial, padding):
    """The spatial shape after a step other than a `Split`; `padding` is its owner's."""
    if isinstance(step, AdaptivePool):
        return validation.per_axis("output_size", step.output_size, len(spatial))
    if isinstance(step, Subsample):
        return window_output(spatial, 1, step.strides, "valid")
    padding = padding if step.padding == INHERIT else step.padding
    if isinstance(step, Pool):
        return window_output(spatial, step.pool_size, step.strides, padding)
    return window_output(spatial, step.kernel_size, step.strides, padding, step.dilation_rate)


def window_output(spatial, size, strides, padding, dilation_rate=1):
    """The spatial shape after a convolution or pooling; None where it is not known."""
    rank = len(spatial)
    sizes = validation.per_axis("kernel_size", size, rank)
    dilation_rates = validation.per_axis("dilation_rate", dilation_rate, rank)
    strides = validation.per_axis("strides", strides, rank)
    if padding == "ceil" and any(s > k for k, s in zip(sizes, strides)):
        raise ValueError(
            '`padding="ceil"` needs windows that are no smaller than the strides. '
            f"Received: pool_size={sizes}, strides={strides}"
        )
    reach = [
        {"valid": rate * (k - 1), "ceil": k - s}.get(padding, 0)
        for k, rate, s in zip(sizes, dilation_rates, strides)
    ]
    if any(n is not None and n <= r for n, r in zip(spatial, reach)):
        raise ValueError(
            f"`input_shape` must be larger: a window of {sizes} without padding does not fit. "
            f"Received: spatial shape {tuple(spatial)}"
        )
    return tuple(
        None if n is None else -(-(n - r) // s) for n, r, s in zip(spatial, reach, strides)
    )
