"""Architectures as data: what each network consists of, and where that is published."""

import dataclasses
import itertools
import typing
from collections.abc import Mapping

import keras

from keras_resblocks import validation
from keras_resblocks.layers import (
    BottleneckBlock,
    InceptionBlock,
    ResidualBlock,
    steps,
    templates,
)
from keras_resblocks.layers.inception import branches_v1, read_branches
from keras_resblocks.layers.shortcuts import ProjectionShortcut
from keras_resblocks.layers.steps import Conv, Pool

BLOCKS = {"residual": ResidualBlock, "bottleneck": BottleneckBlock, "inception": InceptionBlock}

# He et al. 2016a, table 1: 7x7, 64, stride 2; 3x3 max pool, stride 2.
IMAGENET_STEM = (Conv(64, 7, 2), Pool("max", 3, 2))


@dataclasses.dataclass(frozen=True)
class BlockCall:
    """A block in a network: its class and the arguments that the network gives it."""

    kind: str  # a key of BLOCKS
    shape: tuple  # pairs: what the block computes at this place
    drop_path_rate: float = 0.0

    def arguments(self):
        """The arguments of the block at this place."""
        return {**dict(self.shape), "drop_path_rate": self.drop_path_rate}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What the specs of all networks say.

    Attributes:
        final_pool: size of the average pooling before the classifier, whose result is
            flattened; None for global average pooling.
        dropout: rate before the classifier.
        options: block options that belong to the architecture, such as `use_bias`.
        input_shape: of the images that the network was published for, channels last.
        classes: of the data set that it was published for.
    """

    final_pool: int | None = None
    dropout: float = 0.0
    options: Mapping = dataclasses.field(default_factory=dict)
    input_shape: tuple = (224, 224, 3)
    classes: int = 1000

    def __post_init__(self):
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

    def default_options(self):
        """The options of the blocks, before the user's own."""
        return {**self.options}

    def parts(self, options):
        """The network from stem to last block: pairs of a name and a step or a `BlockCall`.

        Args:
            options: all the block options in force.
        """
        stem = self.stem
        convolutions = [i for i, step in enumerate(stem) if isinstance(step, Conv)]
        if options["preactivation"] and convolutions:  # the first block has both in its entry
            end = convolutions[-1] + 1
            stem = (*steps.with_linear_end(stem[:end], preactivation=True), *stem[end:])
        yield from zip(steps.names(stem, "stem_"), stem)

        parts = list(self.stage_parts())
        last = sum(isinstance(part, BlockCall) for _, part in parts) - 1
        index = itertools.count()
        for name, part in parts:
            if isinstance(part, BlockCall):
                # The rate grows linearly with depth (Huang et al. 2016, section 3).
                rate = options["drop_path_rate"] * next(index) / max(1, last)
                part = dataclasses.replace(part, drop_path_rate=rate)
            yield name, part

    def stage_parts(self):
        """The same from the first block on, whatever the options."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
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
        final_pool, dropout, options, input_shape, classes: as in `NetworkSpec`.

    Example:

    >>> spec = ResNetSpec("bottleneck", (3, 4, 6, 3), 64, options={"use_bias": True})
    >>> create_model(spec, input_shape=(64, 64, 3), classes=6)
    """

    block: str = "residual"
    depths: tuple = (2, 2, 2, 2)
    width: int | tuple = 64
    stem: tuple = IMAGENET_STEM
    strides: tuple | None = None
    stride_at: str = "first"

    def __post_init__(self):
        super().__post_init__()
        validation.one_of("block", self.block, ("residual", "bottleneck"))
        validation.one_of("stride_at", self.stride_at, ("first", "last"))
        if not isinstance(self.depths, (list, tuple)) or not self.depths:
            raise ValueError(
                "`depths` must be a non-empty tuple of positive integers. "
                f"Received: depths={self.depths!r}"
            )
        for depth in self.depths:
            validation.positive_int("depths", depth)
        for name, values in (("width", self.widths()), ("strides", self.stage_strides())):
            if not isinstance(values, (list, tuple)) or len(values) != len(self.depths):
                raise ValueError(
                    f"`{name}` must have one entry for each of {len(self.depths)} stages. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
            for value in values:
                validation.positive_int(name, value)

    def widths(self):
        """The blocks' `filters` in each stage."""
        if isinstance(self.width, (list, tuple)):
            return tuple(self.width)
        width = validation.positive_int("width", self.width)
        return tuple(width * 2**stage for stage in range(len(self.depths)))

    def stage_strides(self):
        """The stride of each stage."""
        return self.strides or (1,) + (2,) * (len(self.depths) - 1)

    def default_options(self):
        """Branches start as zero: a deeper network starts as the shallower one."""
        return {"zero_init_residual": True, **self.options}

    def stage_parts(self):
        stages = zip(self.depths, self.widths(), self.stage_strides())
        for s, (depth, width, strides) in enumerate(stages, start=1):
            strided = 0 if self.stride_at == "first" else depth - 1
            for b in range(depth):
                shape = (("filters", width), ("strides", strides if b == strided else 1))
                yield f"stage{s}_block{b + 1}", BlockCall(self.block, shape)


@dataclasses.dataclass(frozen=True)
class InceptionSpec(NetworkSpec):
    """An inception network as data.

    Attributes:
        stages: for each stage a tuple of blocks, each the `branches` of an `InceptionBlock`.
        stem: the steps before the blocks.
        between: the step between two stages.
        final_pool, dropout, options, input_shape, classes: as in `NetworkSpec`.
    """

    block: typing.ClassVar[str] = "inception"

    stages: tuple
    stem: tuple = IMAGENET_STEM
    between: Pool = Pool("max", 3, 2)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.stages, (list, tuple)) or not all(
            isinstance(blocks, (list, tuple)) and blocks for blocks in self.stages
        ):
            raise ValueError(
                "`stages` must hold for each stage a non-empty tuple of blocks. "
                f"Received: stages={self.stages!r}"
            )
        stages = tuple(tuple(map(read_branches, blocks)) for blocks in self.stages)
        object.__setattr__(self, "stages", stages)

    def stage_parts(self):
        for s, blocks in enumerate(self.stages, start=1):
            if s > 1:
                yield f"stage{s}_pool", self.between
            for b, branches in enumerate(blocks, start=1):
                yield f"stage{s}_block{b}", BlockCall(self.block, (("branches", branches),))


# The epsilon and momentum of keras.applications.
_KERAS_NORM = templates.of_class(
    keras.layers.BatchNormalization, axis=-1, epsilon=1.001e-5, momentum=0.99
)

# Depths: He et al. 2016a, table 1.
_BOTTLENECK_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _imagenet():
    """Torchvision's structure (v1.5): the stride in the 3x3 convolution of a bottleneck."""
    yield "resnet18", ResNetSpec("residual", (2, 2, 2, 2))
    yield "resnet34", ResNetSpec("residual", (3, 4, 6, 3))
    for layers, depths in _BOTTLENECK_DEPTHS.items():
        yield f"resnet{layers}", ResNetSpec("bottleneck", depths)


def _keras_applications():
    """keras.applications' structures: biased convolutions, the stride in the 1x1; and v2."""
    v1 = {"use_bias": True, "stride_in_1x1": True, "normalization": _KERAS_NORM}
    v2 = {
        "preactivation": True,
        "shortcut": ProjectionShortcut("channels"),
        "normalization": _KERAS_NORM,
    }
    v2_stem = (Conv(64, 7, 2), Pool("max", 3, 2, pad_value=0.0))
    for layers, depths in _BOTTLENECK_DEPTHS.items():
        yield f"resnet{layers}_keras", ResNetSpec("bottleneck", depths, options=v1)
        yield (
            f"resnet{layers}v2_keras",
            ResNetSpec(
                "bottleneck",
                depths,
                stem=v2_stem,
                strides=(2, 2, 2, 1),
                stride_at="last",
                options=v2,
            ),
        )


def _cifar():
    """He et al. 2016a, section 4.2: 6n + 2 layers on 32x32 pixels, option A shortcuts."""
    for layers in (20, 32, 44, 56, 110):
        yield (
            f"resnet{layers}_cifar",
            ResNetSpec(
                "residual",
                ((layers - 2) // 6,) * 3,
                16,
                stem=(Conv(16, 3),),
                options={"shortcut": "zero_pad"},
                input_shape=(32, 32, 3),
                classes=10,
            ),
        )


def _googlenet():
    """Szegedy et al. 2015, table 1, without the two local response normalizations."""
    stem = (Conv(64, 7, 2), Pool("max", 3, 2), Conv(64, 1), Conv(192, 3), Pool("max", 3, 2))
    stages = (
        (
            branches_v1(64, (96, 128), (16, 32), 32),
            branches_v1(128, (128, 192), (32, 96), 64),
        ),
        (
            branches_v1(192, (96, 208), (16, 48), 64),
            branches_v1(160, (112, 224), (24, 64), 64),
            branches_v1(128, (128, 256), (24, 64), 64),
            branches_v1(112, (144, 288), (32, 64), 64),
            branches_v1(256, (160, 320), (32, 128), 128),
        ),
        (
            branches_v1(256, (160, 320), (32, 128), 128),
            branches_v1(384, (192, 384), (48, 128), 128),
        ),
    )
    paper = InceptionSpec(stages, stem=stem, dropout=0.4, options={"normalization": None})
    yield "googlenet", paper
    yield "googlenet_bn", dataclasses.replace(paper, options={})


SPECS = dict(itertools.chain(_imagenet(), _keras_applications(), _cifar(), _googlenet()))


def get_spec(name_or_spec):
    """The spec of a name, or the spec itself.

    Raises:
        ValueError: for an unknown name, with the ones that are close.
    """
    if isinstance(name_or_spec, NetworkSpec):
        return name_or_spec
    if not isinstance(name_or_spec, str) or name_or_spec not in SPECS:
        raise ValueError(
            "The model must be a spec or one of the names that `list_models()` gives."
            f"{validation.did_you_mean(name_or_spec, SPECS)} Received: {name_or_spec!r}"
        )
    return SPECS[name_or_spec]
