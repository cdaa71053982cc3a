"""What is read as images and classes, and what is refused."""

import numpy as np
import pytest
from commands import images, write_folder, write_npz

from keras_resblocks.cli import data


def test_digits_are_those_of_scikit_learn():
    loaded = data.load("digits", seed=3)
    sizes = [len(loaded.x), len(loaded.x_val), len(loaded.x_test)]
    assert sizes == [1079, 359, 359]
    assert loaded.x.shape[1:] == (8, 8, 1)
    assert loaded.x.dtype == "float32"
    assert (loaded.x.min(), loaded.x.max(), loaded.classes) == (0, 1, 10)


@pytest.mark.parametrize(
    ("channels", "options", "shape"),
    [
        (3, {"size": 8}, (8, 8, 3)),
        (1, {"size": 8}, (8, 8, 1)),
        (3, {"size": 4, "grayscale": True}, (4, 4, 1)),
        (3, {}, (32, 32, 3)),
    ],
)
def test_a_folder_is_read_resized_and_scaled(channels, options, shape, tmp_path):
    loaded = data.load(write_folder(tmp_path, channels), **options)
    assert loaded.x.shape == (18, *shape)
    assert loaded.classes == 3
    for x, y in (loaded[:2], loaded[2:4], loaded[4:]):
        assert np.allclose(x.mean(axis=(1, 2, 3)), (60 * y + 10) / 255, atol=0.02)


def test_a_folder_of_gray_and_color_is_read_in_color(tmp_path):
    write_folder(tmp_path, 1, ("a", "b"))
    write_folder(tmp_path, 3, ("c", "d"))
    assert data.load(tmp_path, size=8).x.shape[1:] == (8, 8, 3)


def test_hidden_files_are_no_images(tmp_path):
    (write_folder(tmp_path) / "dark" / ".thumbs").write_text("")
    assert len(data.load(tmp_path).x) == 18


X, Y = images()


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        (X, 1 / 255),
        (X[..., 0], 1 / 255),
        (X.astype("float64"), 1),
        (X.astype("float16"), 1),
        (X[:, :, None], 1 / 255),
    ],
)
@pytest.mark.parametrize("y", [Y, Y[:, None], np.array(["c", "a", "b"])[Y], 10 * Y - 5])
def test_arrays_of_many_kinds_are_read(x, scale, y, tmp_path):
    loaded = data.load(write_npz(tmp_path / "a.npz", x=x, y=y))
    assert loaded.x.dtype == "float32"
    assert loaded.x.shape[1:] == (x.shape[1:] if x.ndim > 3 else (*x.shape[1:], 1))
    assert sorted(np.unique(loaded.y)) == [0, 1, 2]
    assert loaded.x.max() <= 255 * scale
    assert loaded.x_val.max() > 130 * scale


PARTS = {
    "nothing": ((), [18, 6, 6]),
    "val": (("val",), [24, 30, 6]),
    "test": (("test",), [24, 6, 30]),
    "both": (("val", "test"), [30, 30, 30]),
}


@pytest.mark.parametrize(("given", "sizes"), PARTS.values(), ids=PARTS)
def test_only_what_is_missing_is_split_off(given, sizes, tmp_path):
    parts = {f"{name}_{part}": array for part in given for name, array in (("x", X), ("y", Y))}
    loaded = data.load(write_npz(tmp_path / "a.npz", x=X, y=Y, **parts))
    assert [len(x) for x in (loaded.x, loaded.x_val, loaded.x_test)] == sizes
    for part in given:
        assert (getattr(loaded, f"y_{part}") == Y).all()


def test_splits_are_stratified_and_of_the_seed(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    one, again, other = (data.load(path, seed=seed) for seed in (0, 0, 1))
    for y in (one.y, one.y_val, one.y_test):
        assert len(set(np.bincount(y))) == 1
    assert (one.x_test == again.x_test).all()
    assert (one.x_test != other.x_test).any()


BAD_ARRAYS = {
    "no y": ({"x": X}, r"must hold the arrays x, y. Missing: y. It holds: x"),
    "no arrays": ({"images": X}, r"Missing: x, y. It holds: images"),
    "half a part": ({"x": X, "y": Y, "x_val": X}, "Missing: y_val"),
    "lengths": ({"x": X, "y": Y[1:]}, r"`y` must be the class of each of the 30 images of `x`"),
    "one-hot": ({"x": X, "y": np.eye(3)[Y]}, "`y` must be the class"),
    "real classes": ({"x": X, "y": Y.astype(float)}, "`y` must be the class"),
    "integers": ({"x": X.astype("int64"), "y": Y}, "uint8 or as floating point.*int64"),
    "vectors": ({"x": X[:, :, 0, 0], "y": Y}, r"shape \(30, 6\)"),
    "not finite": ({"x": np.where(X > 100, np.nan, X), "y": Y}, "`x` must be finite"),
    "sizes": ({"x": X, "y": Y, "x_val": X[:, 1:], "y_val": Y}, "`x_val` must have images like"),
    "one class": ({"x": X, "y": 0 * Y}, "two or more classes"),
    "too few": ({"x": X[:4], "y": Y[:4]}, "too few images"),
    "objects": ({"x": X, "y": np.array([None] * 30)}, "of plain arrays"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_what_is_wrong_with_arrays_is_said(arrays, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        data.load(write_npz(tmp_path / "a.npz", **arrays))


def not_there(folder):
    return folder / "images"


def no_array_file(folder):
    return folder / "a.npz"


def text_file(folder):
    path = folder / "a.npz"
    path.write_text("x, y")
    return path


def cut_short(folder):
    path = write_npz(folder / "a.npz")
    path.write_bytes(path.read_bytes()[:500])
    return path


def one_class(folder):
    return write_folder(folder, classes=("only",))


def no_class(folder):
    return folder


def not_an_image(folder):
    (write_folder(folder) / "dark" / "notes.txt").write_text("dark ones")
    return folder


def damaged_image(folder):
    path = write_folder(folder) / "dark" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    return folder


def deep_image(folder):
    from PIL import Image

    path = write_folder(folder) / "dark" / "deep.png"
    Image.fromarray(np.zeros((4, 4), "uint16")).save(path)
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (not_there, "which does not exist"),
        (no_array_file, "must be a file that exists"),
        (text_file, "must be an .npz file"),
        (cut_short, "must be an .npz file"),
        (one_class, "two or more classes.*with images in only"),
        (no_class, "two or more classes.*with images in no folder"),
        (not_an_image, "must hold images alone.*notes.txt"),
        (damaged_image, r"1\.png"),
        (deep_image, r"8 bits a channel.*deep\.png"),
    ],
)
def test_what_is_wrong_with_files_is_said(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        data.load(make(tmp_path))


@pytest.mark.parametrize("options", [{"size": 8}, {"grayscale": True}])
@pytest.mark.parametrize("source", ["digits", "images.npz"])
def test_options_of_folders_are_for_folders(source, options):
    with pytest.raises(ValueError, match="are for a folder"):
        data.load(source, **options)
