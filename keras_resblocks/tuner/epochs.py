"""What a trial keeps of its epochs: a record for reports, and a backup to go on from."""

import hashlib
import pathlib
import shutil
import time

import keras
import keras_tuner

from keras_resblocks import json_files
from keras_resblocks.tuner.base import TrainingHyperModel

# Callbacks with a state that a backup does not hold.
_STATEFUL = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.BackupAndRestore,
    keras.callbacks.SwapEMAWeights,
)


def is_one_fit(hypermodel):
    """Whether a hypermodel is known to train with one `fit`, as KerasTuner's and ours do."""
    return type(hypermodel).fit in (keras_tuner.HyperModel.fit, TrainingHyperModel.fit)


def are_stateless(callbacks):
    """Whether training goes on from a backup as if it had never ended."""
    return not any(isinstance(callback, _STATEFUL) for callback in callbacks)


class Record(keras.callbacks.Callback):
    """Keeps the metrics of each epoch and the time of a training; the last one if it has several.

    Args:
        objective: a `keras_tuner.Objective` that every epoch must measure, or None.
        validation_freq: as in `fit`.
    """

    def __init__(self, objective=None, validation_freq=1):
        super().__init__()
        self.objective = objective
        self.validation_freq = validation_freq
        self.history, self.seconds = {}, 0.0

    def on_train_begin(self, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if self.objective is not None:
            check_measured(self.objective, logs or {}, self.validation_freq)

    def on_train_end(self, logs=None):
        self.history = dict(self.model.history.history)
        self.seconds += time.monotonic() - self._began


def check_measured(objective, logs, validation_freq=1):
    """Raises where the metrics of an epoch lack the objective."""
    is_unvalidated = not any(name.startswith("val_") for name in logs)
    if objective.has_value(logs) or (validation_freq != 1 and is_unvalidated):
        return
    hint = " Validation data is missing." if is_unvalidated else ""
    raise keras_tuner.errors.FatalValueError(
        f"`objective` must be one of what the training measures: {', '.join(sorted(logs))}.{hint} "
        f"Received: objective={objective.name!r}"
    )


class Backup(keras.callbacks.Callback):
    """`keras.callbacks.BackupAndRestore` for a trial, safe against a kill at any moment.

    Keras's writes weights and epoch in place, one after the other, and knows neither the metrics
    of earlier epochs nor the best one. Here each epoch has a folder of its own, and
    `training.json`, replaced as a whole, says which one counts. The last of the callbacks.

    Args:
        folder: of the backup.
        checkpoint: the callback that saves the best epoch, with `best_value` and `filepath`; or
            None.
    """

    def __init__(self, folder, checkpoint=None):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.checkpoint = checkpoint
        self._trainings = 0
        self._history = {}
        self._best = self._digest = None

    def on_train_begin(self, logs=None):
        self._trainings += 1
        state = json_files.read(self.folder / "training.json")
        fits = state and self.model.built and state["best_file"] == self._best_file()
        # Of several trainings, there is no telling which of them a backup would be of.
        if self._trainings > 1 or not fits:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._best = self.checkpoint and self.checkpoint.best_value
            return
        self._backup(state["epoch"], self.model).on_train_begin()
        self._history = state["history"]
        self.model.history.history.update({k: [*v] for k, v in self._history.items()})
        if self.checkpoint:
            self.checkpoint.best_value = self._best = state["best"]
            self._digest = state["best_file"]

    def on_epoch_end(self, epoch, logs=None):
        if self._trainings > 1:
            return
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(value)
        saved, best = self.model, self.checkpoint and self.checkpoint.best_value
        if best != self._best:
            self._best, self._digest = best, self._best_file()
            saved = _Saved(self.checkpoint.filepath)
        self._backup(epoch + 1, saved).on_epoch_end(epoch, logs)
        state = {"history": self._history, "best": best, "best_file": self._digest}
        json_files.write(self.folder / "training.json", {"epoch": epoch + 1, **state})
        for path in self.folder.glob("epoch_*"):
            if path.name != f"epoch_{epoch + 1}":
                shutil.rmtree(path)

    def _backup(self, epoch, model):
        backup = keras.callbacks.BackupAndRestore(self.folder / f"epoch_{epoch}")
        backup.set_model(model)
        return backup

    def _best_file(self):
        """What tells the file of the best epoch from one that was written later."""
        path = self.checkpoint and pathlib.Path(self.checkpoint.filepath)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path and path.exists() else None


class _Saved:
    """A model of which these weights were saved just now: to copy them is ten times as fast."""

    def __init__(self, path):
        self.path = path

    def save_weights(self, filepath, overwrite=True):
        shutil.copyfile(self.path, filepath)
