"""What an option of a search space may be: one of some values, or a number in a range."""

import dataclasses
import numbers
import os
import warnings
from typing import Literal

import keras_tuner

from keras_resblocks import validation


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included, wherever a hypermodel takes a list.

    Two integers make a range of integers.

    Args:
        low: the least number.
        high: the greatest number.
        step: distance of the values, from `low` on; by default 1 for integers, and none.
        sampling: `"linear"`, `"log"` or `"reverse_log"`, as in `keras_tuner.HyperParameters`.

    Raises:
        ValueError: if `low` is not less than `high`, or not positive for a `"log"`, and for
            another value that is out of its range.

    Examples:
        >>> from keras_resblocks.tuner import Range, ResNetHyperModel
        >>> rates = Range(1e-4, 1e-2, sampling="log")
        >>> hypermodel = ResNetHyperModel((32, 32, 3), 10, learning_rates=rates)
    """

    low: float
    high: float
    step: float | None = None
    sampling: Literal["linear", "log", "reverse_log"] = "linear"

    def __post_init__(self) -> None:
        validation.finite_number("low", self.low)
        validation.finite_number("high", self.high)
        if self.low >= self.high:
            raise ValueError(f"`low` must be less than `high`. Received: {self}")
        validation.one_of("sampling", self.sampling, ("linear", "log", "reverse_log"))
        if self.sampling != "linear":
            validation.positive_number("low", self.low)
        if self.step is not None:
            validation.positive_number("step", self.step)

    is_fixed = False

    @property
    def extremes(self) -> tuple[float, float]:
        """What the hyperparameter of the cheapest and the dearest candidates may show."""
        return (self.low, self.high)

    def choose(self, hp: keras_tuner.HyperParameters, name: str) -> float:
        """The value that the hyperparameter of this name has."""
        are_whole = all(isinstance(end, numbers.Integral) for end in self.extremes)
        declare = hp.Int if are_whole else hp.Float
        return declare(name, self.low, self.high, step=self.step, sampling=self.sampling)


class Choices:
    """Some values, by the label that the hyperparameter shows for each."""

    def __init__(self, labels):
        self.labels = labels
        self.extremes = tuple(labels)
        self.is_fixed = len(labels) == 1

    def choose(self, hp, name):
        """The value that the hyperparameter of this name has; one value alone is none."""
        if self.is_fixed:
            return next(iter(self.labels.values()))
        label = hp.Choice(name, list(self.labels))
        if label is None:  # in a scope that is not active
            return None
        if label in self.labels:
            return self.labels[label]
        known = f"`{name}` must be one of {list(self.labels)}. Received: {name}={label!r}"
        if not isinstance(label, numbers.Real):
            raise ValueError(known)
        warnings.warn(f"{known}, which is taken as it is", stacklevel=2)  # a tuner's own range
        return label


def read(argument, values, check):
    """The `Choices` or the `Range` that an argument of a hypermodel says; None for None."""
    if values is None:
        return None
    if isinstance(values, Range):
        for end in values.extremes:
            check(argument, end)
        return values
    if not isinstance(values, (list, tuple)):
        values = (values,)
    if not values:
        raise ValueError(f"`{argument}` must not be empty. Received: {argument}={values!r}")
    for value in values:
        check(argument, value)
    return Choices(_labels(argument, values))


def _labels(argument, values):
    if all(isinstance(value, numbers.Real) for value in values):  # numbers stay numbers
        # Of one kind, as KerasTuner wants it: 0 and 1e-4 are 0.0 and 1e-4.
        are_whole = all(isinstance(value, numbers.Integral) for value in values)
        labels = {value if are_whole else float(value): value for value in values}
    else:
        labels = {}
        for value in values:
            label = "none" if value is None else _label(value)
            is_word = value is None or isinstance(value, (str, numbers.Real))
            labels[label if is_word or label not in labels else f"{label}_{len(labels)}"] = value
    if len(labels) < len(values):
        raise ValueError(f"`{argument}` must not repeat a value. Received: {argument}={values!r}")
    return labels


def _label(value):
    """What stands for a value in a table: its own word, or the name of what it is."""
    if isinstance(value, (list, tuple)):
        return ":".join(map(_label, value))
    if isinstance(value, (str, os.PathLike, numbers.Real)):
        return str(value)
    return getattr(value, "__name__", type(value).__name__)
