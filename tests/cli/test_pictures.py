"""Pictures of every kind that Pillow writes are read as Pillow shows them, or refused by name."""

import struct
import zlib

import numpy as np
import pytest
from commands import sizes_of, write_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keras_resblocks.cli import data

MODES = (
    *("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"),
    *("La", "RGBa", "I", "I;16", "I;16B", "F"),
)
Image.init()
SUFFIXES = {kind: suffix for suffix, kind in Image.EXTENSION.items() if kind in Image.SAVE}
WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


def picture(mode, width, height, seed):
    """A picture of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), "uint8")
    if mode in ("LAB", "HSV"):
        return Image.frombytes(mode, (width, height), noise[..., :3].tobytes())
    if mode.startswith("I;16"):
        return Image.frombytes(mode, (width, height), noise[..., :2].tobytes())
    via = {"La": "LA", "PA": "P", "F": "I"}.get(mode, "RGBA" if mode == "RGBa" else "RGB")
    image = Image.fromarray(noise)  # with transparency
    return (image if mode in ("RGBA", "RGBa", "LA") else image.convert(via)).convert(mode)


def shown(path, size, background):
    """What Pillow shows, upright and antialiased: gray or color in [0, 1]."""
    with Image.open(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        pixels = Image.fromarray(np.asarray(upright, "float32") / 65535).resize((size, size), 2)
        return np.asarray(pixels)[..., None]
    rgba = upright.convert("RGB" if upright.mode in ("CMYK", "YCbCr", "HSV") else "RGBA")
    flat = Image.new("RGB", rgba.size, (background,) * 3)
    flat.paste(rgba, mask=rgba.getchannel("A") if rgba.mode == "RGBA" else None)
    return np.asarray(flat.resize((size, size), Image.Resampling.BILINEAR)) / 255


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    mode=st.sampled_from(MODES),
    kind=st.sampled_from(sorted(SUFFIXES)),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    orientation=st.integers(1, 8),
    size=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_a_picture_is_read_as_pillow_shows_it(
    mode, kind, shape, orientation, size, seed, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("pictures")
    names = [f"{label}/{i}{SUFFIXES[kind]}" for label in "ab" for i in range(3)]

    def save(path):
        exif = Image.Exif()  # which AVIF changes
        exif[0x0112] = orientation
        options = {"exif": exif} if kind in WITH_EXIF else {}
        picture(mode, *shape, seed).save(path, kind, **options)

    try:
        write_files(folder, dict.fromkeys(names, save))
    except (OSError, ValueError, SystemError, KeyError):
        return  # Pillow does not write it
    refused = ""
    try:
        read = data.load(folder, size=size, say=lambda sentence: None)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert f"6 of 6 pictures cannot be read: {names[0]}" in refused
        return
    expected = [shown(folder / names[0], size, background) for background in (0, 255)]
    assert min(np.abs(read.x[0] - one).max() for one in expected) <= 2 / 255


def gray(*levels, size=(40, 40)):
    """Saves a picture of stripes of these gray levels."""

    def save(path):
        rows = np.repeat(np.array(levels), -(-size[1] // len(levels)))[: size[1]]
        Image.fromarray(np.tile(rows[:, None], size[0]).astype("uint8")).save(path)

    return save


def ink(level):
    """Saves a drawing of this gray level on nothing."""

    def save(path):
        pixels = np.full((40, 40, 4), level, "uint8")
        pixels[:20, :, 3] = 0
        pixels[20:, :, 3] = 255
        Image.fromarray(pixels).save(path)

    return save


def deep_color(path):
    """Saves a PNG file of 16 bits a channel, which Pillow cannot write."""
    rows = (b"\0" + bytes(range(48)) * 5,) * 40
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(rows)),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n"
    for name, part in parts.items():
        checked = name + part
        content += struct.pack(">I", len(part)) + checked + struct.pack(">I", zlib.crc32(checked))
    path.write_bytes(content)


def of_each_class(*saves):
    """The pictures of the classes `a` and `b`, alike."""
    return {f"{label}/{i}.png": save for label in "ab" for i, save in enumerate(saves)}


def nothing(path):
    path.touch()


def unread(names, of):
    listed = ", ".join(f"{name} (no picture that Pillow reads)" for name in names)
    return f"left out, {len(names)} of {of} pictures cannot be read: {listed}"


DEEP = "16 bits a channel, of which Pillow reads 8: save it with 8"
# Files beside sixteen pictures, how many are read then, the classes, and what is said.
FOLDERS = {
    "hidden": (
        dict.fromkeys([".git/a/1.png", "a/.thumbs/1.png", "a/.x.png"], gray(0)),
        *(16, "ab", []),
    ),
    "system": (
        {"a/Thumbs.db": nothing, "__MACOSX/a/1.png": gray(0), "b/desktop.ini": nothing},
        *(16, "ab", []),
    ),
    "notes": ({"a/notes.txt": nothing}, 16, "ab", ["left out, no pictures: a/notes.txt"]),
    "no name of a picture": (
        {"a/image": lambda path: gray(0)(f"{path}.png") or path.with_suffix(".png").rename(path)},
        *(17, "ab", []),
    ),
    "deeper": ({"a/2024/may/1.png": gray(0), "a/2025/1.png": gray(0)}, 18, "ab", []),
    "damaged": (
        {"a/x.jpg": nothing, "b/y.heic": nothing, "b/1.png": lambda path: path.write_bytes(b"x")},
        *(15, "ab", [unread(["a/x.jpg", "b/1.png", "b/y.heic"], 18)]),
    ),
    "a link to nothing": (
        {"a/x.png": lambda path: path.symlink_to("gone.png")},
        *(16, "ab"),
        ["left out, 1 of 17 pictures cannot be read: a/x.png (No such file or directory)"],
    ),
    "16 bits": (
        {"a/x.png": deep_color},
        *(16, "ab", [f"left out, 1 of 17 pictures cannot be read: a/x.png ({DEEP})"]),
    ),
    "loose": ({"x.png": gray(0)}, 16, "ab", ["left out, in no folder of a class: x.png"]),
    "empty class": (
        {"c/notes.txt": nothing},
        *(16, "ab"),
        ["left out, no pictures: c/notes.txt", "left out, classes without a picture: c"],
    ),
    "one of a class": (
        {"c/1.png": gray(0)},
        *(17, "abc", ["classes of one image, which is for training only: c"]),
    ),
    "a class named train": (
        {"train/1.png": gray(0), "train/2.png": gray(0)},
        *(18, ["a", "b", "train"], []),
    ),
}


@pytest.mark.parametrize(("files", "count", "classes", "sentences"), FOLDERS.values(), ids=FOLDERS)
def test_the_files_that_count_are_pictures_below_a_class(
    files, count, classes, sentences, tmp_path
):
    said = []
    write_files(tmp_path, of_each_class(*[gray(90)] * 8) | files)
    read = data.load(tmp_path, size=8, say=said.append)
    assert sum(sizes_of(read)) == count
    assert read.classes == list(classes)
    assert said == sentences


# Pictures of a class in each folder, and those of both classes that are read in each part.
SPLITS = {
    "all": ({"train": 6, "val": 2, "test": 1}, [12, 4, 2]),
    "no test": ({"train": 6, "Validation": 2}, [10, 4, 2]),
    "no validation": ({"Train": 6, "test": 2}, [10, 2, 4]),
    "other words": ({"Training": 6, "testing": 2}, [10, 2, 4]),
    "train alone": ({"train": 6}, [8, 2, 2]),
    "two of each class": ({"train": 2}, [2, 1, 1]),
}


@pytest.mark.parametrize(("folders", "sizes"), SPLITS.values(), ids=SPLITS)
def test_folders_of_a_split_are_the_split(folders, sizes, tmp_path):
    for part, count in folders.items():
        write_files(tmp_path / part, of_each_class(*[gray(90)] * count))
    read = data.load(tmp_path, size=8)
    assert sizes_of(read) == sizes
    assert read.classes == ["a", "b"]


def test_a_test_without_classes_is_left_out(tmp_path):
    write_files(tmp_path / "train", of_each_class(*[gray(90)] * 8))
    write_files(tmp_path / "test", {f"{i}.png": gray(90) for i in range(6)})
    said = []
    read = data.load(tmp_path, size=8, say=said.append)
    assert read.classes == ["a", "b"]
    assert sizes_of(read) == [10, 3, 3]
    assert said == [
        "left out, in no folder of a class: test/0.png, test/1.png, test/2.png, test/3.png, "
        "test/4.png, and 1 more"
    ]


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(9, 9)], 32),
        ([(70, 64)], 64),
        ([(70, 63)], 48),
        ([(4000, 300)], 128),
        ([(99, 96), (20, 20), (99, 97)], 96),
    ],
)
def test_the_size_is_that_of_most_pictures(sizes, chosen, tmp_path):
    pictures = [gray(90, size=sizes[i % len(sizes)]) for i in range(9)]
    write_files(tmp_path, of_each_class(*pictures))
    read = data.load(tmp_path)
    assert read.x.shape[1:] == (chosen, chosen, 1)
    assert f"{chosen} x {chosen} pixels, 1 channel; train 10, val 4, test 4" in read.described()


@pytest.mark.parametrize(("level", "color"), [(0, "white"), (60, "white"), (255, "black")])
def test_what_is_transparent_shows_what_leaves_more_to_see(level, color, tmp_path):
    said = []
    write_files(tmp_path, of_each_class(*[ink(level)] * 8))
    read = data.load(tmp_path, size=40, say=said.append)
    assert said == [f"pictures with transparency are shown over {color}: 16"]
    assert np.allclose(read.x[0, :20], 1 if color == "white" else 0)
    assert np.allclose(read.x[0, 20:], level / 255)


def test_shrinking_averages(tmp_path):
    write_files(tmp_path, of_each_class(*[gray(*[0, 255] * 20)] * 8))
    read = data.load(tmp_path, size=10)
    assert np.allclose(read.x, 0.5, atol=0.1)
