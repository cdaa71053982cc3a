"""Parameters and multiply-accumulates, computed from a description without building it."""

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence

import keras

from keras_resblocks import layers, validation
from keras_resblocks.layers import steps, templates
from keras_resblocks.layers.attention import adaptive_kernel_size
from keras_resblocks.layers.composite import Composite
from keras_resblocks.layers.residual import Block
from keras_resblocks.layers.steps import branch_output, step_output, window_output
from keras_resblocks.layers.units import normalization_and_bias, rank_layer
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


@dataclasses.dataclass(frozen=True)
class _Shape:
    spatial: tuple  # None for an open size
    channels: int

    def positions(self):
        return None if None in self.spatial else math.prod(self.spatial)


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

    Nothing is built for a spec or a name, unless an `activation` or the like is a layer with
    weights that this module cannot tell: then that layer alone is, once.

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
        given = {name: value for name, value in given.items() if value is not None}
        if given:
            received = ", ".join(f"{name}={value!r}" for name, value in given.items())
            raise ValueError(f"A built `model` takes no further arguments. Received: {received}")
        return _cost_of_model(model)
    spec = get_spec(model)
    classes = validation.positive_int("classes", spec.classes if classes is None else classes)
    options = merge_options(spec, block_options, cost)
    check_parts(spec, include_top, aux_heads, output_stride, block_options)
    shape = check_input_shape(spec, input_shape, include_top, options["data_format"])
    shape = _shape((None, *shape), options["data_format"])

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
        total += _template_cost(options["normalization"], shape, options)
        total += _template_cost(options["activation"], shape, options)
    if include_top:
        total += _head_cost(spec, shape, classes)
    if aux_heads:
        for head in spec.aux_heads:
            total += _aux_cost(head, shapes[head.after], options, classes)
    return total


def _head_cost(spec, shape, classes):
    features = shape.channels
    if spec.final_pool is not None:
        pooled = window_output(shape.spatial, spec.final_pool, spec.final_pool, "valid")
        features *= math.prod(pooled)
    return _classifier_cost(features, classes)


def _classifier_cost(features, classes):
    params = (features + 1) * classes
    return Cost(params, params, features * classes, classes)


def _aux_cost(head, shape, options, classes):
    full_shape = _full_shape(shape, options["data_format"])
    branch = tuple(step for _, step in aux_steps(head, full_shape, options))
    total, _ = _branch_cost(branch, shape, options)
    return total + _classifier_cost(head.units, classes)


# The options that a cost depends on.
_COUNTED = (
    *("activation", "normalization", "attention", "shortcut", "preactivation", "exit_activation"),
    *("kernel_size", "groups", "expansion", "stride_in_1x1", "dilation_rate", "atrous"),
    *("padding", "use_bias", "folded", "data_format"),
)


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
    plan = plan_of(branch, shape.channels, options)
    total = Cost()
    if plan.entry:
        total += _template_cost(options["normalization"], shape, options)
        total += _template_cost(options["activation"], shape, options)
    branch_cost, output = _branch_cost(plan.branch, shape, options)
    total += branch_cost + _branch_cost(plan.shortcut or (), shape, options)[0]
    total += _template_cost(options["attention"], output, options)
    total += _template_cost(plan.exit, output, options)
    return total, output


def _branch_cost(branch, shape, options):
    total = Cost()
    for step in branch:
        step_cost, shape = _step_cost(step, shape, options)
        total += step_cost
    return total, shape


@functools.singledispatch
def _step_cost(step, shape, options):
    """The cost of a step, and the shape that it leads to."""
    raise TypeError(step)


@_step_cost.register
def _(step: steps.Conv, shape, options):
    options = {**options, **step.overrides()}
    spatial = step_output(step, shape.spatial, options["padding"])
    output = _Shape(spatial, step.filters)
    validation.divisor("groups", step.groups, "input channels", shape.channels)
    window = math.prod(validation.per_axis("kernel_size", step.kernel_size, len(spatial)))
    kernel = window * (shape.channels // step.groups) * step.filters
    normalization, use_bias = normalization_and_bias(
        templates.normalization.get(options["normalization"]),
        options["use_bias"],
        options["folded"],
        _site(output, options["data_format"]),
    )
    activation = templates.activation.get(options["activation"])
    params = kernel + (step.filters if use_bias else 0)
    return (
        _work(kernel, output)
        + Cost(params, params)
        + _template_cost(normalization, output, options)
        + _template_cost(activation, output, options),
        output,
    )


@_step_cost.register
def _(step: steps.Pool, shape, options):
    return Cost(), _Shape(step_output(step, shape.spatial, options["padding"]), shape.channels)


@_step_cost.register
def _(step: steps.AdaptivePool, shape, options):
    return Cost(), _Shape(step_output(step, shape.spatial, options["padding"]), shape.channels)


@_step_cost.register
def _(step: steps.Subsample, shape, options):
    return Cost(), _Shape(step_output(step, shape.spatial, options["padding"]), step.filters)


@_step_cost.register
def _(step: steps.Split, shape, options):
    costs, shapes = zip(*(_branch_cost(branch, shape, options) for branch in step.branches))
    channels = sum(output.channels for output in shapes)
    branch_output((step,), shape.spatial, options["padding"])  # raises where sizes differ
    return functools.reduce(operator.add, costs), _Shape(shapes[0].spatial, channels)


@_step_cost.register
def _(step: templates.Template, shape, options):
    layer, input_shape = _built(step, shape, options["data_format"])
    output = _shape(layer.compute_output_shape(input_shape), options["data_format"])
    return _template_cost(step, shape, options), output


def _template_cost(template, shape, options):
    """The cost of the layer that a template makes for an input of that shape."""
    if template is None:
        return Cost()
    data_format = options["data_format"]
    site = _site(shape, data_format)
    layer_class, config = template.recipe(site)
    is_per_channel = config.get("axis", site.channel_axis) == site.channel_axis
    formula = _FORMULAS.get(layer_class) if is_per_channel else None
    counts = formula and formula(config, shape)
    if counts is None:
        layer, input_shape = _built(template, shape, data_format)
        return Cost(*_count_weights(layer)) + _layer_work(layer, input_shape)
    trainable, fixed, *work = counts
    if not config.get("trainable", True):
        trainable, fixed = 0, trainable + fixed
    return Cost(trainable + fixed, trainable, *work)


def _work(kernel, output):
    """The multiply-accumulates and activations of a kernel applied at every position."""
    positions = output.positions()
    if positions is None:
        return Cost(macs=None, activations=None)
    return Cost(macs=kernel * positions, activations=output.channels * positions)


# For each layer class: its trainable parameters, its fixed ones, its multiply-accumulates and
# activations, from its config; or None where the config asks for more than the formula knows.


def _normalization(moments):
    def formula(config, shape):
        per_channel = config.get("scale", True) + config.get("center", True)
        return per_channel * shape.channels, moments * shape.channels, 0, 0

    return formula


def _squeeze_excite(config, shape):
    if not _is_plain(config, "activation", "gate_activation"):
        return None
    hidden = max(1, shape.channels // config.get("reduction", 16))
    kernels = 2 * shape.channels * hidden
    return kernels + shape.channels + hidden, 0, kernels, hidden + shape.channels


def _efficient_channel(config, shape):
    if not _is_plain(config, "gate_activation"):
        return None
    size = config.get("kernel_size") or adaptive_kernel_size(shape.channels)
    return size, 0, size * shape.channels, shape.channels


def _is_plain(config, *activations):
    return all(isinstance(config.get(name, ""), str) for name in activations)


def _weightless(config, shape):
    return 0, 0, 0, 0


_FORMULAS = {
    keras.layers.BatchNormalization: _normalization(moments=2),
    keras.layers.LayerNormalization: _normalization(moments=0),
    keras.layers.GroupNormalization: _normalization(moments=0),
    layers.SqueezeExcite: _squeeze_excite,
    layers.EfficientChannelAttention: _efficient_channel,
    keras.layers.Activation: _weightless,
    keras.layers.ReLU: _weightless,
    keras.layers.LeakyReLU: _weightless,
    keras.layers.ELU: _weightless,
}


def _site(shape, data_format):
    return templates.Site(
        rank=len(shape.spatial), channels=shape.channels, data_format=data_format, dtype="float32"
    )


@functools.lru_cache(maxsize=1024)
def _built(template, shape, data_format):
    layer = template.make(_site(shape, data_format), "counted")
    input_shape = _full_shape(shape, data_format)
    layer.build(input_shape)
    return layer, input_shape


def _cost_of_model(model):
    return Cost(*_count_weights(model)) + _model_work(model)


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


_KERNEL_LAYERS = (
    keras.layers.Dense,
    *(rank_layer("Conv", rank) for rank in (1, 2, 3)),
    *(rank_layer(name, rank) for name in ("DepthwiseConv", "SeparableConv") for rank in (1, 2)),
)


def _layer_work(layer, input_shape):
    """The work of a built layer for one sample."""
    if isinstance(layer, keras.Model):
        return _model_work(layer)
    if isinstance(layer, Composite):
        work = _composite_cost(layer, _shape(input_shape, layer.data_format))
        return dataclasses.replace(work, params=0, trainable_params=0)
    if not isinstance(layer, _KERNEL_LAYERS):
        return Cost()
    output = layer.compute_output_shape(input_shape)
    kernels = sum(math.prod(w.shape) for w in layer.weights if w.name.endswith("kernel"))
    return _work(kernels, _shape(output, getattr(layer, "data_format", "channels_last")))


def _composite_cost(layer, shape):
    if isinstance(layer, Block):
        options = {
            **vars(layer),
            "shortcut": layer.shortcut_policy,
            "attention": layer.attention_template,
        }
        return _block_cost(layer.branch(), shape, options)[0]
    if isinstance(layer, layers.ConvUnit):
        step = steps.Conv(
            layer.filters, layer.kernel_size, layer.strides, layer.groups, layer.dilation_rate
        )
        return _step_cost(step, shape, vars(layer))[0]
    formula = _FORMULAS.get(type(layer))
    counts = formula and formula(layer.get_config(), shape)
    return Cost(0, 0, *counts[2:]) if counts else Cost()


def _full_shape(shape, data_format):
    """A `_Shape` as a full shape, batch included."""
    if data_format == "channels_first":
        return (None, shape.channels, *shape.spatial)
    return (None, *shape.spatial, shape.channels)


def _shape(shape, data_format):
    """A full shape, batch included, as a `_Shape`."""
    if data_format == "channels_first":
        return _Shape(tuple(shape[2:]), shape[1])
    return _Shape(tuple(shape[1:-1]), shape[-1])
