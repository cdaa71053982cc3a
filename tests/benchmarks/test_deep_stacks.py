import keras
import pytest
from helpers import run_benchmark

pytestmark = pytest.mark.slow


def test_table_has_a_row_for_each_contender():
    printed = run_benchmark("benchmarks.deep_stacks", "--networks", "ResNet-110")
    header, _, *rows = (line.strip("| ").split(" | ") for line in printed.splitlines())
    backend = keras.backend.backend()
    assert [row[:3] for row in rows] == [["ResNet-110", backend, c] for c in ("blocks", "flat")]
    assert all(len(row) == len(header) for row in rows)
