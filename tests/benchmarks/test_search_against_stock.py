import keras
import pytest
from helpers import run_benchmark
from reports import tables_of

TINY = "--settings few --seeds 1 --seconds 4 --epochs 1 --repeats 1 --trials 1 --overhead-epochs 2"

pytestmark = pytest.mark.slow


def test_report_has_the_tables_of_both_parts(tmp_path):
    printed = run_benchmark("benchmarks.search_against_stock", *TINY.split(), "--out", tmp_path)
    (path,) = tmp_path.glob("search_*.md")
    report = path.read_text(encoding="utf-8")
    assert printed.endswith(report + "\n")
    assert f"keras {keras.__version__}" in report

    best, overhead = tables_of(report).items()
    _, (contenders, differences) = best
    accuracies = [float(row["mean"]) for row in contenders]
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    assert all(int(row["trained"]) <= int(row["started"]) for row in contenders)
    *others, ours = accuracies
    expected = [ours - other for other in others]
    # Each of the three figures is rounded to four digits by itself.
    assert [float(row["mean"]) for row in differences] == pytest.approx(expected, abs=1.6e-4)

    heading, (rows,) = overhead
    assert heading == f"Overhead: {keras.backend.backend()}"
    shares = [float(row["overhead share"]) for row in rows]
    plain, stock, ours, to_plain, to_stock = shares
    assert rows[-2]["contender"] == "ours / KerasTuner, plain Keras layers"
    assert all(0 < share < 1 for share in (plain, stock, ours))
    assert (to_plain, to_stock) == pytest.approx((ours / plain, ours / stock), abs=0.02)
