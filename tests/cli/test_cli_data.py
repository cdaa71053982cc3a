"""What is read as images and classes, and what is refused."""

import json

import numpy as np
import pytest
from commands import images, write_folder, write_npz
from PIL import Image

from keras_resblocks.cli import data


def test_digits_are_those_of_scikit_learn():
    loaded = data.load("digits", seed=3)
    sizes = [len(loaded.x), len(loaded.x_val), len(loaded.x_test)]
    assert sizes == [1079, 359, 359]
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


def damaged_images(folder):
    for path in (write_folder(folder) / "dark").iterdir():
        path.write_bytes(path.read_bytes()[:20])
    next((folder / "grey").iterdir()).write_bytes(b"")
    return folder


def loose_images(folder):
    for path in write_folder(folder / "images", classes=("a",)).glob("*/*"):
        path.rename(folder / path.name)
    return folder


def folder_in_a_folder(folder):
    write_folder(folder / "inner")
    return folder


def parts_without_classes(folder):
    for name in ("train", "test"):
        write_folder(folder / name, classes=("a",))
        for path in (folder / name / "a").iterdir():
            path.rename(folder / name / path.name)
        (folder / name / "a").rmdir()
    return folder


def no_training(folder):
    write_folder(folder / "test")
    (folder / "train" / "dark").mkdir(parents=True)
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
        (damaged_images, r"11 of 30 pictures cannot be read: dark/1\.png \("),
        (loose_images, "with images in no folder"),
        (folder_in_a_folder, "with images in inner. Did you mean .*inner?"),
        (parts_without_classes, "with images in no folder"),
        (no_training, "pictures to train with"),
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


def test_a_task_of_a_folder_is_classification(tmp_path):
    with pytest.raises(ValueError, match="`task` must be classification for a folder"):
        data.load(tmp_path, task="regression")


# Labels, and the task, the classes and the numbers of the first three that they are read as.
LABELS = {
    "numbers": (Y, None, "classification", ["0", "1", "2"], [0, 1, 2]),
    "names": (np.array(["c", "a", "b"])[Y], None, "classification", ["a", "b", "c"], [2, 0, 1]),
    "bytes": (np.array([b"c", b"a", b"b"])[Y], None, "classification", list("abc"), [2, 0, 1]),
    "column": (Y[:, None], None, "classification", ["0", "1", "2"], [0, 1, 2]),
    "booleans": (Y > 0, None, "classification", ["False", "True"], [0, 1, 1]),
    "one-hot": (np.eye(3)[Y], None, "classification", ["0", "1", "2"], [0, 1, 2]),
    "floats that count": (Y + 1.0, None, "classification", ["1", "2", "3"], [0, 1, 2]),
    "floats": (Y / 2, None, "regression", [], [0, 0.5, 1]),
    "whole floats": (Y * 10.0, None, "regression", [], [0, 10, 20]),
    "whole floats, told": (
        Y * 10.0,
        "classification",
        "classification",
        ["0", "10", "20"],
        [0, 1, 2],
    ),
    "numbers, told": (Y, "regression", "regression", [], [0, 1, 2]),
    "several": (
        np.eye(3)[Y] * 0.5,
        None,
        "regression",
        [],
        [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
    ),
    "multi-hot": (np.tri(3)[Y], None, "multilabel", list("012"), [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
}


@pytest.mark.parametrize(("y", "told", "task", "classes", "first"), LABELS.values(), ids=LABELS)
def test_labels_tell_the_task(y, told, task, classes, first, tmp_path):
    path = write_npz(tmp_path / "a.npz", x=X, y=y, x_test=X, y_test=y)
    loaded = data.load(path, task=told, say=lambda sentence: None)
    assert (loaded.task, loaded.classes) == (task, classes)
    assert loaded.y_test[:3].tolist() == first
    assert loaded.outputs == (len(classes) or np.size(first[0]))


NAMES = {
    "keras": ("x_train", "y_train", "x_test", "y_test"),
    "medmnist": ("train_images", "train_labels", "test_images", "test_labels"),
    "capitals": ("X", "Y", "X_test", "Y_test"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_arrays_have_the_names_that_people_give_them(names, tmp_path):
    arrays = {**dict(zip(names, (X, Y, X[:6], Y[:6]))), "other": np.zeros(3)}
    loaded = data.load(write_npz(tmp_path / "a.npz", **arrays))
    assert [len(x) for x in (loaded.x, loaded.x_val, loaded.x_test)] == [24, 6, 6]


CHANNELS_FIRST = [((3, 32, 40), (32, 40, 3)), ((1, 8, 9, 10), (8, 9, 10, 1))]


@pytest.mark.parametrize(("shape", "turned"), CHANNELS_FIRST)
def test_channels_come_last(shape, turned, tmp_path):
    x, said = np.zeros((30, *shape), "uint8"), []
    x[:, -1] = 255
    loaded = data.load(write_npz(tmp_path / "a.npz", x=x, y=Y), say=said.append)
    assert loaded.x.shape[1:] == turned
    assert (loaded.x[..., -1] == 1).all()
    assert "channels first" in said[0]


@pytest.mark.parametrize(
    ("x", "highest"),
    [(X.astype("int64"), X.max() / 255), (X.astype("uint16") * 257, X.max() / 255), (X > 100, 1)],
)
def test_integers_are_scaled(x, highest, tmp_path):
    loaded = data.load(write_npz(tmp_path / "a.npz", x=x, y=Y))
    assert np.isclose(max(loaded.x.max(), loaded.x_val.max(), loaded.x_test.max()), highest)


def test_rare_classes_are_in_as_many_parts_as_they_have_images(tmp_path):
    y = np.array([0] * 14 + [1] * 12 + [2] * 3 + [3] * 2 + [4])
    said = []
    x = np.zeros((32, 4, 4), "uint8")
    loaded = data.load(write_npz(tmp_path / "a.npz", x=x, y=y), say=said.append)
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
    order = [np.concatenate([batches[i][1] for i in range(len(batches))])]
    batches.on_epoch_end()
    order.append(np.concatenate([batches[i][1] for i in range(len(batches))]))
    assert (order[0] != order[1]).any()
    assert all(sorted(y) == sorted(whole.y) for y in order)
    assert len(batches[4][0]) == 2


def add(folder):
    (folder / "dark" / "new.png").write_bytes((folder / "dark" / "1.png").read_bytes())


def delete(folder):
    (folder / "dark" / "1.png").unlink()


def swap(folder):
    (folder / "dark" / "1.png").write_bytes((folder / "bright" / "0.png").read_bytes())


def rename(folder):
    (folder / "dark").rename(folder / "dusk")


CHANGES = {
    "new": (add, r"1 new \(dark/new\.png\)"),
    "gone": (delete, r"1 gone \(dark/1\.png\)"),
    "content": (swap, r"1 changed \(dark/1\.png\)"),
    "class": (rename, r"10 new .*10 gone .*classes \['bright', 'dusk', 'grey'\], not"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_other_pictures_are_told_from_those_known(change, message, tmp_path):
    first = data.load(write_folder(tmp_path))
    known = json.loads(json.dumps(first.record))
    again = data.load(tmp_path, known=known, seed=5)
    assert (again.x_test == first.x_test).all()
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        data.load(tmp_path, known=known)


def test_other_arrays_are_told_from_those_known(tmp_path):
    path = write_npz(tmp_path / "a.npz", x=X, y=Y)
    known = data.load(path).record
    write_npz(path, x=X, y=np.roll(Y, 1))
    with pytest.raises(ValueError, match=r"1 changed \(y\)"):
        data.load(path, known=known)
