"""What Optuna's samplers draw in a search: converted, within the budget, and none twice."""

import warnings

import keras_tuner
import optuna
import pytest
from searches import FREE, SHAPE, as_set, within_budget

from keras_resblocks import tuner

# By name: how a hyperparameter is asked for, and its values, or the ends of their range.
KINDS = {
    "choice_str": (lambda hp, p: hp.Choice(p, ["a", "b"]), {"a", "b"}),
    "choice_int": (lambda hp, p: hp.Choice(p, [4, 1, 2]), {4, 1, 2}),
    "choice_float": (lambda hp, p: hp.Choice(p, [0.0, 1e-4]), {0.0, 1e-4}),
    "choice_bool": (lambda hp, p: hp.Choice(p, [True, False]), {1, 0}),  # KerasTuner makes ints
    "choice_of_one": (lambda hp, p: hp.Choice(p, ["a"]), {"a"}),
    "boolean": (lambda hp, p: hp.Boolean(p), {True, False}),
    "fixed": (lambda hp, p: hp.Fixed(p, 7), {7}),
    "int": (lambda hp, p: hp.Int(p, 2, 5), {2, 3, 4, 5}),
    "int_of_one": (lambda hp, p: hp.Int(p, 2, 2), {2}),
    "int_step": (lambda hp, p: hp.Int(p, 6, 13, 3), {6, 9, 12}),
    "int_log": (lambda hp, p: hp.Int(p, 1, 4, sampling="log"), {1, 2, 3, 4}),
    "int_log_step": (lambda hp, p: hp.Int(p, 2, 32, 2, "log"), {2, 4, 8, 16, 32}),
    "int_reverse_log": (lambda hp, p: hp.Int(p, 1, 3, sampling="reverse_log"), {1, 2, 3}),
    "float_step": (lambda hp, p: hp.Float(p, 0, 1, 0.25), {0.0, 0.25, 0.5, 0.75, 1.0}),
    "float_short_step": (lambda hp, p: hp.Float(p, 0, 1, 0.4), {0.0, 0.4, 0.8}),
    "float_log_step": (lambda hp, p: hp.Float(p, 0.5, 4.0, 2, "log"), {0.5, 1.0, 2.0, 4.0}),
    "float": (lambda hp, p: hp.Float(p, -1, 2), (-1, 2)),
    "float_log": (lambda hp, p: hp.Float(p, 1e-4, 1, sampling="log"), (1e-4, 1)),
    "float_reverse_log": (lambda hp, p: hp.Float(p, 1.0, 4.0, sampling="reverse_log"), (1, 4)),
}


def scored(hp, model, callbacks=(), **arguments):
    """The `fit` of a hypermodel that trains nothing; reports three epochs."""
    score = float(sum(map(hash, hp.values.values())) % 7)
    for epoch in range(3):
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"score": score})
    return score


class Space(keras_tuner.HyperModel):
    """Asks for what a function asks for."""

    def __init__(self, ask):
        super().__init__()
        self.build = ask
        self.fit = scored


def drawn(hypermodel, count, storage=None, **options):
    """The values of the trials of a search; fewer if there is no further candidate."""
    if storage is None:
        storage = optuna.storages.InMemoryStorage()
    options = {"objective": keras_tuner.Objective("score", "max"), "verbose": 0, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is no further candidate")
        study = tuner.optuna_search(
            hypermodel, "study", storage, max_trials=count, seed=0, **options
        )
    return [trial.params for trial in study.trials if "void" not in trial.user_attrs]


@pytest.mark.filterwarnings("error::UserWarning")
def test_every_kind_of_hyperparameter_is_drawn_over_its_whole_range():
    asked = []

    def ask(hp):
        values = {name: declare(hp, name) for name, (declare, _) in KINDS.items()}
        assert all(hp.get(name) == value for name, value in values.items())
        assert all(declare(hp, name) == values[name] for name, (declare, _) in KINDS.items())
        asked.append(values)

    found = drawn(Space(ask), 100, sampler=optuna.samplers.RandomSampler(seed=0))
    assert found == [{k: v for k, v in values.items() if k != "fixed"} for values in asked]
    for name, (_, expected) in KINDS.items():
        values = [one[name] for one in asked]
        if isinstance(expected, set):
            assert set(values) == expected, name
            assert {type(value) for value in values} == {type(value) for value in expected}
        else:
            assert all(expected[0] <= value <= expected[1] for value in values), name
            assert len(set(values)) == len(values)


def by_scopes(hp):
    hp.Choice("kind", ["mlp", "cnn"])
    with hp.conditional_scope("kind", ["mlp"]):
        hp.Int("units", 1, 2)
    with hp.conditional_scope("kind", ["cnn"]), hp.name_scope("conv"):
        hp.Int("filters", 1, 2)
    hp.Float("rate", 0, 1, step=0.5, parent_name="kind", parent_values=["cnn"])


def by_ifs(hp):
    if hp.Choice("kind", ["mlp", "cnn"]) == "mlp":
        hp.Int("units", 1, 2)
    else:
        with hp.name_scope("conv"):
            hp.Int("filters", 1, 2)
        hp.Float("rate", 0, 1, step=0.5)


CONDITIONAL = {(("kind", "mlp"), ("units", units)) for units in (1, 2)} | {
    (("conv/filters", filters), ("kind", "cnn"), ("rate", rate))
    for filters in (1, 2)
    for rate in (0.0, 0.5, 1.0)
}


@pytest.mark.parametrize("ask", [by_scopes, by_ifs])
@pytest.mark.parametrize("sampler", [None, optuna.samplers.RandomSampler(seed=1)])
def test_only_active_hyperparameters_are_suggested_and_each_candidate_once(ask, sampler):
    found = drawn(Space(ask), 20, sampler=sampler)
    assert as_set(found) == CONDITIONAL
    assert len(found) == len(CONDITIONAL)


def test_a_space_without_hyperparameters_has_one_candidate():
    assert drawn(Space(lambda hp: hp.Fixed("units", 3)), 5) == [{}]


class Untrained(tuner.ResNetHyperModel):
    """Notes what is built, and how often it is asked what a candidate is."""

    def __init__(self, *args, **options):
        self.built, self.asked = [], 0
        super().__init__(*args, **options)

    def build(self, hp):
        self.candidate(hp)
        self.built.append(hp.values)

    def identity(self, values):
        self.asked += 1
        return super().identity(values)

    fit = staticmethod(scored)


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
    hypermodel, feasible = within_budget(0.2, Untrained)
    found = drawn(hypermodel, 6 if name == "gp" else 99, sampler=SAMPLERS[name]())
    assert as_set(found) == as_set(hypermodel.built) <= feasible
    assert len(found) == (6 if name == "gp" else len(feasible)) == len(as_set(found))


def test_no_candidate_is_drawn_twice_in_the_brackets_of_a_pruner():
    hypermodel, feasible = within_budget(0.2, Untrained)
    found = drawn(hypermodel, 99, pruner=optuna.pruners.HyperbandPruner(1, 9))
    assert len(found) == len(feasible) == len(as_set(found))


def test_hyperparameters_of_a_subclass_tell_candidates_apart():
    class Own(Untrained):
        def build(self, hp):
            super().build(hp)
            hp.Choice("head", ["a", "b"])  # which is not declared

    found = drawn(Own(SHAPE, 3, **{**FREE, "depths": (1, 2), "widths": 4}), 20)
    assert len(found) == len(as_set(found)) == 8
    assert {params["head"] for params in found} == {"a", "b"}


def test_what_a_user_has_enqueued_is_tried_as_it_is():
    hypermodel, feasible = within_budget(0.2, Untrained)
    wished = [
        {"depth_1": 4, "depth_2": 4, "width": 32},  # over the budget
        {"width": 32, "depth_1": 4},
        {"depth_2": 2},
    ]
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(study_name="study", storage=storage, direction="maximize")
    for params in wished:
        study.enqueue_trial(params)
    found = drawn(hypermodel, 12, storage)
    assert found[0] == wished[0]
    assert wished[1].items() <= found[1].items()
    assert wished[2].items() <= found[2].items()
    assert as_set(found[2:]) <= feasible
    assert len(as_set(found[2:])) == 10


def test_the_candidates_of_ended_trials_are_looked_at_once():
    hypermodel, _ = within_budget(1.0, Untrained)
    drawn(hypermodel, 40, sampler=optuna.samplers.RandomSampler(seed=1))
    repeats = 100  # of a space of 64
    assert hypermodel.asked <= 40 + 40 + repeats
