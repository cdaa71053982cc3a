"""KerasTuner's hyperparameters with values that Optuna suggests."""

import contextlib
import dataclasses
import functools
from decimal import Decimal

import keras_tuner
import optuna
from keras_tuner.engine import hyperparameters as kinds

from keras_resblocks.tuner.compilation import quick_programs


def suggest(trial, parameter):
    """The value of a KerasTuner hyperparameter, suggested by a trial of Optuna.

    The trial's `params` then hold the value under the hyperparameter's name, so that
    `hp.values = trial.params` is all that it takes to build the candidate again. Optuna knows
    neither multiplied steps, which become a choice among the values, nor `"reverse_log"`, which
    is drawn evenly.

    Args:
        trial: an `optuna.Trial`.
        parameter: one of a `keras_tuner.HyperParameters`' `space`.
    """
    name = parameter.name
    if isinstance(parameter, kinds.Fixed):
        return parameter.value
    if isinstance(parameter, kinds.Boolean):
        return trial.suggest_categorical(name, [False, True])
    if isinstance(parameter, kinds.Choice):
        return trial.suggest_categorical(name, list(parameter.values))
    number = int if isinstance(parameter, kinds.Int) else float
    low, step, log = parameter.min_value, parameter.step, parameter.sampling == "log"
    if step is not None and parameter.sampling != "linear":
        return trial.suggest_categorical(name, [number(value) for value in parameter.values])
    high = number(_last(low, parameter.max_value, step))
    if number is int:
        return trial.suggest_int(name, low, high, step=step or 1, log=log)
    return trial.suggest_float(name, low, high, step=step, log=log)


def _last(low, high, step):
    """The last value that steps from `low` reach: Optuna warns where that is not `high`."""
    if step is None:
        return high
    low, high, step = (Decimal(str(value)) for value in (low, high, step))
    return low + (high - low) // step * step


def _suggested(declare):
    """A method of `HyperParameters` that has the value of a new hyperparameter suggested."""

    @functools.wraps(declare)
    def declare_and_suggest(self, *args, **kwargs):
        known = len(self.space)
        value = declare(self, *args, **kwargs)
        if len(self.space) == known or not self.is_active(self.space[-1]):
            return value
        return self.take(self.space[-1])

    return declare_and_suggest


class SuggestedHyperParameters(keras_tuner.HyperParameters):
    """Hyperparameters that are suggested when a hypermodel first asks for them.

    So just those are suggested that it uses, whether it chooses among them by
    `conditional_scope` or by Python's own `if`.

    Args:
        trial: an `optuna.Trial`.
    """

    def __init__(self, trial):
        super().__init__()
        self.trial = trial

    Choice = _suggested(keras_tuner.HyperParameters.Choice)
    Int = _suggested(keras_tuner.HyperParameters.Int)
    Float = _suggested(keras_tuner.HyperParameters.Float)
    Boolean = _suggested(keras_tuner.HyperParameters.Boolean)
    Fixed = _suggested(keras_tuner.HyperParameters.Fixed)

    def take(self, parameter):
        """Has the value of an active hyperparameter suggested."""
        self.values[parameter.name] = suggest(self.trial, parameter)
        return self.values[parameter.name]


@dataclasses.dataclass
class Candidate:
    """What a trial is to train.

    Attributes:
        hp: its hyperparameters; further ones may be suggested during the training.
        system_attrs: what the sampler wrote down about it.
        model: what the hypermodel built, or None.
        error: what it raised instead, or None.
    """

    hp: SuggestedHyperParameters
    system_attrs: dict
    model: object = None
    error: Exception | None = None


class Space:
    """The candidates of a hypermodel, drawn by a sampler.

    Candidates are drawn in a study in memory, a copy of the shared one. So those that are over
    budget or known leave nothing in the shared study, and cost no access to its storage.

    Args:
        hypermodel: a `keras_tuner.HyperModel`. Where it has a method `within_budget(values)`, it
            is built once to learn the hyperparameters that it declares.
    """

    # A sampler that insists on candidates which are known or over budget is helped by chance.
    max_sampled = 20
    max_draws = 1000  # about a millisecond each
    max_built = 100  # where it takes a model to know a candidate

    def __init__(self, hypermodel):
        self.hypermodel = hypermodel
        self.within_budget = getattr(hypermodel, "within_budget", None)
        self.declared = []
        if self.within_budget is not None:
            hp = keras_tuner.HyperParameters()
            # The first candidate may be over budget, and declares its hyperparameters even so.
            with contextlib.suppress(keras_tuner.errors.FailedTrialError):
                self._build(hp)
            self.declared = hp.space

    def draw(self, trials, direction, sampler, seed):
        """A candidate within the budget that no trial has had; None if none can be found.

        Args:
            trials: what the sampler is to know, a list of `optuna.trial.FrozenTrial`.
            direction: of the study.
            sampler: an Optuna sampler.
            seed: of the draws at random that follow where the sampler finds none; may be None.
        """
        study = optuna.create_study(direction=direction, sampler=sampler)
        study.add_trials(trials)
        known = [trial.params for trial in trials]
        built = 0
        for drawn in range(self.max_draws):
            if drawn == self.max_sampled:
                study.sampler = optuna.samplers.RandomSampler(seed)
            trial = study.ask()
            hp = SuggestedHyperParameters(trial)
            self._declare(hp)
            if not self.declared or (trial.params not in known and self.within_budget(hp.values)):
                candidate = self._candidate(study, hp)
                if candidate.error or trial.params not in known:
                    return candidate
                built += 1
                if built == self.max_built:
                    return None
            # Samplers that have been everywhere stop the study, which only `optimize` allows.
            with contextlib.suppress(RuntimeError):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return None

    def redraw(self, params):
        """The candidate that has these hyperparameters."""
        study = optuna.create_study()
        study.enqueue_trial(params)
        return dataclasses.replace(
            self._candidate(study, SuggestedHyperParameters(study.ask())), system_attrs={}
        )

    def _declare(self, hp):
        for parameter in self.declared:
            if hp.is_active(parameter):
                hp.take(parameter)

    def _candidate(self, study, hp):
        try:
            outcome = {"model": self._build(hp)}
        except Exception as error:
            outcome = {"error": error}
        attrs = study.get_trials(deepcopy=False)[hp.trial.number].system_attrs
        return Candidate(hp, dict(attrs), **outcome)

    def _build(self, hp):
        self.hypermodel.declare_hyperparameters(hp)
        with quick_programs():
            return self.hypermodel.build(hp)
