"""What is read as images and classes, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from commands import images, sizes_of, write_files, write_folder, write_npz
from PIL import Image

from keras_resblocks.cli import data


@pytest.fixture
def load(tmp_path):
    """Loads arrays from a file; what is said about them joins the list `said`."""

    def load(*, said=None, **arrays):
        options = {name: arrays.pop(name) for name in ("seed", "task") if name in arrays}
        say = [].append if said is None else said.append
        return data.load(write_npz(tmp_path / "a.npz", **arrays), say=say, **options)

    return load


def test_digits_are_those_of_scikit_learn():
    loaded = data.load("digits", seed=3)
    assert sizes_of(loaded) == [1079, 359, 359]
    assert loaded.x.shape[1:] == (8, 8, 1)
    assert loaded.x.dtype == "float32"
    assert (loaded.x.min(), loaded.x.max(), loaded.classes) == (0, 1, list("0123456789"))


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
    assert loaded.classes == ["bright", "dark", "grey"]
    for x, y in (loaded[:2], loaded[2:4], loaded[4:6]):
        assert np.allclose(x.mean(axis=(1, 2, 3)), (60 * y + 10) / 255, atol=0.02)


def test_a_folder_of_gray_and_color_is_read_in_color(tmp_path):
    write_folder(tmp_path, 1, ("a", "b"))
    write_folder(tmp_path, 3, ("c", "d"))
    assert data.load(tmp_path, size=8).x.shape[1:] == (8, 8, 3)


X, Y = images()


@pytest.mark.parametrize(
    ("x", "highest"),
    [
        (X, X.max() / 255),
        (X[..., 0], X.max() / 255),
        (X[:, :, None], X.max() / 255),
        (X.astype("float64"), X.max()),
        (X.astype("float16"), X.max()),
        (X.astype("int64"), X.max() / 255),
        (X.astype("uint16") * 257, X.max() / 255),
        (X > 100, 1),
        ((X > 100).astype("uint8"), 1),
    ],
)
def test_arrays_of_many_kinds_are_read_and_integers_scaled(x, highest, load):
    loaded = load(x=x, y=Y)
    assert loaded.x.dtype == "float32"
    assert loaded.x.shape[1:] == (x.shape[1:] if x.ndim > 3 else (*x.shape[1:], 1))
    assert np.isclose(max(loaded.x.max(), loaded.x_val.max(), loaded.x_test.max()), highest)
    assert loaded.x_val.max() > 0.9 * highest


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ((), [18, 6, 6]),
        (["val"], [24, 30, 6]),
        (["test"], [24, 6, 30]),
        (["val", "test"], [30] * 3),
    ],
)
def test_only_what_is_missing_is_split_off(given, sizes, load):
    parts = {f"{name}_{part}": array for part in given for name, array in (("x", X), ("y", Y))}
    loaded = load(x=X, y=Y, **parts)
    assert sizes_of(loaded) == sizes
    assert all((getattr(loaded, f"y_{part}") == Y).all() for part in given)


def test_splits_are_stratified_and_of_the_seed(load):
    one, again, other = (load(x=X, y=Y, seed=seed) for seed in (0, 0, 1))
    for y in (one.y, one.y_val, one.y_test):
        assert len(set(np.bincount(y))) == 1
    assert (one.x_test == again.x_test).all()
    assert (one.x_test != other.x_test).any()


BAD_ARRAYS = {
    "no y": ({"x": X}, r"named x and y, .* Missing: y. It holds: x"),
    "no arrays": ({"pixels": X}, r"Missing: x, y. It holds: pixels"),
    "half a part": ({"x": X, "y": Y, "x_val": X}, "Missing: y_val"),
    "lengths": ({"x": X, "y": Y[1:]}, r"`y` must be the label of each of the 30 images of `x`"),
    "two of a part": ({"x": X, "y": Y, "x_train": X}, "two arrays for the same part"),
    "deep labels": ({"x": X, "y": np.zeros((30, 2, 2))}, "`y` must be the label"),
    "kinds of labels": (
        {"x": X, "y": Y, "x_val": X, "y_val": Y.astype(str)},
        "`y` must be .* alike in all parts",
    ),
    "labels that are not finite": ({"x": X, "y": np.where(Y, 0.5, np.nan)}, "finite numbers"),
    "integers": ({"x": X.astype("int64") + 200, "y": Y}, "integers of 8 bits.*int64"),
    "scales": (
        {"x": X / 255, "y": Y, "x_val": X.astype(float), "y_val": Y},
        "scaled alike in all parts",
    ),
    "types": ({"x": X, "y": Y, "x_test": X / 255, "y_test": Y}, "scaled alike in all parts"),
    "vectors": ({"x": X[:, :, 0, 0], "y": Y}, r"shape \(30, 6\)"),
    "not finite": ({"x": np.where(X > 100, np.nan, X), "y": Y}, "`x` must be finite"),
    "sizes": ({"x": X, "y": Y, "x_val": X[:, 1:], "y_val": Y}, "`x_val` must have images like"),
    "one class": ({"x": X, "y": 0 * Y}, "two or more classes"),
    "too few": ({"x": X[:4], "y": Y[:4]}, "too few images"),
    "objects": ({"x": X, "y": np.array([None] * 30)}, "of plain arrays"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_what_is_wrong_with_arrays_is_said(arrays, message, load):
    with pytest.raises(ValueError, match=message):
        load(**arrays)


def picture(path):
    Image.new("RGB", (6, 5)).save(path)


def text(path):
    path.write_text("x, y")


def cut_picture(path):
    picture(path)
    path.write_bytes(path.read_bytes()[:20])


def cut_arrays(path):
    write_npz(path)
    path.write_bytes(path.read_bytes()[:500])


def damaged_arrays(path):
    np.savez_compressed(path, x=X, y=Y)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 50 + content[150:])


def one_array(path):
    with open(path, "wb") as file:
        np.save(file, X)


PICTURES = [f"{label}/{i}.png" for label in ("bright", "dark") for i in range(10)]
# Files with what writes them, what of them is loaded, and what is said.
BAD_FILES = {
    "nothing": ({}, "images", "which does not exist"),
    "no file": ({}, "a.npz", "must be a file that exists"),
    "text": ({"a.npz": text}, "a.npz", "must be an .npz file"),
    "no file, in capitals": ({}, "A.NPZ", "must be a file that exists"),
    "one array": ({"a.npz": one_array}, "a.npz", "must be an .npz file"),
    "damaged arrays": ({"a.npz": damaged_arrays}, "a.npz", "must be an .npz file"),
    "cut short": ({"a.npz": cut_arrays}, "a.npz", "must be an .npz file"),
    "one class": (dict.fromkeys(PICTURES[:10], picture), "", "two or more .*images in bright"),
    "no class": ({}, "", "two or more classes.*with images in no folder"),
    "damaged": (
        {"dark/9.png": text, **dict.fromkeys(PICTURES[:9], picture)}
        | dict.fromkeys(PICTURES[9:-1], cut_picture),
        *("", r"11 of 20 pictures cannot be read: bright/9\.png \("),
    ),
    "loose": (dict.fromkeys(["0.png", "1.png"], picture), "", "with images in no folder"),
    "deeper": (
        {f"inner/{name}": picture for name in PICTURES},
        *("", "with images in inner. Did you mean .*inner?"),
    ),
    "parts without classes": (
        dict.fromkeys(["train/0.png", "train/1.png", "test/0.png"], picture),
        *("", "with images in no folder"),
    ),
    "no training": (
        {"train/dark/notes.txt": text, **{f"test/{name}": picture for name in PICTURES}},
        *("", "pictures to train with"),
    ),
}


@pytest.mark.parametrize(("files", "source", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_wrong_with_files_is_said(files, source, message, tmp_path):
    write_files(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path / source)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        *((source, {"size": 8}, "are for a folder") for source in ("digits", "images.npz")),
        *((source, {"grayscale": True}, "are for a folder") for source in ("digits", "images.npz")),
        (".", {"task": "regression"}, "`task` must be classification for a folder"),
    ],
)
def test_options_of_other_data_are_an_error(source, options, message):
    with pytest.raises(ValueError, match=message):
        data.load(source, **options)


# Labels, and the task, the classes and the numbers of the first three that they are read as.
LABELS = {
    "numbers": (Y, None, "classification", ["0", "1", "2"], [0, 1, 2]),
    "any numbers": (10 * Y - 5, None, "classification", ["-5", "5", "15"], [0, 1, 2]),
    "names": (np.array(["c", "a", "b"])[Y], None, "classification", ["a", "b", "c"], [2, 0, 1]),
    "bytes": (np.array([b"c", b"a", b"b"])[Y], None, "classification", list("abc"), [2, 0, 1]),
    "column": (Y[:, None], None, "classification", ["0", "1", "2"], [0, 1, 2]),
    "booleans": (Y > 0, None, "classification", ["False", "True"], [0, 1, 1]),
    "one-hot": (np.eye(3)[Y], None, "classification", ["0", "1", "2"], [0, 1, 2]),
    "floats that count": (Y + 1.0, None, "classification", ["1", "2", "3"], [0, 1, 2]),
    "floats": (Y / 2, None, "regression", [], [0, 0.5, 1]),
    "whole floats": (Y * 10.0, None, "regression", [], [0, 10, 20]),
    "whole floats, told": (Y * 10.0, *["classification"] * 2, ["0", "10", "20"], [0, 1, 2]),
    "numbers, told": (Y, "regression", "regression", [], [0, 1, 2]),
    "several": (np.eye(3)[Y] * 0.5, None, "regression", [], (np.eye(3) / 2).tolist()),
    "multi-hot": (np.tri(3)[Y], None, "multilabel", list("012"), [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
}


@pytest.mark.parametrize(("y", "told", "task", "classes", "first"), LABELS.values(), ids=LABELS)
def test_labels_tell_the_task(y, told, task, classes, first, load):
    loaded = load(x=X, y=y, x_test=X, y_test=y, task=told)
    assert (loaded.task, loaded.classes) == (task, classes)
    assert loaded.y_test[:3].tolist() == first
    assert loaded.outputs == (len(classes) or np.size(first[0]))


NAMES = {
    "keras": ("x_train", "y_train", "x_test", "y_test"),
    "medmnist": ("train_images", "train_labels", "test_images", "test_labels"),
    "capitals": ("X", "Y", "X_test", "Y_test"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_arrays_have_the_names_that_people_give_them(names, load):
    loaded = load(**dict(zip(names, (X, Y, X[:6], Y[:6]))), other=np.zeros(3))
    assert sizes_of(loaded) == [24, 6, 6]


CHANNELS_FIRST = [((3, 32, 40), (32, 40, 3)), ((1, 8, 9, 10), (8, 9, 10, 1))]


@pytest.mark.parametrize(("shape", "turned"), CHANNELS_FIRST)
def test_channels_come_last(shape, turned, load):
    x, said = np.zeros((30, *shape), "uint8"), []
    x[:, -1] = 255
    loaded = load(x=x, y=Y, said=said)
    assert loaded.x.shape[1:] == turned
    assert (loaded.x[..., -1] == 1).all()
    assert "channels first" in said[0]


@pytest.mark.parametrize(("divisor", "is_told"), [(1, True), (255, False)])
def test_floats_that_are_not_scaled_are_told(divisor, is_told, load):
    load(x=X.astype("float32") / divisor, y=Y, said=(said := []))
    assert any("left as they are" in note for note in said) == is_told


def test_rare_classes_are_in_as_many_parts_as_they_have_images(load):
    y = np.array([0] * 14 + [1] * 12 + [2] * 3 + [3] * 2 + [4])
    said = []
    loaded = load(x=np.zeros((32, 4, 4), "uint8"), y=y, said=said)
    counts = [np.bincount(part, minlength=5).tolist() for part in (loaded.y, loaded.y_val)]
    assert counts == [[8, 8, 1, 1, 1], [3, 2, 1, 1, 0]]
    assert said == ["classes of one image, which is for training only: 4"]


@pytest.mark.parametrize("limit", [0, 3000])
@pytest.mark.parametrize("deep", [False, True])
def test_large_data_are_read_in_batches(limit, deep, tmp_path, monkeypatch):
    write_folder(tmp_path, 1 if deep else 3)
    if deep:
        Image.fromarray(np.full((6, 5), 40000, "uint16")).save(tmp_path / "dark" / "1.png")
    whole = data.load(tmp_path, size=4)
    monkeypatch.setattr(data.pictures, "IN_MEMORY", limit)
    monkeypatch.setattr(data, "IN_MEMORY", limit)
    parts = data.load(tmp_path, size=4)
    assert isinstance(parts.x, data.Images)
    assert np.allclose(parts.x[:], whole.x, atol=1e-6)
    assert (parts.x[3] == parts.x[[3]][0]).all()
    batches = data.Batches(parts.x, parts.y, 4, seed=1)
    order = []
    for _ in range(2):
        order.append(np.concatenate([batches[i][1] for i in range(len(batches))]))
        batches.on_epoch_end()
    assert (order[0] != order[1]).any()
    assert all(sorted(y) == sorted(whole.y) for y in order)
    assert len(batches[4][0]) == 2


CHANGES = {
    "new": (lambda dark: shutil.copy(dark / "1.png", dark / "new.png"), r"1 new \(dark/new\.png\)"),
    "gone": (lambda dark: (dark / "1.png").unlink(), r"1 gone \(dark/1\.png\)"),
    "content": (
        lambda dark: shutil.copy(dark.with_name("bright") / "0.png", dark / "1.png"),
        r"1 changed \(dark/1\.png\)",
    ),
    "class": (
        lambda dark: dark.rename(dark.with_name("dusk")),
        r"10 new .*10 gone .*classes \['bright', 'dusk', 'grey'\], not",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_other_pictures_are_told_from_those_known(change, message, tmp_path):
    first = data.load(write_folder(tmp_path))
    known = json.loads(json.dumps(first.record))
    again = data.load(tmp_path, known=known, seed=5)
    assert (again.x_test == first.x_test).all()
    change(tmp_path / "dark")
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path, known=known)


def test_other_arrays_are_told_from_those_known(tmp_path):
    path = write_npz(tmp_path / "a.npz", x=X, y=Y)
    known = data.load(path).record
    write_npz(path, x=X, y=np.roll(Y, 1))
    with pytest.raises(ValueError, match=r"1 changed \(y\)"):
        data.load(path, known=known)
