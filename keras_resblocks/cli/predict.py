"""Say what the best model of a search sees in pictures."""

import csv
import pathlib
import sys

from keras_resblocks.cli import backend, options

_AT_ONCE = 64  # pictures


def add_arguments(parser):
    """Declares what the command takes."""
    parser.add_argument(
        "model", type=pathlib.Path, metavar="MODEL", help="best.keras of a search, or its folder"
    )
    parser.add_argument(
        "pictures", type=pathlib.Path, nargs="+", metavar="PICTURE", help="a file, or a folder"
    )
    parser.add_argument(
        "--csv", action="store_true", help="print all classes, as a table with commas"
    )
    parser.add_argument(
        "--top", type=options.positive, default=3, metavar="N", help="likeliest classes (3)"
    )


def run(args):
    """Prints a line for each picture; the exit status, 1 if some cannot be read."""
    backend.start()
    from keras_resblocks.cli.data import pictures

    paths, problems = pictures.find(args.pictures)
    if not paths and not problems:
        raise ValueError(f"`PICTURE` must hold pictures. Received: {args.pictures[0]}")
    model = _load(args.model)
    names = model.layers[-1].names
    if args.csv and names:
        _print_row(["picture", "prediction", *names])
    for path, values in _predictions(model, paths, problems):
        if args.csv:
            prediction = [names[values.argmax()]] if names else []
            _print_row([path, *prediction, *(f"{value:.6g}" for value in values)])
        else:
            print(f"{path}: {_likeliest(names, values, args.top)}", flush=True)
    for path, problem in problems.items():
        print(f"note: left out, {path}: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _load(path):
    import keras

    from keras_resblocks.training.pictures import Labels

    path = path / "best.keras" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"`MODEL` must be a file that exists. Received: {path}")
    expected = f"`MODEL` must be the best.keras of a search. Received: {path}"
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises any for a file of another kind
        raise ValueError(f"{expected} ({str(error)[:200]})") from None
    if not isinstance(model.layers[-1], Labels) or len(model.output_shape) != 2:
        raise ValueError(expected)
    return model


def _predictions(model, paths, problems):
    """Each picture with the model's output; what cannot be read joins the `problems`."""
    import numpy as np

    from keras_resblocks.cli.data import batches, pictures
    from keras_resblocks.training.pictures import FitSize

    sizes = [layer.size for layer in model.layers if isinstance(layer, FitSize)]
    channels = model.input_shape[-1]
    if len(sizes) != 1 or channels not in (1, 3):
        raise ValueError(f"`MODEL` must take pictures. Received: input shape {model.input_shape}")
    dtype = model.inputs[0].dtype
    levels = 65535 if dtype == "uint16" else 255
    reader = pictures.Reader((*sizes[0], channels), levels, model.layers[-1].background)

    for start in range(0, len(paths), _AT_ONCE):
        chunk = paths[start : start + _AT_ONCE]
        images = {}
        for path, image in zip(chunk, batches.parallel(reader.attempt, chunk)):
            (problems if isinstance(image, str) else images)[path] = image
        if images:
            x = np.stack(list(images.values()))
            x = x / np.float32(levels) if dtype == "float32" else x
            yield from zip(images, model.predict(x, verbose=0))


def _print_row(cells):
    csv.writer(sys.stdout, lineterminator="\n").writerow(cells)


def _likeliest(names, values, top):
    if not names:
        return ", ".join(f"{value:.6g}" for value in values)
    named = sorted(zip(values, names), key=lambda pair: -pair[0])[:top]
    return ", ".join(f"{name} {value:.4f}" for value, name in named)
