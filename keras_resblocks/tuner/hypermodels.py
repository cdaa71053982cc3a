"""Search spaces over residual and inception networks, for any KerasTuner tuner."""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import keras_tuner

from keras_resblocks import layers, validation
from keras_resblocks.layers import Conv, Pool, templates
from keras_resblocks.layers.attention import attention
from keras_resblocks.layers.inception import branches_v1
from keras_resblocks.models import Cost, InceptionSpec, ResNetSpec, cost, create_model
from keras_resblocks.models.parts import identity
from keras_resblocks.models.specs import NetworkSpec
from keras_resblocks.tuner.base import (
    TRAINING,
    TRAINING_ARGUMENTS,
    Argument,
    Listed,
    Settings,
    TrainingHyperModel,
    TrainingOptions,
    named,
)
from keras_resblocks.types import NetworkOptions, Pluggable, Unpack

# The branches of an inception block that outputs 16 times `u` channels, by its kind: as in
# GoogLeNet; with two 3x3 convolutions for a 5x5, and with 1x7 and 7x1 (Szegedy et al. 2016,
# figures 5 and 6).
_INCEPTION_BRANCHES = {
    "v1": lambda u: branches_v1(4 * u, (6 * u, 8 * u), (u, 2 * u), 2 * u),
    "v2": lambda u: (
        (4 * u,),
        (6 * u, (8 * u, 3)),
        (u, (2 * u, 3), (2 * u, 3)),
        ("avg_pool", 2 * u),
    ),
    "factorized": lambda u: (
        (4 * u,),
        (6 * u, (6 * u, (1, 7)), (8 * u, (7, 1))),
        (u, (u, (7, 1)), (2 * u, (1, 7))),
        ("avg_pool", 2 * u),
    ),
}


ARGUMENTS = {
    "blocks": named("block", ("residual", "bottleneck")),
    "kinds": named("kind", _INCEPTION_BRANCHES),
    "depths": Argument("depth", validation.positive_int),
    "widths": Argument("width", validation.positive_int),
    "width_multipliers": Argument("width_multiplier", validation.positive_number),
    "expansions": Argument("expansion", validation.positive_int),
    "groups": Argument("groups", validation.positive_int),
    "stems": named("stem", ("auto", "small", "large")),
    "activations": named("activation", templates.activation.names, templates.activation.get),
    "normalizations": named(
        "normalization", templates.normalization.names, templates.normalization.get
    ),
    "attentions": named("attention", attention.names, attention.get),
    "shortcuts": named("shortcut", layers.shortcuts.NAMES, layers.shortcuts.get),
    "preactivations": Argument("preactivation", validation.boolean),
    "drop_path_rates": Argument("drop_path_rate", validation.rate),
    **TRAINING_ARGUMENTS,
}

# Those that are options of the blocks under the same name.
_BLOCK_OPTIONS = ("activation", "normalization", "attention", "shortcut", "preactivation", "groups")

_Block: TypeAlias = Literal["residual", "bottleneck"]
_Stagewise: TypeAlias = Literal["depth", "width"]
_Kind: TypeAlias = Literal["v1", "v2", "factorized"]
_Stem: TypeAlias = Literal["auto", "small", "large"]


class SearchOptions(TrainingOptions, NetworkOptions, total=False):
    """What a hypermodel lists, in the plural, or fixes, and the options of its blocks."""

    block: _Block
    blocks: Listed[_Block]
    kind: _Kind
    kinds: Listed[_Kind]
    depth: int
    depths: Listed[int]
    width: int
    widths: Listed[int]
    width_multiplier: float
    width_multipliers: Listed[float]
    expansions: Listed[int]
    groups: Listed[int]
    stem: _Stem
    stems: Listed[_Stem]
    activations: Listed[Pluggable]
    normalizations: Listed[Pluggable]
    attentions: Listed[Pluggable]
    shortcuts: Listed[layers.shortcuts.Shortcut | Pluggable]
    preactivations: Listed[bool]
    drop_path_rates: Listed[float]


class NetworkArguments(SearchOptions, Settings, total=False):
    """All keywords of a hypermodel, but for those that it declares itself."""


class NetworkHyperModel(TrainingHyperModel):
    """What the search spaces over networks share.

    Whatever a block takes as `activation`, `shortcut` and the like may be listed.

    Args:
        input_shape: of one image, without the batch; None for an open size.
        classes: number of classes.
        stages: number of stages; all but the first halve the resolution.
        per_stage: those of `"depth"` and `"width"` that are searched for each stage by itself;
            the others are one hyperparameter for all stages.
        depths: numbers of blocks in a stage; by default 1 to 4, for inception 1 to 3.
        widths: the width of the first stage; by default 16, 32 and 64, for inception twice that.
        width_multipliers: what the width is multiplied by from stage to stage; by default 2.
        stems: `"small"` (one 3x3 convolution), `"large"` (7x7 with stride 2, then pooling), or
            `"auto"`: large where no known size of the image is below 64.
        activations: of the blocks; by default `"relu"` and `"elu"`.
        normalizations: of the blocks.
        attentions: of the blocks.
        shortcuts: of the blocks.
        preactivations: of True and False.
        drop_path_rates: of the blocks, probabilities in [0, 1).
        **options: as in `TrainingHyperModel`: task, budget (`max_params`, ...), training
            (`learning_rates`, ...) and block options.

    Raises:
        ValueError: as `TrainingHyperModel`.

    Examples:
        >>> import keras_tuner
        >>> from keras_resblocks.tuner import ResNetHyperModel
        >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, depths=(2, 3), widths=16)
        >>> spec, options = hypermodel.candidate(keras_tuner.HyperParameters())
        >>> spec.depths, spec.width, options
        ((2, 2, 2), (16, 32, 64), {'activation': 'relu'})
    """

    default_shortcut = "projection"

    arguments: ClassVar[dict[str, Argument]] = ARGUMENTS
    defaults: ClassVar[dict[str, Any]] = dict(
        depths=(1, 2, 3, 4),
        widths=(16, 32, 64),
        width_multipliers=2,
        stems="auto",
        activations=("relu", "elu"),
        **TrainingHyperModel.defaults,
        normalizations=None,
        attentions=None,
        shortcuts=None,
        preactivations=None,
        drop_path_rates=None,
    )

    def __init__(
        self,
        input_shape: Sequence[int | None],
        classes: int,
        *,
        stages: int = 3,
        per_stage: _Stagewise | Sequence[_Stagewise] = ("depth",),
        **options: "Unpack[NetworkArguments]",
    ) -> None:
        self.stages = validation.positive_int("stages", stages)
        self.per_stage = (per_stage,) if isinstance(per_stage, str) else tuple(per_stage)
        for option in self.per_stage:
            validation.one_of("per_stage", option, ("depth", "width"))
        super().__init__(input_shape, classes, **options)

    def candidate(self, hp: keras_tuner.HyperParameters) -> tuple[NetworkSpec, dict[str, Any]]:
        """The network that the hyperparameters stand for.

        Args:
            hp: the `keras_tuner.HyperParameters`.

        Returns:
            A spec and the block options, for `create_model`.
        """
        raise NotImplementedError

    def cost(self, hp: keras_tuner.HyperParameters) -> Cost:
        spec, options = self.candidate(hp)
        return cost(spec, input_shape=self.input_shape, classes=self.classes, **options)

    def _outputs(self, hp, x, activation):
        spec, options = self.candidate(hp)
        options = {"kernel_regularizer": self._regularizer(hp), **options}
        fixed = dict(input_shape=self.input_shape, input_tensor=x, classes=self.classes)
        return create_model(spec, classifier_activation=activation, **fixed, **options).output

    def _network_identity(self, hp):
        spec, options = self.candidate(hp)
        return identity(spec, channels=self._site().channels, **options)

    def _own_names(self):
        return super()._own_names().union(*map(self._stage_names, self.options))

    def _choose_blocks(self, hp):
        """The block options of a candidate; what is left out is left to the network."""
        names = [name for name in _BLOCK_OPTIONS if name in self.options]
        options = {name: self.choose(hp, name) for name in names}
        if "drop_path_rate" in self.options:  # without a shortcut there is nothing to fall back on
            with self._where(hp, "shortcut", lambda shortcut: shortcut is not None):
                rate = self.choose(hp, "drop_path_rate")
            if options.get("shortcut", self.default_shortcut) is not None:
                options["drop_path_rate"] = rate
        return {**options, **self.block_options}

    def _choose_depths(self, hp):
        return tuple(self.choose(hp, "depth", name) for name in self._names("depth"))

    def _choose_widths(self, hp, multiple=1):
        """The width of each stage, a multiple of some number."""
        widths = [self.choose(hp, "width", name) for name in self._names("width")]
        if "width" not in self.per_stage and self.stages > 1:
            factor = self.choose(hp, "width_multiplier")
            widths = [width * factor**stage for stage, width in enumerate(widths)]
        return tuple(max(multiple, round(width / multiple) * multiple) for width in widths)

    def _names(self, option):
        """The hyperparameter of each stage: one for all, or one each."""
        return self._stage_names(option) if option in self.per_stage else [option] * self.stages

    def _stage_names(self, option):
        return [f"{option}_{stage}" for stage in range(1, self.stages + 1)]

    def _choose_stem(self, hp, width):
        """The steps before the blocks."""
        stem = self.choose(hp, "stem")
        if stem == "auto":
            sizes = [size for size in self._spatial() if size is not None]
            stem = "small" if min(sizes, default=64) < 64 else "large"
        return (Conv(width, 3),) if stem == "small" else (Conv(width, 7, 2), Pool("max", 3, 2))

    def _smallest_of_each_kind(self):
        """The values of the smallest candidates: sizes at their least, all else in all ways."""
        values = {}
        for option, listed in self.options.items():
            if not listed.is_fixed and option not in (*TRAINING, "drop_path_rate"):
                is_size = option in ("depth", "width", "width_multiplier", "expansion")
                kinds = [min(listed.extremes)] if is_size else listed.extremes
                values.update(dict.fromkeys(self._names(option), kinds))
        for candidate in itertools.product(*values.values()):
            yield dict(zip(values, candidate))


class ResNetHyperModel(NetworkHyperModel):
    """Residual networks of searched depth, width and kind, within a budget.

    Hyperparameters are what is listed with more than one value, by default `block`, `depth_1`,
    `depth_2`, ..., `width`, `activation`, `l2` and `learning_rate`.

    Args:
        input_shape: of one image, without the batch; None for an open size.
        classes: number of classes.
        stages: as in `NetworkHyperModel`.
        per_stage: as in `NetworkHyperModel`.
        blocks: of `"residual"` and `"bottleneck"`.
        expansions: of the bottleneck blocks, which output so many times their width.
        groups: of the 3x3 convolutions; candidates whose filters they do not divide are none.
        **options: as in `NetworkHyperModel`: `max_params`, `depths`, `learning_rates`, ...

    Raises:
        ValueError: as `TrainingHyperModel`.

    Examples:
        >>> from keras_resblocks.tuner import RandomSearch, ResNetHyperModel
        >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, max_params=100_000, widths=(8, 16))
        >>> tuner = RandomSearch(hypermodel, "val_accuracy", max_trials=12)
    """

    defaults: ClassVar[dict[str, Any]] = {
        **NetworkHyperModel.defaults,
        "blocks": ("residual", "bottleneck"),
        "expansions": None,
        "groups": None,
    }

    def candidate(self, hp: keras_tuner.HyperParameters) -> tuple[NetworkSpec, dict[str, Any]]:
        block = self.choose(hp, "block")
        widths = self._choose_widths(hp)
        spec = ResNetSpec(
            block=block,
            depths=self._choose_depths(hp),
            width=widths,
            stem=self._choose_stem(hp, widths[0]),
        )
        options = self._choose_blocks(hp)
        if "expansion" in self.options:
            with self._where(hp, "block", lambda block: block == "bottleneck"):
                expansion = self.choose(hp, "expansion")
            if block == "bottleneck":
                options["expansion"] = expansion
        return spec, options


class InceptionHyperModel(NetworkHyperModel):
    """Inception networks of searched depth, width and kind, within a budget.

    Max pooling halves the resolution between the stages, as in GoogLeNet. With `shortcuts`
    the blocks are Inception-ResNet's.

    Args:
        input_shape: of one image, without the batch; None for an open size.
        classes: number of classes.
        stages: as in `NetworkHyperModel`.
        per_stage: as in `NetworkHyperModel`.
        kinds: of `"v1"` (GoogLeNet's four paths), `"v2"` (two 3x3 convolutions for the 5x5) and
            `"factorized"` (1x7 and 7x1, for images alone).
        **options: as in `NetworkHyperModel`. A width is the number of channels that a block
            outputs, rounded to a multiple of 16.

    Raises:
        ValueError: as `TrainingHyperModel`.

    Examples:
        >>> from keras_resblocks.tuner import InceptionHyperModel, RandomSearch
        >>> hypermodel = InceptionHyperModel((8, 8, 1), 10, max_params=100_000, kinds="v1")
        >>> tuner = RandomSearch(hypermodel, "val_accuracy", max_trials=12)

    References:
        Szegedy et al. 2015, "Going Deeper with Convolutions", table 1; 2016, "Rethinking the
        Inception Architecture", figures 4 to 6.
    """

    default_shortcut = None

    defaults: ClassVar[dict[str, Any]] = {
        **NetworkHyperModel.defaults,
        "widths": (32, 64, 128),
        "depths": (1, 2, 3),
        "kinds": ("v1", "v2"),
    }

    def candidate(self, hp: keras_tuner.HyperParameters) -> tuple[NetworkSpec, dict[str, Any]]:
        branches = _INCEPTION_BRANCHES[self.choose(hp, "kind")]
        depths, widths = self._choose_depths(hp), self._choose_widths(hp, multiple=16)
        stages = [(branches(width // 16),) * depth for depth, width in zip(depths, widths)]
        pooled = [(Pool("max", 3, 2), *stage) for stage in stages[1:]]
        spec = InceptionSpec((stages[0], *pooled), stem=self._choose_stem(hp, widths[0]))
        return spec, self._choose_blocks(hp)
