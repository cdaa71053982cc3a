"""What the tests of the fused operations share: what a layer computes, with all its gradients."""

import keras
from helpers import built, random_array, snapshot, to_numpy

from keras_resblocks.layers import ConvUnit

IMAGES = (3, 5, 4, 4)


def unit_pair(shape=IMAGES, filters=6, kernel_size=3, **options):
    """A fused and a stock unit with equal weights."""
    units = [ConvUnit(filters, kernel_size, fused=fused, **options) for fused in (True, False)]
    return [built(unit, shape) for unit in units]


def results(layer, inputs, training=True):
    """The output, the gradients of the input and of the weights, and the weights afterwards."""
    x = keras.ops.convert_to_tensor(inputs, layer.compute_dtype)
    backends = {"torch": _on_torch, "tensorflow": _on_tensorflow, "jax": _on_jax}
    differentiated = backends[keras.backend.backend()]
    output, of_input, gradients = differentiated(layer, x, training)
    return {
        "output": [output],
        "input's gradient": [of_input],
        "gradients": gradients,
        "weights": snapshot(layer),
    }


def _on_torch(layer, x, training):
    x = x.detach().requires_grad_()
    output = layer(x, training=training)
    _weighted_sum(output).backward()
    return output.detach(), x.grad, [weight.value.grad for weight in layer.trainable_weights]


def _on_tensorflow(layer, x, training):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, training=training)
        total = _weighted_sum(output)
    trained = [weight.value for weight in layer.trainable_weights]
    of_input, *gradients = tape.gradient(total, [x, *trained])
    return output, of_input, gradients


def _on_jax(layer, x, training):
    import jax

    @jax.jit
    def call(trained, state, x):
        output, state = layer.stateless_call(trained, state, x, training=training)
        return _weighted_sum(output), (output, state)

    trained, state = (
        [weight.value for weight in weights]
        for weights in (layer.trainable_variables, layer.non_trainable_variables)
    )
    gradients = jax.value_and_grad(call, argnums=(0, 2), has_aux=True)
    (_, (output, state)), (of_weights, of_input) = gradients(trained, state, x)
    for weight, value in zip(layer.non_trainable_variables, state):
        weight.assign(value)
    return output, of_input, of_weights


def _weighted_sum(output):
    factors = keras.ops.convert_to_tensor(random_array(output.shape, 1), output.dtype)
    return keras.ops.sum(output * factors)


def assert_equal_results(layer, stock, inputs, tolerance=1e-5, training=True):
    actual, expected = results(layer, inputs, training), results(stock, inputs, training)
    for what, values in expected.items():
        assert len(actual[what]) == len(values)
        for a, b in zip(actual[what], values):
            assert (a is None) == (b is None), what
            if b is not None:
                assert a.shape == b.shape
                assert a.dtype == b.dtype
                scale = max(1.0, float(abs(to_numpy(b)).max()))
                assert abs(to_numpy(a) - to_numpy(b)).max() <= tolerance * scale, what
