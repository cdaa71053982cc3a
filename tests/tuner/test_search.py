import json
import math

import keras
import keras_tuner
import numpy as np
import pytest

from keras_resblocks import cost, create_model, tuner
from keras_resblocks.tuner.engines import _HyperbandOracle

TUNERS = {
    "random": (tuner.RandomSearch, {"max_trials": 3}),
    "hyperband": (tuner.Hyperband, {"max_epochs": 2, "factor": 2}),
    "bayesian": (tuner.BayesianOptimization, {"max_trials": 5, "num_initial_points": 2}),
}
SPACE = {"depths": (1, 2), "widths": (2, 4), "stages": 2}


def space(**options):
    return tuner.ResNetHyperModel((8, 8, 1), 3, **{**SPACE, **options})


def images(count=24, classes=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 8, 8, 1)).astype("float32"), np.arange(count) % classes


def parameters(values=None):
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values or {})
    return hp


def all_values(hypermodel):
    """Every combination of hyperparameter values in a space."""
    hp = keras_tuner.HyperParameters()
    hypermodel.candidate(hp)
    hypermodel.choose(hp, "learning_rate")
    combinations = [{}]
    for parameter in hp.space:
        combinations = [
            {**values, parameter.name: value}
            for values in combinations
            for value in parameter.values
        ]
    return combinations


def search(kind, tmp_path, hypermodel=None, verbose=0, **options):
    tuner_class, arguments = TUNERS[kind]
    engine = tuner_class(
        hypermodel or space(),
        "val_accuracy",
        seed=1,
        directory=tmp_path,
        project_name=kind,
        **{**arguments, **options},
    )
    x, y = images()
    engine.search(x, y, validation_data=(x, y), epochs=1, batch_size=12, verbose=verbose)
    return engine


class TestHyperModel:
    def test_declares_depth_for_each_stage_and_the_rest_once(self):
        hp = keras_tuner.HyperParameters()
        space(shortcuts=("projection", "zero_pad")).build(hp)
        assert set(hp.values) == {
            *("block", "depth_1", "depth_2", "width"),
            *("activation", "shortcut", "l2", "learning_rate"),
        }

    def test_one_value_is_fixed_and_no_hyperparameter(self):
        hp = keras_tuner.HyperParameters()
        hypermodel = space(blocks="residual", activations=("elu",), regularizers=0.0, depths=2)
        spec, options = hypermodel.candidate(hp)
        assert spec.depths == (2, 2)
        assert options["activation"] == "elu"
        assert set(hp.values) == {"width"}

    def test_candidate_is_what_its_values_say(self):
        values = {
            "block": "bottleneck",
            "depth_1": 2,
            "depth_2": 1,
            "width": 4,
            "activation": "elu",
            "l2": 1e-4,
            "learning_rate": 1e-3,
        }
        model = space().build(parameters(values))
        names = [layer.name for layer in model.layers if layer.name.startswith("stage")]
        assert names == ["stage1_block1", "stage1_block2", "stage2_block1"]
        block = model.get_layer("stage1_block2")
        assert block.filters == 4
        assert block.get_config()["activation"] == "elu"
        assert float(block.kernel_regularizer.l2) == pytest.approx(1e-4)
        assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)

    def test_layers_and_policies_can_be_listed(self):
        hypermodel = space(
            activations=("relu", keras.layers.PReLU(shared_axes=[1, 2])), blocks="residual"
        )
        hp = parameters({"activation": "PReLU"})
        assert any("alpha" in weight.path for weight in hypermodel.build(hp).weights)

    def test_block_options_reach_the_blocks(self):
        model = space(normalization="group").build(parameters())
        assert not any("moving" in weight.path for weight in model.weights)

    @pytest.mark.parametrize(
        ("stem", "size", "pixels"),
        [("auto", 16, 16), ("auto", 64, 16), ("small", 64, 64), ("large", 16, 4)],
    )
    def test_stem_suits_the_image(self, stem, size, pixels):
        hypermodel = tuner.ResNetHyperModel((size, size, 3), 3, stem=stem, **SPACE)
        model = hypermodel.build(parameters())
        assert model.get_layer("stage1_block1").output.shape[1] == pixels

    def test_cost_is_that_of_the_built_model(self):
        hypermodel = space()
        for values in all_values(hypermodel)[::37]:
            hp = parameters(values)
            assert hypermodel.cost(hp) == cost(hypermodel.build(hp))

    def test_compile_can_be_overridden(self):
        class Momentum(tuner.ResNetHyperModel):
            def compile(self, hp, model):
                model.compile(keras.optimizers.SGD(self.choose(hp, "learning_rate")), "mse")

        model = Momentum((8, 8, 1), 3, **SPACE).build(parameters())
        assert isinstance(model.optimizer, keras.optimizers.SGD)

    def test_candidate_over_budget_fails_its_trial_in_any_tuner(self):
        hypermodel = space(max_params=2000)
        over = max(all_values(hypermodel), key=lambda v: hypermodel.cost(parameters(v)).params)
        with pytest.raises(keras_tuner.errors.FailedTrialError, match="max_params=2000"):
            hypermodel.build(parameters(over))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_params": 10}, r"smallest has \d+ parameters.*Received: max_params=10"),
        ({"max_macs": 10}, r"smallest has .* \d+ multiply-accumulates.*max_macs=10"),
        ({"max_params": 0}, "`max_params`.*Received: max_params=0"),
        ({"depths": ()}, "`depths`.*Received"),
        ({"depths": (0, 1)}, "`depths`.*Received"),
        ({"widths": ("wide",)}, "`width`.*Received"),
        ({"widths": (4, 4)}, "`widths`.*Received"),
        ({"blocks": ("residul",)}, "`block`.*Received"),
        ({"activations": ("relu", "eluu")}, "`activation`.*Received"),
        ({"shortcuts": ("projektion",)}, "`shortcut`.*Received"),
        ({"stages": 0}, "`stages`.*Received: stages=0"),
        ({"stem": "huge"}, "`stem`.*Received: stem='huge'"),
        ({"regularizers": (-1e-4,)}, "`regularizers`.*Received"),
        ({"learning_rates": (0.0,)}, "`learning_rates`.*Received"),
        ({"normalisation": "group"}, "normalization.*Received"),
    ],
)
def test_bad_space_is_an_error_at_construction(options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        space(**options)


@pytest.mark.parametrize("kind", TUNERS)
class TestTuners:
    def test_finds_a_model_that_loads_and_scores(self, kind, tmp_path):
        engine = search(kind, tmp_path)
        (best,) = engine.get_best_models(1)
        best.save(tmp_path / "best.keras")
        x, y = images()
        loaded = keras.saving.load_model(tmp_path / "best.keras")
        score = loaded.evaluate(x, y, verbose=0)[1]
        assert score == pytest.approx(engine.oracle.get_best_trials(1)[0].score, abs=1e-4)

    def test_is_kerastuners_own_and_leaves_its_files(self, kind, tmp_path):
        engine = search(kind, tmp_path)
        assert isinstance(engine, getattr(keras_tuner, type(engine).__name__))
        state = json.loads((tmp_path / kind / "oracle.json").read_text())
        assert len(state["start_order"]) == len(list((tmp_path / kind).glob("trial_*")))

    def test_every_trial_is_within_the_budget(self, kind, tmp_path):
        # A third of the space or less is within it; no other candidate may use up a trial.
        hypermodel = space(max_params=1500)
        candidates = all_values(hypermodel)
        share = sum(map(hypermodel.within_budget, candidates)) / len(candidates)
        assert 0 < share < 0.4
        engine = search(kind, tmp_path, hypermodel)
        trials = engine.oracle.trials.values()
        assert len(trials) >= 3
        assert {trial.status for trial in trials} == {"COMPLETED"}
        assert all(hypermodel.cost(trial.hyperparameters).params <= 1500 for trial in trials)

    def test_resumes_where_it_stopped(self, kind, tmp_path):
        first = search(kind, tmp_path)
        again = search(kind, tmp_path)  # nothing is left to try
        assert list(again.oracle.trials) == list(first.oracle.trials)

    def test_accepts_any_hypermodel(self, kind, tmp_path):
        def build(hp):
            model = create_model(
                "resnet20_cifar", input_shape=(8, 8, 1), classes=3, activation="elu"
            )
            rate = hp.Choice("rate", [1e-3, 1e-2])
            model.compile(
                keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", ["accuracy"]
            )
            return model

        engine = search(kind, tmp_path, build, **({} if kind == "hyperband" else {"max_trials": 1}))
        assert engine.oracle.get_best_trials(1)[0].score is not None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", TUNERS)
def test_no_proposal_is_over_budget(kind, seed, tmp_path):
    """Proposals alone, with made-up scores: many of them, nothing trained."""
    hypermodel = space(max_params=1500, learning_rates=tuple(10.0**-i for i in range(1, 6)))
    tuner_class, arguments = TUNERS[kind]
    if kind != "hyperband":
        arguments = {**arguments, "max_trials": 12}
    engine = tuner_class(hypermodel, "val_accuracy", seed=seed + 1, directory=tmp_path, **arguments)
    for number in range(12):
        trial = engine.oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            break
        values = trial.hyperparameters.values
        assert hypermodel.within_budget(values)
        engine.oracle.update_trial(trial.trial_id, {"val_accuracy": math.sin(number)}, step=0)
        trial.status = "COMPLETED"
        engine.oracle.end_trial(trial)
    assert number >= 4


def test_hyperband_knows_its_number_of_trials(tmp_path):
    engine = search("hyperband", tmp_path)
    assert engine.oracle.total_trials() == len(engine.oracle.trials)
    endless = _HyperbandOracle("val_accuracy", hyperband_iterations=None)
    assert endless.total_trials() is None


def test_hyperband_carries_the_optimizer_from_round_to_round(tmp_path):
    iterations = []

    class Recorder(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            iterations.append(int(self.model.optimizer.iterations))

        def __deepcopy__(self, memo):
            return Recorder()

    engine = tuner.Hyperband(
        space(), "val_accuracy", max_epochs=2, factor=2, seed=1, directory=tmp_path
    )
    x, y = images()
    engine.search(x, y, validation_data=(x, y), batch_size=12, callbacks=[Recorder()], verbose=0)
    continued = [
        trial
        for trial in engine.oracle.trials.values()
        if trial.hyperparameters.values["tuner/initial_epoch"] > 0
    ]
    assert continued
    assert sum(count > 0 for count in iterations) == len(continued)


class TestProgressAndReport:
    def test_a_line_for_each_trial(self, tmp_path, capsys):
        search("random", tmp_path, verbose=1)
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial")]
        assert [line.split("|")[0].strip() for line in lines] == [
            f"trial  {i} of 3" for i in (1, 2, 3)
        ]
        assert all("val_accuracy" in line and "best" in line for line in lines)
        assert "left" in lines[0]
        assert "left" not in lines[-1]

    def test_silent_with_verbose_0(self, tmp_path, capsys):
        search("random", tmp_path, verbose=0)
        assert "trial" not in capsys.readouterr().out

    def test_a_failed_trial_says_why(self, tmp_path, capsys):
        class Broken(tuner.ResNetHyperModel):
            def compile(self, hp, model):
                raise RuntimeError("no such optimizer")

        broken = Broken((8, 8, 1), 3, **SPACE)
        with pytest.raises(RuntimeError):
            search("random", tmp_path, broken, verbose=1)
        assert "no such optimizer" in capsys.readouterr().out

    def test_table_and_plot_show_every_trial(self, tmp_path, capsys):
        engine = search("random", tmp_path)
        tuner.print_trials(engine)
        table = capsys.readouterr().out
        rows = tuner.trial_rows(engine)
        assert [row.number for row in rows] == [1, 2, 3]
        for row in rows:
            assert f"{row.score:.4f}" in table
            assert f"{row.cost.params:,}" in table
        tuner.plot_trials(engine, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
