"""Search the depths and width of a residual network on real images, within a budget."""

import argparse
import os
import pathlib

import numpy as np

TUNERS = {"random": "RandomSearch", "hyperband": "Hyperband", "bayesian": "BayesianOptimization"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    parser.add_argument("--tuner", choices=TUNERS, default="random")
    parser.add_argument("--trials", type=int, default=12, help="not for hyperband")
    parser.add_argument("--epochs", type=int, default=6, help="of a trial, at most")
    parser.add_argument("--max-params", type=int, default=100_000)
    parser.add_argument("--data", type=pathlib.Path, help="a folder for each class; else digits")
    parser.add_argument("--size", type=int, default=32, help="pixels to resize the images to")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("search_results"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.backend:
        os.environ["KERAS_BACKEND"] = args.backend  # before Keras is imported

    import keras
    from sklearn.model_selection import train_test_split

    from keras_resblocks import tuner as search

    keras.utils.set_random_seed(args.seed)
    x, y = load(args.data, args.size)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    x, y = shifted(x), np.tile(y, 5)

    space = dict(depths=(1, 2, 3), widths=(8, 12, 16), max_params=args.max_params)
    hypermodel = search.ResNetHyperModel(x.shape[1:], int(y.max()) + 1, **space)
    hyperband = args.tuner == "hyperband"
    limit = {"max_epochs": args.epochs} if hyperband else {"max_trials": args.trials}
    common = dict(seed=args.seed, directory=args.out, project_name=args.tuner, overwrite=True)
    tuner = getattr(search, TUNERS[args.tuner])(hypermodel, "val_accuracy", **limit, **common)
    tuner.search(x, y, validation_data=(x_val, y_val), epochs=args.epochs, batch_size=64)

    search.print_trials(tuner)
    search.plot_trials(tuner, args.out / "accuracy_against_parameters.png")
    tuner.get_best_models(1)[0].save(args.out / "best.keras")
    model = keras.saving.load_model(args.out / "best.keras")
    print(f"saved and loaded {args.out / 'best.keras'}: {model.count_params():,} parameters")
    print(f"test accuracy {model.evaluate(x_test, y_test, verbose=0)[1]:.4f}")


def shifted(x):
    """The images, and each of them moved by one pixel up, down, left and right."""
    padded, (h, w) = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape[1:3]
    corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.concatenate([padded[:, i : i + h, j : j + w] for i, j in corners])


def load(folder, size):
    """Images in [0, 1] and their classes: scikit-learn's digits, or those of a folder."""
    import keras
    from sklearn import datasets

    if folder is None:
        x, y = datasets.load_digits(return_X_y=True)
        return x.reshape(-1, 8, 8, 1).astype("float32") / 16, y
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    names = sorted({path.parent.name for path in files})
    if len(names) < 2:
        raise SystemExit(f"{folder} must hold a folder of images for each of two or more classes")
    images = [keras.utils.load_img(path, target_size=(size, size)) for path in files]
    x = np.stack([keras.utils.img_to_array(image) for image in images]) / 255
    return x.astype("float32"), np.array([names.index(path.parent.name) for path in files])


if __name__ == "__main__":
    main()
