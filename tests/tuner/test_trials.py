"""What a tuner makes of its trials: taken up, cleaned up, written down."""

import io
import json
import pathlib
import re

import keras
import keras_tuner
import numpy as np
import pytest
import rich.console
from helpers import free_port, run_python, run_together

from keras_resblocks import tuner
from keras_resblocks.tuner import progress

EPOCHS = 5
SPACE = {"depths": (1, 2), "widths": 2, "stages": 1, "activations": "relu", "regularizers": 0.0}
SPACE["blocks"] = "residual"


class Quick(keras_tuner.HyperModel):
    """A network so small that its steps are not worth tracing."""

    def build(self, hp):
        units, rate = hp.Choice("units", [2, 3, 4]), hp.Choice("rate", [1e-2, 1e-3])
        layers = [keras.layers.Flatten(), keras.layers.Dense(units, "relu")]
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3, "softmax")]
        )
        loss = "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], run_eagerly=True)
        return model


def images(count=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    y = np.arange(count) % 3
    x[:, 0, 0, 0] = 3 * y  # something to learn
    return x, y


def engine_of(directory, hypermodel=None, tuner_class=tuner.RandomSearch, **options):
    if tuner_class is tuner.RandomSearch:
        options = {"max_trials": 2, **options}
    options = {"objective": "val_accuracy", "seed": 1, "project_name": "p", **options}
    hypermodel = hypermodel or Quick()
    return tuner_class(hypermodel, directory=directory, **options)


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
    def test_a_trial_goes_on_after_its_last_epoch(self, tmp_path):
        whole = search(engine_of(tmp_path / "whole", max_trials=1))
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, max_trials=1), callbacks=[Interrupt(EPOCHS - 2)])
        rest = Interrupt()
        engine = search(engine_of(tmp_path, max_trials=1), callbacks=[rest])
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
        assert trial.best_step == expected.best_step
        for mine, its in zip(
            engine.get_best_models()[0].get_weights(), whole.get_best_models()[0].get_weights()
        ):
            np.testing.assert_allclose(mine, its, rtol=1e-3, atol=1e-4)
        assert not [*tmp_path.rglob("backup")]

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

    @pytest.mark.parametrize("scores", [[3, 1, 2], [1, 3, 2], [1, 2, 3]])
    def test_the_best_epoch_may_be_one_from_before(self, scores, tmp_path):
        script = Scripted(scores)
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, max_trials=1), 3, callbacks=[script, Interrupt(2)])
        engine = search(engine_of(tmp_path, max_trials=1), 3, callbacks=[script])
        assert trials_of(engine)[0].score == 3
        for mine, its in zip(
            engine.get_best_models()[0].get_weights(), script.weights[int(np.argmax(scores))]
        ):
            np.testing.assert_array_equal(mine, its)

    def test_a_trial_that_was_scored_is_not_trained_again(self, tmp_path):
        class Stop(tuner.RandomSearch):
            def on_trial_end(self, trial):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, tuner_class=Stop, max_trials=1))
        rest = Interrupt()
        engine = search(engine_of(tmp_path, max_trials=1), callbacks=[rest])
        assert rest.begun == []
        assert trials_of(engine)[0].score is not None

    @pytest.mark.parametrize("lost", ["training.json", "checkpoint.weights.h5"])
    def test_a_trial_with_a_damaged_backup_starts_over(self, lost, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, max_trials=1), callbacks=[Interrupt(2)])
        (path,) = tmp_path.rglob(lost)
        path.write_bytes(path.read_bytes()[:100])
        rest = Interrupt()
        search(engine_of(tmp_path, max_trials=1), callbacks=[rest])
        assert rest.begun == list(range(EPOCHS))

    @pytest.mark.parametrize("name", ["phases", "stop", "executions", "fit"])
    def test_a_trial_that_cannot_go_on_starts_over(self, name, tmp_path):
        class Phases(Quick):
            def fit(self, hp, model, *args, **kwargs):
                super().fit(hp, model, *args, **{**kwargs, "epochs": 1})
                return super().fit(hp, model, *args, **kwargs)

        class OwnFit(Quick):
            def fit(self, hp, model, *args, **kwargs):
                return super().fit(hp, model, *args, **kwargs)

        classes = {"phases": Phases, "fit": OwnFit}
        hypermodel = classes.get(name, Quick)()
        options = {"max_trials": 1, "executions_per_trial": 2 if name == "executions" else 1}
        stop = [keras.callbacks.EarlyStopping(patience=9)] if name == "stop" else []
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, hypermodel, **options), 3, callbacks=[*stop, Interrupt(2)])
        rest = Interrupt()
        engine = search(engine_of(tmp_path, hypermodel, **options), 3, callbacks=[*stop, rest])
        whole = {"phases": [0, 0, 1, 2], "executions": [0, 1, 2, 0, 1, 2]}
        assert rest.begun == whole.get(name, [0, 1, 2])
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


class TestHyperband:
    def test_a_schedule_goes_on_from_round_to_round(self, tmp_path):
        fixed = {**SPACE, "depths": 1, "learning_rates": 0.01, "schedules": "cosine"}
        hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, **fixed, optimizers=("adam", "sgd"))
        engine = engine_of(tmp_path, hypermodel, tuner.Hyperband, max_epochs=2, factor=2)
        search(engine, callbacks=[rates := Rates()])
        assert any(trial.hyperparameters.values["tuner/round"] for trial in trials_of(engine))
        for trial, seen in zip(trials_of(engine), rates.seen):
            values = trial.hyperparameters.values
            epochs = range(values["tuner/initial_epoch"], values["tuner/epochs"])
            expected = [0.005 * (1 + np.cos(np.pi * epoch / 2)) for epoch in epochs]
            assert seen == pytest.approx(expected, rel=1e-4)

    def test_a_killed_search_keeps_what_later_rounds_begin_with(self, tmp_path):
        options = dict(tuner_class=tuner.Hyperband, max_epochs=2, factor=2, keep_checkpoints=1)
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(tmp_path, **options), callbacks=[Interrupt(3)])
        engine = search(engine_of(tmp_path, **options))
        assert {trial.status for trial in trials_of(engine)} == {"COMPLETED"}
        assert len(trials_of(engine)) == engine.oracle.total_trials()


class Rates(keras.callbacks.Callback):
    """Notes the learning rate of each epoch, a list for each trial."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, logs=None):
        self.seen.append([])

    def on_epoch_end(self, epoch, logs=None):
        self.seen[-1].append(float(self.model.optimizer.learning_rate))


def test_only_the_best_checkpoints_are_kept(tmp_path):
    engine = search(engine_of(tmp_path, max_trials=5, keep_checkpoints=2), 1)
    kept = {path.parent.name for path in tmp_path.rglob("checkpoint.weights.h5")}
    assert kept == {f"trial_{trial.trial_id}" for trial in engine.oracle.get_best_trials(2)}
    assert len(engine.get_best_models(2)) == 2
    with pytest.raises(ValueError, match=r"`trial`.*best 2 trials.*Received"):
        engine.get_best_models(3)


def test_all_checkpoints_may_be_kept(tmp_path):
    search(engine_of(tmp_path, keep_checkpoints=None), 1)
    assert len([*tmp_path.rglob("checkpoint.weights.h5")]) == 2


class TestAnotherSpace:
    def test_a_search_that_goes_on_with_another_space_says_so(self, tmp_path):
        narrow, wide = (
            tuner.ResNetHyperModel((8, 8, 1), 3, **{**SPACE, "depths": depths})
            for depths in ((1, 2), (1, 2, 3))
        )
        engine_of(tmp_path, narrow).oracle.save()
        changed = r"depth_1: Choice\(\[1, 2\]\) -> Choice\(\[1, 2, 3\]\)"
        with pytest.warns(UserWarning, match=changed):
            engine_of(tmp_path, wide)

    def test_so_it_is_for_any_hypermodel(self, tmp_path):
        def build(hp, values=(1, 2)):
            hp.Choice("units", list(values))
            model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
            model.compile(loss="mse")
            return model

        engine_of(tmp_path, build).oracle.save()
        with pytest.warns(UserWarning, match="units"):
            engine_of(tmp_path, lambda hp: build(hp, (1, 2, 3)))

    def test_the_same_space_is_no_news(self, tmp_path, recwarn):
        engine_of(tmp_path).oracle.save()
        engine_of(tmp_path)
        assert not [w for w in recwarn if "space" in str(w.message)]

    def test_a_value_that_the_space_does_not_know_is_an_error(self):
        hp = keras_tuner.HyperParameters()
        hp.values = {"activation": "gelu"}
        hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, activations=("relu", "elu"))
        with pytest.raises(ValueError, match=r"`activation`.*'relu', 'elu'.*'gelu'"):
            hypermodel.build(hp)


def test_the_winner_is_retrained_from_scratch(tmp_path):
    engine = search(engine_of(tmp_path))
    x, y = images()
    model = engine.retrain_best(x, y, epochs=3, batch_size=12, verbose=0)
    assert len(model.history.epoch) == 3
    assert int(model.optimizer.iterations) == 6
    searched = engine.get_best_models()[0]
    assert [w.shape for w in model.weights] == [w.shape for w in searched.weights]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_trials_and_scores(seed, tmp_path):
    runs = []
    for name, max_trials in (("first", 2), ("second", 12)):
        keras.utils.set_random_seed(len(runs))  # which is not what decides
        engine = engine_of(tmp_path / name, seed=seed, max_trials=max_trials)
        if max_trials == 12:
            engine.oracle.max_trials = 2
        search(engine, 1, shuffle=True)
        runs.append([(t.hyperparameters.values, t.score) for t in trials_of(engine)])
    assert runs[0] == runs[1]


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


def test_a_trial_is_written_down(tmp_path):
    hypermodel = tuner.ResNetHyperModel((8, 8, 1), 3, **SPACE)
    engine = search(engine_of(tmp_path, hypermodel, max_trials=1), 2)
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


@pytest.mark.parametrize("options", [{"keep_checkpoints": 0}, {"keep_checkpoints": 1.5}])
def test_a_bad_argument_is_an_error(options, tmp_path):
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        engine_of(tmp_path, **options)


class TestObjective:
    def test_a_misspelt_one_is_an_error_after_the_first_epoch(self, tmp_path):
        objective = keras_tuner.Objective("val_acuracy", "max")
        with pytest.raises(ValueError, match=r"`objective`.*val_accuracy.*Received.*val_acuracy"):
            search(engine_of(tmp_path, objective=objective), callbacks=[count := Interrupt()])
        assert count.begun == [0]

    def test_validation_data_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(ValueError, match="Validation data is missing"):
            search(engine_of(tmp_path), validation_data=None)

    def test_one_that_fit_computes_is_not_missed(self, tmp_path):
        class Computed(Quick):
            def fit(self, hp, model, *args, **kwargs):
                super().fit(hp, model, *args, **kwargs)
                return {"size": model.count_params()}

        objective = keras_tuner.Objective("size", "min")
        engine = search(engine_of(tmp_path, Computed(), objective=objective), 1)
        assert {trial.status for trial in trials_of(engine)} == {"COMPLETED"}


def test_a_chief_and_a_worker_search_as_kerastuners_do(tmp_path):
    code = f"""
        import sys
        sys.path[:0] = {[str(path) for path in pathlib.Path(__file__).parents[:2]]!r}
        from test_trials import engine_of, search

        search(engine_of({str(tmp_path)!r}), 1)
    """
    environment = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": free_port()}
    run_together(
        code,
        [{**environment, "KERASTUNER_TUNER_ID": name} for name in ("chief", "worker")],
    )
    engine = engine_of(tmp_path)
    assert [trial.status for trial in trials_of(engine)] == ["COMPLETED"] * 2


class TestLiveProgress:
    def test_a_terminal_shows_the_epoch(self, tmp_path, monkeypatch):
        shown = io.StringIO()
        console = rich.console.Console(file=shown, force_terminal=True, width=200)
        monkeypatch.setattr(progress, "Console", lambda: console)
        x, y = images()
        engine = engine_of(tmp_path, max_trials=1)
        engine.search(x, y, validation_data=(x, y), epochs=2)
        for text in ("trial 0 | begins", r"epoch 1 of 2 | val_accuracy \d", "epoch 2 of 2"):
            assert re.search(text.replace("|", r"\|"), shown.getvalue())
        (values,) = [trial.hyperparameters.values.items() for trial in trials_of(engine)]
        assert ", ".join(f"{name} {value:.4g}" for name, value in values) in shown.getvalue()

    def test_no_line_is_wider_than_a_terminal(self):
        standing = lambda: (10, 12, "best 0.1234 (10)")  # noqa: E731
        progress_of = progress.Progress("val_accuracy", standing)
        progress_of.begin("10", {})
        progress_of._durations = [3560.0]
        line = "trial 10 | val_accuracy 0.1234 in 59 min | best 0.1234 (10) | 10/12, 2.0 h left"
        assert progress_of.line("val_accuracy 0.1234") == line
        assert len(line) < 80

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
