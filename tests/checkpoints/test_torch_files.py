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
from helpers import assert_close, random_array, randomize, run_python, snapshot, to_numpy

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


NETWORKS = {
    "residual": (resnet(), {}),
    "bottleneck": (resnet("bottleneck", (1, 2)), {}),
    "D": (resnet(stem=DEEP_STEM, options={"shortcut": "avg_pool"}), {}),
    "D with bottlenecks": (
        resnet("bottleneck", stem=DEEP_STEM, options={"shortcut": "avg_pool"}),
        {},
    ),
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


def create(name, **arguments):
    """A network whose kernels are zero, which JAX need not compile an initializer for."""
    spec, given = NETWORKS[name] if isinstance(name, str) else (name, {})
    return kr.create_model(spec, **{"kernel_initializer": "zeros", **given, **arguments})


def random_model(name, **arguments):
    return randomize(create(name, **arguments))


def numpy_dict(model):
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


def assert_same(model, expected):
    """The very same weights; `expected` is a model or a snapshot of one."""
    values = expected if isinstance(expected, list) else snapshot(expected)
    for weight, value in zip(model.weights, values, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value, err_msg=weight.path)


def by_path(model):
    return {weight.path: to_numpy(weight) for weight in model.weights}


# Round trips


@pytest.mark.parametrize("name", NETWORKS)
def test_what_goes_out_comes_back_exactly(name, tmp_path):
    model = random_model(name)
    arrays = numpy_dict(model)
    loaded = randomize(create(name), seed=9)
    kr.load_torch_weights(loaded, arrays)
    assert_same(loaded, model)
    path = save_safetensors(arrays, tmp_path / "model.safetensors")
    assert_same(create(name, weights=path), model)


@pytest.mark.parametrize("name", ["bottleneck", "v2", "norm without a gain", "no top"])
def test_a_state_dict_of_tensors_goes_out_and_in(name):
    torch = pytest.importorskip("torch")
    model = random_model(name)
    state_dict = kr.to_torch_state_dict(model)
    arrays = numpy_dict(model)
    assert list(state_dict) == list(arrays)
    for key, tensor in state_dict.items():
        assert type(tensor) is torch.Tensor
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), arrays[key])
    loaded = create(name)
    kr.load_torch_weights(loaded, state_dict)
    assert_same(loaded, model)


def test_what_went_out_is_a_copy():
    model = random_model("residual")
    values = snapshot(model)
    for array in numpy_dict(model).values():
        array[...] = 0
    assert_same(model, values)


def test_a_file_is_of_no_data_format():
    last = random_model("D")
    first = create("D", data_format="channels_first", input_shape=(3, 16, 16))
    kr.load_torch_weights(first, numpy_dict(last))
    assert_same(first, last)


# Keys and axes; `.*` stands for the four arrays of a batch normalization

NORM = ("weight", "bias", "running_mean", "running_var")

KEYS = {
    "bottleneck": """
        conv1.weight bn1.*
        layer1.0.conv1.weight layer1.0.bn1.*
        layer1.0.conv2.weight layer1.0.bn2.*
        layer1.0.conv3.weight layer1.0.bn3.*
        layer1.0.downsample.0.weight layer1.0.downsample.1.*
        layer2.0.conv1.weight layer2.0.bn1.*
        layer2.0.conv2.weight layer2.0.bn2.*
        layer2.0.conv3.weight layer2.0.bn3.*
        layer2.0.downsample.0.weight layer2.0.downsample.1.*
        layer2.1.conv1.weight layer2.1.bn1.*
        layer2.1.conv2.weight layer2.1.bn2.*
        layer2.1.conv3.weight layer2.1.bn3.*
        fc.weight fc.bias
    """,
    "residual": """
        conv1.weight bn1.*
        layer1.0.conv1.weight layer1.0.bn1.*
        layer1.0.conv2.weight layer1.0.bn2.*
        layer2.0.conv1.weight layer2.0.bn1.*
        layer2.0.conv2.weight layer2.0.bn2.*
        layer2.0.downsample.0.weight layer2.0.downsample.1.*
        fc.weight fc.bias
    """,
    "D": """
        conv1.0.weight conv1.1.* conv1.3.weight conv1.4.* conv1.6.weight bn1.*
        layer1.0.conv1.weight layer1.0.bn1.*
        layer1.0.conv2.weight layer1.0.bn2.*
        layer2.0.conv1.weight layer2.0.bn1.*
        layer2.0.conv2.weight layer2.0.bn2.*
        layer2.0.downsample.1.weight layer2.0.downsample.2.*
        fc.weight fc.bias
    """,
    "v2": """
        stem.conv.weight
        stages.0.blocks.0.norm1.*
        stages.0.blocks.0.conv1.weight stages.0.blocks.0.norm2.*
        stages.0.blocks.0.conv2.weight stages.0.blocks.0.norm3.*
        stages.0.blocks.0.conv3.weight
        stages.0.blocks.0.downsample.conv.weight
        stages.1.blocks.0.norm1.*
        stages.1.blocks.0.conv1.weight stages.1.blocks.0.norm2.*
        stages.1.blocks.0.conv2.weight stages.1.blocks.0.norm3.*
        stages.1.blocks.0.conv3.weight
        stages.1.blocks.0.downsample.conv.weight
        norm.*
        head.fc.weight head.fc.bias
    """,
    "squeeze-excite": """
        conv1.weight bn1.*
        layer1.0.conv1.weight layer1.0.bn1.*
        layer1.0.conv2.weight layer1.0.bn2.*
        layer1.0.se.fc1.weight layer1.0.se.fc1.bias layer1.0.se.fc2.weight layer1.0.se.fc2.bias
        layer2.0.conv1.weight layer2.0.bn1.*
        layer2.0.conv2.weight layer2.0.bn2.*
        layer2.0.se.fc1.weight layer2.0.se.fc1.bias layer2.0.se.fc2.weight layer2.0.se.fc2.bias
        layer2.0.downsample.0.weight layer2.0.downsample.1.*
        fc.weight fc.bias
    """,
}


def expanded(keys):
    for key in keys.split():
        yield from (key.replace("*", part) for part in NORM) if key.endswith("*") else [key]


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_those_of_torchvision_and_timm(name):
    assert set(numpy_dict(create(name))) == set(expanded(KEYS[name]))


# Name of the network, path of a weight, key, shape there, and their axes as indices of ours.
AXES = {
    "convolution": ("residual", "stage2_block1/conv1/conv/kernel", "layer2.0.conv1.weight", "3201"),
    "grouped": ("grouped", "stage2_block1/conv2/conv/kernel", "layer2.0.conv2.weight", "3201"),
    "1-D": ("1-D", "stem_conv1/conv/kernel", "conv1.weight", "210"),
    "3-D": ("3-D", "stem_conv1/conv/kernel", "conv1.weight", "43012"),
    "dense": ("residual", "head/kernel", "fc.weight", "10"),
    "dense as a convolution": ("v2", "head/kernel", "head.fc.weight", "10.."),
    "squeeze": (
        "squeeze-excite",
        "stage2_block1/attention/reduce/kernel",
        "layer2.0.se.fc1.weight",
        "10..",
    ),
    "excite": (
        "squeeze-excite",
        "stage2_block1/attention/expand/kernel",
        "layer2.0.se.fc2.weight",
        "10..",
    ),
    "gain": ("residual", "stem_conv1/norm/gamma", "bn1.weight", "0"),
    "shift": ("residual", "stem_conv1/norm/beta", "bn1.bias", "0"),
    "mean": ("residual", "stem_conv1/norm/moving_mean", "bn1.running_mean", "0"),
    "variance": ("residual", "stem_conv1/norm/moving_variance", "bn1.running_var", "0"),
}


@pytest.mark.parametrize("case", AXES)
def test_axes_are_in_the_order_of_torch(case):
    name, path, key, axes = AXES[case]
    model = random_model(name)
    ours, theirs = by_path(model)[path], numpy_dict(model)[key]
    expected = ours.transpose([int(axis) for axis in axes if axis != "."])
    expected = expected[(..., *[None] * axes.count("."))]
    np.testing.assert_array_equal(theirs, expected)
    assert theirs.flags.c_contiguous


# Files


@pytest.fixture
def model():
    return random_model("residual")


@pytest.fixture(scope="module")
def other_arrays():
    """Those of another model of the same structure."""
    return numpy_dict(randomize(create("residual"), seed=9))


def test_a_safetensors_file_loads(model, tmp_path):
    path = save_safetensors(numpy_dict(model), tmp_path / "model.safetensors")
    for given in (path, str(path)):
        loaded = create("residual")
        kr.load_torch_weights(loaded, given)
        assert_same(loaded, model)


def prefixed(prefix, state_dict):
    return {f"{prefix}{key}": value for key, value in state_dict.items()}


def negated(state_dict):
    """The same names, other values."""
    return {key: -value for key, value in state_dict.items()}


def partly_compiled(state_dict):
    return {key.replace("layer1.0.", "layer1._orig_mod.0."): state_dict[key] for key in state_dict}


def backbone_and_head(state_dict):
    return {key if key[:2] == "fc" else f"backbone.{key}": state_dict[key] for key in state_dict}


WRAPPED = {
    "plain": lambda d: d,
    "state_dict": lambda d: {"state_dict": d, "epoch": 3},
    "model": lambda d: {"model": d, "optimizer": {"lr": 0.1}, "epoch": 3},
    "net": lambda d: {"net": d, "acc": 93.1},
    "model_state_dict": lambda d: {
        "epoch": 5,
        "model_state_dict": d,
        "optimizer_state_dict": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]},
        "loss": 0.5,
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
}


@pytest.fixture(scope="module")
def empty():
    return create("residual")


@pytest.mark.parametrize("form", WRAPPED)
def test_a_checkpoint_loads_as_it_is_found(form, model, empty):
    kr.load_torch_weights(randomize(empty, seed=9), WRAPPED[form](numpy_dict(model)))
    assert_same(empty, model)


@pytest.mark.parametrize("form", ENDINGS)
def test_what_torch_saved_loads(form, model, empty, tmp_path):
    content = WRAPPED[form](torch_dict(numpy_dict(model)))
    for name in ENDINGS[form]:
        kr.load_torch_weights(randomize(empty, seed=9), save_torch(content, tmp_path / name))
        assert_same(empty, model)


@pytest.mark.parametrize("name", ["model.TH", "checkpoint.PTH.tar", "model.SafeTensors"])
def test_create_model_takes_any_ending(name, model, tmp_path):
    arrays = prefixed("module.", numpy_dict(model))
    if name.lower().endswith(".safetensors"):
        path = save_safetensors(arrays, tmp_path / name)
    else:
        path = save_torch({"state_dict": torch_dict(arrays)}, tmp_path / name)
    assert_same(create("residual", weights=path), model)


def test_what_a_script_saved_beside_the_weights_is_passed_over(model, empty, tmp_path):
    content = {
        "args": argparse.Namespace(lr=0.1, output=pathlib.Path("runs")),
        "best": np.float64(93.1),
        "scores": [np.float32(0.5)],
        "state_dict": torch_dict(numpy_dict(model)),
    }
    path = save_torch(content, tmp_path / "model.pth")
    kr.load_torch_weights(randomize(empty, seed=9), path)
    assert_same(empty, model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("form", ["dict", "pth", "safetensors"])
def test_tensors_of_another_dtype_load(dtype, form, model, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {
        key: tensor.to(getattr(torch, dtype))
        for key, tensor in torch_dict(numpy_dict(model)).items()
    }
    weights = tensors
    if form == "pth":
        weights = save_torch(tensors, tmp_path / "model.pth")
    elif form == "safetensors":
        weights = tmp_path / "model.safetensors"
        pytest.importorskip("safetensors.torch").save_file(tensors, weights)
    expected = create("residual")
    kr.load_torch_weights(expected, {key: tensor.float() for key, tensor in tensors.items()})
    loaded = create("residual")
    kr.load_torch_weights(loaded, weights)
    assert_same(loaded, expected)


def test_half_precision_arrays_load(model, tmp_path):
    arrays = {key: array.astype("float16") for key, array in numpy_dict(model).items()}
    loaded = create("residual")
    kr.load_torch_weights(loaded, save_safetensors(arrays, tmp_path / "model.safetensors"))
    assert_same(loaded, [value.astype("float16").astype("float32") for value in snapshot(model)])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_half_precision_model_goes_out_and_in(dtype):
    torch = pytest.importorskip("torch")
    model = random_model("residual", dtype=dtype)
    state_dict = kr.to_torch_state_dict(model)
    assert {type(tensor) for tensor in state_dict.values()} == {torch.Tensor}
    loaded = create("residual", dtype=dtype)
    kr.load_torch_weights(loaded, state_dict)
    assert_same(loaded, model)


def test_counts_of_batches_are_ignored(model):
    arrays = numpy_dict(model)
    counts = {
        key.replace("running_mean", "num_batches_tracked"): np.array(7, "int64")
        for key in arrays
        if key.endswith("running_mean")
    }
    assert len(counts) == 6
    loaded = create("residual")
    kr.load_torch_weights(loaded, {**arrays, **counts})
    assert_same(loaded, model)


SAFETENSORS_WITHOUT_TORCH = """
    import sys

    class Uninstalled:
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] == "torch":
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Uninstalled)

    import numpy as np

    import keras_resblocks as kr
    from keras_resblocks.layers import Conv

    spec = kr.ResNetSpec("residual", (1,), 4, stem=(Conv(4, 3),), classes=5)
    model = kr.create_model(spec, weights=sys.argv[1], kernel_initializer="zeros")
    print(float(np.sum(model.get_layer("head").get_weights()[1])), "torch" in sys.modules)
"""


@pytest.mark.slow
def test_a_safetensors_file_needs_no_torch(tmp_path):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras itself needs torch here")
    model = create(kr.ResNetSpec("residual", (1,), 4, stem=(Conv(4, 3),), classes=5))
    arrays = {**numpy_dict(model), "fc.bias": np.arange(5, dtype="float32")}
    path = save_safetensors(arrays, tmp_path / "model.safetensors")
    assert run_python(SAFETENSORS_WITHOUT_TORCH, path).split() == ["10.0", "False"]


# Bad weights


def without(*keys):
    return lambda arrays: {key: array for key, array in arrays.items() if key not in keys}


def updated(**shapes):
    zeros = {key.replace("__", "."): np.zeros(s, "float32") for key, s in shapes.items()}
    return lambda arrays: {**arrays, **zeros}


# What is done to the arrays of a residual network, and what the message holds.
BAD_ARRAYS = {
    "a key is missing": (without("layer1.0.bn2.bias"), ["1 missing (layer1.0.bn2.bias)"]),
    "a key is unexpected": (
        updated(layer2__0__conv3__weight=(3,)),
        ["1 unexpected (layer2.0.conv3.weight)"],
    ),
    "a classifier's further key": (updated(fc__gain=(5,)), ["1 unexpected (fc.gain)"]),
    "a shape is wrong": (
        updated(fc__weight=(5, 7)),
        ["1 of another shape (fc.weight: expected (5, 8), received (5, 7))"],
    ),
    "axes are Keras's": (
        updated(conv1__weight=(3, 3, 3, 4)),
        ["1 of another shape (conv1.weight: expected (4, 3, 3, 3), received (3, 3, 3, 4))"],
    ),
    "an axis is missing": (updated(bn1__bias=()), ["bn1.bias: expected (4,), received ()"]),
    "a key is misspelt": (
        lambda arrays: {key.replace("layer1.0.bn2", "layer1.0.n2"): arrays[key] for key in arrays},
        ["4 missing (", "layer1.0.bn2.weight", "4 unexpected (", "layer1.0.n2.weight"],
    ),
    "all at once": (
        lambda arrays: updated(fc__bias=(6,), extra=(2,))(without("bn1.weight")(arrays)),
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
    "a wrapper of something else": (
        lambda arrays: {"state_dict": {"queue": np.zeros((2, 3), "float32")}},
        ["32 missing (", "1 unexpected (queue)"],
    ),
    "words": (
        lambda arrays: {**arrays, "fc.bias": np.array(list("abcde"))},
        ["fc.bias"],
    ),
    "of another network": (
        lambda arrays: numpy_dict(create("v2")),
        ["32 missing (conv1.weight, ", "39 unexpected ("],
    ),
}


def assert_refused(model, weights, parts):
    """`weights` raise a message that holds `parts`, and the model is as it was."""
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"(?s)weights.*Received: ") as raised:
        kr.load_torch_weights(model, weights)
    message = str(raised.value)
    assert len(message) < 2000
    assert [part for part in parts if part not in message] == [], message
    assert_same(model, before)


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(case, model, other_arrays, tmp_path):
    damage, parts = BAD_ARRAYS[case]
    arrays = damage(other_arrays)
    assert_refused(model, arrays, parts)
    if case not in ("words", "a wrapper of something else"):  # which such a file cannot hold
        path = save_safetensors(arrays, tmp_path / "model.safetensors")
        assert_refused(model, path, parts)


def test_what_does_not_fit_is_named_by_create_model_too(other_arrays, tmp_path):
    arrays = without("layer1.0.bn2.bias")(other_arrays)
    path = save_safetensors(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"`weights`.*1 missing \(layer1\.0\.bn2\.bias\)"):
        create("residual", weights=path)


def test_a_gain_that_the_model_lacks_must_be_one():
    model = random_model("norm without a gain")
    arrays = numpy_dict(model)
    assert arrays["layer2.0.bn1.weight"].tolist() == [1.0] * 8
    other = {**arrays, "layer2.0.bn1.weight": np.full(8, 0.5, "float32")}
    assert_refused(model, other, ["not the constant", "layer2.0.bn1.weight"])
    assert_refused(model, without("bn1.weight")(arrays), ["1 missing (bn1.weight)"])


def test_a_shift_that_the_model_lacks_must_be_zero():
    model = random_model("norm without a shift")
    arrays = numpy_dict(model)
    assert arrays["bn1.bias"].tolist() == [0.0] * 4
    other = {**arrays, "bn1.bias": np.full(4, 0.5, "float32")}
    assert_refused(model, other, ["not the constant", "bn1.bias"])


class CreatesFile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def truncated(path, fraction):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def written(path, data):
    path.write_bytes(data)
    return path


def truncated_safetensors(fraction):
    def write(arrays, folder):
        return truncated(save_safetensors(arrays, folder / "m.safetensors"), fraction)

    return write


def truncated_torch(fraction):
    def write(arrays, folder):
        return truncated(save_torch(torch_dict(arrays), folder / "m.pth"), fraction)

    return write


def pickled(arrays, folder):
    pytest.importorskip("torch")
    return written(folder / "m.pth", pickle.dumps({"a": CreatesFile(folder / "created")}, 2))


def not_a_torch_file(data):
    def write(arrays, folder):
        pytest.importorskip("torch")
        return written(folder / "m.pth", data)

    return write


# What makes a bad file in a folder, given the arrays of a good one, and what the message holds.
BAD_FILES = {
    "safetensors cut in its header": (truncated_safetensors(0.02), ["m.safetensors"]),
    "safetensors cut in the middle": (truncated_safetensors(0.5), ["m.safetensors"]),
    "safetensors cut at the end": (truncated_safetensors(0.999), ["m.safetensors"]),
    "empty safetensors": (lambda _, folder: written(folder / "m.safetensors", b""), ["m.safet"]),
    "a text called safetensors": (
        lambda _, folder: written(folder / "m.safetensors", b"no weights at all\n" * 9),
        ["m.safetensors"],
    ),
    "safetensors of nothing": (
        lambda _, folder: save_safetensors({}, folder / "m.safetensors"),
        ["32 missing (conv1.weight"],
    ),
    "missing safetensors": (lambda _, folder: folder / "m.safetensors", ["m.safetensors"]),
    "pth cut at the beginning": (truncated_torch(0.02), ["m.pth"]),
    "pth cut in the middle": (truncated_torch(0.5), ["m.pth"]),
    "pth cut at the end": (truncated_torch(0.999), ["m.pth"]),
    "empty pth": (not_a_torch_file(b""), ["m.pth"]),
    "a text called pth": (not_a_torch_file(b"no weights at all\n" * 9), ["m.pth"]),
    "missing pth": (
        lambda _, folder: pytest.importorskip("torch") and folder / "m.pth",
        ["m.pth"],
    ),
    "a folder": (lambda _, folder: pytest.importorskip("torch") and folder, []),
    "a pickle of an object that acts": (pickled, ["m.pth"]),
    "an object that acts among tensors": (
        lambda arrays, folder: save_torch(
            {**torch_dict(arrays), "extra": CreatesFile(folder / "created")}, folder / "m.pth"
        ),
        ["m.pth"],
    ),
    "a whole model": (
        lambda _, folder: save_torch(
            pytest.importorskip("torch").nn.Linear(2, 3), folder / "m.pth"
        ),
        ["m.pth"],
    ),
    "a number among tensors": (
        lambda arrays, folder: save_torch({**torch_dict(arrays), "epoch": 3}, folder / "m.pth"),
        ["epoch=3"],
    ),
    "keys that are numbers": (
        lambda arrays, folder: save_torch(
            dict(enumerate(torch_dict(arrays).values())), folder / "m.pth"
        ),
        ["conv1.weight"],
    ),
    "an object that acts beside a state dict": (
        lambda arrays, folder: save_torch(
            {"state_dict": torch_dict(arrays), "args": CreatesFile(folder / "created")},
            folder / "m.pth",
        ),
        ["m.pth", "io.open"],
    ),
    "arguments of a script alone": (
        lambda _, folder: save_torch(argparse.Namespace(lr=1), folder / "m.pth"),
        ["m.pth"],
    ),
    "a tensor alone": (
        lambda arrays, folder: save_torch(torch_dict(arrays)["fc.weight"], folder / "m.pth"),
        ["m.pth", "Tensor"],
    ),
    "a list of tensors": (
        lambda arrays, folder: save_torch([*torch_dict(arrays).values()], folder / "m.pth"),
        ["m.pth", "list"],
    ),
    "no tensors": (lambda _, folder: save_torch({}, folder / "m.pth"), ["m.pth"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_and_nothing_is_loaded_or_run(case, model, other_arrays, tmp_path):
    write, parts = BAD_FILES[case]
    path = write(other_arrays, tmp_path)
    assert_refused(model, path, parts)
    assert not (tmp_path / "created").exists()


def test_an_object_that_acts_would_act_elsewhere(tmp_path):
    pickle.loads(pickle.dumps(CreatesFile(tmp_path / "created"))).close()
    assert (tmp_path / "created").exists()


WRONG_TYPES = {
    "None": None,
    "a number": 3,
    "an array": np.zeros(3),
    "a list": [np.zeros(3)],
    "an empty dict": {},
    "a dict of lists": {"conv1.weight": [[1.0]]},
    "a dict of dicts": {"encoder": {"conv1.weight": np.zeros(3)}},
    "numbered arrays": {0: np.zeros(3)},
    "long names": {"layer" * 999 + str(i): np.zeros(3) for i in range(99)},
    "many long values": {"x" * 9999: [["y" * 9999] * 99] * 99},
    "a list of many tensors": {"weights": [np.zeros((9, 9))] * 999},
    "itself": (lambda d: d.update(state_dict=d) or d)({}),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_what_is_no_state_dict_is_refused(case, model):
    assert_refused(model, WRONG_TYPES[case], [])


def test_a_keras_model_is_no_state_dict(model):
    assert_refused(model, create("residual"), ["state dict"])


PACKAGES = {
    "what torch saved": ("torch", lambda model, path: kr.load_torch_weights(model, path / "m.pth")),
    "tensors": ("torch", lambda model, path: kr.to_torch_state_dict(model)),
    "safetensors": (
        "safetensors",
        lambda model, path: kr.load_torch_weights(model, path / "m.safetensors"),
    ),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_a_package_that_is_not_installed_is_named(case, model, monkeypatch, tmp_path):
    package, use = PACKAGES[case]
    (tmp_path / "m.pth").touch()
    save_safetensors(numpy_dict(model), tmp_path / "m.safetensors")
    before = snapshot(model)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        patch.setitem(sys.modules, f"{package}.numpy", None)
        with pytest.raises(
            ImportError, match=rf"`{package}`.*pip install {package} .*\["
        ) as raised:
            use(model, tmp_path)
    assert "keras-resblocks" in str(raised.value)
    assert_same(model, before)


# Heads and channels


@pytest.fixture
def saved(model, tmp_path):
    """The path of a file with the weights of `model`."""
    return save_safetensors(numpy_dict(model), tmp_path / "saved.safetensors")


def assert_same_backbone(model, expected):
    ours, theirs = by_path(model), by_path(expected)
    assert {path for path in theirs if not path.startswith("head/")} <= {*ours}
    for path, value in ours.items():
        if not path.startswith("head/"):
            np.testing.assert_array_equal(value, theirs[path], err_msg=path)


@pytest.mark.parametrize("name", ["bottleneck", "D", "v2", "inception"])
def test_a_model_without_a_classifier_takes_a_file_that_has_one(name):
    model = random_model(name)
    loaded = create(name, include_top=False)
    kr.load_torch_weights(loaded, numpy_dict(model))
    assert_same_backbone(loaded, model)


@pytest.mark.parametrize("name", ["bottleneck", "D", "v2", "inception"])
def test_other_classes_leave_a_new_head(name, tmp_path):
    model = random_model(name)
    path = save_safetensors(numpy_dict(model), tmp_path / "m.safetensors")
    loaded = create(name, weights=path, classes=7, kernel_initializer="ones")
    kernel, bias = loaded.get_layer("head").get_weights()
    assert kernel.shape[1] == 7
    assert kernel.min() == kernel.max() == 1
    assert bias.tolist() == [0] * 7
    assert_same_backbone(loaded, model)


def test_the_same_number_of_classes_keeps_the_head(model, saved):
    assert_same(create("residual", weights=saved, classes=5), model)


def test_classes_that_were_asked_for_may_be_absent_from_the_file(model, tmp_path):
    arrays = without("fc.weight", "fc.bias")(numpy_dict(model))
    path = save_safetensors(arrays, tmp_path / "m.safetensors")
    loaded = create("residual", weights=path, classes=5)
    assert_same_backbone(loaded, model)
    with pytest.raises(ValueError, match=r"2 missing \(fc\.weight, fc\.bias\)"):
        create("residual", weights=path)


def test_a_head_of_another_size_that_nobody_asked_for_is_an_error(model, saved):
    spec = dataclasses.replace(NETWORKS["residual"][0], classes=7)
    with pytest.raises(ValueError, match=r"fc\.weight: expected \(7, 8\), received \(5, 8\)"):
        create(spec, weights=saved)
    assert_refused(create(spec), saved, ["2 of another shape (fc.weight: "])
    assert_refused(create(spec, classes=7), saved, ["2 of another shape (fc.weight: "])


def test_other_classes_do_not_excuse_another_backbone(saved):
    with pytest.raises(ValueError, match=r"1 of another shape \(conv1\.weight: "):
        create(
            resnet(stem=(Conv(4, 5, 2),)),
            weights=saved,
            classes=7,
        )


@pytest.mark.parametrize("name", ["residual", "D", "v2"])
@pytest.mark.parametrize(
    ("given", "channels"), [(3, 1), (3, 4), (1, 3), (13, 3), (13, 11), (5, 13)]
)
def test_the_first_kernel_is_fitted_to_the_channels(name, given, channels, tmp_path):
    model = random_model(name, input_shape=(16, 16, given))
    path = save_safetensors(numpy_dict(model), tmp_path / "m.safetensors")
    loaded = create(name, weights=path, input_shape=(16, 16, channels))
    expected, path = by_path(model), "stem_conv1/conv/kernel"
    bands = expected.pop(path)
    if channels == 1:
        kernel = bands.sum(axis=2, keepdims=True)
    else:
        repeated = np.concatenate([bands] * 3, axis=2)[:, :, :channels]
        kernel = repeated * np.float32(given / channels)
    values = by_path(loaded)
    np.testing.assert_allclose(values.pop(path), kernel, rtol=1e-6, atol=1e-7)
    assert {*values} == {*expected}
    for path, value in values.items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.parametrize("name", ["bottleneck", "v2"])
def test_a_gray_image_is_seen_alike_through_one_channel_and_through_three(name, tmp_path):
    model = random_model(name, classifier_activation=None)
    path = save_safetensors(numpy_dict(model), tmp_path / "m.safetensors")
    gray = random_array((2, 16, 16, 1))
    loaded = create(name, weights=path, input_shape=(16, 16, 1), classifier_activation=None)
    outputs = loaded.predict_on_batch(gray)
    expected = model.predict_on_batch(np.repeat(gray, 3, axis=-1))
    scale = np.abs(expected).max()
    assert_close(outputs / scale, expected / scale, 1e-5)


def test_loading_by_hand_fits_channels_and_leaves_a_head_where_it_is_told_to(model, saved):
    loaded = create("residual", input_shape=(16, 16, 1), classes=7, kernel_initializer="ones")
    assert_refused(loaded, saved, ["conv1.weight", "`new_head=True, adapt_channels=True`"])
    with pytest.raises(ValueError, match=r"2 of another shape \(fc\.weight"):
        kr.load_torch_weights(loaded, saved, adapt_channels=True)
    kr.load_torch_weights(loaded, saved, new_head=True, adapt_channels=True)
    values = by_path(loaded)
    assert values["head/kernel"].min() == 1
    expected = by_path(model)["stem_conv1/conv/kernel"].sum(axis=2, keepdims=True)
    np.testing.assert_allclose(values["stem_conv1/conv/kernel"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"`new_head` must be .* Received: new_head=7"):
        kr.load_torch_weights(loaded, saved, new_head=7)


def test_a_network_without_a_stem_is_fitted_to_the_channels_too(tmp_path):
    model = random_model("no stem")
    path = save_safetensors(numpy_dict(model), tmp_path / "m.safetensors")
    loaded = by_path(create("no stem", weights=path, input_shape=(16, 16, 1)))
    for path in ("stage1_block1/conv1/conv/kernel", "stage1_block1/shortcut/conv/kernel"):
        expected = by_path(model)[path].sum(axis=2, keepdims=True)
        np.testing.assert_allclose(loaded[path], expected, rtol=1e-6, atol=1e-7)


def test_paths_may_be_strings_or_paths(model, saved):
    for path in (str(saved), pathlib.Path(saved)):
        assert_same(create("residual", weights=path), model)
