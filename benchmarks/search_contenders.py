"""What `search_against_stock.py` runs, each in a process of its own."""

import signal
import statistics
import time

import keras
import keras_tuner
import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

from benchmarks.contenders.flat_network import flat_network
from keras_resblocks import tuner as search

MAX_PARAMS = 100_000
BATCH_SIZE = 32
SPACE = dict(widths=(4, 8, 16, 32, 64), depths=(1, 2, 3, 4))  # most of it above MAX_PARAMS


def best(contender, setting, seed, seconds, epochs, folder):
    """What a contender finds within some time."""
    train, validation, (x_test, y_test) = digits(setting, seed)
    if contender == "hyperresnet":  # learns from one-hot labels
        train, validation = ((x, keras.utils.to_categorical(y)) for x, y in (train, validation))
    keras.utils.set_random_seed(seed)
    found, clock, searches = Best(), Alarm(seconds), []
    while clock.left > 0:
        options = dict(seed=1000 * seed + len(searches), directory=folder)
        tuner = MAKE[contender](**options, project_name=str(len(searches)))
        searches.append(tuner.oracle)
        with clock:
            tuner.search(
                *train,
                validation_data=validation,
                epochs=epochs,
                batch_size=BATCH_SIZE,
                callbacks=[found],
                verbose=0,
            )
    return {
        **found.result(x_test, y_test),
        "started": sum(len(oracle.trials) for oracle in searches),
        "trained": found.trained,
    }


def hyperresnet(**options):
    """KerasTuner's own space, which knows no budget."""
    hypermodel = keras_tuner.applications.HyperResNet(input_shape=(8, 8, 1), classes=10)
    return keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=1000, **options)


def stock(**options):
    """Our space in KerasTuner, which builds a candidate and then finds it too large."""
    # Three failures in a row would end the search: to KerasTuner's favour they do not.
    return keras_tuner.RandomSearch(
        search.ResNetHyperModel((8, 8, 1), 10, **SPACE),
        "val_accuracy",
        max_trials=1000,
        max_model_size=MAX_PARAMS,
        max_consecutive_failed_trials=1000,
        **options,
    )


def ours(**options):
    """The same space within the budget."""
    hypermodel = search.ResNetHyperModel((8, 8, 1), 10, max_params=MAX_PARAMS, **SPACE)
    return search.RandomSearch(hypermodel, "val_accuracy", max_trials=1000, **options)


MAKE = {"hyperresnet": hyperresnet, "stock": stock, "ours": ours}


def overhead(contender, pixels, trials, epochs, folder):
    """The wall time of a search, and how much of it is in training steps."""
    tuner_class = search.GridSearch if contender == "ours" else keras_tuner.GridSearch
    make = build_function if contender == "plain" else hypermodel_of_8
    hypermodel = make((pixels, pixels, 1))
    tuner = tuner_class(hypermodel, "val_accuracy", max_trials=trials, directory=folder, seed=0)
    (x, y), (x_val, y_val), _ = digits("all", 0)
    x, x_val = enlarged(x, pixels), enlarged(x_val, pixels)
    steps = Steps()
    began = time.monotonic()
    tuner.search(
        x,
        y,
        validation_data=(x_val, y_val),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        callbacks=[steps],
        verbose=0,
    )
    wall = time.monotonic() - began
    return {"wall": wall, "steps": steps.total(), "trials": len(steps.trials)}


def hypermodel_of_8(shape):
    """Our hypermodel of eight candidates."""
    return search.ResNetHyperModel(
        shape,
        10,
        depths=(1, 2),
        widths=(8, 16),
        per_stage=(),
        activations="relu",
        regularizers=0.0,
        learning_rates=1e-3,
    )


def build_function(shape):
    """The same eight, as one writes them for KerasTuner without anything of ours."""

    def build(hp):
        model = flat_network(
            shape,
            10,
            hp.Choice("block", ["residual", "bottleneck"]),
            depths=(hp.Choice("depth", [1, 2]),) * 3,
            width=hp.Choice("width", [8, 16]),
        )
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    return build


def digits(setting, seed):
    """Images and labels to train, to validate and to test with, split by the seed."""
    x, y = datasets.load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32") / 16
    if setting == "few":
        x = shifted(x, np.random.default_rng(seed))
    split = dict(test_size=0.2, random_state=seed)
    x, x_test, y, y_test = train_test_split(x, y, stratify=y, **split)
    x, x_val, y, y_val = train_test_split(x, y, stratify=y, **split)
    if setting == "few":
        x, _, y, _ = train_test_split(x, y, stratify=y, train_size=200, random_state=seed)
    return (x, y), (x_val, y_val), (x_test, y_test)


def enlarged(x, pixels):
    """Images of 8 pixels with a multiple of these."""
    return x.repeat(pixels // 8, axis=1).repeat(pixels // 8, axis=2)


def shifted(x, rng):
    """The images, each moved by up to one pixel in each direction."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = rng.integers(0, 3, size=(len(x), 2))
    return np.stack([image[i : i + 8, j : j + 8] for image, (i, j) in zip(padded, corners)])


class TimeOverError(BaseException):
    """Raised wherever the search is; not an Exception, which KerasTuner would catch."""


class Alarm:
    """A context manager that is left when its time is over, and keeps what is left of it."""

    def __init__(self, seconds):
        self.left = seconds

    def __enter__(self):
        def ring(*_):
            raise TimeOverError

        self._began = time.monotonic()
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, self.left, 1.0)  # again, where it went unheard

    def __exit__(self, error, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.left -= time.monotonic() - self._began
        return error is TimeOverError


class _Shared(keras.callbacks.Callback):
    """A callback of all trials, of which KerasTuner makes no copies."""

    def __deepcopy__(self, memo):
        return self


class Best(_Shared):
    """Keeps the best model by validation accuracy, and counts the trials that had an epoch."""

    def __init__(self):
        super().__init__()
        self.best = (-1.0, None, None)  # in one piece: the alarm may ring at any moment
        self.trained = 0

    def on_epoch_end(self, epoch, logs=None):
        self.trained += epoch == 0
        if logs["val_accuracy"] > self.best[0]:
            self.best = (logs["val_accuracy"], self.model, self.model.get_weights())

    def result(self, x, y):
        """The accuracy of the best model and its number of parameters; 0 where there is none."""
        _, model, weights = self.best
        if model is None:
            return {"accuracy": 0.0, "parameters": 0}
        model.set_weights(weights)
        hits = model.predict(x, verbose=0).argmax(axis=1) == y
        return {"accuracy": float(hits.mean()), "parameters": model.count_params()}


class Steps(_Shared):
    """Takes the time of the training steps: of each epoch up to its validation."""

    def __init__(self):
        super().__init__()
        self.trials = []  # the seconds of each epoch

    def on_train_begin(self, logs=None):
        self.trials.append([])

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_test_begin(self, logs=None):
        np.asarray(self.model.optimizer.iterations)  # waits for the last step
        self.trials[-1].append(time.monotonic() - self._began)

    def total(self):
        """The seconds in steps; a first epoch, which compiles, counts as the others' median."""
        return sum(
            min(first, statistics.median(others or [first])) + sum(others)
            for first, *others in self.trials
        )
