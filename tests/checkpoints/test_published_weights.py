"""Published weights by their names: the list, the downloads (which are stood in for) and errors."""

import fnmatch
import hashlib
import json
import re
import sys

import huggingface_hub
import keras
import numpy as np
import pytest
import safetensors.numpy
from helpers import randomize, snapshot, to_numpy
from huggingface_hub import errors

import keras_resblocks as kr
from keras_resblocks.checkpoints import catalog, loading
from keras_resblocks.layers import Conv

TINY = kr.ResNetSpec("residual", (1,), 4, stem=(Conv(4, 3),), input_shape=(8, 8, 3), classes=5)


def create(name, **arguments):
    return kr.create_model(name, **{"kernel_initializer": "zeros", **arguments})


def load(model, weights):
    loading.load_weights(model, weights, None, new_head=False)


def assert_same(model, expected):
    for weight, value in zip(model.weights, expected, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value, err_msg=weight.path)


@pytest.fixture
def tiny():
    return randomize(create(TINY))


# The list


def test_weights_are_listed_by_network_and_the_best_first():
    listed = kr.list_weights()
    assert listed == sorted(listed, key=lambda weights: (weights.network, -weights.top1))
    assert len(listed) > 50


@pytest.mark.parametrize("pattern", ["*", "resnet50", "resnet*d", "*_keras", "resnet?8", "vgg16"])
def test_weights_are_listed_for_the_networks_that_match(pattern):
    expected = [w for w in kr.list_weights() if fnmatch.fnmatch(w.network, pattern)]
    assert kr.list_weights(pattern) == expected
    assert bool(expected) == (pattern != "vgg16")


def test_listed_weights_are_for_networks_that_there_are():
    assert {weights.network for weights in kr.list_weights()} <= {*kr.list_models()}


def test_accuracies_are_percentages_of_imagenet():
    assert [weights for weights in kr.list_weights() if not 65 < weights.top1 < 90] == []


def test_names_are_unique_within_a_network():
    pairs = [(weights.network, weights.name) for weights in kr.list_weights()]
    assert len(pairs) == len({*pairs})


def test_every_name_is_known_before_a_model_is_built():
    for weights in kr.list_weights():
        loading.check_weights(weights.name, weights.network)


def test_some_weights_are_listed():
    names = {weights.name: weights for weights in kr.list_weights("resnet50")}
    assert names["torchvision/resnet50.IMAGENET1K_V2"].top1 == 80.858
    assert names["timm/resnet50.a1_in1k"].network == "resnet50"
    [weights] = kr.list_weights("resnet50v2_keras")
    assert weights == catalog.Weights("imagenet", "resnet50v2_keras", 76.0)


# timm's, from the Hugging Face Hub


@pytest.fixture(scope="module")
def resnet18():
    """A model's weights, by path."""
    return randomize(create("resnet18"))


@pytest.fixture(scope="module")
def resnet18_file(resnet18, tmp_path_factory):
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    safetensors.numpy.save_file(kr.to_torch_state_dict(resnet18, as_numpy=True), path)
    return path


@pytest.fixture
def hub(monkeypatch):
    """Files by (repository, name) that stand in for the hub, and a list of what was asked for."""
    files, asked = {}, []

    def hf_hub_download(repo_id, filename, **options):
        asked.append((repo_id, filename))
        return str(files[repo_id, filename])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return files, asked


def test_weights_of_timm_come_from_the_hub(hub, resnet18, resnet18_file):
    files, asked = hub
    files["timm/resnet18.a1_in1k", "model.safetensors"] = resnet18_file
    model = create("resnet18", weights="timm/resnet18.a1_in1k")
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
    assert_same(model, snapshot(resnet18))


def test_weights_of_timm_leave_a_new_head_and_fit_the_channels(hub, resnet18, resnet18_file):
    files, _ = hub
    files["timm/resnet18.a1_in1k", "model.safetensors"] = resnet18_file
    model = create("resnet18", weights="timm/resnet18.a1_in1k", classes=6, input_shape=(64, 64, 1))
    values = {weight.path: to_numpy(weight) for weight in model.weights}
    for weight in resnet18.weights:
        expected = to_numpy(weight)
        if weight.path == "stem_conv1/conv/kernel":
            expected = expected.sum(axis=2, keepdims=True)
            np.testing.assert_allclose(values[weight.path], expected, rtol=1e-5, atol=1e-6)
        elif not weight.path.startswith("head/"):
            np.testing.assert_array_equal(values[weight.path], expected, err_msg=weight.path)
    assert values["head/kernel"].shape == (512, 6)
    assert values["head/kernel"].max() == 0


def test_a_model_that_the_hub_does_not_have_is_named(resnet18, monkeypatch):
    def hf_hub_download(repo_id, filename):
        raise errors.EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    with pytest.raises(ValueError, match=r"Did you mean 'timm/resnet18\.a1_in1k'") as raised:
        kr.create_model("resnet18", weights="timm/resnet18.a1_in1")
    assert "Received: weights='timm/resnet18.a1_in1' (404)" in str(raised.value)


def test_weights_of_another_network_are_refused(hub, resnet18_file, tiny):
    files, _ = hub
    files["timm/resnet18.a1_in1k", "model.safetensors"] = resnet18_file
    before = snapshot(tiny)
    with pytest.raises(ValueError, match=r"`weights`.*unexpected \(layer1\.1\.bn1"):
        load(tiny, "timm/resnet18.a1_in1k")
    assert_same(tiny, before)


def test_any_model_of_timm_may_be_asked_for(hub, tiny, tmp_path):
    files, asked = hub
    path = tmp_path / "m.safetensors"
    expected = snapshot(tiny)
    safetensors.numpy.save_file(kr.to_torch_state_dict(tiny, as_numpy=True), path)
    files["timm/a_model_of_tomorrow.v3", "model.safetensors"] = path
    model = create(TINY, weights="timm/a_model_of_tomorrow.v3")
    assert asked == [("timm/a_model_of_tomorrow.v3", "model.safetensors")]
    assert_same(model, expected)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_file_in_a_folder_of_that_name_is_a_file(library, hub, tiny, tmp_path, monkeypatch):
    (tmp_path / library).mkdir()
    path = f"{library}/model.safetensors"
    safetensors.numpy.save_file(kr.to_torch_state_dict(tiny, as_numpy=True), tmp_path / path)
    monkeypatch.chdir(tmp_path)
    model = create(TINY, weights=path)
    assert hub[1] == []
    assert_same(model, snapshot(tiny))


# Other architectures, and no network

OTHER_ARCHITECTURES = {
    "timm/resnetaa50.a1h_in1k": "resnet50",  # the same names and shapes
    "timm/resnet50d.ra2_in1k": "resnet50",
    "timm/resnetv2_50.a1h_in1k": "resnetv2_101",
    "timm/resnet18.a1_in1k": "resnet18d",
    "torchvision/resnet18": "resnet34",
    "torchvision/googlenet": "googlenet",  # the paper's, which is not torchvision's
    "timm/inception_v4.tf_in1k": "inception_resnet_v2_keras",
}


@pytest.mark.parametrize("weights", OTHER_ARCHITECTURES)
def test_weights_of_another_architecture_are_refused_before_they_are_fetched(weights, hub):
    network = OTHER_ARCHITECTURES[weights]
    with pytest.raises(ValueError, match=r"`weights` must be of the architecture") as raised:
        kr.create_model(network, weights=weights)
    model = weights.partition("/")[2].partition(".")[0]
    assert {repr(network), repr(weights), repr(model)} <= {
        *re.findall(r"'[^']*'", str(raised.value))
    }
    assert hub[1] == []


@pytest.mark.parametrize("architecture", ["resnet50", "resnetaa50"])
def test_where_the_name_does_not_tell_the_architecture_the_config_does(architecture, hub, tmp_path):
    files, asked = hub
    (tmp_path / "config.json").write_text(json.dumps({"architecture": architecture}))
    files["timm/mine", "config.json"] = tmp_path / "config.json"
    if architecture == "resnet50":
        loading.check_weights("timm/mine", "resnet50")
    else:
        with pytest.raises(ValueError, match=r"'resnet50'.*of the architecture 'resnetaa50'"):
            loading.check_weights("timm/mine", "resnet50")
    assert asked == [("timm/mine", "config.json")]


def no_network(error):
    def fetch(*arguments, **options):
        raise error

    return fetch


# What fetches, the error that it raises without a network, and what ours names.
UNREACHABLE = {
    "timm/resnet18.a1_in1k": (
        (huggingface_hub, "hf_hub_download"),
        errors.LocalEntryNotFoundError("not in the cache"),
        "HF_HUB_OFFLINE",
    ),
    "timm/resnet18.gluon_in1k": (
        (huggingface_hub, "hf_hub_download"),
        ConnectionError("no route " * 999),
        "HF_HUB_OFFLINE",
    ),
    "torchvision/resnet18": (
        (keras.utils, "get_file"),
        Exception("URL fetch failure"),
        "resnet18-f37072fd.pth",
    ),
    "imagenet": (
        (keras.applications, "ResNet50"),
        Exception("URL fetch failure"),
        "~/.keras/models",
    ),
}


@pytest.mark.parametrize("weights", UNREACHABLE)
def test_without_a_network_the_error_says_so_and_how_to_do_without(weights, tiny, monkeypatch):
    (module, name), error, part = UNREACHABLE[weights]
    monkeypatch.setattr(module, name, no_network(error))
    before = snapshot(tiny)
    with pytest.raises(ValueError, match=r"network.*Without a connection.*local file") as raised:
        loading.load_weights(tiny, weights, "resnet50_keras", new_head=False)
    assert part in str(raised.value)
    assert len(str(raised.value)) < 2000
    assert_same(tiny, before)


# torchvision's


@pytest.fixture
def download(monkeypatch, tmp_path):
    """A path whose file stands in for what is downloaded, and a list of the addresses."""
    path, addresses = tmp_path / "downloaded.pth", []
    path.write_bytes(b"not what torchvision published")

    def get_file(fname, origin, **options):
        addresses.append(origin)
        assert fname == origin.rpartition("/")[2]
        return str(path)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    return path, addresses


def publish(path, monkeypatch, network="resnet18", version="IMAGENET1K_V1"):
    """Makes the hash of the file the one that torchvision published."""
    prefix = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    _, *others = catalog.TORCHVISION[network][version]
    monkeypatch.setitem(catalog.TORCHVISION[network], version, (prefix, *others))
    return prefix


# What is asked for, and the file of torchvision that it means.
TORCHVISION = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet18.IMAGENET1K_V1": "resnet18-f37072fd.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "resnet50.IMAGENET1K_V2": "resnet50-11ad3fa6.pth",
    "resnet50.IMAGENET1K_V1": "resnet50-0676ba61.pth",
    "resnet50.imagenet1k_v1": "resnet50-0676ba61.pth",
    "resnet50.ImageNet1K_v2": "resnet50-11ad3fa6.pth",
    "googlenet": "googlenet-1378be20.pth",
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_file_of_another_hash_is_refused_and_nothing_is_loaded(name, download, tiny):
    path, addresses = download
    before = snapshot(tiny)
    with pytest.raises(ValueError, match=r"SHA-256.*Received: ") as raised:
        load(tiny, f"torchvision/{name}")
    assert addresses == [f"https://download.pytorch.org/models/{TORCHVISION[name]}"]
    published = re.search(r"-(\w{8})\.pth", TORCHVISION[name])[1]
    received = hashlib.sha256(path.read_bytes()).hexdigest()
    message = str(raised.value)
    assert [part for part in (str(path), published, received) if part not in message] == []
    assert_same(tiny, before)


def test_weights_of_torchvision_are_downloaded_once_their_hash_is_right(
    download, resnet18, monkeypatch
):
    torch = pytest.importorskip("torch")
    path, addresses = download
    torch.save(kr.to_torch_state_dict(resnet18), path)
    prefix = publish(path, monkeypatch)
    model = create("resnet18", weights="torchvision/resnet18")
    assert addresses == [f"https://download.pytorch.org/models/resnet18-{prefix}.pth"]
    assert_same(model, snapshot(resnet18))


def test_a_wrong_hash_is_found_by_create_model(download):
    with pytest.raises(ValueError, match="f37072fd"):
        create("resnet18", weights="torchvision/resnet18")


# Packages that are optional


def test_weights_of_timm_need_huggingface_hub(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    before = snapshot(tiny)
    for use in (
        lambda: load(tiny, "timm/resnet18.a1_in1k"),
        lambda: create(TINY, weights="timm/resnet18.a1_in1k"),
        lambda: kr.preprocessing("timm/resnet18.a1_in1k"),
    ):
        with pytest.raises(ImportError, match=r"`huggingface_hub`.*pip install huggingface_hub"):
            use()
    assert_same(tiny, before)


def test_weights_of_timm_need_safetensors(hub, resnet18_file, tiny, monkeypatch):
    files, _ = hub
    files["timm/resnet18.a1_in1k", "model.safetensors"] = resnet18_file
    before = snapshot(tiny)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors", None)
        patch.setitem(sys.modules, "safetensors.numpy", None)
        with pytest.raises(ImportError, match=r"`safetensors`.*pip install safetensors"):
            load(tiny, "timm/resnet18.a1_in1k")
    assert_same(tiny, before)


def test_weights_of_torchvision_need_torch(download, tiny, monkeypatch):
    path, _ = download
    publish(path, monkeypatch)
    before = snapshot(tiny)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        with pytest.raises(ImportError, match=r"`torch`.*pip install torch"):
            load(tiny, "torchvision/resnet18")
    assert_same(tiny, before)
