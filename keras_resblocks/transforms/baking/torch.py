"""A model with its weights built in, on PyTorch.

The model is exported as a graph of ATen operations, which is written anew:

1. `_Writer`: what depends on weights alone is computed. Permutations, of which Keras wraps two
   around each operation on channels-last images, wait until an operation needs its operand in
   order; most cancel out. What is left are images as PyTorch has them, channels last in memory.
2. `_absorb`: padding and biases become arguments of the operation next to them.
3. `_pack`: on a CPU, convolutions become oneDNN's, with a kernel that is laid out beforehand,
   and with the sum and the ReLU that follow.
"""

import dataclasses
import functools

import keras
import torch

aten = torch.ops.aten

_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_MAX_POOLS = (aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
_PADS = (aten.pad.default, aten.constant_pad_nd.default)
# Other names of operations, some without the tags of the first.
_SYNONYMS = {
    aten.subtract.Tensor: aten.sub.Tensor,
    aten.subtract.Scalar: aten.sub.Scalar,
    aten.multiply.Tensor: aten.mul.Tensor,
    aten.multiply.Scalar: aten.mul.Scalar,
    aten.divide.Tensor: aten.div.Tensor,
    aten.view.default: aten.reshape.default,  # of what may be laid out in another way here
}
# What returns the same values.
_IDENTITIES = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
}
_CONVERSIONS = {aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default}
_MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def bake(model):
    """A function that exports the model for the shapes that come, but for their batch size."""
    programs = {}

    def run(*inputs):
        with torch.no_grad():
            key = tuple(tuple(x.shape[1:]) for x in inputs)
            if key not in programs:
                programs[key] = _program(model, inputs)
            return programs[key](*inputs)

    return run


def _program(model, inputs):
    try:
        return _optimized(_export(model, inputs, any_batch=True))
    except Exception:  # whatever a layer does that a symbol cannot stand for
        return _for_each_batch(model)


def _for_each_batch(model):
    programs = {}

    def run(*inputs):
        sizes = tuple(len(x) for x in inputs)
        if sizes not in programs:
            programs[sizes] = _optimized(_export(model, inputs, any_batch=False))
        return programs[sizes](*inputs)

    return run


class _Inference(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        inputs = keras.tree.pack_sequence_as(self.model.input, list(inputs))
        return keras.tree.flatten(self.model(inputs, training=False))


def _export(model, inputs, any_batch):
    shapes = None
    if any_batch:
        # Two samples: of one, the exporter would take for granted that it is one.
        inputs = [torch.cat([x[:1], x[:1]]) for x in inputs]
        batch = torch.export.Dim("batch", min=1)
        shapes = (tuple({0: batch} for _ in inputs),)
    program = torch.export.export(_Inference(model).eval(), tuple(inputs), dynamic_shapes=shapes)
    if any(_is_mutable(node) for node in program.graph.nodes):
        program = program.run_decompositions({})
    return program.module(check_guards=False)


def _is_mutable(node):
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _optimized(module):
    module = _Writer(module).write()
    _absorb(module)
    if _can_pack():
        _pack(module)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


@dataclasses.dataclass(frozen=True)
class _Lazy:
    """What `node.permute(order)` is; `order` is None for what is no tensor."""

    node: torch.fx.Node
    order: tuple | None


class _Writer:
    """Writes a graph anew, without what need not be computed for each input."""

    def __init__(self, module):
        self.module = module
        self.graph = torch.fx.Graph()
        self.constants = {}
        self.values = {}  # of the nodes of the old graph: a `_Lazy`, or what is known now
        self.permuted = {}

    def write(self):
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self.lazy(self.graph.placeholder(node.name), node)
            elif node.op == "get_attr":
                *path, name = node.target.split(".")
                owner = functools.reduce(getattr, path, self.module)
                self.values[node] = getattr(owner, name).detach()
            elif node.op == "output":
                self.graph.output(self.in_order(self.known(node.args[0])))
            else:
                self.values[node] = self.call(node)
        return torch.fx.GraphModule(self.constants, self.graph)

    def known(self, arguments):
        return torch.fx.node.map_arg(arguments, self.values.__getitem__)

    def lazy(self, new, old, order=None):
        """The value of `old`, which `new` computes, permuted."""
        value = old.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return _Lazy(new, None)
        order = order or tuple(range(value.ndim))
        sizes = [n if isinstance(n, int) else None for n in value.shape]
        new.meta["shape"] = [sizes[order.index(axis)] for axis in range(len(order))]
        return _Lazy(new, order)

    def in_order(self, arguments):
        """Arguments of a node: constants as attributes, everything permuted as it should be."""

        def node(value):
            if isinstance(value, torch.Tensor):
                return self.constant(value)
            return self.permute(value, value.order) if isinstance(value, _Lazy) else value

        return _map(node, arguments)

    def constant(self, value):
        name = f"constant{len(self.constants)}"
        self.constants[name] = value
        return self.graph.get_attr(name)

    def permute(self, value, order):
        """The node of a lazy value, with another order than its own in its place."""
        if order is None or order == tuple(sorted(order)):
            return value.node
        if (value.node, order) not in self.permuted:
            node = self.graph.call_function(aten.permute.default, (value.node, list(order)))
            node.meta["shape"] = [value.node.meta["shape"][axis] for axis in order]
            self.permuted[value.node, order] = node
        return self.permuted[value.node, order]

    def call(self, node):
        target = _SYNONYMS.get(node.target, node.target)
        args, kwargs = self.known((node.args, node.kwargs))
        lazies = [value for value in _leaves((args, kwargs)) if isinstance(value, _Lazy)]
        if target == aten._assert_tensor_metadata.default:
            return None
        tags = getattr(target, "tags", ())
        if not lazies and torch.Tag.nondeterministic_seeded not in tags:
            return target(*args, **kwargs)
        if target in _IDENTITIES:
            return args[0]
        if target in _CONVERSIONS:
            return self.convert(node, target, args, kwargs)
        if target == aten.permute.default:
            x, order = args
            return _Lazy(x.node, tuple(x.order[axis] for axis in order))
        if target == aten.pad.default and _is_constant_pad(args, kwargs):
            return self.pad(node, *args)
        if target == aten.cat.default and len({x.order for x in lazies}) == 1:
            return self.concatenate(node, *args)
        if torch.Tag.pointwise in tags and any(x.order for x in lazies):
            return self.pointwise(node, target, args, kwargs, lazies)
        if target in _CONVOLUTIONS and isinstance(args[1], torch.Tensor):
            args = [args[0], _channels_last(args[1]), *args[2:]]
        args, kwargs = self.in_order((args, kwargs))
        return self.lazy(self.graph.call_function(target, tuple(args), kwargs), node)

    def convert(self, node, target, args, kwargs):
        before, after = node.args[0].meta["val"], node.meta["val"]
        if (before.dtype, before.device) == (after.dtype, after.device):
            return args[0]
        x, *rest = args
        return self.lazy(self.graph.call_function(target, (x.node, *rest), kwargs), node, x.order)

    def pad(self, node, x, amounts, mode="constant", value=None):
        # The last axis comes first, and axes that are not padded may be left out.
        pairs = [amounts[i : i + 2] for i in range(0, len(amounts), 2)][::-1]
        pairs = [[0, 0]] * (len(x.order) - len(pairs)) + pairs
        order = _order_needed(node) or x.order
        inverse = tuple(order.index(axis) for axis in range(len(order)))
        flat = [amount for axis in inverse[::-1] for amount in pairs[axis]]
        source = self.permute(x, tuple(x.order[axis] for axis in inverse))
        arguments = (source, flat, "constant", value or 0.0)
        return self.lazy(self.graph.call_function(aten.pad.default, arguments), node, order)

    def concatenate(self, node, tensors, axis=0):
        order = next(x.order for x in tensors if isinstance(x, _Lazy))
        if not all(isinstance(x, _Lazy) for x in tensors):
            order = tuple(range(len(order)))
            nodes = self.in_order(tensors)
        else:
            nodes = [x.node for x in tensors]
        new = self.graph.call_function(aten.cat.default, (nodes, order[axis]))
        return self.lazy(new, node, order)

    def pointwise(self, node, target, args, kwargs, lazies):
        """Computes in the order that the first permuted operand has in memory."""
        rank = node.meta["val"].ndim
        orders = [x.order for x in lazies if x.order and len(x.order) == rank]
        straight = tuple(range(rank))
        order = next((order for order in orders if order != straight), straight)
        inverse = tuple(order.index(axis) for axis in straight)

        def operand(value):
            if isinstance(value, torch.Tensor):
                if value.ndim:
                    value = value.reshape((1,) * (rank - value.ndim) + value.shape)
                    value = value.permute(inverse).contiguous()
                return self.constant(value)
            if not isinstance(value, _Lazy) or not value.order:
                return value.node if isinstance(value, _Lazy) else value
            if len(value.order) < rank and order != straight:
                return self.permute(self.expanded(value, rank), inverse)
            return self.permute(value, tuple(value.order[axis] for axis in inverse))

        args, kwargs = _map(operand, (args, kwargs))
        return self.lazy(self.graph.call_function(target, tuple(args), kwargs), node, order)

    def expanded(self, value, rank):
        """A lazy value of lower rank, with axes of one before its own."""
        node = self.permute(value, value.order)
        shape = node.meta["shape"]
        for _ in range(rank - len(value.order)):
            node = self.graph.call_function(aten.unsqueeze.default, (node, 0))
            shape = node.meta["shape"] = [1, *shape]
        return _Lazy(node, tuple(range(rank)))


def _order_needed(node):
    """The order that undoes the first permutation among what a node leads to, if there is one."""
    for user in node.users:
        if user.target == aten.permute.default:
            order = user.args[1]
            return tuple(order.index(axis) for axis in range(len(order)))
        if user.target in _IDENTITIES | _CONVERSIONS and (order := _order_needed(user)):
            return order
    return None


def _map(function, arguments):
    if isinstance(arguments, (list, tuple)):
        return type(arguments)([_map(function, value) for value in arguments])
    if isinstance(arguments, dict):
        return {key: _map(function, value) for key, value in arguments.items()}
    return function(arguments)


def _leaves(arguments):
    leaves = []
    _map(leaves.append, arguments)
    return leaves


def _is_constant_pad(args, kwargs):
    return not kwargs and (len(args) < 3 or args[2] == "constant")


def _channels_last(kernel):
    return kernel.contiguous(
        memory_format=_MEMORY_FORMATS.get(kernel.ndim, torch.contiguous_format)
    )


def _absorb(module):
    """Makes what stands beside a convolution or a pooling an argument of it."""
    for node in module.graph.nodes:
        if node.target in _CONVOLUTIONS or node.target in _MAX_POOLS:
            _absorb_padding(node)
        elif node.target == aten.add.Tensor and not node.kwargs:
            for conv, bias in (node.args, node.args[::-1]):
                if _is_bias(module, conv, bias):
                    _absorb_bias(module, node, conv, bias)
                    break
    module.graph.eliminate_dead_code()


def _absorb_padding(node):
    pad = node.args[0]
    if pad.target != aten.pad.default:
        return
    _, amounts, _, value = pad.args
    *spatial, _, _, _, _ = amounts
    is_pool = node.target in _MAX_POOLS
    lows, highs = spatial[::-2], spatial[-2::-2]
    if lows != highs or any(amounts[-4:]) or value != (-float("inf") if is_pool else 0):
        return
    padding_at = 3 if is_pool else 4
    args = _complete(node)
    padding = [a + b for a, b in zip(args[padding_at], lows)]
    if is_pool and any(2 * p > size for p, size in zip(padding, args[1])):
        return  # more than PyTorch allows
    node.args = (pad.args[0], *args[1:padding_at], padding, *args[padding_at + 1 :])


def _complete(node):
    """The arguments with those that were left out, one for each spatial axis."""
    rank = len(node.meta["shape"]) - 2
    names = [argument.name for argument in node.target._schema.arguments]
    given = dict(zip(names, node.args)) | node.kwargs
    defaults = {a.name: a.default_value for a in node.target._schema.arguments}
    if node.target in _MAX_POOLS:
        defaults["stride"] = given["kernel_size"]
    args = [given.get(name, defaults[name]) for name in names]
    axes = ("kernel_size", "stride", "padding", "dilation")
    return [
        list(value) * (rank if len(value) == 1 else 1)
        if name in axes and isinstance(value, (list, tuple))
        else [value] * rank
        if name in axes
        else value
        for name, value in zip(names, args)
    ]


def _is_bias(module, conv, bias):
    if getattr(conv, "target", None) not in _CONVOLUTIONS or len(conv.users) > 1:
        return False
    if getattr(bias, "op", None) != "get_attr" or conv.args[2:3] not in ((), (None,)):
        return False
    bias = getattr(module, bias.target)
    channels = conv.meta["shape"][1]
    return (
        bias.dtype == _dtype_of_kernel(module, conv)
        and bias.numel() == channels
        and bias.shape[1:2] == (channels,)
    )


def _dtype_of_kernel(module, conv):
    kernel = conv.args[1]
    return getattr(module, kernel.target).dtype if kernel.op == "get_attr" else None


def _absorb_bias(module, node, conv, bias):
    flat = getattr(module, bias.target).reshape(-1)
    with module.graph.inserting_before(conv):
        flat = _attribute(module, f"bias_of_{conv.name}", flat)
    conv.args = (*conv.args[:2], flat, *conv.args[3:])
    node.replace_all_uses_with(conv)


def _attribute(module, name, value):
    module.register_buffer(name, value)
    return module.graph.get_attr(name)


@functools.cache
def _can_pack():
    """Whether this PyTorch has oneDNN's convolutions, and in the form that is known here."""
    try:
        x = _channels_last(torch.ones(1, 2, 4, 4))
        kernel = _channels_last(torch.ones(2, 2, 3, 3))
        geometry = ([1, 1], [1, 1], [1, 1], 1)
        packed = torch.ops.mkldnn._reorder_convolution_weight(kernel, *geometry, [1, 2, 4, 4])
        arguments = (packed, torch.ones(2), *geometry)
        y = torch.ops.mkldnn._convolution_pointwise(x, *arguments, "relu", [], "")
        rest = ("add", None, "relu", [], "")
        z = torch.ops.mkldnn._convolution_pointwise.binary(x, y, *arguments, *rest)
        expected = torch.nn.functional.conv2d(x, kernel, torch.ones(2), padding=1)
        return torch.equal(y, expected) and torch.equal(z, 2 * expected)
    except (AttributeError, RuntimeError):
        return False


def _pack(module):
    for node in [*module.graph.nodes]:
        if node.target in _CONVOLUTIONS and _is_packable(module, node):
            _pack_convolution(module, node)


def _is_packable(module, node):
    kernel = node.args[1]
    if kernel.op != "get_attr" or len(node.meta["shape"]) not in _MEMORY_FORMATS:
        return False
    kernel = getattr(module, kernel.target)
    supported = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        supported.add(torch.bfloat16)
    return kernel.device.type == "cpu" and kernel.dtype in supported


def _pack_convolution(module, node):
    x, kernel, bias, strides, padding, dilation, groups = _complete(node)
    geometry = (padding, strides, dilation, groups)
    shape = [size or 1 for size in x.meta["shape"]]
    end, other = _sum_of(node)
    activation = _only_user(end)
    has_relu = activation is not None and activation.target == aten.relu.default
    with module.graph.inserting_before(end):
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            getattr(module, kernel.target), *geometry, shape
        )
        packed = _attribute(module, f"packed_for_{node.name}", packed)
        if x.op == "placeholder":  # an image with the channels first in memory
            memory_format = _MEMORY_FORMATS[len(shape)]
            x = module.graph.call_function(
                aten.contiguous.default, (x,), {"memory_format": memory_format}
            )
        name = "relu" if has_relu else "none"
        if other is None:
            target = torch.ops.mkldnn._convolution_pointwise.default
            args = (x, packed, bias, *geometry, name, [], "")
        else:
            target = torch.ops.mkldnn._convolution_pointwise.binary
            relu = name if has_relu else None
            args = (x, other, packed, bias, *geometry, "add", None, relu, [], "")
        new = module.graph.call_function(target, args)
    new.meta["shape"] = node.meta["shape"]
    (activation if has_relu else end).replace_all_uses_with(new)
    module.graph.eliminate_dead_code()


def _sum_of(node):
    """The sum with another tensor of the shape that is all the node is for, and that tensor."""
    user = _only_user(node)
    if user is not None and user.target == aten.add.Tensor and not user.kwargs:
        others = [x for x in user.args if x is not node]
        for other in others:
            is_node = isinstance(other, torch.fx.Node) and other.op != "get_attr"
            if is_node and other.meta["shape"] == node.meta["shape"]:
                return user, other
    return node, None


def _only_user(node):
    users = [*node.users]
    return users[0] if len(users) == 1 else None
