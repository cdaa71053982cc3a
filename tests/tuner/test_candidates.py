"""Candidates drawn by Optuna's samplers: how they are converted, within budget and none twice."""

import itertools

import keras_tuner
import numpy as np
import optuna
import pytest

from keras_resblocks import tuner
from keras_resblocks.tuner.candidates import CandidateSampler, SuggestedHyperParameters, explored

KINDS = {
    "choice_str": (lambda hp: hp.Choice("p", ["a", "b"]), {"a", "b"}),
    "choice_int": (lambda hp: hp.Choice("p", [4, 1, 2]), {4, 1, 2}),
    "choice_float": (lambda hp: hp.Choice("p", [0.0, 1e-4]), {0.0, 1e-4}),
    "choice_bool": (lambda hp: hp.Choice("p", [True, False]), {1, 0}),  # KerasTuner makes ints
    "choice_of_one": (lambda hp: hp.Choice("p", ["a"]), {"a"}),
    "boolean": (lambda hp: hp.Boolean("p"), {True, False}),
    "fixed": (lambda hp: hp.Fixed("p", 7), {7}),
    "int": (lambda hp: hp.Int("p", 2, 5), {2, 3, 4, 5}),
    "int_of_one": (lambda hp: hp.Int("p", 2, 2), {2}),
    "int_step": (lambda hp: hp.Int("p", 6, 13, step=3), {6, 9, 12}),
    "int_log": (lambda hp: hp.Int("p", 1, 4, sampling="log"), {1, 2, 3, 4}),
    "int_log_step": (lambda hp: hp.Int("p", 2, 32, step=2, sampling="log"), {2, 4, 8, 16, 32}),
    "int_reverse_log": (lambda hp: hp.Int("p", 1, 3, sampling="reverse_log"), {1, 2, 3}),
    "float_step": (lambda hp: hp.Float("p", 0, 1, step=0.25), {0.0, 0.25, 0.5, 0.75, 1.0}),
    "float_short_step": (lambda hp: hp.Float("p", 0, 1, step=0.4), {0.0, 0.4, 0.8}),
    "float_log_step": (
        lambda hp: hp.Float("p", 0.5, 4.0, step=2, sampling="log"),
        {0.5, 1.0, 2.0, 4.0},
    ),
    "float": (lambda hp: hp.Float("p", -1, 2), (-1, 2)),
    "float_log": (lambda hp: hp.Float("p", 1e-4, 1, sampling="log"), (1e-4, 1)),
    "float_reverse_log": (lambda hp: hp.Float("p", 1.0, 4.0, sampling="reverse_log"), (1, 4)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_hyperparameter_is_suggested_over_its_whole_range(kind):
    declare, expected = KINDS[kind]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = []
    for _ in range(100):
        trial = study.ask()
        hp = SuggestedHyperParameters(trial)
        values.append(declare(hp))
        assert hp.get("p") == values[-1] == declare(hp)
        assert trial.params == ({} if kind == "fixed" else {"p": values[-1]})
    if isinstance(expected, set):
        assert set(values) == expected
        assert {type(value) for value in values} == {type(value) for value in expected}
    else:
        assert all(expected[0] <= value <= expected[1] for value in values)
        assert len(set(values)) == len(values)


class Space(keras_tuner.HyperModel):
    """Builds what a function asks for."""

    def __init__(self, ask):
        super().__init__()
        self.ask = ask

    def build(self, hp):
        return self.ask(hp)


def drawn(hypermodel, count, sampler=None, seed=0, study=None, enqueue=(), **options):
    """The parameters of `count` trials; fewer if there is no further candidate."""
    candidates = CandidateSampler(hypermodel, sampler, seed, **options)
    study = study or optuna.create_study()
    study.sampler = candidates
    for params in enqueue:
        study.enqueue_trial(params)
    found = []
    for _ in range(count):
        trial = study.ask()
        hp = candidates.hyperparameters(trial)
        if hp is None:
            break
        hypermodel.build(hp)
        study.tell(trial, sum(map(float, map(hash, trial.params.values()))) % 7)
        found.append(trial.params)
    return found


def as_set(found):
    return {tuple(sorted(params.items())) for params in found}


def by_scopes(hp):
    kind = hp.Choice("kind", ["mlp", "cnn"])
    with hp.conditional_scope("kind", ["mlp"]):
        units = hp.Int("units", 1, 2)
    with hp.conditional_scope("kind", ["cnn"]), hp.name_scope("conv"):
        filters = hp.Int("filters", 1, 2)
    return (
        kind,
        units,
        filters,
        hp.Float("rate", 0, 1, step=0.5, parent_name="kind", parent_values=["cnn"]),
    )


def by_ifs(hp):
    kind = hp.Choice("kind", ["mlp", "cnn"])
    if kind == "mlp":
        return kind, hp.Int("units", 1, 2)
    with hp.name_scope("conv"):
        filters = hp.Int("filters", 1, 2)
    return kind, filters, hp.Float("rate", 0, 1, step=0.5)


CONDITIONAL = {(("kind", "mlp"), ("units", units)) for units in (1, 2)} | {
    (("conv/filters", filters), ("kind", "cnn"), ("rate", rate))
    for filters in (1, 2)
    for rate in (0.0, 0.5, 1.0)
}


@pytest.mark.parametrize("ask", [by_scopes, by_ifs])
@pytest.mark.parametrize("sampler", [None, optuna.samplers.RandomSampler(seed=1)])
def test_only_active_hyperparameters_are_suggested_and_each_candidate_once(ask, sampler):
    found = drawn(Space(ask), 20, sampler)
    assert as_set(found) == CONDITIONAL
    assert len(found) == len(CONDITIONAL)


def test_all_scopes_of_a_hypermodel_are_explored():
    def nested(hp):
        hp.Boolean("deep")
        with hp.conditional_scope("deep", [True]):
            hp.Choice("more", ["a", "b"])
            with hp.conditional_scope("more", ["b"]):
                if hp.get("deep") and hp.get("more") == "b":
                    hp.Int("most", 1, 2)

    assert [parameter.name for parameter in explored(Space(nested))] == ["deep", "more", "most"]
    parameters = explored(Space(by_scopes))
    assert as_set(drawn(Space(by_scopes), 20, parameters=parameters)) == CONDITIONAL


FREE = {
    **{"blocks": "residual", "activations": "relu", "regularizers": 0.0, "stages": 2},
    **{"depths": (1, 2, 3, 4), "widths": (4, 8, 16, 32), "learning_rates": 1e-3},
}


def within_budget(share):
    """A hypermodel that has a share of its candidates within its budget, and these."""
    free, costs = tuner.ResNetHyperModel((8, 8, 1), 3, **FREE), {}
    for depth_1, depth_2, width in itertools.product((1, 2, 3, 4), (1, 2, 3, 4), (4, 8, 16, 32)):
        hp = keras_tuner.HyperParameters()
        hp.values = {"depth_1": depth_1, "depth_2": depth_2, "width": width}
        costs[tuple(sorted(hp.values.items()))] = free.cost(hp).params
    limit = int(np.quantile(list(costs.values()), share))
    feasible = {values for values, params in costs.items() if params <= limit}

    class Limited(tuner.ResNetHyperModel):
        def build(self, hp):
            assert self.within_budget(hp.values)
            return self.candidate(hp)

    return Limited((8, 8, 1), 3, max_params=limit, **FREE), feasible


GRID = {"depth_1": [1, 2, 3, 4], "depth_2": [1, 2, 3, 4], "width": [4, 8, 16, 32]}
SAMPLERS = {
    "tpe": lambda: None,
    "tpe_univariate": lambda: optuna.samplers.TPESampler(seed=1, multivariate=False),
    "random": lambda: optuna.samplers.RandomSampler(seed=1),
    "grid": lambda: optuna.samplers.GridSampler(GRID, seed=1),
    "brute_force": lambda: optuna.samplers.BruteForceSampler(seed=1),
    "qmc": lambda: optuna.samplers.QMCSampler(seed=1, warn_independent_sampling=False),
    "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=1),
    "gp": lambda: pytest.importorskip("torch") and optuna.samplers.GPSampler(seed=1),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_sampler_draws_all_candidates_within_the_budget_once_and_no_other(name):
    hypermodel, feasible = within_budget(0.2)
    found = drawn(hypermodel, 6 if name == "gp" else 99, SAMPLERS[name]())
    assert as_set(found) <= feasible
    assert len(found) == (6 if name == "gp" else len(feasible)) == len(as_set(found))


def test_no_candidate_is_drawn_twice_in_the_brackets_of_a_pruner():
    hypermodel, feasible = within_budget(0.2)
    study = optuna.create_study(pruner=optuna.pruners.HyperbandPruner(1, 9))
    first = study.ask()  # after which there are brackets
    first.report(0.0, 0)
    assert not first.should_prune()
    study.tell(first, 0.0)
    found = drawn(hypermodel, 99, study=study)
    assert len(found) == len(feasible) == len(as_set(found))


class Own(tuner.ResNetHyperModel):
    """Asks for a hyperparameter of its own, which is not declared."""

    def build(self, hp):
        return self.candidate(hp), hp.Choice("head", ["a", "b"])


def test_hyperparameters_of_a_subclass_tell_candidates_apart():
    options = {**FREE, "depths": (1, 2), "widths": 4}
    found = drawn(Own((8, 8, 1), 3, **options), 20)
    assert len(found) == len(as_set(found)) == 8
    assert {params["head"] for params in found} == {"a", "b"}
    hypermodel = Own((8, 8, 1), 3, **options)
    assert as_set(drawn(hypermodel, 20, parameters=explored(hypermodel))) == as_set(found)


def test_what_a_user_has_enqueued_is_tried_as_it_is():
    hypermodel, feasible = within_budget(0.2)
    hypermodel.build = lambda hp: None
    wished = [
        {"depth_1": 4, "depth_2": 4, "width": 32},  # over the budget
        {"width": 32, "depth_1": 4},
        {"depth_2": 2},
    ]
    found = drawn(hypermodel, 12, enqueue=wished)
    assert found[0] == wished[0]
    assert wished[1].items() <= found[1].items()
    assert wished[2].items() <= found[2].items()
    assert as_set(found[2:]) <= feasible
    assert len(as_set(found[2:])) == 10


def test_the_same_seed_draws_the_same_candidates_also_if_stopped_in_between():
    hypermodel = within_budget(0.5)[0]
    found = drawn(hypermodel, 14, seed=1)
    study = optuna.create_study()
    stopped = [
        *drawn(hypermodel, 4, seed=1, study=study),
        *drawn(hypermodel, 10, seed=1, study=study),
    ]
    assert stopped == found
    assert drawn(hypermodel, 2, seed=2) != found[:2]


def test_the_candidates_of_ended_trials_are_looked_at_once():
    hypermodel = within_budget(1.0)[0]
    looked_at, identity = [], hypermodel.identity

    def counted(values):
        looked_at.append(values)
        return identity(values)

    hypermodel.identity = counted
    drawn(hypermodel, 40, optuna.samplers.RandomSampler(seed=1))
    repeats = 100  # of a space of 64
    assert len(looked_at) <= 40 + 40 + repeats
