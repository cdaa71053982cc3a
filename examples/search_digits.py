"""Search a residual network for scikit-learn's digits within a budget, from Python.

`python -m keras_resblocks search digits` does much the same, and with your own images. Here every
image is trained on at nine places, up to a pixel apart. After Ctrl-C the same command goes on.
"""

import argparse
import itertools
import os
import pathlib
import shutil

import numpy as np


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3, help="of a trial, at most")
    parser.add_argument("--max-params", type=int, default=100_000)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("search_results"))
    parser.add_argument("--overwrite", action="store_true", help="forget the search in --out")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.backend:
        os.environ["KERAS_BACKEND"] = args.backend  # before Keras is imported

    import keras
    import optuna

    from keras_resblocks import tuner as search
    from keras_resblocks.cli.data import load

    data = load("digits")
    space = dict(depths=(1, 2, 3), widths=(8, 12, 16), learning_rates=(1e-3, 3e-3))
    space.update(schedules="cosine", label_smoothings=0.1, max_params=args.max_params)
    hypermodel = search.ResNetHyperModel(data.x.shape[1:], len(data.classes), **space)
    if args.overwrite:
        shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True, exist_ok=True)
    study = search.optuna_search(
        hypermodel,
        "digits",
        f"sqlite:///{args.out}/study.db",
        max_trials=args.trials,
        pruner=optuna.pruners.MedianPruner(),  # stops trials that promise little
        seed=args.seed,
        directory=args.out,
        x=shifted(data.x),
        y=np.tile(data.y, 9),
        validation_data=(data.x_val, data.y_val),
        epochs=args.epochs,
        batch_size=64,
    )

    search.print_trials(study)
    report = search.report(study, args.out / "report")
    print(f"report: {report.paths['report.html']}")
    search.plot_trials(study, args.out / "accuracy_against_parameters.png")
    report.best.load_model(hypermodel).save(args.out / "best.keras")
    model = keras.saving.load_model(args.out / "best.keras")
    print(f"saved and loaded {args.out / 'best.keras'}: {model.count_params():,} parameters")
    print(f"test accuracy {model.evaluate(data.x_test, data.y_test, verbose=0)[1]:.4f}")


def shifted(x):
    """The images, and each of them moved by one pixel in all eight directions."""
    padded, (h, w) = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape[1:3]
    corners = itertools.product(range(3), repeat=2)
    return np.concatenate([padded[:, i : i + h, j : j + w] for i, j in corners])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on") from None
