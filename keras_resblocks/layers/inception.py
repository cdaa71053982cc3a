"""The inception block: branches side by side, concatenated."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_resblocks import validation
from keras_resblocks.layers import steps
from keras_resblocks.layers.residual import Block
from keras_resblocks.layers.shortcuts import Shortcut
from keras_resblocks.layers.templates import INHERIT
from keras_resblocks.types import (
    BranchArguments,
    InceptionArguments,
    Padding,
    Pluggable,
    Size,
    Unpack,
)

_POOLS = {"max_pool": "max", "avg_pool": "avg"}


@keras.saving.register_keras_serializable(package="keras_resblocks")
class InceptionBlock(Block):
    """Branches of convolutions and poolings on one input, concatenated along the channels.

    `output = concat(branch(input) for each branch)`, or with a shortcut (Inception-ResNet)
    `output = activation(residual_scale * concat(...) + shortcut(input))`; with `filters`, a
    linear 1x1 convolution follows the concatenation.

    Args:
        branches: a list of branches, each a list of steps. A step is `(filters, kernel_size)`,
            an integer (a 1x1 convolution), `"max_pool"`, `"avg_pool"` (3x3) or a list of
            branches (a split inside the branch, concatenated).
        strides: on each branch's last spatial step, or its last step if none is spatial.
        filters: output channels of a linear 1x1 convolution without normalization after the
            concatenation; None for no such convolution.
        shortcut: as in `ResidualBlock`; by default none.
        residual_scale: multiplies the branches before the sum.
        padding: also `"valid"`: strided steps do not pad, as in Inception-v3's reductions.
        groups: of the convolutions larger than 1x1.
        dilation_rate: of the convolutions larger than 1x1.
        **options: as in `ResidualBlock`. With a shortcut or `preactivation=True`, no activation
            follows the 1x1 convolution, or without one the last steps of the branches.

    Raises:
        ValueError: for malformed `branches`, and as `ResidualBlock`.

    Input shape:
        `(batch, *spatial, channels)` with one, two or three spatial axes, or channels first.

    Output shape:
        `(batch, *ceil(spatial / strides), sum of the branches' channels)`, or `filters` channels.

    Examples:
        >>> import keras
        >>> from keras_resblocks import InceptionBlock
        >>> block = InceptionBlock([[64], [96, (128, 3)], [16, (32, 5)], ["max_pool", 32]])
        >>> block(keras.Input((28, 28, 192))).shape
        (None, 28, 28, 256)

    References:
        Szegedy et al. 2015, "Going Deeper with Convolutions", section 4; 2017, "Inception-v4,
        Inception-ResNet", sections 3.2 and 3.3, for `filters`, `shortcut` and `residual_scale`.
    """

    _arguments = ("branches", "filters", "residual_scale")
    paddings = ("symmetric", "same", "valid")

    def __init__(
        self,
        branches: Sequence[Any],
        strides: Size = 1,
        *,
        filters: int | None = None,
        shortcut: Shortcut | Pluggable = None,
        residual_scale: float = 1.0,
        **options: "Unpack[BranchArguments]",
    ) -> None:
        super().__init__(strides, shortcut=shortcut, **options)
        self.branches = read_branches(branches)
        self.filters = filters if filters is None else validation.positive_int("filters", filters)
        self.residual_scale = validation.finite_number("residual_scale", residual_scale)
        self.branch()  # raises where `groups` do not divide the filters
        if self.atrous and self.padding == "valid":
            raise ValueError(
                '`padding="valid"` must not be given with `atrous=True`, which keeps the '
                f"resolution. Received: padding={self.padding!r}, atrous={self.atrous!r}"
            )
        if self.zero_init_residual and self.filters is None and _ends_in_pool(self.branches):
            raise ValueError(
                "`zero_init_residual=True` needs branches that end in a convolution. "
                f"Received: branches={branches!r}"
            )

    @classmethod
    def v1(
        cls,
        conv1x1: int,
        conv3x3: Sequence[int],
        conv5x5: Sequence[int],
        pool_projection: int,
        **options: "Unpack[InceptionArguments]",
    ) -> "InceptionBlock":
        """GoogLeNet's four paths: 1x1, 3x3, 5x5 and a pooled 1x1 convolution.

        Args:
            conv1x1: filters of the 1x1 path.
            conv3x3: filters of the 3x3 path, `(reduction, output)`.
            conv5x5: filters of the 5x5 path, `(reduction, output)`.
            pool_projection: filters after the max pooling.
            **options: as in `InceptionBlock`.

        Returns:
            The `InceptionBlock`.

        Raises:
            ValueError: as `InceptionBlock`.

        Examples:
            >>> from keras_resblocks import InceptionBlock
            >>> InceptionBlock.v1(64, (96, 128), (16, 32), 32).branches
            ((64,), (96, (128, 3)), (16, (32, 5)), ('max_pool', 32))

        References:
            Szegedy et al. 2015, "Going Deeper with Convolutions", figure 2b and table 1.
        """
        return cls(branches_v1(conv1x1, conv3x3, conv5x5, pool_projection), **options)

    @staticmethod
    def branch_steps(
        branches: Sequence[Any],
        strides: Size = 1,
        *,
        filters: int | None = None,
        groups: int = 1,
        padding: Padding = "symmetric",
    ) -> tuple:
        """The branch as data; the arguments are the block's."""
        inner_padding = "symmetric" if padding == "valid" else INHERIT
        split = _split(branches, groups, inner_padding)
        branch = steps.with_strides((split,), strides, padding=INHERIT)
        if filters is None:
            return branch
        return (*branch, steps.Conv(filters, activation=None, normalization=None))


def branches_v1(conv1x1, conv3x3, conv5x5, pool_projection):
    """The `branches` of `InceptionBlock.v1`."""
    pairs = {"conv3x3": conv3x3, "conv5x5": conv5x5}
    for name, pair in pairs.items():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise validation.bad_argument(name, "be a pair (reduction, output)", pair)
    return (
        (conv1x1,),
        (conv3x3[0], (conv3x3[1], 3)),
        (conv5x5[0], (conv5x5[1], 5)),
        ("max_pool", pool_projection),
    )


def read_branches(branches):
    """`branches` checked and as tuples, also where JSON has made lists of them."""

    def bad(expectation):
        return validation.bad_argument("branches", expectation, branches)

    def read(split):
        if not _is_list(split):
            raise bad("be a non-empty list of branches")
        for branch in split:
            if not _is_list(branch):
                raise bad(f"hold non-empty lists of steps, not {branch!r}")
        return tuple(tuple(map(read_step, branch)) for branch in split)

    def read_step(step):
        if isinstance(step, str) and step in _POOLS:
            return step
        if _is_list(step) and isinstance(step[0], (list, tuple)):
            return read(step)
        filters, *kernel_size = step if _is_list(step) else [step]
        try:
            filters = validation.positive_int("filters", filters)
            if not kernel_size:
                return filters
            (kernel_size,) = kernel_size
            return (filters, validation.positive_ints("kernel_size", kernel_size))
        except ValueError:
            raise bad(
                "hold steps that are (filters, kernel_size), an integer (a 1x1 convolution), one "
                f"of {sorted(_POOLS)} or a list of branches, not {step!r}"
            ) from None

    return read(branches)


def _is_list(value):
    return isinstance(value, (list, tuple)) and len(value) > 0


def _is_split(step):
    return isinstance(step, tuple) and isinstance(step[0], tuple)


def _split(branches, groups, padding):
    def to_step(step):
        if _is_split(step):
            return _split(step, groups, padding)
        if step in _POOLS:
            return steps.Pool(_POOLS[step], padding=padding)
        filters, kernel_size = step if isinstance(step, tuple) else (step, 1)
        step_groups = groups if validation.exceeds_one(kernel_size) else 1
        return steps.Conv(filters, kernel_size, groups=step_groups, padding=padding)

    return steps.Split(tuple(tuple(map(to_step, branch)) for branch in branches))


def _ends_in_pool(branches):
    return any(_ends_in_pool(end) if _is_split(end) else end in _POOLS for *_, end in branches)
