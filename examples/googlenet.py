"""GoogLeNet on gray 96x96 images, with and without batch normalization, and its own blocks."""

import argparse

import keras
import numpy as np

from keras_resblocks import GoogLeNet, InceptionBlock, cost, create_model


def main(size):
    paper = GoogLeNet(input_shape=(size, size, 1), classes=10)
    print(f"the paper's: {cost(paper)}")

    # The same with batch normalization and ELU; the published form carries no weights to match.
    modern = create_model("googlenet_bn", input_shape=(size, size, 1), classes=10, activation="elu")
    print(f"with batch normalization: {cost(modern)}")

    # One block of it in a model of your own: four paths, or whichever you list.
    inputs = keras.Input((size, size, 1))
    x = keras.layers.Conv2D(32, 5, strides=2, padding="same", activation="relu")(inputs)
    x = InceptionBlock.v1(16, (24, 32), (4, 8), 8)(x)
    x = InceptionBlock(
        [
            [32],
            [24, (32, (1, 5)), (32, (5, 1))],  # a 5x5 window in two steps
            ["avg_pool", 16],
        ],
        strides=2,
        shortcut="projection",
        residual_scale=0.3,
    )(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    own = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    own.summary()

    images = np.random.default_rng(0).uniform(size=(2, size, size, 1)).astype("float32")
    for model in (paper, modern, own):
        print(model.name, model.predict(images, verbose=0).shape)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96)
    main(parser.parse_args().size)
