"""Stacks of convolutions as data.

A *step* says what is computed and makes no layer. Blocks, shortcuts and stems are tuples of
steps; `units.make_layer` turns a step into a layer, and `models.cost` into numbers.
"""

import dataclasses

from keras_resblocks import validation
from keras_resblocks.layers.templates import INHERIT
from keras_resblocks.validation import exceeds_one


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution, then its normalization and activation."""

    filters: int
    kernel_size: int | tuple = 1
    strides: int | tuple = 1
    groups: int = 1
    dilation_rate: int | tuple = 1
    padding: str = INHERIT
    use_bias: bool | str | None = INHERIT
    activation: object = INHERIT
    normalization: object = INHERIT
    zero_init: bool = False

    def __post_init__(self):
        validation.positive_int("filters", self.filters)
        validation.divisor("groups", self.groups, "filters", self.filters)
        _check_windows(self, "kernel_size", "strides", "dilation_rate")
        validation.strides_or_dilation(self.strides, self.dilation_rate)

    def overrides(self):
        """The options that differ from the owner's."""
        options = ("padding", "use_bias", "activation", "normalization")
        return {name: getattr(self, name) for name in options if getattr(self, name) != INHERIT}


@dataclasses.dataclass(frozen=True)
class Pool:
    """A `"max"` or `"avg"` pooling over a window; see `Pooling` for the paddings."""

    kind: str
    pool_size: int | tuple = 3
    strides: int | tuple = 1
    padding: str = INHERIT
    pad_value: float | None = None

    def __post_init__(self):
        validation.one_of("kind", self.kind, ("max", "avg"))
        _check_windows(self, "pool_size", "strides")


@dataclasses.dataclass(frozen=True)
class AdaptivePool:
    """An average pooling to `output_size` positions, whatever the size before it."""

    output_size: int | tuple

    def __post_init__(self):
        _check_windows(self, "output_size")


@dataclasses.dataclass(frozen=True)
class Subsample:
    """Every `strides`-th position, the channels padded with zeros up to `filters`."""

    filters: int
    strides: int | tuple = 1


@dataclasses.dataclass(frozen=True)
class Split:
    """Branches side by side on the same input, concatenated along the channels."""

    branches: tuple


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

    An atrous branch keeps the resolution: what comes after a strided step is dilated by those
    strides instead, so that at every `strides`-th position the result is the strided branch's.
    Poolings lose their strides and keep their window.
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
        strides = 1
        for inner in step.branches[0]:
            strides = times(strides, step_strides(inner))
        return strides
    return step.strides


def times(a, b):
    """The product of strides, each an integer or one for each spatial axis."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        rank = len(a if isinstance(a, tuple) else b)
        pairs = zip(validation.per_axis("", a, rank), validation.per_axis("", b, rank))
        return tuple(x * y for x, y in pairs)
    return a * b


def with_strides(branch, strides, **changes):
    """The branch with `strides` on its last spatial step, or on its last step if none is.

    `changes` are other fields to replace there.
    """
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
    """The branch as a residual function: nothing follows its last convolution but the sum.

    After a post-activation branch the block's own activation comes last, so the last convolution
    keeps its normalization only; in a pre-activation block it keeps neither (He et al. 2016b,
    figure 4).
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
