import keras
import pytest
from helpers import run_benchmark
from reports import tables_of

TINY = "--seeds 1 --seconds 4 --epochs 2 --repeats 1 --trials 1"

pytestmark = pytest.mark.slow


def test_report_has_the_tables_of_both_parts(tmp_path):
    printed = run_benchmark("benchmarks.search_against_stock", *TINY.split(), "--out", tmp_path)
    (path,) = tmp_path.glob("search_*.md")
    report = path.read_text(encoding="utf-8")
    assert printed.endswith(report + "\n")
    assert f"keras {keras.__version__}" in report

    (_, (contenders,)), (heading, (rows,)) = tables_of(report).items()
    accuracies = [float(row["mean"]) for row in contenders]
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    # Each of the three figures is rounded to four digits by itself.
    expected = [pytest.approx(accuracies[-1] - accuracy, abs=1.6e-4) for accuracy in accuracies]
    assert [float(row["ours - it"]) for row in contenders] == expected

    assert heading == f"Overhead: {keras.backend.backend()}"
    shares = {row["contender"]: float(row["overhead share"]) for row in rows}
    ratios = {name.removeprefix("ours / "): shares.pop(name) for name in [*shares] if "/" in name}
    assert all(0 < share < 1 for share in shares.values())
    ours = shares.pop("keras_resblocks")
    assert ratios == {name: pytest.approx(ours / of, abs=0.02) for name, of in shares.items()}
