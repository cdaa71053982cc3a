"""One trial of a search by Optuna or Ray: a candidate is built, trained and scored."""

import copy
import math
import os
import time
from collections.abc import Sequence
from typing import TypeAlias

import keras
import keras_tuner

from keras_resblocks.tuner import epochs, memory
from keras_resblocks.tuner.descriptions import describe
from keras_resblocks.tuner.seeding import seed_all

Objectives: TypeAlias = str | keras_tuner.Objective | Sequence[str | keras_tuner.Objective] | None
"""What a search optimizes: one or several, metrics by their names."""

# What a search can minimize beside the metrics of a training; the last one in all of a trial.
COSTS = ("params", "trainable_params", "macs", "activation_memory", "seconds")


def hypermodel_of(hypermodel):
    """A `keras_tuner.HyperModel`, also of a function that builds models."""
    if isinstance(hypermodel, keras_tuner.HyperModel):
        return hypermodel
    if not callable(hypermodel):
        raise ValueError(
            "`hypermodel` must be a `keras_tuner.HyperModel` or a function that builds a model. "
            f"Received: hypermodel={hypermodel!r}"
        )
    made = keras_tuner.HyperModel()
    made.build = hypermodel
    return made


def objectives_of(objective, hypermodel):
    """A list of `keras_tuner.Objective`; by default that of the hypermodel's task."""
    if objective is None:
        objective = getattr(hypermodel, "objective", "val_accuracy")
    objectives = [*objective] if isinstance(objective, (list, tuple)) else [objective]
    for i, one in enumerate(objectives):
        if isinstance(one, str):
            if one in COSTS:
                objectives[i] = keras_tuner.Objective(one, "min")
            else:  # KerasTuner tells the direction of a metric nowhere else in public
                objectives[i] = keras_tuner.oracles.RandomSearchOracle(one).objective
    are_objectives = all(isinstance(one, keras_tuner.Objective) for one in objectives)
    if not are_objectives or all(one.name in COSTS for one in objectives):
        raise ValueError(
            "`objective` must be the name of a metric or a `keras_tuner.Objective`, or a list with "
            f"at least one metric beside {', '.join(COSTS)}. Received: objective={objective!r}"
        )
    return objectives


def run_trial(hypermodel, hp, objectives, fit_arguments, folder=None, on_epoch=None, seed=None):
    """Builds, trains and scores a candidate.

    Args:
        hypermodel, hp: a `keras_tuner.HyperModel`, and the hyperparameters of the candidate.
        objectives: a list of `keras_tuner.Objective`. The first metric among them decides which
            epoch is the best.
        fit_arguments: for `fit`. The callbacks are copied.
        folder: a `pathlib.Path`, for a backup to go on from and `best.weights.h5`, or None.
        on_epoch: called with each epoch, from 0, and the values of the objectives that it
            measured, by name; or None.
        seed: of all that is drawn, None for none.

    Returns:
        The values of the objectives, a list, and a dict with `cost`, `history`, `seconds`,
        `summary` and `objectives`.
    """
    began, held = time.monotonic(), memory.held()
    metric = next(one for one in objectives if one.name not in COSTS)
    callbacks = copy.deepcopy(list(fit_arguments.get("callbacks") or ()))
    is_plain = epochs.is_one_fit(hypermodel)
    record = epochs.Record(metric if is_plain else None, fit_arguments.get("validation_freq", 1))
    own = [record]
    if folder:
        own.append(_SaveBestEpoch(folder / "best.weights.h5", metric))
        if is_plain and epochs.are_stateless(callbacks):
            own.append(epochs.Backup(folder / "backup", own[-1]))
    if on_epoch:

        def report(epoch, logs):
            logs = _plain(logs or {})
            on_epoch(epoch, {one.name: logs[one.name] for one in objectives if one.name in logs})

        own.append(keras.callbacks.LambdaCallback(on_epoch_end=report))
    keras.utils.clear_session()
    try:
        if seed is not None:
            seed_all(seed)
        model = hypermodel.build(hp)
        arguments = {"verbose": 0, **fit_arguments, "callbacks": [*callbacks, *own]}
        results = hypermodel.fit(hp, model, **arguments)
        described = describe(model)
    finally:
        memory.release(held)
    seconds = {"total": time.monotonic() - began, "training": record.seconds}
    measured = {
        **described["cost"],
        "seconds": seconds["total"],
        **_best_metrics(results, metric),
    }
    values = []
    for one in objectives:
        value = measured.get(one.name)
        if value is None or math.isnan(value):
            raise keras_tuner.errors.FailedTrialError(f"`{one.name}` is not a number: {value}")
        values.append(float(value))
    return values, {
        "history": _plain(record.history),
        **described,
        "seconds": seconds,
        "objectives": [{"name": one.name, "direction": one.direction} for one in objectives],
    }


def _best_metrics(results, objective):
    """The metrics of the best epoch in what `fit` returned; of several results their mean."""
    if isinstance(results, list):
        each = [_best_metrics(result, objective) for result in results]
        return {name: sum(one[name] for one in each) / len(each) for name in each[0]}
    if isinstance(results, keras.callbacks.History):
        results = results.history
    if results is None:
        raise keras_tuner.errors.FatalValueError(
            "`fit` of the hypermodel must return what Keras's `fit` does, a dictionary of metrics "
            "or a number. Received: None"
        )
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


class _SaveBestEpoch(keras.callbacks.Callback):
    """Saves the weights of the best epoch, as a whole."""

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
