"""Images and their labels, to search with: of scikit-learn, a folder or an `.npz` file."""

import pathlib
import typing
import warnings

import numpy as np

from keras_resblocks.cli.data import arrays, pictures, splits
from keras_resblocks.cli.data.batches import IN_MEMORY, Batches, Images
from keras_resblocks.types import FilePath

__all__ = ["Batches", "Data", "Images", "load"]


class Data(typing.NamedTuple):
    """Images, with the channels last, and their labels: what `load` returns.

    Attributes:
        x: the images to train with, float32 of shape `(n, *spatial, channels)`: an array, or
            `Images`, which are read when they are indexed, where an array would take more than
            half a gibibyte.
        y: their class numbers 0, 1, ... of shape `(n,)`; for `"multilabel"` zeros and ones of
            shape `(n, labels)`; for `"regression"` float32, `(n,)` or `(n, outputs)`.
        x_val: as `x`, to validate with.
        y_val: as `y`.
        x_test: as `x`, to test with.
        y_test: as `y`.
        classes: the names of the classes or labels, a list; empty for regression.
        task: `"classification"`, `"multilabel"` or `"regression"`.
        record: what tells these data from others, for `load(known=...)`; JSON can hold it.
        divisor: what scaled the images: 255 or 65535 for integers, 1 for floating point numbers.
        background: the gray, 0 to 255, that was put below transparent pictures.

    Examples:
        >>> from keras_resblocks.cli.data import load
        >>> data = load("digits")
        >>> print(data.described())
        1797 images, 10 classes (0 178, 1 182, 2 177, 3 183, 4 181, 5 182, and 4 more)
        8 x 8 pixels, 1 channel; train 1079, val 359, test 359
    """

    x: np.ndarray | Images
    y: np.ndarray
    x_val: np.ndarray | Images
    y_val: np.ndarray
    x_test: np.ndarray | Images
    y_test: np.ndarray
    classes: list[str]
    task: str
    record: dict
    divisor: int
    background: int

    @property
    def outputs(self) -> int:
        """The number of outputs of a network for these data."""
        return len(self.classes) or (self.y.shape[1] if self.y.ndim > 1 else 1)

    @property
    def counts(self) -> np.ndarray:
        """The number of images of each class, of all parts together."""
        y = np.concatenate([self.y, self.y_val, self.y_test])
        is_each = y.ndim == 1  # else zeros and ones
        return np.bincount(y, minlength=len(self.classes)) if is_each else y.sum(0).astype(int)

    def described(self) -> str:
        """What the data are, in two lines.

        Returns:
            The text: images, classes, pixels, channels and sizes of the parts.
        """
        sizes = [len(y) for y in (self.y, self.y_val, self.y_test)]
        *size, channels = self.x.shape[1:]
        what = f"numbers for {self.task}"
        if self.classes:
            names = map("{} {}".format, self.classes, self.counts)
            kind = "labels" if self.task == "multilabel" else "classes"
            what = f"{len(self.classes)} {kind} ({splits.listed(names, 6)})"
        return (
            f"{sum(sizes)} images, {what}\n"
            f"{' x '.join(map(str, size))} pixels, {channels} channel{'s' * (channels > 1)}; "
            "train {}, val {}, test {}".format(*sizes)
        )


def load(
    source: FilePath,
    *,
    size: int | None = None,
    grayscale: bool = False,
    seed: int = 0,
    task: str | None = None,
    known: dict | None = None,
    say: typing.Callable = warnings.warn,
) -> Data:
    """The data to train, validate and test with, as the command line reads them.

    Args:
        source: `"digits"`, scikit-learn's; a folder with a folder of pictures for each class, or
            with such folders in `train`, `val` and `test`; or an `.npz` file with the arrays `x`
            and `y`, or `x_train`, `y_train`, `x_val`, ... Parts that are missing are split off,
            a fifth of all images each, stratified.
        size: pixels to resize pictures of a folder to; by default 32, 48, 64, 96 or 128, the
            largest that most of them have.
        grayscale: whether to read pictures of a folder as grayscale even if not all of them are.
        seed: of the splits.
        task: `"classification"`, `"multilabel"` or `"regression"`; by default what the labels of
            arrays look like: floating point numbers are for regression, unless they count the
            classes.
        known: the `record` of data that these must equal; their split is used again.
        say: function that is called with each sentence about what was left out or decided.

    Returns:
        A `Data`.

    Raises:
        ValueError: for anything that is none of these; the message says what is missing.

    Examples:
        >>> from keras_resblocks.cli.data import load
        >>> data = load("digits", seed=1)  # or a folder of pictures, or an .npz file
        >>> data.x.shape, data.x_val.shape, data.x_test.shape
        ((1079, 8, 8, 1), (359, 8, 8, 1), (359, 8, 8, 1))
    """
    is_folder = source != "digits" and not str(source).lower().endswith(".npz")
    if is_folder and task not in (None, "classification"):
        raise ValueError(f"`task` must be classification for a folder. Received: {task!r}")
    if not is_folder and (size is not None or grayscale):
        raise ValueError(f"`--size` and `--grayscale` are for a folder. Received: {source}")
    if is_folder:
        found = pictures.read(pathlib.Path(source), size, grayscale, say)
    elif source == "digits":
        found = arrays.digits()
    else:
        found = arrays.read(pathlib.Path(source), task, say)
    record = {"contents": found.contents, "classes": found.classes, "task": found.task}
    record["shape"] = list(found.shape)
    x, y = found.parts["train"]
    if known is None:
        missing = [part for part in splits.PARTS if part not in found.parts]
        names = found.classes if found.task == "classification" else []
        split = splits.draw(y, missing, names, seed, say)
    else:
        splits.check_same(record, known)
        split = np.array([*known["split"]], int)
    record["split"] = "".join(map(str, split))
    count = sum(len(labels) for _, labels in found.parts.values())
    is_small = 8 * count * np.prod(found.shape) <= IN_MEMORY
    result = []
    for number, part in enumerate(splits.PARTS):
        rows = np.flatnonzero(split == number)
        images, labels = x, y
        if number and part in found.parts:
            images, labels = found.parts[part]
            rows = np.arange(len(labels))
        images = Images(images, rows, found)
        result += [images[:] if is_small or found.divisor == 1 else images, labels[rows]]
    about = (found.classes, found.task, record, found.divisor, found.background)
    return Data._make([*result, *about])
