"""State files that survive a kill at any moment, and one damaged copy.

Each file has a twin beside it (`trial.json` and `trial.json.twin`), written first; both are
replaced as a whole. So at any moment one of the two is complete, whatever happened to the other.
"""

import json
import os
import pathlib
import warnings

TWIN = ".twin"


def write_json(path, content):
    """Writes an object as JSON: at any moment the file has the old content or the new."""
    text = json.dumps(content)
    for target in (f"{path}{TWIN}", path):
        _replace(target, text)


def _replace(path, text):
    half_written = f"{path}.{os.getpid()}.tmp"
    with open(half_written, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(half_written, path)


def read_json(path):
    """The object in a file."""
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def is_intact(path):
    """Whether the file is there and holds JSON."""
    try:
        read_json(path)
    except (OSError, ValueError):
        return False
    return True


def read_intact(path):
    """The object in a file, or in its twin if the file is damaged; None if both are, or missing."""
    return next((read_json(p) for p in (path, f"{path}{TWIN}") if is_intact(p)), None)


def repair(folder, pattern):
    """Restores each damaged or missing file whose twin is intact; removes half-written ones.

    Args:
        folder: a `pathlib.Path`.
        pattern: a glob of the files, `"*/trial.json"`.

    Raises:
        ValueError: if both are damaged; the message names the file and what to do.
    """
    for path in folder.glob(f"{pattern}.*tmp"):
        path.unlink()
    twins = {path.with_name(path.name.removesuffix(TWIN)) for path in folder.glob(pattern + TWIN)}
    for path in sorted({*folder.glob(pattern), *twins}):
        if is_intact(path):
            continue
        twin = path.with_name(path.name + TWIN)
        if not is_intact(twin):
            raise ValueError(
                f"{str(path)!r} must hold the state of a search, but it is damaged, and "
                f"{str(twin)!r} is missing or damaged as well. Put a copy in its place, or begin "
                "anew with another `project_name` or with `overwrite=True`."
            )
        _replace(path, twin.read_text(encoding="utf-8"))
        warnings.warn(f"{str(path)!r} was damaged, and restored from its twin.", stacklevel=2)
