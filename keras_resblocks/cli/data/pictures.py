"""Folders of pictures: which files count, and what they show. Pillow reads and resizes them."""

import contextlib
import os
import re
import typing
import zlib

import numpy as np

from keras_resblocks.cli.data.batches import IN_MEMORY, Found, parallel
from keras_resblocks.cli.data.splits import PART_OF, PARTS, listed

SIZES = (32, 48, 64, 96, 128)
MOST_UNREADABLE = 1 / 3  # of all pictures
_SYSTEM = (  # beside what begins with a dot
    *("__pycache__", "__macosx", "@eadir", "$recycle.bin", "system volume information"),
    *("lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini"),
)
# Pictures that Pillow does not read by itself.
_UNREADABLE = (".heic", ".heif", ".jxl", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng")


class _File(typing.NamedTuple):
    """A picture, or a file with a `problem`, "" if it is no picture."""

    path: typing.Any
    problem: str | None
    mode: str = ""
    side: int = 0  # the shorter one
    is_transparent: bool = False
    content: str = ""


class Reader(typing.NamedTuple):
    """Reads a picture as integers up to `levels`, upright, antialiased, over a gray background."""

    shape: tuple
    levels: int  # 255 or 65535
    background: int  # the gray below transparent pictures

    def __call__(self, path):
        from PIL import Image, ImageOps

        height, width, channels = self.shape
        with Image.open(path) as image:
            image.load()
            with contextlib.suppress(Exception):  # damaged metadata
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits; Pillow cuts off what is above 255
                image = Image.fromarray(np.asarray(image, "float32") / 257)
            else:
                if image.has_transparency_data:
                    below = Image.new("RGBA", image.size, (*[self.background] * 3, 255))
                    image = Image.alpha_composite(below, image.convert("RGBA"))
                if image.mode not in ("1", "L"):
                    image = image.convert("RGB")  # Pillow turns not every mode to "L"
                image = image.convert("L" if channels == 1 else "RGB")
                image = image.convert("F") if self.levels > 255 else image
            pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        if pixels.dtype != "uint8":
            pixels = np.clip(np.rint(pixels * (self.levels / 255)), 0, self.levels)
            pixels = pixels.astype("uint8" if self.levels == 255 else "uint16")
        return np.broadcast_to(pixels.reshape(height, width, -1), self.shape)

    def attempt(self, path):
        """The picture, or why it cannot be read, a text."""
        try:
            return self(path)
        except Exception as error:  # a plugin of Pillow may raise any
            return _reason(error)


def read(folder, size, grayscale, say):
    """The pictures in a folder, as `Found`; the arguments are those of `load`."""
    if not folder.is_dir():
        raise ValueError(
            "`DATA` must be digits, a folder with a folder of images for each class, or an .npz "
            f"file. Received: {folder}, which does not exist or is another kind of file"
        )
    places, names = _find(folder, say)
    looked = parallel(_look, places)
    pictures = [file for file in looked if file.problem is None]
    reader = _reader(pictures, size, grayscale, say)
    is_kept = len(pictures) * np.prod(reader.shape) * (1 + (reader.levels > 255)) <= IN_MEMORY

    def attempt(file):  # all are read, as a damaged picture may begin well
        image = reader.attempt(file.path)
        return image if is_kept or isinstance(image, str) else None

    problems = {file.path: file.problem for file in looked if file.problem is not None}
    images = {}
    for file, image in zip(pictures, parallel(attempt, pictures)):
        (problems if isinstance(image, str) else images)[file.path] = image
    _check_readable(folder, problems, len(places), say)
    held = {part: {} for part in PARTS}
    for path in images:
        part, label = places[path]
        held[part][path] = label
    classes = sorted({places[path][1] for path in images})
    _check_classes(folder, classes, held, names, say)
    parts = {
        part: (
            [images[path] for path in labels] if is_kept else list(labels),
            np.array([classes.index(label) for label in labels.values()]),
        )
        for part, labels in held.items()
        if labels
    }
    contents = {_name(file.path, folder): file.content for file in pictures if file.path in images}
    return Found(
        parts,
        reader.shape,
        classes,
        "classification",
        reader.levels,
        contents,
        read=None if is_kept else reader,
        background=reader.background,
    )


def find(paths):
    """The paths of pictures among files and in folders, and why others of them are none, a dict."""
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise ValueError(f"`PICTURE` must be a file or a folder. Received: {listed(absent)}")
    places = [below for path in paths for below in (_below(path) if path.is_dir() else [path])]
    problems = {file.path: file.problem for file in parallel(_look, places)}
    kept = [path for path in places if problems[path] is None]
    return kept, {
        path: problem or "no picture"
        for path, problem in problems.items()
        if problem is not None and (problem or path in paths)
    }


def _find(folder, say):
    """The part and the class of each file below the folder of a class, and all classes."""
    tops = _entries(folder, is_folder=True)
    roots = {top: PART_OF[top.name.casefold()] for top in tops if top.name.casefold() in PART_OF}
    others = [top for top in tops if top not in roots and any(map(_is_named, _below(top)))]
    train = [top for top, part in roots.items() if part == "train"]
    has_classes = len(roots) > 1 and any(_entries(top, is_folder=True) for top in train)
    if not train or (others and not has_classes):  # they are classes of that name
        roots, others = {folder: "train"}, []
    loose = [path for root in {folder, *roots} for path in _entries(root, False) if _is_named(path)]
    if others or loose:
        names = listed(_name(path, folder) for path in (*others, *loose))
        say(f"left out, in no folder of a class: {names}")
    tops = [(top, part) for root, part in roots.items() for top in _entries(root, True)]
    places = {path: (part, top.name) for top, part in tops for path in _below(top)}
    return places, {top.name for top, _ in tops}


def _entries(folder, is_folder):
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and path.name.casefold() not in _SYSTEM
        if (path.is_dir() if is_folder else path.is_file() or not path.exists())  # a broken link
    ]


def _below(folder, above=()):
    real = os.path.realpath(folder)
    if real not in above:  # a link to a folder above has no end
        yield from _entries(folder, is_folder=False)
        for inner in _entries(folder, is_folder=True):
            yield from _below(inner, (*above, real))


def _look(path):
    """What the first bytes of a file tell."""
    from PIL import Image

    try:
        with open(path, "rb") as file:
            content = f"{os.fstat(file.fileno()).st_size} {zlib.crc32(file.read(2**16)):08x}"
            file.seek(0)
            with Image.open(file) as image:
                about = image.mode, min(image.size), image.has_transparency_data
                return _File(path, _refusal(image), *about, content)
    except Exception as error:  # a plugin of Pillow may raise any
        is_picture = _is_named(path) or isinstance(error, PermissionError)
        return _File(path, _reason(error) if is_picture else "")


def _refusal(image):
    """Why Pillow cannot tell all that a picture shows; None if it can."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        return None
    if mode in ("I", "F", "LAB"):
        return f"mode {mode}, which has no known black and white: save it with 8 or 16 bits"
    is_cut = any(
        tile.codec_name == "SGI16" or re.match(r"\W*[A-Za-z]+;16[BLN]", str(tile.args))
        for tile in image.tile[:1]
    )
    return "16 bits a channel, of which Pillow reads 8: save it with 8" if is_cut else None


def _is_named(path):
    """Whether a file is named as a picture."""
    from PIL import Image

    return path.suffix.lower() in {*_UNREADABLE, *Image.registered_extensions()}


def _reason(error):
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return "no picture that Pillow reads" if "cannot identify" in text else text.split("\n")[0]


def _reader(files, size, grayscale, say):
    """What reads all pictures alike."""
    if size is None:
        median = np.median([file.side for file in files]) if files else 0
        size = max([size for size in SIZES if size <= median], default=SIZES[0])
    is_gray = grayscale or all(file.mode[0] in "1LI" and file.mode != "LAB" for file in files)
    is_deep = is_gray and any(file.mode[0] == "I" for file in files)
    transparent = [file.path for file in files if file.is_transparent]
    sample = transparent[:: 1 + len(transparent) // 100]
    shown = [seen for seen in parallel(_shown, sample) if seen is not None]
    over_white, over_black = np.sum(shown, axis=0) if shown else (0, 0)
    color = "white" if over_white >= over_black else "black"
    if shown:
        say(f"pictures with transparency are shown over {color}: {len(transparent)}")
    levels = 65535 if is_deep else 255
    shape = (size, size, 1 if is_gray else 3)
    return Reader(shape, levels, 255 if color == "white" else 0)


def _shown(path):
    """How much can be seen of a picture over white, and over black; None if it is opaque."""
    from PIL import Image

    with contextlib.suppress(Exception), Image.open(path) as image:  # listed when it is read
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"), "float32")
        gray = np.asarray(rgba.convert("RGB").convert("L"), "float32")
        if alpha.min() < 255:
            return np.mean(alpha * (255 - gray)), np.mean(alpha * gray)
    return None


def _check_readable(folder, problems, count, say):
    others = [_name(path, folder) for path, problem in problems.items() if not problem]
    damaged = [f"{_name(path, folder)} ({why})" for path, why in problems.items() if why]
    if others:
        say(f"left out, no pictures: {listed(others)}")
    if damaged:
        said = f"{len(damaged)} of {count - len(others)} pictures cannot be read: "
        said += listed(damaged, 10)
        if len(damaged) > MOST_UNREADABLE * (count - len(others)):
            raise ValueError(f"`DATA` must hold pictures. Received: {folder}, where {said}")
        say(f"left out, {said}")


def _check_classes(folder, classes, held, names, say):
    if len(classes) < 2:
        inner = f". Did you mean {folder / classes[0]}?" if classes else ""
        raise ValueError(
            "`DATA` must hold a folder of images for each of two or more classes. "
            f"Received: {folder}, with images in {classes[0] if classes else 'no folder'}{inner}"
        )
    if not held["train"]:
        raise ValueError(f"`DATA` must hold pictures to train with. Received: none in {folder}")
    if names - set(classes):
        say(f"left out, classes without a picture: {listed(sorted(names - set(classes)))}")
    for part, labels in held.items():
        absent = sorted(set(classes) - set(labels.values()))
        if labels and absent:
            say(f"classes without a picture in {part}: {listed(absent)}")


def _name(path, folder):
    return path.relative_to(folder).as_posix()
