"""Weights of PyTorch models, in and out: their keys, their files, and what is wrong with them."""

import argparse
import dataclasses
import pathlib
import pickle
import sys

import keras
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import (
    DAMAGE,
    assert_needs,
    assert_refused,
    assert_same,
    by_path,
    create,
    damaged,
    fitted,
    without_head,
)
from helpers import randomize, refusal

import keras_resblocks as kr
from keras_resblocks.layers import Conv, Pool

STEM = (Conv(4, 3, 2), Pool("max", 3, 2))
DEEP_STEM = (Conv(2, 3, 2), Conv(3, 3), Conv(4, 3), Pool("max", 3, 2))
V2 = {"preactivation": True, "use_bias": False}

PLAIN_BRANCHES = ((2,), (2, (4, 3)), ("max_pool", 2))
SPLIT_BRANCHES = ((2,), (3, (((2, (1, 3)),), ((2, (3, 1)),))), ("avg_pool", 2))


def resnet(block="residual", depths=(1, 1), **fields):
    given = {"width": 4, "stem": STEM, "input_shape": (16, 16, 3), "classes": 5, **fields}
    return kr.ResNetSpec(block, depths, **given)


def inception(**fields):
    stages = ((PLAIN_BRANCHES, SPLIT_BRANCHES), (Pool("max", 3, 2), PLAIN_BRANCHES))
    return kr.InceptionSpec(stages, stem=STEM, input_shape=(16, 16, 3), classes=5, **fields)


AVG_POOL = {"shortcut": "avg_pool"}

# A network, and arguments of `create_model`.
NETWORKS = {
    "residual": (resnet(), {}),
    "bottleneck": (resnet("bottleneck", (1, 2)), {}),
    "D": (resnet(stem=DEEP_STEM, options=AVG_POOL), {}),
    "D with bottlenecks": (resnet("bottleneck", stem=DEEP_STEM, options=AVG_POOL), {}),
    "v2": (resnet("bottleneck", options=V2), {}),
    "v2 with a deep stem": (resnet("bottleneck", stem=DEEP_STEM, options=V2), {}),
    "squeeze-excite": (resnet(options={"attention": "squeeze_excite"}), {}),
    "v2 with squeeze-excite": (resnet(options={**V2, "attention": "squeeze_excite"}), {}),
    "efficient channel": (resnet(options={"attention": "efficient_channel"}), {}),
    "biased": (resnet(options={"use_bias": True}), {}),
    "group norm": (resnet(options={"normalization": "group"}), {}),
    "no norm": (resnet(options={"normalization": None}), {}),
    "inception": (inception(), {}),
    "inception-resnet": (
        inception(options={"shortcut": "projection_always", "activation": "elu"}),
        {},
    ),
    "norm without a gain": (
        resnet(),
        {"normalization": keras.layers.BatchNormalization(scale=False)},
    ),
    "norm without a shift": (
        resnet(),
        {"normalization": keras.layers.BatchNormalization(center=False)},
    ),
    "PReLU": (resnet(), {"activation": keras.layers.PReLU(shared_axes=[1, 2])}),
    "PReLU at each position": (inception(), {"activation": keras.layers.PReLU()}),
    "grouped": (resnet("bottleneck"), {"groups": 2, "expansion": 2}),
    "zero-padded shortcuts": (resnet(), {"shortcut": "zero_pad"}),
    "1-D": (resnet(), {"input_shape": (16, 2)}),
    "3-D": (resnet("bottleneck"), {"input_shape": (8, 8, 4, 2)}),
    "channels first": (resnet(), {"data_format": "channels_first", "input_shape": (3, 16, 16)}),
    "flattened": (resnet(final_pool=2), {}),
    "no stem": (resnet(stem=()), {}),
    "no top": (resnet(), {"include_top": False}),
}


def network(name, **arguments):
    spec, given = NETWORKS[name]
    return create(spec, **{**given, **arguments})


def random_network(name, **arguments):
    return randomize(network(name, **arguments))


def arrays_of(model):
    return kr.to_torch_state_dict(model, as_numpy=True)


def torch_dict(arrays):
    torch = pytest.importorskip("torch")
    return {key: torch.tensor(array) for key, array in arrays.items()}


def save_safetensors(arrays, path):
    safetensors.numpy.save_file(arrays, path)
    return path


def save_torch(content, path):
    pytest.importorskip("torch").save(content, path)
    return path


def loading(weights, **options):
    """What loads them into a model."""
    return lambda model: kr.load_torch_weights(model, weights, **options)


# Most tests have the same network: what they load into `empty` is of `model` or of `arrays`.


@pytest.fixture(scope="module")
def model():
    return random_network("residual")


@pytest.fixture
def arrays(model):
    return arrays_of(model)


@pytest.fixture
def saved(arrays, tmp_path):
    """The path of a file with the weights of `model`."""
    return save_safetensors(arrays, tmp_path / "saved.safetensors")


@pytest.fixture(scope="module")
def a_network():
    return network("residual")


@pytest.fixture
def empty(a_network):
    """A network with other weights."""
    return randomize(a_network, seed=9)


# Round trips


@pytest.mark.parametrize("name", NETWORKS)
def test_what_goes_out_comes_back_exactly(name, tmp_path):
    model = random_network(name)
    arrays = arrays_of(model)
    path = save_safetensors(arrays, tmp_path / "model.safetensors")
    loaded = network(name, weights=path)
    assert_same(loaded, model)
    kr.load_torch_weights(randomize(loaded, seed=9), arrays)
    assert_same(loaded, model)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("bottleneck", "float32"),
        ("norm without a gain", "float32"),
        ("residual", "float16"),
        ("residual", "bfloat16"),
    ],
)
def test_a_state_dict_of_tensors_goes_out_and_in(name, dtype):
    torch = pytest.importorskip("torch")
    model = random_network(name, dtype=dtype)
    values, arrays, state_dict = by_path(model), arrays_of(model), kr.to_torch_state_dict(model)
    assert list(state_dict) == list(arrays)
    for key, tensor in state_dict.items():
        assert type(tensor) is torch.Tensor
        assert tensor.dtype == getattr(torch, str(arrays[key].dtype))
        np.testing.assert_array_equal(tensor.float().numpy(), arrays[key].astype("float32"))
    kr.load_torch_weights(randomize(model, seed=9), state_dict)
    assert_same(model, values)


def test_what_went_out_is_a_copy(model, arrays):
    values = by_path(model)
    for array in arrays.values():
        array[...] = 0
    assert_same(model, values)


def test_a_quantized_network_does_not_go_out():
    quantized = network("residual")
    quantized.layers[-1].quantize("int8")
    with pytest.raises(ValueError, match=r"`model` must not be quantized.*Received: layer.*int8"):
        kr.to_torch_state_dict(quantized, as_numpy=True)


def test_low_rank_adaptation_goes_out_as_part_of_the_kernel(empty):
    adapted = network("residual")
    layers = [adapted.get_layer("stage1_block1").conv1.conv, adapted.get_layer("head")]
    for layer in layers:
        layer.enable_lora(2)
    randomize(adapted)
    kr.load_torch_weights(empty, arrays_of(adapted))
    kernels = {f"{x.path}/kernel": keras.ops.convert_to_numpy(x.kernel) for x in layers}
    others = {path: value for path, value in by_path(adapted).items() if "lora" not in path}
    assert_same(empty, {**others, **kernels})


def test_a_file_is_of_no_data_format():
    last = random_network("D")
    first = network("D", data_format="channels_first", input_shape=(3, 16, 16))
    kr.load_torch_weights(first, arrays_of(last))
    assert_same(first, last)


# Keys and axes; `.*` stands for the four arrays of a batch normalization

NORM = ("weight", "bias", "running_mean", "running_var")
STEM_KEYS = "conv1.weight bn1.*"
DEEP_STEM_KEYS = "conv1.0.weight conv1.1.* conv1.3.weight conv1.4.* conv1.6.weight bn1.*"
TWO = "conv1.weight bn1.* conv2.weight bn2.*"
THREE = f"{TWO} conv3.weight bn3.*"
V2_BLOCK = "norm1.* conv1.weight norm2.* conv2.weight norm3.* conv3.weight downsample.conv.weight"
SQUEEZE_EXCITE = "se.fc1.weight se.fc1.bias se.fc2.weight se.fc2.bias"
DOWNSAMPLE = "downsample.0.weight downsample.1.*"
POOLED_DOWNSAMPLE = "downsample.1.weight downsample.2.*"
HEAD = "fc.weight fc.bias"

# Those of the stem, of each block under its name, and of the head.
KEYS = {
    "residual": (STEM_KEYS, {"layer1.0": TWO, "layer2.0": f"{TWO} {DOWNSAMPLE}"}, HEAD),
    "bottleneck": (
        STEM_KEYS,
        {
            "layer1.0": f"{THREE} {DOWNSAMPLE}",
            "layer2.0": f"{THREE} {DOWNSAMPLE}",
            "layer2.1": THREE,
        },
        HEAD,
    ),
    "D": (DEEP_STEM_KEYS, {"layer1.0": TWO, "layer2.0": f"{TWO} {POOLED_DOWNSAMPLE}"}, HEAD),
    "v2": (
        "stem.conv.weight",
        {"stages.0.blocks.0": V2_BLOCK, "stages.1.blocks.0": V2_BLOCK},
        "norm.* head.fc.weight head.fc.bias",
    ),
    "squeeze-excite": (
        STEM_KEYS,
        {
            "layer1.0": f"{TWO} {SQUEEZE_EXCITE}",
            "layer2.0": f"{TWO} {SQUEEZE_EXCITE} {DOWNSAMPLE}",
        },
        HEAD,
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_those_of_torchvision_and_timm(name):
    stem, blocks, head = KEYS[name]
    keys = [*stem.split(), *head.split()]
    keys += [f"{block}.{key}" for block, inner in blocks.items() for key in inner.split()]
    assert {*arrays_of(network(name))} == {key.replace("*", part) for key in keys for part in NORM}


# Of each network: the path of a weight, its key, and the axes there as indices of ours.
AXES = {
    "residual": [
        ("stage2_block1/conv1/conv/kernel", "layer2.0.conv1.weight", "3201"),
        ("head/kernel", "fc.weight", "10"),
        ("stem_conv1/norm/gamma", "bn1.weight", "0"),
        ("stem_conv1/norm/beta", "bn1.bias", "0"),
        ("stem_conv1/norm/moving_mean", "bn1.running_mean", "0"),
        ("stem_conv1/norm/moving_variance", "bn1.running_var", "0"),
    ],
    "grouped": [("stage2_block1/conv2/conv/kernel", "layer2.0.conv2.weight", "3201")],
    "1-D": [("stem_conv1/conv/kernel", "conv1.weight", "210")],
    "3-D": [("stem_conv1/conv/kernel", "conv1.weight", "43012")],
    "v2": [("head/kernel", "head.fc.weight", "10..")],
    "squeeze-excite": [
        ("stage2_block1/attention/reduce/kernel", "layer2.0.se.fc1.weight", "10.."),
        ("stage2_block1/attention/expand/kernel", "layer2.0.se.fc2.weight", "10.."),
    ],
}


@pytest.mark.parametrize("name", AXES)
def test_axes_are_in_the_order_of_torch(name):
    model = random_network(name)
    ours, theirs = by_path(model), arrays_of(model)
    for path, key, axes in AXES[name]:
        expected = ours[path].transpose([int(axis) for axis in axes if axis != "."])
        expected = expected[(..., *[None] * axes.count("."))]
        np.testing.assert_array_equal(theirs[key], expected)
        assert theirs[key].flags.c_contiguous


# Files


def prefixed(prefix, state_dict):
    return {f"{prefix}{key}": value for key, value in state_dict.items()}


def negated(state_dict):
    """The same names, other values."""
    return {key: -value for key, value in state_dict.items()}


def partly_compiled(state_dict):
    return {key.replace("layer1.0.", "layer1._orig_mod.0."): state_dict[key] for key in state_dict}


def backbone_and_head(state_dict):
    return {key if key[:2] == "fc" else f"backbone.{key}": state_dict[key] for key in state_dict}


def with_counts(state_dict):
    counts = {
        key.replace("running_mean", "num_batches_tracked"): np.array(7, "int64")
        for key in state_dict
        if key.endswith("running_mean")
    }
    assert len(counts) == 6
    return {**state_dict, **counts}


WRAPPED = {
    "plain": lambda d: d,
    "with counts of batches": with_counts,
    "state_dict": lambda d: {"state_dict": d, "epoch": 3},
    "model": lambda d: {"model": d, "optimizer": {"lr": 0.1}, "epoch": 3},
    "net": lambda d: {"net": d, "acc": 93.1},
    "model_state_dict": lambda d: {
        "epoch": 5,
        "model_state_dict": d,
        "optimizer_state_dict": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]},
        "loss": 0.5,
    },
    "a script's": lambda d: {
        "args": argparse.Namespace(lr=0.1, output=pathlib.Path("runs")),
        "best": np.float64(93.1),
        "scores": [np.float32(0.5)],
        "state_dict": d,
    },
    "averaged, timm's": lambda d: {"state_dict": negated(d), "state_dict_ema": d},
    "averaged": lambda d: {"model": negated(d), "model_ema": d, "epoch": 3},
    "averaged, under a name of its own": lambda d: {"ema_state_dict": d, "state_dict": negated(d)},
    "averaged, with its decay": lambda d: {"ema": {"module": d, "decay": 0.9}, "model": negated(d)},
    "no averaged ones": lambda d: {"state_dict": d, "state_dict_ema": None},
    "in another": lambda d: {"model": {"state_dict": d, "epoch": 3}},
    "in parallel": lambda d: {"state_dict": prefixed("module.", d)},
    "Lightning's": lambda d: {"state_dict": prefixed("model.", d), "global_step": 3},
    "Lightning's, compiled": lambda d: {"state_dict": prefixed("net._orig_mod.", d)},
    "compiled": lambda d: prefixed("_orig_mod.", d),
    "compiled and in parallel": lambda d: {"model": prefixed("module._orig_mod.", d)},
    "compiled in part": partly_compiled,
    "a part of a network": lambda d: prefixed("student.encoder.", d),
    "first in a sequence": lambda d: prefixed("0.", d),
    "a backbone, and the head beside it": backbone_and_head,
    "an AveragedModel": lambda d: {"n_averaged": np.array(3), **prefixed("module.", d)},
}
# One of each kind is a file; the rest is in memory.
ENDINGS = {
    "plain": ("model.pth", "model.pt", "pytorch_model.bin", "MODEL.PTH", "resnet.th"),
    "model_state_dict": ("checkpoint.pth.tar", "last.ckpt", "last.Tar"),
    "compiled and in parallel": ("model.pth",),
    "in parallel": ("model.TH", "checkpoint.PTH.tar"),
    "a script's": ("model.pth",),
}


@pytest.mark.parametrize("form", WRAPPED)
def test_a_checkpoint_loads_as_it_is_found(form, model, arrays, empty):
    kr.load_torch_weights(empty, WRAPPED[form](arrays))
    assert_same(empty, model)


@pytest.mark.parametrize("form", ENDINGS)
def test_what_torch_saved_loads(form, model, arrays, a_network, tmp_path):
    content = WRAPPED[form](torch_dict(arrays))
    for name in ENDINGS[form]:
        path = save_torch(content, tmp_path / name)
        kr.load_torch_weights(randomize(a_network, seed=9), path)
        assert_same(a_network, model)
        assert_same(network("residual", weights=path), model)


def test_paths_may_be_strings_or_paths_of_any_letter_case(model, arrays, a_network, tmp_path):
    path = save_safetensors(prefixed("module.", arrays), tmp_path / "model.SafeTensors")
    for given in (path, str(path)):
        kr.load_torch_weights(randomize(a_network, seed=9), given)
        assert_same(a_network, model)
        assert_same(network("residual", weights=given), model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_tensors_of_another_dtype_load(dtype, model, arrays, a_network, tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    tensors = {k: tensor.to(getattr(torch, dtype)) for k, tensor in torch_dict(arrays).items()}
    save_file(tensors, tmp_path / "m.safetensors")
    path = save_torch(tensors, tmp_path / "m.pth")
    kr.load_torch_weights(a_network, {key: tensor.float() for key, tensor in tensors.items()})
    expected = by_path(a_network)
    for weights in (tensors, path, tmp_path / "m.safetensors"):
        kr.load_torch_weights(randomize(a_network, seed=9), weights)
        assert_same(a_network, expected)
    if dtype == "float16":
        assert_same(a_network, {k: v.astype(dtype) for k, v in by_path(model).items()})


# Bad weights


def without(*keys):
    return lambda arrays: {key: array for key, array in arrays.items() if key not in keys}


def with_zeros(**shapes):
    zeros = {key.replace("__", "."): np.zeros(s, "float32") for key, s in shapes.items()}
    return lambda arrays: {**arrays, **zeros}


# What is done to the arrays of a residual network, and what the message holds.
BAD_ARRAYS = {
    "a key is missing": (without("layer1.0.bn2.bias"), ["1 missing (layer1.0.bn2.bias)"]),
    "a classifier's further key": (with_zeros(fc__gain=(5,)), ["1 unexpected (fc.gain)"]),
    "a shape is wrong": (
        with_zeros(fc__weight=(5, 7)),
        ["1 of another shape (fc.weight: expected (5, 8), received (5, 7))"],
    ),
    "axes are Keras's": (
        with_zeros(conv1__weight=(3, 3, 3, 4)),
        ["1 of another shape (conv1.weight: expected (4, 3, 3, 3), received (3, 3, 3, 4))"],
    ),
    "an axis is missing": (with_zeros(bn1__bias=()), ["bn1.bias: expected (4,), received ()"]),
    "a key is misspelt": (
        lambda arrays: {key.replace("layer1.0.bn2", "layer1.0.n2"): arrays[key] for key in arrays},
        ["4 missing (", "layer1.0.bn2.weight", "4 unexpected (", "layer1.0.n2.weight"],
    ),
    "all at once": (
        lambda arrays: with_zeros(fc__bias=(6,), extra=(2,))(without("bn1.weight")(arrays)),
        ["1 missing (bn1.weight)", "1 unexpected (extra)", "1 of another shape (fc.bias: "],
    ),
    "two networks": (
        lambda arrays: {**prefixed("model.", arrays), **prefixed("teacher.", arrays)},
        ["32 unexpected (teacher.", "and 24 more"],
    ),
    "a key with a prefix and without": (
        lambda arrays: {**arrays, "module.fc.bias": arrays["fc.bias"]},
        ["1 unexpected (module.fc.bias)"],
    ),
    "a prefix and a key too few": (
        lambda arrays: prefixed("model.", without("bn1.bias")(arrays)),
        ["1 missing (bn1.bias)"],
    ),
    "of another network": (
        lambda arrays: arrays_of(network("v2")),
        ["32 missing (conv1.weight, ", "39 unexpected ("],
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(case, empty, arrays, tmp_path):
    damage, parts = BAD_ARRAYS[case]
    bad = damage(arrays)
    path = save_safetensors(bad, tmp_path / "model.safetensors")
    for weights in (bad, path):
        assert_refused(empty, loading(weights), parts)


def test_what_does_not_fit_is_named_by_create_model_too(arrays, tmp_path):
    path = save_safetensors(without("bn1.bias")(arrays), tmp_path / "model.safetensors")
    refusal(lambda: network("residual", weights=path), ["`weights`", "1 missing (bn1.bias)"])


@pytest.mark.parametrize(
    ("name", "key", "constant"),
    [
        ("norm without a gain", "layer2.0.bn1.weight", 1.0),
        ("norm without a shift", "bn1.bias", 0.0),
    ],
)
def test_what_a_norm_lacks_must_be_a_constant(name, key, constant):
    model = random_network(name)
    arrays = arrays_of(model)
    assert {*arrays[key].tolist()} == {constant}
    other = {**arrays, key: np.full_like(arrays[key], 0.5)}
    assert_refused(model, loading(other), ["not the constant", key])
    assert_refused(model, loading(without(key)(arrays)), [f"1 missing ({key})"])


class CreatesFile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("save", [save_safetensors, save_torch])
def test_a_damaged_file_is_named_and_nothing_is_loaded(save, damage, empty, arrays, tmp_path):
    is_torch = save is save_torch
    path = tmp_path / ("m.pth" if is_torch else "m.safetensors")
    save(torch_dict(arrays) if is_torch else arrays, path)
    assert_refused(empty, loading(damaged(path, damage)), [path.name])


# What `torch.save` wrote: given the tensors and an object that acts; and what the message holds.
BAD_CONTENTS = {
    "an object that acts": (lambda tensors, acts: {"a": acts}, ["m.pth"]),
    "an object that acts among tensors": (
        lambda tensors, acts: {**tensors, "extra": acts},
        ["m.pth"],
    ),
    "an object that acts beside a state dict": (
        lambda tensors, acts: {"state_dict": tensors, "args": acts},
        ["m.pth", "io.open"],
    ),
    "a whole model": (lambda tensors, acts: sys.modules["torch"].nn.Linear(2, 3), ["m.pth"]),
    "a number among tensors": (lambda tensors, acts: {**tensors, "epoch": 3}, ["epoch=3"]),
    "keys that are numbers": (
        lambda tensors, acts: dict(enumerate(tensors.values())),
        ["conv1.weight"],
    ),
    "arguments of a script alone": (lambda tensors, acts: argparse.Namespace(lr=1), ["m.pth"]),
    "a tensor alone": (lambda tensors, acts: tensors["fc.weight"], ["m.pth", "Tensor"]),
    "a list of tensors": (lambda tensors, acts: [*tensors.values()], ["m.pth", "list"]),
    "no tensors": (lambda tensors, acts: {}, ["m.pth"]),
}


@pytest.mark.parametrize("case", BAD_CONTENTS)
def test_a_bad_file_is_named_and_nothing_is_loaded_or_run(case, empty, arrays, tmp_path):
    make, parts = BAD_CONTENTS[case]
    content = make(torch_dict(arrays), CreatesFile(tmp_path / "created"))
    assert_refused(empty, loading(save_torch(content, tmp_path / "m.pth")), parts)
    assert not (tmp_path / "created").exists()


def test_a_pickle_is_refused_and_not_run(empty, tmp_path):
    pytest.importorskip("torch")
    content = pickle.dumps({"a": CreatesFile(tmp_path / "created")}, 2)
    (tmp_path / "m.pth").write_bytes(content)
    assert_refused(empty, loading(tmp_path / "m.pth"), ["m.pth"])
    assert not (tmp_path / "created").exists()
    pickle.loads(content)["a"].close()  # elsewhere it would run
    assert (tmp_path / "created").exists()


def test_absent_and_empty_files_are_refused(empty, tmp_path):
    pytest.importorskip("torch")
    for name in ("m.safetensors", "m.pth"):
        assert_refused(empty, loading(tmp_path / name), [name])
    assert_refused(empty, loading(tmp_path), [])
    path = save_safetensors({}, tmp_path / "m.safetensors")
    assert_refused(empty, loading(path), ["32 missing (conv1.weight"])


# What is no state dict, and what the message holds.
WRONG_TYPES = {
    "None": (None, []),
    "a number": (3, []),
    "an array": (np.zeros(3), []),
    "a list": ([np.zeros(3)], []),
    "an empty dict": ({}, []),
    "a dict of lists": ({"conv1.weight": [[1.0]]}, []),
    "a dict of dicts": ({"encoder": {"conv1.weight": np.zeros(3)}}, []),
    "numbered arrays": ({0: np.zeros(3)}, []),
    "long names": ({"layer" * 999 + str(i): np.zeros(3) for i in range(99)}, []),
    "many long values": ({"x" * 9999: [["y" * 9999] * 99] * 99}, []),
    "a list of many tensors": ({"weights": [np.zeros((9, 9))] * 999}, []),
    "itself": ((lambda d: d.update(state_dict=d) or d)({}), []),
    "a wrapper of something else": (
        {"state_dict": {"queue": np.zeros((2, 3), "float32")}},
        ["32 missing (", "1 unexpected (queue)"],
    ),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_what_is_no_state_dict_is_refused(case, empty):
    weights, parts = WRONG_TYPES[case]
    assert_refused(empty, loading(weights), parts)


def test_models_and_words_are_no_weights(empty, arrays):
    assert_refused(empty, loading(empty), ["state dict"])
    assert_refused(empty, loading({**arrays, "fc.bias": np.array([*"abcde"])}), ["fc.bias"])


def test_a_package_that_is_not_installed_is_named(empty, saved, tmp_path):
    (tmp_path / "m.pth").touch()
    before = by_path(empty)
    assert_needs("torch", lambda: kr.load_torch_weights(empty, tmp_path / "m.pth"))
    assert_needs("torch", lambda: kr.to_torch_state_dict(empty))
    assert_needs("safetensors", lambda: kr.load_torch_weights(empty, saved))
    assert_same(empty, before)


def test_a_safetensors_file_needs_no_torch(model, saved, monkeypatch):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras itself needs torch here")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_same(network("residual", weights=saved), model)


# Heads and channels


@pytest.mark.parametrize("name", ["bottleneck", "D", "v2", "inception"])
def test_other_classes_leave_a_new_head_and_none_needs_none(name, tmp_path):
    model = random_network(name)
    values, arrays = by_path(model), arrays_of(model)
    path = save_safetensors(arrays, tmp_path / "m.safetensors")
    head = {"head/kernel": np.ones((values["head/kernel"].shape[0], 7)), "head/bias": np.zeros(7)}
    loaded = network(name, weights=path, classes=7, kernel_initializer="ones")
    assert_same(loaded, {**values, **head})
    loaded = network(name, include_top=False)
    kr.load_torch_weights(loaded, arrays)
    assert_same(loaded, without_head(values))


def test_the_same_number_of_classes_keeps_the_head(model, saved):
    assert_same(network("residual", weights=saved, classes=5), model)


def test_classes_that_were_asked_for_may_be_absent_from_the_file(model, arrays, tmp_path):
    path = save_safetensors(without("fc.weight", "fc.bias")(arrays), tmp_path / "m.safetensors")
    loaded = by_path(network("residual", weights=path, classes=5))
    assert_same(model, {**by_path(model), **without_head(loaded)})
    assert {*loaded} == {*by_path(model)}
    with pytest.raises(ValueError, match=r"2 missing \(fc\.weight, fc\.bias\)"):
        network("residual", weights=path)


def test_a_new_head_replaces_one_of_several_layers(model, arrays, tmp_path):
    others = with_zeros(fc__1__weight=(6, 8), fc__1__bias=(6,), fc__3__weight=(5, 6))
    path = save_safetensors(
        others(without("fc.weight", "fc.bias")(arrays)), tmp_path / "m.safetensors"
    )
    loaded = by_path(network("residual", weights=path, classes=5))
    assert_same(model, {**by_path(model), **without_head(loaded)})
    refusal(lambda: network("residual", weights=path), ["2 missing (", "3 unexpected (fc.1."])


def test_a_head_of_another_size_that_nobody_asked_for_is_an_error(saved):
    spec = dataclasses.replace(NETWORKS["residual"][0], classes=7)
    with pytest.raises(ValueError, match=r"fc\.weight: expected \(7, 8\), received \(5, 8\)"):
        create(spec, weights=saved)
    for options in ({}, {"classes": 7}):
        model = create(spec, **options)
        assert_refused(model, loading(saved), ["2 of another shape (fc.weight: "])


def test_other_classes_do_not_excuse_another_backbone(saved):
    with pytest.raises(ValueError, match=r"1 of another shape \(conv1\.weight: "):
        create(resnet(stem=(Conv(4, 5, 2),)), weights=saved, classes=7)


FIRST_KERNELS = {
    "residual": ["stem_conv1/conv/kernel"],
    "D": ["stem_conv1/conv/kernel"],
    "v2": ["stem_conv1/conv/kernel"],
    "no stem": ["stage1_block1/conv1/conv/kernel", "stage1_block1/shortcut/conv/kernel"],
}


@pytest.mark.parametrize(
    ("name", "given", "channels"),
    [
        *(("residual", *pair) for pair in ((3, 1), (3, 4), (1, 3), (13, 3), (13, 11), (5, 13))),
        *((name, *pair) for name in ("D", "v2", "no stem") for pair in ((3, 1), (13, 11))),
    ],
)
def test_the_first_kernel_is_fitted_to_the_channels(name, given, channels, tmp_path):
    model = random_network(name, input_shape=(16, 16, given))
    path = save_safetensors(arrays_of(model), tmp_path / "m.safetensors")
    expected = by_path(model)
    for first in FIRST_KERNELS[name]:
        expected[first] = fitted(expected[first], channels)
    loaded = network(name, weights=path, input_shape=(16, 16, channels))
    assert_same(loaded, expected, near=FIRST_KERNELS[name])


def test_loading_by_hand_fits_channels_and_leaves_a_head_where_it_is_told_to(model, saved):
    options = {"input_shape": (16, 16, 1), "classes": 7, "kernel_initializer": "ones"}
    loaded = network("residual", **options)
    parts = ["conv1.weight", "`new_head=True, adapt_channels=True`"]
    assert_refused(loaded, loading(saved), parts)
    assert_refused(loaded, loading(saved, adapt_channels=True), ["2 of another shape (fc.weight"])
    kr.load_torch_weights(loaded, saved, new_head=True, adapt_channels=True)
    expected, first = by_path(model), "stem_conv1/conv/kernel"
    expected[first] = fitted(expected[first], 1)
    head = {"head/kernel": np.ones((8, 7)), "head/bias": np.zeros(7)}
    assert_same(loaded, {**expected, **head}, near=[first])
    with pytest.raises(ValueError, match=r"`new_head` must be .* Received: new_head=7"):
        kr.load_torch_weights(loaded, saved, new_head=7)
