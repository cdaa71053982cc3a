"""A search over how published networks are fine-tuned, for any KerasTuner tuner."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import keras
import keras_tuner

from keras_resblocks import validation
from keras_resblocks.checkpoints import ImagePreprocessing, preprocessing
from keras_resblocks.checkpoints.catalog import KERAS, our_name
from keras_resblocks.checkpoints.loading import check_weights
from keras_resblocks.checkpoints.preprocessing import Recipe
from keras_resblocks.layers import templates
from keras_resblocks.layers.composite import Composite
from keras_resblocks.models import Cost, cost, create_model
from keras_resblocks.models.graphs import functional
from keras_resblocks.models.published import get_spec
from keras_resblocks.models.specs import NetworkSpec
from keras_resblocks.training import DiscriminativeOptimizer
from keras_resblocks.tuner.base import (
    TRAINING_ARGUMENTS,
    Argument,
    Listed,
    Settings,
    TrainingHyperModel,
    TrainingOptions,
)
from keras_resblocks.types import FilePath, NetworkOptions, Unpack

_preprocessing = templates.Slot("preprocessing", {})


class Pretrained(NamedTuple):
    """A network and its weights, as `create_model` takes them."""

    network: str | NetworkSpec
    weights: FilePath
    preprocessing: Any = "auto"  # that of the weights; or a Keras layer, or None


class FineTuning(NamedTuple):
    """A candidate: what is trained on, how much of it, and when."""

    pretrained: Pretrained
    dropout: float
    unfrozen_stages: int
    warmup_epochs: int
    backbone_rate: float


def _pretrained(value):
    """The `Pretrained` of a name of published weights, or of a tuple."""
    if not isinstance(value, str):
        return Pretrained(*value)
    return Pretrained(our_name(value.partition("/")[2].partition(".")[0]), value)


def _check_network(argument, value):
    is_name = isinstance(value, str) and value.startswith(("timm/", "torchvision/"))
    if not is_name and not (isinstance(value, (list, tuple)) and len(value) in (2, 3)):
        raise ValueError(
            f"`{argument}` must list names of published weights, as 'timm/resnet18.a1_in1k' (see "
            "`list_weights()`), or tuples: a network's name or spec and its weights, and perhaps "
            f"a layer that prepares images. Received: {validation.shown(value)}"
        )
    network, weights, prepare = _pretrained(value)
    get_spec(network)
    check_weights(weights, network if isinstance(network, str) else None)
    if prepare != "auto":
        _preprocessing.get(prepare)


ARGUMENTS = {
    **TRAINING_ARGUMENTS,
    "networks": Argument("network", _check_network),
    "unfrozen_stages": Argument("unfrozen_stages", validation.non_negative_int),
    "warmup_epochs": Argument("warmup_epochs", validation.non_negative_int),
    "backbone_rates": Argument("backbone_rate", validation.positive_number),
    "dropouts": Argument("dropout", validation.rate),
}

_Network: TypeAlias = (
    str
    | tuple[str | NetworkSpec, FilePath]
    | tuple[str | NetworkSpec, FilePath, keras.layers.Layer | None]
)


class FineTuneOptions(TrainingOptions, Settings, NetworkOptions, total=False):
    """What `FineTuneHyperModel` lists, in the plural, or fixes, and is told beside."""

    network: _Network
    networks: _Network | Sequence[_Network]
    unfrozen_stages: Listed[int]
    warmup_epochs: Listed[int]
    backbone_rate: float
    backbone_rates: Listed[float]
    dropout: float
    dropouts: Listed[float]


class FineTuneHyperModel(TrainingHyperModel):
    """Published networks, fine-tuned: how much of them, how fast, and when.

    A candidate takes images as they are (RGB or gray, 0 to 255): augmentation, the scaling that the
    weights were trained with, the network without its classifier as the layer `backbone`, dropout,
    and a new classifier called `head`. Images keep their size; choose one near that of the weights
    (`preprocessing(weights).size`).

    The head trains with the `learning_rate`, what is unfrozen of the network with a share of it
    (Howard and Ruder 2018, section 3.2); perhaps after some epochs of the head alone, as a random
    head would spoil the features (Kumar et al. 2022). Those are a `fit` of their own with another
    optimizer; a trial that was killed in the second `fit` of two starts over. Frozen layers are in
    inference mode: neither their weights nor the statistics of their batch normalizations move.
    Those of unfrozen stages train, statistics too (Kornblith et al. 2019).

    Published weights are fetched when a candidate is built. A budget counts frozen layers too;
    `cost(hp)` counts their parameters as trainable.

    By default, a search is over `network`, `unfrozen_stages`, `dropout`, `l2` and `learning_rate`,
    and where a stage is unfrozen `warmup_epochs` and `backbone_rate`.

    Args:
        input_shape: of one image, without the batch; None for an open size.
        classes: number of classes.
        networks: each the name of published weights (`list_weights()`) of timm or torchvision; or
            a tuple of a network (name or spec) and weights (published ones or a file), and perhaps
            a Keras layer that scales images for it, or None. By default images are scaled as the
            published weights need it; for a file, by ImageNet's mean and deviation, or as
            keras.applications does it for a network whose name ends in `_keras`.
        unfrozen_stages: how many of the last stages are trained beside the head; 0 for the head
            alone, more than there are for the whole network, the stem included.
        warmup_epochs: how many epochs the head trains alone at first.
        backbone_rates: learning rates of what is unfrozen, as shares of the head's.
        dropouts: rates in [0, 1) before the head.
        **options: as in `TrainingHyperModel`: task, budget (`max_params`, ...), training
            (`learning_rates`, ...) and block options, as `drop_path_rate` and `dtype`.

    Raises:
        ValueError: as `TrainingHyperModel`, and for an unknown network or a file that is not there.

    Examples:
        >>> from keras_resblocks.tuner import FineTuneHyperModel, RandomSearch
        >>> hypermodel = FineTuneHyperModel((224, 224, 3), 5, networks="timm/resnet18.a1_in1k")
        >>> tuner = RandomSearch(hypermodel, "val_accuracy", max_trials=12)  # needs: weights

    References:
        Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification";
        Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
        Out-of-Distribution"; Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?".
    """

    arguments: ClassVar[dict[str, Argument]] = ARGUMENTS
    defaults: ClassVar[dict[str, Any]] = {
        **TrainingHyperModel.defaults,
        "schedules": "cosine",
        "networks": ("timm/resnet18.a1_in1k", "timm/resnet50.a1_in1k"),
        "unfrozen_stages": (0, 1, 4),
        "warmup_epochs": (0, 2),
        "backbone_rates": (0.01, 0.1, 1.0),
        "dropouts": (0.0, 0.2, 0.5),
    }

    def __init__(
        self,
        input_shape: Sequence[int | None],
        classes: int,
        **options: "Unpack[FineTuneOptions]",
    ) -> None:
        for argument in ("networks", "unfrozen_stages", "warmup_epochs", "backbone_rates"):
            if options.get(argument, ()) is None:
                raise ValueError(f"`{argument}` must not be None. Received: {argument}=None")
        self._folder = os.getcwd()  # of relative paths, also in another process
        super().__init__(input_shape, classes, **options)

    def candidate(self, hp: keras_tuner.HyperParameters) -> FineTuning:
        """What is trained, how much of it, and when.

        Args:
            hp: the `keras_tuner.HyperParameters`.

        Returns:
            A named tuple of `pretrained` (network, weights and preprocessing), `dropout`,
            `unfrozen_stages`, `warmup_epochs` and `backbone_rate`.
        """
        pretrained = _pretrained(self.choose(hp, "network"))
        path = os.path.join(self._folder, pretrained.weights)
        if os.path.isfile(path):
            pretrained = pretrained._replace(weights=path)
        dropout = self.choose(hp, "dropout")
        unfrozen = min(self.choose(hp, "unfrozen_stages"), len(_parts(pretrained.network)))
        warmup, rate = 0, 0.0
        if any(self.options["unfrozen_stages"].extremes):
            with self._where(hp, "unfrozen_stages", bool):
                chosen = self.choose(hp, "warmup_epochs"), self.choose(hp, "backbone_rate")
            if unfrozen:
                warmup, rate = chosen
        return FineTuning(pretrained, dropout, unfrozen, warmup, rate)

    def cost(self, hp: keras_tuner.HyperParameters) -> Cost:
        pretrained = self.candidate(hp).pretrained
        spec = dataclasses.replace(get_spec(pretrained.network), final_pool=None)
        shape = (None, *self.input_shape)
        if pretrained.preprocessing is not None:
            shape = self._prepare(pretrained).compute_output_shape(shape)
        return cost(spec, input_shape=shape[1:], classes=self.classes, **self.block_options)

    def _outputs(self, hp, x, activation):
        pretrained, dropout, unfrozen, _, _ = self.candidate(hp)
        options = {"kernel_regularizer": self._regularizer(hp), **self.block_options}
        head = {name: options.get(name) for name in ("kernel_regularizer", "dtype")}
        if pretrained.preprocessing is not None:
            x = self._prepare(pretrained, fetch=True)(x)
        backbone = create_model(
            pretrained.network,
            input_shape=x.shape[1:],
            include_top=False,
            pooling="avg",
            weights=pretrained.weights,
            name="backbone",
            **options,
        )
        parts = _parts(pretrained.network)
        # What follows the last stage, named so too, trains with it.
        trained = {*parts[len(parts) - unfrozen :], *(["head"] if unfrozen else [])}
        for layer in backbone.layers:
            if layer.name.partition("_")[0] not in trained:
                layer.trainable = False
        x = backbone(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name="head_dropout", dtype=head["dtype"])(x)
        return keras.layers.Dense(self.classes, activation, name="head", **head)(x)

    def _prepare(self, pretrained, fetch=False):
        """The layer before a network; how timm scales images is fetched, the shape is known."""
        network, weights, given = pretrained
        if given != "auto":
            return _preprocessing.get(given).make(self._site(), "preprocessing")
        layer = ImagePreprocessing(None, mean=Recipe.mean, std=Recipe.std)
        if fetch and not os.path.isfile(weights):
            layer = preprocessing(weights, network)
        elif isinstance(network, str) and network in KERAS:
            layer = preprocessing("imagenet", network)
        template = _preprocessing.get(layer)
        return template.make(self._site(), "preprocessing", size=None, resize=None)

    def _network_identity(self, hp):
        return self.candidate(hp)._replace(pretrained=hp.values.get("network"))

    def _smallest_of_each_kind(self):
        return ({"network": label} for label in self.options["network"].extremes)

    def _pack(self, hp):
        rate = self.candidate(hp).backbone_rate
        return lambda optimizer: DiscriminativeOptimizer(optimizer, rate)

    def _train(self, hp, model, *args, **kwargs):
        begin, epochs = kwargs.get("initial_epoch", 0), kwargs.get("epochs", 1)
        warmup = min(self.candidate(hp).warmup_epochs, epochs)
        if warmup <= begin:
            return super()._train(hp, model, *args, **kwargs)
        head_first = functional(model)  # a model remembers the epoch that a backup was of
        with _frozen(model.get_layer("backbone")):
            self.compile(hp, head_first)
            first = super()._train(hp, head_first, *args, **{**kwargs, "epochs": warmup})
        model.history = first
        if warmup == epochs:
            return first
        before = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: model.history.history.update(first.history)
        )
        kwargs["callbacks"] = [before, *kwargs["callbacks"]]
        return super()._train(hp, model, *args, **{**kwargs, "initial_epoch": warmup})


def _parts(network):
    """What the names of a network's layers begin with, from the stem to the last stage."""
    stages = (name.partition("_")[0] for name, _ in get_spec(network).stage_parts())
    return ["stem", *dict.fromkeys(stages)]


@contextlib.contextmanager
def _frozen(layer):
    """A context in which a layer is frozen; then all inside it are as they were."""
    before = [(inner, inner.trainable) for inner in _with_inner(layer)]
    layer.trainable = False
    try:
        yield
    finally:
        for inner, trainable in before:
            inner.trainable = trainable


def _with_inner(layer):
    """A layer and those inside it, the outer ones first."""
    yield layer
    inner = layer.sublayers() if isinstance(layer, Composite) else getattr(layer, "layers", ())
    for one in inner:
        yield from _with_inner(one)
