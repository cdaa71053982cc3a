"""A search and its trials, as data."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import keras_tuner

from keras_resblocks.models import Cost
from keras_resblocks.shown import ShortRepr, html_rows
from keras_resblocks.tuner.hyperparameters import parameters_of
from keras_resblocks.tuner.trials import hypermodel_of

COSTS = {
    "params": "parameters",
    "trainable_params": "trainable parameters",
    "macs": "multiply-accumulates",
    "activation_memory": "activation memory (bytes)",
    "seconds": "time (s)",
}
_INTERNAL = "tuner/"  # what KerasTuner's Hyperband adds to the values of a trial


@dataclasses.dataclass(frozen=True, repr=False)
class TrialRecord(ShortRepr):
    """A trial of a search.

    Attributes:
        number: as the search counts, from 0 in KerasTuner and Optuna.
        trial_id: the search's own name of the trial.
        status: `"COMPLETED"`, `"FAILED"`, `"RUNNING"`, ...; `"UNREADABLE"` if its file is damaged.
        score: of the objective; None if the trial was not completed.
        values: all its values, those of Hyperband (`tuner/epochs`, ...) included.
        params: number of the parameters of its model.
        trainable_params: number of those that are trained.
        macs: multiply-accumulates for one sample.
        activation_memory: of one sample, in bytes.
        history: a list of values, one an epoch, by the name of the metric.
        seconds: that the trial took.
        training_seconds: that its training took.
        message: what a trial that failed said.
        summary: of its model, as text.
        metrics: the values of further metrics that were objectives, by name.
        weights: path of its best weights, None where they are not on this machine.
        build_config: of its model, for one that a hypermodel does not build.

    Examples:
        >>> from keras_resblocks.tuner import trial_rows
        >>> best = max(trial_rows(tuner), key=lambda trial: trial.score)  # needs: search
        >>> best.hyperparameters, best.params, best.history["val_accuracy"]
    """

    number: int
    trial_id: str
    status: str
    score: float | None = None
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    params: int | None = None
    trainable_params: int | None = None
    macs: int | None = None
    activation_memory: int | None = None
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict, repr=False)
    seconds: float | None = None
    training_seconds: float | None = None
    message: str | None = None
    summary: str | None = dataclasses.field(default=None, repr=False)
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    weights: str | None = None
    build_config: dict[str, Any] | None = dataclasses.field(default=None, repr=False)

    def _repr_html_(self) -> str:
        costs = {title: getattr(self, name) for name, title in COSTS.items()}
        score = {"status": self.status.lower(), "score": self.score, **self.metrics}
        return html_rows({"trial": self.number, **score, **self.hyperparameters, **costs})

    @functools.cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The values without those of Hyperband."""
        return {k: v for k, v in self.values.items() if not k.startswith(_INTERNAL)}

    def load_model(
        self,
        hypermodel: keras_tuner.HyperModel | Callable[[keras_tuner.HyperParameters], keras.Model],
    ) -> keras.Model:
        """The model of the trial, with the weights of its best epoch.

        Args:
            hypermodel: that of the search.

        Returns:
            A `keras.Model`, as the hypermodel compiles it.

        Raises:
            ValueError: if the search has not kept the trial's weights on this machine.
        """
        if self.weights is None:
            raise ValueError(
                f"Trial {self.number} must have weights on this machine: a search keeps those of "
                "the best `keep_checkpoints` trials. Received: weights=None"
            )
        model = hypermodel_of(hypermodel).build(parameters_of(self.hyperparameters))
        if not model.built and self.build_config:
            model.build_from_config(self.build_config)
        if model.optimizer is not None:
            model.optimizer.build(model.trainable_variables)  # the file holds its state too
        model.load_weights(self.weights)
        return model

    @property
    def epochs(self) -> int | None:
        """The epoch up to which the model was trained; None if that is not known."""
        length = max(map(len, self.history.values()), default=0)
        return self.values.get(f"{_INTERNAL}epochs", length or None)

    @property
    def first_epoch(self) -> int:
        """Epochs that another trial had trained the model for, before this one went on."""
        return self.values.get(f"{_INTERNAL}initial_epoch", 0)

    @property
    def cost(self) -> Cost:
        """The `Cost` of the model."""
        # None where a search recorded none.
        return Cost(self.params, self.trainable_params, self.macs)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True)
class SearchRecords:
    """A search: the attribute `search` of a `Report`.

    Attributes:
        name: of the project or study.
        objective: name of what was optimized.
        direction: `"min"` or `"max"`; None if no trial has a score and so there is no telling.
        trials: a `TrialRecord` for each, by number.
        folder: of the project; None for a study.
        others: the directions of further metrics that were objectives, by name.
        space: what each hyperparameter was drawn from, as text, by name.
        about: what else was recorded: budget, seed, versions.

    Examples:
        >>> from keras_resblocks.tuner import report
        >>> search = report("digits/untitled_project").search  # needs: search
        >>> search.best, len(search.scored), search.space
    """

    name: str
    objective: str
    direction: str | None
    trials: tuple[TrialRecord, ...]
    folder: pathlib.Path | None = None
    others: dict[str, str] = dataclasses.field(default_factory=dict)
    space: dict[str, str] = dataclasses.field(default_factory=dict)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def hyperparameters(self) -> list[str]:
        """The names of the hyperparameters, sorted."""
        return sorted({name for trial in self.trials for name in trial.hyperparameters})

    @functools.cached_property
    def scored(self) -> list[TrialRecord]:
        """The trials with a score, best first; of equal ones the smallest, then the first."""

        def rank(trial):
            size = math.inf if trial.params is None else trial.params
            return -self.gain(trial), size, trial.number

        return sorted((trial for trial in self.trials if trial.score is not None), key=rank)

    @property
    def ranked(self) -> list[TrialRecord]:
        """All trials: those with a score, best first, then the others."""
        return self.scored + [trial for trial in self.trials if trial.score is None]

    @property
    def best(self) -> TrialRecord | None:
        """The best trial, None if no trial has a score."""
        return next(iter(self.scored), None)

    @property
    def missing(self) -> list[str]:
        """What no trial has a record of."""
        names = {**COSTS, "history": "learning curves", "summary": "model summaries"}
        absent = [n for n in names if not any(getattr(trial, n) for trial in self.trials)]
        return [names[name].split(" (")[0] for name in absent]

    def gain(self, trial: TrialRecord) -> float:
        """The score, or its negative where less is better.

        Args:
            trial: a `TrialRecord` with a score.

        Returns:
            A number: more is better.
        """
        score: Any = trial.score  # of a trial that has one
        return score if self.direction == "max" else -score

    def value(self, trial: TrialRecord, name: str) -> float | None:
        """What a trial has of a cost or of a further objective.

        Args:
            trial: a `TrialRecord`.
            name: as the `cost` of `pareto_front`.

        Returns:
            A number, None if it is not known.
        """
        return trial.metrics.get(name) if name in self.others else getattr(trial, name)

    def pareto_front(self, cost: str) -> list[TrialRecord]:
        """The trials that no other one beats: as good for less, or better for the same.

        Args:
            cost: `"params"`, `"trainable_params"`, `"macs"`, `"activation_memory"`, `"seconds"`,
                or the name of a further objective.

        Returns:
            A list of `TrialRecord`, cheapest first. Trials equal in both are all in it.

        Raises:
            ValueError: for another `cost`.
        """
        names = (*COSTS, *self.others)
        if cost not in names:
            raise ValueError(f"`cost` must be one of {', '.join(names)}. Received: cost={cost!r}")
        sign = -1 if self.others.get(cost) == "max" else 1
        points = [(self.value(t, cost), self.gain(t), t) for t in self.scored]
        points = [(sign * value, gain, t) for value, gain, t in points if value is not None]
        front = []
        for value, gain, trial in sorted(points, key=lambda point: point[0]):
            if not front or gain > front[-1][1] or (value, gain) == front[-1][:2]:
                front.append((value, gain, trial))
        return [trial for _, _, trial in front]
