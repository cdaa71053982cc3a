"""Batch normalization, made part of the convolution before it."""

import warnings

import keras
import numpy as np

from keras_resblocks.layers import ConvUnit
from keras_resblocks.layers.composite import Composite
from keras_resblocks.layers.units import ConvComposite
from keras_resblocks.models.graphs import (
    Calls,
    check_graph,
    cloned,
    copy_values,
    functional,
    is_graph,
    tensors,
)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """The same network without the batch normalizations that follow a convolution.

    `kernel' = kernel * s`, `bias' = beta + (bias - moving_mean) * s`, where
    `s = gamma / sqrt(moving_variance + epsilon)`

    Outputs are those of `model` in inference, equal but for rounding. This is for inference: a
    normalization that is part of a kernel no longer follows the statistics of a batch.

    Folded are the blocks, stems and units of this package wherever they stand in the model, and
    pairs of Keras's own layers: a convolution (depthwise, transposed and separable ones too) or
    a dense layer, linear, with an output that only goes to a `BatchNormalization` of its
    channels. Nested models are folded as well.

    Args:
        model: a functional or `Sequential` model; it is left as it is.

    Returns:
        A functional `keras.Model` of new layers with the same names, not compiled. It can be
        saved, and has weights of its own.

    Raises:
        ValueError: if `model` is not a graph of layers.

    Warns:
        UserWarning: if batch normalizations are left; it names them. Those are the ones without
            a convolution just before them, as in pre-activation blocks, subclasses of
            `BatchNormalization`, and those in layers that are called with `training=True`.

    Examples:
        >>> from keras_resblocks import create_model, fold_batch_norm
        >>> fast = fold_batch_norm(create_model("resnet20_cifar"))
        >>> fast.save("resnet20_folded.keras")

    References:
        Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", section 3.2.
    """
    folded, left = fold(model)
    if left:
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        warnings.warn(
            f"{len(left)} batch normalizations are left, which follow no convolution directly: "
            f"{', '.join(left[:8])}{more}",
            stacklevel=2,
        )
    return folded


def fold(model):
    """The model of `fold_batch_norm`, and the paths of the batch normalizations left in it."""
    check_graph(model)
    folding = _Folding()
    folded = folding.clone(model)
    folding.copy_weights()
    paths = [weight.path.rpartition("/") for weight in folded.weights]
    return folded, [path for path, _, name in paths if name == "moving_variance"]


class _Folding:
    """Clones layers; the weights are copied once everything is built."""

    def __init__(self):
        self._clones = {}  # what was shared is shared again
        self._copied = []  # pairs of a layer and its clone
        self._folded = []  # triples of a convolution, the normalization after it, and the clone

    def clone(self, layer):
        if layer not in self._clones:
            self._clones[layer] = self._clone(layer)
        return self._clones[layer]

    def copy_weights(self):
        for layer, clone in self._copied:
            _copy(layer, clone)
        for conv, norm, clone in self._folded:
            _fold(conv, norm, clone)

    def _clone(self, layer):
        if is_graph(layer):
            return self._clone_graph(layer)
        if isinstance(layer, keras.layers.TimeDistributed):
            config = layer.get_config()
            del config["layer"]
            return type(layer)(self.clone(layer.layer), **config)
        return self._clone_layer(layer, folds=True)

    def _clone_layer(self, layer, folds):
        changes = {"folded": True} if folds and isinstance(layer, ConvComposite) else {}
        config = layer.get_config()
        if isinstance(layer, Composite):
            config = _without_lora(config)
        clone = type(layer).from_config({**config, **changes})
        if isinstance(layer, keras.layers.Layer):  # and not a plain operation
            self._copied.append((layer, clone))
        return clone

    def _clone_graph(self, model):
        graph = functional(model)
        calls = Calls(graph)
        normalizations = dict(_foldable_pairs(calls))
        absorbed = {norm.name for norm in normalizations.values()}

        def clone(layer):
            if layer.name in absorbed:
                return layer  # for its name: it is not called
            if layer in normalizations:
                config = {**layer.get_config(), "use_bias": True}
                config.pop("lora_rank", None)  # LoRA's part of the kernel is in it
                twin = type(layer).from_config(config)
                self._folded.append((layer, normalizations[layer], twin))
                return twin
            if layer.name in calls.in_training:
                return self._clone_layer(layer, folds=False)
            return self.clone(layer)

        def call(layer, *args, **kwargs):
            return args[0] if layer.name in absorbed else layer(*args, **kwargs)

        return cloned(graph, clone, call)


def _without_lora(config):
    """The config of a composite without LoRA in its sublayers: the kernels have its part."""
    sublayers = {
        name: _without_lora({k: v for k, v in change.items() if not k.startswith("lora_")})
        for name, change in config.get("sublayers", {}).items()
    }
    return {**config, "sublayers": sublayers} if sublayers else config


def _foldable_pairs(calls):
    """Pairs of a convolution and the normalization that is all that it leads to."""
    for norm in calls.layers.values():
        nodes = calls.nodes[norm.name]
        if type(norm) is keras.layers.BatchNormalization and len(nodes) == 1:
            name, shape = next(tensors(nodes))
            conv = calls.layers.get(name)
            is_alone = calls.uses[name] == 1 and _is_called_once(conv)
            if is_alone and norm.name not in calls.in_training and _is_pair(conv, norm, shape):
                yield conv, norm


def _is_called_once(layer):
    try:
        return layer is not None and layer.output is not None
    except (AttributeError, ValueError):  # more than one output: it is used in two places
        return False


def _is_pair(conv, norm, shape):
    """Whether a normalization of a tensor of that shape can be part of what computes it."""
    if type(conv) not in _KERNELS or conv.activation is not keras.activations.linear:
        return False
    channels_first = getattr(conv, "data_format", None) == "channels_first"
    if channels_first and shape[1] == shape[-1] and keras.backend.backend() == "tensorflow":
        return False  # where Keras 3.15 would add a bias along the wrong axis
    axis = 1 if channels_first else -1
    return (
        (norm.axis - axis) % len(shape) == 0
        and norm.compute_dtype == conv.compute_dtype
        and conv.dtype_policy.quantization_mode is None
    )


def _last_axis(gain, shape):
    return gain


def _last_two_axes(gain, shape):
    return gain.reshape(shape[-2:])


def _last_axis_but_one(gain, shape):
    return gain[:, None]


# The layers that can be folded into (not their subclasses): the kernel that makes the outputs, and
# how one gain for each output is applied to it.
_KERNELS = {
    keras.layers.Dense: ("kernel", _last_axis),
    keras.layers.Conv1D: ("kernel", _last_axis),
    keras.layers.Conv2D: ("kernel", _last_axis),
    keras.layers.Conv3D: ("kernel", _last_axis),
    keras.layers.SeparableConv1D: ("pointwise_kernel", _last_axis),
    keras.layers.SeparableConv2D: ("pointwise_kernel", _last_axis),
    keras.layers.DepthwiseConv1D: ("kernel", _last_two_axes),
    keras.layers.DepthwiseConv2D: ("kernel", _last_two_axes),
    keras.layers.Conv1DTranspose: ("kernel", _last_axis_but_one),
    keras.layers.Conv2DTranspose: ("kernel", _last_axis_but_one),
    keras.layers.Conv3DTranspose: ("kernel", _last_axis_but_one),
}


def _copy(layer, clone):
    """Copies the weights; where a unit of the clone has no normalization, folded."""
    copied = []
    for unit, twin in zip(_units(layer), _units(clone)):
        norm = getattr(unit, "norm", None)
        if norm is not None and getattr(twin, "norm", None) is None:
            _fold(unit.conv, norm, twin.conv)
            copied += [*unit.conv.weights, *norm.weights, *twin.conv.weights]
        elif unit.conv.lora_enabled:  # it is part of the kernel, as it is when saved
            _fold(unit.conv, None, twin.conv)
            copied += [*unit.conv.weights, *twin.conv.weights]
    copied = set(map(id, copied))

    def others(weights):
        return [weight for weight in weights if id(weight) not in copied]

    copy_values(clone, zip(others(layer.weights), others(clone.weights), strict=True))


def _units(layer):
    if isinstance(layer, ConvUnit):
        yield layer
    elif isinstance(layer, Composite):
        for sublayer in layer.sublayers():
            yield from _units(sublayer)


def _fold(conv, norm, clone):
    """Gives `clone` the weights of a convolution and of the normalization after it, or None."""
    kernel_name, fitted = _KERNELS.get(type(conv), ("kernel", _last_axis))
    kernel = _array(getattr(conv, kernel_name))
    bias = 0.0 if conv.bias is None else _array(conv.bias)
    if norm is not None:
        gain = 1.0 / np.sqrt(_array(norm.moving_variance) + norm.epsilon)
        gain = gain * _array(norm.gamma) if norm.scale else gain
        bias = (bias - _array(norm.moving_mean)) * gain
        bias = bias + _array(norm.beta) if norm.center else bias
        kernel = kernel * fitted(gain, kernel.shape)
    getattr(clone, kernel_name).assign(kernel)
    if clone.bias is not None:
        clone.bias.assign(bias)
    if kernel_name == "pointwise_kernel":
        clone.depthwise_kernel.assign(_array(conv.depthwise_kernel))


def _array(weight):
    return keras.ops.convert_to_numpy(weight).astype("float64")  # so that it is rounded once
