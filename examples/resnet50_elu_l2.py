"""ResNet-50 with ELU and an L2 penalty on every kernel, on 64x64 images of 6 classes.

The images are made here (polygons with 3 to 8 corners), so that nothing is downloaded; put your
own arrays in their place.
"""

import argparse

import keras
import numpy as np

from keras_resblocks import ResNet50, cost


def polygons(count, size=64, seed=0):
    """Filled regular polygons of 3 to 8 corners, at random places, sizes and angles."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(6, size=count)
    corners = (labels + 3)[:, None, None]
    center = rng.uniform(0.4, 0.6, size=(2, count, 1, 1)) * size
    radius = rng.uniform(0.2, 0.38, size=(count, 1, 1)) * size
    turn = rng.uniform(0, 2 * np.pi, size=(count, 1, 1))
    dy, dx = np.mgrid[:size, :size][:, None] - center
    # The distance from the center to the nearest edge, in direction of each pixel.
    angle = (np.arctan2(dy, dx) + turn) % (2 * np.pi / corners) - np.pi / corners
    inside = np.hypot(dy, dx) * np.cos(angle) < radius * np.cos(np.pi / corners)
    color = rng.uniform(0.3, 1.0, size=(count, 1, 1, 3))
    images = inside[..., None] * color + rng.normal(0, 0.05, size=(count, size, size, 3))
    return images.astype("float32"), labels


def main(images, epochs):
    options = {"activation": "elu", "kernel_regularizer": keras.regularizers.L2(1e-4)}
    model = ResNet50(input_shape=(64, 64, 3), classes=6, **options)
    print(f"{model.name}: {cost(model)}")
    print(f"{len(model.losses)} kernels carry the penalty")

    model.compile(
        keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    x, y = polygons(images)
    x_test, y_test = polygons(max(32, images // 5), seed=1)
    model.fit(x, y, epochs=epochs, batch_size=32, verbose=2)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    main(args.images, args.epochs)
