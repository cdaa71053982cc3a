"""Batches of arrays that cost less to make than Keras's own, and less to compile for."""

import keras
import numpy as np

from keras_resblocks.tuner.compilation import is_on_tensorflow_cpu

# Of `fit`: what has to do with single samples, or with their number.
_UNKNOWN = {"sample_weight", "validation_split", "steps_per_epoch", "validation_steps"}


def even_batch_size(samples, batch_size):
    """The largest batch size of no more than that and at least half which leaves no remainder.

    A last batch of another size would be compiled for itself. The size given if there is none.
    """
    sizes = range(batch_size, batch_size // 2, -1)
    return next((size for size in sizes if samples % size == 0), batch_size)


def for_fit(args, kwargs, batch_size):
    """The arguments for `fit` with other batches of the same arrays.

    - On a TensorFlow CPU, the arrays become datasets that need no thread. Keras's begin and end
      several for each epoch and each validation, 0.05 to 0.1 s in all.
    - On JAX, an epoch that would end with a smaller batch becomes `FullBatches`: that one is
      compiled for itself, which takes as long again.

    On another device, and with arguments that these do not know, all stays as it is.
    """
    if len(args) > 2 or _UNKNOWN & set(kwargs):
        return args, kwargs
    names = ("x", "y")[len(args) :]
    x, y = (*args, *(kwargs.get(name) for name in names))
    if not _are_samples((x, y)):
        return args, kwargs
    shuffle = kwargs.get("shuffle", True)
    others = {key: value for key, value in kwargs.items() if key not in ("x", "y", "batch_size")}
    others["shuffle"] = False  # which would be of the batches
    if keras.backend.backend() == "jax" and len(x) > batch_size and len(x) % batch_size:
        return (FullBatches(x, y, batch_size, shuffle),), others
    if is_on_tensorflow_cpu():
        validation = others.get("validation_data")
        if _are_samples(validation):
            size = others.pop("validation_batch_size", None) or batch_size
            others["validation_data"] = threadless(*validation, size, shuffle=False)
        return (threadless(x, y, batch_size, shuffle),), others
    return args, kwargs


def _are_samples(data):
    """Whether this is a pair of arrays, of as many images as labels."""
    is_pair = isinstance(data, tuple) and len(data) == 2
    if not (is_pair and all(isinstance(part, np.ndarray) for part in data)):
        return False
    x, y = data
    return len(x) == len(y)


class FullBatches(keras.utils.PyDataset):
    """Arrays in batches of one size; the last of an epoch is filled up with its first samples.

    Args:
        x, y: arrays.
        batch_size: no more than there are samples.
        shuffle: whether each epoch has an order of its own.
    """

    def __init__(self, x, y, batch_size, shuffle=True):
        super().__init__(max_queue_size=0)  # a thread would draw the orders at its own time
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.shuffle = shuffle
        self._order = np.arange(len(x))
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __getitem__(self, index):
        begin = index * self.batch_size
        rows = self._order.take(range(begin, begin + self.batch_size), mode="wrap")
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        if self.shuffle:
            np.random.shuffle(self._order)  # which `keras.utils.set_random_seed` governs


def threadless(x, y, batch_size, shuffle):
    """A `tf.data.Dataset` of batches of arrays, each gathered when it is asked for."""
    import tensorflow as tf  # as it is only there

    x, y = (tf.constant(array, _dtype_in_keras(array)) for array in (x, y))
    rows = tf.data.Dataset.range(len(x))
    if shuffle:  # each epoch anew
        rows = rows.shuffle(len(x))
    batches = rows.batch(batch_size).map(lambda rows: (tf.gather(x, rows), tf.gather(y, rows)))
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.threading.max_intra_op_parallelism = 1
    return batches.with_options(options)


def _dtype_in_keras(array):
    return keras.config.floatx() if np.issubdtype(array.dtype, np.floating) else array.dtype
