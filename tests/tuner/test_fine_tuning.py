"""Fine-tuning: what is loaded, what moves and when, and that every search can have it."""

import functools
import itertools
import json

import huggingface_hub
import keras
import numpy as np
import optuna
import pytest
import safetensors.numpy
from helpers import randomize, run_python, to_numpy
from searches import SHAPE, TUNERS, interrupted, parameters, proposals

import keras_resblocks as kr
from keras_resblocks import tuner
from keras_resblocks.layers import Conv, Pool
from keras_resblocks.models.published import SPECS
from keras_resblocks.tuner import FineTuneHyperModel, Range

SPECS_OF_FILES = {
    "small": kr.ResNetSpec("residual", depths=(1, 1), width=2, stem=(Conv(2, 3),)),
    "wide": kr.ResNetSpec("residual", depths=(1, 1), width=4, stem=(Conv(4, 3),)),
    "v2": kr.ResNetSpec(
        "bottleneck", depths=(1, 1), width=2, stem=(Conv(2, 3),), options={"preactivation": True}
    ),
    "inception": kr.InceptionSpec(
        [[[[2], [2, (2, 3)]]], [Pool("max", 3, 2), [[2], ["max_pool", 2]]]], stem=(Conv(2, 3),)
    ),
}
SPEC = SPECS_OF_FILES["small"]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PARTS = ("stem", "stage1", "stage2", "head")
FIXED = dict(unfrozen_stages=3, warmup_epochs=0, backbone_rates=1.0, dropouts=0.0)
FIXED |= dict(regularizers=0.0, learning_rates=1e-2, schedules="constant")

rng = np.random.default_rng(0)
X = rng.integers(0, 256, (24, *SHAPE)).astype("float32")
Y = np.arange(24) % 3
DATA = dict(x=X, y=Y, validation_data=(X, Y), batch_size=12)


class Quick(FineTuneHyperModel):
    """The steps of such small networks are not worth tracing."""

    def compile(self, hp, model):
        super().compile(hp, model)
        model.run_eagerly = keras.backend.backend() == "tensorflow"


def network(spec=SPEC, **options):
    options = {"input_shape": (8, 8, 3), "classes": 5, **options}
    return randomize(kr.create_model(spec, **options))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Networks with random weights, by name: a spec and a file."""
    folder = tmp_path_factory.mktemp("weights")
    found = {name: (spec, folder / f"{name}.weights.h5") for name, spec in SPECS_OF_FILES.items()}
    for spec, path in found.values():
        network(spec).save_weights(path)
    return found


@pytest.fixture
def space(files):
    def make(classes=3, shape=SHAPE, **options):
        return Quick(shape, classes, **{"networks": [files["small"]], **FIXED, **options})

    return make


def declared(hypermodel):
    hp = parameters()
    hypermodel.declare_hyperparameters(hp)
    return {parameter.name: parameter for parameter in hp.space}


def values_of(model):
    return {weight.path: to_numpy(weight) for weight in model.weights}


def moved(before, after):
    """The parts with a weight that has moved."""
    paths = (path for path in before if not np.array_equal(before[path], after[path]))
    return {path.partition("_")[0].partition("/")[0] for path in paths}


# What is loaded, and what the network sees


def save_torch(model, path):
    safetensors.numpy.save_file(kr.to_torch_state_dict(model, as_numpy=True), path)


SAVERS = {
    "model.weights.h5": lambda model, path: model.save_weights(path),
    "model.keras": lambda model, path: model.save(path),
    "model.safetensors": save_torch,
}


def assert_sees(model, weights, mean, std):
    """The network of a candidate has the weights, and sees images scaled so."""
    reference = kr.create_model(
        SPEC, input_shape=(8, 8, 3), include_top=False, pooling="avg", weights=weights
    )
    expected = reference.predict((X / 255 - mean) / std, verbose=0)
    features = keras.Model(model.input, model.get_layer("head").input)
    np.testing.assert_allclose(features.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SAVERS)
def test_a_network_has_the_weights_of_a_file_and_its_images_are_scaled(name, space, tmp_path):
    SAVERS[name](network(), tmp_path / name)
    model = space(networks=[(SPEC, tmp_path / name)]).build(parameters())
    assert_sees(model, tmp_path / name, IMAGENET["mean"], IMAGENET["std"])
    assert model.get_layer("head").units == 3


def test_images_that_are_scaled_already_or_by_a_layer(space, files):
    layer = kr.preprocessing({"input_size": (3, 4, 4), "mean": [0.1] * 3, "std": [0.5] * 3})
    resized = space(networks=[(*files["small"], layer)]).build(parameters())
    assert resized.get_layer("backbone").input_shape == (None, 4, 4, 3)
    as_they_are = space(shape=(8, 8, 3), networks=[(*files["small"], None)]).build(parameters())
    assert [layer.name for layer in as_they_are.layers[1:]] == ["backbone", "head"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with the weights of a small `resnet18`."""
    monkeypatch.setitem(SPECS, "resnet18", SPEC)
    save_torch(network("resnet18"), tmp_path / "model.safetensors")
    config = {"input_size": [3, 8, 8], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, file: str(tmp_path / file))
    return tmp_path


def test_published_weights_have_their_own_scaling(space, hub):
    model = space(networks="timm/resnet18.a1_in1k").build(parameters())
    assert_sees(model, hub / "model.safetensors", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert space().network(parameters()).input_shape == (None, *SHAPE)


def test_a_relative_path_is_one_of_the_folder_that_the_space_was_made_in(
    space, files, tmp_path, monkeypatch
):
    _, path = files["small"]
    monkeypatch.chdir(path.parent)
    hypermodel = space(networks=[(SPEC, path.name)])
    monkeypatch.chdir(tmp_path)  # as the worker of a search is
    assert_sees(hypermodel.build(parameters()), path, **IMAGENET)


def test_a_mixed_precision_and_other_tasks_train(space):
    hypermodel = space(1, task="binary", dtype="mixed_float16", warmup_epochs=1, dropouts=0.5)
    _, _, history = trained(hypermodel, y=Y % 2, epochs=2, validation_data=None)
    assert np.isfinite(history["loss"]).all()
    assert len(history["auc"]) == 2


# What moves, and when


class Snapshots(keras.callbacks.Callback):
    """Keeps the weights before training, and after each epoch."""

    def __init__(self, model):
        super().__init__()
        self.weights = [values_of(model)]

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(values_of(self.model))


def trained(hypermodel, **options):
    """The model, its weights before training and after each epoch, and the history."""
    hp = parameters()
    model = hypermodel.build(hp)
    noted = Snapshots(model)
    options = {**DATA, "epochs": 1, "callbacks": [noted], "verbose": 0, **options}
    history = hypermodel.fit(hp, model, **options).history
    return model, noted.weights, history


@pytest.mark.parametrize(
    ("name", "unfrozen"),
    [*(("small", unfrozen) for unfrozen in (0, 1, 2, 3, 9)), ("v2", 1), ("inception", 1)],
)
def test_a_frozen_part_moves_neither_weights_nor_statistics(name, unfrozen, space, files):
    _, (before, after), _ = trained(space(networks=[files[name]], unfrozen_stages=unfrozen))
    assert moved(before, after) == {*PARTS[max(0, 3 - unfrozen) :]}
    stage = [path for path in before if path.startswith("stage2")]
    assert all(np.array_equal(before[p], after[p]) == (unfrozen == 0) for p in stage)


def test_the_head_trains_alone_first(space):
    hypermodel = space(unfrozen_stages=1, warmup_epochs=2, schedules="linear")
    model, weights, history = trained(hypermodel, epochs=4)
    steps = [moved(*pair) for pair in itertools.pairwise(weights)]
    assert steps == [{"head"}, {"head"}, {"stage2", "head"}, {"stage2", "head"}]
    assert history["learning_rate"] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert {len(curve) for curve in history.values()} == {4}
    trainable = {weight.path.partition("/")[0] for weight in model.trainable_weights}
    assert trainable == {"stage2_block1", "head"}


@pytest.mark.parametrize(
    ("epochs", "initial_epoch", "expected"),
    [(1, 0, [{"head"}]), (3, 2, [set(PARTS)]), (2, 1, [{"head"}])],
)
def test_the_epochs_of_the_head_are_the_first_of_all(epochs, initial_epoch, expected, space):
    hypermodel = space(warmup_epochs=2)
    _, weights, _ = trained(hypermodel, epochs=epochs, initial_epoch=initial_epoch)
    assert [moved(*pair) for pair in itertools.pairwise(weights)] == expected


def test_what_a_user_froze_stays_frozen_after_the_epochs_of_the_head(space):
    norm = keras.layers.BatchNormalization(trainable=False, epsilon=1e-5)
    _, weights, _ = trained(space(warmup_epochs=1, normalization=norm), epochs=2)
    paths = [p for p in weights[0] if not np.array_equal(weights[1][p], weights[2][p])]
    assert {path.rpartition("/")[2] for path in paths} == {"kernel", "bias"}


def test_the_backbone_moves_by_its_share(space):
    steps = {}
    for rate in (0.1, 1.0):
        keras.utils.set_random_seed(0)
        hypermodel = space(backbone_rates=rate, optimizers="sgd")
        data = dict(x=X[:12], y=Y[:12], validation_data=None)  # one step
        _, (before, after), _ = trained(hypermodel, **data)
        steps[rate] = {path: after[path] - before[path] for path in before}
    for path, step in steps[1.0].items():
        share = 1 if path.startswith("head/") or "moving" in path else 0.1
        np.testing.assert_allclose(steps[0.1][path], share * step, rtol=1e-3, atol=1e-6)


# The space


LISTED = {
    "unfrozen_stages": (0, 1, 2),
    "warmup_epochs": (0, 2),
    "backbone_rates": (0.1, 1.0),
    "dropouts": (0.0, 0.5),
    "learning_rates": (1e-3, 1e-2),
}


def test_what_matters_for_an_unfrozen_network_alone_is_conditional(space, files):
    networks = [files["small"], files["wide"]]
    hypermodel = space(**{**LISTED, "networks": networks})
    names = {"network", "unfrozen_stages", "dropout", "learning_rate"}
    conditional = {"warmup_epochs", "backbone_rate"}
    found = declared(hypermodel)
    assert found.keys() == names | conditional
    for name in conditional:
        (condition,) = found[name].conditions
        assert (condition.name, condition.values) == ("unfrozen_stages", [1, 2])
    assert list(found["network"].values) == [f"ResNetSpec:{path}" for _, path in networks]
    defaults = FineTuneHyperModel((32, 32, 3), 3)
    assert declared(defaults).keys() == {*names, *conditional, "l2"}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"unfrozen_stages": 0, "warmup_epochs": (0, 1), "backbone_rates": (0.1, 1.0)}, set()),
        ({"unfrozen_stages": 1, "backbone_rates": (0.1, 1.0)}, {"backbone_rate"}),
        ({"unfrozen_stages": Range(0, 2)}, {"unfrozen_stages"}),
        ({"backbone_rates": Range(0.01, 1.0, sampling="log")}, {"backbone_rate"}),
        ({"dropouts": None}, set()),
    ],
)
def test_what_is_fixed_or_has_no_effect_is_no_hyperparameter(options, names, space):
    hypermodel = space(**options)
    assert declared(hypermodel).keys() == names
    assert hypermodel.build(parameters()).count_params() == hypermodel.cost(parameters()).params


def test_singular_arguments_are_fixed(files):
    options = dict(backbone_rate=0.3, dropout=0.1, l2=0.0, learning_rate=0.1)
    hypermodel = FineTuneHyperModel(SHAPE, 3, network=files["small"], **options)
    assert declared(hypermodel).keys() == {"unfrozen_stages", "warmup_epochs"}
    assert hypermodel.candidate(parameters({"unfrozen_stages": 1})).backbone_rate == 0.3


def test_candidates_differ_by_what_has_an_effect(space):
    hypermodel = space(**{**LISTED, "unfrozen_stages": (0, 1, 3, 7)})
    head = {"unfrozen_stages": 0, "dropout": 0.0}
    whole = {"unfrozen_stages": 3, "backbone_rate": 0.1, "warmup_epochs": 0}
    equal = [
        (head, {**head, "backbone_rate": 0.1, "warmup_epochs": 2}),
        (whole, {**whole, "unfrozen_stages": 7}),  # all of it
    ]
    different = [
        *(({**head, "dropout": 0.5}, head), (whole, {**whole, "unfrozen_stages": 1})),
        (whole, {**whole, "backbone_rate": 1.0}),
        (whole, {**whole, "learning_rate": 1e-2}),
        (whole, {**whole, "warmup_epochs": 2}),
        (whole, {**whole, "of_a_subclass": 2}),
    ]
    assert all(hypermodel.identity(a) == hypermodel.identity(b) for a, b in equal)
    assert all(hypermodel.identity(a) != hypermodel.identity(b) for a, b in different)


@pytest.mark.parametrize("name", ["small", "v2", "inception"])
def test_the_cost_is_that_of_the_built_model(name, space, files):
    hypermodel = space(networks=[files[name]])
    assert hypermodel.cost(parameters()) == kr.cost(hypermodel.network(parameters()))


def test_a_network_over_budget_is_never_tried(space, files, tmp_path):
    both = [files["small"], files["wide"]]
    limit = space().cost(parameters()).params
    hypermodel = space(**{**LISTED, "networks": both}, max_params=limit)
    seen = [hp.values for hp in proposals(hypermodel, 15, tmp_path)]
    assert {values["network"] for values in seen} == {f"ResNetSpec:{both[0][1]}"}
    assert len({hypermodel.identity(values) for values in seen}) == len(seen) == 15
    with pytest.raises(ValueError, match=r"No candidate is within the budget.*max_params=10"):
        space(max_params=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": "resnet18"}, r"`networks` must list names of published weights.*'resnet18'"),
        ({"networks": ("resnet18", "file.pth")}, r"`networks`.*tuples.*Received: 'resnet18'"),
        ({"networks": "timm/resnet81.a1_in1k"}, r"Did you mean.*Received: 'resnet81'"),
        ({"networks": "torchvision/resnet18.V9"}, r"`weights` must be one of torchvision's"),
        ({"networks": [("resnet18", "none.safetensors")]}, r"`weights`.*none.safetensors"),
        ({"networks": [("resnet18", "timm/resnet34.a1_in1k")]}, r"`weights`.*resnet34"),
        ({"networks": [("resnet18", "imagenet")]}, r"`weights=\"imagenet\"`.*resnet18"),
        ({"networks": [(SPEC, 3)]}, r"`weights`.*Received: weights=3"),
        ({"networks": ["timm/resnet18.a1_in1k"] * 2}, r"`networks` must not repeat"),
        ({"networks": [("resnet18", "timm/resnet18.a1_in1k", 3)]}, r"`preprocessing`.*Received"),
        ({"networks": ()}, r"`networks` must not be empty"),
        ({"networks": None}, r"`networks` must not be None"),
        ({"unfrozen_stages": (0, -1)}, r"`unfrozen_stages`.*Received: unfrozen_stages=-1"),
        ({"unfrozen_stages": 0.5}, r"`unfrozen_stages`.*integer.*Received"),
        ({"warmup_epochs": -1}, r"`warmup_epochs`.*Received: warmup_epochs=-1"),
        ({"backbone_rates": (0.0, 0.1)}, r"`backbone_rates`.*positive.*Received"),
        ({"dropout": 1.0}, r"`dropout`.*Received: dropout=1.0"),
        ({"backbone_rate": 1, "backbone_rates": (1, 2)}, r"`backbone_rates`.*together"),
        ({"unfrozen_stage": 1}, r"`unfrozen_stage` must be one of.*Did you mean"),
        ({"depths": (1, 2)}, r"`depths` must be one of the arguments of FineTuneHyperModel"),
    ],
)
def test_a_bad_space_is_an_error_at_construction(options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        FineTuneHyperModel((32, 32, 3), 3, **options)


def test_images_of_another_kind_are_an_error_unless_they_are_scaled(space, files):
    with pytest.raises(ValueError, match=r"1 or 3 channels.*Received: shape \(None, 8, 8, 5\)"):
        space(shape=(8, 8, 5))
    networks = [(*files["small"], None)]
    assert space(shape=(8, 8, 5), networks=networks).network(parameters()).input_shape[-1] == 5


@pytest.mark.slow
def test_weights_of_other_digits_are_a_better_start_than_none(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    digits, labels = datasets.load_digits(return_X_y=True)
    images = np.kron(digits.reshape(-1, 8, 8, 1), np.ones((1, 4, 4, 1))) * (255 / 16)
    spec = kr.ResNetSpec("residual", depths=(1, 1, 1), width=8, stem=(Conv(8, 3, 2),))
    kr.create_model(spec, input_shape=(32, 32, 3)).save_weights(tmp_path / "none.weights.h5")

    def fine_tuned(start, x, y, epochs, seed=0):
        keras.utils.set_random_seed(seed)
        networks = [(spec, tmp_path / f"{start}.weights.h5")]
        hypermodel = Quick((32, 32, 1), 5, **{**FIXED, "unfrozen_stages": 4, "networks": networks})
        model = hypermodel.build(parameters())
        hypermodel.fit(parameters(), model, x, y, batch_size=16, epochs=epochs, verbose=0)
        return model

    # Whole batches: of others, TensorFlow's oneDNN spoils the memory at this number of channels.
    before, later = np.flatnonzero(labels < 5)[:896], np.flatnonzero(labels >= 5)
    source = fine_tuned("none", images[before], labels[before], epochs=3)
    source.get_layer("backbone").save_weights(tmp_path / "source.weights.h5")
    x, y = images[later], labels[later] - 5
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(x))
        few, others = order[:48], order[48:448]
        scores = {
            start: fine_tuned(start, x[few], y[few], 5, seed).evaluate(
                x[others], y[others], verbose=0
            )[1]
            for start in ("none", "source")
        }
        assert scores["source"] > scores["none"] + 0.1, (seed, scores)


# Searches


SLOW, OTHERS = pytest.mark.slow, [kind for kind in TUNERS if kind != "RandomSearch"]
SMALL = {"unfrozen_stages": (0, 3), "learning_rates": (1e-2, 1e-3)}


def search(kind, hypermodel, directory, **options):
    arguments = {**TUNERS[kind], "seed": 1, "directory": directory}
    engine = getattr(tuner, kind)(hypermodel, hypermodel.objective, **arguments)
    engine.search(**DATA, **{"epochs": 2, "verbose": 0, **options})
    return engine


@pytest.mark.parametrize("kind", ["RandomSearch", *(pytest.param(k, marks=SLOW) for k in OTHERS)])
def test_a_tuner_finds_a_model_that_scores(kind, space, tmp_path):
    hypermodel = space(**SMALL, warmup_epochs=1)
    engine = search(kind, hypermodel, tmp_path)
    trials = engine.oracle.get_best_trials(9)
    if kind != "Hyperband":  # a round goes on with the candidates of the one before
        assert len({hypermodel.identity(t.hyperparameters.values) for t in trials}) == len(trials)
    (model,) = engine.get_best_models(1)
    scores = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert scores["accuracy"] == pytest.approx(trials[0].score, abs=1e-4)


def test_optuna_finds_a_model_that_loads_alone(space, tmp_path):
    hypermodel = space(**SMALL, warmup_epochs=1)
    study = tuner.optuna_search(
        *(hypermodel, "study", optuna.storages.InMemoryStorage()),
        **dict(max_trials=3, seed=1, verbose=0, directory=tmp_path, epochs=2, **DATA),
    )
    identities = {hypermodel.identity(trial.params) for trial in study.trials}
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert len(identities) == 3
    assert len(study.best_trial.user_attrs["record"]["history"]["val_accuracy"]) == 2
    model = hypermodel.build(parameters(study.best_params))
    model.load_weights(next(tmp_path.rglob("best.weights.h5")))
    assert model.evaluate(X, Y, verbose=0)[1] == pytest.approx(study.best_value, abs=1e-4)

    model.save(tmp_path / "best.keras")
    np.save(tmp_path / "x.npy", X)
    code = """
        import sys, keras, numpy as np, keras_resblocks
        model = keras.saving.load_model(sys.argv[1] + "/best.keras")
        print(type(model.optimizer).__name__)
        np.save(sys.argv[1] + "/y.npy", model.predict(np.load(sys.argv[1] + "/x.npy"), verbose=0))
    """
    assert "DiscriminativeOptimizer" in run_python(code, tmp_path)
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("warmup", "killed_after", "begun"),
    [(0, 2, [2]), (2, 1, [1, 2]), (1, 2, [0, 1, 2])],
    ids=["one fit goes on", "the first of two goes on", "the second of two starts over"],
)
def test_an_interrupted_trial(warmup, killed_after, begun, space, tmp_path):
    hypermodel = space(unfrozen_stages=1, warmup_epochs=warmup, learning_rates=(1e-2, 1e-3))
    _, after = interrupted(
        functools.partial(search, "RandomSearch", hypermodel, tmp_path, epochs=3), killed_after
    )
    assert after[: len(begun)] == begun
    (record, _) = (json.loads(path.read_text()) for path in sorted(tmp_path.rglob("record.json")))
    assert len(record["history"]["val_accuracy"]) == 3
