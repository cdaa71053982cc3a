"""TensorFlow's batch normalization, and strided pointwise convolutions of few channels.

Keras writes a normalization out as some thirty operations, backward ones included, each a pass
over the data and a node to trace. Here it is one, and one for its gradient. Other convolutions and
poolings are TensorFlow's own already.
"""

import math

import keras
import numpy as np
import tensorflow as tf  # Keras has no fused normalization for training

from keras_resblocks.layers.fused.common import (
    convolution,
    data_format_of,
    is_batch_normalization,
    is_convolution,
    is_unmasked,
    where,
)


def fuse(layers, stock, inlined, owns_input=False):
    """As said in `keras_resblocks.layers.fused`."""

    def call_of(layer):
        if _is_norm(layer):
            return where(is_unmasked, [_norm(layer)], [stock(layer)])
        return _subsampled(layer) if _is_strided_pointwise(layer) else inlined(layer)

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


def _is_strided_pointwise(layer):
    # For the gradient of its kernel with fewer than 16 channels, oneDNN writes past the end of its
    # memory where batches differ in size: TensorFlow 2.21 crashes, with plain Keras layers too.
    return (
        is_convolution(layer)
        and math.prod(layer.kernel_size) == 1 < math.prod(layer.strides)
        and (layer.data_format, layer.groups) == ("channels_last", 1)
        and layer.kernel.shape[-2] < 16
    )


def _subsampled(layer):
    """The function of `(inputs, training)`: in training, a convolution of every other position."""
    places = (slice(None), *(slice(None, None, stride) for stride in layer.strides))
    subsampled = convolution(
        layer, lambda x, kernel: keras.ops.conv(x[places], kernel, data_format="channels_last")
    )
    return lambda inputs, training: subsampled(inputs, training) if training else layer(inputs)


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
