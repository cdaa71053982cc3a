"""PyTorch's convolutions, normalizations and poolings.

On PyTorch, Keras transposes a kernel element by element, forward and again backward, copies
what it pads or pools, and normalizes a batch in a dozen passes over it. Here each is one operation
on a channels-first *view* of the data.
"""

import functools
import math

import keras
import torch  # Keras's own operations make the copies
from torch.nn import functional

from keras_resblocks.layers.fused.common import (
    data_format_of,
    is_batch_normalization,
    is_convolution,
    is_unmasked,
    positions_of,
    product_of_patches,
    where,
)

_CONVOLUTIONS = {
    keras.layers.Conv1D: functional.conv1d,
    keras.layers.Conv2D: functional.conv2d,
    keras.layers.Conv3D: functional.conv3d,
}
_PADDINGS = (
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)
_POOLS = {
    "max": (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d),
    "avg": (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d),
}

# At the end of a step, glibc returns the memory of its activations to the system, and takes it
# again in the next one, page by page: 5% of the step of a small network. It keeps up to twice the
# largest block that was freed so far, of at most 32 MiB (mallopt(3), M_MMAP_THRESHOLD): here is
# one, and nothing is written to it.
torch.empty(2**25 - 2**14, dtype=torch.uint8, device="cpu")


def fuse(layers, stock, inlined, owns_input=False):
    """As said in `keras_resblocks.layers.fused`."""
    calls, rest = [], list(layers)
    while rest:
        unit = _leading_unit(rest, owns_input and not calls)
        calls.append(_fused(unit, stock) if unit else inlined(rest[0]))
        del rest[: len(unit) or 1]
    return where(_is_tensor, calls, map(stock, layers))


def pooling(kind, pool_size, strides, amounts, data_format):
    """As said in `keras_resblocks.layers.fused`; None where the padding is uneven."""
    if any(before != after for before, after in amounts):
        return None
    view = _View(len(pool_size), data_format)
    pool = functools.partial(
        _POOLS[kind][view.rank - 1],
        kernel_size=pool_size,
        stride=strides,
        padding=tuple(before for before, _ in amounts),
        **({"count_include_pad": False} if kind == "avg" else {}),
    )
    return lambda inputs: view.leave(pool(view.enter(inputs)))


class _View:
    """The way to a channels-first view of the data and back; nothing is copied."""

    def __init__(self, rank, data_format):
        self.rank = rank
        last = data_format == "channels_last"
        spatial = tuple(range(1, rank + 1))
        self._entry = (0, rank + 1, *spatial) if last else (0, 1, *spatial[1:], rank + 1)
        self._exit = (0, *spatial[1:], rank + 1, 1) if last else self._entry

    def enter(self, inputs):
        return inputs.permute(self._entry)

    def leave(self, view):
        return view.permute(self._exit)


def _leading_unit(layers, owns_input):
    """As many layers from the first as are `[padding] convolution [norm] [relu]`, or a part of it.

    Only of Keras's own classes: a subclass may compute anything.
    """
    rest, unit = list(layers), []
    if len(rest) > 1 and _is_padding_of(*rest[:2]):
        unit.append(rest.pop(0))
    if _is_convolution(rest[0]):
        unit.append(rest.pop(0))
    if rest and _is_norm(rest[0]) and all(_fit(layer, rest[0]) for layer in unit[-1:]):
        unit.append(rest.pop(0))
    if rest and _is_relu(rest[0]) and (unit or owns_input):
        unit.append(rest.pop(0))
    return unit


def _is_convolution(layer):
    return (
        is_convolution(layer)
        # What strided "same" padding adds depends on the size of the input.
        and (layer.padding == "valid" or (layer.padding == "same" and max(layer.strides) == 1))
    )


def _is_padding_of(layer, conv):
    return (
        type(layer) in _PADDINGS
        and _is_convolution(conv)
        and (layer.data_format, "valid") == (conv.data_format, conv.padding)
    )


def _is_norm(layer):
    return is_batch_normalization(layer) and layer.variable_dtype in ("float32", "float64")


def _is_relu(layer):
    return (
        type(layer) is keras.layers.Activation
        and layer.activation is keras.activations.relu
        and layer.activity_regularizer is None
    )


def _fit(conv, norm):
    same_dtype = conv.compute_dtype == norm.compute_dtype
    return same_dtype and conv.data_format == data_format_of(norm)


def _fused(layers, stock):
    """The function of `(inputs, training)` that computes what the layers of a unit do."""
    padding = layers[0].padding if type(layers[0]) in _PADDINGS else None
    first, *others = layers[padding is not None :]
    if _is_relu(first):
        return _relu
    if _is_norm(first):
        view = _View(first.input_spec.ndim - 2, data_format_of(first))
        head = _norm(first, view)
    else:
        view = _View(first.rank, first.data_format)
        head = _convolution(first, padding, view)
    operations = [head, *(_norm(o, view) if _is_norm(o) else _relu for o in others)]
    dtype = first.compute_dtype

    def fused(inputs, training):
        x = view.enter(keras.ops.cast(inputs, dtype))
        for operation in operations:
            x = operation(x, training)
        return view.leave(x)

    if _is_norm(first):  # a convolution before it would have dropped the mask
        return where(is_unmasked, [fused], map(stock, layers))
    return fused


def _is_tensor(inputs):
    return isinstance(inputs, torch.Tensor)  # and not a symbolic one of Keras's


def _relu(x, training):
    return torch.relu_(x)


def _convolution(conv, padding, view):
    """A convolution of a channels-first view; `padding` is that of the layer before it."""
    amounts = _amounts(conv, padding)
    is_even = all(before == after for before, after in amounts)
    convolve = functools.partial(
        _CONVOLUTIONS[type(conv)],
        stride=conv.strides,
        padding=tuple(before for before, _ in amounts) if is_even else 0,
        dilation=conv.dilation_rate,
        groups=conv.groups,
    )
    widths = [width for amount in reversed(amounts) for width in amount]
    pad = _identity if is_even else functools.partial(functional.pad, pad=widths)
    axes = (slice(None),) if conv.data_format == "channels_last" else (slice(None), slice(None))
    places = (*axes, *(slice(None, None, stride) for stride in conv.strides))
    is_pointwise = conv.kernel_size == (1, 1) and conv.groups == 1 and padding is None
    windows = (amounts, conv.strides, conv.dilation_rate)

    def call(x, training):
        kernel = keras.ops.convert_to_tensor(conv.kernel).to(x.dtype)
        bias = conv.bias.value.to(x.dtype) if conv.use_bias else None
        if _wants_contiguous(kernel):
            return convolve(pad(x), _outputs_first(kernel).contiguous(), bias)
        if conv.groups == 1 and _is_best_multiplied(kernel, x, *windows):
            outputs = product_of_patches(x.movedim(1, -1), kernel, *windows, _multiply)
            return (outputs if bias is None else outputs + bias).movedim(-1, 1)
        if is_pointwise and kernel.is_cpu:
            x = view.enter(view.leave(x)[places])  # so that the gradient lies in memory as x does
            # A transposed convolution takes this kernel as it lies, (..., inputs, outputs).
            return functional.conv_transpose2d(x, kernel.permute(2, 3, 0, 1), bias)
        return convolve(pad(x), _laid_out(kernel), bias)

    return call


def _identity(x):
    return x


def _amounts(conv, padding):
    """What to pad before and after each spatial axis."""
    if padding is not None:
        return (padding,) if conv.rank == 1 else padding
    if conv.padding == "valid":
        return ((0, 0),) * conv.rank
    totals = [rate * (size - 1) for size, rate in zip(conv.kernel_size, conv.dilation_rate)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _wants_contiguous(kernel):
    # The compiler and the exports are to see a convolution as such. On a CPU, PyTorch falls back
    # for float16 on a convolution that takes nothing else.
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return is_traced or (kernel.dtype == torch.float16 and kernel.is_cpu)


def _is_best_multiplied(kernel, x, *windows):
    """Whether a kernel is larger than its patches and outputs together.

    Then, at the end of a network for small images, a convolution spends its time on putting the
    kernel and its gradient in order.
    """
    is_float32 = kernel.is_cpu and kernel.dtype == torch.float32
    if not (is_float32 and torch.backends.mkldnn.is_available()):
        return False
    *window, inputs, outputs = kernel.shape
    rows = x.shape[0] * math.prod(positions_of(x.shape[2:], window, *windows))
    return 0 < rows * (math.prod(window) * inputs + outputs) <= kernel.numel()


def _multiply(patches, matrix):
    rows = _Product.apply(patches.reshape(-1, len(matrix)), matrix)
    return rows.reshape(*patches.shape[:-1], -1)


class _Product(torch.autograd.Function):
    """The product of two matrices as a convolution, which takes half of the time.

    Pointwise convolutions are oneDNN's, products of matrices MKL's. But the gradient of a
    convolution's kernel is slow, so it is a product too.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows, matrix):
        maps = rows.contiguous()[None, :, None].permute(0, 3, 1, 2)  # the channels last in memory
        if matrix.is_contiguous():
            outputs = functional.conv_transpose2d(maps, matrix[..., None, None])
        else:
            outputs = functional.conv2d(maps, matrix.t()[..., None, None])
        return outputs.permute(0, 2, 3, 1).reshape(len(rows), -1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        rows, matrix = ctx.saved_tensors
        of_rows, of_matrix = ctx.needs_input_grad
        return (
            _Product.apply(gradient, matrix.t()) if of_rows else None,
            _Product.apply(rows.t(), gradient) if of_matrix else None,
        )

    @staticmethod
    def jvp(ctx, rows_tangent, matrix_tangent):
        rows, matrix = ctx.saved_tensors
        return _Product.apply(rows_tangent, matrix) + _Product.apply(rows, matrix_tangent)


def _outputs_first(kernel):
    """The view `(outputs, inputs, *spatial)` of a Keras kernel `(*spatial, inputs, outputs)`."""
    return kernel.movedim((-1, -2), (0, 1))


def _laid_out(kernel):
    """A copy of `_outputs_first(kernel)` with the channels last in memory.

    As the transposition of a matrix, there and back: a permutation of all the axes is several
    times slower, and so is an update from a gradient that lies otherwise than its variable.
    """
    *spatial, inputs, outputs = kernel.shape
    rows = kernel.reshape(-1, outputs)
    if rows.requires_grad:
        rows.register_hook(torch.Tensor.contiguous)
    return rows.t().contiguous().view(outputs, *spatial, inputs).movedim(-1, 1)


def _norm(norm, view):
    """A batch normalization of a channels-first view."""

    def call(x, training):
        if not (training and norm.trainable):
            mean, variance = norm.moving_mean.value, norm.moving_variance.value
            return normalize(x, mean, variance)
        size = x.numel() // x.shape[1]
        if size == 1:  # PyTorch refuses: there is no unbiased variance of one value
            return view.enter(norm(view.leave(x), training=True))
        mean, variance = torch.zeros(
            (2, x.shape[1]), dtype=norm.moving_mean.value.dtype, device=x.device
        )
        outputs = normalize(x, mean, variance, training=True, momentum=1.0)
        _move(norm.moving_mean, mean, norm.momentum)
        # Keras keeps the biased variance.
        _move(norm.moving_variance, variance * ((size - 1) / size), norm.momentum)
        return outputs

    def normalize(x, mean, variance, **options):
        gamma = norm.gamma.value if norm.scale else None
        beta = norm.beta.value if norm.center else None
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=norm.epsilon, **options)

    return call


def _move(average, value, momentum):
    average.assign(torch.lerp(value, average.value, momentum))
