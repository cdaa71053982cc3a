"""What `export_onnx` writes is what the model computes, whatever the backend.

An export takes a process of TensorFlow on the other backends: cases of a kind share one file.
"""

import os
import stat
import sys

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    covering,
    label,
    make_block,
    model_of,
    random_array,
    registered_function,
    shape_of,
)
from keras import layers, ops
from trained import DISTINCT, network, shrunk, trained

import keras_resblocks as kr
from keras_resblocks.checkpoints.preprocessing import ImagePreprocessing
from keras_resblocks.layers import ConvUnit, Pooling

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")

# The others convert the same way, once TensorFlow has loaded their file, and take longer.
IS_TENSORFLOW = keras.backend.backend() == "tensorflow"
on_tensorflow = pytest.mark.skipif(
    not IS_TENSORFLOW, reason="the same on every backend, at once here"
)
not_on_tensorflow = pytest.mark.skipif(IS_TENSORFLOW, reason="TensorFlow needs no other process")


def run(path, batch):
    """The outputs of the file by name, for arrays by name."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_outputs()]
    return dict(zip(names, session.run(names, batch)))


def opset_of(path):
    versions = {entry.domain: entry.version for entry in onnx.load(str(path)).opset_import}
    return versions[""]


def assert_exports(model, folder, *batches, **options):
    """Exports a model of dicts, and compares all that is in the file with the model."""
    path = folder / "model.onnx"
    kr.export_onnx(model, path, examples=batches[:1], **options)
    onnx.checker.check_model(str(path))
    for batch in batches:
        expected, received = model.predict_on_batch(batch), run(path, batch)
        assert list(received) == list(expected)
        for name, array in expected.items():
            assert np.ptp(array) > 0, name
            error = np.abs(array - received[name]).max() / np.abs(array).max()
            assert error < 1e-4, name
    return path


def branches(inputs, functions):
    """A model of one output for each function of an input: by name, in dicts."""
    outputs = {name: function(inputs[key]) for (key, name), function in functions.items()}
    return trained(keras.Model(inputs, outputs))


# Networks.


def of_networks(names, **options):
    options.update(classes=4, input_shape=(None, None, 3))
    image = keras.Input(options["input_shape"], name="image")
    return keras.Model(
        {"image": image}, {name: network(shrunk(name), **options)(image) for name in names}
    )


QUICK = ("resnet50v2_keras", "resnext50_32x4d", "seresnet50")
OTHERS = [name for name in DISTINCT if name not in QUICK]
NETWORKS = [
    (QUICK if IS_TENSORFLOW else QUICK[-1:], {}),
    # Negative values at the borders.
    pytest.param(["resnet18"], {"padding": "symmetric", "activation": "elu"}, marks=on_tensorflow),
    (["resnet18"], {"padding": "same", "activation": "elu"}),
    *(pytest.param(OTHERS[i::4], {}, marks=pytest.mark.slow) for i in range(4)),
]


@pytest.mark.parametrize(("names", "options"), NETWORKS)
def test_networks_of_any_batch_and_size(names, options, tmp_path):
    shapes = ((1, 96, 82, 3), (5, 97, 81, 3), (5, 96, 81, 3))
    batches = [{"image": random_array(shape, seed=i)} for i, shape in enumerate(shapes)]
    assert_exports(of_networks(names, **options), tmp_path, *batches)


def test_a_bottleneck_network_has_nothing_left_to_be_merged(tmp_path):
    model = network(shrunk("resnet50"), input_shape=(None, None, 3))  # of eight blocks
    kr.export_onnx(model, tmp_path / "model.onnx")
    nodes = [node.op_type for node in onnx.load(str(tmp_path / "model.onnx")).graph.node]
    for op_type, count in {"Conv": 28, "Relu": 25, "Add": 9, "Transpose": 1}.items():
        assert nodes.count(op_type) == count
    assert not {"BatchNormalization", "Mul", "Sub"} & {*nodes}


# Blocks and their parts.

NORMALIZATIONS = {
    "batch": "batch",
    "layer": "layer",
    "group": "group",
    "axis": layers.BatchNormalization(axis=1),
    "none": None,
}
ACTIVATIONS = {
    "elu": "elu",
    "prelu": layers.PReLU(shared_axes=[1]),
    "function": registered_function,
}
OPTIONS = {
    "kind": BLOCKS,
    "normalization": tuple(NORMALIZATIONS),
    "activation": tuple(ACTIVATIONS),
    "attention": (None, "squeeze_excite", "efficient_channel"),
    "shortcut": ("projection", "zero_pad", "avg_pool"),
    "preactivation": (False, True),
    "padding": ("symmetric", "same"),
    "strides": (1, 2),
}


@pytest.mark.parametrize(
    ("rank", "data_format"),
    [
        (1, "channels_last"),
        (2, "channels_last"),
        pytest.param(2, "channels_first", marks=not_on_tensorflow),  # it would not run on a CPU
        (3, "channels_last"),
    ],
)
def test_blocks(rank, data_format, tmp_path):
    def shape(batch, *sizes):
        return shape_of(rank, 4, data_format, batch, spatial=sizes)

    inputs = {
        "open": keras.Input(shape(None, None, None, None)[1:], name="open"),
        "fixed": keras.Input(shape(None, 7, 6, 5)[1:], name="fixed"),
    }
    batches = [
        {"open": random_array(shape(1, 7, 6, 5)), "fixed": random_array(shape(1, 7, 6, 5))},
        {"open": random_array(shape(5, 8, 9, 6)), "fixed": random_array(shape(5, 7, 6, 5))},
    ]
    templates = {"normalization": NORMALIZATIONS, "activation": ACTIVATIONS}
    functions = {}
    for i, case in enumerate(covering(OPTIONS, seed=rank)[: 9 if IS_TENSORFLOW else 4]):
        options = {name: templates.get(name, {}).get(value, value) for name, value in case.items()}
        kind, strides = options.pop("kind"), options.pop("strides")
        has_weights_of_an_axis = case["normalization"] == "axis" or case["activation"] == "prelu"
        key = "fixed" if has_weights_of_an_axis or i % 2 else "open"
        block = make_block(kind, 8, strides, data_format=data_format, **options)
        functions[key, label(case)] = block
    assert_exports(branches(inputs, functions), tmp_path, *batches)


POOLINGS = [
    *(("max", {"padding": padding}) for padding in Pooling.paddings),
    *(("avg", {"padding": padding}) for padding in ("symmetric", "valid", "ceil")),
    ("max", {"pad_value": 0.0}),
    ("max", {"pad_value": -0.5}),
    ("avg", {"pad_value": 0.0}),
]


def test_poolings_and_convolutions(tmp_path):
    inputs = {
        "open": keras.Input((None, None, 4), name="open"),
        "even": keras.Input((8, 12, 4), name="even"),
    }
    functions = {
        (key, f"{key} {kind} {options}"): Pooling(kind, 3, 2, **options)
        for key in inputs
        for kind, options in POOLINGS
    }
    for padding in ConvUnit.paddings:
        for size in (2, 3, 4):
            for dilation_rate in (1, 2):
                functions["open", f"{padding} {size} {dilation_rate}"] = ConvUnit(
                    6,
                    size,
                    3 - dilation_rate,
                    padding=padding,
                    dilation_rate=dilation_rate,
                    groups=2,
                )
    even = random_array((5, 8, 12, 4)) - 2.0  # all negative, unlike what pads
    batches = [
        {"open": random_array((1, 11, 12, 4)) - 2.0, "even": even[:1]},
        {"open": random_array((5, 12, 9, 4)) - 2.0, "even": even},
    ]
    assert_exports(branches(inputs, functions), tmp_path, *batches)


# Keras's own layers, and layers of one's own.


def activations():
    found = vars(keras.activations).items()
    return {
        name: function
        for name, function in found
        if callable(function) and name not in ("get", "serialize", "deserialize", "threshold")
    }


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Gated(layers.Layer):
    """A layer of one's own, in a module that another process can import."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), name="gain")
        self.block = kr.ResidualBlock(4)
        self.block.build(shape)

    def call(self, inputs):
        return self.block(inputs) * ops.sigmoid(inputs * self.gain)


class Unregistered(Gated):
    pass


def attention(x):
    return layers.MultiHeadAttention(2, 4)(x, x)


def u_net(x):
    down = kr.ResidualBlock(8, 2)(x)
    up = layers.Conv2DTranspose(4, 2, 2)(down)
    return kr.ResidualBlock(4)(layers.Concatenate()([x, up]))


def several(*stack):
    return keras.Sequential(list(stack))


def maps():
    return {
        "depthwise": layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2),
        "separable": layers.SeparableConv2D(3, 3, 2, activation="relu"),
        "zero padded max": several(
            layers.ZeroPadding2D(((1, 2), (0, 1))), layers.MaxPooling2D(3, 2)
        ),
        "zero padded": several(layers.ZeroPadding2D(((1, 2), (0, 1))), layers.Conv2D(3, 3)),
        "average": layers.AveragePooling2D(2),
        "global": layers.GlobalMaxPooling2D(keepdims=True),
        "flat": several(layers.Flatten(), layers.Dense(3, activation="softmax")),
        "axes": layers.LayerNormalization(axis=[1, 3]),
        "unit": layers.UnitNormalization(),
        "permuted": several(layers.Permute((3, 1, 2)), layers.Reshape((-1, 2))),
        "batch normalization": layers.BatchNormalization(axis=2),
        "folded": several(layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization()),
        "dropout": several(layers.SpatialDropout2D(0.5), layers.GaussianNoise(1.0)),
        "cropped": several(layers.Cropping2D(1), layers.ReLU(6.0, negative_slope=0.1)),
        "augmented": several(
            layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomContrast(0.5)
        ),
        "zoomed": several(layers.RandomZoom(0.3), layers.RandomTranslation(0.2, 0.2)),
        "augmented by ours": several(kr.training.RandomShift(0.2), kr.layers.StochasticDepth(0.5)),
        "transposed": layers.Conv2DTranspose(4, 3, 2, padding="same"),
        "upsampled": layers.UpSampling2D(3),
        "bilinear": layers.UpSampling2D(2, interpolation="bilinear"),
        "resized": layers.Resizing(5, 9),
        "rescaled": layers.Rescaling(0.5, offset=-1.0),
        "normalized": layers.Normalization(mean=[1, 2, 3, 4], variance=[4, 3, 2, 1]),
        "decoder": u_net,
        "own": Gated(),
        "own, unregistered": Unregistered(),
        "operations": lambda x: ops.sqrt(ops.abs(x[:, 1:-1:2, ..., 1:3])) - ops.mean(x) / 2.0,
        "cumulative": lambda x: ops.cumsum(ops.moveaxis(x, 1, 2), axis=1),
    }


def sequences():
    return {
        "lstm": layers.LSTM(3, return_sequences=True),
        "gru": layers.Bidirectional(layers.GRU(3)),
        "attention": attention,
        "causal": layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
        "upsampled": layers.UpSampling1D(2),
        "transposed": layers.Conv1DTranspose(3, 3, 2),
        "distributed": layers.TimeDistributed(layers.Dense(3)),
    }


def test_layers_and_activations(tmp_path):
    inputs = {
        "map": keras.Input((6, 8, 4), name="map"),
        "sequence": keras.Input((7, 4), name="sequence"),
        "volume": keras.Input((4, 5, 6, 4), name="volume"),
        "word": keras.Input((5,), dtype="int32", name="word"),
    }
    functions = {("map", f"map, {name}"): layer for name, layer in maps().items()}
    functions.update((("sequence", f"sequence, {n}"), layer) for n, layer in sequences().items())
    functions.update(
        (("sequence", f"activation, {name}"), layers.Activation(name)) for name in activations()
    )
    functions["volume", "grouped"] = layers.Conv3D(6, 3, groups=2)
    functions["word", "embedded"] = layers.Embedding(9, 3)
    words = np.random.default_rng(0).integers(0, 9, (5, 5), "int32")
    batches = [
        {
            "map": random_array((n, 6, 8, 4)),
            "sequence": 2 * random_array((n, 7, 4)),
            "volume": random_array((n, 4, 5, 6, 4)),
            "word": words[:n],
        }
        for n in (1, 5)
    ]
    assert_exports(branches(inputs, functions), tmp_path, *batches)


def test_pixels_and_preprocessing(tmp_path):
    pixels = keras.Input((40, 50, 3), dtype="uint8", name="pixels")
    sizes = {"bilinear": 24, "bicubic": 28, "nearest": 24}
    model = trained(model_of(kr.ResidualBlock(4), shape=(1, 24, 24, 3)))
    outputs = {
        name: model(ImagePreprocessing(24, resize=size, interpolation=name)(pixels))
        for name, size in sizes.items()
    }
    outputs["rescaled"] = layers.Rescaling(1 / 255)(pixels)
    batches = [
        {"pixels": np.random.default_rng(n).integers(0, 256, (n, 40, 50, 3), "uint8")}
        for n in (1, 5)
    ]
    assert_exports(keras.Model({"pixels": pixels}, outputs), tmp_path, *batches)


# The file.


def test_names_order_opset_and_a_fixed_batch(tmp_path):
    b, a = keras.Input((None, 6, 4), 2, name="b"), keras.Input((4,), 2, name="1st input")
    y = kr.ResidualBlock(4)(b)
    outputs = {"z": y, "b": b, "parts": [a, {"c": layers.Dense(2)(a)}], "again": y}
    model = trained(keras.Model({"b": b, "1st input": a}, outputs))
    path = tmp_path / "model.onnx"
    kr.export_onnx(model, path, opset=17)
    assert opset_of(path) == 17
    session = onnxruntime.InferenceSession(str(path))
    inputs = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    assert inputs == {"1st input": [2, 4], "b": [2, "b_1", 6, 4]}
    batch = {"b": random_array((2, 9, 6, 4)), "1st input": random_array((2, 4))}
    received, expected = run(path, batch), model.predict_on_batch(batch)
    assert {*received} == {"z", "b_1", "parts_0", "parts_1_c", "again"}
    assert next(iter(received)) == next(iter(expected))  # which depends on the backend
    np.testing.assert_allclose(received["again"], expected["again"], atol=1e-5)
    np.testing.assert_allclose(received["parts_1_c"], expected["parts"][1]["c"], atol=1e-5)
    np.testing.assert_array_equal(received["b_1"], batch["b"])


@on_tensorflow
@pytest.mark.parametrize("names", [["block", "head", "block_2"], ["block"]])
def test_outputs_in_a_list_are_called_after_layers(names, tmp_path):
    image = keras.Input((8, 8, 3), name="image")
    x = kr.ResidualBlock(4, name="block")(image)
    outputs = [x, layers.Dense(2, name="head")(x), x][: len(names)]
    model = trained(keras.Model(image, outputs))
    kr.export_onnx(model, tmp_path / "model.onnx")
    assert [*run(tmp_path / "model.onnx", {"image": random_array((3, 8, 8, 3))})] == names


def small_model():
    return trained(model_of(kr.ResidualBlock(4), shape=shape_of()))


@on_tensorflow
def test_what_differs_is_not_written(tmp_path, monkeypatch):
    path, model = tmp_path / "model.onnx", small_model()
    path.write_bytes(b"there before")
    nothing = np.full((1, *model.input_shape[1:]), np.nan, "float32")
    with pytest.raises(RuntimeError, match="differs by"):
        kr.export_onnx(model, path, examples=[nothing])

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        kr.export_onnx(model, path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(path.name, b"there before")]


def test_file_is_replaced_by_one_with_the_permissions_of_a_new_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"there before")
    before = os.umask(0o027)
    try:
        kr.export_onnx(small_model(), path)
    finally:
        os.umask(before)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert opset_of(path) > 0


# What cannot be exported.


def quantized():
    model = small_model()
    model = keras.Sequential([model.input, model, layers.Flatten(), layers.Dense(3)])
    model.layers[-1].quantize("int8")
    return model


def half_precision_of_all():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return model_of(layers.Dense(2), shape=(2, 3))
    finally:
        keras.config.set_dtype_policy("float32")


def unknown_operation():
    x = keras.Input((4,))
    return keras.Model(x, ops.sort(layers.Dense(4)(x)) + ops.fft((x, x))[0])


REFUSED = {
    "quantized": (quantized, "`model` must not be quantized.*dense.*int8"),
    "half precision": (
        lambda: model_of(kr.ResidualBlock(4, dtype="mixed_bfloat16"), shape=shape_of()),
        "`model` must compute in float32.*residual_block.*mixed_bfloat16",
    ),
    "half precision of all": (half_precision_of_all, "Received: layer `dense.*mixed_bfloat16"),
    "unknown operation": (unknown_operation, "FFT"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_named(name, tmp_path):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        kr.export_onnx(make(), tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


@on_tensorflow
def test_unknown_opset_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`opset` must be .* Received: opset=99"):
        kr.export_onnx(small_model(), tmp_path / "model.onnx", opset=99)
    assert not [*tmp_path.iterdir()]


@not_on_tensorflow
def test_layer_that_no_other_process_can_import_is_named(tmp_path):
    class Local(Gated):
        pass

    with pytest.raises(ValueError, match=r"can import.*KERAS_BACKEND=tensorflow.*Local"):
        kr.export_onnx(model_of(Local(), shape=shape_of()), tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


@not_on_tensorflow
def test_layer_of_the_backend_alone_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)process of its own.*no_such_attribute"):
        kr.export_onnx(model_of(NotOnTensorFlow(), shape=shape_of()), tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


class NotOnTensorFlow(layers.Layer):
    def call(self, inputs):
        return inputs.no_such_attribute if keras.backend.backend() == "tensorflow" else inputs


@pytest.mark.parametrize("package", ["tensorflow", "tf2onnx", "onnx", "onnxruntime"])
def test_missing_package_is_named(package, tmp_path, monkeypatch):
    model = small_model()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install .*\[onnx\]"):
        kr.export_onnx(model, tmp_path / "model.onnx")
