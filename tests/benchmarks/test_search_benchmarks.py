"""The benchmarks of searches measure what their reports say."""

import json

import keras
import pytest
from helpers import run_benchmark
from reports import tables_of

from benchmarks import search_efficiency

pytestmark = pytest.mark.slow


def test_a_search_against_stock_has_the_tables_of_both_parts(tmp_path):
    tiny = "--seeds 1 --seconds 4 --epochs 2 --repeats 1 --trials 1"
    printed = run_benchmark("benchmarks.search_against_stock", *tiny.split(), "--out", tmp_path)
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


class Made:
    """Learning curves that nobody trains: the more parameters, the better."""

    asked = 0

    def __init__(self, data, path):
        self.hypermodel = search_efficiency.space()

    def value(self, values, epoch):
        Made.asked += 1
        params = self.hypermodel.cost(search_efficiency.parameters_of(values)).params
        return (1 - 0.5**epoch) * params / 200_000


def test_report_counts_the_compute_of_each_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(search_efficiency, "Curves", Made)
    options = f"--seeds 2 --trials 4 --data digits --work {tmp_path / 'work'} --out {tmp_path}"
    search_efficiency.main(options.split())
    report = (tmp_path / "search_efficiency.md").read_text(encoding="utf-8")
    ((heading, (rows,)),) = tables_of(report).items()
    assert heading == "digits"
    random, *engines = rows
    assert random["engine"] == "RandomSearch, another seed"
    assert [row["engine"] for row in engines] == list(search_efficiency.ENGINES)
    for row in rows:
        assert 0 < float(row["min"]) <= float(row["median"]) <= float(row["max"])
        assert float(row["max"]) <= search_efficiency.CAP
    (path,) = (tmp_path / "work").glob("*RandomSearch, 4 trials, seed 0.json")
    of_random = json.loads(path.read_text())
    assert of_random["trials"] == 4
    assert of_random["improvements"][-1][1] == of_random["best"]

    asked = Made.asked
    search_efficiency.main(options.split())  # all is known
    assert Made.asked == asked
    assert (tmp_path / "search_efficiency.md").read_text(encoding="utf-8") == report


def test_curve_is_the_same_in_one_go_and_after_a_kill(tmp_path):
    path = tmp_path / "curves.jsonl"
    curves = search_efficiency.Curves("waves", path)
    hp = search_efficiency.parameters_of({})
    curves.hypermodel.declare_hyperparameters(hp)
    values = {**hp.values, "depth_1": 1, "depth_2": 1, "depth_3": 1, "width": 8}
    first = [curves.value(values, epoch) for epoch in range(2)]
    again = search_efficiency.Curves("waves", path)
    assert [again.value(values, epoch) for epoch in range(2)] == first
    path.unlink()
    anew = search_efficiency.Curves("waves", path)
    anew.value({**values, "width": 12}, 0)
    assert [anew.value(values, epoch) for epoch in range(2)] == first
