"""Weights of keras.applications and of our own models: their files, and what is wrong with them."""

import random
import re

import h5py
import keras
import numpy as np
import pytest
from checkpoint_files import (
    DAMAGE,
    assert_refused,
    assert_same,
    by_path,
    create,
    damaged,
    fitted,
    without_head,
)
from helpers import random_array, randomize, refusal, snapshot, to_numpy

import keras_resblocks as kr
from keras_resblocks.checkpoints import loading
from keras_resblocks.layers import Conv, Pool
from keras_resblocks.models import AuxHead

STEM = (Conv(6, 7, 2), Pool("max", 3, 2))
CLASSES = 5
IMAGES = {"input_shape": (32, 32, 3), "classes": CLASSES}
FIRST = "stem_conv1/conv/kernel"


def norm(**config):
    return keras.layers.BatchNormalization(epsilon=1.001e-5, momentum=0.99, **config)


V1 = {"use_bias": True, "stride_in_1x1": True, "normalization": norm()}
V2 = {
    "preactivation": True,
    "shortcut": kr.shortcuts.ProjectionShortcut("channels"),
    "normalization": norm(),
}
BRANCHES = ((2,), (2, (4, 3)), ("max_pool", 2))
SPLIT = ((2,), (3, (((2, (1, 3)),), ((2, (3, 1)),))), ("avg_pool", 3))


def resnet_v1(depths=(1, 2)):
    return kr.ResNetSpec("bottleneck", depths, 1, stem=STEM, options=V1, **IMAGES)


def resnet_v2(depths=(2, 1)):
    return kr.ResNetSpec(
        "bottleneck",
        depths,
        1,
        stem=(Conv(6, 7, 2), Pool("max", 3, 2, pad_value=0.0)),
        strides=(2,) * (len(depths) - 1) + (1,),
        stride_at="last",
        options=V2,
        **IMAGES,
    )


INCEPTION = kr.InceptionSpec(
    ((BRANCHES, SPLIT), (BRANCHES,)),
    stem=(Conv(4, 3, 2), Conv(3, 1), Pool("max", 3, 2)),
    options={"normalization": norm(scale=False)},
    **IMAGES,
)
DEEP = (3, 4, 6, 3)


MODELS = {}


def model_of(spec):
    """One model of a network for all tests, with any weights."""
    if repr(spec) not in MODELS:
        MODELS[repr(spec)] = create(spec)
    return MODELS[repr(spec)]


# Files in the format and the names of keras.applications, for networks of any depths.


def todays_name(layer):
    """`conv3_block1_2_bn` for `stage2_block1/conv2/norm`."""
    named = {"stem_conv1/conv": "conv1_conv", "stem_conv1/norm": "conv1_bn"}
    named.update({"head_norm": "post_bn", "head": "predictions"})
    if layer in named:
        return named[layer]
    stage, block, place, part = parts_of(layer)
    i = {"shortcut": 0, "entry_norm": "preact"}.get(place, place[-1])
    return f"conv{stage + 1}_block{block}_{i}_{'conv' if part == 'conv' else 'bn'}"


def legacy_name(layer):
    """`bn3a_branch2b` for `stage2_block1/conv2/norm`."""
    named = {"stem_conv1/conv": "conv1", "stem_conv1/norm": "bn_conv1", "head": "fc1000"}
    if layer in named:
        return named[layer]
    stage, block, place, part = parts_of(layer)
    branch = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}[place]
    return f"{'res' if part == 'conv' else 'bn'}{stage + 1}{' abcdef'[block]}_branch{branch}"


def parts_of(layer):
    stage, block, place, part = re.fullmatch(
        r"stage(\d)_block(\d)/(\w+)(?:/(\w+))?", layer
    ).groups()
    return int(stage), int(block), place, part


KERAS_1 = {
    "kernel": "W",
    "bias": "b",
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",
}
NAMINGS = {
    "today's": (todays_name, lambda layer, name: f"{layer}/{name}:0"),
    "legacy": (legacy_name, lambda layer, name: f"{layer}_{KERAS_1[name]}:0"),
}


def published(spec, naming="today's", top=True):
    """The layers of a file for a network, and the values that a model has then."""
    rng = np.random.default_rng(0)
    layer_name, weight_name = NAMINGS[naming]
    file, values = {"input_1": {}, "conv1_pad": {}}, {}
    for path, value in by_path(model_of(spec)).items():
        layer, _, name = path.rpartition("/")
        if top or layer != "head":
            theirs = layer_name(layer)
            values[path] = rng.uniform(0.5, 1.5, value.shape).astype("float32")
            file.setdefault(theirs, {})[weight_name(theirs, name)] = values[path]
            file[f"{theirs}_relu"] = {}
    return file, values


def write(path, layers, group="/", chunks=1):
    """A file of layers: dict of their names to dicts of weights' names to arrays."""
    with h5py.File(path, "w") as file:
        root = file.require_group(group)
        names = [name.encode() for name in layers]
        if chunks == 1:
            root.attrs["layer_names"] = names
        else:
            for i, chunk in enumerate(np.array_split(names, chunks)):
                root.attrs[f"layer_names{i}"] = chunk
        for layer, arrays in layers.items():
            root.create_group(layer).attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                root[layer].create_dataset(name, data=array)
    return path


def from_keras(weights):
    """What loads them into a model."""
    return lambda model: kr.load_keras_weights(model, weights)


# Layout of the file, for each way in which Keras wrote one.
LAYOUTS = {
    "weights": {},
    "inside a saved model": {"group": "model_weights"},
    "a long list of names in parts": {"chunks": 3},
    "a long list inside a saved model": {"group": "model_weights", "chunks": 2},
}


@pytest.mark.slow
def test_published_names_are_those_of_resnet50():
    names = {naming: {*published(resnet_v1(DEEP), naming)[0]} for naming in NAMINGS}
    known = {
        "today's": "conv1_conv conv1_bn conv2_block1_0_conv conv4_block6_3_bn predictions",
        "legacy": "conv1 bn_conv1 res2a_branch1 bn2a_branch2a res4f_branch2c res5c_branch2b fc1000",
    }
    for naming, some in known.items():
        assert {*some.split()} <= names[naming]
    theirs = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    assert {layer.name for layer in theirs.layers if layer.weights} <= names["today's"]


@pytest.mark.parametrize(
    ("spec", "naming"),
    [(resnet_v1(DEEP), "today's"), (resnet_v1(DEEP), "legacy"), (resnet_v2(DEEP), "today's")],
    ids=["v1", "legacy v1", "v2"],
)
def test_a_file_of_resnet50_loads(spec, naming, tmp_path):
    layers, values = published(spec, naming)
    model = model_of(spec)
    kr.load_keras_weights(model, write(tmp_path / "resnet50.h5", layers))
    assert_same(model, values)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("naming", NAMINGS)
def test_a_file_of_any_layout_loads(layout, naming, tmp_path):
    layers, values = published(resnet_v1(), naming)
    path = write(tmp_path / "resnet.h5", layers, **LAYOUTS[layout])
    model = model_of(resnet_v1())
    for given in (path, str(path)):
        kr.load_keras_weights(randomize(model), given)
        assert_same(model, values)


@pytest.mark.parametrize("file", ["resnet.h5", "resnet.H5", "resnet.hdf5"])
def test_create_model_takes_such_a_file(file, tmp_path):
    layers, values = published(resnet_v1())
    assert_same(create(resnet_v1(), weights=write(tmp_path / file, layers)), values)


NETWORKS = {
    "v1": (resnet_v1(), "today's"),
    "legacy v1": (resnet_v1(), "legacy"),
    "v2": (resnet_v2(), "today's"),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("top", [True, False])
def test_a_file_with_and_without_a_classifier_fits_other_heads_and_channels(network, top, tmp_path):
    spec, naming = NETWORKS[network]
    layers, values = published(spec, naming, top)
    path = write(tmp_path / "resnet.h5", layers)
    model = create(spec, include_top=False)
    kr.load_keras_weights(model, path)
    assert_same(model, without_head(values))
    head = {"head/kernel": np.ones((8, 7)), "head/bias": np.zeros(7)}
    for channels in (1, 4):
        options = {"input_shape": (32, 32, channels), "kernel_initializer": "ones"}
        model = create(spec, weights=path, classes=7, **options)
        first = fitted(values[FIRST], channels)
        assert_same(model, {**values, **head, FIRST: first}, near=[FIRST])


def test_a_file_without_a_classifier_does_not_fit_a_model_that_has_one(tmp_path):
    path = write(tmp_path / "resnet.h5", published(resnet_v1(), top=False)[0])
    with pytest.raises(ValueError, match=r"2 missing \(predictions/kernel, predictions/bias\)"):
        create(resnet_v1(), weights=path)


# Numbered names of the inception networks

# In the order of keras.applications.
INCEPTION_UNITS = """
    stem_conv1 stem_conv2
    stage1_block1/branch1_conv1 stage1_block1/branch2_conv1 stage1_block1/branch2_conv2
    stage1_block1/branch3_conv1
    stage1_block2/branch1_conv1 stage1_block2/branch2_conv1 stage1_block2/branch2_branch1_conv1
    stage1_block2/branch2_branch2_conv1 stage1_block2/branch3_conv1
    stage2_block1/branch1_conv1 stage2_block1/branch2_conv1 stage2_block1/branch2_conv2
    stage2_block1/branch3_conv1
"""


def published_inception(first=0):
    rng = np.random.default_rng(0)
    values = {
        path: rng.uniform(0.5, 1.5, value.shape).astype("float32")
        for path, value in by_path(model_of(INCEPTION)).items()
    }
    file = {"input_1": {}, "mixed0": {}}
    for i, unit in enumerate(INCEPTION_UNITS.split(), start=first):
        number = f"_{i}" if i else ""
        for theirs, part, names in (
            (f"conv2d{number}", "conv", ("kernel",)),
            (f"batch_normalization{number}", "norm", ("beta", "moving_mean", "moving_variance")),
        ):
            file[theirs] = {f"{theirs}/{n}:0": values[f"{unit}/{part}/{n}"] for n in names}
    file["predictions"] = {f"predictions/{n}:0": values[f"head/{n}"] for n in ("kernel", "bias")}
    return file, values


@pytest.mark.parametrize("first", [0, 1, 95])
@pytest.mark.parametrize("shuffled", [False, True])
def test_numbered_layers_are_told_by_their_numbers(first, shuffled, tmp_path):
    layers, values = published_inception(first)
    items = list(layers.items())
    if shuffled:
        random.Random(0).shuffle(items)
    path = write(tmp_path / "inception.h5", dict(items))
    assert_same(create(INCEPTION, weights=path), values)


# Files that do not fit


def changed(layer, weights=None):
    """Takes the layer out of a file, or gives it other weights."""

    def change(layers):
        others = {name: arrays for name, arrays in layers.items() if name != layer}
        return others if weights is None else {**others, layer: weights}

    return change


def zeros(**shapes):
    return {name: np.zeros(shape, "float32") for name, shape in shapes.items()}


# What is done to the layers of a file of v1, and what the message holds.
BAD_LAYERS = {
    "a layer is missing": (
        changed("conv3_block2_2_conv"),
        ["2 missing (conv3_block2_2_conv/kernel, conv3_block2_2_conv/bias)"],
    ),
    "a weight is unexpected": (
        changed("conv1_conv", zeros(kernel=(7, 7, 3, 6), bias=(6,), more=(6,))),
        ["1 unexpected (conv1_conv/2)"],
    ),
    "classes are others": (
        changed("predictions", zeros(kernel=(8, 6), bias=(6,))),
        ["2 of another shape (predictions/kernel: expected (8, 5), received (8, 6)"],
    ),
    "all at once": (
        lambda layers: changed("conv1_conv", zeros(kernel=(7, 7, 1, 6), bias=(6,)))(
            changed("more", zeros(kernel=(1, 2)))(changed("conv1_bn")(layers))
        ),
        ["4 missing (conv1_bn/gamma, ", "1 unexpected (more/kernel)", "1 of another shape (conv1_"],
    ),
    "a gain is missing": (
        changed("conv1_bn", zeros(beta=(6,), moving_mean=(6,), moving_variance=(6,))),
        ["1 missing (conv1_bn/gamma)"],
    ),
    "of ResNet v2": (
        lambda layers: published(resnet_v2())[0],
        ["missing (conv1_bn/gamma, ", "unexpected ("],
    ),
    "of an inception network": (lambda layers: published_inception()[0], ["conv1_conv/kernel"]),
    "without weights": (lambda layers: {"input_1": {}}, ["missing (conv1_conv/kernel"]),
    "words": (
        changed("predictions", {"kernel": np.zeros((8, 5)), "bias": np.array([b"a"] * 5)}),
        ["predictions/bias"],
    ),
}


@pytest.fixture
def v1_model():
    return randomize(model_of(resnet_v1()))


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(case, v1_model, tmp_path):
    change, parts = BAD_LAYERS[case]
    path = write(tmp_path / "resnet.h5", change(published(resnet_v1())[0]))
    assert_refused(v1_model, from_keras(path), parts)


@pytest.mark.parametrize("kind", ["conv2d", "batch_normalization"])
@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_numbered_layers_that_do_not_fit_are_named_and_nothing_is_loaded(kind, change, tmp_path):
    layers, _ = published_inception()
    if change == "missing":
        del layers[f"{kind}_14"]
    else:
        layers[f"{kind}_15"] = {**layers[f"{kind}_14"]}
    path = write(tmp_path / "inception.h5", layers)
    name = f"{kind}_14/" if change == "missing" else f"{kind}_15/"
    assert_refused(randomize(model_of(INCEPTION)), from_keras(path), [change, name])


@pytest.fixture
def good_file(tmp_path):
    return write(tmp_path / "m.h5", published(resnet_v1())[0])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_nothing_is_loaded(damage, v1_model, good_file):
    assert_refused(v1_model, from_keras(damaged(good_file, damage)), ["m.h5"])


@pytest.mark.parametrize("gone", ["conv1_bn", "conv1_bn/conv1_bn/gamma:0"])
def test_a_file_without_what_it_lists_is_refused(gone, v1_model, good_file):
    with h5py.File(good_file, "a") as file:
        del file[gone]
    assert_refused(v1_model, from_keras(good_file), ["m.h5"])


def test_what_is_no_file_of_keras_applications_is_refused(v1_model, tmp_path):
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        file["images"] = np.zeros((2, 3))
    v1_model.save_weights(tmp_path / "m.weights.h5")
    for path in (tmp_path, *(tmp_path / f"{name}.h5" for name in ("arrays", "m.weights", "none"))):
        assert_refused(v1_model, from_keras(path), [path.name])
    for weights in (None, 3, {"conv1_conv": np.zeros(3)}):
        assert_refused(v1_model, from_keras(weights), [])


# Models of keras.applications


@pytest.mark.slow
@pytest.mark.parametrize("include_top", [True, False])
def test_a_model_of_keras_applications_loads(include_top):
    arguments = {"include_top": include_top, "input_shape": (32, 32, 3)}
    theirs = randomize(keras.applications.ResNet50V2(weights=None, **arguments))
    ours = create("resnet50v2_keras", **arguments)
    kr.load_keras_weights(ours, theirs)
    ours, theirs = ([np.sort(w.ravel()) for w in snapshot(model)] for model in (ours, theirs))
    for values in (ours, theirs):
        values.sort(key=lambda value: (value.size, *value[:2]))
    for value, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.fixture
def applications_resnet50(monkeypatch):
    """Stands in for `keras.applications.ResNet50`: random weights, and a list of what it did."""
    original, calls = keras.applications.ResNet50, []

    def resnet50(**arguments):
        model = original(**{**arguments, "weights": None})
        for weight in model.weights:  # so that none is zero or one
            if len(weight.shape) == 1:
                weight.assign(np.linspace(0.6, 1.4, weight.shape[0], dtype="float32"))
        calls.append((arguments, model))
        return model

    monkeypatch.setattr(keras.applications, "ResNet50", resnet50)
    return calls


@pytest.mark.slow
def test_imagenet_weights_are_those_that_keras_has(applications_resnet50):
    ours = create("resnet50_keras", weights="imagenet", classifier_activation=None)
    [(arguments, theirs)] = applications_resnet50
    assert arguments == {"weights": "imagenet", "include_top": True}
    images = random_array((1, 224, 224, 3))
    expected = theirs.predict_on_batch(images)
    assert np.ptp(expected) > 0
    activated = keras.ops.softmax(keras.ops.convert_to_tensor(ours.predict_on_batch(images)))
    np.testing.assert_allclose(to_numpy(activated), expected, rtol=1e-3, atol=1e-6)


OTHER_HEADS = {
    "none, for one channel": {"include_top": False, "input_shape": (64, 64, 1)},
    "pooled": {"include_top": False, "pooling": "avg"},
    "other classes": {"classes": 6},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHER_HEADS)
def test_imagenet_weights_for_another_head_are_asked_for_without_one(case, applications_resnet50):
    ours = by_path(create("resnet50_keras", weights="imagenet", **OTHER_HEADS[case]))
    [(arguments, theirs)] = applications_resnet50
    assert arguments == {"weights": "imagenet", "include_top": False}
    first, last = (
        theirs.get_layer(name).get_weights()[0] for name in ("conv1_conv", "conv5_block3_3_conv")
    )
    np.testing.assert_array_equal(ours["stage4_block3/conv3/conv/kernel"], last)
    channels = ours[FIRST].shape[2]
    expected = first if channels == 3 else fitted(first, channels)
    np.testing.assert_allclose(ours[FIRST], expected, rtol=1e-5, atol=1e-6)


# Our own `.weights.h5` and `.keras` files

IMAGE = {"input_shape": (16, 16, 3)}


def tiny_spec(depths=(1, 1), width=4, **fields):
    fields = {"stem": (Conv(4, 3, 2),), "classes": CLASSES, **IMAGE, **fields}
    return kr.ResNetSpec("residual", depths, width, **fields)


TINY = tiny_spec()
OWN = {
    "plain": (TINY, {}),
    "dropout": (tiny_spec((2,), dropout=0.3), {"drop_path_rate": 0.1}),
    "templates": (
        TINY,
        {
            "activation": keras.layers.PReLU(shared_axes=[1, 2]),
            "attention": "squeeze_excite",
            "normalization": "group",
        },
    ),
    "inception": (INCEPTION, {}),
    "no top": (TINY, {"include_top": False}),
}


def load_own(path):
    return lambda model: loading.load_weights(model, path, None, new_head=False)


@pytest.fixture
def tiny():
    return randomize(model_of(TINY))


@pytest.fixture
def own_file(tiny, tmp_path):
    return save(tiny, tmp_path / "model.weights.h5")


def save(model, path):
    if path.name.lower().endswith("weights.h5"):
        model.save_weights(path.with_name("model.weights.h5"))
        return path.with_name("model.weights.h5").rename(path)
    model.save(path.with_suffix(".keras"))
    return path.with_suffix(".keras").rename(path)


FILES = ["model.weights.h5", "model.keras", "MODEL.Weights.H5", "model.KERAS"]
# What the model has that the file has not.
CHANGES = {
    "classes": {"classes": 7},
    "one channel": {"input_shape": (16, 16, 1)},
    "channels": {"input_shape": (16, 16, 13)},
    "no top": {"include_top": False},
    "pooled": {"include_top": False, "pooling": "avg"},
    "classes and channels": {"classes": 9, "input_shape": (16, 16, 2)},
}


def changed_values(values, change):
    """The values of a model that differs from that of the file, ones in a new head."""
    channels, classes = change.get("input_shape", (3,))[-1], change.get("classes")
    if channels != 3:
        values = {**values, FIRST: fitted(values[FIRST], channels)}
    if classes:
        head = {"head/kernel": np.ones((8, classes)), "head/bias": np.zeros(classes)}
        values = {**values, **head}
    return values if change.get("include_top", True) else without_head(values)


@pytest.mark.parametrize("file", FILES)
def test_our_own_file_fits_other_classes_and_channels(file, tiny, tmp_path):
    values = by_path(tiny)
    path = save(tiny, tmp_path / file)
    content = path.read_bytes()
    for change in CHANGES.values() if file in FILES[:2] else [{}, {"classes": 7}]:
        loaded = create(TINY, weights=path, kernel_initializer="ones", **change)
        assert_same(loaded, changed_values(values, change), near=[FIRST])
    assert path.read_bytes() == content


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_our_own_file_in_bfloat16_fits_as_well(dtype, tmp_path):
    model = randomize(create(TINY, dtype="bfloat16"))
    values = {path: value.astype("float32") for path, value in by_path(model).items()}
    path = save(model, tmp_path / "model.weights.h5")
    for change in ({}, {"classes": 7}, {"input_shape": (16, 16, 6)}, {"include_top": False}):
        loaded = create(TINY, weights=path, kernel_initializer="ones", dtype=dtype, **change)
        loaded = {path: value.astype("float32") for path, value in by_path(loaded).items()}
        expected = changed_values(values, change)
        assert {*loaded} == {*expected}
        for name, value in expected.items():
            np.testing.assert_array_equal(loaded[name], value, err_msg=name)


AUX = kr.InceptionSpec(
    ((BRANCHES,),),
    stem=(Conv(4, 3, 2),),
    aux_heads=(AuxHead("stage1_block1", Pool("avg", 5, 3, padding="valid")),),
    **IMAGES,
)


@pytest.mark.parametrize("change", [{}, {"include_top": False}])
def test_a_saved_model_with_auxiliary_classifiers_fits_one_without(change, tmp_path):
    model = randomize(create(AUX, aux_heads=True))
    loaded = create(AUX, weights=save(model, tmp_path / "model.keras"), **change)
    values = by_path(model)
    assert loaded.weights
    assert_same(loaded, {weight.path: values[weight.path] for weight in loaded.weights})


@pytest.mark.parametrize("file", FILES[:2])
def test_our_own_file_without_a_classifier_leaves_a_new_head(file, tmp_path):
    model = randomize(create(TINY, include_top=False, input_shape=(16, 16, 13)))
    path = save(model, tmp_path / file)
    with pytest.raises(ValueError, match=r"2 missing \("):
        create(TINY, weights=path)
    loaded = by_path(create(TINY, weights=path, classes=7))
    assert loaded["head/kernel"].shape == (8, 7)
    expected = fitted(by_path(model)[FIRST], 3)
    np.testing.assert_allclose(loaded[FIRST], expected, rtol=1e-5)


@pytest.mark.parametrize("file", FILES[:2])
def test_other_classes_do_not_excuse_another_backbone_in_our_own_file(file, tmp_path):
    path = save(create(tiny_spec((1, 2)), classes=3), tmp_path / file)
    model = randomize(create(TINY, classes=7))
    adapt = {"new_head": True, "adapt_channels": True}
    use = loading.load_weights
    assert_refused(model, lambda model: use(model, path, None, **adapt), ["unexpected ("])


def test_a_saved_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.keras").write_text("no model at all\n" * 99)
    with pytest.raises(ValueError, match=r"`weights`.*model\.keras.*Received: "):
        create(TINY, weights=tmp_path / "model.keras")


@pytest.mark.parametrize("case", OWN)
def test_our_own_file_loads_trained_or_not(case, tmp_path):
    spec, arguments = OWN[case]
    model = randomize(create(spec, **arguments))
    path = save(model, tmp_path / "model.weights.h5")
    assert_same(create(spec, weights=path, **arguments), model)
    if case in ("plain", "dropout"):
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(random_array((2, 16, 16, 3)), np.array([1, 2]), verbose=0)
        save(model, path)
        with h5py.File(path) as file:
            assert "optimizer" in file
        assert_same(create(spec, weights=path, **arguments), model)


def test_a_file_saved_without_drop_path_loads_into_a_model_that_has_it(own_file, tiny):
    dropping = create(TINY, drop_path_rate=0.1, weights=own_file)
    assert_same(dropping, tiny)
    dropping.save_weights(own_file)
    assert_same(create(TINY, weights=own_file), tiny)


def datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names


def replaced(file, name, value):
    del file[name]
    file[name] = value


def all_at_once(path):
    with h5py.File(path, "a") as file:
        gone, other = datasets(file)[7:9]
        new, shape = f"{gone.rpartition('/')[0]}/9", file[other].shape
        del file[gone]
        file[new] = np.zeros(3, "float32")
        replaced(file, other, np.zeros((*shape, 2), "float32"))
    misfit = f"({other}: expected {shape}, received {(*shape, 2)})"
    return [f"1 missing ({gone})", f"1 unexpected ({new})", f"1 of another shape {misfit}"]


def made_a_published_file(path):
    write(path, published(resnet_v1())[0])
    return ["missing (layers/"]


def of_a_wider_network(path):
    create(tiny_spec(width=6)).save_weights(path)
    return ["of another shape (layers/", "expected (3, 3, 4, 4), received (3, 3, 4, 6)"]


def of_a_deeper_network(path):
    create(tiny_spec((1, 2))).save_weights(path)
    return ["unexpected (layers/"]


def of_other_classes(path):
    create(TINY, classes=6).save_weights(path)
    return ["2 of another shape (layers/", "expected (8, 5), received (8, 6)"]


def of_no_numbers(path):
    with h5py.File(path, "a") as file:
        name = [name for name in datasets(file) if "dense" in name or "head" in name][-1]
        replaced(file, name, np.full(file[name].shape, b"a"))
    return [name]


# Each spoils a good file, and returns what the message holds.
SPOILED = [
    all_at_once,
    made_a_published_file,
    of_a_wider_network,
    of_a_deeper_network,
    of_other_classes,
    of_no_numbers,
]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_our_own_file_that_does_not_fit_is_refused_and_nothing_is_loaded(spoil, tiny, own_file):
    parts = spoil(own_file)
    assert_refused(randomize(tiny, seed=9), load_own(own_file), parts)


@pytest.mark.parametrize("damage", DAMAGE)
def test_our_own_file_that_is_damaged_is_refused_and_nothing_is_loaded(damage, tiny, own_file):
    assert_refused(randomize(tiny, seed=9), load_own(damaged(own_file, damage)), [own_file.name])


def test_our_own_file_that_does_not_fit_is_refused_by_create_model(own_file):
    parts = all_at_once(own_file)
    refusal(lambda: create(TINY, weights=own_file), ["`weights`", *parts])
