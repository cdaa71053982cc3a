import json

import pytest
from reports import tables_of

from benchmarks import search_efficiency

pytestmark = pytest.mark.slow


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
