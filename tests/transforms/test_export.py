"""Keras's own exports work on models of these blocks."""

import keras
import numpy as np
import pytest
from trained import images, network, outputs_of, shrunk

import keras_resblocks as kr

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras exports to it from TensorFlow"
)

ARGUMENTS = [
    {},
    {"activation": "elu", "padding": "same", "attention": "squeeze_excite"},
    {"preactivation": True, "drop_path_rate": 0.2},
]
cases = pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)


def assert_close(received, expected):
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch would need torch_xla")
@cases
def test_saved_model(arguments, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    # JAX cannot trace the gradients, which are saved too, where sizes are open.
    is_open = keras.backend.backend() == "tensorflow"
    spatial = (None, None) if is_open else (47, 33)
    model = network(shrunk("resnet18"), input_shape=(*spatial, 3), classes=4, **arguments)
    model.export(str(tmp_path / "model"), verbose=False)
    served = tensorflow.saved_model.load(str(tmp_path / "model"))
    for batch, sizes in ((1, (32, 32)), (3, (47, 33))):
        x = images(model, batch, sizes)
        assert_close(served.serve(x).numpy(), outputs_of(model, x)[0])


@on_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("folds", [False, True], ids=["as it is", "folded"])
@cases
@pytest.mark.filterwarnings("ignore:.*batch normalizations are left")
def test_litert(arguments, folds, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    model = network(shrunk("resnet50d"), input_shape=(33, 32, 3), classes=4, **arguments)
    exported = kr.fold_batch_norm(model) if folds else model
    exported.export(str(tmp_path / "model.tflite"), format="litert", verbose=False)
    interpreter = tensorflow.lite.Interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    x = images(model, 1)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    received = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert_close(received, outputs_of(model, x)[0])
