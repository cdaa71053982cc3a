"""What objects show in a console and in a notebook."""

import pytest

import keras_resblocks as kr
from keras_resblocks import layers, tuner
from keras_resblocks.models import Cost, specs
from keras_resblocks.models.published import SPECS
from keras_resblocks.tuner.reports.records import TrialRecord

STEPS = {name: getattr(layers.steps, name) for name in ("Conv", "Pool", "AdaptivePool", "Split")}


def test_a_spec_shows_what_it_does_not_have_by_default():
    spec = kr.ResNetSpec("bottleneck", depths=(1, 2), stem=(layers.Conv(8, 3),))
    assert repr(spec) == (
        "ResNetSpec(block='bottleneck', depths=(1, 2), stem=(Conv(filters=8, kernel_size=3),))"
    )


@pytest.mark.parametrize("name", [name for name in SPECS if "Template" not in repr(SPECS[name])])
def test_what_a_published_spec_shows_makes_an_equal_one(name):
    known = {**STEPS, **vars(kr.shortcuts), **vars(specs)}
    assert eval(repr(SPECS[name]), known) == SPECS[name]


def test_a_tuner_shows_its_project_and_its_space(tmp_path):
    hypermodel = tuner.ResNetHyperModel((8, 8, 1), 10, activations="elu", regularizers=0.0)
    engine = tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=1, directory=tmp_path)
    searched = "block, depth, width, learning_rate"
    shown = f"<ResNetHyperModel of (8, 8, 1) to 10, searched: {searched}>"
    assert repr(hypermodel).split(": ")[0] == shown.split(": ")[0]
    assert set(repr(hypermodel)[:-1].split(": ")[1].split(", ")) == set(searched.split(", "))
    assert repr(engine) == f"<RandomSearch 'untitled_project', 0 trials, {hypermodel!r}>"


def test_a_cost_is_a_table_in_a_notebook():
    shown = Cost(params=11_689_512, macs=None)._repr_html_()
    assert "<th>parameters</th><td>11,689,512</td>" in shown
    assert "multiply" not in shown


def test_a_trial_shows_its_score_and_values_in_short():
    trial = TrialRecord(
        *(2, "02", "COMPLETED", 0.96779),
        values={"<width>": 8, "rate": 1e-4, "flag": True},
        history={"loss": [1.0] * 100},
        summary="long",
        params=47_930,
    )
    assert "history" not in repr(trial)
    assert repr(trial).startswith("TrialRecord(number=2, trial_id='02', status='COMPLETED'")
    rows = ("trial</th><td>2", "score</th><td>0.9678", "&lt;width&gt;</th><td>8")
    for row in (*rows, "rate</th><td>0.0001", "flag</th><td>True", "parameters</th><td>47,930"):
        assert row in trial._repr_html_()
