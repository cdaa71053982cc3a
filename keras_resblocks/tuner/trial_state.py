"""The training of a trial, on disk: to take it up after its last epoch, and its best weights."""

import collections
import json
import math
import os
import pathlib
import shutil
import time
import warnings
import zipfile

import keras
import numpy as np


class TrialState:
    """How far the training of a trial is.

    After each epoch the weights and the optimizer's state are written to `last.npz`, as a whole
    or not at all, and where they are the best so far to `best.npz`; only at the end of the
    training do the best become KerasTuner's `checkpoint.weights.h5`, which is slower to write.

    Args:
        folder: of the trial.
        objective: the `keras_tuner.Objective`.

    Attributes:
        results: of the executions that are over, as `HyperModel.fit` returned them.
        history: of the execution that is under way: each metric's value for every epoch.
        seconds: spent in epochs, over all executions.
    """

    def __init__(self, folder, objective):
        self.folder = pathlib.Path(folder)
        self.objective = objective
        self.results = []
        self.history = {}
        self.epoch = 0
        self.best = None
        self.seconds = 0.0
        self.is_resumable = True

    last_path = property(lambda self: self.folder / "last.npz")
    best_path = property(lambda self: self.folder / self.best["file"])

    def load(self):
        """Reads what an interrupted training left, if anything."""
        if not self.last_path.exists():
            return
        try:
            with np.load(self.last_path) as arrays:
                progress = json.loads(str(arrays["progress"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            warnings.warn(
                f"{str(self.last_path)!r} is damaged ({error}); its trial begins anew.",
                stacklevel=2,
            )
            self.remove()
            return
        if not progress["is_resumable"]:
            self.remove()
            return
        progress["results"] = [
            _history(**result) if isinstance(result, dict) and "epoch" in result else result
            for result in progress["results"]
        ]
        vars(self).update(progress)

    def restore(self, model, path=None):
        """Gives a model the weights and the optimizer's state in a file, by default the last."""
        path = path or self.last_path
        variables = _variables(model)
        with np.load(path) as arrays:
            values = _unpacked({name: arrays[name] for name in arrays.files})
        if [value.shape for value in values] != [tuple(v.shape) for v in variables]:
            raise ValueError(
                f"{str(path)!r} must fit the model that its trial builds, whose hypermodel has "
                "changed. Begin anew with another `project_name` or with `overwrite=True`."
            )
        for variable, value in zip(variables, values):
            variable.assign(value)

    def end_epoch(self, model, epoch, logs, seconds):
        """Writes down an epoch that is over."""
        self.epoch = epoch + 1
        self.seconds += seconds
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        if self._is_best(logs):
            value = None
            if self.objective.has_value(logs):
                value = float(self.objective.get_value(logs))
            # Named by its epoch, so that a kill between the two files leaves the old pair.
            self.best = {"value": value, "file": f"best_{len(self.results)}_{self.epoch}.npz"}
            self._write(model, self.best_path, self.last_path)
        else:
            self._write(model, self.last_path)
        self._remove_but(self.best_path, self.last_path)

    def end_execution(self, result):
        """Writes down the result of an execution that is over; the next one begins."""
        if isinstance(result, keras.callbacks.History):
            result = _history(self.history, list(range(self.epoch)))
        self.results.append(result)
        self.history, self.epoch = {}, 0

    def save_best(self, model, path):
        """Saves the best weights as Keras does, and leaves the model as it is."""
        if self.best is None:
            return
        self.restore(model, self.best_path)
        model.save_weights(path)
        self.restore(model)

    def remove(self, keep_last=False):
        """Removes what only an interrupted training needs."""
        self._remove_but(self.last_path if keep_last else None)

    def _is_best(self, logs):
        is_first = self.best is None or self.best["value"] is None
        if is_first or math.isnan(self.best["value"]) or not self.objective.has_value(logs):
            return True
        return self.objective.better_than(self.objective.get_value(logs), self.best["value"])

    def _write(self, model, *paths):
        progress = {
            name: value for name, value in vars(self).items() if name not in ("folder", "objective")
        }
        half_written = self.last_path.with_suffix(".tmp")
        with open(half_written, "wb") as file:
            text = np.array(json.dumps(progress, default=_plain))
            np.savez(file, progress=text, **_packed(map(_array, _variables(model))))
        *others, last = paths
        for path in others:
            shutil.copyfile(half_written, path)
        os.replace(half_written, last)

    def _remove_but(self, *kept):
        for path in (*self.folder.glob("best_*.npz"), self.last_path, *self.folder.glob("*.tmp")):
            if path not in kept:
                path.unlink(missing_ok=True)


class Restorer(keras.callbacks.Callback):
    """Gives a model the state that its training goes on from; the first of the callbacks.

    Args:
        state: the `TrialState`.
        start: path of a state to begin the first epoch with, as Hyperband's next round does.
    """

    def __init__(self, state, start):
        super().__init__()
        self.state = state
        self.start = start
        self._trainings = 0

    def on_train_begin(self, logs=None):
        self._trainings += 1
        if self._trainings > 1:  # the hypermodel fits in phases: there is no telling which one
            self.state.is_resumable = False
        elif self.state.epoch:
            self.state.restore(self.model)
        elif self.start:
            self.state.restore(self.model, self.start)


class Recorder(keras.callbacks.Callback):
    """Calls the tuner's hooks and keeps the state; the last of the callbacks.

    Args:
        tuner: whose `on_epoch_begin(trial, model, epoch)` and the like are called.
        trial: the KerasTuner trial.
        state: its `TrialState`.
        checkpoint: path of the best weights to save in the end.
    """

    def __init__(self, tuner, trial, state, checkpoint):
        super().__init__()
        self.tuner = tuner
        self.trial = trial
        self.state = state
        self.checkpoint = checkpoint
        self._began = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()
        self.tuner.on_epoch_begin(self.trial, self.model, epoch, logs=logs)

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self._began
        self.state.end_epoch(self.model, epoch, logs or {}, seconds)
        self.tuner.on_epoch_end(self.trial, self.model, epoch, logs=logs)

    def on_train_end(self, logs=None):
        self.state.save_best(self.model, self.checkpoint)


class BatchRecorder(Recorder):
    """The same for a tuner that has hooks for batches, which make Keras wait for each batch."""

    def on_train_batch_begin(self, batch, logs=None):
        self.tuner.on_batch_begin(self.trial, self.model, batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.tuner.on_batch_end(self.trial, self.model, batch, logs=logs)


def _variables(model):
    """The variables of a model and of its optimizer, which is built for it."""
    optimizer = model.optimizer
    if optimizer is None:
        return model.variables
    optimizer.build(model.trainable_variables)
    return [*model.variables, *optimizer.variables]


def _array(variable):
    array = keras.ops.convert_to_numpy(variable)
    return array if array.dtype.kind in "biuf" else array.astype("float32")  # bfloat16


def _packed(arrays):
    """Arrays by name for one file: many small ones take long to write, a large one does not."""
    arrays = list(arrays)
    kinds = sorted({array.dtype.name for array in arrays})
    return {
        "shapes": np.array(json.dumps([(array.dtype.name, array.shape) for array in arrays])),
        **{
            kind: np.concatenate([array.ravel() for array in arrays if array.dtype.name == kind])
            for kind in kinds
        },
    }


def _unpacked(packed):
    """The arrays that were packed."""
    position, arrays = collections.Counter(), []
    for kind, shape in json.loads(str(packed["shapes"])):
        begin, size = position[kind], math.prod(shape)
        arrays.append(packed[kind][begin : begin + size].reshape(shape))
        position[kind] += size
    return arrays


def _history(history, epoch):
    """A result of `fit`, from its parts."""
    result = keras.callbacks.History()
    result.history, result.epoch = history, epoch
    return result


def _plain(result):
    """A result of an execution as JSON."""
    if isinstance(result, keras.callbacks.History):
        return {"history": result.history, "epoch": result.epoch}
    return float(result)
