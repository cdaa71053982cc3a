import keras
import pytest
from helpers import run_benchmark
from reports import tables_of

pytestmark = pytest.mark.slow


def test_report_says_what_became_of_each_trial(tmp_path):
    tiny = "--trials 2 --epochs 1 --pixels 8"
    run_benchmark("benchmarks.search_on_gpu", *tiny.split(), "--out", tmp_path)
    (path,) = tmp_path.glob("search_on_gpu_*.md")
    ((_, ((row,),)),) = tables_of(path.read_text(encoding="utf-8")).items()
    assert row["backend"] == keras.backend.backend()
    assert (row["completed"], row["out of memory"]) == ("1", "1")
    before, after = (float(row[name].split()[0].replace(",", "")) for name in ("before", "after"))
    assert 0 < before < after
    assert 0 <= float(row["accuracy"]) <= 1
