"""What a search says on its way: a line for each trial, and more on a terminal."""

import contextlib
import re
import time

import keras_tuner
import pytest
from searches import DATA, classifier, trials_of

from keras_resblocks import tuner


@pytest.fixture
def lines_of(tmp_path, monkeypatch, capsys):
    """What a search prints, a trial of which takes 3000 seconds."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def lines_of(kind, score, verbose=1, last=None, **options):
        class Untrained(getattr(tuner, kind)):
            def run_trial(self, trial, *args, **kwargs):
                clock[0] += 3000
                return score(int(trial.trial_id))

            def on_trial_end(self, trial):
                super().on_trial_end(trial)
                if trial.trial_id == last:
                    raise KeyboardInterrupt

        hp = keras_tuner.HyperParameters()
        hp.Choice("x", list(range(99)))
        options = {"objective": "val_accuracy", "hyperparameters": hp, **options}
        engine = Untrained(directory=tmp_path, overwrite=True, **options)
        with contextlib.suppress(KeyboardInterrupt, RuntimeError):
            engine.search(verbose=verbose)
        return capsys.readouterr().out.splitlines()

    return lines_of


def test_a_trial_leaves_a_line(lines_of):
    lines = lines_of("RandomSearch", lambda number: 0.1 + number / 10_000, max_trials=12)
    assert len(lines) == 12
    assert max(map(len, lines)) <= 80
    said = "trial 09 | val_accuracy 0.1009 in 50 min | best 0.1009 (09) | 10/12, 1.7 h left"
    assert lines[9] == said
    assert lines[11] == "trial 11 | val_accuracy 0.1011 in 50 min | best 0.1011 (11) | 12/12"


def test_verbose_0_is_silent(lines_of):
    assert lines_of("RandomSearch", float, verbose=0, max_trials=2) == []


def test_a_failed_trial_says_why(lines_of):
    def fail(number):
        raise RuntimeError("out of luck")

    lines = lines_of("RandomSearch", fail, max_trials=2)
    assert re.search(r"after \d+ min: RuntimeError: out of luck \| no best yet", lines[0])


def test_a_search_by_hyperband_says_how_many_trials_there_will_be_if_there_is_an_end(lines_of):
    options = {"max_epochs": 2, "factor": 2}
    lines = lines_of("Hyperband", float, **options)
    assert [line.rpartition(" | ")[2].partition(",")[0] for line in lines] == [
        f"{number}/5" for number in (1, 2, 3, 4, 5)
    ]
    lines = lines_of("Hyperband", float, hyperband_iterations=float("inf"), last="0001", **options)
    assert [line.rpartition(" | ")[2] for line in lines] == ["1 over", "2 over"]


def test_a_terminal_shows_the_epoch(tmp_path, monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "200", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)

    def build(hp):
        hp.Choice("units", [2, 3])
        hp.Float("rate", 1e-3, 1e-2)
        return classifier(run_eagerly=True)

    engine = tuner.RandomSearch(build, "val_accuracy", max_trials=1, directory=tmp_path)
    engine.search(**DATA, epochs=2)
    shown = capsys.readouterr().out
    for text in (r"trial 0 \| begins", r"epoch 1 of 2 \| val_accuracy \d", "epoch 2 of 2"):
        assert re.search(text, shown)
    (trial,) = trials_of(engine)
    values = trial.hyperparameters.values.items()
    assert ", ".join(f"{name} {value:.4g}" for name, value in values) in shown
