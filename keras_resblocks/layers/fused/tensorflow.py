"""TensorFlow's batch normalization, and some pointwise convolutions as products of matrices.

Keras writes a normalization out as some thirty operations, backward ones included, each a pass
over the data and a node to trace. Here it is one, and one for its gradient. Other convolutions and
poolings are TensorFlow's own already.
"""

import math

import numpy as np
import tensorflow as tf  # Keras has no fused normalization for training

from keras_resblocks.layers.fused.common import (
    convolution,
    data_format_of,
    is_batch_normalization,
    is_ungrouped,
    is_unmasked,
    where,
)

_FEW_POSITIONS = 9  # a product took 0.4 to 0.9 of the convolution's time, whatever the batch


def fuse(layers, stock, inlined, owns_input=False):
    """As said in `keras_resblocks.layers.fused`."""

    def call_of(layer):
        if _is_norm(layer):
            return where(is_unmasked, [_norm(layer)], [stock(layer)])
        call = inlined(layer)
        return _pointwise(layer, call) if _is_pointwise(layer) else call

    return where(tf.is_tensor, map(call_of, layers), map(stock, layers))


def pooling(*args):
    """None: what Keras calls is one operation already."""
    return None


def _is_norm(layer):
    return (
        is_batch_normalization(layer)
        and data_format_of(layer) == "channels_last"  # a CPU has no other
        and layer.variable_dtype == "float32"
        and layer.compute_dtype in ("float32", "bfloat16", "float16")
    )


def _is_pointwise(layer):
    return is_ungrouped(layer) and math.prod(layer.kernel_size) == 1


def _pointwise(layer, stock):
    """A convolution, in training as the product of two matrices where that is better.

    At the end of a network for small images, a convolution spends its time on putting its kernel in
    order. And for the gradient of a strided kernel with fewer than 16 channels, oneDNN writes past
    the end of its memory where batches differ in size: TensorFlow 2.21 crashes, with plain Keras
    layers too.
    """
    is_unsafe = layer.kernel.shape[-2] < 16 and max(layer.strides) > 1
    places = (slice(None), *(slice(None, None, stride) for stride in layer.strides))

    def multiply(x, kernel):
        x, matrix = x[places], tf.reshape(kernel, kernel.shape[-2:])
        rows = tf.matmul(tf.reshape(x, (-1, matrix.shape[0])), matrix)
        return tf.reshape(rows, tf.concat([tf.shape(x)[:-1], tf.shape(rows)[1:]], 0))

    product = convolution(layer, multiply)

    def call(inputs, training):
        is_product = training and (is_unsafe or has_few_positions(inputs))
        return (product if is_product else stock)(inputs, training)

    def has_few_positions(inputs):
        sizes = inputs.shape[1:-1]
        if None in sizes:
            return False
        outputs = math.prod(-(-size // stride) for size, stride in zip(sizes, layer.strides))
        return outputs <= _FEW_POSITIONS

    return call


def _norm(norm):
    """The function of `(inputs, training)` that a normalization computes."""
    channels = norm.input_spec.axes[norm.axis]
    nothing = np.zeros(0, "float32")
    zeros, ones = np.zeros(channels, "float32"), np.ones(channels, "float32")

    def call(inputs, training):
        x = tf.cast(inputs, norm.compute_dtype)
        return (move if training and norm.trainable else keep)(x)

    def keep(x):
        mean, variance = norm.moving_mean, norm.moving_variance
        return normalize(x, tf.convert_to_tensor(mean), tf.convert_to_tensor(variance), False)[0]

    def move(x):
        outputs, mean, unbiased, *_ = normalize(x, nothing, nothing, True)
        size = tf.cast(tf.size(x) // channels, "float32")
        # Keras keeps the biased variance.
        for average, value in (
            (norm.moving_mean, mean),
            (norm.moving_variance, unbiased * ((size - 1) / size)),
        ):
            average.assign(average * norm.momentum + value * (1 - norm.momentum))
        return outputs

    def normalize(x, mean, variance, is_training):
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.convert_to_tensor(norm.gamma) if norm.scale else ones,
            offset=tf.convert_to_tensor(norm.beta) if norm.center else zeros,
            mean=mean,
            variance=variance,
            epsilon=norm.epsilon,
            is_training=is_training,
        )

    return call if norm.input_spec.ndim == 4 else _of_images(call, channels)


def _of_images(call, channels):
    """What a function of images makes of signals or volumes, where positions do not matter."""

    def reshaped(inputs, training):
        outputs = call(tf.reshape(inputs, (-1, 1, 1, channels)), training)
        return tf.ensure_shape(tf.reshape(outputs, tf.shape(inputs)), inputs.shape)

    return reshaped
