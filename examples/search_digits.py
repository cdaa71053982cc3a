"""Search depths and widths of a residual network on real images, within a budget.

    python examples/search_digits.py                  # scikit-learn's digits, 8x8 scans
    python examples/search_digits.py --data my_images # a folder with a folder for each class
"""

import argparse
import os
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    parser.add_argument("--tuner", choices=("random", "hyperband", "bayesian"), default="random")
    parser.add_argument("--trials", type=int, default=12, help="not for hyperband")
    parser.add_argument("--epochs", type=int, default=20, help="of a trial, at most")
    parser.add_argument("--max-params", type=int, default=100_000)
    parser.add_argument("--data", type=pathlib.Path, help="folder of images, one folder a class")
    parser.add_argument("--size", type=int, default=32, help="pixels to resize --data images to")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("search_results"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.backend:
        os.environ["KERAS_BACKEND"] = args.backend  # before Keras is imported

    import keras
    from sklearn.model_selection import train_test_split

    from keras_resblocks import tuner as search

    keras.utils.set_random_seed(args.seed)
    x, y = load_folder(keras, args.data, args.size) if args.data else load_digits()
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)

    hypermodel = search.ResNetHyperModel(
        x.shape[1:], int(y.max()) + 1, max_params=args.max_params, depths=(1, 2, 3)
    )
    common = dict(seed=args.seed, directory=args.out, project_name=args.tuner, overwrite=True)
    objective = "val_accuracy"
    if args.tuner == "hyperband":
        tuner = search.Hyperband(hypermodel, objective, max_epochs=args.epochs, **common)
    else:
        kinds = {"random": search.RandomSearch, "bayesian": search.BayesianOptimization}
        tuner = kinds[args.tuner](hypermodel, objective, max_trials=args.trials, **common)
    tuner.search(x, y, validation_data=(x_val, y_val), epochs=args.epochs, batch_size=64)

    search.print_trials(tuner)
    search.plot_trials(tuner, args.out / "accuracy_against_parameters.png")
    tuner.get_best_models(1)[0].save(args.out / "best.keras")

    model = keras.saving.load_model(args.out / "best.keras")
    print(f"saved {args.out / 'best.keras'}: {model.count_params():,} parameters")
    print(f"test accuracy {model.evaluate(x_test, y_test, verbose=0)[1]:.4f}")


def load_digits():
    from sklearn import datasets

    digits = datasets.load_digits()
    return digits.images[..., None].astype("float32") / 16, digits.target


def load_folder(keras, folder, size):
    import numpy as np

    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    names = sorted({path.parent.name for path in files})
    images = [keras.utils.load_img(path, target_size=(size, size)) for path in files]
    x = np.stack([keras.utils.img_to_array(image) for image in images]) / 255
    return x.astype("float32"), np.array([names.index(path.parent.name) for path in files])


if __name__ == "__main__":
    main()
