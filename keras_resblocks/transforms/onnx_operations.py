"""What Keras's layers and operations are in ONNX.

Of a layer that is not listed here, `call` is traced, down to operations that are.
"""

import dataclasses

import keras
import numpy as np

from keras_resblocks.layers import Pooling, StochasticDepth
from keras_resblocks.layers.units import rank_layer, symmetric_padding
from keras_resblocks.transforms.onnx_graph import Graph, Value

# Functions that Keras 3.15 converts to a tensor of its backend first.
_UNTRACEABLE = {
    keras.activations.mish: "Mish",
    keras.activations.hard_silu: "HardSwish",
    keras.activations.hard_swish: "HardSwish",
}

_LAYERS = {}  # by class
_OPERATIONS = {}  # by the name of the class, since Keras does not show the classes


def _of_layers(*classes):
    return lambda convert: _LAYERS.update(dict.fromkeys(classes, convert))


def _of_operations(*names):
    return lambda convert: _OPERATIONS.update(dict.fromkeys(names, convert))


def _of_ranks(name, *ranks):
    return [rank_layer(name, rank) for rank in ranks]


class Writer(Graph):
    """A graph that follows a Keras model, layer by layer."""

    def run(self, model, values):
        """Adds a functional model on these inputs, a list, and returns the list of its outputs."""
        known = {}

        def call(operation, *args, **kwargs):
            outputs = operation(*args, **kwargs)
            args, kwargs = keras.tree.map_structure(
                lambda x: known[id(x)][1] if isinstance(x, keras.KerasTensor) else x,
                (args, kwargs),
            )
            self.scope.append(operation.name)
            results = self._convert(operation, args, kwargs)
            self.scope.pop()
            for tensor, value in zip(keras.tree.flatten(outputs), results, strict=True):
                value = dataclasses.replace(value, shape=tuple(tensor.shape))
                known[id(tensor)] = tensor, value
            return outputs

        inputs = [_symbol(tensor) for tensor in model.inputs]
        known.update((id(x), (x, value)) for x, value in zip(inputs, values))
        flat = keras.Model(list(model.inputs), list(model.outputs))
        copy = keras.models.clone_model(
            flat, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call
        )
        return [known[id(tensor)][1] for tensor in copy.outputs]

    def apply(self, function, *values):
        """Adds a function of tensors, as Keras traces it."""
        if function in (None, keras.activations.linear):
            return values[0]
        if function in _UNTRACEABLE:
            return self.same(_UNTRACEABLE[function], *values)
        inputs = [_symbol(value) for value in values]
        try:
            outputs = function(*inputs)
        except Exception as error:
            raise ValueError(
                "`model` must be made of `keras.ops`, so that symbolic tensors can go through "
                f"every `call`, to be written by `export_onnx`. Received: `{self._place()}`, "
                f"where {error}"
            ) from error
        if outputs is inputs[0]:
            return values[0]
        return self.run(keras.Model(inputs, outputs), values)[0]

    def _place(self):
        return "/".join(self.scope)

    def _convert(self, operation, args, kwargs):
        if isinstance(operation, keras.Model):
            return self.run(operation, keras.tree.flatten(args))
        kwargs = {k: v for k, v in kwargs.items() if k not in ("training", "mask")}
        is_layer = isinstance(operation, keras.layers.Layer)
        convert = (
            _layer_converter(operation) if is_layer else _OPERATIONS.get(type(operation).__name__)
        )
        if convert:
            return [convert(self, operation, *args, **kwargs)]
        if is_layer:
            values = keras.tree.flatten((args, kwargs))
            if all(isinstance(value, Value) for value in values):
                return [self.apply(_call_of(operation, args, kwargs), *values)]
        raise ValueError(
            "`model` must consist of what `export_onnx` knows how to write. "
            f"Received: `{self._place()}`, a {type(operation).__name__}"
        )

    def elementwise(self, op_type, *operands, **attributes):
        """Adds a node that broadcasts its inputs: values, arrays or numbers."""
        names, moved = self.aligned(*map(_concrete, operands))
        rank = max(len(x.shape) if hasattr(x, "shape") else 0 for x in operands)
        return Value(self.node(op_type, *names, **attributes), (None,) * rank, moved)

    def same(self, op_type, x, *inputs, **attributes):
        """Adds a node whose output is laid out as its first input is."""
        x = self.padded(x)
        return dataclasses.replace(x, name=self.node(op_type, x.name, *inputs, **attributes))

    def window(self, op_type, x, size, strides, padding, data_format, *inputs, rates=1, **more):
        """Adds a convolution or pooling, `padding` as in Keras."""
        x = self.placed(x, data_format)
        rank = x.rank - 2
        sizes, strides, rates = (_per_axis(n, rank) for n in (size, strides, rates))
        pads = x.pads
        if padding != "valid":
            x, pads = self.padded(x), ()
        attributes = {"kernel_shape": sizes, "strides": strides, **more}
        if max(rates) > 1:
            attributes["dilations"] = rates
        if padding == "same":
            spatial = x.shape[2:] if data_format == "channels_first" else x.shape[1:-1]
            if None in spatial and max(strides) > 1:
                attributes["auto_pad"] = "SAME_UPPER"
            else:
                pads = [*map(_same_padding, spatial, sizes, strides, rates)]
        elif padding == "causal":
            pads = [(rates[0] * (sizes[0] - 1), 0)]
        elif padding != "valid":
            pads = padding
        if any(map(any, pads)):
            attributes["pads"] = [int(n) for n in np.transpose(pads).reshape(-1)]
        name = self.node(op_type, x.name, *inputs, **attributes)
        return dataclasses.replace(x, name=name, pads=())


def _symbol(tensor):
    """A new input of that shape."""
    dtype = getattr(tensor, "dtype", "float32")
    return keras.Input(batch_shape=tensor.shape, dtype=dtype)


def _call_of(layer, args, kwargs):
    structure = args, kwargs

    def call(*tensors):
        packed, named = keras.tree.pack_sequence_as(structure, tensors)
        return layer.call(*packed, **named)

    return call


def _layer_converter(layer):
    # Also of a subclass, unless it computes something else.
    for layer_class in type(layer).__mro__:
        if layer_class in _LAYERS and type(layer).call is layer_class.call:
            return _LAYERS[layer_class]
    return None


def _concrete(operand):
    return operand if isinstance(operand, Value) else _array(operand)


def _array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _per_axis(number, rank):
    return [int(number)] * rank if isinstance(number, int) else [int(n) for n in number]


def _same_padding(n, size, stride, rate):
    reach = rate * (size - 1) + 1
    total = reach - stride if stride == 1 or n % stride == 0 else reach - n % stride
    total = max(0, total)
    return total // 2, total - total // 2


# Layers.


@_of_layers(
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    StochasticDepth,
    *_of_ranks("SpatialDropout", 1, 2, 3),
)
def _(g, layer, x):
    return x


@_of_layers(keras.layers.Activation)
def _(g, layer, x):
    return g.apply(layer.activation, x)


@_of_layers(keras.layers.PReLU)
def _(g, layer, x):
    return g.elementwise("PRelu", x, _array(layer.alpha))


@_of_layers(*_of_ranks("Conv", 1, 2, 3))
def _(g, layer, x):
    return _convolution(g, layer, x, _array(layer.kernel), layer.groups)


@_of_layers(*_of_ranks("DepthwiseConv", 1, 2))
def _(g, layer, x):
    return _convolution(g, layer, x, _grouped(_array(layer.kernel)), layer.kernel.shape[-2])


@_of_layers(*_of_ranks("SeparableConv", 1, 2))
def _(g, layer, x):
    depthwise, pointwise = _array(layer.depthwise_kernel), _array(layer.pointwise_kernel)
    y = _conv(g, layer, x, _grouped(depthwise), depthwise.shape[-2], layer.data_format)
    inputs = _weights(g, pointwise), _bias(g, layer)
    y = g.window("Conv", y, pointwise.shape[:-2], 1, "valid", layer.data_format, *inputs)
    return _activated(g, layer, x, y)


def _convolution(g, layer, x, kernel, groups):
    y = _conv(g, layer, x, kernel, groups, layer.data_format, _bias(g, layer))
    return _activated(g, layer, x, y)


def _conv(g, layer, x, kernel, groups, data_format, bias=None):
    inputs = _weights(g, kernel), bias
    more = {"rates": layer.dilation_rate, "group": groups}
    sizes = kernel.shape[:-2], layer.strides
    return g.window("Conv", x, *sizes, layer.padding, data_format, *inputs, **more)


def _activated(g, layer, x, y):
    y = dataclasses.replace(y, shape=tuple(layer.compute_output_shape(x.shape)))
    return g.apply(layer.activation, y)


def _weights(g, kernel):
    return g.constant(np.moveaxis(kernel, (-1, -2), (0, 1)), "kernel")


def _bias(g, layer):
    return None if layer.bias is None else g.constant(_array(layer.bias), "bias")


def _grouped(kernel):
    """A depthwise kernel as that of one group for each channel."""
    return kernel.reshape((*kernel.shape[:-2], 1, -1))


@_of_layers(keras.layers.Dense)
def _(g, layer, x):
    x, bias = g.straight(x), _bias(g, layer)
    kernel = g.constant(_array(layer.kernel), "kernel")
    if x.rank == 2:
        name = g.node("Gemm", x.name, kernel, bias)
    else:
        name = g.node("MatMul", x.name, kernel)
        name = name if bias is None else g.node("Add", name, bias)
    return _activated(g, layer, x, Value(name, x.shape))


@_of_layers(*_of_ranks("ZeroPadding", 1, 2, 3))
def _(g, layer, x):
    pads = layer.padding if isinstance(layer.padding[0], (list, tuple)) else [layer.padding]
    x = g.placed(g.padded(x), layer.data_format)
    return dataclasses.replace(x, pads=tuple(map(tuple, pads)))


@_of_layers(*_of_ranks("MaxPooling", 1, 2, 3))
def _(g, layer, x):
    return _max_pool(g, layer, x, layer.data_format)


@_of_layers(*_of_ranks("AveragePooling", 1, 2, 3))
def _(g, layer, x):
    return _average_pool(g, layer, x, layer.data_format)


@_of_operations("MaxPool")
def _(g, operation, x):
    return _max_pool(g, operation, x, _data_format(operation))


@_of_operations("AveragePool")
def _(g, operation, x):
    return _average_pool(g, operation, x, _data_format(operation))


def _max_pool(g, layer, x, data_format):
    return _pool(g, "MaxPool", layer, g.padded(x, _ZERO), data_format)


def _average_pool(g, layer, x, data_format):
    return _pool(g, "AveragePool", layer, g.padded(x), data_format)


def _pool(g, kind, layer, x, data_format):
    strides = layer.strides or layer.pool_size
    return g.window(kind, x, layer.pool_size, strides, layer.padding, data_format)


# What to pad a maximum with for zero: onnxruntime takes a padding with zeros into the pooling,
# and so for -inf.
_ZERO = 1e-30


def _data_format(operation):
    return operation.data_format or keras.config.image_data_format()


@_of_layers(Pooling)
def _(g, layer, x):
    x, rank = g.padded(x), x.rank - 2
    sizes, strides = _per_axis(layer.pool_size, rank), _per_axis(layer.strides, rank)
    padding = {
        "symmetric": [*map(symmetric_padding, sizes)],
        "ceil": [(0, stride - 1) for stride in strides],
    }.get(layer.padding, layer.padding)
    if layer.pad_value is not None:  # else ONNX leaves the padding out of account as well
        x = dataclasses.replace(g.placed(x, layer.data_format), pads=tuple(padding))
        x, padding = g.padded(x, layer.pad_value or _ZERO), "valid"
    kind = "MaxPool" if layer.kind == "max" else "AveragePool"
    return g.window(kind, x, sizes, strides, padding, layer.data_format)


@_of_layers(*_of_ranks("GlobalAveragePooling", 1, 2, 3), *_of_ranks("GlobalMaxPooling", 1, 2, 3))
def _(g, layer, x):
    kind = "GlobalMaxPool" if "Max" in type(layer).__name__ else "GlobalAveragePool"
    x = g.same(kind, g.placed(x, layer.data_format))
    return x if layer.keepdims else Value(g.node("Flatten", x.name), (None, None))


@_of_layers(keras.layers.Flatten)
def _(g, layer, x):
    if layer.data_format == "channels_first" and x.rank > 2:
        x = g.straight(x)  # Keras flattens as if the channels were last
        order = [0, *range(2, x.rank), 1]
        return Value(g.node("Flatten", g.node("Transpose", x.name, perm=order)), (None, None))
    return Value(g.node("Flatten", g.straight(x).name), (None, None))


@_of_layers(keras.layers.BatchNormalization)
def _(g, layer, x):
    axis = layer.axis % x.rank
    x = _with_axis_first(g, x, axis)
    channels = x.shape[axis]
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    gamma = _array(layer.gamma) if layer.scale else np.ones(channels)
    beta = _array(layer.beta) if layer.center else np.zeros(channels)
    if x.axis(axis) == 1:
        parameters = map(g.constant, (gamma, beta, mean, variance))
        return g.same("BatchNormalization", x, *parameters, epsilon=layer.epsilon)
    gain = gamma / np.sqrt(variance + layer.epsilon)
    return _affine(g, x, axis, gain, beta - mean * gain)


@_of_layers(keras.layers.GroupNormalization)
def _(g, layer, x):
    axis = layer.axis % x.rank
    x = _with_axis_first(g, x, axis)
    groups = x.shape[axis] if layer.groups == -1 else layer.groups
    grouped = g.node("Reshape", x.name, g.constant([0, groups, -1], "shape"))
    ones, zeros = g.constant(np.ones(groups)), g.constant(np.zeros(groups))
    normal = g.node("InstanceNormalization", grouped, ones, zeros, epsilon=layer.epsilon)
    y = dataclasses.replace(x, name=g.node("Reshape", normal, g.node("Shape", x.name)))
    gamma = _array(layer.gamma) if layer.scale else None
    return _affine(g, y, axis, gamma, _array(layer.beta) if layer.center else None)


def _with_axis_first(g, x, axis):
    """The tensor with that axis, the first or the last, as axis 1; if it is one of these."""
    return g.moved(x) if axis == x.rank - 1 > 1 else g.straight(x)


def _affine(g, x, axis, gain, shift):
    shape = [-1 if i == axis else 1 for i in range(x.rank)]
    x = x if gain is None else g.elementwise("Mul", x, gain.reshape(shape))
    return x if shift is None else g.elementwise("Add", x, shift.reshape(shape))


@_of_layers(keras.layers.Rescaling)
def _(g, layer, x):
    y = g.elementwise("Mul", x, np.asarray(layer.scale))
    return g.elementwise("Add", y, np.asarray(layer.offset))


@_of_layers(keras.layers.Normalization)
def _(g, layer, x):
    mean = _array(layer.mean)
    deviation = np.maximum(np.sqrt(_array(layer.variance)), keras.config.epsilon())
    if layer.invert:
        return g.elementwise("Add", g.elementwise("Mul", x, deviation), mean)
    return g.elementwise("Div", g.elementwise("Sub", x, mean), deviation)


@_of_operations("Concatenate")
def _(g, operation, values):
    names, moved = g.aligned(*values)
    x = Value("", values[0].shape, moved)
    return dataclasses.replace(x, name=g.node("Concat", *names, axis=x.axis(operation.axis)))


# Operations that compute each element from those at the same place.

_UNARY = {
    **{name: name for name in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Selu")},
    **{name: name for name in ("Exp", "Log", "Sqrt", "Sin", "Cos", "Erf", "Floor", "Ceil", "Abs")},
    **{"Absolute": "Abs", "Negative": "Neg", "HardSilu": "HardSwish", "Mish": "Mish"},
}
_BINARY = {
    **{"Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Divide": "Div", "TrueDivide": "Div"},
    **{"Power": "Pow", "Maximum": "Max", "Minimum": "Min"},
}


@_of_operations(*_UNARY)
def _(g, operation, x):
    return g.same(_UNARY[type(operation).__name__], x)


@_of_operations(*_BINARY)
def _(g, operation, x, y):
    return g.elementwise(_BINARY[type(operation).__name__], x, y)


@_of_operations("Relu6")
def _(g, operation, x):
    return _clip(g, x, 0.0, 6.0)


@_of_operations("HardTanh")
def _(g, operation, x):
    return _clip(g, x, -1.0, 1.0)


@_of_operations("Clip")
def _(g, operation, x):
    return _clip(g, x, operation.x_min, operation.x_max)


def _clip(g, x, low, high):
    return g.same("Clip", x, g.constant(float(low)), g.constant(float(high)))


@_of_operations("ReLU")
def _(g, operation, x):
    slope, high = operation.negative_slope, operation.max_value
    if operation.threshold != 0 or (slope != 0 and high is not None):
        raise ValueError(
            "`model` must have no ReLU with a threshold, or with both a slope and a maximum, to "
            f"be written by `export_onnx`. Received: {operation.__dict__}"
        )
    if slope != 0:
        return g.same("LeakyRelu", x, alpha=slope)
    return g.same("Relu", x) if high is None else _clip(g, x, 0.0, high)


@_of_operations("LeakyRelu")
def _(g, operation, x):
    return g.same("LeakyRelu", x, alpha=operation.negative_slope)


@_of_operations("Elu")
def _(g, operation, x):
    return g.same("Elu", x, alpha=operation.alpha)


@_of_operations("Celu")
def _(g, operation, x):
    return g.same("Celu", x, alpha=operation.alpha)


@_of_operations("Gelu")
def _(g, operation, x):
    return g.same("Gelu", x, approximate="tanh" if operation.approximate else "none")


@_of_operations("Silu")
def _(g, operation, x):
    x = g.padded(x)
    return g.elementwise("Mul", x, g.same("Sigmoid", x))


@_of_operations("HardSigmoid")
def _(g, operation, x):
    return g.same("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@_of_operations("SoftShrink")
def _(g, operation, x):
    return g.same("Shrink", x, lambd=operation.threshold, bias=operation.threshold)


@_of_operations("HardShrink")
def _(g, operation, x):
    return g.same("Shrink", x, lambd=operation.threshold, bias=0.0)


@_of_operations("TanhShrink")
def _(g, operation, x):
    x = g.padded(x)
    return g.elementwise("Sub", x, g.same("Tanh", x))


@_of_operations("LogSigmoid")
def _(g, operation, x):
    return g.same("Neg", g.same("Softplus", g.same("Neg", x)))


@_of_operations("Square")
def _(g, operation, x):
    return g.elementwise("Mul", x, x)


@_of_operations("Rsqrt")
def _(g, operation, x):
    return g.same("Reciprocal", g.same("Sqrt", x))


@_of_operations("Squareplus")
def _(g, operation, x):
    root = g.same("Sqrt", g.elementwise("Add", g.elementwise("Mul", x, x), float(operation.b)))
    return g.elementwise("Mul", g.elementwise("Add", x, root), 0.5)


@_of_operations("Softmax")
def _(g, operation, x):
    return g.same("Softmax", x, axis=x.axis(operation.axis))


@_of_operations("LogSoftmax")
def _(g, operation, x):
    return g.same("LogSoftmax", x, axis=x.axis(operation.axis))


@_of_operations("Cast")
def _(g, operation, x):
    if keras.backend.standardize_dtype(operation.dtype) != "float32":
        raise ValueError(
            "`model` must compute in float32 to be written by `export_onnx`. "
            f"Received: a cast to {operation.dtype}"
        )
    return x


# Operations on shapes.


@_of_operations("Mean", "Sum", "Max")
def _(g, operation, x):
    x = g.padded(x)
    axes = operation.axis
    axes = range(x.rank) if axes is None else [axes] if isinstance(axes, int) else axes
    axes = {axis % x.rank for axis in axes}
    maps = {*range(1, x.rank - 1)}
    if not operation.keepdims and not (x.rank - 1 in axes or maps <= axes):
        x = g.straight(x)  # what remains would not be in order
    name = g.node(
        f"Reduce{type(operation).__name__}",
        x.name,
        g.constant(sorted(map(x.axis, axes)), "axes"),
        keepdims=int(operation.keepdims),
    )
    if operation.keepdims:
        return dataclasses.replace(x, name=name)
    return Value(name, (None,) * (x.rank - len(axes)))


@_of_operations("Pad")
def _(g, operation, x, constant_values=None):
    x, widths = g.padded(x), operation.pad_width
    if operation.mode != "constant":
        raise ValueError(
            "`model` must pad with constants to be written by `export_onnx`. "
            f"Received: mode={operation.mode!r}"
        )
    widths = list(widths) * (x.rank if len(widths) == 1 else 1)
    ordered = [(0, 0)] * x.rank
    for axis, width in enumerate(widths):
        ordered[x.axis(axis)] = tuple(width)
    if not constant_values and not any(map(any, ordered[:2])):
        return dataclasses.replace(x, pads=tuple(ordered[2:]))
    return dataclasses.replace(x, name=g.pad(x.name, ordered, constant_values or 0.0))


@_of_operations("GetItem")
def _(g, operation, x, key):
    key = list(key) if isinstance(key, (list, tuple)) else [key]
    if Ellipsis in key:
        i = key.index(Ellipsis)
        given = sum(part is not None for part in key) - 1
        key[i : i + 1] = [slice(None)] * (x.rank - given)
    if not all(part is None or isinstance(part, (int, slice)) for part in key):
        raise ValueError(
            "`model` must be indexed by integers and slices to be written by `export_onnx`. "
            f"Received: {key}"
        )
    same_rank = all(isinstance(part, slice) for part in key)
    x = g.padded(x) if same_rank else g.straight(x)
    name = x.name
    parts = [part for part in key if part is not None]
    slices = [(x.axis(axis), *_bounds(part)) for axis, part in enumerate(parts)]
    slices = [(axis, *bounds) for axis, *bounds in slices if bounds != [0, _END, 1]]
    if slices:
        axes, starts, ends, steps = zip(*slices)
        name = g.node("Slice", name, *map(g.constant, (starts, ends, axes, steps)))
    if same_rank:
        return dataclasses.replace(x, name=name)
    removed = [axis for axis, part in enumerate(parts) if isinstance(part, int)]
    if removed:
        name = g.node("Squeeze", name, g.constant(removed, "axes"))
    kept = [part for part in key if not isinstance(part, int)]
    added = [axis for axis, part in enumerate(kept) if part is None]
    if added:
        name = g.node("Unsqueeze", name, g.constant(added, "axes"))
    return Value(name, (None,) * (x.rank - len(removed) + len(added)))


_END = 2**63 - 1


def _bounds(part):
    """Start, end and step of an index or a slice, in ONNX."""
    if isinstance(part, int):
        return part, part + 1 if part != -1 else _END, 1
    step = part.step or 1
    start = (0 if step > 0 else _END) if part.start is None else part.start
    end = (_END if step > 0 else -_END) if part.stop is None else part.stop
    return start, end, step


@_of_operations("ExpandDims")
def _(g, operation, x):
    x = g.straight(x)
    axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
    return Value(g.node("Unsqueeze", x.name, g.constant(axes, "axes")), (1,) * (x.rank + len(axes)))


@_of_operations("Squeeze")
def _(g, operation, x):
    x = g.straight(x)
    axes = operation.axis
    if axes is None:
        axes = [i for i, n in enumerate(x.shape) if n == 1]
    axes = list(axes) if isinstance(axes, (list, tuple)) else [axes]
    return Value(g.node("Squeeze", x.name, g.constant(axes, "axes")), (1,) * (x.rank - len(axes)))


@_of_operations("Reshape")
def _(g, operation, x):
    shape = [-1 if n is None else n for n in operation.newshape]
    if shape.count(-1) > 1:
        raise ValueError(f"`model` must reshape to at most one open size. Received: {shape}")
    name = g.node("Reshape", g.straight(x).name, g.constant(shape, "shape"))
    return Value(name, (None,) * len(shape))


@_of_operations("Transpose")
def _(g, operation, x):
    return _transpose(g, g.straight(x), operation.axes or [*range(x.rank)][::-1])


@_of_operations("Moveaxis")
def _(g, operation, x):
    order = np.moveaxis(np.empty(range(x.rank)), operation.source, operation.destination).shape
    return _transpose(g, g.straight(x), order)


def _transpose(g, x, order):
    return Value(g.node("Transpose", x.name, perm=[int(i) for i in order]), x.shape)


# Operations with weights, as layers of one's own have them.


@_of_operations("Conv")
def _(g, operation, x, kernel):
    kernel, data_format = _array(kernel), _data_format(operation)
    channels = x.shape[-1 if data_format == "channels_last" else 1]
    return _conv(g, operation, x, kernel, channels // kernel.shape[-2], data_format)


@_of_operations("DepthwiseConv")
def _(g, operation, x, kernel):
    kernel = _array(kernel)
    groups = kernel.shape[-2]
    return _conv(g, operation, x, _grouped(kernel), groups, _data_format(operation))


@_of_operations("Matmul")
def _(g, operation, x, y):
    def name(operand):
        if isinstance(operand, Value):
            return g.straight(operand).name
        return g.constant(_array(operand), "kernel")

    rank = max(len(x.shape), len(y.shape))
    return Value(g.node("MatMul", name(x), name(y)), (None,) * rank)


@_of_operations("LayerNorm")
def _(g, operation, x, gamma=None, beta=None):
    x = g.padded(x)
    axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
    axes = [axis % x.rank for axis in axes]
    shape = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]
    where = g.constant(sorted(map(x.axis, axes)), "axes")
    if not operation.rms_scaling:
        x = g.elementwise("Sub", x, g.same("ReduceMean", x, where, keepdims=1))
    variance = g.same("ReduceMean", g.elementwise("Mul", x, x), where, keepdims=1)
    epsilon = operation.epsilon or keras.config.epsilon()
    y = g.elementwise("Div", x, g.same("Sqrt", g.elementwise("Add", variance, float(epsilon))))
    if gamma is not None:
        y = g.elementwise("Mul", y, _array(gamma).reshape(shape))
    return y if beta is None else g.elementwise("Add", y, _array(beta).reshape(shape))
