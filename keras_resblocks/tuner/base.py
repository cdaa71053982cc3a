"""What hypermodels share: a task, a budget, and how their networks are trained."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar

import keras
import keras_tuner

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.models import Cost
from keras_resblocks.models.options import known_options
from keras_resblocks.models.specs import BLOCKS
from keras_resblocks.training import PackedOptimizer
from keras_resblocks.tuner import recipes, space
from keras_resblocks.tuner.hyperparameters import l2, parameters_of
from keras_resblocks.tuner.space import Range
from keras_resblocks.tuner.tasks import TASKS, objective_of
from keras_resblocks.types import Pluggable


class Argument(NamedTuple):
    """What is known of an argument of the hypermodels that lists values."""

    option: str  # its hyperparameter
    check: Callable  # of the argument and a value; raises where this is none
    names: tuple = ()  # of values; others may be allowed too


class Budget(NamedTuple):
    """The most that a candidate may cost; None for no limit."""

    max_params: int | None
    max_macs: int | None
    max_activation_memory: int | None


def named(option: str, names: Iterable[str], get: Callable | None = None) -> Argument:
    """An argument that lists some of these names, or whatever else `get` takes."""
    names = tuple(names)
    if get is not None:
        return Argument(option, lambda name, value: get(value), names)
    return Argument(option, lambda name, value: validation.one_of(name, value, names), names)


def _batch_size(argument, value):
    return value is None or validation.positive_int(argument, value)


TRAINING_ARGUMENTS = {
    "regularizers": Argument("l2", validation.non_negative_number),
    "optimizers": named("optimizer", recipes.OPTIMIZERS),
    "learning_rates": Argument("learning_rate", validation.positive_number),
    "schedules": named("schedule", recipes.SCHEDULES),
    "batch_sizes": Argument("batch_size", _batch_size),
    "augmentations": named("augmentation", recipes.AUGMENTATIONS, recipes.check_augmentation),
    "label_smoothings": Argument("label_smoothing", validation.rate),
}
TRAINING = tuple(argument.option for argument in TRAINING_ARGUMENTS.values())

_T = TypeVar("_T")
Listed: TypeAlias = _T | Sequence[_T] | Range | None
"""Values to search, a `Range` of them, one to fix it, or None to leave it to the network."""

_Task: TypeAlias = Literal["classification", "binary", "multilabel", "regression"]
_Optimizer: TypeAlias = Literal["adam", "adamw", "lion", "nadam", "rmsprop", "sgd"]
_Schedule: TypeAlias = Literal["constant", "cosine", "linear", "step"]


class TrainingOptions(TypedDict, total=False):
    """How networks are trained: what a hypermodel lists, in the plural, or fixes."""

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


class Settings(TypedDict, total=False):
    """What a hypermodel is told beside what it lists."""

    task: _Task | None
    loss: Any
    metrics: Any
    classifier_activation: Pluggable
    max_params: int | None
    max_macs: int | None
    max_activation_memory: int | None
    schedule_epochs: int | None
    name: str | None
    tunable: bool


class TrainingHyperModel(keras_tuner.HyperModel):
    """What the search spaces share, whatever networks they draw.

    Each plural argument lists the values to search, as a list, a tuple or a `Range`; one value
    alone is fixed and no hyperparameter, and may as well be given in the singular
    (`activation="elu"`). None leaves the matter to the network.

    The tuners of `keras_resblocks.tuner` only try candidates within the budget, and none that
    builds and trains the same network as another. With another tuner, `build` fails the trial
    of one above the budget (`keras_tuner.errors.FailedTrialError`).

    Args:
        input_shape: of one sample, without the batch; None for an open size.
        classes: number of classes, labels or numbers to predict.
        task: `"classification"` (class numbers or one-hot labels), `"binary"` (one sigmoid),
            `"multilabel"` (a sigmoid for each label) or `"regression"`.
        loss: for Keras's `compile`; by default that of the task.
        metrics: for Keras's `compile`; by default those of the task.
        classifier_activation: of the last layer; by default that of the task, None for none.
        max_params: most parameters of a candidate, None for no limit.
        max_macs: most multiply-accumulates of a candidate for one image, None for no limit.
        max_activation_memory: most bytes that the convolutions' and dense layers' outputs for
            one image take, None for no limit; four bytes a value, or two in half precision.
        schedule_epochs: epochs that a schedule takes; None for those of the training
            (`Hyperband`: of its longest).
        name: of the hypermodel, as in `keras_tuner.HyperModel`.
        tunable: as in `keras_tuner.HyperModel`.
        **options: the lists below; and further options for all blocks, as in `create_model`, and
            `dtype`. With a mixed precision the last activation is in float32.

    Keyword Args:
        regularizers (Listed[float]): strengths of the L2 penalty on every kernel; 0 for none.
        optimizers (Listed[str]): of `"adam"`, `"adamw"`, `"lion"`, `"nadam"`, `"rmsprop"` and
            `"sgd"` (with Nesterov momentum of 0.9).
        learning_rates (Listed[float]): at the start.
        schedules (Listed[str]): of `"constant"`, `"cosine"`, `"linear"` (both to zero) and
            `"step"` (a tenth after half of the epochs, and again after three quarters).
        batch_sizes (Listed[int | None]): None for the one that `search` is given.
        augmentations (Listed[str | keras.layers.Layer | None]): in training, of `"flip"` (left to
            right), `"shift"` (by up to an eighth), `"shift_and_flip"`, None and Keras layers; for
            images alone.
        label_smoothings (Listed[float]): shares of each label that are spread over all classes.

    Attributes:
        objective (keras_tuner.Objective): what fits the task, for a tuner.

    Raises:
        ValueError: for an option out of its range, a budget that needs a size where one is open,
            or if not even the smallest candidate is within the budget.

    Examples:
        A subclass has another optimizer:

        >>> import keras
        >>> import keras_tuner
        >>> from keras_resblocks.tuner import ResNetHyperModel
        >>> class Clipped(ResNetHyperModel):
        ...     def compile(self, hp, model):
        ...         rate = self.choose(hp, "learning_rate")
        ...         optimizer = keras.optimizers.Adam(rate, clipnorm=1.0)
        ...         model.compile(optimizer, "crossentropy", metrics=["accuracy"])
        >>> model = Clipped((8, 8, 1), 10).build(keras_tuner.HyperParameters())
    """

    # What is known of the arguments that list values, and what they list by default.
    arguments: ClassVar[dict[str, Argument]] = TRAINING_ARGUMENTS
    defaults: ClassVar[dict[str, Any]] = dict(
        regularizers=(0.0, 1e-4),
        optimizers="adam",
        learning_rates=(3e-4, 1e-3, 3e-3),
        schedules="constant",
        batch_sizes=None,
        augmentations=None,
        label_smoothings=0.0,
    )

    def __init__(
        self,
        input_shape: Sequence[int | None],
        classes: int,
        *,
        task: _Task | None = None,
        loss: Any = None,
        metrics: Any = None,
        classifier_activation: Pluggable = "auto",
        max_params: int | None = None,
        max_macs: int | None = None,
        max_activation_memory: int | None = None,
        schedule_epochs: int | None = None,
        name: str | None = None,
        tunable: bool = True,
        **options: Any,
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
        self.schedule_epochs = schedule_epochs
        for limit, value in {**self.budget._asdict(), "schedule_epochs": schedule_epochs}.items():
            if value is not None:
                validation.positive_int(limit, value)
        # What is searched or fixed, by its hyperparameter; what is left out is not there.
        self.options = {}
        for argument, default in self.defaults.items():
            option, check, _ = self.arguments[argument]
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
        smoothings = self.options["label_smoothing"].extremes
        if smoothings != (0.0,) and (loss is not None or TASKS[self.task].smoothed_loss is None):
            raise ValueError(
                "`label_smoothings` must be 0 with a `loss` of your own, and for regression. "
                f"Received: {smoothings}"
            )
        self._check_budget()

    def __repr__(self) -> str:
        searched = [option for option, values in self.options.items() if not values.is_fixed]
        return (
            f"<{type(self).__name__} of {self.input_shape} to {self.classes}, "
            f"searched: {', '.join(searched) or 'nothing'}>"
        )

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model of a candidate.

        Args:
            hp: the `keras_tuner.HyperParameters`.

        Returns:
            A compiled `keras.Model`.

        Raises:
            keras_tuner.errors.FailedTrialError: for a candidate over budget.
        """
        excess = self._excess(self.cost(hp))
        if excess:
            raise keras_tuner.errors.FailedTrialError(f"The candidate is over budget: {excess}")
        self._choose_training(hp)
        model = self.network(hp)
        self.compile(hp, model)
        return model

    def network(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The model of a candidate, not compiled.

        Args:
            hp: the `keras_tuner.HyperParameters`.

        Returns:
            A `keras.Model`.
        """
        inputs = keras.Input(self.input_shape)
        x = recipes.augmented(inputs, self.choose(hp, "augmentation"), self._site())
        is_mixed = self._policy().compute_dtype != self._policy().variable_dtype
        activation = self.classifier_activation
        if activation == "auto":
            activation = TASKS[self.task].activation
        outputs = self._outputs(hp, x, None if is_mixed else activation)
        if is_mixed:
            last = keras.layers.Activation(activation, dtype="float32", name="output_activation")
            outputs = last(outputs)
        return keras.Model(inputs, outputs)

    def compile(self, hp: keras_tuner.HyperParameters, model: keras.Model) -> None:
        """Compiles the model; override it for another optimizer, loss or metrics.

        Args:
            hp: the `keras_tuner.HyperParameters`.
            model: what `network` returned.
        """
        task, smoothing = TASKS[self.task], self.choose(hp, "label_smoothing")
        # Those of Keras have a state, which no two models may share.
        loss, metrics = copy.deepcopy((self.loss, self.metrics))
        if loss is None:
            loss = task.smoothed_loss(smoothing) if smoothing else task.loss
        model.compile(
            optimizer=recipes.optimizer_of(
                self.choose(hp, "optimizer"),
                self.choose(hp, "learning_rate"),
                self._policy(),
                self._pack(hp),
            ),
            loss=loss,
            metrics=task.metrics(self.classes) if metrics is None else metrics,
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
            *args: what the tuner's `search` was given.
            callbacks: likewise, with those of the tuner.
            **kwargs: what the tuner's `search` was given.

        Returns:
            What Keras's `fit` returns.
        """
        callbacks = list(callbacks or ())
        schedule = self.choose(hp, "schedule")
        if schedule != "constant":
            longest = hp.values.get("tuner/max_epochs", kwargs.get("epochs", 1))
            rate, epochs = self.choose(hp, "learning_rate"), self.schedule_epochs or longest
            callbacks.insert(0, recipes.schedule_of(schedule, rate, epochs))
        if "batch_size" in self.options:
            data = args[0] if args else kwargs.get("x")
            if not hasattr(data, "shape") and not isinstance(data, (list, tuple, dict)):
                raise keras_tuner.errors.FatalValueError(
                    "`batch_sizes` must be left out where the data is batched already. Received: "
                    f"data of type {type(data).__name__}"
                )
            chosen = {"batch_size": self.choose(hp, "batch_size")}
            is_fixed = self.options["batch_size"].is_fixed
            kwargs = {**chosen, **kwargs} if is_fixed else {**kwargs, **chosen}
        return self._train(hp, model, *args, callbacks=callbacks, **kwargs)

    def candidate(self, hp: keras_tuner.HyperParameters) -> tuple:
        """What the hyperparameters stand for, but for those of the training."""
        raise NotImplementedError

    def choose(self, hp: keras_tuner.HyperParameters, option: str, name: str | None = None) -> Any:
        """The value of an option for a candidate.

        Args:
            hp: the `keras_tuner.HyperParameters`.
            option: in the singular, as `"activation"`.
            name: of the hyperparameter; by default that of the option.

        Returns:
            The value; None for an option that is left to the network.
        """
        return self.options[option].choose(hp, name or option) if option in self.options else None

    def cost(self, hp: keras_tuner.HyperParameters) -> Cost:
        """What a candidate costs, without building it.

        Args:
            hp: the `keras_tuner.HyperParameters`.

        Returns:
            A `Cost`.
        """
        raise NotImplementedError

    def within_budget(self, values: Mapping[str, Any]) -> bool:
        """Whether a candidate can be built, within budget.

        Args:
            values: of its hyperparameters, by name.

        Returns:
            True or False.
        """
        try:
            return not self._excess(self.cost(parameters_of(values)))
        except ValueError:  # as groups that do not divide the filters
            return False

    def identity(self, values: Mapping[str, Any]) -> str:
        """A text that is equal for two candidates which are the same network, trained alike.

        Hyperparameters that a subclass declares tell candidates apart by their values.

        Args:
            values: of the hyperparameters, by name.

        Returns:
            The text.
        """
        hp = parameters_of(values)
        own = self._own_names()
        others = sorted((name, value) for name, value in values.items() if name not in own)
        return repr((self._network_identity(hp), self._choose_training(hp), others))

    def _outputs(self, hp, x, activation):
        """The tensor that a candidate's network ends with, for a tensor of images."""
        raise NotImplementedError

    def _network_identity(self, hp):
        """Equal, as text, for candidates that are the same network."""
        raise NotImplementedError

    def _smallest_of_each_kind(self) -> Iterator[dict[str, Any]]:
        """The values of candidates; the cheapest is among them."""
        raise NotImplementedError

    def _pack(self, hp):
        """What makes of an optimizer one that packs the variables for it."""
        return PackedOptimizer

    def _train(self, hp, model, *args, **kwargs):
        """One `fit` of the model, with all that belongs to it."""
        return super().fit(hp, model, *args, **kwargs)

    def _own_names(self):
        """The names of the hyperparameters that are ours."""
        return set(self.options)

    def _choose_training(self, hp):
        return {option: self.choose(hp, option) for option in TRAINING}

    def _regularizer(self, hp):
        return l2(self.choose(hp, "l2"))

    def _where(self, hp, option, accepts):
        """A scope whose hyperparameters are there for the accepted values of an option alone."""
        values = self.options.get(option)
        if values is None or values.is_fixed or isinstance(values, Range):
            return contextlib.nullcontext()
        labels = [label for label, value in values.labels.items() if accepts(value)]
        return hp.conditional_scope(option, labels)

    def _policy(self):
        return keras.dtype_policies.get(self.block_options.get("dtype"))

    def _data_format(self):
        return self.block_options.get("data_format") or keras.config.image_data_format()

    def _spatial(self):
        is_first = self._data_format() == "channels_first"
        return self.input_shape[1:] if is_first else self.input_shape[:-1]

    def _site(self):
        """The place of the images."""
        channels = self.input_shape[0 if self._data_format() == "channels_first" else -1]
        return templates.Site(len(self._spatial()), channels, self._data_format(), "float32")

    def _excess(self, cost):
        """What a cost exceeds the budget in, as text; empty where it is within."""
        bytes_a_value = 2 if self._policy().compute_dtype in ("float16", "bfloat16") else 4
        memory = cost.activations and cost.activations * bytes_a_value
        values = (cost.params, cost.macs, memory)
        return ", ".join(
            f"{name}={limit} < {value}"
            for name, limit, value in zip(Budget._fields, self.budget, values)
            if limit is not None and value is not None and value > limit
        )

    def _check_budget(self):
        """Raises if nothing in the space can be built, or is within the budget."""
        candidates, errors = [], []
        for values in self._smallest_of_each_kind():
            try:
                candidates.append((self.cost(parameters_of(values)), values))
            except ValueError as error:  # as groups that do not divide the filters
                errors.append(error)
        if not candidates:
            self._check_names()
            raise errors[0]
        if all(self._excess(cost) for cost, _ in candidates):
            least, values = min(candidates, key=lambda candidate: candidate[0].params)
            limits = ", ".join(f"{name}={limit}" for name, limit in self.budget._asdict().items())
            raise ValueError(
                f"No candidate is within the budget: {self._excess(least)}. The smallest has "
                f"{least.params} parameters, {least.macs} multiply-accumulates and "
                f"{least.activations} activations ({values}). Received: {limits}"
            )

    def _check_names(self):
        """Raises for an option that is neither of this class nor of any block."""
        known = {"input_shape", *self.defaults}
        ours = (owner for owner in type(self).__mro__ if issubclass(owner, TrainingHyperModel))
        for function in (*ours, *BLOCKS.values()):
            known.update(known_options(function))
        validation.known_arguments(type(self).__name__, self.block_options, known)
