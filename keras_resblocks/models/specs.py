"""What describes a network: the classes of the specs."""

import dataclasses
import inspect
import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from keras_resblocks import validation
from keras_resblocks.layers import BottleneckBlock, InceptionBlock, ResidualBlock, steps
from keras_resblocks.layers.inception import read_branches
from keras_resblocks.layers.steps import AdaptivePool, Conv, Pool
from keras_resblocks.shown import ShortRepr

BLOCKS = {"residual": ResidualBlock, "bottleneck": BottleneckBlock, "inception": InceptionBlock}

# He et al. 2016a, table 1: 7x7, 64, stride 2; 3x3 max pool, stride 2.
IMAGENET_STEM = (Conv(64, 7, 2), Pool("max", 3, 2))


@dataclasses.dataclass(frozen=True)
class BlockCall:
    """A block in a network: its class and the arguments that it has at this place."""

    kind: str  # a key of BLOCKS
    pairs: tuple  # name and value of each argument; a dict could not be looked up

    def arguments(self) -> dict[str, Any]:
        """The arguments of the block at this place."""
        return dict(self.pairs)

    def updated(self, **arguments: Any) -> "BlockCall":
        """The same with other arguments as well."""
        return BlockCall(self.kind, tuple({**self.arguments(), **arguments}.items()))


@dataclasses.dataclass(frozen=True)
class AuxHead:
    """An auxiliary classifier: pooling, a 1x1 convolution, a dense layer and the classifier.

    Attributes:
        after: name of the layer with the output that it classifies.
        pool: the `Pool` or `AdaptivePool` step that it begins with.
        filters: of the 1x1 convolution.
        units: of the dense layer, a convolution over all positions that are left.
        dropout: rate in [0, 1) before the classifier.

    Raises:
        ValueError: for another `pool`, a number that is not positive, or a rate outside [0, 1).

    Examples:
        >>> from keras_resblocks import InceptionSpec
        >>> from keras_resblocks.layers import Pool
        >>> from keras_resblocks.models import AuxHead
        >>> block = [[32], [16, (32, 3)], ["max_pool", 16]]
        >>> head = AuxHead("stage1_block2", Pool("avg", 5, 3))
        >>> spec = InceptionSpec([[block, block]], aux_heads=[head])

    References:
        Szegedy et al. 2015, "Going Deeper with Convolutions", section 5.
    """

    after: str
    pool: Pool | AdaptivePool
    filters: int = 128
    units: int = 1024
    dropout: float = 0.7

    def __post_init__(self) -> None:
        if not isinstance(self.pool, (Pool, AdaptivePool)):
            raise ValueError(
                "`pool` must be a `Pool` or an `AdaptivePool` step. "
                f"Received: pool={validation.shown(self.pool)}"
            )
        validation.positive_int("filters", self.filters)
        validation.positive_int("units", self.units)
        validation.rate("dropout", self.dropout)

    def steps(self, spatial: tuple[int, ...]) -> Iterator[tuple[str, Conv | Pool | AdaptivePool]]:
        """Pairs of a name and a step, for a `pool` that leads to that spatial shape."""
        yield "pool", self.pool
        yield "conv1", Conv(self.filters)
        dense = Conv(self.units, spatial, padding="valid", use_bias=True, normalization=None)
        yield "conv2", dense


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class NetworkSpec(ShortRepr):
    """The fields of both `ResNetSpec` and `InceptionSpec`, which document them."""

    final_pool: int | None = None
    dropout: float = 0.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    aux_heads: Sequence[AuxHead] = ()
    input_shape: Sequence[int] = (224, 224, 3)
    classes: int = 1000

    def __post_init__(self) -> None:
        self.stem: Sequence[Conv | Pool]  # a field of the subclasses, in another place of each
        if not isinstance(self.stem, (list, tuple)) or not all(
            isinstance(step, (Conv, Pool)) for step in self.stem
        ):
            raise ValueError(
                f"`stem` must be a tuple of `Conv` and `Pool` steps. Received: stem={self.stem!r}"
            )
        if self.final_pool is not None:
            validation.positive_ints("final_pool", self.final_pool)
        validation.rate("dropout", self.dropout)
        validation.positive_int("classes", self.classes)

    def _check_aux_heads(self):
        names = [name for name, _ in self.stage_parts()] if self.aux_heads else []
        for head in self.aux_heads:
            if not isinstance(head, AuxHead) or head.after not in names:
                raise ValueError(
                    "`aux_heads` must hold an `AuxHead` for each, `after` one of the layers "
                    f"{names}. Received: {head!r}"
                )

    def default_options(self) -> dict[str, Any]:
        """The options of the blocks, before the user's own."""
        return {**self.options}

    def parts(
        self, options: Mapping[str, Any], output_stride: int | None = None
    ) -> Iterator[tuple[str, Any]]:
        """The network from stem to last block: pairs of a name and a step or a `BlockCall`."""
        stem = self.stem
        convolutions = [i for i, step in enumerate(stem) if isinstance(step, Conv)]
        if options["preactivation"] and convolutions:  # the first block has both in its entry
            end = convolutions[-1] + 1
            stem = (*steps.with_linear_end(stem[:end], preactivation=True), *stem[end:])
        yield from zip(steps.names(stem, "stem_"), stem)
        yield from _fitted_to_shortcuts(list(self.stage_parts(output_stride)), options)

    def stage_parts(self, output_stride: int | None = None) -> Iterator[tuple[str, Any]]:
        """The same from the first block on, whatever the options."""
        raise NotImplementedError


def _fitted_to_shortcuts(parts, options):
    """The parts, the options that need a shortcut given to the blocks that have one."""

    def has_shortcut(block):
        return block.arguments().get("shortcut", options["shortcut"]) is not None

    blocks = [part for _, part in parts if isinstance(part, BlockCall)]
    is_plain = not any(map(has_shortcut, blocks))
    # The rate grows linearly with depth (Huang et al. 2016, section 3).
    rates = (options["drop_path_rate"] * i / max(1, len(blocks) - 1) for i in itertools.count())
    for name, part in parts:
        if isinstance(part, BlockCall):
            rate = {"drop_path_rate": next(rates)}
            if is_plain or has_shortcut(part):
                part = part.updated(**{**rate, **part.arguments()})
            else:
                part = part.updated(drop_path_rate=0.0, zero_init_residual=False)
        yield name, part


@dataclasses.dataclass(frozen=True, repr=False)
class ResNetSpec(NetworkSpec):
    """A residual network as data.

    Attributes:
        block: `"residual"` or `"bottleneck"`.
        depths: number of blocks in each stage.
        width: the blocks' `filters` in the first stage, doubled from stage to stage; or a tuple
            of one number for each stage.
        stem: the steps before the blocks (`Conv` and `Pool` of `keras_resblocks.layers`).
        strides: of each stage; by default 1, then 2 for each stage that follows.
        stride_at: `"first"` or `"last"`, the block of a stage that is strided.
        final_pool: size of the average pooling before the classifier, with a result that is
            flattened; None for global average pooling.
        dropout: rate in [0, 1) before the classifier.
        options: block options that belong to the architecture, such as `use_bias`.
        aux_heads: the auxiliary classifiers that the network can have, each an `AuxHead`.
        input_shape: of the images that the network was published for, channels last.
        classes: of the data set that it was published for.

    Raises:
        ValueError: for a value out of its range, or lists of different lengths.

    Examples:
        >>> from keras_resblocks import ResNetSpec, create_model
        >>> spec = ResNetSpec("bottleneck", (1, 2, 1), width=16, options={"use_bias": True})
        >>> create_model(spec, input_shape=(64, 64, 3), classes=6).output_shape
        (None, 6)
    """

    block: Literal["residual", "bottleneck"] = "residual"
    depths: Sequence[int] = (2, 2, 2, 2)
    width: int | Sequence[int] = 64
    stem: Sequence[Conv | Pool] = IMAGENET_STEM
    strides: Sequence[int] | None = None
    stride_at: Literal["first", "last"] = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        validation.one_of("block", self.block, ("residual", "bottleneck"))
        validation.one_of("stride_at", self.stride_at, ("first", "last"))
        if not isinstance(self.depths, (list, tuple)) or not self.depths:
            raise ValueError(
                "`depths` must be a non-empty tuple of positive integers. "
                f"Received: depths={self.depths!r}"
            )
        lists = {"depths": self.depths, "width": self.widths(), "strides": self.stage_strides()}
        for name, values in lists.items():
            if not isinstance(values, (list, tuple)) or len(values) != len(self.depths):
                raise ValueError(
                    f"`{name}` must have one entry for each of {len(self.depths)} stages. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
            for value in values:
                validation.positive_int(name, value)
        self._check_aux_heads()

    def widths(self) -> tuple[int, ...]:
        """The blocks' `filters` in each stage."""
        if isinstance(self.width, (list, tuple)):
            return tuple(self.width)
        width = validation.positive_int("width", self.width)
        return tuple(width * 2**stage for stage in range(len(self.depths)))

    def stage_strides(self) -> Sequence[int]:
        """The stride of each stage."""
        return self.strides or (1,) + (2,) * (len(self.depths) - 1)

    def default_options(self) -> dict[str, Any]:
        """Branches start as zero: a deeper network starts as the shallower one."""
        return {"zero_init_residual": True, **self.options}

    def stage_parts(self, output_stride: int | None = None) -> Iterator[tuple[str, Any]]:
        self._check_output_stride(output_stride)
        stride, rate = self._stem_stride(), 1
        stages = zip(self.depths, self.widths(), self.stage_strides())
        for s, (depth, width, stage_stride) in enumerate(stages, start=1):
            strided = 0 if self.stride_at == "first" else depth - 1
            for b in range(depth):
                strides = stage_stride if b == strided else 1
                arguments = {"filters": width, "strides": strides}
                stride *= strides
                if rate > 1:
                    arguments["dilation_rate"] = rate
                if output_stride is not None and stride > output_stride:
                    arguments["atrous"] = True
                    stride, rate = stride // strides, rate * strides
                yield f"stage{s}_block{b + 1}", BlockCall(self.block, tuple(arguments.items()))

    def _stem_stride(self):
        strides = (step.strides for step in self.stem)
        return math.prod(max(s) if isinstance(s, tuple) else s for s in strides)

    def _check_output_stride(self, output_stride):
        if output_stride is not None:
            reached = itertools.accumulate(
                self.stage_strides(), operator.mul, initial=self._stem_stride()
            )
            validation.one_of("output_stride", output_stride, sorted({*reached}))


@dataclasses.dataclass(frozen=True, repr=False)
class InceptionSpec(NetworkSpec):
    """An inception network as data.

    Attributes:
        stages: for each stage a tuple of blocks and of `Conv` and `Pool` steps. A block is the
            `branches` of an `InceptionBlock`, or a dict of its arguments.
        stem: the steps before the blocks.
        final_pool: as in `ResNetSpec`.
        dropout: as in `ResNetSpec`.
        options: as in `ResNetSpec`.
        aux_heads: as in `ResNetSpec`.
        input_shape: as in `ResNetSpec`.
        classes: as in `ResNetSpec`.

    Raises:
        ValueError: for a value out of its range, and for malformed `branches`.

    Examples:
        >>> from keras_resblocks import InceptionSpec, create_model
        >>> from keras_resblocks.layers import Pool
        >>> block = [[32], [16, (32, 3)], ["max_pool", 16]]
        >>> spec = InceptionSpec([[block, block], [Pool("max", 3, 2), block]])
        >>> create_model(spec, input_shape=(64, 64, 3), include_top=False).output_shape
        (None, 8, 8, 80)
    """

    block: ClassVar[str] = "inception"

    stages: Sequence[Any]
    stem: Sequence[Conv | Pool] = IMAGENET_STEM

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.stages, (list, tuple)) or not all(
            isinstance(stage, (list, tuple)) and stage for stage in self.stages
        ):
            raise ValueError(
                "`stages` must hold for each stage a non-empty tuple of blocks and steps. "
                f"Received: stages={self.stages!r}"
            )
        stages = tuple(tuple(map(_stage_part, stage)) for stage in self.stages)
        object.__setattr__(self, "stages", stages)
        self._check_aux_heads()

    def stage_parts(self, output_stride: int | None = None) -> Iterator[tuple[str, Any]]:
        if output_stride is not None:
            raise ValueError(
                "`output_stride` must be None for an inception network: its poolings cannot "
                f"be dilated. Received: output_stride={output_stride!r}"
            )
        for s, stage in enumerate(self.stages, start=1):
            others = [part for part in stage if not isinstance(part, BlockCall)]
            block_names = (f"stage{s}_block{b}" for b in itertools.count(1))
            step_names = steps.names(others, f"stage{s}_")
            for part in stage:
                yield next(block_names if isinstance(part, BlockCall) else step_names), part


def _stage_part(part):
    """A `BlockCall` or a step, from what a stage may hold."""
    if isinstance(part, (BlockCall, Conv, Pool)):
        return part
    arguments = dict(part) if isinstance(part, Mapping) else {"branches": part}
    validation.known_arguments(
        "InceptionBlock", arguments, inspect.signature(InceptionBlock).parameters
    )
    arguments["branches"] = read_branches(arguments.get("branches"))
    return BlockCall("inception", tuple(arguments.items()))
