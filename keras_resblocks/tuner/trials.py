"""One trial of a search by Optuna or Ray: a candidate is built, trained and scored."""

import copy
import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import TypeAlias

import keras
import keras_tuner

from keras_resblocks.tuner import epochs, memory
from keras_resblocks.tuner.base import TrainingHyperModel
from keras_resblocks.tuner.descriptions import describe
from keras_resblocks.tuner.seeding import seed_all

Objectives: TypeAlias = str | keras_tuner.Objective | Sequence[str | keras_tuner.Objective] | None
"""What a search optimizes: one or several, metrics by their names."""

# What a search can minimize beside the metrics of a training; the last one in all of a trial.
COSTS = ("params", "trainable_params", "macs", "activation_memory", "seconds")


class _Function(keras_tuner.HyperModel):
    """A hypermodel of a function that builds models."""

    def __init__(self, build):
        super().__init__()
        self.build = build


def hypermodel_of(hypermodel):
    """A `keras_tuner.HyperModel`, also of a function that builds models."""
    if isinstance(hypermodel, keras_tuner.HyperModel):
        return hypermodel
    if not callable(hypermodel):
        raise ValueError(
            "`hypermodel` must be a `keras_tuner.HyperModel` or a function that builds a model. "
            f"Received: hypermodel={hypermodel!r}"
        )
    return _Function(hypermodel)


def objectives_of(objective, hypermodel):
    """A list of `keras_tuner.Objective`; by default that of the hypermodel's task.

    Args:
        objective: None, the name of a metric or of one of `COSTS`, a `keras_tuner.Objective`, or
            a list of these.
        hypermodel: may have an `objective`.
    """
    if objective is None:
        objective = getattr(hypermodel, "objective", "val_accuracy")
    listed = objective if isinstance(objective, (list, tuple)) else [objective]
    objectives = []
    for one in listed:
        if isinstance(one, str):
            one = (
                keras_tuner.Objective(one, "min")
                if one in COSTS
                # KerasTuner tells the direction of a metric nowhere else in public.
                else keras_tuner.oracles.RandomSearchOracle(one).objective
            )
        objectives.append(one)
    metrics = [one for one in objectives if isinstance(one, keras_tuner.Objective)]
    if len(metrics) < len(objectives) or all(one.name in COSTS for one in metrics):
        raise ValueError(
            "`objective` must be the name of a metric or a `keras_tuner.Objective`, or a list with "
            f"at least one metric beside {', '.join(COSTS)}. Received: objective={objective!r}"
        )
    return objectives


class Trial:
    """Trains one candidate.

    Args:
        hypermodel: a `keras_tuner.HyperModel`.
        objectives: a list of `keras_tuner.Objective`. The first metric among them decides which
            epoch is the best.
        folder: where to keep a backup to go on from, and `best.weights.h5`; None for nowhere.
        on_epoch: called with each epoch, from 0, and the values of the objectives that it
            measured, by name.
        seed: of all that is drawn, None for none.
    """

    def __init__(self, hypermodel, objectives, folder=None, on_epoch=None, seed=None):
        self.hypermodel = hypermodel
        self.objectives = objectives
        self.metric = next(one for one in objectives if one.name not in COSTS)
        self.folder = folder and pathlib.Path(folder)
        self.on_epoch = on_epoch
        self.seed = seed

    def run(self, hp, *args, callbacks=(), **kwargs):
        """Builds and trains the candidate.

        Args:
            hp: its hyperparameters.
            *args, callbacks, **kwargs: for `fit`. The callbacks are copied.

        Returns:
            The values of the objectives, a list, and a dict with `cost`, `history`, `seconds`,
            `summary` and `objectives`.
        """
        began, held = time.monotonic(), memory.held()
        keras.utils.clear_session()
        try:
            if self.seed is not None:
                seed_all(self.seed)
            model = self.hypermodel.build(hp)
            is_plain = type(self.hypermodel).fit in (
                keras_tuner.HyperModel.fit,
                TrainingHyperModel.fit,
            )
            record = epochs.Record(
                self.metric if is_plain else None, kwargs.get("validation_freq", 1)
            )
            callbacks = copy.deepcopy(list(callbacks or ()))
            own = [record, *self._own_callbacks(is_plain and epochs.are_stateless(callbacks))]
            kwargs.setdefault("verbose", 0)
            results = self.hypermodel.fit(hp, model, *args, callbacks=[*callbacks, *own], **kwargs)
            described = describe(model)
        finally:
            memory.release(held)
        seconds = {"total": time.monotonic() - began, "training": record.seconds}
        objectives = [{"name": one.name, "direction": one.direction} for one in self.objectives]
        content = {
            "history": _plain(record.history),
            **described,
            "seconds": seconds,
            "objectives": objectives,
        }
        return self._values(results, content), content

    def _own_callbacks(self, goes_on):
        best = None
        if self.folder:
            best = _SaveBestEpoch(self.folder / "best.weights.h5", self.metric)
            yield best
        if self.folder and goes_on:
            yield epochs.Backup(self.folder / "backup", best)
        if self.on_epoch:
            yield _OnEpoch(self.objectives, self.on_epoch)

    def _values(self, results, content):
        costs = {**content["cost"], "seconds": content["seconds"]["total"]}
        best = _best_metrics(results, self.metric)
        values = [{**costs, **best}.get(one.name) for one in self.objectives]
        for one, value in zip(self.objectives, values):
            if value is None or math.isnan(value):
                raise keras_tuner.errors.FailedTrialError(f"`{one.name}` is not a number: {value}")
        return [float(value) for value in values]


def _best_metrics(results, objective):
    """The metrics of the best epoch in what `fit` returned; of several results their mean."""
    if isinstance(results, list):
        each = [_best_metrics(result, objective) for result in results]
        return {name: sum(one[name] for one in each) / len(each) for name in each[0]}
    if isinstance(results, keras.callbacks.History):
        results = results.history
    if not isinstance(results, dict):
        return {objective.name: float(results)}
    if objective.name not in results:
        epochs.check_measured(objective, results)
    curves = {name: v if isinstance(v, list) else [v] for name, v in _plain(results).items()}
    scores = curves[objective.name]
    known = [epoch for epoch, score in enumerate(scores) if not math.isnan(score)]
    choose = max if objective.direction == "max" else min
    best = choose(known, key=scores.__getitem__, default=0)
    return {name: curve[min(best, len(curve) - 1)] for name, curve in curves.items() if curve}


def _plain(curves):
    """Metrics as numbers; the mean of an array."""

    def number(value):
        return float(value.mean() if hasattr(value, "mean") else value)

    return {
        name: [number(v) for v in values] if isinstance(values, list) else number(values)
        for name, values in curves.items()
    }


class _OnEpoch(keras.callbacks.Callback):
    def __init__(self, objectives, report):
        super().__init__()
        self.objectives = objectives
        self.report = report

    def on_epoch_end(self, epoch, logs=None):
        logs = _plain(logs or {})
        self.report(epoch, {o.name: logs[o.name] for o in self.objectives if o.name in logs})


class _SaveBestEpoch(keras.callbacks.Callback):
    """Saves the weights of the best epoch, as a whole.

    Attributes:
        best_value: of the objective; None before the first epoch.
        filepath: of the weights.
    """

    def __init__(self, filepath, objective):
        super().__init__()
        self.filepath = filepath
        self.objective = objective
        self.best_value = None

    def on_epoch_end(self, epoch, logs=None):
        value = _plain(logs or {}).get(self.objective.name)
        if value is None or math.isnan(value):
            return
        if self.best_value is None or self.objective.better_than(value, self.best_value):
            self.best_value = value
            self.filepath.parent.mkdir(parents=True, exist_ok=True)
            part = self.filepath.with_name("part.weights.h5")
            self.model.save_weights(part)
            os.replace(part, self.filepath)
