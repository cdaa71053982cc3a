"""The published networks compute what torchvision's, timm's and keras.applications' compute."""

import math

import keras
import numpy as np
import pytest
from helpers import random_array, to_numpy
from networks import count, outputs_of, quick_model, random_value

import keras_resblocks as kr

pytestmark = [pytest.mark.peer, pytest.mark.slow]

SIZES = (96, 97)  # even, and odd at every stride
DEPTHS = (18, 34, 50, 101, 152)

# Ours, and what theirs is called where that differs.
TORCHVISION = [
    *(f"resnet{depth}" for depth in DEPTHS),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d"),
    "googlenet_torchvision",
]
TIMM = [
    *(f"resnet{depth}d" for depth in DEPTHS),
    *(f"resnetv2_{depth}" for depth in DEPTHS[2:]),
    *("resnet50", "seresnet50", "inception_resnet_v2_keras"),
]
PUBLISHED = {
    "googlenet_torchvision": "googlenet",
    "inception_resnet_v2_keras": "inception_resnet_v2",
}


KERAS = {
    "resnet50_keras": keras.applications.ResNet50,
    "resnet101_keras": keras.applications.ResNet101,
    "resnet152_keras": keras.applications.ResNet152,
    "resnet50v2_keras": keras.applications.ResNet50V2,
    "resnet101v2_keras": keras.applications.ResNet101V2,
    "resnet152v2_keras": keras.applications.ResNet152V2,
    "inception_v3_keras": keras.applications.InceptionV3,
    "inception_resnet_v2_keras": keras.applications.InceptionResNetV2,
}

# Ours, the library, and how theirs is made.
PEERS = [
    *((name, {}, "torchvision", {}) for name in TORCHVISION),
    *((name, {}, "timm", {}) for name in TIMM),
    (
        *("resnet50", {"output_stride": 8}, "torchvision"),
        {"replace_stride_with_dilation": [False, True, True]},
    ),
    ("resnet50", {"output_stride": 16}, "timm", {"output_stride": 16}),
    ("resnet18", {"output_stride": 8}, "timm", {"output_stride": 8}),
    ("resnetv2_50", {"output_stride": 16}, "timm", {"output_stride": 16}),
]


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    # What torchvision's compiled part would define; its models do not use it.
    library = torch.library.Library("torchvision", "FRAGMENT")
    if not hasattr(torch.ops.torchvision, "nms"):
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield torch
    del library


def peer_of(torch, library, name, **arguments):
    """A peer with random weights and statistics, ready for inference."""
    pytest.importorskip("torchvision")
    if library == "timm":
        model = pytest.importorskip("timm").create_model(name, **arguments)
    else:
        import torchvision.models

        model = getattr(torchvision.models, name)(**arguments)
    return randomized(torch, model, fixed_gamma=name == "inception_resnet_v2").eval()


def randomized(torch, model, fixed_gamma):
    generator = torch.Generator().manual_seed(0)

    def uniform(tensor, low, high):
        tensor.data.uniform_(low, high, generator=generator)

    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            deviation = math.sqrt(2 / module.weight[0].numel())
            if ".se." in name:  # else the sigmoids are steps, and float32 differs from float64
                deviation *= 1e-2
            module.weight.data.normal_(0, deviation, generator=generator)
            if module.bias is not None:
                uniform(module.bias, -0.1, 0.1)
        elif isinstance(module, torch.nn.BatchNorm2d):
            if not fixed_gamma:  # TensorFlow's network has none
                uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.2, 0.2)
            uniform(module.running_mean, -0.2, 0.2)
            uniform(module.running_var, 0.5, 1.5)
    return model


def images_of(size):
    return random_array((2, size, size, 3), seed=size)


def torch_logits(torch, model, images):
    with torch.no_grad():
        return model(torch.tensor(images).permute(0, 3, 1, 2))


def ours(name, **arguments):
    arguments = {"input_shape": (None, None, 3), "classifier_activation": None, **arguments}
    return quick_model(name, **arguments)


def assert_equal_logits(actual, expected):
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-3 * scale  # the images are told apart
    assert np.abs(actual - expected).max() < 1e-4 * scale


def assert_same_after_torch_keys(model, state):
    """Out to PyTorch and back without a difference, by the keys that the peer has."""
    exported = kr.to_torch_state_dict(model)
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert exported.keys() == state.keys()
    assert all((exported[key] == state[key]).all() for key in state)
    assert_back_from_torch_keys(model, exported)


def assert_back_from_torch_keys(model, exported):
    before = [to_numpy(weight) for weight in model.weights]
    for weight in model.weights:
        weight.assign(keras.ops.zeros_like(weight))
    kr.load_torch_weights(model, exported)
    assert all((to_numpy(w) == value).all() for w, value in zip(model.weights, before))


@pytest.mark.parametrize(("name", "options", "library", "arguments"), PEERS)
def test_logits_parameters_and_keys_are_those_of_the_pytorch_model(
    name, options, library, arguments, torch
):
    if name == "googlenet_torchvision":
        arguments = {"init_weights": False, "aux_logits": False}
    theirs = peer_of(torch, library, PUBLISHED.get(name, name), **arguments)
    model = ours(name, **options)
    kr.load_torch_weights(model, theirs.state_dict())
    for size in SIZES:
        images = images_of(size)
        assert_equal_logits(outputs_of(model, images), torch_logits(torch, theirs, images).numpy())
    gammas = 0 if name != "inception_resnet_v2_keras" else len(gammas_of(torch, theirs))
    assert count(model.trainable_weights) == sum(p.numel() for p in theirs.parameters()) - gammas
    assert_same_after_torch_keys(model, theirs.state_dict())


def gammas_of(torch, model):
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    return torch.cat([module.weight for module in norms])


def test_auxiliary_classifiers_are_those_of_torchvision(torch):
    theirs = peer_of(torch, "torchvision", "googlenet", init_weights=False, aux_logits=True)
    model = ours("googlenet_torchvision", aux_heads=True, input_shape=(224, 224, 3))
    kr.load_torch_weights(model, theirs.state_dict())
    theirs.training = True  # it computes them in training only; its layers stay as they are
    images = images_of(224)
    logits, aux2, aux1 = torch_logits(torch, theirs, images)
    actual = model.predict_on_batch(images)
    for ours_, theirs_ in zip(actual, (logits, aux1, aux2), strict=True):
        assert_equal_logits(np.asarray(ours_), theirs_.numpy())
    assert_same_after_torch_keys(model, theirs.state_dict())


@pytest.mark.parametrize("name", KERAS)
def test_logits_are_those_of_keras_applications(name):
    rng = np.random.default_rng(0)
    values = None
    for size in SIZES if "50" in name or "inception" in name else SIZES[1:]:
        # Their classifier needs a fixed size.
        arguments = {"input_shape": (size, size, 3), "classifier_activation": None}
        theirs = KERAS[name](weights=None, **arguments)
        values = values or [random_value(weight, rng) for weight in theirs.weights]
        theirs.set_weights(values)
        model = ours(name, **arguments)
        kr.load_keras_weights(model, theirs)
        images = images_of(size)
        assert_equal_logits(outputs_of(model, images), outputs_of(theirs, images))
    assert count(model.weights) == count(theirs.weights)
    assert_back_from_torch_keys(model, kr.to_torch_state_dict(model, as_numpy=True))
