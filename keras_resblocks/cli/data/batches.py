"""Images that do not fit in memory as floating point numbers, in batches."""

import concurrent.futures
import math
import os
import typing
from collections.abc import Sequence

import keras
import numpy as np

IN_MEMORY = 2**29  # bytes of images that are kept as integers; as float32 half of it


class Found(typing.NamedTuple):
    """What a source of data has."""

    parts: dict  # by "train", "val" and "test": arrays or paths of images, and labels
    shape: tuple  # of an image
    classes: list
    task: str
    divisor: int  # scales the images to [0, 1]
    contents: dict  # a text for each file or array, that changes with its content
    read: typing.Callable | None = None  # of a path
    background: int = 255  # the gray below transparent pictures


class Images:
    """Images that are read and scaled when they are indexed, as an array is: `images[3:5]`.

    `load` makes them where an array would not fit in memory.

    Args:
        source: a sequence of arrays or paths.
        rows: an array of the numbers of those that count.
        found: where they come from.

    Examples:
        >>> from keras_resblocks.cli.data import load
        >>> data = load("photos/")  # needs: pictures
        >>> data.x.shape, data.x[:2].dtype
    """

    def __init__(
        self,
        source: Sequence[typing.Any],
        rows: np.ndarray,
        found: Found,
    ) -> None:
        self.source, self.rows = source, rows
        self.divisor, self.read = found.divisor, found.read
        self.shape = (len(rows), *found.shape)
        self.dtype = np.dtype("float32")

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        rows = self.rows[index]
        images = np.empty((np.size(rows), *self.shape[1:]), self.dtype)
        for image, row in zip(images, np.atleast_1d(rows)):
            image[...] = self.read(self.source[row]) if self.read else self.source[row]
        images /= self.divisor
        return images if np.ndim(rows) else images[0]


class Batches(keras.utils.PyDataset):
    """Batches of `Images` and their labels, prepared by threads, for Keras's `fit`.

    Args:
        x: `Images`, or an array.
        y: their labels.
        batch_size: images in a batch.
        seed: of the order, another one in each epoch; None to keep that of `x`.

    Examples:
        >>> from keras_resblocks.cli.data import Batches, load
        >>> data = load("digits")
        >>> batches = Batches(data.x, data.y, batch_size=32, seed=0)
        >>> len(batches), batches[0][0].shape
        (34, (32, 8, 8, 1))
    """

    def __init__(
        self, x: Images | np.ndarray, y: np.ndarray, batch_size: int, seed: int | None = None
    ) -> None:
        super().__init__(workers=os.cpu_count() or 1)
        self.x, self.y, self.batch_size = x, y, batch_size
        self._order = np.arange(len(y))
        self._random = None if seed is None else np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return math.ceil(len(self.y) / self.batch_size)

    def __getitem__(self, number):
        rows = self._order[number * self.batch_size :][: self.batch_size]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self) -> None:
        """Changes the order."""
        if self._random is not None:
            self._order = self._random.permutation(len(self.y))


def parallel(function, items):
    """The results of a function for each item, in their order, by threads."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(function, items))
