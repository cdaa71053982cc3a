"""Search spaces over residual and inception networks, for any KerasTuner tuner."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypeVar

import keras
import keras_tuner

from keras_resblocks import layers, validation
from keras_resblocks.layers import Conv, Pool, templates
from keras_resblocks.layers.attention import attention
from keras_resblocks.layers.inception import branches_v1
from keras_resblocks.models import Cost, InceptionSpec, ResNetSpec, cost, create_model
from keras_resblocks.models.options import known_options
from keras_resblocks.models.parts import identity
from keras_resblocks.models.specs import BLOCKS, NetworkSpec
from keras_resblocks.tuner import recipes, space
from keras_resblocks.tuner.budget import Budget
from keras_resblocks.tuner.hyperparameters import l2
from keras_resblocks.tuner.space import Range
from keras_resblocks.tuner.tasks import TASKS, fresh, objective_of
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


class Argument(NamedTuple):
    """What is known of an argument of the hypermodels that lists values.

    Attributes:
        option: its hyperparameter.
        check: function of the argument and a value, that raises where this is none.
        names: the values that have a name; others may be allowed too.
    """

    option: str
    check: Callable
    names: tuple = ()


def _named(option, names):
    return Argument(option, lambda name, value: validation.one_of(name, value, names), names)


def _pluggable(option, get, names):
    return Argument(option, lambda name, value: get(value), names)


def _slot(option, slot):
    return _pluggable(option, slot.get, tuple(slot.names))


def _batch_size(argument, value):
    return value is None or validation.positive_int(argument, value)


_STEMS = ("auto", "small", "large")

ARGUMENTS = {
    "blocks": _named("block", ("residual", "bottleneck")),
    "kinds": _named("kind", tuple(_INCEPTION_BRANCHES)),
    "depths": Argument("depth", validation.positive_int),
    "widths": Argument("width", validation.positive_int),
    "width_multipliers": Argument("width_multiplier", validation.positive_number),
    "expansions": Argument("expansion", validation.positive_int),
    "groups": Argument("groups", validation.positive_int),
    "stems": _named("stem", _STEMS),
    "activations": _slot("activation", templates.activation),
    "normalizations": _slot("normalization", templates.normalization),
    "attentions": _slot("attention", attention),
    "shortcuts": _pluggable("shortcut", layers.shortcuts.get, layers.shortcuts.NAMES),
    "preactivations": Argument("preactivation", validation.boolean),
    "drop_path_rates": Argument("drop_path_rate", validation.rate),
    "regularizers": Argument("l2", validation.non_negative_number),
    "optimizers": _named("optimizer", tuple(recipes.OPTIMIZERS)),
    "learning_rates": Argument("learning_rate", validation.positive_number),
    "schedules": _named("schedule", tuple(recipes.SCHEDULES)),
    "batch_sizes": Argument("batch_size", _batch_size),
    "augmentations": _pluggable(
        "augmentation", recipes.check_augmentation, tuple(recipes.AUGMENTATIONS)
    ),
    "label_smoothings": Argument("label_smoothing", validation.rate),
}

# Those that are options of the blocks under the same name, and those that no cost depends on.
_BLOCK_OPTIONS = (
    *("activation", "normalization", "attention", "shortcut", "preactivation", "groups"),
    "drop_path_rate",
)
_TRAINING = (
    *("l2", "optimizer", "learning_rate", "schedule", "batch_size", "augmentation"),
    "label_smoothing",
)


_T = TypeVar("_T")
# What a plural argument takes: values to search, or one that is fixed.
Listed: TypeAlias = _T | Sequence[_T] | Range | None

_Block: TypeAlias = Literal["residual", "bottleneck"]
_Stagewise: TypeAlias = Literal["depth", "width"]
_Kind: TypeAlias = Literal["v1", "v2", "factorized"]
_Stem: TypeAlias = Literal["auto", "small", "large"]
_Optimizer: TypeAlias = Literal["adam", "adamw", "lion", "nadam", "rmsprop", "sgd"]
_Schedule: TypeAlias = Literal["constant", "cosine", "linear", "step"]


class SearchOptions(NetworkOptions, total=False):
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
    l2: float
    regularizers: Listed[float]
    optimizer: _Optimizer
    optimizers: Listed[_Optimizer]
    learning_rate: float
    learning_rates: Listed[float]
    schedule: _Schedule
    schedules: Listed[_Schedule]
    batch_size: int | None
    batch_sizes: Listed[int | None]
    augmentation: str | keras.layers.Layer | None
    augmentations: Listed[str | keras.layers.Layer | None]
    label_smoothing: float
    label_smoothings: Listed[float]


class NetworkHyperModel(keras_tuner.HyperModel):
    """What the search spaces over networks share.

    Each plural argument lists the values to search, as a list, a tuple or a `Range`; one value
    alone is fixed and no hyperparameter, and may as well be given in the singular
    (`activation="elu"`). None leaves the matter to the network. Whatever a block takes as
    `activation`, `shortcut` and the like may be listed.

    Args:
        input_shape: of one sample, without the batch; None for an open size.
        classes: number of classes, labels or numbers to predict.
        task: `"classification"` (class numbers or one-hot labels), `"binary"` (one sigmoid),
            `"multilabel"` (a sigmoid for each label) or `"regression"`. It chooses the last
            activation, the loss, the metrics and the attribute `objective`.
        loss, metrics: for Keras's `compile`; by default those of the task.
        classifier_activation: of the last layer; by default that of the task, None for none.
        max_params: most parameters of a candidate, None for no limit.
        max_macs: most multiply-accumulates of a candidate for one image, None for no limit.
        max_activation_memory: most bytes that the convolutions' and dense layers' outputs for
            one image take, None for no limit; four bytes a value, or two in half precision.
        depths: numbers of blocks in a stage.
        widths: the width of the first stage.
        width_multipliers: what the width is multiplied by from stage to stage.
        per_stage: those of `"depth"` and `"width"` that are searched for each stage by itself;
            the others are one hyperparameter for all stages.
        stages: number of stages; all but the first halve the resolution.
        stems: `"small"` (one 3x3 convolution), `"large"` (7x7 with stride 2, then pooling), or
            `"auto"`: large where no known size of the image is below 64.
        activations, normalizations, attentions, shortcuts, preactivations, drop_path_rates:
            options of the blocks.
        regularizers: strengths of the L2 penalty on every kernel; 0 for none.
        optimizers: of `"adam"`, `"adamw"`, `"lion"`, `"nadam"`, `"rmsprop"` and `"sgd"` (with
            Nesterov momentum of 0.9).
        learning_rates: at the start.
        schedules: of `"constant"`, `"cosine"`, `"linear"` (both to zero) and `"step"` (a tenth
            after half of the epochs, and again after three quarters).
        schedule_epochs: epochs that a schedule takes; None for those of the training
            (`Hyperband`: of its longest).
        batch_sizes: None for the one that `search` is given.
        augmentations: in training, of `"flip"` (left to right), `"shift"` (by up to an eighth),
            `"shift_and_flip"`, None and Keras layers; for images alone.
        label_smoothings: shares of each label that are spread over all classes.
        **block_options: further options for all blocks, as in `create_model`, and `dtype`. With
            a mixed precision the last activation is in float32.

    Attributes:
        objective: the `keras_tuner.Objective` that fits the task, for a tuner.

    The tuners of `keras_resblocks.tuner` only try candidates within the budget, and none that
    builds and trains the same network as another. With another tuner, `build` fails the trial
    of one above the budget (`keras_tuner.errors.FailedTrialError`).

    Raises:
        ValueError: for an option out of its range, a budget that needs a size where one is open,
            or if not even the smallest candidate is within the budget; the message says what
            that one costs.
    """

    default_shortcut = "projection"

    # What is listed where the caller says nothing.
    defaults: ClassVar[dict[str, Any]] = dict(
        depths=(1, 2, 3, 4),
        widths=(16, 32, 64),
        width_multipliers=2,
        stems="auto",
        activations=("relu", "elu"),
        regularizers=(0.0, 1e-4),
        optimizers="adam",
        learning_rates=(3e-4, 1e-3, 3e-3),
        schedules="constant",
        batch_sizes=None,
        augmentations=None,
        label_smoothings=0.0,
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
        task: Literal["classification", "binary", "multilabel", "regression"] | None = None,
        loss: Any = None,
        metrics: Any = None,
        classifier_activation: Pluggable = "auto",
        max_params: int | None = None,
        max_macs: int | None = None,
        max_activation_memory: int | None = None,
        stages: int = 3,
        per_stage: _Stagewise | Sequence[_Stagewise] = ("depth",),
        schedule_epochs: int | None = None,
        name: str | None = None,
        tunable: bool = True,
        **options: "Unpack[SearchOptions]",
    ) -> None:
        super().__init__(name=name, tunable=tunable)
        self.input_shape = tuple(input_shape)
        self.classes = validation.positive_int("classes", classes)
        if task is None and classes == 1:
            raise ValueError(
                '`task` must be given for one output, whose softmax is always 1: "binary", '
                '"multilabel" or "regression". Received: classes=1, task=None'
            )
        self.task = validation.one_of("task", task or "classification", tuple(TASKS))
        if task == "binary" and classes != 1:
            raise ValueError(
                f'`classes` must be 1 for `task="binary"`. Received: classes={classes!r}'
            )
        self.objective = objective_of(self.task)
        self.loss, self.metrics = loss, metrics
        self.classifier_activation = classifier_activation
        self.budget = Budget(max_params, max_macs, max_activation_memory)
        self.stages = validation.positive_int("stages", stages)
        self.per_stage = (per_stage,) if isinstance(per_stage, str) else tuple(per_stage)
        for option in self.per_stage:
            validation.one_of("per_stage", option, ("depth", "width"))
        if schedule_epochs is not None:
            validation.positive_int("schedule_epochs", schedule_epochs)
        self.schedule_epochs = schedule_epochs
        # What is searched or fixed, by its hyperparameter; what is left out is not there.
        self.options = {}
        for argument, default in self.defaults.items():
            option, check, _ = ARGUMENTS[argument]
            if option in options and option != argument:
                if argument in options:
                    raise ValueError(
                        f"`{argument}` must not be given together with `{option}`. "
                        f"Received: {option}={options[option]!r}"
                    )
                values = space.read(option, (options.pop(option),), check)
            else:
                values = space.read(argument, options.pop(argument, default), check)
            if values is not None:
                self.options[option] = values
        self.block_options = options
        if None in self._spatial() and (max_macs or max_activation_memory):
            raise ValueError(
                "`max_macs` and `max_activation_memory` must be None for an open size, on which "
                f"both depend. Received: input_shape={input_shape!r}, max_macs={max_macs!r}, "
                f"max_activation_memory={max_activation_memory!r}"
            )
        if self.options["label_smoothing"].extremes != (0.0,) and (
            loss is not None or TASKS[self.task].smoothed_loss is None
        ):
            raise ValueError(
                "`label_smoothings` must be 0 with a `loss` of your own, and for regression. "
                f"Received: {self.options['label_smoothing'].extremes}"
            )
        self._check_budget()

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model of a candidate."""
        excess = self.budget.excess(self.cost(hp), self._bytes_a_value())
        if excess:
            raise keras_tuner.errors.FailedTrialError(f"The candidate is over budget: {excess}")
        self._choose_training(hp)
        model = self.network(hp)
        self.compile(hp, model)
        return model

    def network(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The model of a candidate, not compiled."""
        spec, options = self.candidate(hp)
        regularizer: dict[str, Any] = {"kernel_regularizer": l2(self.choose(hp, "l2"))}
        inputs = keras.Input(self.input_shape)
        x = recipes.augmented(inputs, self.choose(hp, "augmentation"), self._site())
        is_mixed = self._policy().compute_dtype != self._policy().variable_dtype
        activation = self.classifier_activation
        if activation == "auto":
            activation = TASKS[self.task].activation
        outputs = create_model(
            spec,
            input_shape=self.input_shape,
            input_tensor=x,
            classes=self.classes,
            classifier_activation=None if is_mixed else activation,
            **{**regularizer, **options},
        ).output
        if is_mixed:
            last = keras.layers.Activation(activation, dtype="float32", name="output_activation")
            outputs = last(outputs)
        return keras.Model(inputs, outputs)

    def compile(self, hp: keras_tuner.HyperParameters, model: keras.Model) -> None:
        """Compiles the model; override it for another optimizer, loss or metrics."""
        model.compile(
            optimizer=recipes.optimizer_of(
                self.choose(hp, "optimizer"), self.choose(hp, "learning_rate"), self._policy()
            ),
            loss=self._loss(self.choose(hp, "label_smoothing")),
            metrics=self._metrics(),
        )

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Declares what a candidate is chosen by, without building one."""
        self._choose_training(hp)
        self.candidate(hp)

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *args: Any,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Trains the model; override it for another way to train.

        Args:
            hp: the `keras_tuner.HyperParameters`.
            model: what `build` returned.
            *args, callbacks, **kwargs: what the tuner's `search` was given.
        """
        callbacks = list(callbacks or ())
        schedule = self.choose(hp, "schedule")
        if schedule != "constant":
            longest = hp.values.get("tuner/max_epochs", kwargs.get("epochs", 1))
            epochs = self.schedule_epochs or longest
            rate = self.choose(hp, "learning_rate")
            callbacks.insert(0, recipes.schedule_of(schedule, rate, epochs))
        if "batch_size" in self.options:
            _check_unbatched(args[0] if args else kwargs.get("x"))
            if self.batch_size is None:
                kwargs["batch_size"] = self.choose(hp, "batch_size")
            else:
                kwargs.setdefault("batch_size", self.batch_size)
        return super().fit(hp, model, *args, callbacks=callbacks, **kwargs)

    @property
    def batch_size(self) -> int | None:
        """The batch size, where it is fixed; None where it is searched or left out."""
        values = self.options.get("batch_size")
        return values.extremes[0] if values is not None and values.is_fixed else None

    def candidate(self, hp: keras_tuner.HyperParameters) -> tuple[NetworkSpec, dict[str, Any]]:
        """The spec and the block options that the hyperparameters stand for."""
        raise NotImplementedError

    def choose(self, hp: keras_tuner.HyperParameters, option: str, name: str | None = None) -> Any:
        """The value of an option, searched as the hyperparameter `name`; None if left out."""
        return self.options[option].choose(hp, name or option) if option in self.options else None

    def cost(self, hp: keras_tuner.HyperParameters) -> Cost:
        """The `Cost` of a candidate, without building it."""
        spec, options = self.candidate(hp)
        return cost(spec, input_shape=self.input_shape, classes=self.classes, **options)

    def within_budget(self, values: Mapping[str, Any]) -> bool:
        """Whether the candidate with these hyperparameter values can be built, within budget."""
        try:
            candidate_cost = self.cost(_parameters(values))
        except ValueError:  # as groups that do not divide the filters
            return False
        return not self.budget.excess(candidate_cost, self._bytes_a_value())

    def identity(self, values: Mapping[str, Any]) -> str:
        """A text that is equal for two candidates which are the same network, trained alike.

        Hyperparameters that are none of ours, as a subclass may declare them, tell candidates
        apart by their values.
        """
        hp = _parameters(values)
        spec, options = self.candidate(hp)
        network = identity(spec, channels=self._channels(), **options)
        own = {name for option in self.options for name in (option, *self._stage_names(option))}
        others = sorted((name, value) for name, value in values.items() if name not in own)
        return repr((network, self._choose_training(hp), others))

    def _loss(self, label_smoothing):
        if self.loss is not None:
            return fresh(self.loss)
        task = TASKS[self.task]
        return task.smoothed_loss(label_smoothing) if label_smoothing else task.loss

    def _metrics(self):
        if self.metrics is not None:
            return fresh(self.metrics)
        return TASKS[self.task].metrics(self.classes)

    def _choose_training(self, hp):
        return {option: self.choose(hp, option) for option in _TRAINING}

    def _choose_blocks(self, hp):
        """The block options of a candidate; what is left out is left to the network."""
        names = [name for name in _BLOCK_OPTIONS if name in self.options]
        options = {name: self.choose(hp, name) for name in names if name != "drop_path_rate"}
        if "drop_path_rate" in names:  # without a shortcut there is nothing to fall back on
            with self._where(hp, "shortcut", lambda shortcut: shortcut is not None):
                rate = self.choose(hp, "drop_path_rate")
            if options.get("shortcut", self.default_shortcut) is not None:
                options["drop_path_rate"] = rate
        return {**options, **self.block_options}

    def _where(self, hp, option, accepts):
        """A scope whose hyperparameters are there for the accepted values of an option alone."""
        values = self.options.get(option)
        if values is None or values.is_fixed:
            return contextlib.nullcontext()
        labels = [label for label, value in values.labels.items() if accepts(value)]
        return hp.conditional_scope(option, labels)

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

    def _policy(self):
        return keras.dtype_policies.get(self.block_options.get("dtype"))

    def _bytes_a_value(self):
        return 2 if self._policy().compute_dtype in ("float16", "bfloat16") else 4

    def _is_channels_first(self):
        chosen = self.block_options.get("data_format") or keras.config.image_data_format()
        return chosen == "channels_first"

    def _spatial(self):
        return self.input_shape[1:] if self._is_channels_first() else self.input_shape[:-1]

    def _channels(self):
        return self.input_shape[0 if self._is_channels_first() else -1]

    def _site(self):
        return templates.Site(
            rank=len(self.input_shape) - 1,
            channels=self._channels(),
            data_format="channels_first" if self._is_channels_first() else "channels_last",
            dtype="float32",
        )

    def _check_budget(self):
        """Raises if nothing in the space can be built, or is within the budget."""
        candidates, errors = [], []
        for values in self._smallest_of_each_kind():
            try:
                candidates.append((self.cost(_parameters(values)), values))
            except ValueError as error:  # as groups that do not divide the filters
                errors.append(error)
        if not candidates:
            self._check_names()
            raise errors[0]
        excess = [self.budget.excess(cost, self._bytes_a_value()) for cost, _ in candidates]
        if all(excess):
            least, values = min(candidates, key=lambda candidate: candidate[0].params)
            raise ValueError(
                "No candidate is within the budget: "
                f"{self.budget.excess(least, self._bytes_a_value())}. The smallest has "
                f"{least.params} parameters, {least.macs} multiply-accumulates and "
                f"{least.activations} activations ({values}). Received: "
                + ", ".join(f"{k}={v}" for k, v in dataclasses.asdict(self.budget).items())
            )

    def _check_names(self):
        """Raises for an option that is neither of this class nor of any block."""
        known = {"input_shape", *known_options(NetworkHyperModel), *self.defaults}
        for block in BLOCKS.values():
            known.update(known_options(block))
        validation.known_arguments(type(self).__name__, self.block_options, known)

    def _smallest_of_each_kind(self):
        """The values of the smallest candidates: numbers at their least, words in all ways."""
        numbers = {
            name: min(self.options[option].extremes)
            for option in ("depth", "width", "width_multiplier", "expansion")
            if option in self.options and not self.options[option].is_fixed
            for name in self._names(option)
        }
        words = {
            option: self.options[option].extremes
            for option in ("block", "kind", "stem", "groups", *_BLOCK_OPTIONS[:-1])
            if option in self.options and not self.options[option].is_fixed
        }
        for labels in itertools.product(*words.values()):
            yield {**numbers, **dict(zip(words, labels))}


class ResNetHyperModel(NetworkHyperModel):
    """Residual networks of searched depth, width and kind, within a budget.

    Args:
        input_shape: of one image, without the batch.
        classes: number of classes.
        blocks: of `"residual"` and `"bottleneck"`.
        expansions: of the bottleneck blocks, which output so many times their width.
        groups: of the 3x3 convolutions; candidates whose filters they do not divide are none.
        **options: as in `NetworkHyperModel`: budgets (`max_params`, ...), the lists of values
            (`depths`, `widths`, `activations`, `learning_rates`, ...) and block options.

    Hyperparameters: of what is listed with more than one value, by default `block`, `depth_1`,
    `depth_2`, ..., `width`, `activation`, `l2` and `learning_rate`.

    Raises:
        ValueError: as `NetworkHyperModel`.

    Example:

    >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, max_params=100_000)
    >>> tuner = keras_resblocks.tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=12)
    >>> tuner.search(x, y, epochs=20, validation_data=(x_val, y_val))
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
        input_shape: of one image, without the batch.
        classes: number of classes.
        kinds: of `"v1"` (GoogLeNet's four paths), `"v2"` (two 3x3 convolutions for the 5x5) and
            `"factorized"` (1x7 and 7x1, for images alone).
        **options: as in `NetworkHyperModel`. A width is the number of channels that a block
            outputs, rounded to a multiple of 16.

    Raises:
        ValueError: as `NetworkHyperModel`.

    References: Szegedy et al. 2015, "Going Deeper with Convolutions", table 1; 2016,
    "Rethinking the Inception Architecture", figures 4 to 6.
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


def _check_unbatched(data):
    """Raises for data that comes in batches: `fit` takes no other batch size for it."""
    if not hasattr(data, "shape") and not isinstance(data, (list, tuple, dict)):
        raise keras_tuner.errors.FatalValueError(
            "`batch_sizes` must be left out where the data is batched already. Received: data of "
            f"type {type(data).__name__}"
        )


def _parameters(values):
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp
