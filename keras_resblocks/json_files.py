"""JSON files that are replaced as a whole: a kill at any moment leaves the old one or the new."""

import json
import os
import pathlib


def write(path, content):
    """Writes an object as JSON; arrays become lists."""
    half_written = f"{path}.{os.getpid()}.tmp"
    with open(half_written, "w", encoding="utf-8") as file:
        json.dump(content, file, default=_plain)
        file.flush()
        os.fsync(file.fileno())
    os.replace(half_written, path)


def read(path):
    """The object in a file; None if it is missing or damaged."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else str(value)
