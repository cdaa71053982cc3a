"""The search spaces: what each option does, what is conditional, what is refused."""

import itertools
import json

import keras
import keras_tuner
import numpy as np
import pytest
from searches import SHAPE, parameters, proposals

import keras_resblocks as kr
from keras_resblocks import tuner
from keras_resblocks.tuner import Range

TINY = {"depths": (1, 2), "widths": (4, 8), "stages": 2}
SPACES = {"resnet": tuner.ResNetHyperModel, "inception": tuner.InceptionHyperModel}
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


X = np.random.default_rng(0).normal(size=(12, *SHAPE)).astype("float32")
Y = np.arange(12) % 3


def space(kind="resnet", **options):
    return SPACES[kind](SHAPE, 3, **{**TINY, **options})


def names_of(hypermodel):
    """The names of the hyperparameters that a model is built by."""
    hp = parameters()
    hypermodel.build(hp)
    return hp.values.keys()


def trained(hypermodel, hp=None, epochs=1, data=(X, Y), **options):
    hp = hp or parameters()
    model = hypermodel.build(hp)
    return model, hypermodel.fit(hp, model, *data, epochs=epochs, verbose=0, **options).history


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPACES)
def test_the_cost_of_100_candidates_is_that_of_the_built_model(kind, tmp_path):
    hypermodel = space(kind, **FULL, **OWN[kind], max_params=100_000)
    checked = 0
    for hp in proposals(hypermodel, 100, tmp_path):
        built, counted = kr.cost(hypermodel.network(hp)), hypermodel.cost(hp)
        assert counted == built, hp.values
        assert built.params <= 100_000
        checked += 1
    assert checked == 100


@pytest.mark.parametrize("kind", SPACES)
def test_a_candidate_with_everything_searched_trains(kind, tmp_path):
    hypermodel = space(kind, **FULL, **OWN[kind])
    (hp,) = proposals(hypermodel, 1, tmp_path)
    _, history = trained(hypermodel, hp, epochs=2)
    assert np.isfinite(history["loss"]).all()


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
    assert name in names_of(space(kind, **shortcut, **{argument: values}))
    assert name not in names_of(space(kind, **shortcut, **{argument: values[-1]}))
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        hp = parameters()
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
    options = {"width_multipliers": (1.5, 2), "shortcuts": ("projection", "zero_pad")}
    once = {"block", "activation", "shortcut", "l2", "learning_rate"}
    multiplier = {"width_multiplier"} if "width" in names else set()
    assert names_of(space(per_stage=per_stage, **options)) == names | once | multiplier


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
    tried = [hp.values for hp in proposals(space(expansions=(2, 4)), 20, tmp_path)]
    found = {(values["block"], "expansion" in values) for values in tried}
    assert found == {("residual", False), ("bottleneck", True)}


def test_a_drop_path_rate_belongs_to_shortcuts_alone(tmp_path):
    hypermodel = space("inception", shortcuts=(None, "projection"), drop_path_rates=(0.0, 0.2))
    found = set()
    for hp in proposals(hypermodel, 12, tmp_path):
        found.add((hp.values["shortcut"], "drop_path_rate" in hp.values))
        hypermodel.network(hp)
    assert found == {("none", False), ("projection", True)}


@pytest.mark.parametrize(
    ("option", "value"),
    [("activation", "elu"), ("normalization", "group"), ("stem", "large"), ("optimizer", "sgd")],
)
def test_one_value_may_be_given_in_the_singular(option, value):
    assert space(**{option: value}).choose(parameters(), option) == value


def test_one_value_is_fixed_and_no_hyperparameter():
    hypermodel = space(blocks="residual", activations=("elu",), regularizers=0.0, depths=2)
    hp = parameters()
    spec, options = hypermodel.candidate(hp)
    assert (spec.depths, options["activation"]) == ((2, 2), "elu")
    assert hp.values.keys() == {"width"}


def test_whole_and_other_numbers_can_be_listed_together():
    hp = parameters()
    space(regularizers=(0, 1e-4), drop_path_rates=(0, 0.1)).build(hp)
    assert (hp.values["l2"], hp.values["drop_path_rate"]) == (0, 0)


def test_a_candidate_is_what_its_values_say():
    values = {"block": "bottleneck", "depth_1": 2, "depth_2": 1, "width": 4, "activation": "elu"}
    model = space().build(parameters(values, l2=1e-4, learning_rate=1e-3))
    names = [layer.name for layer in model.layers if layer.name.startswith("stage")]
    assert names == ["stage1_block1", "stage1_block2", "stage2_block1"]
    block = model.get_layer("stage1_block2")
    assert block.filters == 4
    assert block.get_config()["activation"] == "elu"
    assert float(block.kernel_regularizer.l2) == pytest.approx(1e-4)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)


def test_layers_and_policies_can_be_listed():
    hypermodel = space(
        activations=("relu", keras.layers.PReLU(shared_axes=[1, 2])), blocks="residual"
    )
    model = hypermodel.build(parameters(activation="PReLU"))
    assert any("alpha" in weight.path for weight in model.weights)


def test_block_options_reach_the_blocks():
    model = space(normalization="group").build(parameters())
    assert not any("moving" in weight.path for weight in model.weights)


@pytest.mark.parametrize(
    ("stem", "size", "pixels"),
    [("auto", 16, 16), ("auto", 64, 16), ("small", 64, 64), ("large", 16, 4)],
)
def test_a_stem_suits_the_image(stem, size, pixels):
    hypermodel = tuner.ResNetHyperModel((size, size, 3), 3, stem=stem, **TINY)
    model = hypermodel.build(parameters())
    assert model.get_layer("stage1_block1").output.shape[1] == pixels


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


# What makes no difference: a policy where no shortcut changes its shape, growth of one stage or
# beside widths of their own, drop path in one block, multipliers that round to the same.
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"blocks": "residual"}, 16),  # two depths, width, learning rate
        ({"stages": 1, "shortcuts": ("projection", "identity"), "blocks": "residual"}, 8),
        ({"stages": 1, "width_multipliers": (1, 2, 3)}, 16),
        ({"per_stage": "width", "width_multipliers": (1, 2, 3)}, 32),
        ({"stages": 1, "depths": (1,), "drop_path_rates": (0.0, 0.1, 0.5)}, 8),
        ({"widths": (4,), "width_multipliers": (1.5, 1.51, 1.52), "learning_rates": 1e-3}, 8),
    ],
)
def test_every_network_is_tried_once(options, count, tmp_path):
    fixed = {"activations": "relu", "regularizers": 0.0, "learning_rates": (1e-3, 1e-2)}
    hypermodel = space(**{**fixed, **options})
    models = [network_of(hypermodel.build(hp)) for hp in proposals(hypermodel, 99, tmp_path)]
    assert len(models) == len(set(models)) == count


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"schedules": "constant"}, None),
        ({"schedules": "cosine"}, [1, 0.8536, 0.5, 0.1464]),
        ({"schedules": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"schedules": "step"}, [1, 1, 0.1, 0.01]),
        ({"schedules": "linear", "schedule_epochs": 8}, [1, 0.875, 0.75, 0.625]),
    ],
)
def test_a_schedule_sets_the_rate_of_each_epoch(options, rates):
    _, history = trained(space(learning_rates=0.01, **options), epochs=4)
    if rates is not None:
        rates = pytest.approx([0.01 * rate for rate in rates], rel=1e-3)
    assert history.get("learning_rate") == rates


def test_the_batch_size_is_searched():
    model, _ = trained(space(batch_sizes=(3, 4)), parameters(batch_size=4))
    assert int(model.optimizer.iterations) == 3


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lion", "nadam", "rmsprop", "sgd"])
def test_each_optimizer_has_the_learning_rate(optimizer):
    model = space(optimizers=optimizer, learning_rates=0.02).build(parameters())
    assert type(model.optimizer.inner_optimizer).__name__.lower() == optimizer
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02)


def test_labels_are_smoothed():
    model = space(label_smoothings=0.2).build(parameters())
    assert model.loss.label_smoothing == 0.2


@pytest.mark.parametrize("augmentation", ["flip", "shift", keras.layers.GaussianNoise(1.0)])
def test_augmentation_changes_images_in_training_alone(augmentation):
    model = space(augmentations=augmentation).build(parameters())
    inner = keras.Model(model.input, model.get_layer("stem_conv1").input)
    changed = keras.ops.convert_to_numpy(inner(X, training=True))
    assert not np.array_equal(changed, X)
    assert np.array_equal(keras.ops.convert_to_numpy(inner(X, training=False)), X)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_ends_in_float32(dtype):
    model, history = trained(space(dtype=dtype))
    assert model.output.dtype == "float32"
    assert np.isfinite(history["loss"]).all()
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (dtype == "mixed_float16")


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[:6], Y[:6]


def test_data_may_be_batched_already_or_given_by_name():
    batches = Batches()
    model, history = trained(space(), epochs=2, data=(batches,), validation_data=batches)
    assert len(history["val_loss"]) == 2
    assert int(model.optimizer.iterations) == 4
    _, history = trained(space(), data=(), x=X, y=Y)
    assert len(history["loss"]) == 1


@pytest.mark.parametrize("kind", SPACES)
def test_activation_memory_is_limited(kind, tmp_path):
    costs = [4 * space(kind).cost(hp).activations for hp in proposals(space(kind), 20, tmp_path)]
    limit = sorted(costs)[5]
    limited = space(kind, max_activation_memory=limit)
    found = [limited.cost(hp) for hp in proposals(limited, 10, tmp_path / "limited")]
    assert found
    assert all(4 * cost.activations <= limit for cost in found)


def test_half_precision_takes_half_the_memory():
    larger = {"depth_1": 2, "depth_2": 2}
    memory = 4 * space().cost(parameters(larger)).activations
    assert space(max_activation_memory=memory).within_budget(larger)
    assert not space(max_activation_memory=memory - 1).within_budget(larger)
    half = space(max_activation_memory=memory // 2, dtype="mixed_bfloat16")
    assert half.within_budget(larger)


def test_a_candidate_over_budget_fails_its_trial_in_any_tuner():
    over = parameters(block="bottleneck", depth_1=2, depth_2=2, width=8)
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="max_params=2000"):
        space(max_params=2000).build(over)


BAD = [
    *itertools.chain.from_iterable(
        [({argument: ()}, f"`{argument}`.*Received"), ({argument: ("?", "!")}, "Received")]
        for argument in [*FULL, "depths", "widths", "blocks", "expansions", "groups", "stems"]
    ),
    ({"per_stage": "block"}, "`per_stage`.*Received"),
    ({"schedule_epochs": 0}, "`schedule_epochs`.*Received"),
    ({"activation": "relu", "activations": ("relu", "elu")}, "`activations`.*`activation`"),
    ({"activations": ("relu", "eluu")}, "`activation`.*Received"),
    ({"shortcuts": ("projektion",)}, "`shortcut`.*Received"),
    ({"blocks": ("residul",)}, "`blocks`.*Received"),
    ({"stages": 0}, "`stages`.*Received: stages=0"),
    ({"stem": "huge"}, "`stem`.*Received: stem='huge'"),
    ({"depths": (0, 1)}, "`depths`.*Received"),
    ({"widths": ("wide",)}, "`widths`.*Received"),
    ({"widths": (4, 4)}, "`widths`.*Received"),
    ({"groups": 3, "widths": (4, 8)}, "`groups`.*Received"),
    ({"regularizers": (-1e-4,)}, "`regularizers`.*Received"),
    ({"learning_rates": (0.0,)}, "`learning_rates`.*Received"),
    ({"learning_rates": (1e-3, -1e-3)}, "`learning_rates`.*Received"),
    ({"label_smoothings": 1.0}, "`label_smoothings`.*Received"),
    ({"max_params": 0}, "`max_params`.*Received: max_params=0"),
    ({"max_params": 10}, r"smallest has \d+ parameters.*Received: max_params=10"),
    ({"max_macs": 10}, r"smallest has .* \d+ multiply-accumulates.*max_macs=10"),
    ({"max_activation_memory": 9}, r"smallest .* activations .*_memory=9"),
    ({"max_activation_memory": -1}, "`max_activation_memory`.*Received"),
    ({"normalisation": "group"}, "normalization.*Received"),
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
