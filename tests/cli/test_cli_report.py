"""The report of a search, from the command line."""

import keras_tuner
import pytest
from commands import run


class Quick(keras_tuner.RandomSearch):
    def run_trial(self, trial, *args, **kwargs):
        return {self.oracle.objective.name: trial.hyperparameters.values["x"] / 100}


@pytest.fixture
def stock(tmp_path):
    """The directory of a search by KerasTuner itself."""
    space = keras_tuner.HyperParameters()
    space.Int("x", 0, 100)
    tuner = Quick(
        hyperparameters=space,
        objective=keras_tuner.Objective("score", "max"),
        max_trials=3,
        directory=tmp_path,
        project_name="stock",
    )
    tuner.search(verbose=0)
    return tmp_path / "stock"


@pytest.mark.parametrize("options", [[], ["--objective", "score"], ["--out", "elsewhere"]])
@pytest.mark.parametrize("name", ["", ".."])
def test_a_directory_of_kerastuner_is_reported(name, options, stock, capsys, monkeypatch):
    monkeypatch.chdir(stock.parent)
    folder = stock / name
    assert run("report", folder, *options) == 0
    printed = capsys.readouterr().out
    assert printed.split()[:4] == ["|", "trial", "|", "score"]
    assert len([line for line in printed.splitlines() if line.startswith("|  ")]) == 3
    out = stock.parent / "elsewhere" if "--out" in options else folder / "report"
    page = printed.splitlines()[-1].removeprefix("report: ")
    assert (out / "report.html").samefile(page)


def test_another_objective_is_refused(stock, capsys):
    assert run("report", stock, "--objective", "loss") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`objective` must be what the search optimized" in line
