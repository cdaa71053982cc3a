"""Train a network on all GPUs of a machine, on JAX or TensorFlow, with the losses of a single one.

Every device takes its share of each batch. The normalization must not notice: on JAX it computes
with whole batches in any case, on TensorFlow if it is `synchronized`. Without GPUs, `--simulate 2`
makes two devices of the CPU.
"""

import argparse
import os

import numpy as np


def simulate(count):
    """Makes several devices of one CPU; before Keras is imported."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
    if os.environ.get("KERAS_BACKEND") != "jax":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * count,
        )


def on_jax(count):
    """The first few devices or all, the scope to train in on them, and the normalization."""
    import keras

    devices = keras.distribution.list_devices()[:count]
    return devices, keras.distribution.DataParallel(devices=devices).scope(), "batch"


def on_tensorflow(count):
    """The same on TensorFlow."""
    import keras
    import tensorflow as tf

    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    devices = [device.name for device in found[:count]]
    normalization = keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, synchronized=True)
    return devices, tf.distribute.MirroredStrategy(devices).scope(), normalization


def levels(count, seed=0):
    """Images of noise around a level that tells the class, one of ten."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=count)
    noise = rng.normal(size=(count, 32, 32, 3))
    return (noise + labels[:, None, None, None] / 5 - 1).astype("float32"), labels


def main(count, epochs):
    import keras

    from keras_resblocks import create_model

    keras.utils.set_random_seed(0)
    on = {"jax": on_jax, "tensorflow": on_tensorflow}[keras.backend.backend()]
    devices, scope, normalization = on(count)
    print(f"devices: {', '.join(devices)}")
    with scope:
        model = create_model("resnet20_cifar", normalization=normalization)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        images, labels = levels(256)
        history = model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0).history
    for epoch, loss in enumerate(history["loss"], start=1):
        print(f"epoch {epoch}: loss {loss:.7f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, help="how many to use; all of them by default")
    parser.add_argument("--simulate", type=int, help="number of devices to make of the CPU")
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    if args.simulate:
        simulate(args.simulate)
    main(args.devices, args.epochs)
