import json
import math

import keras
import keras_tuner
import numpy as np
import pytest

from keras_resblocks import cost, tuner
from keras_resblocks.tuner.oracles import HyperbandOracle

TUNERS = {
    "random": (tuner.RandomSearch, {"max_trials": 3}),
    "hyperband": (tuner.Hyperband, {"max_epochs": 2, "factor": 2}),
    "bayesian": (tuner.BayesianOptimization, {"max_trials": 3, "num_initial_points": 2}),
}
SPACE = {"depths": (1, 2), "widths": (2, 3, 4), "stages": 2}
SMALL = {"depths": (1, 2), "widths": (2, 3, 4), "stages": 1}


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
        hypermodel or space(**SMALL),
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

    def test_whole_and_other_numbers_can_be_listed_together(self):
        hp = keras_tuner.HyperParameters()
        space(regularizers=(0, 1e-4), drop_path_rates=(0, 0.1)).build(hp)
        assert (hp.values["l2"], hp.values["drop_path_rate"]) == (0, 0)

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
        ({"widths": ("wide",)}, "`widths`.*Received"),
        ({"widths": (4, 4)}, "`widths`.*Received"),
        ({"blocks": ("residul",)}, "`blocks`.*Received"),
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


@pytest.fixture(scope="module", params=TUNERS)
def finished(request, tmp_path_factory):
    """A search of each kind that is over, and the directory that it was made in."""
    directory = tmp_path_factory.mktemp("search")
    return search(request.param, directory, within_third()), directory


def within_third():
    """A space of whose candidates a third at most is within the budget."""
    hypermodel = space(**SMALL)
    counts = sorted(hypermodel.cost(parameters(v)).params for v in all_values(hypermodel))
    limit = next(count for count in reversed(counts) if counts.index(count) < len(counts) / 3)
    limited = space(**SMALL, max_params=limit - 1 if counts.index(limit) else limit)
    share = sum(map(limited.within_budget, all_values(limited))) / len(counts)
    assert 0 < share <= 1 / 3
    return limited


class TestTuners:
    def test_finds_a_model_that_loads_and_scores(self, finished):
        engine, directory = finished
        engine.get_best_models(1)[0].save(directory / "best.keras")
        x, y = images()
        loaded = keras.saving.load_model(directory / "best.keras")
        score = loaded.evaluate(x, y, verbose=0)[1]
        assert score == pytest.approx(engine.oracle.get_best_trials(1)[0].score, abs=1e-4)

    def test_is_kerastuners_own_and_leaves_its_files(self, finished):
        engine, directory = finished
        assert isinstance(engine, getattr(keras_tuner, type(engine).__name__))
        (state,) = directory.glob("*/oracle.json")
        started = json.loads(state.read_text())["start_order"]
        assert len(started) == len(list(directory.glob("*/trial_*"))) >= 3

    def test_every_trial_is_within_the_budget(self, finished):
        engine, _ = finished
        trials = engine.oracle.trials.values()
        assert {trial.status for trial in trials} == {"COMPLETED"}
        assert all(engine.hypermodel.within_budget(t.hyperparameters.values) for t in trials)

    def test_resumes_where_it_stopped(self, finished):
        engine, directory = finished
        again = search(engine.project_name, directory, engine.hypermodel)  # nothing is left
        assert again.oracle.trials.keys() == engine.oracle.trials.keys()
        assert again.oracle.start_order == engine.oracle.start_order

    def test_table_and_plot_show_every_trial(self, finished, capsys):
        engine, directory = finished
        tuner.print_trials(engine)
        table = capsys.readouterr().out
        rows = tuner.trial_rows(engine)
        assert [row.number for row in rows] == list(range(len(engine.oracle.trials)))
        for row in rows:
            assert f"{row.score:.4f}" in table
            assert f"{row.cost.params:,}" in table
        tuner.plot_trials(engine, directory / "plot.png")
        assert (directory / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", TUNERS)
def test_accepts_any_hypermodel(kind, tmp_path):
    def build(hp):
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
        rate = hp.Choice("rate", [1e-3, 1e-2, 1e-1])
        model.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return model

    engine = search(kind, tmp_path, build)
    assert engine.oracle.get_best_trials(1)[0].score is not None


@pytest.mark.parametrize(
    ("kind", "seed", "proposals"),
    [
        *(("random", seed, 12) for seed in range(1, 6)),
        *(("hyperband", seed, 12) for seed in range(1, 6)),
        *(("bayesian", seed, 5) for seed in range(1, 3)),  # two random ones, three from the model
    ],
)
def test_no_proposal_is_over_budget(kind, seed, proposals, tmp_path):
    """Proposals alone, with made-up scores: nothing is trained."""
    hypermodel = space(max_params=2000, learning_rates=tuple(10.0**-i for i in range(1, 6)))
    tuner_class, arguments = TUNERS[kind]
    if kind != "hyperband":
        arguments = {**arguments, "max_trials": proposals}
    engine = tuner_class(hypermodel, "val_accuracy", seed=seed, directory=tmp_path, **arguments)
    issued = []
    while len(issued) < proposals:
        trial = engine.oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            break
        issued.append(trial.hyperparameters.values)
        score = math.sin(len(issued))
        engine.oracle.update_trial(trial.trial_id, {"val_accuracy": score}, step=0)
        trial.status = "COMPLETED"
        engine.oracle.end_trial(trial)
    assert len(issued) >= 5
    assert all(map(hypermodel.within_budget, issued))


def test_hyperband_knows_its_number_of_trials(tmp_path):
    engine = search("hyperband", tmp_path)
    assert engine.oracle.total_trials() == len(engine.oracle.trials)
    endless = HyperbandOracle("val_accuracy", hyperband_iterations=None)
    assert endless.total_trials() is None


class TestProgress:
    def test_a_line_for_each_trial(self, tmp_path, capsys):
        search("random", tmp_path, verbose=1)
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial")]
        assert [line.split(" | ")[0] for line in lines] == ["trial 0", "trial 1", "trial 2"]
        assert [line.split(" | ")[-1].split(",")[0] for line in lines] == [
            f"{i}/3" for i in (1, 2, 3)
        ]
        assert all("val_accuracy" in line and "best" in line for line in lines)
        assert "left" in lines[0]
        assert "left" not in lines[-1]

    def test_silent_with_verbose_0(self, tmp_path, capsys):
        search("random", tmp_path, verbose=0)
        assert "trial" not in capsys.readouterr().out

    def test_a_failed_trial_says_why(self, tmp_path, capsys):
        class Broken(tuner.ResNetHyperModel):
            def fit(self, hp, model, *args, **kwargs):
                raise RuntimeError("out of luck")

        broken = Broken((8, 8, 1), 3, **SMALL)
        with pytest.raises(RuntimeError):
            search("random", tmp_path, broken, verbose=1)
        assert "out of luck" in capsys.readouterr().out


def test_of_equal_scores_the_smallest_network_is_the_best_for_all(tmp_path, capsys):
    class Equal(tuner.ResNetHyperModel):
        def fit(self, hp, model, *args, **kwargs):
            super().fit(hp, model, *args, **kwargs)
            return {"val_accuracy": 0.5}

    network = Equal((8, 8, 1), 3, depths=1, widths=(3, 2, 4), stages=1, blocks="residual")
    engine = search("random", tmp_path, network, verbose=1, max_trials=6, keep_checkpoints=1)
    params = {
        trial_id: network.cost(trial.hyperparameters).params
        for trial_id, trial in engine.oracle.trials.items()
    }
    best = min(params, key=params.get)
    assert best != "0"
    found = tuner.report(engine)
    weights = [path.parent.name for path in tmp_path.glob("random/trial_*/*.weights.h5")]
    assert weights == [f"trial_{best}"]
    assert (found.best.trial_id, found.best.number) == (best, int(best))
    assert engine.get_best_models(1)[0].count_params() == params[best]
    assert f"({best}) |" in capsys.readouterr().out.splitlines()[-1]
    x, y = images()
    assert engine.retrain_best(x, y).count_params() == params[best]
