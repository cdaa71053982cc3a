"""What `remat=True` saves and what it costs: memory kept for the backward pass, and step time.

    python -m benchmarks.remat --backends tensorflow jax torch

Prints a table in Markdown. Each backend has a process of its own, in which the same network with
and without rematerialization takes turns.

**kept** is what the forward pass hands to the backward pass: the sizes of all tensors that are
neither weights nor inputs, each counted once, whatever an allocator makes of them. **step** is the
process time of one compiled training step, in the median. **difference** is the largest of any
weight or statistic after the first three steps, relative to values of more than 1.
"""

import argparse
import os
import statistics
import time

from benchmarks import processes
from benchmarks.tables import table

COLUMNS = ("backend", "kept", "with remat", "ratio", "step", "with remat", "ratio", "difference")


def kept_bytes(model, images, labels):
    """How many bytes the forward pass of training keeps for the backward pass."""
    import keras

    count = {"tensorflow": _kept_by_tensorflow, "jax": _kept_by_jax, "torch": _kept_by_torch}
    return count[keras.backend.backend()](model, images, labels)


def _kept_by_torch(model, images, labels):
    import keras
    import torch

    images, labels = map(keras.ops.convert_to_tensor, (images, labels))
    own = {value.untyped_storage().data_ptr() for value in (images, *_values(model.variables))}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss(model, images, labels)
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def _kept_by_jax(model, images, labels):
    import jax

    def pullback(trainable, non_trainable, images):
        def loss(trainable):
            outputs, updates, losses = model.stateless_call(
                trainable, non_trainable, images, training=True, return_losses=True
            )
            return model.loss(labels, outputs) + sum(losses), updates

        return jax.vjp(loss, trainable, has_aux=True)[1]  # its leaves are what it keeps

    values = map(_values, (model.trainable_variables, model.non_trainable_variables))
    program = jax.make_jaxpr(pullback)(*values, images).jaxpr
    own = {id(variable) for variable in (*program.invars, *program.constvars)}
    outputs = {id(output): output for output in program.outvars}
    kept = [output.aval for key, output in outputs.items() if key not in own]
    return sum(array.size * array.dtype.itemsize for array in kept)


def _kept_by_tensorflow(model, images, labels):
    import tensorflow as tf

    kept = {}

    def origin(tensor):
        """The tensor that this one is a mere other name of."""
        while tensor.op.type in ("Identity", "IdentityN", "Reshape", "StopGradient"):
            same = tensor.value_index if tensor.op.type == "IdentityN" else 0
            tensor = tensor.op.inputs[same]
        return tensor

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = _loss(model, images, labels)
        forward = {op.name for op in loss.graph.get_operations()}
        gradients = tape.gradient(loss, _values(model.trainable_variables))
        for op in loss.graph.get_operations():
            if op.name not in forward:
                used = (origin(tensor) for tensor in op.inputs if tensor.op.name in forward)
                kept.update({tensor.name: tensor for tensor in used})
        return gradients

    step.get_concrete_function(images, labels)
    weights = ("Placeholder", "ReadVariableOp", "Const")
    kept = [tensor for tensor in kept.values() if tensor.op.type not in weights]
    # What cuDNN alone fills, and which has no known shape: the sixth output.
    empty = ("FusedBatchNormV3", 5)
    kept = [tensor for tensor in kept if (tensor.op.type, tensor.value_index) != empty]
    return sum(tensor.shape.num_elements() * tensor.dtype.size for tensor in kept)


def _values(variables):
    return [variable.value for variable in variables]


def _loss(model, images, labels):
    outputs = model(images, training=True)
    return model.compute_loss(images, labels, outputs)


def measure(network, size, batch, rounds):
    """A dict of what was found, on this process's backend."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size, 3)).astype("float32")
    labels = rng.integers(10, size=batch).astype("int32")
    contenders = {"plain": False, "remat": True}
    kept, models, trained = {}, {}, {}
    for name, remat in contenders.items():
        kept[name] = kept_bytes(_compiled(network, size, remat), images, labels)
        models[name] = _compiled(network, size, remat)
        for _ in range(3):
            models[name].train_on_batch(images, labels)
        trained[name] = models[name].get_weights()
    seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.process_time()
            keras.ops.convert_to_numpy(model.train_on_batch(images, labels))
            seconds[name].append(time.process_time() - start)
    difference = max(
        np.max(np.abs(a - b) / np.maximum(1.0, np.abs(a)))
        for a, b in zip(trained["plain"], trained["remat"])
    )
    return {
        "kept": kept,
        "seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "difference": float(difference),
    }


def _compiled(network, size, remat):
    import keras

    from keras_resblocks import create_model

    keras.utils.set_random_seed(0)
    model = create_model(network, input_shape=(size, size, 3), classes=10, remat=remat)
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy())
    return model


def row(backend, found):
    """The row of a backend in the table."""
    kept, seconds = found["kept"], found["seconds"]
    return (
        backend,
        *(f"{kept[name] / 2**20:,.0f} MiB" for name in ("plain", "remat")),
        f"{kept['remat'] / kept['plain']:.2f}",
        *(f"{seconds[name]:.2f} s" for name in ("plain", "remat")),
        f"{seconds['remat'] / seconds['plain']:.2f}",
        f"{found['difference']:.0e}",
    )


def main(arguments=None):
    """Measures each backend in a process of its own, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    parser.add_argument("--backends", nargs="+", default=[backend])
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--size", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="of timed steps")
    args = parser.parse_args(arguments)
    work = (args.network, args.size, args.batch, args.rounds)
    rows = [row(name, processes.alone(name, measure, *work)) for name in args.backends]
    print(f"{args.network}, batch {args.batch}, {args.size} pixels\n")
    print(table(COLUMNS, rows))


if __name__ == "__main__":
    main()
