"""Drop a block into a model of your own, train it, save it and load it again."""

import argparse
import pathlib

import keras
import numpy as np

from keras_resblocks import ResidualBlock


def main(out, epochs):
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="elu")(inputs)
    x = ResidualBlock(32, strides=2, activation="elu", kernel_regularizer="l2")(x)
    x = ResidualBlock(64, strides=2, activation=keras.layers.PReLU(shared_axes=[1, 2]))(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    # Two classes of stripes: across and upright.
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=256)
    stripes = np.sin(np.arange(28) * rng.uniform(0.5, 1.5, size=(256, 1)))
    images = np.where(y[:, None, None] == 1, stripes[:, None, :], stripes[:, :, None])
    images = (images + rng.normal(0, 0.3, size=images.shape))[..., None].astype("float32")
    model.fit(images, y, epochs=epochs, batch_size=32, verbose=2)

    path = out / "drop_in_block.keras"
    model.save(path)
    again = keras.saving.load_model(path)  # no custom_objects: the blocks are registered
    difference = np.abs(model.predict(images, verbose=0) - again.predict(images, verbose=0)).max()
    print(f"saved {path}; the loaded model differs by {difference:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    main(args.out, args.epochs)
