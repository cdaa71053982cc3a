"""Search spaces over residual networks, for any KerasTuner tuner."""

import itertools

import keras
import keras_tuner

from keras_resblocks import layers, validation
from keras_resblocks.layers import Conv, Pool, templates
from keras_resblocks.models import ResNetSpec, cost, create_model
from keras_resblocks.tuner.budget import Budget
from keras_resblocks.tuner.hyperparameters import l2


class ResNetHyperModel(keras_tuner.HyperModel):
    """Residual networks of searched depth, width and kind, within a budget.

    Each option lists the values to search; one value alone, or a bare one, is fixed and no
    hyperparameter. Whatever a block takes as `activation` or `shortcut` may be listed.

    Args:
        input_shape: of one image, without the batch.
        classes: number of classes.
        max_params: most parameters of a candidate, None for no limit.
        max_macs: most multiply-accumulates of a candidate for one image, None for no limit.
        blocks: of `"residual"` and `"bottleneck"`.
        depths: numbers of blocks in a stage; each stage is searched for itself.
        widths: filters of the blocks in the first stage; they double from stage to stage.
        stages: number of stages; all but the first halve the resolution.
        activations, shortcuts: as a block takes them.
        regularizers: strengths of the L2 penalty on every kernel; 0 for none.
        learning_rates: of Adam.
        stem: `"small"` (one 3x3 convolution), `"large"` (7x7 with stride 2, then pooling), or
            `"auto"`: large where the image has 64 pixels or more in every direction.
        **block_options: further options for all blocks, as in `create_model`.

    Hyperparameters: `block`, `depth_1`, `depth_2`, ..., `width`, `activation`, `shortcut`, `l2`
    and `learning_rate`.

    The tuners of `keras_resblocks.tuner` only try candidates within the budget. With another
    tuner, `build` fails the trial of one that is not (`keras_tuner.errors.FailedTrialError`).

    Raises:
        ValueError: for an option out of its range, or if not even the smallest candidate is
            within the budget; the message says what that one costs.

    Example:

    >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, max_params=100_000)
    >>> tuner = keras_resblocks.tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=12)
    >>> tuner.search(x, y, epochs=20, validation_data=(x_val, y_val))
    """

    def __init__(
        self,
        input_shape,
        classes,
        *,
        max_params=None,
        max_macs=None,
        blocks=("residual", "bottleneck"),
        depths=(1, 2, 3, 4),
        widths=(16, 32, 64),
        stages=3,
        activations=("relu", "elu"),
        shortcuts=("projection",),
        regularizers=(0.0, 1e-4),
        learning_rates=(3e-4, 1e-3, 3e-3),
        stem="auto",
        name=None,
        tunable=True,
        **block_options,
    ):
        super().__init__(name=name, tunable=tunable)
        self.input_shape = tuple(input_shape)
        self.classes = classes
        self.budget = Budget(max_params, max_macs)
        self.stages = validation.positive_int("stages", stages)
        self.stem = validation.one_of("stem", stem, ("auto", "small", "large"))
        self.block_options = block_options
        self.options = {
            "block": _values("blocks", blocks, check=_block),
            "depth": _values("depths", depths, check=validation.positive_int),
            "width": _values("widths", widths, check=validation.positive_int),
            "activation": _values("activations", activations, check=_activation),
            "shortcut": _values("shortcuts", shortcuts, check=_shortcut),
            "l2": _values("regularizers", regularizers, check=validation.non_negative_number),
            "learning_rate": _values(
                "learning_rates", learning_rates, check=validation.positive_number
            ),
        }
        self._check_budget()

    def build(self, hp):
        """The compiled model of a candidate."""
        excess = self.budget.excess(self.cost(hp))
        if excess:
            raise keras_tuner.errors.FailedTrialError(f"The candidate is over budget: {excess}")
        spec, options = self.candidate(hp)
        model = create_model(spec, input_shape=self.input_shape, classes=self.classes, **options)
        self.compile(hp, model)
        return model

    def compile(self, hp, model):
        """Compiles the model; override it for another optimizer, loss or metrics."""
        model.compile(
            optimizer=keras.optimizers.Adam(self.choose(hp, "learning_rate")),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )

    def candidate(self, hp):
        """The spec and the block options that the hyperparameters stand for."""
        width = self.choose(hp, "width")
        spec = ResNetSpec(
            block=self.choose(hp, "block"),
            depths=tuple(
                self.choose(hp, "depth", f"depth_{stage}") for stage in range(1, self.stages + 1)
            ),
            width=width,
            stem=(
                (Conv(width, 3),)
                if self.has_small_stem()
                else (Conv(width, 7, 2), Pool("max", 3, 2))
            ),
        )
        return spec, {
            "activation": self.choose(hp, "activation"),
            "shortcut": self.choose(hp, "shortcut"),
            "kernel_regularizer": l2(self.choose(hp, "l2")),
            **self.block_options,
        }

    def choose(self, hp, option, name=None):
        """The value of an option, searched as the hyperparameter `name`."""
        values = self.options[option]
        if len(values) == 1:
            return next(iter(values.values()))
        return values[hp.Choice(name or option, list(values))]

    def cost(self, hp):
        """The `Cost` of a candidate, without building it."""
        spec, options = self.candidate(hp)
        return cost(spec, input_shape=self.input_shape, classes=self.classes, **options)

    def within_budget(self, values):
        """Whether the candidate with these hyperparameter values is within the budget."""
        hp = keras_tuner.HyperParameters()
        hp.values = dict(values)
        return not self.budget.excess(self.cost(hp))

    def has_small_stem(self):
        """Whether the images are convolved at their own resolution first."""
        if self.stem != "auto":
            return self.stem == "small"
        channels_first = (
            self.block_options.get("data_format") or keras.config.image_data_format()
        ) == "channels_first"
        return min(self.input_shape[1:] if channels_first else self.input_shape[:-1]) < 64

    def _check_budget(self):
        """Raises if nothing in the space is within the budget."""
        smallest = {
            "width": min(self.options["width"]),
            **{f"depth_{stage}": min(self.options["depth"]) for stage in range(1, self.stages + 1)},
        }
        kinds = ("block", "activation", "shortcut")
        candidates = []
        for labels in itertools.product(*(self.options[kind] for kind in kinds)):
            hp = keras_tuner.HyperParameters()
            hp.values = {**smallest, **dict(zip(kinds, labels))}
            candidates.append((self.cost(hp), hp.values))
        if all(self.budget.excess(cost) for cost, _ in candidates):
            least, values = min(candidates, key=lambda candidate: candidate[0].params)
            raise ValueError(
                f"No candidate is within the budget: {self.budget.excess(least)}. The smallest "
                f"has {least.params} parameters and {least.macs} multiply-accumulates ({values}). "
                f"Received: max_params={self.budget.max_params}, max_macs={self.budget.max_macs}"
            )


def _block(argument, value):
    return validation.one_of(argument, value, ("residual", "bottleneck"))


def _activation(argument, value):
    return templates.activation.get(value)


def _shortcut(argument, value):
    return layers.shortcuts.get(value)


def _values(argument, values, check):
    """The values of an option by the label that a hyperparameter shows for each."""
    if isinstance(values, (str, dict)) or not isinstance(values, (list, tuple)):
        values = (values,)
    if not values:
        raise ValueError(f"`{argument}` must not be empty. Received: {argument}={values!r}")
    labels = {}
    for value in values:
        check(argument, value)
        plain = isinstance(value, (str, int, float))
        label = value if plain else getattr(value, "__name__", type(value).__name__)
        if label in labels:
            if plain:
                raise ValueError(
                    f"`{argument}` must not repeat a value. Received: {argument}={values!r}"
                )
            label = f"{label}_{len(labels)}"
        labels[label] = value
    return labels
