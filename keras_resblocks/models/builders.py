"""From a spec to a functional Keras model."""

import fnmatch
import functools
import inspect
from collections.abc import Sequence
from typing import Literal

import keras

from keras_resblocks import validation
from keras_resblocks.checkpoints import loading as checkpoints
from keras_resblocks.layers import templates
from keras_resblocks.layers.pooling import Pooling
from keras_resblocks.layers.units import ConvComposite, make_layer, rank_layer
from keras_resblocks.models.options import check_input_shape, check_parts, merge_options
from keras_resblocks.models.parts import aux_steps
from keras_resblocks.models.published import SPECS, get_spec
from keras_resblocks.models.specs import BLOCKS, BlockCall, NetworkSpec
from keras_resblocks.types import BlockOptions, FilePath, Pluggable, Unpack

# What the stem's units take of the block options, and what the classifier takes.
_UNIT_OPTIONS = {*inspect.signature(ConvComposite).parameters, "dtype"} - {"kwargs"}
_KINDS = ("initializer", "regularizer", "constraint")
_HEAD_OPTIONS = ("dtype", *(f"{weight}_{kind}" for weight in ("kernel", "bias") for kind in _KINDS))
_classifier_activation = templates.Slot("classifier_activation", templates.activation.names)


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows and that match a glob, sorted.

    Args:
        pattern: a glob, in which `*` is for any text and `?` for any character.

    Returns:
        A list of names.

    Examples:
        >>> from keras_resblocks import list_models
        >>> list_models("resnet*_cifar")
        ['resnet110_cifar', 'resnet20_cifar', 'resnet32_cifar', 'resnet44_cifar', 'resnet56_cifar']
    """
    return sorted(fnmatch.filter(SPECS, pattern))


def create_model(
    name_or_spec: str | NetworkSpec,
    *,
    input_shape: Sequence[int | None] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    include_top: bool = True,
    weights: FilePath | None = None,
    pooling: Literal["avg", "max"] | None = None,
    classes: int | None = None,
    classifier_activation: Pluggable = "softmax",
    aux_heads: bool = False,
    output_stride: int | None = None,
    name: str | None = None,
    **block_options: "Unpack[BlockOptions]",
) -> keras.Model:
    """Builds a published network, or one of your own, as a functional Keras model.

    Block layers are called `stage{s}_block{b}`, the others `stem_...` and `head...`.

    Args:
        name_or_spec: a name (see `list_models`), a `ResNetSpec` or an `InceptionSpec`.
        input_shape: without the batch; one, two or three spatial axes, None for an open size.
            By default the size that the network was published for; without a top, any size.
        input_tensor: a Keras tensor to use as input.
        include_top: whether to end with pooling and a classifier.
        weights: None; published weights (see `list_weights`): `"imagenet"` for the structures
            of keras.applications, `"timm/resnet50.a1_in1k"` or `"torchvision/resnet50"`; or the
            path of a file: `.weights.h5` or `.keras` saved from the same network,
            `.safetensors`, `.pth` or the like of a PyTorch model (see `load_torch_weights`),
            `.h5` of keras.applications. All fit an image of any number of channels, and leave
            a classifier for other `classes` as it is.
        pooling: without a top: None, `"avg"` or `"max"`, global pooling of the features.
        classes: number of outputs; by default that of the network's data set (1000, or 10).
        classifier_activation: of the classifier; None for logits.
        aux_heads: whether the model has the auxiliary classifiers of the GoogLeNets as further
            outputs, to be trained with a smaller loss weight (0.3 in the paper).
        output_stride: None, or how many times smaller the last stage's output is than the
            image: stages beyond it are dilated instead of strided, with the same weights.
        name: of the model.
        **block_options: options of the blocks (see `ResidualBlock`), which reach the stem and
            the head too, and `dtype`. A `drop_path_rate` grows linearly from 0 at the first
            block to the rate given at the last.

    Returns:
        A `keras.Model` from images `(batch, *input_shape)` to probabilities `(batch, classes)`;
        without a top to features `(batch, *spatial, channels)`, or `(batch, channels)` with
        `pooling`. A list of outputs with `aux_heads`.

    Raises:
        ValueError: for an unknown name, option or argument value, or an image too small; for
            weights that do not fit, or cannot be fetched.
        ImportError: if a package is missing that the weights need; the message names it.

    Examples:
        >>> from keras_resblocks import create_model
        >>> model = create_model("resnet18", input_shape=(64, 64, 3), classes=6, activation="elu")
        >>> model.output_shape
        (None, 6)
    """
    spec = get_spec(name_or_spec)
    options = merge_options(spec, block_options, create_model)
    check_parts(spec, include_top, aux_heads, output_stride, block_options)
    network = name_or_spec if isinstance(name_or_spec, str) else None
    has_own_classes = classes is not None
    classes = validation.positive_int("classes", classes if has_own_classes else spec.classes)
    validation.one_of("pooling", pooling, (None, "avg", "max"))
    _classifier_activation.get(classifier_activation)
    if weights is not None:
        checkpoints.check_weights(weights, network)
    shape = check_input_shape(spec, input_shape, include_top, options["data_format"])
    x, inputs = _inputs(shape, input_tensor)

    tensors = {}
    for part_name, part in spec.parts(options, output_stride):
        x = tensors[part_name] = _layer(part_name, part, options)(x)
    if options["preactivation"]:
        x = _closing_activation(x, options)
    if include_top:
        classifier = functools.partial(
            _classifier,
            units=classes,
            activation=classifier_activation,
            # The classifier keeps Keras's own defaults.
            options={**spec.options, **block_options},
        )
        x = _pool_and_flatten(x, spec.final_pool, options)
        x = classifier(x, "head", dropout=spec.dropout)
        if aux_heads:
            x = [x, *_aux_outputs(spec, tensors, options, classifier)]
    elif pooling:
        x = _global_pool(x, pooling, options)

    model = keras.Model(inputs, x, name=name or network)
    if weights is not None:
        checkpoints.load_weights(model, weights, network, new_head=has_own_classes)
    return model


def _inputs(shape, input_tensor):
    if input_tensor is None:
        inputs = keras.Input(shape)
        return inputs, inputs
    if not keras.backend.is_keras_tensor(input_tensor):
        raise ValueError(
            f"`input_tensor` must be a Keras tensor. Received: input_tensor={input_tensor!r}"
        )
    inputs = keras.utils.get_source_inputs(input_tensor)
    return input_tensor, inputs[0] if len(inputs) == 1 else inputs


def _layer(name, part, options):
    if isinstance(part, BlockCall):
        return BLOCKS[part.kind](name=name, **{**options, **part.arguments()})
    return make_layer(part, name, {key: options[key] for key in options if key in _UNIT_OPTIONS})


def _classifier(x, prefix, *, dropout, units, activation, options):
    placed = {key: options[key] for key in _HEAD_OPTIONS if key in options}
    if dropout:
        layer = keras.layers.Dropout(dropout, name=f"{prefix}_dropout", dtype=placed.get("dtype"))
        x = layer(x)
    return keras.layers.Dense(units, activation=activation, name=prefix, **placed)(x)


def _aux_outputs(spec, tensors, options, classifier):
    """The outputs of the auxiliary classifiers."""
    for i, head in enumerate(spec.aux_heads, start=1):
        x = tensors[head.after]
        for name, step in aux_steps(head, x.shape, options):
            x = _layer(f"aux{i}_{name}", step, options)(x)
        x = keras.layers.Flatten(name=f"aux{i}_flatten", dtype=options["dtype"])(x)
        yield classifier(x, f"aux{i}_head", dropout=head.dropout)


def _closing_activation(x, options):
    """What the next block's entry would do: a pre-activation block leaves its sum as it is."""
    site = templates.Site(
        rank=len(x.shape) - 2,
        channels=x.shape[1 if options["data_format"] == "channels_first" else -1],
        data_format=options["data_format"],
        dtype=keras.dtype_policies.get(options["dtype"]).name,
    )
    for key, name in (("normalization", "head_norm"), ("activation", "head_act")):
        if options[key] is not None:
            x = options[key].make(site, name)(x)
    return x


def _pool_and_flatten(x, size, options):
    if size is None:
        return _global_pool(x, "avg", options)
    placed = {"data_format": options["data_format"], "dtype": options["dtype"]}
    x = Pooling("avg", size, size, padding="valid", name="head_pool", **placed)(x)
    return keras.layers.Flatten(name="head_flatten", **placed)(x)


def _global_pool(x, kind, options):
    name = {"avg": "GlobalAveragePooling", "max": "GlobalMaxPooling"}[kind]
    placed = {"data_format": options["data_format"], "dtype": options["dtype"]}
    return rank_layer(name, len(x.shape) - 2)(name="head_pool", **placed)(x)
