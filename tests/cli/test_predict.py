"""What the best model of a search knows: pictures of any size come in, names come out."""

import csv
import io
import subprocess
import sys

import keras
import numpy as np
import pytest
from commands import QUICK, images, run, write_folder, write_npz
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


def predicted(model, folder, *arguments):
    path = folder / "model.keras"
    model.save(path)
    return run("predict", path, *arguments)


def averages(names, divisor=255, size=(4, 4), channels=3, background=255):
    """A model whose outputs are the means of the channels."""
    inputs = keras.Input((*size, channels))
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    return from_pictures(network, names, divisor, background)


def test_the_likeliest_classes_are_printed_first(tmp_path, capsys):
    Image.new("RGB", (9, 20), (51, 255, 0)).save(tmp_path / "a.png")
    assert predicted(averages(["x", "y", "z"]), tmp_path, tmp_path / "a.png", "--top", 2) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.png'}: y 1.0000, x 0.2000\n"


@pytest.mark.parametrize("divisor", [255, 65535, 1])
def test_a_picture_is_scaled_as_in_training(divisor, tmp_path, capsys):
    Image.new("L", (5, 5), 51).save(tmp_path / "a.png")
    assert predicted(averages([], divisor, channels=1), tmp_path, tmp_path / "a.png") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.png'}: 0.2\n"


def test_what_cannot_be_read_is_said_and_the_rest_predicted(tmp_path, capsys):
    folder = tmp_path / "new"
    (folder / "inner").mkdir(parents=True)
    Image.new("RGB", (3, 3)).save(folder / "inner" / "a.jpg")
    (folder / "damaged.png").write_bytes(b"\x89PNG")
    for name in ("notes.txt", ".hidden.png"):
        (folder / name).write_text("none")
    assert predicted(averages(["x", "y", "z"]), tmp_path, folder) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{folder / 'inner' / 'a.jpg'}: x 0.0000")
    (line,) = printed.err.splitlines()
    assert line.startswith(f"note: left out, {folder / 'damaged.png'}: no picture")


def test_a_transparent_picture_has_the_background_of_the_training(tmp_path, capsys):
    Image.new("RGBA", (3, 3), (255, 255, 255, 0)).save(tmp_path / "a.png")
    for background in (0, 51, 255):
        assert predicted(averages([], background=background), tmp_path, tmp_path / "a.png") == 0
        mean = f"{background / 255:g}"
        assert capsys.readouterr().out == f"{tmp_path / 'a.png'}: {mean}, {mean}, {mean}\n"


MISTAKES = {
    "no model": (lambda folder: ["none.keras"], "`MODEL` must be a file that exists"),
    "no picture": (lambda folder: [save(folder, averages("ab")), "none.png"], "none.png"),
    "no pictures": (lambda folder: [save(folder, averages("ab")), folder / "empty"], "hold pictur"),
    "any model": (lambda folder: [save(folder, averages("ab").layers[-2])], "best.keras of a sea"),
    "channels": (lambda folder: [save(folder, averages("ab", channels=5))], "must take pictures"),
}


def save(folder, model):
    model.save(folder / "model.keras")
    return folder / "model.keras"


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_a_line(arguments, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    given = arguments(tmp_path)
    given = given if len(given) == 2 else [*given, tmp_path / "a.png"]
    assert run("predict", *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_model_of_a_search_over_arrays_has_names_and_no_optimizer(tmp_path, capsys):
    x, y = images()
    names = np.array(["ant", "bee", "cow"])[y]
    assert (
        run("search", write_npz(tmp_path / "a.npz", x=x, y=names), *QUICK, "--out", tmp_path) == 0
    )
    model = keras.saving.load_model(tmp_path / "best.keras")
    assert not model.compiled
    assert model.layers[-1].names == ["ant", "bee", "cow"]
    assert model.input_shape == (None, None, None, 1)
    assert model.predict(x, verbose=0).shape == (30, 3)
