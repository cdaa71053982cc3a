"""Train a published network further on your images, here scikit-learn's digits.

The weights come with the images' own preprocessing, a new classifier takes the place of the one
for ImageNet, and what was trained is saved for Keras and for PyTorch.
"""

import argparse
import pathlib

import keras
import safetensors.numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_resblocks import create_model, preprocessing, to_torch_state_dict


def digits():
    """Scans of digits, 8x8 pixels from 0 to 255, in four parts."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * 255 / 16).astype("float32")
    return train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)


def fit(model, x, y, learning_rate, epochs):
    model.compile(
        keras.optimizers.Adam(learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2)


def main(network, weights, size, epochs, out):
    keras.utils.set_random_seed(0)
    x, x_test, y, y_test = digits()
    prepare = preprocessing(weights, network, size=size)
    x, x_test = (keras.ops.convert_to_numpy(prepare(images)) for images in (x, x_test))

    model = create_model(network, weights=weights, input_shape=(size, size, 3), classes=10)
    for layer in model.layers:
        layer.trainable = layer.name == "head"
    fit(model, x, y, 1e-2, epochs=1)  # the new classifier first
    model.trainable = True
    fit(model, x, y, 1e-3, epochs)
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test accuracy {accuracy:.4f}")

    # From an image as it is to the classes, in one file.
    keras.Sequential([keras.Input((None, None, 1)), prepare, model]).save(out / "finetuned.keras")
    arrays = to_torch_state_dict(model, as_numpy=True)
    safetensors.numpy.save_file(arrays, out / "finetuned.safetensors")
    print(f"saved {out / 'finetuned.keras'} and {out / 'finetuned.safetensors'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--weights", default="timm/resnet18.a1_in1k")
    parser.add_argument(
        "--size", type=int, default=32, help="pixels that the images are resized to"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    main(args.network, args.weights, args.size, args.epochs, args.out)
