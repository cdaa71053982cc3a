"""Search spaces over residual and inception networks, for any KerasTuner tuner."""

import contextlib
import dataclasses
import itertools
import typing

import keras
import keras_tuner

from keras_resblocks import layers, validation
from keras_resblocks.layers import Conv, Pool, templates
from keras_resblocks.layers.attention import attention
from keras_resblocks.layers.inception import branches_v1
from keras_resblocks.models import InceptionSpec, ResNetSpec, cost, create_model
from keras_resblocks.models.structure import structure
from keras_resblocks.tuner import batches, recipes, space
from keras_resblocks.tuner.budget import Budget
from keras_resblocks.tuner.compilation import build_training, steps_per_execution
from keras_resblocks.tuner.hyperparameters import l2

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


class Argument(typing.NamedTuple):
    """What is known of an argument of the hypermodels that lists values.

    Attributes:
        option: its hyperparameter.
        check: function of the argument and a value, that raises where this is none.
        names: the values that have a name; others may be allowed too.
    """

    option: str
    check: typing.Callable
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


class NetworkHyperModel(keras_tuner.HyperModel):
    """What the search spaces over networks share.

    Each plural argument lists the values to search, as a list, a tuple or a `Range`; one value
    alone is fixed and no hyperparameter, and may as well be given in the singular
    (`activation="elu"`). None leaves the matter to the network. Whatever a block takes as
    `activation`, `shortcut` and the like may be listed.

    Args:
        input_shape: of one image, without the batch.
        classes: number of classes.
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
            `"auto"`: large where the image has 64 pixels or more in every direction.
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
            a mixed precision the classifier's softmax is in float32.

    The tuners of `keras_resblocks.tuner` only try candidates within the budget, and none that
    builds and trains the same network as another. With another tuner, `build` fails the trial
    of one above the budget (`keras_tuner.errors.FailedTrialError`).

    Raises:
        ValueError: for an option out of its range, or if not even the smallest candidate is
            within the budget; the message says what that one costs.
    """

    default_shortcut = "projection"

    # What is listed where the caller says nothing.
    defaults: typing.ClassVar = dict(
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
        input_shape,
        classes,
        *,
        max_params=None,
        max_macs=None,
        max_activation_memory=None,
        stages=3,
        per_stage=("depth",),
        schedule_epochs=None,
        name=None,
        tunable=True,
        **options,
    ):
        super().__init__(name=name, tunable=tunable)
        self.input_shape = tuple(input_shape)
        self.classes = classes
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
        self._check_budget()

    def build(self, hp):
        """The compiled model of a candidate."""
        excess = self.budget.excess(self.cost(hp), self._bytes_a_value())
        if excess:
            raise keras_tuner.errors.FailedTrialError(f"The candidate is over budget: {excess}")
        self._choose_training(hp)
        model = self.network(hp)
        self.compile(hp, model)
        return model

    def network(self, hp):
        """The model of a candidate, not compiled."""
        spec, options = self.candidate(hp)
        regularizer = {"kernel_regularizer": l2(self.choose(hp, "l2"))}
        inputs = keras.Input(self.input_shape)
        x = recipes.augmented(inputs, self.choose(hp, "augmentation"), self._site())
        is_mixed = self._policy().compute_dtype != self._policy().variable_dtype
        outputs = create_model(
            spec,
            input_shape=self.input_shape,
            input_tensor=x,
            classes=self.classes,
            classifier_activation=None if is_mixed else "softmax",
            **{**regularizer, **options},
        ).output
        if is_mixed:
            outputs = keras.layers.Activation("softmax", dtype="float32", name="softmax")(outputs)
        return keras.Model(inputs, outputs)

    def compile(self, hp, model):
        """Compiles the model; override it for another optimizer, loss or metrics."""
        model.compile(
            optimizer=recipes.optimizer_of(
                self.choose(hp, "optimizer"), self.choose(hp, "learning_rate"), self._policy()
            ),
            loss=recipes.loss_of(self.choose(hp, "label_smoothing")),
            metrics=["accuracy"],
        )

    def fit(self, hp, model, *args, callbacks=None, **kwargs):
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
        if self.batch_size is not None:
            kwargs.setdefault("batch_size", self.batch_size)
        elif "batch_size" in self.options:
            kwargs["batch_size"] = self.choose(hp, "batch_size")
        batch_size = kwargs.get("batch_size") or 32  # as in `fit`
        samples = _samples((*args, kwargs.get("x")))
        if model.steps_per_execution == 1:
            model.steps_per_execution = steps_per_execution(samples, batch_size)
        validation_samples = _samples(kwargs.get("validation_data"))
        if validation_samples is not None:
            even = batches.even_batch_size(validation_samples, batch_size)
            kwargs.setdefault("validation_batch_size", even)
        build_training(model, args[1] if len(args) > 1 else kwargs.get("y"))
        args, kwargs = batches.for_fit(args, kwargs, batch_size)
        return super().fit(hp, model, *args, callbacks=callbacks, **kwargs)

    @property
    def batch_size(self):
        """The batch size, where it is fixed; None where it is searched or left out."""
        values = self.options.get("batch_size")
        return values.extremes[0] if values is not None and values.is_fixed else None

    def candidate(self, hp):
        """The spec and the block options that the hyperparameters stand for."""
        raise NotImplementedError

    def choose(self, hp, option, name=None):
        """The value of an option, searched as the hyperparameter `name`; None if left out."""
        return self.options[option].choose(hp, name or option) if option in self.options else None

    def cost(self, hp):
        """The `Cost` of a candidate, without building it."""
        spec, options = self.candidate(hp)
        return cost(spec, input_shape=self.input_shape, classes=self.classes, **options)

    def within_budget(self, values):
        """Whether the candidate with these hyperparameter values can be built, within budget."""
        try:
            candidate_cost = self.cost(_parameters(values))
        except ValueError:  # as groups that do not divide the filters
            return False
        return not self.budget.excess(candidate_cost, self._bytes_a_value())

    def identity(self, values):
        """A text that is equal for two candidates which are the same network, trained alike."""
        hp = _parameters(values)
        spec, options = self.candidate(hp)
        network = structure(spec, channels=self._channels(), **options)
        return repr((network, self._choose_training(hp)))

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
        if option in self.per_stage:
            return [f"{option}_{stage}" for stage in range(1, self.stages + 1)]
        return [option] * self.stages

    def _choose_stem(self, hp, width):
        """The steps before the blocks."""
        stem = self.choose(hp, "stem")
        if stem == "auto":
            stem = "small" if min(self._spatial()) < 64 else "large"
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

    defaults: typing.ClassVar = {
        **NetworkHyperModel.defaults,
        "blocks": ("residual", "bottleneck"),
        "expansions": None,
        "groups": None,
    }

    def candidate(self, hp):
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

    def is_deeper(self, values, others):
        """Whether the candidate of `values` is that of `others` with further blocks."""
        (spec, options), (other, other_options) = (
            self.candidate(_parameters(v)) for v in (values, others)
        )
        is_deeper = spec.depths != other.depths and all(
            depth >= less for depth, less in zip(spec.depths, other.depths)
        )
        is_alike = dataclasses.replace(spec, depths=other.depths) == other
        return is_deeper and is_alike and options == other_options

    def check_growth(self):
        """Checks that further blocks start as the identity (He et al. 2016b, section 2).

        Raises:
            ValueError: where they do not: after the sum of a post-activation block comes an
                activation that changes its own output, the shortcut has weights, or the branch
                does not start as zero.
        """
        for values in self._smallest_of_each_kind():
            spec, options = self.candidate(_parameters(values))
            spec = dataclasses.replace(spec, depths=tuple(depth + 1 for depth in spec.depths))
            _, parts = structure(spec, channels=self._channels(), **options)
            plan, _ = parts[-1]
            starts_as_zero = all(
                step.zero_init for step in plan.branch[-1:] if isinstance(step, Conv)
            )
            if plan.shortcut or not starts_as_zero or not _is_idempotent(plan.exit, self._site()):
                raise ValueError(
                    "`warm_start=True` needs blocks that start as the identity: "
                    "`zero_init_residual=True`, a shortcut without weights, and an activation "
                    "that leaves its own output as it is, as ReLU does and ELU does not, or "
                    f"pre-activation. Received: { ({**values, **options}) }"
                )


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

    defaults: typing.ClassVar = {
        **NetworkHyperModel.defaults,
        "widths": (32, 64, 128),
        "depths": (1, 2, 3),
        "kinds": ("v1", "v2"),
    }

    def candidate(self, hp):
        branches = _INCEPTION_BRANCHES[self.choose(hp, "kind")]
        depths, widths = self._choose_depths(hp), self._choose_widths(hp, multiple=16)
        stages = [(branches(width // 16),) * depth for depth, width in zip(depths, widths)]
        pooled = [(Pool("max", 3, 2), *stage) for stage in stages[1:]]
        spec = InceptionSpec((stages[0], *pooled), stem=self._choose_stem(hp, widths[0]))
        return spec, self._choose_blocks(hp)


def _samples(data):
    """The number of samples in a tuple that begins with an array; None for anything else."""
    is_of_arrays = isinstance(data, (tuple, list)) and hasattr(data[0], "shape")
    return data[0].shape[0] if is_of_arrays else None


def _is_idempotent(activation, site):
    """Whether an activation does nothing to its own output."""
    if activation is None:
        return True
    layer = activation.make(site, "tried")
    once = layer(keras.ops.reshape(keras.ops.linspace(-8.0, 8.0, 65), (1, -1)))
    difference = keras.ops.max(keras.ops.abs(layer(once) - once))
    return not layer.weights and float(difference) < 1e-6


def _parameters(values):
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp
