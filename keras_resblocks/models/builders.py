"""From a spec to a functional Keras model."""

import fnmatch
import functools
import inspect
import os

import keras

from keras_resblocks import validation
from keras_resblocks.layers import shortcuts, templates
from keras_resblocks.layers.attention import attention
from keras_resblocks.layers.units import ConvComposite, Pooling, make_layer, rank_layer
from keras_resblocks.models.specs import BLOCKS, SPECS, BlockCall, get_spec

# What the stem's units take of the block options, and what the classifier takes.
_UNIT_OPTIONS = {*inspect.signature(ConvComposite).parameters, "dtype"} - {"kwargs"}
_HEAD_OPTIONS = (
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
    "dtype",
)


_classifier_activation = templates.Slot("classifier_activation", templates.activation.names)


def list_models(pattern="*"):
    """The names that `create_model` knows and that match a glob, sorted.

    Example:

    >>> list_models("resnet*_cifar")
    ['resnet110_cifar', 'resnet20_cifar', 'resnet32_cifar', 'resnet44_cifar', 'resnet56_cifar']
    """
    return sorted(fnmatch.filter(SPECS, pattern))


def create_model(
    name_or_spec,
    *,
    input_shape=None,
    input_tensor=None,
    include_top=True,
    weights=None,
    pooling=None,
    classes=None,
    classifier_activation="softmax",
    name=None,
    **block_options,
):
    """Builds a published network, or one of your own, as a functional Keras model.

    Block layers are called `stage{s}_block{b}`, the others `stem_...` and `head...`.

    Args:
        name_or_spec: a name (see `list_models`), a `ResNetSpec` or an `InceptionSpec`.
        input_shape: without the batch; one, two or three spatial axes, None for an open size.
            By default the size that the network was published for; without a top, any size.
        input_tensor: a Keras tensor to use as input.
        include_top: whether to end with pooling and a classifier.
        weights: None, or the path of a `.weights.h5` file saved from the same network.
        pooling: without a top: None, `"avg"` or `"max"`, global pooling of the features.
        classes: number of outputs; by default that of the network's data set (1000, or 10).
        classifier_activation: of the classifier; None for logits.
        name: of the model.
        **block_options: options of the blocks (see `ResidualBlock`), which reach the stem and
            the head too, and `dtype`. A `drop_path_rate` grows linearly from 0 at the first
            block to the rate given at the last.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: for an unknown name, option or argument value, or an image too small.

    Example:

    >>> model = create_model("resnet50", activation="elu", kernel_regularizer="l2", classes=6)
    """
    spec = get_spec(name_or_spec)
    options = merge_options(spec, block_options)
    classes = validation.positive_int("classes", spec.classes if classes is None else classes)
    validation.one_of("pooling", pooling, (None, "avg", "max"))
    _classifier_activation.get(classifier_activation)
    _check_weights(weights, include_top, classes)
    shape = check_input_shape(spec, input_shape, include_top, options["data_format"])
    x, inputs = _inputs(shape, input_tensor)

    for part_name, part in spec.parts(options):
        x = _layer(part_name, part, options)(x)
    if options["preactivation"]:
        x = _closing_activation(x, options)
    if include_top:
        x = _pool_and_flatten(x, spec.final_pool, options)
        if spec.dropout:
            x = keras.layers.Dropout(spec.dropout, name="head_dropout", dtype=options["dtype"])(x)
        given = {**spec.options, **block_options}  # the classifier keeps Keras's own defaults
        x = keras.layers.Dense(
            classes,
            activation=classifier_activation,
            name="head",
            **{key: given[key] for key in _HEAD_OPTIONS if key in given},
        )(x)
    elif pooling:
        x = _global_pool(x, pooling, options)

    default_name = name_or_spec if isinstance(name_or_spec, str) else None
    model = keras.Model(inputs, x, name=name or default_name)
    if weights is not None:
        model.load_weights(weights)
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
    layer_class = rank_layer(
        {"avg": "GlobalAveragePooling", "max": "GlobalMaxPooling"}[kind], len(x.shape) - 2
    )
    return layer_class(
        name="head_pool", data_format=options["data_format"], dtype=options["dtype"]
    )(x)


def merge_options(spec, block_options):
    """The block options in force: the network's own, then the user's, checked.

    Raises:
        ValueError: for a name that the network's blocks do not know.
    """
    known = _known_options(BLOCKS[spec.block])
    given = {**spec.default_options(), **block_options}
    validation.known_arguments("the model and its blocks", given, known)
    options = {**known, **given}
    options["data_format"] = validation.one_of(
        "data_format",
        options["data_format"] or keras.config.image_data_format(),
        ("channels_last", "channels_first"),
    )
    options["drop_path_rate"] = validation.rate("drop_path_rate", options["drop_path_rate"])
    for name, read in _READERS.items():
        options[name] = read(options[name])
    if options["shortcut"] is None and "zero_init_residual" not in block_options:
        options["zero_init_residual"] = False  # a plain network has no shortcut to start as
    return options


# Read once for the whole network, rather than by every block.
_READERS = {
    "activation": templates.activation.get,
    "normalization": templates.normalization.get,
    "attention": attention.get,
    "shortcut": shortcuts.get,
}


@functools.cache
def _known_options(block_class):
    """The options of a block, with their defaults."""
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(block_class).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return {**options, "dtype": None}


def check_input_shape(spec, input_shape, include_top, data_format):
    """The shape of one image: what was given, checked, or the spec's."""
    channels_first = data_format == "channels_first"
    if input_shape is None:
        *spatial, channels = spec.input_shape
        if not include_top:
            spatial = [None] * len(spatial)
        return (channels, *spatial) if channels_first else (*spatial, channels)
    try:
        shape = tuple(input_shape)
        sizes = [size for size in shape if size is not None]
        valid = 2 <= len(shape) <= 4 and [validation.positive_int("", n) for n in sizes]
    except (TypeError, ValueError):
        valid = False
    if not valid or shape[0 if channels_first else -1] is None:
        raise ValueError(
            "`input_shape` must hold one, two or three spatial sizes (positive, or None) and the "
            f"number of channels. Received: input_shape={input_shape!r}"
        )
    if include_top and spec.final_pool is not None and None in shape:
        raise ValueError(
            "`input_shape` must have no open sizes where the spec has a `final_pool`, whose "
            f"result is flattened. Received: input_shape={input_shape!r}"
        )
    return shape


def _check_weights(weights, include_top, classes):
    if weights is None:
        return
    if weights == "imagenet" and include_top and classes != 1000:
        raise ValueError(
            'With `weights="imagenet"` and `include_top=True`, `classes` must be 1000. '
            f"Received: classes={classes}"
        )
    if not isinstance(weights, (str, os.PathLike)) or not os.path.isfile(weights):
        raise ValueError(
            "`weights` must be None (random initialization) or the path of a `.weights.h5` file. "
            f"Received: weights={weights!r}"
        )
