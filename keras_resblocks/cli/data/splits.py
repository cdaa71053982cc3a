"""Which image is for training, which for validation, which for the test."""

import numpy as np

SHARE = 0.2  # of all images, for the validation and for the test each
PARTS = ("train", "val", "test")
PART_OF = {
    **{part: part for part in PARTS},
    **{"training": "train", "valid": "val", "validation": "val", "testing": "test"},
}


def draw(labels, missing, names, seed, say):
    """The number in `PARTS` of the part of each image, with the `missing` parts drawn by class.

    Without `names` of classes, the labels are others, and the draw is not stratified.
    """
    classes = labels if names else np.zeros(len(labels), int)
    counts = np.bincount(classes)
    # A fifth of each class, rounded so that the sum is a fifth of all.
    quotas = np.floor(SHARE * counts).astype(int)
    largest = np.argsort(quotas - SHARE * counts, kind="stable")
    quotas[largest[: round(SHARE * len(classes)) - quotas.sum()]] += 1
    rng = np.random.default_rng(seed)
    split = np.zeros(len(classes), int)
    for label, quota in enumerate(quotas):
        rows = rng.permutation(np.flatnonzero(classes == label))
        # A rare class has one image in each part, as far as it goes: first in the smallest.
        for part in sorted(missing, key=lambda part: (split == PARTS.index(part)).sum()):
            taken = max(0, min(max(quota, 1), len(rows) - 1))
            split[rows[:taken]] = PARTS.index(part)
            rows = rows[taken:]
    if missing and names and 1 in counts:
        single = [names[label] for label in np.flatnonzero(counts == 1)]
        say(f"classes of one image, which is for training only: {listed(single)}")
    if not {PARTS.index(part) for part in missing} <= {*split.tolist()}:
        raise ValueError(
            "`DATA` has too few images to split: it must have two or more of some class for the "
            f"validation, three for the test. Received: {len(classes)} images, "
            f"{max(counts, default=0)} of a class at most"
        )
    return split


def check_same(record, known):
    """Raises a `ValueError` that says what changed, if data are not those of a record."""
    new, old = record["contents"], known["contents"]
    changes = {
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
        "changed": [name for name in new if new[name] != old.get(name, new[name])],
    }
    said = [f"{len(names)} {how} ({listed(names)})" for how, names in changes.items() if names]
    for name in ("classes", "task", "shape"):
        if record[name] != known[name]:
            said.append(f"{name} {record[name]}, not {known[name]}"[:200])
    if said:
        raise ValueError(
            f"`DATA` must be what the search began with. Received: {'; '.join(said)}. Put it back, "
            "or begin a new search with another `--out`"
        )


def listed(names, most=5):
    """Names in a line, not all of many."""
    names = list(names)
    rest = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*map(str, names[:most]), *rest])
