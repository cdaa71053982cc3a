"""Arrays of images and labels: of an `.npz` file, and scikit-learn's digits."""

import numpy as np

from keras_resblocks.cli.data.batches import Found
from keras_resblocks.cli.data.splits import PART_OF, PARTS, listed

_KIND_OF = {"x": "x", "images": "x", "y": "y", "labels": "y", "targets": "y"}


def digits():
    """Scikit-learn's digits, as `Found`."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1) / 16
    names = [str(digit) for digit in range(10)]
    return Found({"train": (x, y)}, x.shape[1:], names, "classification", 1, {})


def read(path, task, say):
    """The arrays in a file, as `Found`; the arguments are those of `load`."""
    if not path.is_file():
        raise ValueError(f"`DATA` must be a file that exists. Received: {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = _names(file.files)
            arrays = {name: file[name] for name in names.values()}
            contents = {
                info.filename.removesuffix(".npy"): f"{info.CRC:08x}"
                for info in file.zip.infolist()
            }
    except Exception as error:  # a damaged file may raise any
        raise ValueError(f"{path} must be an .npz file of plain arrays ({error})") from None
    parts = [part for part in PARTS if ("x", part) in names]
    images, divisor = _images({names["x", part]: arrays[names["x", part]] for part in parts}, say)
    labels = {names["y", part]: arrays[names["y", part]] for part in parts}
    for (x, pictures), (name, y) in zip(images.items(), labels.items()):
        if y.ndim not in (1, 2) or len(y) != len(pictures):
            raise ValueError(
                f"`{name}` must be the label of each of the {len(pictures)} images of `{x}`. "
                f"Received: shape {y.shape} and dtype {y.dtype}"
            )
    kind, classes, targets = _labels(list(labels.values()), task)
    if task is None and kind != "classification":
        say(f"`{names['y', 'train']}` looks like {kind}; if it is not, say so with `--task`")
    return Found(
        dict(zip(parts, zip(images.values(), targets))),
        next(iter(images.values())).shape[1:],
        classes,
        kind,
        divisor,
        {name: f"{y.dtype} {y.shape} {contents[name]}" for name, y in arrays.items()},
    )


def _names(held):
    """The names of the arrays that count, by `("x" or "y", part)`."""
    names = {}
    for name in held:
        words = name.lower().split("_")
        kinds = [_KIND_OF[word] for word in words if word in _KIND_OF]
        parts = [PART_OF[word] for word in words if word in PART_OF]
        if len(kinds) == 1 and len(words) == 1 + len(parts):
            key = kinds[0], *(parts or ["train"])
            if key in names:
                raise ValueError(f"two arrays for the same part: {names[key]} and {name}")
            names[key] = name
    wanted = {(kind, part) for part in ("train", *(part for _, part in names)) for kind in "xy"}
    missing = [f"{kind}_{part}".removesuffix("_train") for kind, part in sorted(wanted - {*names})]
    if missing:
        raise ValueError(
            f"which must be named x and y, or x_train, y_train, x_val, ... "
            f"Missing: {', '.join(missing)}. It holds: {listed(held, 20) or 'none'}"
        )
    return names


def _images(arrays, say):
    """Images with an axis for the channels, the last one, and what scales all to [0, 1]."""
    first, images = next(iter(arrays)), {}
    for name, x in arrays.items():
        if x.ndim not in (3, 4, 5) or x.dtype.kind not in "fiub" or not x.size:
            raise ValueError(
                f"`{name}` must be images, (n, height, width) or (n, height, width, channels), of "
                f"numbers. Received: shape {x.shape} and dtype {x.dtype}"
            )
        if not np.isfinite(x).all():
            raise ValueError(f"`{name}` must be finite. Received: {(~np.isfinite(x)).sum()} others")
        images[name] = x[..., None] if x.ndim == 3 else x
        if images[name].shape[1:] != images[first].shape[1:]:
            raise ValueError(
                f"`{name}` must have images like those of `{first}`. "
                f"Received: shapes {x.shape} and {arrays[first].shape}"
            )
    if images[first].shape[1] <= 4 < images[first].shape[-1]:
        images = {name: np.moveaxis(x, 1, -1) for name, x in images.items()}
        say(f"`{first}` has its channels first; they are turned to {images[first].shape}")
    return images, _divisor(images, say)


def _divisor(images, say):
    """What scales the images of all parts to [0, 1]; floating point ones are left as they are."""
    low = min(x.min() for x in images.values())
    highest = [float(x.max()) for x in images.values()]
    kinds = {"f" if x.dtype.kind == "f" else "i" for x in images.values()}
    if len(kinds) > 1 or ("f" in kinds and min(highest) <= 1 and max(highest) > 20):
        said = [f"{name} {x.dtype} to {high:g}" for (name, x), high in zip(images.items(), highest)]
        raise ValueError(f"`x` must be scaled alike in all parts. Received: {', '.join(said)}")
    is_deep = all(x.dtype == "uint16" for x in images.values()) and max(highest) > 255
    if "i" in kinds and (low < 0 or (max(highest) > 255 and not is_deep)):
        raise ValueError(
            "`x` must be integers of 8 bits, uint16 or floating point. "
            f"Received: {', '.join(f'{x.dtype} {name}' for name, x in images.items())}, from "
            f"{low} to {max(highest):g}"
        )
    if "f" in kinds and max(highest) > 20:
        say(
            f"`x` has floating point numbers up to {max(highest):g}, which are left as they are; "
            "`predict` scales pictures to [0, 1]"
        )
    if "f" in kinds or max(highest) <= 1:  # black and white
        return 1
    return 65535 if is_deep else 255


def _labels(parts, task):
    """The task, the names of the classes, and the labels of each part."""
    parts = [y[:, 0] if y.shape[1:] == (1,) else y for y in parts]
    kinds = {(y.shape[1:], y.dtype.kind in "US") for y in parts}
    y = np.concatenate(parts) if len(kinds) == 1 else parts[0]
    is_number = y.dtype.kind in "iufb"
    is_whole = not is_number or (np.isfinite(y).all() and (y == np.rint(y)).all())
    is_binary = is_number and np.isin(y, (0, 1)).all()
    is_one_hot = is_binary and y.ndim == 2 and (y.sum(axis=1) == 1).all()
    if task is None and y.ndim == 2:
        task = "classification" if is_one_hot else "multilabel" if is_binary else "regression"
    elif task is None:
        is_class = y.dtype.kind != "f" or (is_whole and _counts(np.unique(y)))
        task = "classification" if is_class else "regression"
    wanted = {
        "classification": ((y.ndim == 1 and is_whole) or is_one_hot, "a class each, or one-hot"),
        "multilabel": (y.ndim == 2 and is_binary, "zeros and ones of shape (n, labels)"),
        "regression": (is_number and np.isfinite(y).all(), "finite numbers"),
    }
    is_right, expected = wanted[task]
    if len(kinds) > 1 or not (is_number or y.dtype.kind in "US") or not is_right:
        raise ValueError(
            f"`y` must be {expected} for {task}, alike in all parts. "
            f"Received: {', '.join(f'{y.dtype} {y.shape}' for y in parts)}"
        )
    if task != "classification":
        labels = range(y.shape[1]) if task == "multilabel" else ()
        return task, [str(label) for label in labels], [y.astype("float32") for y in parts]
    if y.ndim == 2:
        names, parts = np.arange(y.shape[1]), [y.argmax(axis=1) for y in parts]
    else:
        names = np.unique(y)
        parts = [np.searchsorted(names, part) for part in parts]
    if len(names) < 2:
        raise ValueError(f"`y` must have two or more classes. Received: {names.tolist()}")
    if names.dtype.kind == "S":
        names = np.char.decode(names)
    return task, [str(int(name)) if y.dtype.kind == "f" else str(name) for name in names], parts


def _counts(values):
    """Whether floating point numbers are those of classes: 0, 1, 2, ..., or two values."""
    return len(values) == 2 or (values[0] in (0, 1) and np.ptp(values) == len(values) - 1)
