"""Convolutions that XLA computes slowly on a CPU, as a product of patches and a matrix.

These are pointwise ones, for the gradient of their kernel, and those with no more positions in the
output than taps in the kernel, at the end of a network for small images: there XLA falls back on a
plain loop. On other devices, and where there is little to compute, each stays the convolution that
Keras computes.
"""

import functools
import math

import jax  # Keras has no way to tell the devices that a program is compiled for

from keras_resblocks.layers.fused.common import (
    convolution,
    is_ungrouped,
    positions_of,
    product_of_patches,
    where,
)

_MOST_TAPS = 27  # each is a slice to compile
_FEWEST_MACS = 2**16  # of a sample: below, hundreds of steps save less time than compiling takes


def fuse(layers, stock, inlined, owns_input=False):
    """As said in `keras_resblocks.layers.fused`."""
    calls = [_convolution(layer) if is_ungrouped(layer) else inlined(layer) for layer in layers]
    return where(_is_array, calls, map(stock, layers))


def pooling(*args):
    """None: what Keras calls is one operation already."""
    return None


def _is_array(inputs):
    return isinstance(inputs, jax.Array)  # and not a symbolic one of Keras's


def _convolution(layer):
    """The function of `(inputs, training)` that a convolution computes."""

    def convolve(x, kernel):
        sizes = x.shape[1:-1]
        if not all(isinstance(size, int) for size in sizes):  # of an export with open sizes
            return layer.convolution_op(x, kernel)
        # How far the window reaches, and what is padded before and after each axis.
        reach = [1 + d * (k - 1) for d, k in zip(layer.dilation_rate, layer.kernel_size)]
        amounts = jax.lax.padtype_to_pads(sizes, reach, layer.strides, layer.padding.upper())
        windows = (layer.kernel_size, amounts, layer.strides, layer.dilation_rate)
        taps, outputs = math.prod(layer.kernel_size), math.prod(positions_of(sizes, *windows))
        is_slow = taps == 1 or 0 < outputs <= taps <= _MOST_TAPS
        if is_slow and outputs * kernel.size >= _FEWEST_MACS:
            product = functools.partial(
                product_of_patches,
                amounts=amounts,
                strides=layer.strides,
                dilation_rate=layer.dilation_rate,
            )
            return jax.lax.platform_dependent(x, kernel, cpu=product, default=layer.convolution_op)
        return layer.convolution_op(x, kernel)

    return convolution(layer, convolve)
