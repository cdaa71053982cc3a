"""Parameters and multiply-accumulates, computed from a description without building it."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import keras

from keras_resblocks import layers, validation
from keras_resblocks.layers import steps, templates
from keras_resblocks.layers.attention import adaptive_kernel_size
from keras_resblocks.layers.composite import Composite
from keras_resblocks.layers.steps import branch_output, output_channels, step_output, window_output
from keras_resblocks.layers.units import normalization_and_bias
from keras_resblocks.models.graphs import KERNEL_LAYERS
from keras_resblocks.models.options import check_input_shape, check_parts, merge_options
from keras_resblocks.models.parts import aux_steps, branch_of, options_of, plan_of
from keras_resblocks.models.published import get_spec
from keras_resblocks.models.specs import BlockCall, NetworkSpec
from keras_resblocks.shown import html_rows
from keras_resblocks.types import BlockOptions, Unpack


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network costs. Costs can be added.

    Attributes:
        params: number of all parameters, moving statistics included.
        trainable_params: number of trainable parameters.
        macs: multiply-accumulates of convolutions and dense layers for one sample; None where a
            spatial size is not known.
        activations: number of values that convolutions and dense layers output for one sample,
            to which the memory of a training step is proportional; None as `macs`.

    Examples:
        >>> from keras_resblocks import cost
        >>> cost("resnet18").params
        11699112

    References:
        Radosavovic et al. 2020, "Designing Network Design Spaces", section 3.1, for
        `activations`.
    """

    params: int = 0
    trainable_params: int = 0
    macs: int | None = 0
    activations: int | None = 0

    def _repr_html_(self) -> str:
        names = {"params": "parameters", "trainable_params": "trainable parameters"}
        names |= {"macs": "multiply-accumulates", "activations": "activations"}
        return html_rows({name: getattr(self, key) for key, name in names.items()})

    def __add__(self, other: "Cost") -> "Cost":
        def total(mine, its):
            return None if mine is None or its is None else mine + its

        return Cost(*map(total, dataclasses.astuple(self), dataclasses.astuple(other)))


def cost(
    model: str | NetworkSpec | keras.Model,
    *,
    input_shape: Sequence[int | None] | None = None,
    include_top: bool = True,
    classes: int | None = None,
    aux_heads: bool = False,
    output_stride: int | None = None,
    **block_options: "Unpack[BlockOptions]",
) -> Cost:
    """The parameters, multiply-accumulates and activations of a model, a spec or a name.

    Of a spec or a name nothing is built but, once, such layers in place of an `activation` or
    the like that this module does not know.

    Args:
        model: a name (see `list_models`), a `ResNetSpec`, an `InceptionSpec` or a built
            functional `keras.Model`, which takes no further arguments.
        input_shape: as in `create_model`.
        include_top: as in `create_model`.
        classes: as in `create_model`.
        aux_heads: as in `create_model`.
        output_stride: as in `create_model`.
        **block_options: as in `create_model`.

    Returns:
        A `Cost`.

    Raises:
        ValueError: as `create_model`, and for further arguments with a built model.

    Examples:
        >>> from keras_resblocks import cost
        >>> cost("resnet50")
        Cost(params=25610152, trainable_params=25557032, macs=4089184256, activations=11114984)
    """
    if isinstance(model, keras.Model):
        given = {
            "input_shape": input_shape,
            "include_top": None if include_top is True else include_top,
            "classes": classes,
            "aux_heads": aux_heads or None,
            "output_stride": output_stride,
            **block_options,
        }
        received = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        if received:
            raise ValueError(
                f"A built `model` takes no further arguments. Received: {', '.join(received)}"
            )
        return Cost(*_count_weights(model)) + _model_work(model)
    spec = get_spec(model)
    classes = validation.positive_int("classes", spec.classes if classes is None else classes)
    options = merge_options(spec, block_options, cost)
    check_parts(spec, include_top, aux_heads, output_stride, block_options)
    shape = check_input_shape(spec, input_shape, include_top, options["data_format"])
    shape = _channels_last((None, *shape), options["data_format"])

    counted = tuple((name, options[name]) for name in _COUNTED if name in options)
    shapes = {}
    total = Cost()
    for name, part in spec.parts(options, output_stride):
        try:
            part_cost, shape = _known_part_cost(part, shape, counted)
        except TypeError:  # a list or a config dict among the arguments: not to be looked up
            part_cost, shape = _part_cost(part, shape, options)
        shapes[name] = shape
        total += part_cost
    if options["preactivation"]:
        total += _entry_cost(shape, options)
    if include_top:
        pooled = (1,)
        if spec.final_pool is not None:
            pooled = window_output(shape[:-1], spec.final_pool, spec.final_pool, "valid")
        total += _classifier_cost(math.prod(pooled) * shape[-1], classes)
    for head in spec.aux_heads if aux_heads else ():
        shape = shapes[head.after]
        named_steps = aux_steps(head, _full_shape(shape, options["data_format"]), options)
        total += _branch_cost([step for _, step in named_steps], shape, options)[0]
        total += _classifier_cost(head.units, classes)
    return total


# The options that a cost depends on.
_COUNTED = (
    *("activation", "normalization", "attention", "shortcut", "preactivation", "exit_activation"),
    *("kernel_size", "groups", "expansion", "stride_in_1x1", "dilation_rate", "atrous"),
    *("padding", "use_bias", "folded", "data_format"),
)

# Below, a shape is that of one sample, channels last.


@functools.lru_cache(maxsize=4096)
def _known_part_cost(part, shape, counted):
    """Equal blocks are counted once, in all the candidates of a search."""
    return _part_cost(part, shape, dict(counted))


def _part_cost(part, shape, options):
    if isinstance(part, BlockCall):
        options = options_of(part, options)
        return _block_cost(branch_of(part, options), shape, options)
    return _step_cost(part, shape, options)


def _block_cost(branch, shape, options):
    plan = plan_of(branch, shape[-1], options)
    total, output = _branch_cost(plan.branch, shape, options)
    total += _branch_cost(plan.shortcut or (), shape, options)[0]
    total += _entry_cost(shape, options) if plan.entry else Cost()
    total += _template_cost(options["attention"], output, options)
    return total + _template_cost(plan.exit, output, options), output


def _entry_cost(shape, options):
    return _template_cost(options["normalization"], shape, options) + _template_cost(
        options["activation"], shape, options
    )


def _branch_cost(branch, shape, options):
    total = Cost()
    for step in branch:
        step_cost, shape = _step_cost(step, shape, options)
        total += step_cost
    return total, shape


def _step_cost(step, shape, options):
    """The cost of a step, and the shape that it leads to."""
    spatial, channels = shape[:-1], shape[-1]
    if isinstance(step, templates.Template):
        layer, input_shape = _built(step, shape, options["data_format"])
        output = layer.compute_output_shape(input_shape)
        output = _channels_last(output, options["data_format"])
        return _template_cost(step, shape, options), output
    if isinstance(step, steps.Split):
        spatial = branch_output((step,), spatial, options["padding"])  # raises where sizes differ
        total = sum((_branch_cost(x, shape, options)[0] for x in step.branches), Cost())
    else:
        spatial = step_output(step, spatial, options["padding"])
        total = Cost()
    output = (*spatial, output_channels((step,), channels))
    if isinstance(step, steps.Conv):
        total = _conv_cost(step, channels, output, {**options, **step.overrides()})
    return total, output


def _conv_cost(step, channels, output, options):
    validation.divisor("groups", step.groups, "input channels", channels)
    window = math.prod(validation.per_axis("kernel_size", step.kernel_size, len(output) - 1))
    kernel = window * (channels // step.groups) * step.filters
    normalization, use_bias = normalization_and_bias(
        templates.normalization.get(options["normalization"]),
        options["use_bias"],
        options["folded"],
        _site(output, options["data_format"]),
    )
    params = kernel + step.filters * use_bias
    activation = templates.activation.get(options["activation"])
    return (
        _work(kernel, output)
        + Cost(params, params)
        + _template_cost(normalization, output, options)
        + _template_cost(activation, output, options)
    )


def _classifier_cost(features, classes):
    params = (features + 1) * classes
    return Cost(params, params, features * classes, classes)


def _template_cost(template, shape, options):
    """The cost of the layer that a template makes for an input of that shape."""
    if template is None:
        return Cost()
    site = _site(shape, options["data_format"])
    layer_class, config = template.recipe(site)
    is_per_channel = config.get("axis", site.channel_axis) == site.channel_axis
    counts = _known_counts(layer_class, config, shape[-1]) if is_per_channel else None
    if counts is None:
        layer, input_shape = _built(template, shape, options["data_format"])
        return Cost(*_count_weights(layer)) + _layer_work(layer, input_shape)
    trainable, fixed, *work = counts
    return Cost(trainable + fixed, trainable if config.get("trainable", True) else 0, *work)


def _work(kernel, output):
    """The multiply-accumulates and activations of a kernel applied at every position."""
    if None in output:
        return Cost(macs=None, activations=None)
    return Cost(macs=kernel * math.prod(output[:-1]), activations=math.prod(output))


_WEIGHTLESS = [getattr(keras.layers, name) for name in ("Activation", "ReLU", "LeakyReLU", "ELU")]
_MOMENTS = {  # the weights of a channel that are not trained
    keras.layers.BatchNormalization: 2,
    keras.layers.LayerNormalization: 0,
    keras.layers.GroupNormalization: 0,
}


def _known_counts(layer_class, config, channels):
    """Trainable and other parameters, multiply-accumulates and activations of a layer.

    None where that is not known from its config.
    """
    if layer_class in _WEIGHTLESS:
        return 0, 0, 0, 0
    if layer_class in _MOMENTS:
        per_channel = config.get("scale", True) + config.get("center", True)
        return per_channel * channels, _MOMENTS[layer_class] * channels, 0, 0
    if not all(isinstance(config.get(f"{kind}activation", ""), str) for kind in ("", "gate_")):
        return None  # a layer, perhaps with weights
    if layer_class is layers.SqueezeExcite:
        hidden = max(1, channels // config.get("reduction", 16))
        kernels = 2 * channels * hidden
        return kernels + channels + hidden, 0, kernels, hidden + channels
    if layer_class is layers.EfficientChannelAttention:
        size = config.get("kernel_size") or adaptive_kernel_size(channels)
        return size, 0, size * channels, channels
    return None


def _site(shape, data_format):
    return templates.Site(
        rank=len(shape) - 1, channels=shape[-1], data_format=data_format, dtype="float32"
    )


@functools.lru_cache(maxsize=1024)
def _built(template, shape, data_format):
    layer = template.make(_site(shape, data_format), "counted")
    input_shape = _full_shape(shape, data_format)
    layer.build(input_shape)
    return layer, input_shape


def _count_weights(layer):
    def count(weights):
        return sum(math.prod(weight.shape) for weight in weights)

    return count(layer.weights), count(layer.trainable_weights)


# What the layers of a built model do, as a `Cost` without parameters: those are counted.


def _model_work(model):
    try:
        works = [_layer_work(layer, layer.input.shape) for layer in model.layers if layer.weights]
    except AttributeError:  # a layer used twice, or a model that is no graph of layers
        return Cost(macs=None, activations=None)
    return sum(works, Cost())


_WORKING = tuple(x for x in KERNEL_LAYERS if not x.__name__.endswith("Transpose"))


def _layer_work(layer, input_shape):
    """The work of a built layer for one sample."""
    if isinstance(layer, keras.Model):
        return _model_work(layer)
    if isinstance(layer, Composite):
        parts = [part for part in layer.sublayers() if part.weights]
        shapes = [part.get_build_config()["input_shape"] for part in parts]
        return sum(map(_layer_work, parts, shapes), Cost())
    if not isinstance(layer, _WORKING):
        return Cost()
    output = layer.compute_output_shape(input_shape)
    kernels = sum(math.prod(w.shape) for w in layer.weights if w.name.endswith("kernel"))
    return _work(kernels, _channels_last(output, getattr(layer, "data_format", "channels_last")))


def _full_shape(shape, data_format):
    """The shape of a batch."""
    *spatial, channels = shape
    return (None, channels, *spatial) if data_format == "channels_first" else (None, *shape)


def _channels_last(shape, data_format):
    """The inverse of `_full_shape`."""
    _, *sizes = shape
    return (*sizes[1:], sizes[0]) if data_format == "channels_first" else tuple(sizes)
