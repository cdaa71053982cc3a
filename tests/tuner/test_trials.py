"""What a tuner makes of its trials: taken up, warm, small first, cleaned up, written down."""

import io
import json
import pathlib
import re

import keras
import numpy as np
import pytest
import rich.console
from helpers import run_python

from keras_resblocks import tuner
from keras_resblocks.tuner import progress

EPOCHS = 5
SPACE = {"depths": (1, 2), "widths": (4,), "stages": 2, "activations": "relu", "regularizers": 0.0}


def images(count=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    y = np.arange(count) % 3
    x[:, 0, 0, 0] = 3 * y  # something to learn
    return x, y


def engine_of(directory, hypermodel=None, tuner_class=tuner.RandomSearch, **options):
    if tuner_class is tuner.RandomSearch:
        options = {"max_trials": 2, **options}
    return tuner_class(
        hypermodel or tuner.ResNetHyperModel((8, 8, 1), 3, **SPACE),
        "val_accuracy",
        seed=1,
        directory=directory,
        project_name="p",
        **options,
    )


def search(engine, epochs=EPOCHS, **options):
    x, y = images()
    options = {"validation_data": (x, y), "batch_size": 12, "shuffle": False, **options}
    engine.search(x, y, epochs=epochs, verbose=0, **options)
    return engine


def trials_of(engine):
    return [engine.oracle.trials[trial_id] for trial_id in engine.oracle.start_order]


def record_of(engine, trial):
    path = pathlib.Path(engine.get_trial_dir(trial.trial_id)) / "record.json"
    return json.loads(path.read_text())


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C at the end of some epoch of all, and a count of the epochs begun."""

    def __init__(self, after=None):
        super().__init__()
        self.after = after
        self.begun = []

    def __deepcopy__(self, memo):
        return self

    def on_epoch_begin(self, epoch, logs=None):
        if self.after is not None and len(self.begun) == self.after:
            raise KeyboardInterrupt
        self.begun.append(epoch)


class TestInterruption:
    @pytest.mark.parametrize("executions", [1, pytest.param(2, marks=pytest.mark.slow)])
    def test_a_trial_goes_on_after_its_last_epoch(self, executions, tmp_path):
        options = {"executions_per_trial": executions, "max_trials": 1}
        whole = search(engine_of(tmp_path / "whole", **options))
        after = EPOCHS * executions - 2
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, **options), callbacks=[Interrupt(after)])
        rest = Interrupt()
        engine = search(engine_of(tmp_path, **options), callbacks=[rest])
        assert rest.begun == [EPOCHS - 2, EPOCHS - 1]
        (trial,), (expected,) = trials_of(engine), trials_of(whole)
        assert trial.status == "COMPLETED"
        history, whole_history = (
            record_of(e, t)["history"] for e, t in ((engine, trial), (whole, expected))
        )
        assert history.keys() == whole_history.keys()
        for name, values in history.items():
            np.testing.assert_allclose(values, whole_history[name], rtol=1e-3, atol=1e-3)
        assert trial.score == pytest.approx(expected.score, abs=1e-6)
        for mine, its in zip(
            engine.get_best_models()[0].get_weights(), whole.get_best_models()[0].get_weights()
        ):
            np.testing.assert_allclose(mine, its, rtol=1e-3, atol=1e-4)

    def test_a_trial_whose_process_was_killed_goes_on(self, tmp_path):
        code = f"""
            import os, sys
            sys.path[:0] = {[str(path) for path in pathlib.Path(__file__).parents[:2]]!r}
            import keras
            from test_trials import engine_of, search

            class Kill(keras.callbacks.Callback):
                def on_epoch_begin(self, epoch, logs=None):
                    if epoch == 3:
                        os._exit(0)

            search(engine_of({str(tmp_path)!r}), callbacks=[Kill()])
        """
        run_python(code)
        rest = Interrupt()
        search(engine_of(tmp_path), callbacks=[rest])
        assert rest.begun == [3, 4, 0, 1, 2, 3, 4]

    def test_a_trial_that_was_trained_but_not_reported_is_not_trained_again(self, tmp_path):
        class Stop(tuner.RandomSearch):
            def run_trial(self, trial, *args, **kwargs):
                super().run_trial(trial, *args, **kwargs)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, tuner_class=Stop, max_trials=1))
        rest = Interrupt()
        engine = search(engine_of(tmp_path, max_trials=1), callbacks=[rest])
        assert rest.begun == []
        assert trials_of(engine)[0].score is not None

    def test_a_damaged_state_is_reported_and_the_trial_begins_anew(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, max_trials=1), callbacks=[Interrupt(2)])
        (path,) = tmp_path.rglob("last.npz")
        path.write_bytes(path.read_bytes()[:100])
        rest = Interrupt()
        with pytest.warns(UserWarning, match=r"last\.npz.*begins anew"):
            search(engine_of(tmp_path, max_trials=1), callbacks=[rest])
        assert rest.begun == list(range(EPOCHS))

    def test_a_state_of_another_model_is_an_error_that_names_it(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, max_trials=1), callbacks=[Interrupt(2)])
        other = tuner.ResNetHyperModel((8, 8, 1), 3, **{**SPACE, "widths": (8,)})
        engine = search(engine_of(tmp_path, other, max_trials=1, max_consecutive_failed_trials=9))
        assert "last.npz" in trials_of(engine)[0].message

    def test_a_hypermodel_that_fits_in_phases_begins_anew(self, tmp_path):
        class Phases(tuner.ResNetHyperModel):
            def fit(self, hp, model, *args, **kwargs):
                super().fit(hp, model, *args, **{**kwargs, "epochs": 1})
                return super().fit(hp, model, *args, **kwargs)

        hypermodel = Phases((8, 8, 1), 3, **SPACE)
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, hypermodel, max_trials=1), 3, callbacks=[Interrupt(3)])
        rest = Interrupt()
        engine = search(engine_of(tmp_path, hypermodel, max_trials=1), 3, callbacks=[rest])
        assert rest.begun == [0, 0, 1, 2]
        assert trials_of(engine)[0].status == "COMPLETED"


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


@pytest.mark.parametrize("scores", [[3, 1, 2], [1, 3, 2], [1, 2, 3], [float("nan"), 1, 0]])
def test_the_checkpoint_is_of_the_best_epoch(scores, tmp_path):
    script = Scripted(scores)
    engine = search(engine_of(tmp_path, max_trials=1), 3, callbacks=[script])
    best = engine.get_best_models()[0].get_weights()
    for mine, its in zip(best, script.weights[int(np.nanargmax(scores))]):
        np.testing.assert_array_equal(mine, its)
    assert not [*tmp_path.rglob("*.npz")]


@pytest.mark.slow
class TestHyperband:
    def test_rungs_are_one_straight_run(self, tmp_path):
        """The optimizer's iterations, the schedule, and (nothing is shuffled) the weights."""
        fixed = {**SPACE, "depths": 1, "learning_rates": 0.01, "schedules": "cosine"}
        hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, **fixed, optimizers=("adam", "sgd"))
        engine = engine_of(
            tmp_path, hypermodel, tuner.Hyperband, max_epochs=4, factor=2, keep_checkpoints=None
        )
        search(engine, callbacks=[rates := Rates()])
        promoted = [t for t in trials_of(engine) if t.hyperparameters.values["tuner/round"] > 0]
        assert promoted
        for trial in promoted:
            values = trial.hyperparameters.values
            begun, ended = values["tuner/initial_epoch"], values["tuner/epochs"]
            assert rates.iterations[trial.trial_id] == [2 * e for e in range(begun, ended)]
            straight = [0.005 * (1 + np.cos(np.pi * e / 4)) for e in range(begun, ended)]
            assert rates.rates[trial.trial_id] == pytest.approx(straight, rel=1e-4)

    def test_a_round_begins_with_the_last_weights_of_the_one_before(self, tmp_path):
        engine = engine_of(tmp_path, tuner_class=tuner.Hyperband, max_epochs=4, factor=2)
        script = Scripted([5, 4, 3, 2])  # the first epoch is the best, and not where it goes on
        search(engine, callbacks=[script, rates := Rates()])
        promoted = [t for t in trials_of(engine) if t.hyperparameters.values["tuner/round"] > 0]
        assert promoted
        for trial in promoted:
            parent = trial.hyperparameters.values["tuner/trial_id"]
            begun, left = rates.first[trial.trial_id], rates.last[parent]
            assert all(map(np.array_equal, begun, left))
        assert not [*tmp_path.rglob("last.npz")]  # all rounds are over


class Rates(keras.callbacks.Callback):
    """Notes iterations and learning rate of each epoch, and the weights at both ends, by trial."""

    def __init__(self):
        super().__init__()
        self.iterations, self.rates, self.first, self.last = {}, {}, {}, {}

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, logs=None):
        self.trial_id = f"{len(self.rates):04d}"
        self.iterations[self.trial_id], self.rates[self.trial_id] = [], []
        self.first[self.trial_id] = self.model.get_weights()

    def on_epoch_begin(self, epoch, logs=None):
        self.iterations[self.trial_id].append(int(self.model.optimizer.iterations))

    def on_epoch_end(self, epoch, logs=None):
        self.rates[self.trial_id].append(float(self.model.optimizer.learning_rate))
        self.last[self.trial_id] = self.model.get_weights()


def test_only_the_best_checkpoints_are_kept(tmp_path):
    hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, **{**SPACE, "widths": (2, 3, 4)})
    engine = search(engine_of(tmp_path, hypermodel, max_trials=5, keep_checkpoints=2), 1)
    kept = {path.parent.name for path in tmp_path.rglob("checkpoint.weights.h5")}
    assert kept == {f"trial_{trial.trial_id}" for trial in engine.oracle.get_best_trials(2)}
    assert len(engine.get_best_models(2)) == 2
    with pytest.raises(ValueError, match=r"keeps those of 2"):
        engine.get_best_models(3)


def test_all_checkpoints_may_be_kept(tmp_path):
    search(engine_of(tmp_path, keep_checkpoints=None), 1)
    assert len([*tmp_path.rglob("checkpoint.weights.h5")]) == 2


class Hungry(tuner.ResNetHyperModel):
    """Runs out of memory with more than 6 images a batch."""

    seen = ()

    def fit(self, hp, model, *args, batch_size=None, **kwargs):
        batch_size = hp.values.get("batch_size", batch_size or self.batch_size)
        self.seen = (*self.seen, batch_size)
        if batch_size > 6:
            raise MemoryError
        return super().fit(hp, model, *args, batch_size=batch_size, **kwargs)


@pytest.mark.parametrize(
    ("space", "batch_size", "tried"),
    [
        ({}, 12, (12, 6)),
        ({"batch_sizes": 12}, None, (12, 6)),
        ({"batch_sizes": (12, 11)}, None, None),
    ],
)
def test_a_trial_out_of_memory_is_run_again_with_half_the_batch(space, batch_size, tried, tmp_path):
    hypermodel = Hungry((8, 8, 1), 3, **SPACE, **space)
    engine = engine_of(tmp_path, hypermodel, halve_batch=True, max_trials=1)
    search(engine, 1, batch_size=batch_size)
    (trial,) = trials_of(engine)
    assert trial.status == "COMPLETED"
    if tried is None:  # searched: the recorded value stays as it was drawn
        searched = trial.hyperparameters.values["batch_size"]
        tried = (searched, searched // 2)
    assert hypermodel.seen == tried


def test_half_a_batch_that_is_too_large_fails_the_trial(tmp_path):
    hypermodel = Hungry((8, 8, 1), 3, **SPACE)
    engine = search(engine_of(tmp_path, hypermodel, halve_batch=True), 1, batch_size=16)
    assert {trial.status for trial in trials_of(engine)} == {"FAILED"}
    assert all("Out of memory" in trial.message for trial in trials_of(engine))


class TestSmallFirst:
    @pytest.mark.parametrize(
        ("tuner_class", "options"),
        [
            (tuner.RandomSearch, {"max_trials": 6}),
            (tuner.BayesianOptimization, {"max_trials": 6, "num_initial_points": 6}),
            (tuner.Hyperband, {"max_epochs": 9, "factor": 3}),
        ],
    )
    def test_begins_with_the_smallest(self, tuner_class, options, tmp_path):
        hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, stages=2)
        engine = engine_of(tmp_path, hypermodel, tuner_class, small_first=True, **options)
        params = [
            hypermodel.cost(engine.oracle.create_trial(f"tuner{i}").hyperparameters).params
            for i in range(6)
        ]
        assert params == sorted(params)
        assert len(set(params)) > 2

    def test_what_waits_outlives_the_process(self, tmp_path):
        whole = [v.values for v in issued(engine_of(tmp_path / "a", **self.options()), 6)]
        half = [v.values for v in issued(engine_of(tmp_path / "b", **self.options()), 3)]
        rest = [v.values for v in issued(engine_of(tmp_path / "b", **self.options()), 3)]
        assert half + rest == whole

    @staticmethod
    def options():
        hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, stages=2)
        return {"hypermodel": hypermodel, "max_trials": 6, "small_first": True}

    def test_a_grid_has_an_order_of_its_own(self, tmp_path):
        with pytest.raises(ValueError, match=r"`small_first`.*Received"):
            engine_of(tmp_path, tuner_class=tuner.GridSearch, small_first=True)

    def test_needs_a_hypermodel_that_knows_costs(self, tmp_path):
        with pytest.raises(ValueError, match=r"`small_first=True`.*Received"):
            engine_of(tmp_path, lambda hp: keras.Sequential(), small_first=True)


def issued(engine, count):
    for _ in range(count):
        trial = engine.oracle.create_trial("tuner0")
        engine.oracle.update_trial(trial.trial_id, {"val_accuracy": 0.0})
        trial.status = "COMPLETED"
        engine.oracle.end_trial(trial)
        engine.save()
        yield trial.hyperparameters


class TestWarmStart:
    def test_a_deeper_candidate_begins_as_the_shallower_one(self, tmp_path):
        noted = {}

        class Noting(tuner.ResNetHyperModel):
            def fit(self, hp, model, *args, **kwargs):
                depths = (hp.values["depth_1"], hp.values["depth_2"])
                before = model.predict(images()[0], verbose=0)
                result = super().fit(hp, model, *args, **kwargs)
                noted[depths] = before, model.predict(images()[0], verbose=0)
                return result

        space = {**SPACE, "blocks": ("residual", "bottleneck"), "learning_rates": 0.01}
        engine = engine_of(
            tmp_path,
            Noting((8, 8, 1), 3, **{**space, "blocks": "residual"}),
            max_trials=4,
            warm_start=True,
            small_first=True,
        )
        search(engine, 1)
        assert {trial.status for trial in trials_of(engine)} == {"COMPLETED"}
        first = noted[1, 1][1]
        assert len(noted) == 4
        np.testing.assert_allclose(noted[2, 1][0], first, rtol=1e-3, atol=1e-5)
        shallower = [noted[1, 1][1], noted[2, 1][1], noted[1, 2][1]]
        assert any(np.allclose(noted[2, 2][0], s, rtol=1e-3, atol=1e-5) for s in shallower)

    def test_off_by_default(self, tmp_path):
        assert not engine_of(tmp_path).warm_start

    @pytest.mark.parametrize(
        "options",
        [
            {"activations": "elu"},
            {"activations": ("relu", "gelu")},
            {"zero_init_residual": False},
            {"shortcuts": "projection_always"},
            {"activations": keras.layers.PReLU()},
        ],
    )
    def test_refused_where_further_blocks_are_no_identity(self, options, tmp_path):
        hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, **{**SPACE, **options})
        with pytest.raises(ValueError, match=r"(?s)`warm_start=True`.*identity.*Received"):
            engine_of(tmp_path, hypermodel, warm_start=True)

    @pytest.mark.parametrize(
        "options", [{"activations": "relu6"}, {"activations": "elu", "preactivations": True}]
    )
    def test_accepted_where_they_are(self, options, tmp_path):
        hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, **{**SPACE, **options})
        assert engine_of(tmp_path, hypermodel, warm_start=True).warm_start

    def test_refused_for_a_hypermodel_that_does_not_know_how(self, tmp_path):
        with pytest.raises(ValueError, match=r"`warm_start=True`.*Received"):
            engine_of(tmp_path, lambda hp: keras.Sequential(), warm_start=True)


def test_the_winner_is_retrained_from_scratch(tmp_path):
    engine = search(engine_of(tmp_path, warm_start=True))
    x, y = images()
    model = engine.retrain_best(x, y, epochs=3, batch_size=12, verbose=0)
    assert len(model.history.epoch) == 3
    assert int(model.optimizer.iterations) == 6
    searched = engine.get_best_models()[0]
    assert [w.shape for w in model.weights] == [w.shape for w in searched.weights]


@pytest.mark.slow
def test_hyperbands_winner_is_retrained_from_its_first_epoch(tmp_path):
    engine = engine_of(tmp_path, tuner_class=tuner.Hyperband, max_epochs=2, factor=2)
    model = search(engine).retrain_best(*images(), epochs=2, batch_size=12, verbose=0)
    assert int(model.optimizer.iterations) == 4


@pytest.mark.parametrize("kind", ["random", pytest.param("hyperband", marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_trials_and_scores(kind, tmp_path):
    runs = []
    for name in ("first", "second"):
        keras.utils.set_random_seed(len(runs))  # which is not what decides
        options = {"tuner_class": tuner.Hyperband, "max_epochs": 2, "factor": 2}
        options = options if kind == "hyperband" else {"max_trials": 3}
        engine = search(engine_of(tmp_path / name, **options), 2, shuffle=True)
        runs.append([(t.hyperparameters.values, t.score) for t in trials_of(engine)])
    assert runs[0] == runs[1]


def test_a_trial_is_written_down(tmp_path):
    engine = search(engine_of(tmp_path, max_trials=1), 2)
    (trial,) = trials_of(engine)
    record = record_of(engine, trial)
    cost = engine.hypermodel.cost(trial.hyperparameters)
    assert record["cost"] == {
        "params": cost.params,
        "trainable_params": cost.trainable_params,
        "macs": cost.macs,
        "activation_memory": 4 * cost.activations,
    }
    assert {len(values) for values in record["history"].values()} == {2}
    assert 0 < record["seconds"]["training"] < record["seconds"]["total"]
    assert "stage1_block1" in record["summary"]
    described = json.loads((tmp_path / "p" / "search.json").read_text())
    assert described["objective"] == {"name": "val_accuracy", "direction": "max"}


@pytest.mark.parametrize(
    "options",
    [
        {"small_first": 1},
        {"warm_start": "yes"},
        {"halve_batch": None},
        {"keep_checkpoints": 0},
        {"keep_checkpoints": 1.5},
    ],
)
def test_a_bad_argument_is_an_error(options, tmp_path):
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        engine_of(tmp_path, **options)


class TestLiveProgress:
    def test_a_terminal_shows_the_epoch(self, tmp_path, monkeypatch):
        shown = io.StringIO()
        console = rich.console.Console(file=shown, force_terminal=True, width=200)
        monkeypatch.setattr(progress, "Console", lambda: console)
        x, y = images()
        engine_of(tmp_path, max_trials=1).search(x, y, validation_data=(x, y), epochs=2)
        for text in ("trial  1 of 1 | begins", r"epoch 1 of 2 | val_accuracy \d", "epoch 2 of 2"):
            assert re.search(text.replace("|", r"\|"), shown.getvalue())

    def test_nothing_moves_elsewhere(self, tmp_path, capsys):
        x, y = images()
        engine_of(tmp_path).search(x, y, validation_data=(x, y), epochs=2)
        out = capsys.readouterr().out
        assert len(out.splitlines()) == 2
        assert "\x1b" not in out


MEMORY = """
    import gc, sys
    import keras
    import numpy as np
    from keras_resblocks import tuner

    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    y = np.arange(64) % 10
    resident = []

    class Search(tuner.RandomSearch):
        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            pages = int(open("/proc/self/statm").read().split()[1])
            resident.append(pages * 4096 / 2**20)

    hypermodel = tuner.ResNetHyperModel(
        (8, 8, 1), 10, depths=1, widths=16, activations="relu", blocks="residual",
        regularizers=0.0, learning_rates=tuner.Range(1e-4, 1e-2),
    )
    engine = Search(hypermodel, "val_accuracy", max_trials=30, seed=1, directory=sys.argv[1])
    engine.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    print(*resident)
"""


@pytest.mark.slow
def test_memory_is_given_back_at_the_end_of_each_trial(tmp_path):
    resident = [float(m) for m in run_python(MEMORY, str(tmp_path)).split()]
    assert len(resident) == 30
    assert max(resident[5:]) <= 1.05 * resident[4], resident
