"""What the best model of a search knows: pictures of any size come in, names come out."""

import csv
import io
import subprocess
import sys

import keras
import numpy as np
import pytest
from commands import QUICK, run, write_folder
from PIL import Image

import keras_resblocks as kr
from keras_resblocks.training.pictures import FitSize, from_pictures

TRAINING = ("--trials", 1, "--epochs", 12, "--learning-rates", 0.03, "--batch-size", 8)


def write_new(folder, sizes=((6, 5), (40, 33), (12, 30), (70, 9), (8, 8))):
    """Pictures of other sizes, each of one gray; the paths, and the names of their classes."""
    folder.mkdir()
    names = ["bright", "dark", "grey"]
    paths = []
    for number, (height, width) in enumerate(sizes):
        gray = 10 + 60 * (number % 3)
        paths.append(folder / f"{number}.png")
        Image.new("RGB", (width, height), (gray,) * 3).save(paths[-1])
    return paths, [names[number % 3] for number in range(len(sizes))]


def test_new_pictures_get_the_right_names_in_a_fresh_process_and_by_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    photos, out = write_folder(tmp_path / "photos", count=20), tmp_path / "out"
    search = ("search", photos, "--size", 8, *QUICK, *TRAINING, "--onnx", "--out", out)
    assert run(*search) == 0
    paths, names = write_new(tmp_path / "new")
    command = [sys.executable, "-m", "keras_resblocks", "predict", out, tmp_path / "new", "--csv"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    header, *rows = csv.reader(io.StringIO(printed))
    assert header == ["picture", "prediction", "bright", "dark", "grey"]
    assert [(row[0], row[1]) for row in rows] == [(str(p), n) for p, n in zip(paths, names)]
    session = onnxruntime.InferenceSession(out / "best.onnx")
    (port,) = session.get_inputs()
    assert port.type == "tensor(uint8)"
    for path, row in zip(paths, rows):
        pixels = np.asarray(Image.open(path))[None]
        (outputs,) = session.run(None, {port.name: pixels})
        np.testing.assert_allclose(outputs[0], np.array(row[2:], float), atol=1e-3)


@pytest.fixture
def network():
    return kr.ResNet18(input_shape=(9, 7, 3), classes=3)


def test_a_model_takes_bytes_of_any_size_as_pillow_resizes_them(network, tmp_path):
    model = from_pictures(network, ["a", "b", "c"])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].names == ["a", "b", "c"]
    rng = np.random.default_rng(0)
    for height, width in ((9, 7), (40, 31), (5, 4), (9, 60)):
        picture = rng.integers(0, 256, (height, width, 3), "uint8")
        resized = np.asarray(Image.fromarray(picture).resize((7, 9), Image.Resampling.BILINEAR))
        fitted = keras.ops.convert_to_numpy(FitSize((9, 7))(picture[None].astype("float32")))
        np.testing.assert_allclose(fitted[0], resized, atol=1.01)  # which are rounded twice
        np.testing.assert_allclose(
            loaded.predict(picture[None], verbose=0),
            network.predict(resized[None] / np.float32(255), verbose=0),
            atol=0.01,
        )


@pytest.mark.parametrize(("divisor", "dtype"), [(255, "uint8"), (65535, "uint16"), (1, "float32")])
def test_a_model_takes_the_numbers_that_pictures_hold(divisor, dtype, network):
    model = from_pictures(network, ["a", "b", "c"], divisor)
    assert model.inputs[0].dtype == dtype
    x = np.random.default_rng(0).uniform(size=(2, 9, 7, 3)).astype("float32")
    x = np.rint(x * divisor).astype(dtype) if divisor > 1 else x
    expected = network.predict(x / np.float32(divisor), verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_volumes_keep_their_size():
    inputs = keras.Input((4, 5, 6, 1))
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling3D()(inputs))
    model = from_pictures(network, ["a"])
    assert model.input_shape == (None, 4, 5, 6, 1)
    assert model.predict(np.full((1, 4, 5, 6, 1), 51, "uint8"), verbose=0) == pytest.approx(0.2)


def averages(names=(), divisor=255, channels=3, background=255):
    """A model whose outputs are the means of the channels."""
    inputs = keras.Input((4, 4, channels))
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    return from_pictures(network, names, divisor, background)


GRAY, CLEAR = ("L", (5, 5), 51), ("RGBA", (3, 3), (255, 255, 255, 0))
# Arguments of `averages`, a picture, and what is printed: it is scaled and shown as in training.
PREDICTED = {
    "the likeliest": ({"names": "xyz"}, ("RGB", (9, 20), (51, 255, 0)), "y 1.0000, x 0.2000"),
    "8 bits": ({"channels": 1}, GRAY, "0.2"),
    "16 bits": ({"channels": 1, "divisor": 65535}, GRAY, "0.2"),
    "numbers": ({"channels": 1, "divisor": 1}, GRAY, "0.2"),
    "over black": ({"background": 0}, CLEAR, "0, 0, 0"),
    "over gray": ({"background": 51}, CLEAR, "0.2, 0.2, 0.2"),
    "over white": ({}, CLEAR, "1, 1, 1"),
}


@pytest.mark.parametrize(("arguments", "picture", "printed"), PREDICTED.values(), ids=PREDICTED)
def test_a_picture_is_predicted_in_a_line(arguments, picture, printed, tmp_path, capsys):
    averages(**arguments).save(tmp_path / "model.keras")
    Image.new(*picture).save(tmp_path / "a.png")
    assert run("predict", tmp_path / "model.keras", tmp_path / "a.png", "--top", 2) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.png'}: {printed}\n"


def test_what_cannot_be_read_is_said_and_the_rest_predicted(tmp_path, capsys):
    folder = tmp_path / "new"
    (folder / "inner").mkdir(parents=True)
    Image.new("RGB", (3, 3)).save(folder / "inner" / "a.jpg")
    (folder / "damaged.png").write_bytes(b"\x89PNG")
    for name in ("notes.txt", ".hidden.png"):
        (folder / name).write_text("none")
    averages("xyz").save(tmp_path / "model.keras")
    assert run("predict", tmp_path / "model.keras", folder) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{folder / 'inner' / 'a.jpg'}: x 0.0000")
    (line,) = printed.err.splitlines()
    assert line.startswith(f"note: left out, {folder / 'damaged.png'}: no picture")


MISTAKES = {
    "no model": (None, "a.png", "`MODEL` must be a file that exists"),
    "no picture": (averages, "none.png", "none.png"),
    "no pictures": (averages, "empty", "must hold pictures"),
    "any model": (lambda: averages().layers[-2], "a.png", "must be the best.keras of a search"),
    "a model with a layer of one's own": (
        lambda: keras.Sequential([keras.Input((2,)), type("Own", (keras.layers.Identity,), {})()]),
        *("a.png", "must be the best.keras of a search"),
    ),
    "channels": (lambda: averages(channels=5), "a.png", "must take pictures"),
}


@pytest.mark.parametrize(("make", "picture", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_a_line(make, picture, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    if make:
        make().save(tmp_path / "model.keras")
    assert run("predict", tmp_path / "model.keras", tmp_path / picture) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
