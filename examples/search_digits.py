"""Search a residual network for scikit-learn's digits within a budget, from Python.

`python -m keras_resblocks search digits` does much the same, and with your own images. Here every
image is trained on at five places, a pixel apart.
"""

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
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("search_results"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.backend:
        os.environ["KERAS_BACKEND"] = args.backend  # before Keras is imported

    import keras

    from keras_resblocks import tuner as search
    from keras_resblocks.cli.data import load

    keras.utils.set_random_seed(args.seed)
    data = load("digits")
    x, y = shifted(data.x), np.tile(data.y, 5)

    space = dict(depths=(1, 2, 3), widths=(8, 12, 16), max_params=args.max_params)
    hypermodel = search.ResNetHyperModel(x.shape[1:], data.classes, **space)
    hyperband = args.tuner == "hyperband"
    limit = {"max_epochs": args.epochs} if hyperband else {"max_trials": args.trials}
    common = dict(seed=args.seed, directory=args.out, project_name=args.tuner, overwrite=True)
    tuner = getattr(search, TUNERS[args.tuner])(hypermodel, "val_accuracy", **limit, **common)
    validation = (data.x_val, data.y_val)
    tuner.search(x, y, validation_data=validation, epochs=args.epochs, batch_size=64)

    search.print_trials(tuner)
    search.plot_trials(tuner, args.out / "accuracy_against_parameters.png")
    tuner.get_best_models(1)[0].save(args.out / "best.keras")
    model = keras.saving.load_model(args.out / "best.keras")
    print(f"saved and loaded {args.out / 'best.keras'}: {model.count_params():,} parameters")
    print(f"test accuracy {model.evaluate(data.x_test, data.y_test, verbose=0)[1]:.4f}")


def shifted(x):
    """The images, and each of them moved by one pixel up, down, left and right."""
    padded, (h, w) = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape[1:3]
    corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.concatenate([padded[:, i : i + h, j : j + w] for i, j in corners])


if __name__ == "__main__":
    main()
