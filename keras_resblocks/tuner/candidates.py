"""Candidates drawn by Optuna's samplers: KerasTuner's hyperparameters, a budget, no repeats."""

import contextlib
import copy
import functools
import hashlib
from decimal import Decimal

import keras_tuner
import optuna
from keras_tuner.engine import hyperparameters as kinds
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution


def distribution(parameter):
    """What Optuna draws a KerasTuner hyperparameter from; None for a fixed one.

    Optuna knows neither multiplied steps, which become a choice among the values, nor
    `"reverse_log"`, which is drawn evenly.
    """
    if isinstance(parameter, kinds.Fixed):
        return None
    if isinstance(parameter, kinds.Boolean):
        return CategoricalDistribution([False, True])
    if isinstance(parameter, kinds.Choice):
        return CategoricalDistribution(list(parameter.values))
    low, step, log = parameter.min_value, parameter.step, parameter.sampling == "log"
    number = int if isinstance(parameter, kinds.Int) else float
    if step is not None and parameter.sampling != "linear":
        return CategoricalDistribution([number(value) for value in parameter.values])
    high = parameter.max_value
    if step is not None:  # the last value that is reached: Optuna warns where that is not `high`
        first, last, by = (Decimal(str(value)) for value in (low, high, step))
        high = number(first + (last - first) // by * by)
    if number is int:
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


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
    """Hyperparameters that an `optuna.Trial` suggests when a hypermodel first asks for them.

    So only those are suggested that it uses, whether it chooses among them by
    `conditional_scope` or by Python's own `if`.
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
        drawn_from, name, trial = distribution(parameter), parameter.name, self.trial
        if drawn_from is None:
            value = parameter.value
        elif isinstance(drawn_from, CategoricalDistribution):
            value = trial.suggest_categorical(name, drawn_from.choices)
        else:
            is_int = isinstance(drawn_from, IntDistribution)
            suggest = trial.suggest_int if is_int else trial.suggest_float
            value = suggest(
                name, drawn_from.low, drawn_from.high, log=drawn_from.log, step=drawn_from.step
            )
        self.values[name] = value
        return value


def explored(hypermodel, max_draws=1000):
    """All hyperparameters that a hypermodel asks for while it builds a model, a list.

    As KerasTuner does, it builds a model in each `conditional_scope`; what is behind Python's own
    `if` may lack.
    """
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    within_budget = getattr(hypermodel, "within_budget", lambda values: True)
    scopes, entered = [()], []
    while scopes:
        conditions = scopes[0]
        entered.append(conditions)
        for _ in range(max_draws):
            hp.values.update({condition.name: condition.values[0] for condition in conditions})
            hp.ensure_active_values()
            if within_budget(hp.values):
                break
            hp.values = {}
        with contextlib.suppress(Exception):  # which a trial raises again, and records
            hypermodel.build(hp)
        entered += hp.active_scopes
        scopes = [scope for scope in hp.inactive_scopes if scope not in entered]
    return hp.space


class CandidateSampler(optuna.samplers.BaseSampler):
    """Draws with another sampler until a candidate is within the budget, and new.

    What is rejected leaves nothing in the study. A candidate is new if no other trial has had the
    same values of all hyperparameters that it asked for.

    Args:
        hypermodel: it may have `within_budget(values)` and `identity(values)`.
        sampler: an Optuna sampler; by default a `TPESampler` for each trial, seeded by the
            number of the trial, so that workers with the same seed draw different candidates.
        seed: of the default, and of the draws at random; None for none.
        parameters: the hyperparameters that are suggested before a model is built; by default
            those that the hypermodel declares. Others are suggested when they are asked for.
    """

    # A sampler that insists on candidates which are known or over budget is helped by chance.
    max_sampled = 20
    max_draws = 1000  # about a millisecond each

    def __init__(self, hypermodel, sampler=None, seed=None, parameters=None):
        if parameters is None:
            hp = keras_tuner.HyperParameters()
            hypermodel.declare_hyperparameters(hp)
            parameters = hp.space
        self.parameters = parameters
        drawn_from = ((parameter.name, distribution(parameter)) for parameter in parameters)
        self.distributions = {name: one for name, one in drawn_from if one is not None}
        self.exhausted = False  # whether the last draw found no candidate
        self._within_budget = getattr(hypermodel, "within_budget", lambda values: True)
        self._identity = getattr(hypermodel, "identity", _by_values)
        self._sampler, self._seed = sampler, seed
        self._trials = None  # all of them, for the draw that follows
        self._learned = {}  # the distributions of what trials have asked for, by name
        self._names = set()  # each a set of names that a trial has asked for
        self._tried = set()  # the identities of candidates
        self._settled = set()  # the numbers of the trials that these are from
        if sampler:
            self.before_trial, self.after_trial = sampler.before_trial, sampler.after_trial
            self.reseed_rng = sampler.reseed_rng

    def hyperparameters(self, trial):
        """The `HyperParameters` of a trial of a study with this sampler; None if exhausted."""
        # To a sampler, a `HyperbandPruner` shows the trials of one bracket alone.
        self._trials = trial.study.get_trials(deepcopy=False)
        trial.relative_params  # noqa: B018 (which draws)
        if self.exhausted:
            return None
        hp = SuggestedHyperParameters(trial)
        for parameter in self.parameters:
            if hp.is_active(parameter):
                hp.take(parameter)
        return hp

    def identity(self, params):
        """A short text that is equal for the `params` of trials which are the same candidate.

        It takes milliseconds for a deep network: a trial may keep it as its user attribute
        `identity`, so that a process which joins a long study need not compute them all.
        """
        try:
            text = str(self._identity(dict(params)))
        except (KeyError, TypeError, ValueError):  # of a trial in another space
            text = str(_by_values(params))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def infer_relative_search_space(self, study, trial):
        self._inner = self._sampler or self._seeded(optuna.samplers.TPESampler, trial)
        drawn = self._draw(study, trial)
        self.exhausted = drawn is None
        self._drawn = drawn.params if drawn else {}
        return drawn.distributions if drawn else {}

    def sample_relative(self, study, trial, search_space):
        return {name: self._drawn[name] for name in search_space}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def _seeded(self, sampler_class, trial):
        seed = None if self._seed is None else (self._seed + trial.number) % 2**32
        return sampler_class(seed=seed)

    def _draw(self, study, trial):
        """A copy of the trial with the `params` of a new candidate, None if none is found."""
        trials, self._trials = self._trials or study.get_trials(deepcopy=False), None
        known = self._learn(trials, trial)
        # With what `before_trial` has noted, as GridSampler does.
        trial = next((one for one in reversed(trials) if one.number == trial.number), trial)
        # What a user has enqueued, or a trial that is run again, is taken as it is.
        given = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        sampler = self._inner
        space = sampler.infer_relative_search_space(study, trial)
        for drawn in range(self.max_draws):
            if drawn == self.max_sampled:
                sampler, space = self._seeded(optuna.samplers.RandomSampler, trial), {}
            candidate, values = self._candidate(study, trial, sampler, space, given)
            is_given = given and candidate.params.keys() <= given.keys()
            if is_given or (
                self._within_budget(values) and not self._is_known(candidate.params, known)
            ):
                return candidate
        return candidate if given else None

    def _candidate(self, study, trial, sampler, space, given):
        """A copy of the trial with values of all that a candidate may ask for."""
        sampled = {**sampler.sample_relative(study, trial, space), **given}
        candidate = copy.copy(trial)
        candidate.params, candidate.distributions = {}, {}
        hp = keras_tuner.HyperParameters()

        def take(name, drawn_from):
            if name in sampled:
                value = sampled[name]
            else:
                value = sampler.sample_independent(study, candidate, name, drawn_from)
            value = drawn_from.to_external_repr(drawn_from.to_internal_repr(value))
            hp.values[name] = candidate.params[name] = value
            candidate.distributions[name] = drawn_from

        for parameter in filter(hp.is_active, self.parameters):
            drawn_from = distribution(parameter)
            if drawn_from is None:
                hp.values[parameter.name] = parameter.value
            else:
                take(parameter.name, drawn_from)
        for name, drawn_from in self._learned.items():
            if name not in self.distributions:
                take(name, drawn_from)
        return candidate, hp.values

    def _learn(self, trials, trial):
        """Takes note of the trials that have ended, and returns the identities of all others."""
        under_way = set()
        for other in trials:
            if other.number == trial.number or other.number in self._settled:
                continue
            names = frozenset(other.params)
            # A trial that was killed may not have asked for all.
            if other.state.name in ("COMPLETE", "PRUNED"):
                self._names.add(names)
                self._learned.update(other.distributions)
            elif not self.parameters and names not in self._names:
                continue
            identity = other.user_attrs.get("identity") or self.identity(other.params)
            if other.state.is_finished():
                self._settled.add(other.number)
                self._tried.add(identity)
            else:
                under_way.add(identity)
        return self._tried | under_way

    def _is_known(self, params, known):
        """Whether a trial had the same values of all that it asked for."""
        active = self.distributions.keys() & params.keys()
        asked_for = (names for names in {frozenset(params), *self._names} if active <= names)
        return any(
            self.identity({name: params[name] for name in names}) in known
            for names in asked_for
            if names <= params.keys()
        )


def _by_values(values):
    return sorted(values.items())
