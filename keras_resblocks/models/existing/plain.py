"""Models of this package's layers as models of Keras's own."""

import dataclasses
import functools
import inspect
from typing import Any

import keras

from keras_resblocks import layers, validation
from keras_resblocks.layers import wiring
from keras_resblocks.layers.composite import Composite
from keras_resblocks.layers.pooling import Subsampling, same_padding
from keras_resblocks.layers.residual import Block
from keras_resblocks.layers.steps import symmetric_padding
from keras_resblocks.layers.templates import LayerNormalizationOfAxis1
from keras_resblocks.layers.units import rank_layer
from keras_resblocks.models import graphs
from keras_resblocks.training.pictures import FitSize, Labels

_PACKAGE = __name__.partition(".")[0]


def to_plain_keras(model: keras.Model) -> keras.Model:
    """The same network of Keras's own layers: its file loads where this package is missing.

    Outputs are those of `model`, and so is training, but for the random numbers of stochastic
    depth. Each layer is one call in the graph, so that all inner activations have an `.output`.
    Names are those of the blocks and their parts: the first unit of a block `stage1_block1` is
    `stage1_block1_conv1_pad`, `stage1_block1_conv1` (the convolution), `stage1_block1_conv1_norm`
    and `stage1_block1_conv1_act`; the block's sum is `stage1_block1_add`.

    Weights, options of layers, sharing and what is frozen carry over, but for `remat`, `fused`
    and `folded`; `NumpyHeNormal` becomes `HeNormal`. Layers of other packages stay as they are,
    and nested models are made plain inside.

    Args:
        model: a functional or `Sequential` model; it is left as it is.

    Returns:
        A functional `keras.Model` of new layers with weights of its own, not compiled.

    Raises:
        ValueError: if `model` is not a graph of layers, or holds one that Keras's own layers
            cannot express, such as `RandomShift`; on PyTorch also an average of an open size with
            `padding="same"`, where it is strided or even.

    Examples:
        >>> from keras_resblocks import create_model, to_plain_keras
        >>> model = to_plain_keras(create_model("resnet20_cifar"))
        >>> model.get_layer("stage3_block3_conv2_norm").output.shape
        (None, 8, 8, 64)
        >>> model.save("plain.keras")
    """
    graphs.check_graph(model)
    conversion = _Conversion()
    plain = conversion.graph(model, name=model.name)
    conversion.copy_state()
    return plain


class _Conversion:
    """The plain layers by what they stand for: what was shared is shared again."""

    def __init__(self):
        self.made = {}
        self.nonnegative = set()  # ids of tensors, which the graph keeps
        self._copied = []  # triples of a layer, its copy and the copy's own initializers

    def graph(self, model, name):
        """The plain form of a graph of layers."""
        graph = graphs.functional(model, name)
        names = {layer.name for layer in graph.operations if _form(layer) is _copied}

        def call(layer, *args, **kwargs):
            if _form(layer) is _copied:
                inputs = keras.tree.flatten([args, kwargs])[0]
                return _Place(self, set(), layer.name).twin(layer, inputs)(*args, **kwargs)
            given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
            place = _Place(self, names, layer.name, given.get("training"))
            return place.expanded(layer, given["inputs"])

        plain = graphs.cloned(graph, lambda layer: layer, call)
        if not model.trainable:
            plain.trainable = False  # and its layers, until the end
        return plain

    def twin(self, layer, inputs, name):
        """One layer in place of another, to be called on `inputs` first."""
        if graphs.is_graph(layer):
            return self.graph(layer, name)
        if isinstance(layer, keras.layers.TimeDistributed):
            one = keras.Input(batch_shape=(inputs.shape[0], *inputs.shape[2:]), dtype=inputs.dtype)
            inner = _Place(self, set(), layer.layer.name).twin(layer.layer, one)
            return type(layer)(**{**layer.get_config(), "layer": inner, "name": name})
        if _form(layer) is not _copied:
            outputs = _Place(self, set(), name).expanded(layer, inputs)
            return keras.Model(inputs, outputs, name=name)
        return self.copy(layer, name=name)

    def copy(self, layer, layer_class=None, **changes):
        """A copy of a layer that is not ours, in another class if need be."""
        layer_class = layer_class or type(layer)
        if _is_ours(layer_class) or isinstance(layer, Composite):
            raise _inexpressible(layer)
        config = _without_ours(layer.get_config(), layer)
        if not isinstance(layer, keras.layers.Layer):  # a plain operation
            return layer_class.from_config(config)
        if _policy_of(layer) != layer.dtype_policy and layer.path != changes["name"]:
            config["dtype"] = _policy_of(layer)  # a map would not know the new path
        copy = layer_class.from_config({**config, **changes})
        own = {k: v for k, v in vars(copy).items() if isinstance(v, keras.initializers.Initializer)}
        for name in own:  # JAX would compile each of them for each shape
            setattr(copy, name, keras.initializers.Zeros())
        self._copied.append((layer, copy, own))
        return copy

    def copy_state(self):
        """Gives the copies their weights, once everything is built."""
        for layer, copy, own in self._copied:
            for name, initializer in own.items():
                setattr(copy, name, initializer)
            graphs.copy_trainable(layer, copy)
            graphs.copy_values(layer, copy, zip(layer.weights, copy.weights, strict=True))


def _inexpressible(layer):
    return ValueError(
        "`model` must hold layers that Keras's own layers can express. "
        f"Received: layer '{layer.name}' of class {type(layer).__name__}"
    )


def _without_ours(config, layer):
    """The config of a layer without objects of this package."""
    if isinstance(config, (list, tuple)):
        return type(config)(_without_ours(value, layer) for value in config)
    if not isinstance(config, dict):
        return config
    package, _, name = str(config.get("registered_name")).partition(">")
    if package == _PACKAGE and name != "NumpyHeNormal":
        raise _inexpressible(layer)
    if package == _PACKAGE:
        stock = {"module": "keras.initializers", "class_name": "HeNormal", "registered_name": None}
        return {**stock, "config": config["config"]}
    return {key: _without_ours(value, layer) for key, value in config.items()}


def _policy_of(layer):
    """The dtype policy of a built layer, which may have a map of them."""
    policy = layer.dtype_policy
    if not isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        return policy
    # Keras gives no path to layers that need no build.
    return policy[layer.path] if layer.path else policy.default_policy


def _is_ours(definition):
    return definition.__module__.partition(".")[0] == _PACKAGE


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a part becomes plain layers."""

    conversion: Any
    names: set  # that are taken
    name: str  # of the part
    training: bool | None = None
    policy: keras.DTypePolicy | None = None  # of the layer that the part belongs to

    def part(self, part, x):
        """The output of the plain form of a part of this one, for a Keras tensor."""
        if not isinstance(part, keras.layers.Layer):
            return _plain(part, x, self)
        return dataclasses.replace(self, name=f"{self.name}_{part.name}").expanded(part, x)

    def expanded(self, layer, x):
        """The output of the plain form of a layer of this name."""
        at = dataclasses.replace(self, policy=_policy_of(layer))
        if not isinstance(layer, Composite):
            return _form(layer)(layer, x, at)
        x = _form(layer)(layer, at.cast(layer, x, layer.compute_dtype), at)
        regularizer = layer.activity_regularizer
        if regularizer is None:
            return x
        return at.passed(layer, x, "_output", activity_regularizer=regularizer)

    def new(self, part, layer_class, suffix="", **config):
        """A layer without weights for a part, or for something that it does."""
        return self._made((part, suffix), layer_class, suffix, **{"dtype": self.policy, **config})

    def twin(self, layer, inputs):
        """A layer in place of another one."""
        return self._made(layer, functools.partial(self.conversion.twin, layer, inputs))

    def stock(self, layer, x, layer_class, **changes):
        """The output of a copy of a layer in the Keras class that its own is derived from."""
        make = functools.partial(self.conversion.copy, layer, layer_class, **changes)
        return self.called(self._made(layer, make), x)

    def _made(self, key, make, suffix="", **config):
        if key not in self.conversion.made:
            name = self.name + suffix
            while name in self.names:
                name += "_"
            self.names.add(name)
            self.conversion.made[key] = make(name=name, **config)
        return self.conversion.made[key]

    def called(self, layer, x):
        """The output of a layer, in this place's mode."""
        has_modes = "training" in inspect.signature(layer.call).parameters
        modes = {"training": self.training} if has_modes and self.training is not None else {}
        outputs = layer(x, **modes)
        if type(layer) is keras.layers.Activation and layer.activation is keras.activations.relu:
            self.conversion.nonnegative.add(id(outputs))
        return outputs

    def cast(self, part, x, dtype):
        """`x` in that dtype."""
        return x if x.dtype == dtype else self.passed(part, x, "_cast", dtype=dtype)

    def passed(self, part, x, suffix="", **config):
        """`x` through a layer that computes nothing, and has a name and an output."""
        return self.new(part, keras.layers.Activation, suffix, activation="linear", **config)(x)

    def merged(self, part, layer_class, suffix, tensors, **config):
        """The output of a layer that merges tensors, in the dtype of an operation that does."""
        dtype = keras.backend.result_type(*(x.dtype for x in tensors))
        dtype = self.policy if self.policy.compute_dtype == dtype else dtype
        outputs = self.new(part, layer_class, suffix, dtype=dtype, **config)(tensors)
        if self.conversion.nonnegative.issuperset(map(id, tensors)):
            self.conversion.nonnegative.add(id(outputs))
        return outputs

    def operations(self, function, *inputs):
        """A function of tensors by operations, where no layer computes it."""
        while True:  # until their names, which Keras counts up, are free
            outputs = function(*inputs)
            made = keras.Function(inputs, outputs).operations
            names = {y.name for y in made if not isinstance(y, keras.layers.InputLayer)}
            if names.isdisjoint(self.names):
                self.names.update(names)
                return outputs


def _form(layer):
    """The function that makes a layer plain: that of its class, if it computes what that does."""
    return _plain.dispatch(type(layer)) if _is_ours(type(layer).call) else _copied


# The plain forms: functions of a part, a Keras tensor and a `_Place`.


def _copied(layer, x, at):
    """A layer that is not ours stays what it is."""
    return at.called(at.twin(layer, x), x)


_plain = functools.singledispatch(_copied)


@_plain.register
def _chain(chain: wiring.Chain, x, at):
    return functools.reduce(lambda x, part: at.part(part, x), chain.layers, x)


@_plain.register
def _concatenation(part: wiring.Concatenation, x, at):
    tensors = [at.part(branch, x) for branch in part.branches]
    return at.merged(part, keras.layers.Concatenate, f"_{part.name}", tensors, axis=part.axis)


@_plain.register
def _scale(part: wiring.Scale, x, at):
    return at.new(part, keras.layers.Rescaling, "_scale", scale=part.factor)(x)


@_plain.register
def _cast(part: wiring.Cast, x, at):
    return at.cast(part, x, part.dtype)


@_plain.register
def _block(block: Block, x, at):
    activated = at.part(block.entry, x)
    outputs = at.part(block.residual, activated)
    if block.shortcut_policy is not None:
        shortcut = at.part(block.bypass, block.bypass_source(x, activated))
        outputs = at.merged(block, keras.layers.Add, "_add", [outputs, shortcut])
    return at.part(block.exit, outputs)


@_plain.register
def _unit(unit: layers.ConvUnit, x, at):
    for part in unit.chain.layers:
        x = _convolution(part, x, at) if part is unit.conv else at.part(part, x)
    return x


def _convolution(conv, x, at):
    stock = getattr(keras.layers, type(conv).__name__)
    width = conv.compute_output_shape(x.shape)[-1]
    is_biased = conv.data_format == "channels_first" and conv.use_bias
    # There Keras 3.15 on TensorFlow would take the bias for one of the last axis.
    is_mistaken = is_biased and width in (None, conv.filters)
    if is_mistaken != at.conversion.made.setdefault((conv, "is_mistaken"), is_mistaken):
        raise ValueError(
            "`model` must not share a channels-first convolution that has a bias between a map as "
            "wide as it has filters and one that is not. "
            f"Received: layer '{at.name}', filters={conv.filters}"
        )
    if is_mistaken:
        return _channels_last(conv, x, at, stock, data_format="channels_last")
    return at.stock(conv, x, stock)


def _channels_last(layer, x, at, layer_class, **changes):
    """The output of a copy of a layer between transpositions."""
    ndim = len(x.shape)
    x = at.new(layer, keras.layers.Permute, "_last", dims=(*range(2, ndim), 1))(x)
    x = at.stock(layer, x, layer_class, **changes)
    return at.new(layer, keras.layers.Permute, "_first", dims=(ndim - 1, *range(1, ndim - 1)))(x)


@_plain.register
def _normalization(layer: LayerNormalizationOfAxis1, x, at):
    return _channels_last(layer, x, at, keras.layers.LayerNormalization)


@_plain.register
def _pooling(pool: layers.Pooling, x, at):
    rank, spatial = len(x.shape) - 2, pool.spatial_shape(x.shape)
    sizes = validation.per_axis("pool_size", pool.pool_size, rank)
    strides = validation.per_axis("strides", pool.strides, rank)
    layer_class = rank_layer({"max": "MaxPooling", "avg": "AveragePooling"}[pool.kind], rank)
    options = {"pool_size": sizes, "strides": strides, "data_format": pool.data_format}
    pooling = functools.partial(at.new, pool, layer_class, **options)
    padding, is_odd = pool.padding, max(strides) == 1 and all(size % 2 for size in sizes)
    if padding == "symmetric" and pool.pad_value is None and (is_odd or max(sizes) <= 2):
        padding = "same"  # which is equal then
    # On PyTorch, Keras fills the windows of an average that is strided or even with copies of the
    # border; what to pad instead depends on the size.
    is_right = pool.kind == "max" or is_odd or max(sizes) == 1
    is_unknown = pool.padding == "same" and None in spatial and not is_right
    if is_unknown and keras.backend.backend() == "torch":
        raise ValueError(
            "`model` must have known sizes on PyTorch before such an average with "
            f'`padding="same"`. Received: layer {pool.name!r} on {spatial}'
        )
    if padding == "valid" or (padding == "same" and (is_right or is_unknown)):
        return pooling(padding=padding)(x)
    amounts = tuple((0, step - 1) for step in strides)  # for "ceil"
    if padding == "same" and None not in spatial:
        amounts = same_padding(spatial, sizes, strides)
    elif pool.padding == "symmetric":
        amounts = tuple(map(symmetric_padding, sizes))
    if not any(map(any, amounts)):
        return pooling(padding="valid")(x)
    if pool.kind == "max" or pool.pad_value is not None:
        return pooling(padding="valid")(_padded(pool, x, amounts, at))
    # The average of ones is the share of a window that lies inside the input.
    one_map = pool.full_shape(slice(1), (slice(None),) * rank, slice(1))
    ones = at.operations(lambda x: keras.ops.ones_like(x[one_map]), x)
    averages = (
        pooling(suffix)(_zero_padded(pool, y, amounts, pool.data_format, at, f"{suffix}_pad"))
        for suffix, y in (("_average", x), ("_inside", ones))
    )
    return at.passed(pool, at.operations(keras.ops.divide, *averages))


def _padded(pool, x, amounts, at):
    """`x` with what fills the windows that reach past it."""
    value = -float("inf") if pool.pad_value is None else pool.pad_value
    if value == 0 or (pool.pad_value is None and id(x) in at.conversion.nonnegative):
        return _zero_padded(pool, x, amounts, pool.data_format, at)
    widths = pool.full_shape((0, 0), amounts, (0, 0))
    return at.operations(lambda x: keras.ops.pad(x, widths, constant_values=value), x)


def _zero_padded(part, x, amounts, data_format, at, suffix="_pad"):
    rank = len(amounts)
    padding = amounts[0] if rank == 1 else amounts
    layer_class = rank_layer("ZeroPadding", rank)
    return at.new(part, layer_class, suffix, padding=padding, data_format=data_format)(x)


@_plain.register
def _adaptive_pooling(pool: layers.AdaptiveAveragePooling, x, at):
    spatial = pool.spatial_shape(x.shape)
    sizes = validation.per_axis("output_size", pool.output_size, len(spatial))
    if any(n % size for n, size in zip(spatial, sizes)):
        return at.passed(pool, at.operations(pool.call, x))
    windows = tuple(n // size for n, size in zip(spatial, sizes))
    layer_class = rank_layer("AveragePooling", len(spatial))
    return at.new(pool, layer_class, pool_size=windows, data_format=pool.data_format)(x)


@_plain.register
def _subsampling(part: Subsampling, x, at):
    rank = len(x.shape) - 2
    strides = validation.per_axis("strides", part.strides, rank)
    if validation.exceeds_one(strides):
        layer_class = rank_layer("MaxPooling", rank)
        x = at.new(part, layer_class, pool_size=1, strides=strides, data_format=part.data_format)(x)
    missing = (0, part.filters - part.channels(x.shape))
    if missing == (0, 0):
        return x
    # In the other format, the channels are an axis to pad.
    others = ((0, 0),) * (rank - 1)
    if part.data_format == "channels_last":
        return _zero_padded(part, x, (*others, missing), "channels_first", at)
    return _zero_padded(part, x, (missing, *others), "channels_last", at)


@_plain.register
def _squeeze_excite(gate: layers.SqueezeExcite, x, at):
    return _gated(gate, x, at.part(gate.excitation, _means(gate, x, at)), at)


@_plain.register
def _efficient_channel(gate: layers.EfficientChannelAttention, x, at):
    means = _means(gate, x, at)
    channels = means.shape[-1]
    logits = at.new(gate, keras.layers.Reshape, "_expand", target_shape=(channels, 1))(means)
    logits = at.part(gate.conv, logits)
    logits = at.new(gate, keras.layers.Reshape, "_squeeze", target_shape=(channels,))(logits)
    return _gated(gate, x, at.part(gate.excitation, logits), at)


def _means(gate, x, at):
    layer_class = rank_layer("GlobalAveragePooling", len(x.shape) - 2)
    return at.new(gate, layer_class, "_mean", data_format=gate.data_format)(x)


def _gated(gate, x, gates, at):
    shape = gate.full_shape(None, (1,) * (len(x.shape) - 2), gates.shape[-1])[1:]
    gates = at.new(gate, keras.layers.Reshape, "_gates", target_shape=shape)(gates)
    return at.merged(gate, keras.layers.Multiply, "_multiply", [x, gates])


@_plain.register
def _stochastic_depth(part: layers.StochasticDepth, x, at):
    one_draw_a_sample = (None,) + (1,) * (len(x.shape) - 1)
    options = {"rate": part.rate, "noise_shape": one_draw_a_sample, "seed": part.seed}
    return at.called(at.new(part, keras.layers.Dropout, **options), x)


@_plain.register
def _fit_size(part: FitSize, x, at):
    # Not by `keras.layers.Resizing`: called in a model, it puts the layers after it into training.
    options = {"antialias": True, "data_format": "channels_last"}
    return at.operations(functools.partial(keras.ops.image.resize, size=part.size, **options), x)


@_plain.register
def _labels(part: Labels, x, at):
    return at.passed(part, x)
