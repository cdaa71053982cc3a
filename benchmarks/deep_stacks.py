"""What deep networks cost before their first step: to build, to trace and to compile.

    python -m benchmarks.deep_stacks --backends tensorflow jax torch

Prints a table in Markdown: process times, each network, backend and contender in a process of its
own. **blocks** is `create_model`, **flat** the same network of Keras's own layers with the
functional API. **build** makes the model, after another one was built. **trace** turns a training
step into a graph, and **compile** that into a program (TensorFlow and PyTorch, which compiles
nothing: what the first step takes longer than the second). **step** is one training step.
"""

import argparse
import dataclasses
import itertools
import os
import sys
import time

from benchmarks import processes
from benchmarks.tables import line, table

COLUMNS = ("network", "backend", "layers", "build", "trace", "compile", "step")
BATCH = 2


NETWORKS = {  # blocks in a stage, and whether they are bottlenecks
    "ResNet-110": ((110 - 2) // 6, False),  # He et al. 2016a, section 4.2
    "ResNet-1001": ((1001 - 2) // 9, True),  # He et al. 2016b, table 1
}


def blocks(depth, bottleneck):
    """The network of our blocks."""
    from keras_resblocks import create_model
    from keras_resblocks.models.published import get_spec

    base = "preact_resnet164_cifar" if bottleneck else "resnet110_cifar"
    return create_model(dataclasses.replace(get_spec(base), depths=(depth,) * 3))


def flat(depth, bottleneck):
    """The same network in Keras's own layers (but that its shortcuts are projections)."""
    import keras

    sys.setrecursionlimit(100_000)  # Keras descends once for each layer

    def conv(x, filters, size, strides=1):
        return keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
        )(x)

    def norm(x):
        return keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9)(x)

    def norm_act(x):
        return keras.layers.Activation("relu")(norm(x))

    inputs = keras.Input((32, 32, 3))
    x = conv(inputs, 16, 3)
    if not bottleneck:
        x = norm_act(x)
    for width in (16, 32, 64):
        for block in range(depth):
            strides = 2 if width > 16 and block == 0 else 1
            changes = block == 0 and (bottleneck or width > 16)
            if bottleneck:
                a = norm_act(x)
                shortcut = conv(a, 4 * width, 1, strides) if changes else x
                y = norm_act(conv(a, width, 1))
                y = conv(norm_act(conv(y, width, 3, strides)), 4 * width, 1)
                x = keras.layers.Add()([y, shortcut])
            else:
                shortcut = conv(x, width, 1, strides) if changes else x
                y = norm(conv(norm_act(conv(x, width, 3, strides)), width, 3))
                x = keras.layers.Activation("relu")(keras.layers.Add()([y, shortcut]))
    if bottleneck:
        x = norm_act(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


CONTENDERS = {"blocks": blocks, "flat": flat}


def timed(function, *arguments):
    """What a function returns, and the process time it takes."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def measure(network, contender):
    """A dict of times, on this process's backend."""
    import keras
    import numpy as np

    make = CONTENDERS[contender]
    make(1, True)  # what only the first model of a process takes
    model, build = timed(make, *NETWORKS[network])
    images = np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3)).astype("float32")
    first_step = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    times = first_step[keras.backend.backend()](model, images, np.arange(BATCH))
    return {"build": build, **times}


def _tensorflow(model, images, labels):
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, outputs))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply_gradients(zip(gradients, variables))
        return loss

    compiled, trace = timed(step.get_concrete_function, images, labels)
    inputs = (tf.constant(images), tf.constant(labels))
    _, first = timed(compiled, *inputs)
    _, second = timed(compiled, *inputs)
    return {"trace": trace, "compile": first - second, "step": second}


def _jax(model, images, labels):
    import jax
    import keras

    def loss(trainable, non_trainable):
        outputs, updates = model.stateless_call(trainable, non_trainable, images, training=True)
        return keras.losses.sparse_categorical_crossentropy(labels, outputs).mean(), updates

    def step(trainable, non_trainable):
        gradients, updates = jax.grad(loss, has_aux=True)(trainable, non_trainable)
        return [value - 0.1 * g for value, g in zip(trainable, gradients)], updates

    state = [
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    lowered, trace = timed(lambda: jax.jit(step).lower(*state))
    compiled, seconds = timed(lowered.compile)
    jax.block_until_ready(compiled(*state))
    _, second = timed(lambda: jax.block_until_ready(compiled(*state)))
    return {"trace": trace, "compile": seconds, "step": second}


def _torch(model, images, labels):
    model.compile("sgd", "sparse_categorical_crossentropy")
    _, first = timed(model.train_on_batch, images, labels)
    _, second = timed(model.train_on_batch, images, labels)
    return {"compile": first - second, "step": second}


def main(arguments=None):
    """Measures each network on each backend, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    parser.add_argument("--backends", nargs="+", default=[backend])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    args = parser.parse_args(arguments)
    print(table(COLUMNS), flush=True)
    for case in itertools.product(args.networks, args.backends, args.contenders):
        network, backend, contender = case
        found = processes.alone(backend, measure, network, contender)
        times = (f"{found[name]:.1f} s" if name in found else "-" for name in COLUMNS[3:])
        print(line((*case, *times)), flush=True)


if __name__ == "__main__":
    main()
