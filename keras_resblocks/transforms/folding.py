"""Batch normalization, made part of the convolution before it."""

import warnings

import keras
import numpy as np

from keras_resblocks.layers import ConvUnit
from keras_resblocks.layers.composite import Composite
from keras_resblocks.layers.units import ConvComposite
from keras_resblocks.models import graphs


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
    graphs.check_graph(model)
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

    def clone(self, layer, folds=True):
        if layer not in self._clones:
            self._clones[layer] = self._clone(layer, folds)
        return self._clones[layer]

    def copy_weights(self):
        for layer, clone in self._copied:
            _copy(layer, clone)
        for conv, norm, clone in self._folded:
            _fold(conv, norm, clone)

    def _clone(self, layer, folds):
        if folds and graphs.is_graph(layer):
            return self._clone_graph(layer)
        config = layer.get_config()
        if isinstance(layer, keras.layers.TimeDistributed):
            return type(layer)(**{**config, "layer": self.clone(layer.layer, folds)})
        if isinstance(layer, Composite):
            config = _without_lora(config)
        if folds and isinstance(layer, ConvComposite):
            config["folded"] = True
        clone = graphs.remade(layer, config)
        if isinstance(layer, keras.layers.Layer):  # and not a plain operation
            self._copied.append((layer, clone))
        return clone

    def _clone_graph(self, model):
        graph = graphs.functional(model)
        calls = graphs.Calls(graph)
        in_training = {
            name
            for name, nodes in calls.nodes.items()
            if any(node["kwargs"].get("training") for node in nodes)
        }
        normalizations = dict(_foldable_pairs(calls, in_training))

        def clone(layer):
            if layer not in normalizations:
                return self.clone(layer, folds=layer.name not in in_training)
            config = {**layer.get_config(), "use_bias": True}
            config.pop("lora_rank", None)  # LoRA's part of the kernel is in it
            twin = type(layer).from_config(config)
            self._folded.append((layer, normalizations[layer], twin))
            return twin

        return graphs.cloned(graph, clone, places=dict.fromkeys(normalizations.values()))


def _without_lora(config):
    """The config of a composite without LoRA in its sublayers: the kernels have its part."""
    sublayers = {
        name: _without_lora({k: v for k, v in change.items() if not k.startswith("lora_")})
        for name, change in config.get("sublayers", {}).items()
    }
    return {**config, "sublayers": sublayers} if sublayers else config


def _foldable_pairs(calls, in_training):
    """Pairs of a convolution and the normalization that is all that it leads to."""
    for norm in calls.layers.values():
        nodes = calls.nodes[norm.name]
        if type(norm) is keras.layers.BatchNormalization and len(nodes) == 1:
            (name, *_), shape = next(graphs.tensors(nodes))
            conv = calls.layers.get(name)
            is_alone = len(calls.users[name]) == len(calls.nodes[name]) == 1
            if is_alone and norm.name not in in_training and _is_pair(conv, norm, shape):
                yield conv, norm


def _is_pair(conv, norm, shape):
    """Whether a normalization of a tensor of that shape can be part of what computes it."""
    if type(conv) not in graphs.KERNEL_LAYERS or conv.activation is not keras.activations.linear:
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


def _copy(layer, clone):
    """Copies the weights; where a unit of the clone has no normalization, folded."""
    if isinstance(layer, Composite):
        pairs = {x: getattr(clone, x.name) for x in layer.sublayers() if hasattr(clone, x.name)}
        norm = getattr(layer, "norm", None) if isinstance(layer, ConvUnit) else None
        if norm is not None and norm not in pairs:
            _fold(layer.conv, norm, pairs.pop(layer.conv))
        for sublayer, twin in pairs.items():
            _copy(sublayer, twin)
    elif getattr(layer, "lora_enabled", False):
        graphs.copy_own_variables(layer, clone)  # with LoRA as part of the kernel
    else:
        graphs.copy_values(layer, clone, zip(layer.weights, clone.weights, strict=True))


def _fold(conv, norm, clone):
    """Gives `clone` the weights of a convolution and of the normalization after it."""
    kind = type(conv).__name__
    kernel_name = "pointwise_kernel" if "Separable" in kind else "kernel"
    kernel = _array(getattr(conv, kernel_name))
    bias = 0.0 if conv.bias is None else _array(conv.bias)
    gain = 1.0 / np.sqrt(_array(norm.moving_variance) + norm.epsilon)
    gain = gain * _array(norm.gamma) if norm.scale else gain
    bias = (bias - _array(norm.moving_mean)) * gain
    bias = bias + _array(norm.beta) if norm.center else bias
    # The outputs are the last axis of a kernel, but for those of two kinds.
    gain = gain.reshape(kernel.shape[-2:]) if "Depthwise" in kind else gain
    kernel = kernel * (gain[:, None] if "Transpose" in kind else gain)
    getattr(clone, kernel_name).assign(kernel)
    clone.bias.assign(bias)
    if "Separable" in kind:
        clone.depthwise_kernel.assign(_array(conv.depthwise_kernel))


def _array(weight):
    return keras.ops.convert_to_numpy(weight).astype("float64")  # so that it is rounded once
