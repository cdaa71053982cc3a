"""The search spaces: what each option does, what is conditional, what is refused."""

import itertools
import json

import keras
import keras_tuner
import numpy as np
import pytest

import keras_resblocks as kr
from keras_resblocks import tuner
from keras_resblocks.tuner import Range

TINY = {"depths": (1, 2), "widths": (4, 8), "stages": 2}
SPACES = {
    "resnet": tuner.ResNetHyperModel,
    "inception": tuner.InceptionHyperModel,
}
# All that can be searched, each with two values or more.
FULL = {
    "activations": ("relu", "elu"),
    "normalizations": ("batch", "group"),
    "attentions": (None, "squeeze_excite"),
    "shortcuts": ("projection", "avg_pool"),
    "preactivations": (False, True),
    "drop_path_rates": (0.0, 0.2),
    "regularizers": (0.0, 1e-4),
    "optimizers": ("adam", "sgd"),
    "learning_rates": (1e-3, 1e-2),
    "schedules": ("constant", "cosine", "linear", "step"),
    "batch_sizes": (4, 8),
    "augmentations": (None, "flip", "shift", "shift_and_flip"),
    "label_smoothings": (0.0, 0.1),
    "width_multipliers": (1.5, 2),
}
OWN = {
    "resnet": {"blocks": ("residual", "bottleneck"), "expansions": (2, 4), "groups": (1, 2)},
    "inception": {"kinds": ("v1", "v2", "factorized")},
}


def space(kind="resnet", **options):
    return SPACES[kind]((8, 8, 1), 3, **{**TINY, **options})


def parameters(**values):
    hp = keras_tuner.HyperParameters()
    hp.values = values
    return hp


def images(count=12):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 8, 8, 1)).astype("float32"), np.arange(count) % 3


def proposals(hypermodel, count, directory, seed=1):
    """Hyperparameter values that a random search issues; nothing is trained."""
    engine = tuner.RandomSearch(
        hypermodel, "val_accuracy", max_trials=count, seed=seed, directory=directory
    )
    while (trial := engine.oracle.create_trial("tuner0")).status == "RUNNING":
        yield trial.hyperparameters
        engine.oracle.update_trial(trial.trial_id, {"val_accuracy": 0.0})
        trial.status = "COMPLETED"
        engine.oracle.end_trial(trial)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPACES)
def test_the_cost_of_200_candidates_is_that_of_the_built_model(kind, tmp_path):
    hypermodel = space(kind, **FULL, **OWN[kind], max_params=100_000)
    checked = 0
    for hp in proposals(hypermodel, 200, tmp_path):
        built, counted = kr.cost(hypermodel.network(hp)), hypermodel.cost(hp)
        assert counted == built, hp.values
        assert built.params <= 100_000
        checked += 1
    assert checked == 200


@pytest.mark.parametrize("kind", SPACES)
def test_a_candidate_with_everything_searched_trains(kind, tmp_path):
    hypermodel = space(kind, **FULL, **OWN[kind])
    (hp,) = proposals(hypermodel, 1, tmp_path)
    x, y = images()
    history = hypermodel.fit(hp, hypermodel.build(hp), x, y, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("argument", [*FULL, "depths", "widths"])
def test_an_option_is_searched_fixed_or_ranged(kind, argument):
    values = {**FULL, **TINY}[argument]
    shortcut = {"shortcut": "projection"} if argument == "drop_path_rates" else {}
    names = {
        **{"regularizers": "l2", "learning_rates": "learning_rate", "depths": "depth_1"},
        **{"batch_sizes": "batch_size"},
    }
    name = names.get(argument, argument.removesuffix("s"))
    hp = keras_tuner.HyperParameters()
    space(kind, **shortcut, **{argument: values}).build(hp)
    assert name in hp.values

    hp = keras_tuner.HyperParameters()
    space(kind, **shortcut, **{argument: values[-1]}).build(hp)
    assert name not in hp.values

    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        hp = keras_tuner.HyperParameters()
        space(kind, **shortcut, **{argument: Range(*values)}).build(hp)
        (parameter,) = (p for p in hp.space if p.name == name)
        assert (parameter.min_value, parameter.max_value) == values


@pytest.mark.parametrize("argument", ["normalizations", "attentions", "shortcuts", "batch_sizes"])
def test_what_is_left_out_is_left_to_the_network(argument):
    model = space(**{argument: None}).build(parameters())
    block = model.get_layer("stage1_block1").get_config()
    assert (block["normalization"], block["attention"]) == ("batch", None)
    assert block["shortcut"] == "projection"


@pytest.mark.parametrize(
    ("per_stage", "names"),
    [
        ((), {"depth", "width"}),
        ("depth", {"depth_1", "depth_2", "width"}),
        (("width",), {"depth", "width_1", "width_2"}),
        (("depth", "width"), {"depth_1", "depth_2", "width_1", "width_2"}),
    ],
)
def test_depth_and_width_are_shared_or_of_each_stage(per_stage, names):
    hp = keras_tuner.HyperParameters()
    hypermodel = space(per_stage=per_stage, width_multipliers=(1.5, 2))
    hypermodel.network(hp)
    assert {name for name in hp.values if "depth" in name or name.startswith("width")} >= names
    assert ("width_multiplier" in hp.values) == ("width" in names)


def test_widths_grow_by_their_multiplier():
    hypermodel = space(stages=3, width_multipliers=(1.5, 2))
    spec, _ = hypermodel.candidate(parameters(width=8, width_multiplier=1.5))
    assert spec.widths() == (8, 12, 18)


def test_an_inception_block_outputs_its_width():
    model = space("inception", widths=(32, 64), width_multipliers=1).build(parameters(width=64))
    assert model.get_layer("stage1_block1").output.shape[-1] == 64
    assert model.get_layer("stage2_block1").output.shape == (None, 4, 4, 64)


@pytest.mark.parametrize("kind", OWN["inception"]["kinds"])
def test_the_branches_of_each_kind_of_inception_block(kind):
    model = space("inception", kinds=kind).build(parameters())
    block = model.get_layer("stage1_block1")
    assert len(block.branches) == 4
    assert (kind == "factorized") == ("(1, 7)" in str(block.branches))


def test_an_expansion_belongs_to_bottlenecks_alone(tmp_path):
    hypermodel = space(expansions=(2, 4))
    kinds = set()
    for hp in proposals(hypermodel, 20, tmp_path):
        kinds.add(hp.values["block"])
        assert ("expansion" in hp.values) == (hp.values["block"] == "bottleneck")
    assert kinds == {"residual", "bottleneck"}


def test_a_drop_path_rate_belongs_to_shortcuts_alone(tmp_path):
    hypermodel = space("inception", shortcuts=(None, "projection"), drop_path_rates=(0.0, 0.2))
    kinds = set()
    for hp in proposals(hypermodel, 12, tmp_path):
        kinds.add(hp.values["shortcut"])
        assert ("drop_path_rate" in hp.values) == (hp.values["shortcut"] == "projection")
        hypermodel.network(hp)
    assert kinds == {"none", "projection"}


@pytest.mark.parametrize("option", ["activation", "normalization", "stem", "optimizer"])
def test_one_value_may_be_given_in_the_singular(option):
    value = {"activation": "elu", "normalization": "group", "stem": "large", "optimizer": "sgd"}
    hypermodel = space(**{option: value[option]})
    assert hypermodel.choose(parameters(), option) == value[option]


def test_groups_that_do_not_divide_the_filters_are_no_candidates(tmp_path):
    hypermodel = space(widths=(4, 6, 8), groups=(1, 4), blocks="residual", width_multipliers=1)
    tried = [hp.values for hp in proposals(hypermodel, 30, tmp_path)]
    assert {(v["groups"], v["width"]) for v in tried} == {(1, 4), (1, 6), (1, 8), (4, 4), (4, 8)}


def network_of(model):
    """What a model computes: its layers' configs without names."""

    def unnamed(config):
        if isinstance(config, dict):
            return {k: unnamed(v) for k, v in config.items() if "name" not in k and k != "seed"}
        return list(map(unnamed, config)) if isinstance(config, (list, tuple)) else config

    layers = []
    for layer in model.layers:
        config = layer.get_config()
        shortcut = getattr(layer, "shortcut", None)
        if "shortcut" in config:  # the policy by what it comes to here
            config["shortcut"] = [w.path.split("/", 1)[1] for w in getattr(shortcut, "weights", [])]
        layers.append(unnamed(config))
    return json.dumps([layers, str(model.optimizer.get_config())], sort_keys=True, default=str)


@pytest.mark.parametrize(
    "options",
    [
        {"stages": 1, "shortcuts": ("projection", "identity"), "blocks": "residual"},
        {"stages": 1, "width_multipliers": (1, 2, 3)},
        {"per_stage": "width", "width_multipliers": (1, 2, 3)},
        {"stages": 1, "depths": (1,), "drop_path_rates": (0.0, 0.1, 0.5)},
        {"widths": (4,), "width_multipliers": (1.5, 1.51, 1.52), "learning_rates": 1e-3},
    ],
)
def test_no_two_trials_build_the_same_network(options, tmp_path):
    hypermodel = space(**{"regularizers": 0.0, "learning_rates": (1e-3, 1e-2), **options})
    models = [network_of(hypermodel.build(hp)) for hp in proposals(hypermodel, 40, tmp_path)]
    assert len(models) >= 4
    assert len(set(models)) == len(models)


def test_every_candidate_of_a_space_is_found_once(tmp_path):
    hypermodel = space(
        blocks="residual", activations="relu", regularizers=0.0, learning_rates=(1e-3, 1e-2)
    )
    tried = [tuple(sorted(hp.values.items())) for hp in proposals(hypermodel, 100, tmp_path)]
    assert len(tried) == len(set(tried)) == 2 * 2 * 2 * 2  # two depths, width, learning rate


class TestTraining:
    def trained(self, hp=None, epochs=4, callbacks=(), **options):
        hypermodel = space(**{"learning_rates": 0.01, **options})
        hp = hp or parameters()
        x, y = images()
        model = hypermodel.build(hp)
        calls = list(callbacks)
        return model, hypermodel.fit(hp, model, x, y, epochs=epochs, callbacks=calls, verbose=0)

    @pytest.mark.parametrize(
        ("schedule", "rates"),
        [
            ("constant", None),
            ("cosine", [1, 0.8536, 0.5, 0.1464]),
            ("linear", [1, 0.75, 0.5, 0.25]),
            ("step", [1, 1, 0.1, 0.01]),
        ],
    )
    def test_a_schedule_sets_the_rate_of_each_epoch(self, schedule, rates):
        _, history = self.trained(schedules=schedule)
        found = history.history.get("learning_rate")
        if rates is not None:
            rates = pytest.approx([0.01 * rate for rate in rates], rel=1e-3)
        assert found == rates

    def test_a_schedule_may_take_longer_than_the_training(self):
        _, history = self.trained(schedules="linear", schedule_epochs=8)
        assert history.history["learning_rate"][-1] == pytest.approx(0.01 * 5 / 8, rel=1e-4)

    def test_the_batch_size_is_searched(self):
        model, _ = self.trained(parameters(batch_size=4), 1, batch_sizes=(3, 4))
        assert int(model.optimizer.iterations) == 3

    @pytest.mark.parametrize("optimizer", ["adam", "adamw", "lion", "nadam", "rmsprop", "sgd"])
    def test_each_optimizer_has_the_learning_rate(self, optimizer):
        model = space(optimizers=optimizer, learning_rates=0.02).build(parameters())
        assert type(model.optimizer.inner_optimizer).__name__.lower() == optimizer
        assert float(model.optimizer.learning_rate) == pytest.approx(0.02)

    def test_labels_are_smoothed(self):
        model = space(label_smoothings=0.2).build(parameters())
        assert model.loss.label_smoothing == 0.2

    @pytest.mark.parametrize("augmentation", ["flip", "shift", keras.layers.GaussianNoise(1.0)])
    def test_augmentation_changes_images_in_training_alone(self, augmentation):
        model = space(augmentations=augmentation).build(parameters())
        x, _ = images()
        inner = keras.Model(model.input, model.get_layer("stem_conv1").input)
        changed = keras.ops.convert_to_numpy(inner(x, training=True))
        assert not np.array_equal(changed, x)
        assert np.array_equal(keras.ops.convert_to_numpy(inner(x, training=False)), x)

    @pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
    def test_mixed_precision_ends_in_float32(self, dtype):
        model, history = self.trained(dtype=dtype, epochs=1)
        assert model.output.dtype == "float32"
        assert np.isfinite(history.history["loss"]).all()
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (dtype == "mixed_float16")

    def test_data_may_be_batched_already(self):
        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                return images(6)

        hypermodel = space(learning_rates=0.01)
        model = hypermodel.build(parameters())
        data = {"validation_data": Batches(), "epochs": 2, "verbose": 0}
        history = hypermodel.fit(parameters(), model, Batches(), **data)
        assert len(history.history["val_loss"]) == 2
        assert int(model.optimizer.iterations) == 4

    def test_data_may_be_given_by_name(self):
        x, y = images()
        model = space().build(parameters())
        history = space().fit(parameters(), model, x=x, y=y, epochs=1, verbose=0)
        assert len(history.epoch) == 1

    def test_fit_can_be_overridden(self):
        class Twice(tuner.ResNetHyperModel):
            def fit(self, hp, model, *args, **kwargs):
                return super().fit(hp, model, *args, **{**kwargs, "epochs": 2})

        hypermodel = Twice((8, 8, 1), 3, **TINY)
        x, y = images()
        model = hypermodel.build(parameters())
        history = hypermodel.fit(parameters(), model, x, y, epochs=1, verbose=0)
        assert len(history.epoch) == 2


class TestBudget:
    @pytest.mark.parametrize("kind", SPACES)
    def test_activation_memory_is_limited(self, kind, tmp_path):
        costs = [
            4 * space(kind).cost(hp).activations for hp in proposals(space(kind), 20, tmp_path)
        ]
        limit = sorted(costs)[5]
        limited = space(kind, max_activation_memory=limit)
        found = [limited.cost(hp) for hp in proposals(limited, 10, tmp_path / "limited")]
        assert found
        assert all(4 * cost.activations <= limit for cost in found)

    def test_half_precision_takes_half_the_memory(self):
        larger = {"depth_1": 2, "depth_2": 2}
        memory = 4 * space().cost(parameters(**larger)).activations
        assert space(max_activation_memory=memory).within_budget(larger)
        assert not space(max_activation_memory=memory - 1).within_budget(larger)
        half = space(max_activation_memory=memory // 2, dtype="mixed_bfloat16")
        assert half.within_budget(larger)

    def test_a_budget_that_nothing_meets_names_the_smallest(self):
        with pytest.raises(ValueError, match=r"smallest .* activations .*_memory=9"):
            space(max_activation_memory=9)


BAD = [
    *itertools.chain.from_iterable(
        [({argument: ()}, f"`{argument}`.*Received"), ({argument: ("?", "!")}, "Received")]
        for argument in [*FULL, "depths", "widths", "blocks", "expansions", "groups", "stems"]
    ),
    ({"per_stage": "block"}, "`per_stage`.*Received"),
    ({"schedule_epochs": 0}, "`schedule_epochs`.*Received"),
    ({"activation": "relu", "activations": ("relu", "elu")}, "`activations`.*`activation`"),
    ({"groups": 3, "widths": (4, 8)}, "`groups`.*Received"),
    ({"learning_rates": (1e-3, -1e-3)}, "`learning_rates`.*Received"),
    ({"label_smoothings": 1.0}, "`label_smoothings`.*Received"),
    ({"max_activation_memory": -1}, "`max_activation_memory`.*Received"),
    ({"no_such_option": 1}, "no_such_option.*Received"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_a_bad_space_is_an_error(options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        space(**options)


@pytest.mark.parametrize(
    "arguments",
    [(2, 1), (1, 1), (0, 1, None, "log"), (1, 2, 0), (1, 2, None, "cubic"), ("a", "b")],
)
def test_a_bad_range_is_an_error(arguments):
    with pytest.raises(ValueError, match="Received"):
        Range(*arguments)
