"""Published weights by their names: the list, the downloads (which are stood in for) and errors."""

import fnmatch
import hashlib
import json
import re

import huggingface_hub
import keras
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import (
    assert_needs,
    assert_refused,
    assert_same,
    by_path,
    create,
    fitted,
    without_head,
)
from helpers import randomize, refusal
from huggingface_hub import errors

import keras_resblocks as kr
from keras_resblocks.checkpoints import catalog, loading
from keras_resblocks.layers import Conv

TINY = kr.ResNetSpec("residual", (1,), 4, stem=(Conv(4, 3),), input_shape=(8, 8, 3), classes=5)


def from_weights(weights, network=None):
    """What loads them into a model."""
    return lambda model: loading.load_weights(model, weights, network, new_head=False)


def save(model, path):
    safetensors.numpy.save_file(kr.to_torch_state_dict(model, as_numpy=True), path)
    return path


@pytest.fixture
def tiny():
    return randomize(create(TINY))


# The list


def test_weights_are_listed_by_network_and_the_best_first():
    listed = kr.list_weights()
    assert listed == sorted(listed, key=lambda weights: (weights.network, -weights.top1))
    assert len(listed) > 50
    assert {weights.network for weights in listed} <= {*kr.list_models()}
    assert [weights for weights in listed if not 65 < weights.top1 < 90] == []  # of ImageNet
    assert len({(weights.network, weights.name) for weights in listed}) == len(listed)
    for weights in listed:
        loading.check_weights(weights.name, weights.network)


@pytest.mark.parametrize("pattern", ["*", "resnet50", "resnet*d", "*_keras", "resnet?8", "vgg16"])
def test_weights_are_listed_for_the_networks_that_match(pattern):
    expected = [w for w in kr.list_weights() if fnmatch.fnmatch(w.network, pattern)]
    assert kr.list_weights(pattern) == expected
    assert bool(expected) == (pattern != "vgg16")


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
    return save(resnet18, tmp_path_factory.mktemp("timm") / "model.safetensors")


@pytest.fixture
def hub(monkeypatch):
    """Files by (repository, name) that stand in for the hub, and a list of what was asked for."""
    files, asked = {}, []

    def hf_hub_download(repo_id, filename, **options):
        asked.append((repo_id, filename))
        return str(files[repo_id, filename])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return files, asked


@pytest.fixture
def hub_of_resnet18(hub, resnet18_file):
    """The hub with timm's ResNet-18; the list of what was asked for."""
    files, asked = hub
    files["timm/resnet18.a1_in1k", "model.safetensors"] = resnet18_file
    return asked


def test_weights_of_timm_come_from_the_hub(hub_of_resnet18, resnet18):
    model = create("resnet18", weights="timm/resnet18.a1_in1k")
    assert hub_of_resnet18 == [("timm/resnet18.a1_in1k", "model.safetensors")]
    assert_same(model, resnet18)


def test_weights_of_timm_leave_a_new_head_and_fit_the_channels(hub_of_resnet18, resnet18):
    model = create("resnet18", weights="timm/resnet18.a1_in1k", classes=6, input_shape=(64, 64, 1))
    expected, first = without_head(by_path(resnet18)), "stem_conv1/conv/kernel"
    head = {"head/kernel": np.zeros((512, 6)), "head/bias": np.zeros(6)}
    expected = {**expected, **head, first: fitted(expected[first], 1)}
    assert_same(model, expected, near=[first])


def test_a_model_that_the_hub_does_not_have_is_named(resnet18, monkeypatch):
    def hf_hub_download(repo_id, filename):
        raise errors.EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    parts = ["mean 'timm/resnet18.a1_in1k'", "Received: weights='timm/resnet18.a1_in1' (404)"]
    refusal(lambda: create("resnet18", weights="timm/resnet18.a1_in1"), parts)


def test_weights_of_another_network_are_refused(hub_of_resnet18, tiny):
    assert_refused(tiny, from_weights("timm/resnet18.a1_in1k"), ["unexpected (layer1.1.bn1"])


def test_any_model_of_timm_may_be_asked_for(hub, tiny, tmp_path):
    files, asked = hub
    name = "timm/a_model_of_tomorrow.v3"
    files[name, "model.safetensors"] = save(tiny, tmp_path / "m.safetensors")
    model = create(TINY, weights=name)
    assert asked == [(name, "model.safetensors")]
    assert_same(model, tiny)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_file_in_a_folder_of_that_name_is_a_file(library, hub, tiny, tmp_path, monkeypatch):
    (tmp_path / library).mkdir()
    save(tiny, tmp_path / library / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    model = create(TINY, weights=f"{library}/model.safetensors")
    assert hub[1] == []
    assert_same(model, tiny)


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
    architecture = weights.partition("/")[2].partition(".")[0]
    parts = ["`weights` must be of the architecture", *map(repr, (network, weights, architecture))]
    refusal(lambda: create(network, weights=weights), parts)
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


# The weights, what fetches them and its error without a network, and what ours names.
UNREACHABLE = [
    (
        "timm/resnet18.a1_in1k",
        "huggingface_hub.hf_hub_download",
        errors.LocalEntryNotFoundError("not in the cache"),
        "HF_HUB_OFFLINE",
    ),
    (
        "timm/resnet18.gluon_in1k",
        "huggingface_hub.hf_hub_download",
        ConnectionError("no route " * 999),
        "HF_HUB_OFFLINE",
    ),
    ("torchvision/resnet18", "keras.utils.get_file", Exception("URL"), "resnet18-f37072fd.pth"),
    ("imagenet", "keras.applications.ResNet50", Exception("URL"), "~/.keras/models"),
]


@pytest.mark.parametrize(("weights", "fetch", "error", "part"), UNREACHABLE)
def test_without_a_network_the_error_says_so_and_how_to_do_without(
    weights, fetch, error, part, tiny, monkeypatch
):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(fetch, fail)
    parts = ["network", "Without a connection", "local file", part]
    assert_refused(tiny, from_weights(weights, "resnet50_keras"), parts)


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
    before = by_path(tiny)
    published = re.search(r"-(\w{8})\.pth", TORCHVISION[name])[1]
    received = hashlib.sha256(path.read_bytes()).hexdigest()
    parts = ["SHA-256", str(path), published, received]
    refusal(lambda: from_weights(f"torchvision/{name}")(tiny), parts)
    assert addresses == [f"https://download.pytorch.org/models/{TORCHVISION[name]}"]
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
    assert_same(model, resnet18)


def test_a_wrong_hash_is_found_by_create_model(download):
    with pytest.raises(ValueError, match="f37072fd"):
        create("resnet18", weights="torchvision/resnet18")


# Packages that are optional


def test_weights_of_timm_need_two_packages(hub_of_resnet18, tiny):
    weights, before = "timm/resnet18.a1_in1k", by_path(tiny)
    assert_needs("huggingface_hub", lambda: from_weights(weights)(tiny))
    assert_needs("huggingface_hub", lambda: create(TINY, weights=weights))
    assert_needs("huggingface_hub", lambda: kr.preprocessing(weights))
    assert_needs("safetensors", lambda: from_weights(weights)(tiny))
    assert_same(tiny, before)


def test_weights_of_torchvision_need_torch(download, tiny, monkeypatch):
    publish(download[0], monkeypatch)
    before = by_path(tiny)
    assert_needs("torch", lambda: from_weights("torchvision/resnet18")(tiny))
    assert_same(tiny, before)
