"""Images and their classes, to search with: of scikit-learn, a folder or an `.npz` file."""

import pathlib
import typing
import zipfile

import keras
import numpy as np

SHARE = 0.2  # of all images, for the validation and for the test each


class Data(typing.NamedTuple):
    """Images, float32 of shape `(n, *spatial, channels)`, and their classes 0, 1, ..."""

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def classes(self):
        """The number of classes."""
        return 1 + int(max(y.max() for y in (self.y, self.y_val, self.y_test)))


def load(source, *, size=None, grayscale=False, seed=0):
    """The data to train, validate and test with.

    Args:
        source: `"digits"`, for scikit-learn's; the path of a folder with a folder of images for
            each class; or that of an `.npz` file with the arrays `x` and `y`, and perhaps
            `x_val` and `y_val`, `x_test` and `y_test`. What is missing is split off, a fifth of
            all images each, stratified.
        size: pixels to resize the images of a folder to; by default 32.
        grayscale: whether to read the images of a folder as grayscale; they are anyway if all
            of them are.
        seed: of the splits.

    Raises:
        ValueError: for anything that is none of these; the message says what is missing.
    """
    if source == "digits" or str(source).endswith(".npz"):
        if size is not None or grayscale:
            raise ValueError(f"`--size` and `--grayscale` are for a folder. Received: {source}")
        arrays = _digits() if source == "digits" else _npz(pathlib.Path(source))
    else:
        arrays = _folder(pathlib.Path(source), size or 32, grayscale)
    return _split(arrays, seed)


def _digits():
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    return {"x": x.reshape(-1, 8, 8, 1).astype("float32") / 16, "y": y}


def _folder(folder, size, grayscale):
    from PIL import Image

    if not folder.is_dir():
        raise ValueError(
            "`DATA` must be digits, a folder with a folder of images for each class, or an .npz "
            f"file. Received: {folder}, which does not exist or is another kind of file"
        )
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    names = sorted({path.parent.name for path in files})
    if len(names) < 2:
        raise ValueError(
            "`DATA` must hold a folder of images for each of two or more classes. "
            f"Received: {folder}, with images in {', '.join(names) or 'no folder'}"
        )
    modes = set()
    for path in files:
        try:
            with Image.open(path) as image:
                modes.add(image.mode)
        except OSError:
            raise ValueError(f"`DATA` must hold images alone. Received: {path}") from None
        if image.mode[0] in "IF":
            raise ValueError(
                f"`DATA` must hold images of 8 bits a channel. Received: {path} ({image.mode})"
            )
    color_mode = "grayscale" if grayscale or modes <= {"1", "L", "LA"} else "rgb"

    def read(path):
        try:
            return keras.utils.load_img(path, color_mode=color_mode, target_size=(size, size))
        except OSError as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    x = np.stack([np.asarray(read(path), "uint8") for path in files])
    return {"x": _images("x", x), "y": np.array([names.index(path.parent.name) for path in files])}


def _npz(path):
    if not path.is_file():
        raise ValueError(f"`DATA` must be a file that exists. Received: {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be an .npz file of plain arrays ({error})") from None
    wanted = {"x", "y"}
    for part in ("val", "test"):
        pair = {f"x_{part}", f"y_{part}"}
        wanted |= pair if pair & arrays.keys() else set()
    if wanted - arrays.keys():
        raise ValueError(
            f"{path} must hold the arrays {', '.join(sorted(wanted))}. Missing: "
            f"{', '.join(sorted(wanted - arrays.keys()))}. It holds: {', '.join(arrays) or 'none'}"
        )
    images = {name: _images(name, arrays[name]) for name in sorted(wanted) if name[0] == "x"}
    for name, x in images.items():
        y = arrays[_labels_of(name)] = np.squeeze(arrays[_labels_of(name)])
        if y.shape != (len(x),) or y.dtype.kind not in "iuUSb":
            raise ValueError(
                f"`{_labels_of(name)}` must be the class of each of the {len(x)} images of "
                f"`{name}`, a number or a name. Received: shape {y.shape} and dtype {y.dtype}"
            )
        if x.shape[1:] != images["x"].shape[1:]:
            raise ValueError(
                f"`{name}` must have images like those of `x`. "
                f"Received: shapes {x.shape} and {images['x'].shape}"
            )
    names = np.unique(np.concatenate([arrays[_labels_of(name)] for name in images]))
    if len(names) < 2:
        raise ValueError(f"`y` must have two or more classes. Received: {names.tolist()}")
    labels = {_labels_of(x): np.searchsorted(names, arrays[_labels_of(x)]) for x in images}
    return {**images, **labels}


def _labels_of(name):
    return name.replace("x", "y", 1)


def _images(name, x):
    """Images as float32, with an axis for the channels; 8-bit ones scaled to [0, 1]."""
    if x.ndim not in (3, 4, 5) or (x.dtype.kind != "f" and x.dtype != np.uint8):
        raise ValueError(
            f"`{name}` must be images, (n, height, width) or (n, height, width, channels), as "
            f"uint8 or as floating point. Received: shape {x.shape} and dtype {x.dtype}"
        )
    x = x.astype("float32") / (255 if x.dtype == np.uint8 else 1)
    if not np.isfinite(x).all():
        raise ValueError(f"`{name}` must be finite. Received: {(~np.isfinite(x)).sum()} others")
    return x[..., None] if x.ndim == 3 else x


def _split(arrays, seed):
    """The data with what is missing split off."""
    from sklearn.model_selection import train_test_split

    parts, count = dict(arrays), len(arrays["x"])
    for part in ("test", "val"):
        if f"x_{part}" not in parts:
            try:
                parts["x"], parts[f"x_{part}"], parts["y"], parts[f"y_{part}"] = train_test_split(
                    parts["x"],
                    parts["y"],
                    test_size=round(SHARE * count),
                    stratify=parts["y"],
                    random_state=seed,
                )
            except ValueError as error:
                raise ValueError(f"There are too few images to split: {error}") from None
    return Data(**parts)
