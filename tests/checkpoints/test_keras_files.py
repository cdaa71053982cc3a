"""Weights of keras.applications and of our own models: their files, and what is wrong with them."""

import random

import h5py
import keras
import numpy as np
import pytest
from helpers import random_array, randomize, snapshot, to_numpy

import keras_resblocks as kr
from keras_resblocks.checkpoints import loading
from keras_resblocks.layers import Conv, Pool
from keras_resblocks.models import AuxHead

STEM = (Conv(6, 7, 2), Pool("max", 3, 2))
CLASSES = 5


def norm(**config):
    return keras.layers.BatchNormalization(epsilon=1.001e-5, momentum=0.99, **config)


V1 = {"use_bias": True, "stride_in_1x1": True, "normalization": norm()}
V2 = {
    "preactivation": True,
    "shortcut": kr.shortcuts.ProjectionShortcut("channels"),
    "normalization": norm(),
}


def resnet_v1(depths=(1, 2)):
    return kr.ResNetSpec(
        "bottleneck",
        depths,
        1,
        stem=STEM,
        options=V1,
        input_shape=(32, 32, 3),
        classes=CLASSES,
    )


def resnet_v2(depths=(2, 1)):
    return kr.ResNetSpec(
        "bottleneck",
        depths,
        1,
        stem=(Conv(6, 7, 2), Pool("max", 3, 2, pad_value=0.0)),
        strides=(2,) * (len(depths) - 1) + (1,),
        stride_at="last",
        options=V2,
        input_shape=(32, 32, 3),
        classes=CLASSES,
    )


def create(spec, **arguments):
    return kr.create_model(spec, **{"kernel_initializer": "zeros", **arguments})


def by_path(model):
    return {weight.path: to_numpy(weight) for weight in model.weights}


def assert_holds(model, values):
    """All of the model's weights are those values, by their paths."""
    weights = by_path(model)
    assert {*weights} == {*values}
    for path, value in values.items():
        np.testing.assert_array_equal(weights[path], value, err_msg=path)


# Files in the format and the names of keras.applications, for networks of any depths and a width
# of 1. A layer is the path of ours, its place (stage, block and number, or a name), its part and
# the shapes of its weights.


def conv(ours, place, window, channels, filters, bias=True):
    shapes = {"kernel": (window, window, channels, filters)}
    return ours, place, "conv", {**shapes, "bias": (filters,)} if bias else shapes


def batch_norm(ours, place, channels):
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return ours, place, "bn", dict.fromkeys(names, (channels,))


def layers_v1(depths, top=True):
    yield conv("stem_conv1/conv", "stem", 7, 3, 6)
    yield batch_norm("stem_conv1/norm", "stem", 6)
    channels = 6
    for s, depth in enumerate(depths):
        width = 2**s
        for b in range(1, depth + 1):
            block = f"stage{s + 1}_block{b}"
            if b == 1:
                place = (s + 2, b, 0)
                yield conv(f"{block}/shortcut/conv", place, 1, channels, 4 * width)
                yield batch_norm(f"{block}/shortcut/norm", place, 4 * width)
            sizes = ((1, channels, width), (3, width, width), (1, width, 4 * width))
            for i, (window, inputs, filters) in enumerate(sizes, start=1):
                yield conv(f"{block}/conv{i}/conv", (s + 2, b, i), window, inputs, filters)
                yield batch_norm(f"{block}/conv{i}/norm", (s + 2, b, i), filters)
            channels = 4 * width
    if top:
        yield "head", "head", "dense", {"kernel": (channels, CLASSES), "bias": (CLASSES,)}


def layers_v2(depths, top=True):
    yield conv("stem_conv1/conv", "stem", 7, 3, 6)
    channels = 6
    for s, depth in enumerate(depths):
        width = 2**s
        for b in range(1, depth + 1):
            block, at = f"stage{s + 1}_block{b}", (s + 2, b)
            yield batch_norm(f"{block}/entry_norm", (*at, "preact"), channels)
            if b == 1:
                yield conv(f"{block}/shortcut/conv", (*at, 0), 1, channels, 4 * width)
            yield conv(f"{block}/conv1/conv", (*at, 1), 1, channels, width, bias=False)
            yield batch_norm(f"{block}/conv1/norm", (*at, 1), width)
            yield conv(f"{block}/conv2/conv", (*at, 2), 3, width, width, bias=False)
            yield batch_norm(f"{block}/conv2/norm", (*at, 2), width)
            yield conv(f"{block}/conv3/conv", (*at, 3), 1, width, 4 * width)
            channels = 4 * width
    yield batch_norm("head_norm", "post", channels)
    if top:
        yield "head", "head", "dense", {"kernel": (channels, CLASSES), "bias": (CLASSES,)}


def todays_name(place, part):
    if isinstance(place, tuple):
        stage, block, i = place
        return f"conv{stage}_block{block}_{i}_{part}"
    return {"stem": f"conv1_{part}", "post": "post_bn", "head": "predictions"}[place]


def legacy_name(place, part):
    if isinstance(place, tuple):
        stage, block, i = place
        branch = ("1", "2a", "2b", "2c")[i]
        return f"{'res' if part == 'conv' else 'bn'}{stage}{' abcdef'[block]}_branch{branch}"
    return {"stem": {"conv": "conv1", "bn": "bn_conv1"}.get(part), "head": "fc1000"}[place]


def todays_weight(layer, name):
    return f"{layer}/{name}:0"


KERAS_1 = {
    "kernel": "W",
    "bias": "b",
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",
}


def legacy_weight(layer, name):
    return f"{layer}_{KERAS_1[name]}:0"


NAMINGS = {"today's": (todays_name, todays_weight), "legacy": (legacy_name, legacy_weight)}


def published(layers, naming="today's", seed=0):
    """The layers of a file, and the values that a model has then."""
    rng = np.random.default_rng(seed)
    layer_name, weight_name = NAMINGS[naming]
    file, values = {"input_1": {}, "conv1_pad": {}}, {}
    for ours, place, part, shapes in layers:
        theirs = layer_name(place, part)
        file[theirs] = {}
        for name, shape in shapes.items():
            array = rng.uniform(0.5, 1.5, shape).astype("float32")
            file[theirs][weight_name(theirs, name)] = values[f"{ours}/{name}"] = array
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


# Layout of the file, for each way in which Keras wrote one.
LAYOUTS = {
    "weights": {},
    "inside a saved model": {"group": "model_weights"},
    "a long list of names in parts": {"chunks": 3},
    "a long list inside a saved model": {"group": "model_weights", "chunks": 2},
}

DEEP = (3, 4, 6, 3)


@pytest.mark.slow
def test_published_names_are_those_of_resnet50():
    names = {naming: {*published(layers_v1(DEEP), naming)[0]} for naming in NAMINGS}
    known = {
        "today's": "conv1_conv conv1_bn conv2_block1_0_conv conv4_block6_3_bn predictions",
        "legacy": "conv1 bn_conv1 res2a_branch1 bn2a_branch2a res4f_branch2c res5c_branch2b fc1000",
    }
    for naming, some in known.items():
        assert {*some.split()} <= names[naming]
    theirs = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    assert {layer.name for layer in theirs.layers if layer.weights} <= names["today's"]


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_file_of_resnet50_loads(naming, tmp_path):
    layers, values = published(layers_v1(DEEP), naming)
    model = create(resnet_v1(DEEP))
    kr.load_keras_weights(model, write(tmp_path / "resnet50.h5", layers))
    assert_holds(model, values)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("naming", NAMINGS)
def test_a_file_of_any_layout_loads(layout, naming, tmp_path):
    layers, values = published(layers_v1((1, 2)), naming)
    path = write(tmp_path / "resnet.h5", layers, **LAYOUTS[layout])
    model = create(resnet_v1())
    for given in (path, str(path)):
        kr.load_keras_weights(randomize(model), given)
        assert_holds(model, values)


def test_a_file_of_resnet50v2_loads(tmp_path):
    layers, values = published(layers_v2(DEEP))
    model = create(resnet_v2(DEEP))
    kr.load_keras_weights(model, write(tmp_path / "resnet50v2.h5", layers))
    assert_holds(model, values)


@pytest.mark.parametrize("file", ["resnet.h5", "resnet.hdf5"])
def test_create_model_takes_such_a_file(file, tmp_path):
    layers, values = published(layers_v1((1, 2)))
    path = write(tmp_path / file, layers)
    assert_holds(create(resnet_v1(), weights=path), values)


NETWORKS = {
    "v1": (resnet_v1, layers_v1, (1, 2), "today's"),
    "legacy v1": (resnet_v1, layers_v1, (1, 2), "legacy"),
    "v2": (resnet_v2, layers_v2, (2, 1), "today's"),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("top", [True, False])
def test_a_model_without_a_classifier_takes_a_file_with_and_without_one(network, top, tmp_path):
    spec, layers_of, depths, naming = NETWORKS[network]
    layers, values = published(layers_of(depths, top), naming)
    model = create(spec(depths), include_top=False)
    kr.load_keras_weights(model, write(tmp_path / "resnet.h5", layers))
    assert_holds(model, {p: v for p, v in values.items() if not p.startswith("head/")})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("top", [True, False])
def test_other_classes_leave_a_new_head(network, top, tmp_path):
    spec, layers_of, depths, naming = NETWORKS[network]
    layers, values = published(layers_of(depths, top), naming)
    path = write(tmp_path / "resnet.h5", layers)
    model = create(spec(depths), weights=path, classes=7, kernel_initializer="ones")
    channels = 4 * 2 ** (len(depths) - 1)
    head = {"head/kernel": np.ones((channels, 7)), "head/bias": np.zeros(7)}
    assert_holds(model, {**values, **head})


def test_a_file_without_a_classifier_does_not_fit_a_model_that_has_one(tmp_path):
    layers, _ = published(layers_v1((1, 2), top=False))
    path = write(tmp_path / "resnet.h5", layers)
    with pytest.raises(ValueError, match=r"2 missing \(predictions/kernel, predictions/bias\)"):
        create(resnet_v1(), weights=path)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_kernel_is_fitted_to_the_channels(channels, tmp_path):
    layers, values = published(layers_v1((1, 2)))
    path = write(tmp_path / "resnet.H5", layers)
    model = create(resnet_v1(), weights=path, input_shape=(32, 32, channels))
    rgb = values.pop("stem_conv1/conv/kernel")
    if channels == 1:
        expected = rgb.sum(axis=2, keepdims=True)
    else:
        expected = np.concatenate([rgb, rgb[:, :, :1]], axis=2) * 0.75
    weights = by_path(model)
    np.testing.assert_allclose(weights.pop("stem_conv1/conv/kernel"), expected, rtol=1e-6)
    assert {*weights} == {*values}


# Numbered names of the inception networks

BRANCHES = ((2,), (2, (4, 3)), ("max_pool", 2))
SPLIT = ((2,), (3, (((2, (1, 3)),), ((2, (3, 1)),))), ("avg_pool", 3))

INCEPTION = kr.InceptionSpec(
    ((BRANCHES, SPLIT), (BRANCHES,)),
    stem=(Conv(4, 3, 2), Conv(3, 1), Pool("max", 3, 2)),
    options={"normalization": norm(scale=False)},
    input_shape=(32, 32, 3),
    classes=CLASSES,
)

# Our paths in the order of keras.applications, with the shapes of their kernels.
INCEPTION_LAYERS = {
    "stem_conv1": (3, 3, 3, 4),
    "stem_conv2": (1, 1, 4, 3),
    "stage1_block1/branch1_conv1": (1, 1, 3, 2),
    "stage1_block1/branch2_conv1": (1, 1, 3, 2),
    "stage1_block1/branch2_conv2": (3, 3, 2, 4),
    "stage1_block1/branch3_conv1": (1, 1, 3, 2),
    "stage1_block2/branch1_conv1": (1, 1, 8, 2),
    "stage1_block2/branch2_conv1": (1, 1, 8, 3),
    "stage1_block2/branch2_branch1_conv1": (1, 3, 3, 2),
    "stage1_block2/branch2_branch2_conv1": (3, 1, 3, 2),
    "stage1_block2/branch3_conv1": (1, 1, 8, 3),
    "stage2_block1/branch1_conv1": (1, 1, 9, 2),
    "stage2_block1/branch2_conv1": (1, 1, 9, 2),
    "stage2_block1/branch2_conv2": (3, 3, 2, 4),
    "stage2_block1/branch3_conv1": (1, 1, 9, 2),
}


def numbered(kind, i):
    return f"{kind}_{i}" if i else kind


def published_inception(first=0):
    rng = np.random.default_rng(0)
    file, values = {"input_1": {}, "mixed0": {}}, {}
    for i, (ours, shape) in enumerate(INCEPTION_LAYERS.items(), start=first):
        for kind, part, shapes in (
            ("conv2d", "conv", {"kernel": shape}),
            (
                "batch_normalization",
                "norm",
                dict.fromkeys(("beta", "moving_mean", "moving_variance"), shape[-1:]),
            ),
        ):
            theirs = numbered(kind, i)
            file[theirs] = {}
            for name, s in shapes.items():
                array = rng.uniform(0.5, 1.5, s).astype("float32")
                values[f"{ours}/{part}/{name}"] = file[theirs][f"{theirs}/{name}:0"] = array
    kernel, bias = random_array((8, CLASSES)), random_array((CLASSES,))
    file["predictions"] = {"predictions/kernel:0": kernel, "predictions/bias:0": bias}
    return file, {**values, "head/kernel": kernel, "head/bias": bias}


@pytest.mark.parametrize("first", [0, 1, 95])
@pytest.mark.parametrize("shuffled", [False, True])
def test_numbered_layers_are_told_by_their_numbers(first, shuffled, tmp_path):
    layers, values = published_inception(first)
    items = list(layers.items())
    if shuffled:
        random.Random(0).shuffle(items)
    path = write(tmp_path / "inception.h5", dict(items))
    assert_holds(create(INCEPTION, weights=path), values)


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
    "a layer is unexpected": (
        changed("conv6_block1_1_conv", zeros(kernel=(1, 1, 2, 3))),
        ["1 unexpected (conv6_block1_1_conv/kernel)"],
    ),
    "a weight is missing": (
        changed("conv1_conv", zeros(kernel=(7, 7, 3, 6))),
        ["1 missing (conv1_conv/bias)"],
    ),
    "a weight is unexpected": (
        changed("conv1_conv", zeros(kernel=(7, 7, 3, 6), bias=(6,), more=(6,))),
        ["1 unexpected (conv1_conv/2)"],
    ),
    "a shape is wrong": (
        changed("conv1_conv", zeros(kernel=(5, 7, 3, 6), bias=(6,))),
        ["1 of another shape (conv1_conv/kernel: expected (7, 7, 3, 6), received (5, 7, 3, 6))"],
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
        lambda layers: published(layers_v2((2, 1)))[0],
        ["missing (conv1_bn/gamma, ", "unexpected ("],
    ),
    "of an inception network": (lambda layers: published_inception()[0], ["conv1_conv/kernel"]),
    "without weights": (lambda layers: {"input_1": {}}, ["missing (conv1_conv/kernel"]),
}


def assert_refused(model, load, parts):
    """A message holds `parts`, and the model is as it was."""
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"(?s)`weights`.*Received: ") as raised:
        load(model)
    message = str(raised.value)
    assert len(message) < 2000
    assert [part for part in parts if part not in message] == [], message
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value, err_msg=weight.path)


@pytest.fixture
def v1_model():
    return randomize(create(resnet_v1()))


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(case, v1_model, tmp_path):
    change, parts = BAD_LAYERS[case]
    layers, _ = published(layers_v1((1, 2)))
    path = write(tmp_path / "resnet.h5", change(layers))
    assert_refused(v1_model, lambda model: kr.load_keras_weights(model, path), parts)


@pytest.mark.parametrize("kind", ["conv2d", "batch_normalization"])
@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_numbered_layers_that_do_not_fit_are_named_and_nothing_is_loaded(kind, change, tmp_path):
    layers, _ = published_inception()
    if change == "missing":
        del layers[f"{kind}_14"]
    else:
        layers[f"{kind}_15"] = {**layers[f"{kind}_14"]}
    path = write(tmp_path / "inception.h5", layers)
    model = randomize(create(INCEPTION))
    name = f"{kind}_14/" if change == "missing" else f"{kind}_15/"
    assert_refused(model, lambda model: kr.load_keras_weights(model, path), [change, name])


def cut(path, fraction):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def good_file(folder):
    return write(folder / "m.h5", published(layers_v1((1, 2)))[0])


def file_without_a_group(folder):
    path = good_file(folder)
    with h5py.File(path, "a") as file:
        del file["conv1_bn"]
    return path


def file_without_a_dataset(folder):
    path = good_file(folder)
    with h5py.File(path, "a") as file:
        del file["conv1_bn/conv1_bn/gamma:0"]
    return path


def text_file(folder):
    (folder / "m.h5").write_text("no weights at all\n" * 99)
    return folder / "m.h5"


def empty_file(folder):
    (folder / "m.h5").touch()
    return folder / "m.h5"


def file_of_arrays(folder):
    with h5py.File(folder / "m.h5", "w") as file:
        file["images"] = np.zeros((2, 3))
    return folder / "m.h5"


def file_of_words(folder):
    layers, _ = published(layers_v1((1, 2)))
    words = np.array([b"a", b"b", b"c", b"d", b"e"])
    layers["predictions"]["predictions/bias:0"] = words
    return write(folder / "m.h5", layers)


def own_file(folder):
    randomize(create(resnet_v1())).save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5"


BAD_FILES = {
    "cut at the beginning": lambda folder: cut(good_file(folder), 0.02),
    "cut in the middle": lambda folder: cut(good_file(folder), 0.5),
    "cut at the end": lambda folder: cut(good_file(folder), 0.999),
    "a layer's group is gone": file_without_a_group,
    "a weight's data are gone": file_without_a_dataset,
    "empty": empty_file,
    "a text": text_file,
    "no weights": file_of_arrays,
    "no numbers": file_of_words,
    "our own file": own_file,
    "missing": lambda folder: folder / "m.h5",
    "a folder": lambda folder: folder,
    "None": lambda folder: None,
    "a number": lambda folder: 3,
    "a dict of arrays": lambda folder: {"conv1_conv": np.zeros(3)},
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_and_nothing_is_loaded(case, v1_model, tmp_path):
    weights = BAD_FILES[case](tmp_path)
    name = [] if weights is None or isinstance(weights, (int, dict)) else [weights.name]
    if case == "no numbers":
        name = ["predictions/bias"]
    assert_refused(v1_model, lambda model: kr.load_keras_weights(model, weights), name)


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
    "none": {"include_top": False},
    "pooled": {"include_top": False, "pooling": "avg"},
    "other classes": {"classes": 6},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHER_HEADS)
def test_imagenet_weights_for_another_head_are_asked_for_without_one(case, applications_resnet50):
    ours = create("resnet50_keras", weights="imagenet", **OTHER_HEADS[case])
    [(arguments, theirs)] = applications_resnet50
    assert arguments == {"weights": "imagenet", "include_top": False}
    kernel = theirs.get_layer("conv5_block3_3_conv").get_weights()[0]
    np.testing.assert_array_equal(by_path(ours)["stage4_block3/conv3/conv/kernel"], kernel)


@pytest.mark.slow
def test_imagenet_weights_fit_images_of_one_channel(applications_resnet50):
    ours = create("resnet50_keras", weights="imagenet", include_top=False, input_shape=(64, 64, 1))
    [(_, theirs)] = applications_resnet50
    kernel = theirs.get_layer("conv1_conv").get_weights()[0]
    np.testing.assert_allclose(
        by_path(ours)["stem_conv1/conv/kernel"],
        kernel.sum(axis=2, keepdims=True),
        rtol=1e-5,
        atol=1e-6,
    )


# Our own `.weights.h5` files

TINY = kr.ResNetSpec(
    "residual", (1, 1), 4, stem=(Conv(4, 3, 2),), input_shape=(16, 16, 3), classes=CLASSES
)
OWN = {
    "plain": (TINY, {}),
    "dropout": (
        kr.ResNetSpec("residual", (2,), 4, stem=(Conv(4, 3, 2),), dropout=0.3, classes=CLASSES),
        {"drop_path_rate": 0.1, "input_shape": (16, 16, 3)},
    ),
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
    values, kernel = dict(values), "stem_conv1/conv/kernel"
    if "input_shape" in change:
        channels = change["input_shape"][-1]
        repeated = np.take(values[kernel], np.arange(channels) % 3, axis=2) * (3 / channels)
        summed = values[kernel].sum(axis=2, keepdims=True)
        values[kernel] = summed if channels == 1 else repeated
    if "classes" in change:
        features = values["head/kernel"].shape[0]
        values["head/kernel"] = np.ones((features, change["classes"]))
        values["head/bias"] = np.zeros(change["classes"])
    if "include_top" in change:
        values = {path: value for path, value in values.items() if not path.startswith("head/")}
    return values


@pytest.mark.parametrize("file", FILES)
def test_our_own_file_fits_other_classes_and_channels(file, tmp_path):
    model = randomize(create(TINY))
    path = save(model, tmp_path / file)
    content = path.read_bytes()
    for change in CHANGES.values() if file in FILES[:2] else [{}, {"classes": 7}]:
        loaded = by_path(create(TINY, weights=path, kernel_initializer="ones", **change))
        expected = changed_values(by_path(model), change)
        assert {*loaded} == {*expected}
        for name, value in expected.items():
            np.testing.assert_allclose(loaded[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert path.read_bytes() == content


AUX = kr.InceptionSpec(
    ((BRANCHES,),),
    stem=(Conv(4, 3, 2),),
    input_shape=(32, 32, 3),
    classes=CLASSES,
    aux_heads=(AuxHead("stage1_block1", Pool("avg", 5, 3, padding="valid")),),
)


@pytest.mark.parametrize("change", [{}, {"include_top": False}])
def test_a_saved_model_with_auxiliary_classifiers_fits_one_without(change, tmp_path):
    model = randomize(create(AUX, aux_heads=True))
    loaded = by_path(create(AUX, weights=save(model, tmp_path / "model.keras"), **change))
    assert loaded
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, by_path(model)[name], err_msg=name)


@pytest.mark.parametrize("file", FILES[:2])
def test_our_own_file_without_a_classifier_leaves_a_new_head(file, tmp_path):
    model = randomize(create(TINY, include_top=False, input_shape=(16, 16, 13)))
    path = save(model, tmp_path / file)
    with pytest.raises(ValueError, match=r"2 missing \("):
        create(TINY, weights=path)
    loaded = by_path(create(TINY, weights=path, classes=7))
    assert loaded.pop("head/kernel").shape == (8, 7)
    np.testing.assert_allclose(
        loaded["stem_conv1/conv/kernel"],
        by_path(model)["stem_conv1/conv/kernel"][:, :, :3] * np.float32(13 / 3),
        rtol=1e-5,
    )


@pytest.mark.parametrize("file", FILES[:2])
def test_other_classes_do_not_excuse_another_backbone_in_our_own_file(file, tmp_path):
    spec = kr.ResNetSpec("residual", (1, 2), 4, stem=(Conv(4, 3, 2),), input_shape=(16, 16, 3))
    path = save(create(spec, classes=3), tmp_path / file)
    model = randomize(create(TINY, classes=7))
    adapt = {"new_head": True, "adapt_channels": True}
    use = loading.load_weights
    assert_refused(model, lambda model: use(model, path, None, **adapt), ["unexpected ("])


def test_a_saved_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.keras").write_text("no model at all\n" * 99)
    with pytest.raises(ValueError, match=r"`weights`.*model\.keras.*Received: "):
        create(TINY, weights=tmp_path / "model.keras")


@pytest.mark.parametrize("case", OWN)
def test_our_own_file_loads(case, tmp_path):
    spec, arguments = OWN[case]
    model = randomize(create(spec, **arguments))
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    assert_holds(create(spec, weights=path, **arguments), by_path(model))


@pytest.mark.parametrize("case", ["plain", "dropout"])
def test_our_own_file_of_a_trained_model_loads(case, tmp_path):
    spec, arguments = OWN[case]
    model = randomize(create(spec, **arguments))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(random_array((2, 16, 16, 3)), np.array([1, 2]), verbose=0)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    with h5py.File(path) as file:
        assert "optimizer" in file
    assert_holds(create(spec, weights=path, **arguments), by_path(model))


def test_a_file_saved_without_drop_path_loads_into_a_model_that_has_it(tmp_path):
    path = tmp_path / "model.weights.h5"
    model = randomize(create(TINY))
    model.save_weights(path)
    assert_holds(create(TINY, drop_path_rate=0.1, weights=path), by_path(model))
    create(TINY, drop_path_rate=0.1, weights=path).save_weights(path)
    assert_holds(create(TINY, weights=path), by_path(model))


def datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names


def removed(path):
    with h5py.File(path, "a") as file:
        name = datasets(file)[7]
        del file[name]
    return [f"1 missing ({name})"]


def added(path):
    with h5py.File(path, "a") as file:
        group = datasets(file)[7].rpartition("/")[0]
        file[f"{group}/9"] = np.zeros(3, "float32")
    return [f"1 unexpected ({group}/9)"]


def reshaped(path):
    with h5py.File(path, "a") as file:
        name = datasets(file)[7]
        shape = file[name].shape
        del file[name]
        file[name] = np.zeros((*shape, 2), "float32")
    return [f"1 of another shape ({name}: expected {shape}, received {(*shape, 2)})"]


def all_at_once(path):
    return [*removed(path), *added(path), *reshaped(path)]


def cut_in_the_middle(path):
    cut(path, 0.5)
    return [path.name]


def cut_at_the_end(path):
    cut(path, 0.999)
    return [path.name]


def emptied(path):
    path.write_bytes(b"")
    return [path.name]


def made_a_text(path):
    path.write_text("no weights at all\n" * 99)
    return [path.name]


def made_a_published_file(path):
    write(path, published(layers_v1((1, 2)))[0])
    return ["missing (layers/"]


def of_a_wider_network(path):
    spec = kr.ResNetSpec("residual", (1, 1), 6, stem=(Conv(4, 3, 2),), input_shape=(16, 16, 3))
    create(spec, classes=CLASSES).save_weights(path)
    return ["of another shape (layers/", "expected (3, 3, 4, 4), received (3, 3, 4, 6)"]


def of_a_deeper_network(path):
    spec = kr.ResNetSpec("residual", (1, 2), 4, stem=(Conv(4, 3, 2),), input_shape=(16, 16, 3))
    create(spec, classes=CLASSES).save_weights(path)
    return ["unexpected (layers/"]


def of_other_classes(path):
    create(TINY, classes=6).save_weights(path)
    return ["2 of another shape (layers/", "expected (8, 5), received (8, 6)"]


def of_no_numbers(path):
    with h5py.File(path, "a") as file:
        name = [name for name in datasets(file) if "dense" in name or "head" in name][-1]
        shape = file[name].shape
        del file[name]
        file[name] = np.full(shape, b"a")
    return [name]


# Each spoils a good file, and returns what the message holds.
SPOILED = {
    function.__name__: function
    for function in (
        removed,
        added,
        reshaped,
        all_at_once,
        cut_in_the_middle,
        cut_at_the_end,
        emptied,
        made_a_text,
        made_a_published_file,
        of_a_wider_network,
        of_a_deeper_network,
        of_other_classes,
        of_no_numbers,
    )
}


@pytest.mark.parametrize("case", SPOILED)
def test_our_own_file_that_does_not_fit_is_refused_and_nothing_is_loaded(case, tmp_path):
    path = tmp_path / "model.weights.h5"
    randomize(create(TINY)).save_weights(path)
    parts = SPOILED[case](path)
    model = randomize(create(TINY), seed=9)
    assert_refused(model, load_own(path), parts)


def test_our_own_file_that_does_not_fit_is_refused_by_create_model(tmp_path):
    path = tmp_path / "model.weights.h5"
    randomize(create(TINY)).save_weights(path)
    [part] = removed(path)
    with pytest.raises(ValueError, match="`weights`") as raised:
        create(TINY, weights=path)
    assert part in str(raised.value)
