"""What a tuner makes of its trials: how they go on, what they are seeded by, what is refused."""

import functools
import gc
import json
import pathlib
import random

import keras
import keras_tuner
import numpy as np
import pytest
from helpers import free_port, run_python, run_together, to_numpy
from searches import DATA, SHAPE, Epochs, classifier, interrupted, parameters, trials_of

from keras_resblocks import tuner

SPACE = {"depths": (1, 2), "widths": 2, "stages": 1, "activations": "relu", "regularizers": 0.0}
SPACE["blocks"] = "residual"


class Quick(keras_tuner.HyperModel):
    """A network so small that its steps are not worth tracing."""

    def build(self, hp):
        units, rate = hp.Choice("units", [2, 3, 4]), hp.Choice("rate", [1e-2, 1e-3])
        block = keras.layers.Dense(units, "relu")
        return classifier(block, optimizer=keras.optimizers.Adam(rate), run_eagerly=True)


def engine_of(directory, hypermodel=None, tuner_class=tuner.RandomSearch, **options):
    if tuner_class is tuner.RandomSearch:
        options = {"max_trials": 1, **options}
    options = {"objective": "val_accuracy", "seed": 1, "project_name": "p", **options}
    return tuner_class(hypermodel or Quick(), directory=directory, **options)


def search(directory, hypermodel=None, epochs=5, fit=DATA, callbacks=(), **options):
    engine = engine_of(directory, hypermodel, **options)
    engine.search(**fit, epochs=epochs, callbacks=[*callbacks], shuffle=False, verbose=0)
    return engine


def record_of(engine, trial):
    path = pathlib.Path(engine.get_trial_dir(trial.trial_id)) / "record.json"
    return json.loads(path.read_text())


# How a trial goes on


def test_a_trial_goes_on_after_its_last_epoch(tmp_path):
    whole = search(tmp_path / "whole")
    engine, begun = interrupted(functools.partial(search, tmp_path), 3)
    assert begun == [3, 4]
    (trial,), (expected,) = trials_of(engine), trials_of(whole)
    assert trial.status == "COMPLETED"
    history, whole_history = (
        record_of(engine, trial)["history"],
        record_of(whole, expected)["history"],
    )
    assert history.keys() == whole_history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(values, whole_history[name], rtol=1e-3, atol=1e-3)
    assert trial.score == pytest.approx(expected.score, abs=1e-6)
    assert trial.best_step == expected.best_step
    for mine, its in zip(*(one.get_best_models()[0].get_weights() for one in (engine, whole))):
        np.testing.assert_allclose(mine, its, rtol=1e-3, atol=1e-4)
    assert not [*tmp_path.rglob("backup")]


IMPORT = f"""
    import sys
    sys.path[:0] = {[str(path) for path in pathlib.Path(__file__).parents[:2]]!r}
    from test_trials import *
"""


def test_a_trial_whose_process_was_killed_goes_on(tmp_path):
    code = f"""{IMPORT}
    import os

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                os._exit(0)

    search({str(tmp_path)!r}, max_trials=2, callbacks=[Kill()])
    """
    run_python(code)
    rest = Epochs()
    search(tmp_path, max_trials=2, callbacks=[rest])
    assert rest.begun == [3, 4, 0, 1, 2, 3, 4]


class Scripted(keras.callbacks.Callback):
    """Sets the score of each epoch, and notes the weights."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores
        self.weights = []

    def __deepcopy__(self, memo):
        return self

    def on_epoch_end(self, epoch, logs=None):
        logs["val_accuracy"] = self.scores[epoch]
        self.weights.append(self.model.get_weights())


@pytest.mark.parametrize("after", [None, 2])
@pytest.mark.parametrize("scores", [[3, 1, 2], [1, 3, 2], [1, 2, 3], [float("nan"), 1, 0]])
def test_the_checkpoint_is_of_the_best_epoch_also_of_one_before_an_interruption(
    scores, after, tmp_path
):
    script = Scripted(scores)
    run = functools.partial(search, tmp_path, epochs=3)
    if after is None:
        engine = run(callbacks=[script])
    else:
        engine, _ = interrupted(run, after, [script])
    if not np.isnan(scores).any():  # of which KerasTuner makes a score that is none
        assert trials_of(engine)[0].score == 3
    best = engine.get_best_models()[0].get_weights()
    for mine, its in zip(best, script.weights[int(np.nanargmax(scores))]):
        np.testing.assert_array_equal(mine, its)


def test_a_trial_that_was_scored_is_not_trained_again(tmp_path):
    class Stop(tuner.RandomSearch):
        def on_trial_end(self, trial):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, tuner_class=Stop, max_trials=1)
    rest = Epochs()
    engine = search(tmp_path, callbacks=[rest])
    assert rest.begun == []
    assert trials_of(engine)[0].score is not None


@pytest.mark.parametrize("lost", ["training.json", "checkpoint.weights.h5"])
def test_a_trial_with_a_damaged_backup_starts_over(lost, tmp_path):
    def damaged(callbacks):
        for path in tmp_path.rglob(lost):
            path.write_bytes(path.read_bytes()[:100])
        return search(tmp_path, epochs=3, callbacks=callbacks)

    assert interrupted(damaged, 2)[1] == [0, 1, 2]


class Phases(Quick):
    def fit(self, hp, model, *args, **kwargs):
        super().fit(hp, model, *args, **{**kwargs, "epochs": 1})
        return super().fit(hp, model, *args, **kwargs)


class OwnFit(Quick):
    def fit(self, hp, model, *args, **kwargs):
        return super().fit(hp, model, *args, **kwargs)


STOP = keras.callbacks.EarlyStopping(patience=9)
STARTING_OVER = {
    "two phases": ({"hypermodel": Phases()}, (), [0, 0, 1, 2]),
    "a fit of its own": ({"hypermodel": OwnFit()}, (), [0, 1, 2]),
    "executions": ({"executions_per_trial": 2}, (), [0, 1, 2, 0, 1, 2]),
    "a callback with a state": ({}, [STOP], [0, 1, 2]),
}


@pytest.mark.parametrize("name", STARTING_OVER)
def test_a_trial_that_cannot_go_on_starts_over(name, tmp_path):
    options, callbacks, expected = STARTING_OVER[name]
    run = functools.partial(search, tmp_path, epochs=3, **options)
    engine, begun = interrupted(run, 2, callbacks)
    assert begun == expected
    assert trials_of(engine)[0].status == "COMPLETED"


HYPERBAND = {"tuner_class": tuner.Hyperband, "max_epochs": 2, "factor": 2}


def test_a_schedule_goes_on_from_round_to_round_of_hyperband(tmp_path):
    options = {**SPACE, "depths": 1, "learning_rates": 0.01, "schedules": "cosine"}
    hypermodel = tuner.ResNetHyperModel(SHAPE, 3, **options, optimizers=("adam", "sgd"))
    engine = search(tmp_path, hypermodel, **HYPERBAND)
    assert any(trial.hyperparameters.values["tuner/round"] for trial in trials_of(engine))
    for trial in trials_of(engine):
        values = trial.hyperparameters.values
        epochs = range(values["tuner/initial_epoch"], values["tuner/epochs"])
        expected = [0.005 * (1 + np.cos(np.pi * epoch / 2)) for epoch in epochs]
        seen = record_of(engine, trial)["history"]["learning_rate"]
        assert seen == pytest.approx(expected, rel=1e-4)


def test_a_killed_search_keeps_what_later_rounds_of_hyperband_begin_with(tmp_path):
    run = functools.partial(search, tmp_path, keep_checkpoints=1, **HYPERBAND)
    engine, _ = interrupted(run, 3)
    assert [trial.status for trial in trials_of(engine)] == ["COMPLETED"] * 5


@pytest.mark.parametrize("unlucky", [False, True])
def test_no_checkpoint_is_missed_that_hyperband_has_no_more_use_for(unlucky, tmp_path):
    """Neither by the model of the best trial, nor by one of the last round that is run again."""

    class Rates(keras_tuner.HyperModel):
        last_rounds = 0

        def build(self, hp):
            rate = hp.Float("rate", 1e-3, 1e-2)
            return classifier(optimizer=keras.optimizers.Adam(rate), run_eagerly=True)

        def fit(self, hp, model, *args, **kwargs):
            self.last_rounds += hp.get("tuner/round") == 2
            if unlucky and self.last_rounds == 1:
                raise RuntimeError("bad luck")
            return super().fit(hp, model, *args, **kwargs)

    scores = [0.4, 0.3, 0.2, 0.1] if unlucky else [0.1, 0.2, 0.3, 0.4]
    options = {**HYPERBAND, "max_epochs": 4, "keep_checkpoints": 1, "max_retries_per_trial": 1}
    engine = search(tmp_path, Rates(), callbacks=[Scripted(scores)], **options)
    (best,) = engine.oracle.get_best_trials(1)
    assert ("tuner/trial_id" in best.hyperparameters.values) is not unlucky
    assert {trial.status for trial in trials_of(engine)} == {"COMPLETED"}
    assert engine.get_best_models(1)
    assert len([*tmp_path.rglob("checkpoint.weights.h5")]) == 1


def test_a_grid_goes_on_with_hyperparameters_that_a_trial_has_found(tmp_path):
    def build(hp):
        if hp.Int("units", 2, 4) > 2:
            hp.Boolean("late", default=True)
        return classifier(run_eagerly=True)

    run = functools.partial(search, hypermodel=build, epochs=1, tuner_class=tuner.GridSearch)
    whole, (engine, begun) = run(tmp_path / "whole"), interrupted(lambda **o: run(tmp_path, **o), 3)
    values, expected = (
        [trial.hyperparameters.values for trial in trials_of(one)] for one in (engine, whole)
    )
    assert values == expected
    assert len(begun) == 2


def test_the_best_is_retrained_as_its_tuner_compiles_it(tmp_path):
    engine = search(tmp_path, epochs=1, optimizer="sgd")
    assert engine.retrain_best(**DATA, verbose=0).optimizer.name.startswith("sgd")


def test_all_checkpoints_may_be_kept(tmp_path):
    search(tmp_path, epochs=1, max_trials=2, keep_checkpoints=None)
    assert len([*tmp_path.rglob("checkpoint.weights.h5")]) == 2


@pytest.mark.parametrize("options", [{"keep_checkpoints": 0}, {"keep_checkpoints": 1.5}])
def test_a_bad_argument_is_an_error(options, tmp_path):
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        engine_of(tmp_path, **options)


# A search that goes on in another space


def ours(values):
    return tuner.ResNetHyperModel(SHAPE, 3, **{**SPACE, "depths": values})


def of_a_user(values):
    def build(hp):
        hp.Choice("depth_1", list(values))
        return classifier()

    return build


@pytest.mark.parametrize("make", [ours, of_a_user])
def test_a_search_that_goes_on_with_another_space_says_so(make, tmp_path, recwarn):
    engine_of(tmp_path, make((1, 2))).oracle.save()
    engine_of(tmp_path, make((1, 2)))
    assert not [w for w in recwarn if "space" in str(w.message)]
    with pytest.warns(UserWarning, match=r"depth_1: Choice\(\[1, 2\]\) -> Choice\(\[1, 2, 3\]\)"):
        engine_of(tmp_path, make((1, 2, 3)))


def test_a_value_that_the_space_does_not_know_is_an_error():
    hypermodel = tuner.ResNetHyperModel(SHAPE, 3, activations=("relu", "elu"))
    with pytest.raises(ValueError, match=r"`activation`.*'relu', 'elu'.*'gelu'"):
        hypermodel.build(parameters(activation="gelu"))


# Seeds


class Drawing(Quick):
    """Notes what training draws by chance."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def fit(self, hp, model, *args, **kwargs):
        dropped = keras.layers.Dropout(0.5)(np.ones((1, 20), "float32"), training=True)
        drawn = [random.random(), *np.random.rand(3)]
        for tensor in (dropped, keras.random.normal((3,)), *model.weights):
            drawn.extend(to_numpy(tensor).ravel())
        if keras.backend.backend() == "torch":
            import torch

            drawn.extend(torch.rand(3).tolist())
        self.drawn.append(drawn)
        return super().fit(hp, model, *args, **{**kwargs, "shuffle": True})


def test_the_same_seed_gives_the_same_trials_scores_and_draws(tmp_path):
    runs = []
    for seed, max_trials in ((0, 2), (0, 12), (1, 2), (1, 12)):
        keras.utils.set_random_seed(len(runs))  # which is not what decides
        options = {"seed": seed, "max_trials": max_trials, "directory": tmp_path / f"{len(runs)}"}
        engine = tuner.RandomSearch(hypermodel := Drawing(), "val_accuracy", **options)
        engine.oracle.max_trials = 2
        engine.search(**DATA, epochs=1, verbose=0)
        trials = [(t.hyperparameters.values, t.score) for t in trials_of(engine)]
        runs.append((trials, hypermodel.drawn))
    assert runs[0] == runs[1]
    assert runs[2] == runs[3]
    assert runs[0][1] != runs[2][1]


def test_what_a_promoted_trial_lacks_is_drawn_by_the_seed(tmp_path):
    class Late(tuner.Hyperband):
        """The second trial is the first to ask for `rate`; the first one is promoted."""

        def run_trial(self, trial, *args, **kwargs):
            if trial.trial_id != "0000":
                trial.hyperparameters.Float("rate", 0.0, 1.0)
                self.oracle.update_space(trial.hyperparameters)
            return -int(trial.trial_id)

    rates = []
    for name in ("first", "second"):
        options = {"max_epochs": 2, "factor": 2, "seed": 1, "directory": tmp_path / name}
        engine = Late(lambda hp: hp.Choice("units", range(9)), "val_accuracy", **options)
        engine.search(verbose=0)
        values = [trial.hyperparameters.values for trial in trials_of(engine)]
        rates += [one["rate"] for one in values if one.get("tuner/trial_id") == "0000"]
    assert rates[0] == rates[1] > 0


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="of the others")
def test_a_search_on_another_backend_does_not_import_tensorflow(tmp_path):
    code = (
        f"{IMPORT}    search({str(tmp_path)!r}, epochs=1)\n    print('tensorflow' in sys.modules)"
    )
    assert run_python(code).split() == ["False"]


# Objectives


def test_a_misspelt_objective_is_an_error_after_the_first_epoch(tmp_path):
    objective = keras_tuner.Objective("val_acuracy", "max")
    with pytest.raises(ValueError, match=r"`objective`.*val_accuracy.*Received.*val_acuracy"):
        search(tmp_path, objective=objective, callbacks=[epochs := Epochs()])
    assert epochs.begun == [0]


def test_validation_data_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="Validation data is missing"):
        search(tmp_path, fit={**DATA, "validation_data": None})


def test_an_objective_that_fit_computes_is_not_missed(tmp_path):
    class Computed(Quick):
        def fit(self, hp, model, *args, **kwargs):
            super().fit(hp, model, *args, **kwargs)
            return {"size": model.count_params()}

    engine = search(tmp_path, Computed(), 1, objective=keras_tuner.Objective("size", "min"))
    assert trials_of(engine)[0].status == "COMPLETED"


# Processes


def test_a_chief_and_a_worker_search_as_kerastuners_do(tmp_path):
    environment = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": free_port()}
    run_together(
        f"{IMPORT}    search({str(tmp_path)!r}, epochs=1, max_trials=2)",
        [{**environment, "KERASTUNER_TUNER_ID": name} for name in ("chief", "worker")],
    )
    trials = trials_of(engine_of(tmp_path, max_trials=2))
    assert [trial.status for trial in trials] == ["COMPLETED"] * 2


@pytest.mark.parametrize("known", [False, True])
def test_a_search_leaves_the_collection_of_garbage_as_it_was(known, tmp_path):
    """It looks for garbage among what is new, unless the user has said what is."""
    gc.unfreeze()
    if known:
        gc.freeze()
    within = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: within.append(gc.get_freeze_count())
    )
    search(tmp_path, epochs=1, callbacks=[note])
    assert within[0] > 0
    assert (gc.get_freeze_count() > 0) == known


MEMORY = f"""{IMPORT}
    resident = []

    class Search(tuner.RandomSearch):
        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            pages = int(open("/proc/self/statm").read().split()[1])
            resident.append(pages * 4096 / 2**20)

    space = {{**SPACE, "depths": 1, "widths": 16, "learning_rates": tuner.Range(1e-4, 1e-2)}}
    hypermodel = tuner.ResNetHyperModel(SHAPE, 3, **space)
    search(sys.argv[1], hypermodel, 1, tuner_class=Search, max_trials=30)
    print(*resident)
"""


@pytest.mark.slow
def test_memory_is_given_back_at_the_end_of_each_trial(tmp_path):
    resident = [float(m) for m in run_python(MEMORY, str(tmp_path)).split()]
    assert len(resident) == 30
    assert max(resident[5:]) <= 1.05 * resident[4], resident
