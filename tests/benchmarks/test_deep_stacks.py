import os
import pathlib
import subprocess
import sys

import keras
import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "deep_stacks.py"

pytestmark = pytest.mark.slow


def test_table_has_a_row_for_each_contender():
    backend = keras.backend.backend()
    process = subprocess.run(
        [sys.executable, SCRIPT, "--networks", "ResNet-110", "--backends", backend],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert process.returncode == 0, process.stderr
    header, _, *rows = (line.strip("| ").split(" | ") for line in process.stdout.splitlines())
    assert [row[:3] for row in rows] == [["ResNet-110", backend, c] for c in ("blocks", "flat")]
    assert all(len(row) == len(header) for row in rows)
