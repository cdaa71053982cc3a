"""What an editor and a type checker know of the public names."""

import importlib.util
import inspect
import json
import pathlib
import subprocess
import sys
import typing

import pytest

import keras_resblocks as kr
from keras_resblocks import layers, tuner, types
from keras_resblocks.models.named import create_model
from keras_resblocks.tuner.fine_tuning import FineTuneOptions
from keras_resblocks.tuner.hypermodels import ARGUMENTS, SearchOptions

SCRIPT = """
import keras
import keras_tuner

import keras_resblocks as kr
from keras_resblocks.tuner import Range, RandomSearch, ResNetHyperModel, optuna_search, report

# As intended.
kr.ResidualBlock(8, 2, kernel_size=(3, 5), activation=keras.layers.ReLU(), shortcut=None, name="b")
kr.InceptionBlock([[4], [4, (8, 3)], ["max_pool", 4]], shortcut="projection", padding="valid")
kr.layers.ConvUnit(8, 3, activation=None, kernel_regularizer=keras.regularizers.L2(1e-4))
kr.SqueezeExcite(8, gate_activation="hard_sigmoid", dtype="float16")
spec = kr.ResNetSpec("bottleneck", [3, 4], (8, 16), stem=(kr.layers.Conv(8, 3),))
kr.create_model(spec, input_shape=(64, None, 3), classes=6, expansion=2, dtype="float16")
kr.cost(kr.InceptionSpec([[[[4], [4, (8, 3)]]]]), data_format="channels_first")
space = ResNetHyperModel(
    (8, 8, 1), 10, widths=(8, 16), width_multipliers=1.5, optimizer="sgd", activation="elu",
    batch_sizes=[None, 32], learning_rates=Range(1e-4, 1e-2), activations=["relu", None], groups=2,
)
search = RandomSearch(space, "val_accuracy", max_trials=3, keep_checkpoints=None)
study = optuna_search(space, "digits", "digits.log", max_trials=3, x=[0], epochs=2)

# Mistakes.
kr.ResidualBlock(8, stride=2)  # wrong
kr.create_model("resnet18", clases=6)  # wrong
kr.ResNet50(inputshape=(64, 64, 3))  # wrong
ResNetHyperModel((8, 8, 1), 10, widths="wide")  # wrong
ResNetHyperModel((8, 8, 1), 10, max_parms=10_000)  # wrong
ResNetHyperModel((8, 8, 1), 10, width=(8, 16))  # wrong

reveal_type(kr.create_model("resnet18"))  # Model
reveal_type(kr.ResNet50(classes=6, weights=None))  # Model
reveal_type(kr.cost("resnet18").params)  # int
reveal_type(kr.list_models())  # list[str]
reveal_type(search.retrain_best())  # Model
reveal_type(report(search).rows)  # list[TrialRecord]
reveal_type(study)  # Study
"""


@pytest.mark.skipif(not importlib.util.find_spec("pyright"), reason="pyright is not installed")
def test_a_checker_finds_the_mistakes_in_a_script_and_no_others(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    package = pathlib.Path(kr.__file__).parents[1]
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(package)]}))
    command = ["-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", tmp_path]
    checked = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    found = json.loads(checked.stdout)["generalDiagnostics"]
    lines = [(d["range"]["start"]["line"], d["severity"], d["message"]) for d in found]
    script = SCRIPT.splitlines()
    errors = {script[line] for line, severity, _ in lines if severity == "error"}
    assert errors == {line for line in script if line.endswith("# wrong")}
    revealed = [(line, text) for line, severity, text in lines if severity == "information"]
    assert len(revealed) == SCRIPT.count("reveal_type")
    for line, text in revealed:
        assert text.endswith(f'is "{script[line].rpartition("# ")[2]}"')


def _keywords(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}


# The options that a checker knows, and the signatures that have them at runtime.
OPTIONS = {
    types.BlockArguments: _keywords(layers.ResidualBlock),
    types.BranchArguments: _keywords(layers.InceptionBlock),
    types.UnitArguments: _keywords(layers.ConvUnit),
    types.GateArguments: _keywords(layers.SqueezeExcite),
    types.BlockOptions: {
        **_keywords(layers.ResidualBlock),
        **_keywords(layers.BottleneckBlock),
        **_keywords(layers.InceptionBlock),
    },
}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__name__)
def test_the_options_a_checker_knows_are_those_of_the_signature(options):
    hints = typing.get_type_hints(options, localns={"Shortcut": layers.shortcuts.Shortcut})
    of_layer = typing.get_type_hints(types.LayerArguments)
    explicit = {
        types.BlockArguments: {"kernel_size"},
        types.BranchArguments: {"filters", "shortcut", "residual_scale"},
        types.UnitArguments: {"groups", "dilation_rate", "zero_init"},
        types.GateArguments: {"activation"},
    }.get(options, set())
    of_signature = {k: v for k, v in OPTIONS[options].items() if k not in explicit}
    assert {k: v for k, v in hints.items() if k not in of_layer} == of_signature


def test_the_options_a_checker_knows_of_a_search_are_those_of_the_hypermodels():
    known = set(typing.get_type_hints(SearchOptions, localns={"Shortcut": object}))
    plurals = {*tuner.ResNetHyperModel.defaults, *tuner.InceptionHyperModel.defaults}
    assert plurals == set(ARGUMENTS)
    assert known == plurals | {a.option for a in ARGUMENTS.values()} | set(
        types.BlockOptions.__annotations__
    )


def test_the_options_a_checker_knows_of_fine_tuning_are_those_of_its_hypermodel():
    known = set(typing.get_type_hints(FineTuneOptions, localns={"Shortcut": object}))
    listed = tuner.FineTuneHyperModel.arguments
    assert set(tuner.FineTuneHyperModel.defaults) == set(listed)
    assert known == {*listed, *(argument.option for argument in listed.values())} | {
        *types.NetworkOptions.__annotations__,
        *_keywords(tuner.TrainingHyperModel.__init__),
    }


def test_a_named_network_shows_the_arguments_of_create_model():
    assert _keywords(kr.ResNet50) == _keywords(create_model)
    assert kr.ResNet50.__name__ == "ResNet50"


@pytest.mark.parametrize(
    ("call", "wrong", "name"),
    [
        (lambda **wrong: kr.create_model("resnet18", **wrong), "clases", "classes"),
        (kr.ResNet50, "inputshape", "input_shape"),
        (lambda **wrong: kr.cost("resnet18", **wrong), "output_strides", "output_stride"),
        (lambda **wrong: tuner.ResNetHyperModel((8, 8, 1), 10, **wrong), "max_parms", "max_params"),
        (lambda **wrong: tuner.InceptionHyperModel((8, 8, 1), 10, **wrong), "kindz", "kinds"),
    ],
)
def test_an_unknown_keyword_is_an_error_that_suggests_the_nearest(call, wrong, name):
    with pytest.raises(ValueError, match=f"`{wrong}` must be .*Did you mean '{name}'"):
        call(**{wrong: 6})
