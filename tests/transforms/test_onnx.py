"""What `export_onnx` writes is what the model computes, whatever the backend."""

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    DATA_FORMATS,
    covering,
    label,
    make_block,
    model_of,
    random_array,
    registered_function,
    run_python,
    shape_of,
)
from keras import layers
from trained import images, network, outputs_of, shrunk, trained

import keras_resblocks as kr
from keras_resblocks.layers import ConvUnit, Pooling
from keras_resblocks.transforms import onnx_operations

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def run(path, *inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs)))


def nodes_of(path):
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def assert_exports(model, path, *inputs):
    """Exports, and compares once more with what is in the file."""
    path = path / "model.onnx"
    example = keras.tree.pack_sequence_as(model.input, inputs)
    kr.export_onnx(model, path, examples=[example])
    for ours, theirs in zip(outputs_of(model, example), run(path, *inputs), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4 * np.abs(ours).max())
    return path


# Networks.


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_one_file_takes_any_batch_and_any_size(padding, data_format, tmp_path):
    shape = (None, None, 3) if data_format == "channels_last" else (3, None, None)
    model = network(
        shrunk("resnet18"),
        input_shape=shape,
        activation="elu",  # negative values at the border of the max pooling
        padding=padding,
        data_format=data_format,
        classes=5,
    )
    batches = [images(model, 1, (64, 50)), images(model, 5, (47, 33)), images(model, 5, (64, 33))]
    kr.export_onnx(model, tmp_path / "model.onnx", examples=batches[:1])
    for x in batches:
        (ours,), (theirs,) = outputs_of(model, x), run(tmp_path / "model.onnx", x)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4 * np.abs(ours).max())


QUICK = ("resnet50v2_keras", "resnet50d", "resnext50_32x4d", "seresnet50", "resnet20_cifar")


@pytest.mark.parametrize("name", QUICK)
def test_distinct_blocks_of_published_networks(name, tmp_path):
    model = network(shrunk(name), input_shape=(65, 48, 3), classes=4, activation="elu")
    assert_exports(model, tmp_path, images(model))


@pytest.mark.slow
@pytest.mark.parametrize("name", kr.list_models())
def test_published_networks(name, tmp_path):
    model = network(name, input_shape=(None, None, 3), classes=4)
    assert_exports(model, tmp_path, images(model, 2, (96, 81)))


def test_nothing_is_left_to_be_merged(tmp_path):
    model = network(shrunk("resnet50"), input_shape=(32, 32, 3))
    nodes = nodes_of(assert_exports(model, tmp_path, images(model)))
    convolutions = 1 + 3 * 8 + 3  # the first stage has as many channels as the stem
    for op_type, count in {"Conv": convolutions, "Relu": 25, "Add": 8, "Transpose": 1}.items():
        assert nodes.count(op_type) == count
    assert not {"BatchNormalization", "Pad", "Mul", "Sub"} & {*nodes}


def test_auxiliary_heads(tmp_path):
    model = network("googlenet_torchvision", input_shape=(96, 96, 3), classes=4, aux_heads=True)
    assert_exports(model, tmp_path, images(model))


# Blocks.

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
    "rank": (1, 2, 3),
    "data_format": DATA_FORMATS,
    "normalization": tuple(NORMALIZATIONS),
    "activation": tuple(ACTIVATIONS),
    "attention": (None, "squeeze_excite", "efficient_channel"),
    "shortcut": ("projection", "zero_pad"),
    "preactivation": (False, True),
    "padding": ("symmetric", "same"),
    "strides": (1, 2),
}


@pytest.mark.parametrize("case", covering(OPTIONS), ids=label)
def test_blocks(case, tmp_path):
    templates = {"normalization": NORMALIZATIONS, "activation": ACTIVATIONS}
    options = {name: templates.get(name, {}).get(value, value) for name, value in case.items()}
    kind, rank, strides = (options.pop(name) for name in ("kind", "rank", "strides"))
    shape = shape_of(rank, 4, case["data_format"], spatial=(7, 6, 5))
    model = trained(model_of(make_block(kind, 8, strides, **options), shape=shape))
    assert_exports(model, tmp_path, random_array(shape))


POOLINGS = [
    *(("max", {"padding": padding}) for padding in Pooling.paddings),
    *(("avg", {"padding": padding}) for padding in ("symmetric", "valid", "ceil")),
    ("max", {"pad_value": 0.0}),
    ("max", {"pad_value": -0.5}),
    ("avg", {"pad_value": 0.0}),
]


@pytest.mark.parametrize(("kind", "options"), POOLINGS, ids=str)
@pytest.mark.parametrize("size", [None, 8, 9])
def test_poolings_of_negative_values(kind, options, size, tmp_path):
    x = inputs = keras.Input((size, size, 3))
    for layer in (layers.ELU(), Pooling(kind, 3, 2, **options)):
        x = layer(x)
    images = random_array((2, 9, 9, 3)) if size is None else random_array((2, size, size, 3))
    assert_exports(keras.Model(inputs, x), tmp_path, images - 2.0)


@pytest.mark.parametrize("dilation_rate", [1, 2])
@pytest.mark.parametrize("kernel_size", [2, 3, 4])
@pytest.mark.parametrize("padding", ConvUnit.paddings)
def test_convolutions(padding, kernel_size, dilation_rate, tmp_path):
    unit = ConvUnit(
        6, kernel_size, 3 - dilation_rate, padding=padding, dilation_rate=dilation_rate, groups=2
    )
    x = keras.Input((None, None, 4))
    model = trained(keras.Model(x, unit(x)))
    assert_exports(model, tmp_path, random_array((2, 11, 12, 4)))


# Keras's own layers, and models of one's own.

# Functions that ONNX has no short word for.
UNKNOWN = {"glu", "sparsemax", "sparse_plus", "sparse_sigmoid", "threshold"}


def activations():
    found = vars(keras.activations).items()
    return {
        name: function
        for name, function in found
        if callable(function) and name not in ("get", "serialize", "deserialize")
    }


def test_activations(tmp_path):
    x = keras.Input((5, 4))
    names = [name for name in activations() if name not in UNKNOWN]
    model = keras.Model(x, [layers.Activation(name)(x) for name in names])
    assert len(names) > 20
    assert_exports(model, tmp_path, 2 * random_array((3, 5, 4)))


LAYERS = {
    "depthwise": lambda: layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(3, 3, 2, activation="relu"),
    "normalization": lambda: layers.Normalization(mean=[1, 2, 3, 4], variance=[4, 3, 2, 1]),
    "zero_padded_max": lambda: keras.Sequential(
        [layers.ZeroPadding2D(((1, 2), (0, 1))), layers.MaxPooling2D(3, 2)]
    ),
    "zero_padded_convolution": lambda: keras.Sequential(
        [layers.ZeroPadding2D(((1, 2), (0, 1))), layers.Conv2D(3, 3, activation="gelu")]
    ),
    "average": lambda: layers.AveragePooling2D(2),
    "global_max": lambda: layers.GlobalMaxPooling2D(),
    "kept": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "dense": lambda: layers.Dense(3, activation="tanh"),
    "softmax": lambda: layers.Softmax(),
    "softmax_of_axis_1": lambda: layers.Softmax(axis=1),
    "relu6": lambda: layers.ReLU(max_value=6.0),
    "leaky": lambda: layers.LeakyReLU(0.3),
    "rescaling": lambda: layers.Rescaling(0.5, offset=-1.0),
    "layer_norm": lambda: layers.LayerNormalization(axis=[1, 3]),
    "reshape": lambda: layers.Reshape((-1, 2)),
    "permute": lambda: layers.Permute((3, 1, 2)),
    "batch_norm": lambda: layers.BatchNormalization(),
    "batch_norm_of_axis_2": lambda: layers.BatchNormalization(axis=2),
    "dropout": lambda: layers.SpatialDropout2D(0.5),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("before", [lambda: layers.Conv2D(4, 1), lambda: layers.Identity()])
def test_stock_layers(name, before, tmp_path):
    shape = shape_of(2, 4, spatial=(6, 7))
    model = trained(model_of(before(), LAYERS[name](), layers.Flatten(), shape=shape))
    assert_exports(model, tmp_path, random_array(shape))


def test_causal_convolution(tmp_path):
    layer = layers.Conv1D(4, 3, padding="causal", dilation_rate=2)
    model = trained(model_of(layer, shape=shape_of(1)))
    assert_exports(model, tmp_path, random_array(shape_of(1)))


def test_flatten_of_channels_first_maps(tmp_path):
    shape = shape_of(2, 4, "channels_first")
    stack = [
        layers.Conv2D(3, 1, data_format="channels_first"),
        layers.Flatten(data_format="channels_first"),
        layers.Dense(2),
    ]
    assert_exports(trained(model_of(*stack, shape=shape)), tmp_path, random_array(shape))


def test_operations_and_several_inputs_and_outputs(tmp_path):
    a, b = keras.Input((6, 6, 4), name="a"), keras.Input((4,), name="b")
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3, padding="same")])
    ops = keras.ops
    y = inner(a) * b[:, None, None, :] + inner(a) / 2.0 - ops.sqrt(ops.abs(a))
    outputs = {
        "y": y,
        "sliced": y[:, 1:-1:2, ..., 1:3],
        "mean": ops.mean(y, axis=-1),
        "last": y[:, -1],
        "joined": layers.Concatenate(axis=1)([y, a]),
        "moved": ops.transpose(ops.moveaxis(y, 1, 2), (0, 2, 1, 3)),
        "product": ops.matmul(ops.mean(y, axis=(1, 2)), np.ones((4, 2), "float32")),
        "padded": ops.pad(y, ((0, 0), (1, 0), (0, 0), (0, 2))),
        "most": ops.maximum(ops.max(y, axis=3, keepdims=True), a),
    }
    model = trained(keras.Model({"a": a, "b": b}, outputs))
    path = assert_exports(model, tmp_path, random_array((2, 6, 6, 4)), random_array((2, 4)))
    session = onnxruntime.InferenceSession(str(path))
    assert [tensor.name for tensor in session.get_inputs()] == ["a", "b"]


def test_layer_of_ones_own(tmp_path):
    class Gated(layers.Layer):
        def build(self, shape):
            self.gain = self.add_weight(shape=(shape[-1],), name="gain")
            self.block = kr.ResidualBlock(4)
            self.block.build(shape)

        def call(self, inputs):
            return self.block(inputs) * keras.ops.sigmoid(inputs * self.gain)

    model = trained(model_of(Gated(), shape=shape_of()))
    assert_exports(model, tmp_path, random_array(shape_of()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "DenseNet121", "EfficientNetB0", "Xception"])
def test_keras_applications(name, tmp_path):
    model = trained(getattr(keras.applications, name)(input_shape=(96, 96, 3), weights=None))
    assert_exports(model, tmp_path, images(model))


# The file.


def test_jax_needs_no_tensorflow(tmp_path):
    if keras.backend.backend() != "jax":
        pytest.skip("a test of JAX")
    run_python(
        """
        import sys

        sys.modules["tensorflow"] = None

        import keras_resblocks as kr

        spec = kr.ResNetSpec("residual", (1, 1), 4, classes=3)
        kr.export_onnx(kr.create_model(spec, input_shape=(None, None, 3)), sys.argv[1])
        """,
        tmp_path / "model.onnx",
    )
    (outputs,) = run(tmp_path / "model.onnx", random_array((2, 40, 31, 3)))
    np.testing.assert_allclose(outputs.sum(axis=-1), np.ones(2), rtol=1e-5)


def small_model():
    return trained(model_of(kr.ResidualBlock(4), shape=shape_of()))


def test_what_differs_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"there before")
    plain = onnx_operations.Writer.same
    monkeypatch.setattr(
        onnx_operations.Writer,
        "same",
        lambda g, op_type, *args, **more: plain(g, "Abs", *args) if op_type == "Relu" else None,
    )
    with pytest.raises(RuntimeError, match="differs by"):
        kr.export_onnx(small_model(), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"there before"


def test_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"there before")

    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            kr.export_onnx(small_model(), path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(path.name, b"there before")]
    kr.export_onnx(small_model(), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    onnx.checker.check_model(str(path), full_check=True)


def test_unknown_operation_is_named(tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, keras.ops.cumsum(x, axis=1))
    with pytest.raises(ValueError, match="Cumsum"):
        kr.export_onnx(model, tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


def test_layer_that_is_not_made_of_operations_is_named(tmp_path):
    class Opaque(layers.Layer):
        def call(self, inputs):
            return inputs.opaque

        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape)

    model = model_of(Opaque(name="mine"), shape=shape_of())
    with pytest.raises(ValueError, match=r"made of `keras.ops`.*`mine`"):
        kr.export_onnx(model, tmp_path / "model.onnx")


def test_other_precisions_are_refused(tmp_path):
    model = model_of(kr.ResidualBlock(4, dtype="mixed_bfloat16"), shape=shape_of())
    with pytest.raises(ValueError, match="compute in float32"):
        kr.export_onnx(model, tmp_path / "model.onnx")
