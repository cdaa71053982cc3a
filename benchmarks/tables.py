"""What a report is made of: statistics of repeated measurements, and tables in Markdown."""

import contextlib
import pathlib
import platform
import re
import statistics
from importlib import metadata

RESULTS = pathlib.Path(__file__).parent / "results"


def spread(values, form=".4f"):
    """The mean, the least and the most."""
    return [format(f(values), form) for f in (statistics.mean, min, max)]


def paired_ratios(ours, theirs):
    """The ratio of each turn to the one in the same round, which met the same disturbances."""
    return [a / b for a, b in zip(ours, theirs)]


def median_and_range(values, form=".3g"):
    """As text: `1.5 (1.2 - 1.7)`."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} - {max(values):{form}})"


def table(columns, rows):
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def slug(text):
    """`text` as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def versions(packages):
    """As text: Python's, and those of the packages that are installed."""
    known = []
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            known.append(f"{package} {metadata.version(package)}")
    return ", ".join([f"Python {platform.python_version()}", *known])


def publish(paragraphs, path):
    """Prints a report and writes it."""
    text = "\n\n".join(paragraphs) + "\n"
    print(f"\n{text}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
