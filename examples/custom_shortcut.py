"""A shortcut policy of your own: registered, serializable, usable by name of its class."""

import argparse
import pathlib

import keras
import numpy as np

from keras_resblocks import BottleneckBlock, ResidualBlock, shortcuts
from keras_resblocks.layers import Pool


@keras.saving.register_keras_serializable(package="examples")
class MaxPoolShortcut(shortcuts.Shortcut):
    """Max pooling where the block is strided, then a 1x1 convolution where channels change.

    A policy holds options, never weights; a block asks it for the steps to put in place.
    """

    def __init__(self, pool_size=3):
        self.pool_size = pool_size

    def steps(self, channels, filters, strides):
        steps = []
        if strides != 1:
            steps.append(Pool("max", self.pool_size, strides))
        if channels != filters:
            steps.append(self.convolution(filters))
        return steps

    def get_config(self):
        return {"pool_size": self.pool_size}


def main(out):
    policy = MaxPoolShortcut(pool_size=3)  # one object, shared by all the blocks
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            ResidualBlock(16, shortcut=policy),
            ResidualBlock(32, strides=2, shortcut=policy),
            BottleneckBlock(16, strides=2, shortcut=policy, preactivation=True),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    model.summary()

    path = out / "custom_shortcut.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    difference = np.abs(model.predict(images, verbose=0) - again.predict(images, verbose=0)).max()
    print(f"{again.layers[1].shortcut_policy} came back; outputs differ by {difference:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    main(args.out)
