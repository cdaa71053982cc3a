"""An ONNX graph in the making, whose tensors know how they lie beside Keras's."""

import collections
import dataclasses

import numpy as np

OPSET = 20  # the first with Gelu
IR_VERSION = 10  # of the same release, ONNX 1.17


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        name: in the graph.
        shape: as Keras has it, the batch included; None for open sizes.
        moved: whether the channels, which are Keras's last axis, are axis 1 in the graph.
        pads: pairs of the zeros still to be added around each spatial axis (axis 2 and on).
    """

    name: str
    shape: tuple
    moved: bool = False
    pads: tuple = ()

    @property
    def rank(self):
        return len(self.shape)

    def axis(self, axis):
        """The axis in the graph of an axis in Keras."""
        axis %= self.rank
        if not self.moved or axis == 0:
            return axis
        return 1 if axis == self.rank - 1 else axis + 1


class Graph:
    """Nodes and constants; `scope` is what new ones are called after."""

    def __init__(self, onnx):
        self.onnx = onnx
        self.scope = []
        self._nodes = []
        self._constants = {}
        self._counts = collections.Counter()
        self._laid_out = {}  # name and layout of a tensor to its name in the other layout

    def node(self, op_type, *inputs, **attributes):
        """Adds a node and returns the name of its output; an input of None is left out."""
        name = self._unique(op_type)
        inputs = ["" if x is None else x for x in inputs]
        self._nodes.append(
            self.onnx.helper.make_node(op_type, inputs, [name], name=name, **attributes)
        )
        return name

    def constant(self, array, name="constant"):
        """The name of an array: floats as float32, integers as int64."""
        array = np.asarray(array)
        array = np.ascontiguousarray(
            array.astype("float32" if array.dtype.kind not in "iub" else "int64")
        ).reshape(array.shape)
        key = (array.tobytes(), array.shape, array.dtype)
        if key not in self._constants:
            self._constants[key] = (self._unique(name), array)
        return self._constants[key][0]

    def _unique(self, name):
        name = "/".join([*self.scope, name])
        self._counts[name] += 1
        return name if self._counts[name] == 1 else f"{name}_{self._counts[name]}"

    def model(self, inputs, outputs):
        """The ONNX model from and to these pairs of a name and a `Value`."""
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        for name, value in outputs:
            value = self.straight(value)
            self._nodes.append(helper.make_node("Identity", [value.name], [name], name=name))

        def infos(values):
            for name, value in values:
                batch, *sizes = value.shape
                shape = [batch or "batch"]
                shape += [f"{name}_{i}" if n is None else n for i, n in enumerate(sizes, start=1)]
                yield helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self._nodes,
            "keras_resblocks",
            [*infos(inputs)],
            [*infos(outputs)],
            [numpy_helper.from_array(array, name) for name, array in self._constants.values()],
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="keras_resblocks",
        )

    # Layouts. ONNX's convolutions want the channels first, and so they stay until something
    # asks for Keras's own order.

    def moved(self, value):
        """The tensor with Keras's last axis as axis 1."""
        return value if value.moved else self._transposed(self.padded(value), True)

    def straight(self, value):
        """The tensor as Keras has it, padded."""
        value = self.padded(value)
        return self._transposed(value, False) if value.moved else value

    def placed(self, value, data_format):
        """The tensor with the channels on axis 1, for what computes on maps."""
        if data_format == "channels_last":
            return self.moved(value)
        return self.straight(value) if value.moved else value

    def padded(self, value, number=0.0):
        """The tensor with the padding done that was put off."""
        if not value.pads:
            return value
        widths = [(0, 0), (0, 0), *value.pads]
        name = self.pad(value.name, widths, number)
        return dataclasses.replace(value, name=name, pads=())

    def pad(self, name, widths, number=0.0):
        """Pads by pairs of widths, one for each axis."""
        amounts = self.constant(np.transpose(widths).reshape(-1), "pads")
        return self.node("Pad", name, amounts, self.constant(float(number), "pad_value"))

    def _transposed(self, value, moved):
        key = value.name, moved
        if key not in self._laid_out:
            rank = value.rank
            order = [0, rank - 1, *range(1, rank - 1)] if moved else [0, *range(2, rank), 1]
            name = self.node("Transpose", value.name, perm=order)
            self._laid_out[key] = name
            self._laid_out[name, not moved] = value.name
        return dataclasses.replace(value, name=self._laid_out[key], moved=moved)

    def aligned(self, *operands):
        """The names of operands to be broadcast, and whether they are moved.

        Args:
            operands: each a `Value`, an array or a number.
        """
        rank = max(len(x.shape) if hasattr(x, "shape") else 0 for x in operands)
        moved = any(isinstance(x, Value) and x.moved for x in operands)
        return [self._aligned(x, rank, moved) for x in operands], moved

    def _aligned(self, operand, rank, moved):
        if not isinstance(operand, Value):
            array = np.asarray(operand, "float32")
            if array.ndim:
                array = array.reshape((1,) * (rank - array.ndim) + array.shape)
                array = np.moveaxis(array, -1, 1) if moved else array
            return self.constant(array)
        value = self.padded(operand)
        if value.rank < rank:
            missing = rank - value.rank
            axes = self.constant(np.arange(missing), "axes")
            name = self.node("Unsqueeze", self.straight(value).name, axes)
            value = Value(name, (1,) * missing + tuple(value.shape))
        return (self.moved(value) if moved else value).name
