"""A search from the command line, from the arguments to the best model."""

import argparse
import json
import operator
import re
import signal
import time

import keras
import numpy as np
import optuna
import pytest
from commands import QUICK, TINY, images, run, start, write_folder, write_npz
from helpers import BACKENDS, is_installed

import keras_resblocks
from keras_resblocks import cost, tuner
from keras_resblocks.cli import data, engines, job, options, space
from keras_resblocks.tuner import Range
from keras_resblocks.tuner.hypermodels import ARGUMENTS


def job_of(folder, arguments):
    """The search that these arguments stand for."""
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    npz = write_npz(folder / "images.npz")
    searched = options.options_of(parser.parse_args([str(npz), *arguments.split()]))
    searched.backend = keras.backend.backend()
    return job.Job(folder / "out", searched)


def accuracy_of(printed):
    (accuracy,) = re.fullmatch(r"test accuracy (\d\.\d{4})", printed.splitlines()[-1]).groups()
    return float(accuracy)


def trials_of(printed):
    return [line for line in printed.splitlines() if re.match(r"trial +\d", line)]


def rows_of(printed):
    return re.findall(r"^\| +\d", printed, re.MULTILINE)


# What is given for a list, and what is searched then.
LISTS = {
    "blocks": ("bottleneck residual", ["bottleneck", "residual"]),
    "depths": ("1 3", [1, 3]),
    "widths": ("8", [8]),
    "width_multipliers": ("1 1.5", [1, 1.5]),
    "expansions": ("2 4", [2, 4]),
    "groups": ("1 2", [1, 2]),
    "stems": ("small large", ["small", "large"]),
    "activations": ("relu elu gelu", ["relu", "elu", "gelu"]),
    "normalizations": ("batch none", ["batch", None]),
    "attentions": ("None squeeze_excite", [None, "squeeze_excite"]),
    "shortcuts": ("zero_pad", ["zero_pad"]),
    "preactivations": ("true False", [True, False]),
    "drop_path_rates": ("0 0.1", [0, 0.1]),
    "regularizers": ("0 1e-4", [0, 1e-4]),
    "optimizers": ("adam sgd", ["adam", "sgd"]),
    "learning_rates": ("1e-3 0.01", [1e-3, 0.01]),
    "schedules": ("cosine", ["cosine"]),
    "batch_sizes": ("16 32", [16, 32]),
    "augmentations": ("none shift", [None, "shift"]),
    "label_smoothings": ("0 0.1", [0, 0.1]),
    "kinds": ("v2 factorized", ["v2", "factorized"]),
}


def test_the_options_are_those_of_the_networks():
    networks = space.HYPERMODELS
    assert networks.keys() == options.NETWORKS.keys()
    assert {name for network in networks.values() for name in network.defaults} == LISTS.keys()
    assert options.LISTS.keys() == LISTS.keys()
    for name, own in options.NETWORKS.items():
        others = [other for other in networks if other != name]
        elsewhere = {argument for other in others for argument in networks[other].defaults}
        assert set(own) == networks[name].defaults.keys() - elsewhere
    assert set(options.TUNERS) == engines.TUNERS.keys()


@pytest.mark.parametrize("name", LISTS)
def test_the_help_names_what_a_list_may_have(name):
    said = options.LISTS[name]
    known = ARGUMENTS[name].names if name != "activations" else ("relu", "elu")
    assert set(known) <= set(re.findall(r"\w+", said))
    defaults = {str(network.defaults.get(name)) for network in space.HYPERMODELS.values()}
    shown = re.search(r"\(([^)]*)\)$", said)
    if len(defaults) == 1 and defaults != {"None"}:
        (values,) = {network.defaults[name] for network in space.HYPERMODELS.values()}
        values = values if isinstance(values, tuple) else (values,)
        assert [space._value(word) for word in shown[1].split()] == list(values)


@pytest.mark.parametrize("network", options.NETWORKS)
def test_lists_reach_the_search_space(network, tmp_path):
    lists = {name: LISTS[name] for name in space.HYPERMODELS[network].defaults}
    given = (f"--{name.replace('_', '-')} {words}" for name, (words, _) in lists.items())
    made = job_of(tmp_path, f"--network {network} {' '.join(given)}")
    for name, (_, values) in lists.items():
        choices = made.hypermodel.options[ARGUMENTS[name].option]
        assert list(choices.labels.values()) == values


MIXED = {"dtype": "mixed_bfloat16", "data_format": "channels_last"}


@pytest.mark.parametrize(
    ("arguments", "read", "expected"),
    [
        ("--max-params 9000", "hypermodel.budget.max_params", 9000),
        ("--max-macs 1000000", "hypermodel.budget.max_macs", 1_000_000),
        ("--max-activation-memory 90000", "hypermodel.budget.max_activation_memory", 90_000),
        ("--stages 2", "hypermodel.stages", 2),
        ("--per-stage", "hypermodel.per_stage", ()),
        ("--per-stage width", "hypermodel.per_stage", ("width",)),
        ("--schedule-epochs 5", "hypermodel.schedule_epochs", 5),
        ("--mixed-precision bfloat16", "hypermodel.block_options", MIXED),
        ("--network inception", "hypermodel.__class__", tuner.InceptionHyperModel),
        ("", "options.engine", "optuna"),
        ("--storage postgresql://host/db", "options.engine", "optuna"),
        ("--tuner random", "options.engine", "kerastuner"),
        ("--engine ray", "options.engine", "ray"),
    ],
)
def test_an_option_has_its_effect(arguments, read, expected, tmp_path):
    space = "" if "--network" in arguments else "--widths 2"
    assert operator.attrgetter(read)(job_of(tmp_path, f"{space} {arguments}")) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [("1e-4:1e-2:log", Range(1e-4, 1e-2, sampling="log")), ("0.1:0.2", Range(0.1, 0.2))],
)
def test_numbers_may_be_a_range(word, expected, tmp_path):
    made = job_of(tmp_path, f"--learning-rates {word}")
    assert made.hypermodel.options["learning_rate"] == expected


@pytest.mark.parametrize(("arguments", "size"), [("--batch-size 7", 7), ("", options.BATCH_SIZE)])
def test_one_batch_size_is_for_all_trials(arguments, size, tmp_path):
    assert job_of(tmp_path, arguments)._fit_arguments(1)["batch_size"] == size


STUDY = "--study s --storage s.journal"
NO_DATABASE = "--study s --storage sqlite:////no/where.db"
MISTAKES = {
    "no data": ("search", "DATA"),
    "unknown option": ("search digits --epoch 3", "Did you mean '--epochs'"),
    "unknown command": ("serch digits", "Did you mean 'search'? Received: serch"),
    "no such data": ("search nowhere", "nowhere, which does not exist"),
    "tuner": ("search digits --tuner best", "--tuner"),
    "trials": ("search digits --trials 0", "--trials: must be a positive integer"),
    "epochs": ("search digits --epochs few", "--epochs: must be a positive integer"),
    "activation": ("search digits --activations rely", "`activation` must be"),
    "depth": ("search digits --depths 1 0", "`depths` must be a positive integer"),
    "twice": ("search digits --depths 1 1", "must not repeat a value"),
    "range": ("search digits --learning-rates 1:0", "`low` must be less than `high`"),
    "no range": ("search digits --activations relu:elu", "`low` must be a finite"),
    "budget": ("search digits --max-params 10", "No candidate is within the budget"),
    "network": ("search digits --kinds v1", "`--kinds` is not for `--network resnet`"),
    "per stage": ("search digits --per-stage stem", "`per_stage` must be one of"),
    "hyperband": ("search digits --tuner hyperband --trials 2", "`--trials`"),
    "batches": ("search digits --batch-size 8 --batch-sizes 8", "go together"),
    "study, tuner": (f"search digits {STUDY} --tuner grid", "is for `--engine kerastuner`"),
    "study, engine": (f"search digits {STUDY} --engine ray", "for `--engine optuna`"),
    "share": ("search digits --gpus-per-trial 1", "is for `--engine ray`"),
    "no share": ("search digits --cpus-per-trial 0", "must be a positive number"),
    "engine": ("search digits --engine spark", "--engine"),
    "resume nothing": ("resume out", "no search of this command"),
    "resume nowhere": ("resume", "DIR"),
    "report nothing": ("report", "Say of what"),
    "report two": (f"report out {STUDY}", "Say of what"),
    "report a study": ("report --study s", "Say of what"),
    "report nowhere": ("report out", "which is no directory"),
    "report no study": (f"report {STUDY}", "must have the study 's'"),
    "no storage": ("search digits --study s --storage s.txt", "`storage` must be the URL of"),
    "search, no database": (f"search digits {NO_DATABASE}", "`--storage` cannot be opened"),
    "no database": (f"report {NO_DATABASE}", "`--storage` cannot be opened"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = ["--out", "o"] if arguments.startswith("search") else []
    assert run(*arguments.split(), *out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m keras_resblocks")
    assert message in line
    assert not (tmp_path / "o").exists()


IMMEDIATE = {
    "help": ("--help", 0, "COMMAND"),
    "help of a search": ("search --help", 0, "--learning-rates VALUE"),
    "version": ("--version", 0, keras_resblocks.__version__),
    **{
        name: (MISTAKES[name][0], 2, MISTAKES[name][1])
        for name in ("unknown command", "unknown option", "epochs", "study, tuner")
    },
    "folder": ("resume nowhere", 2, "no search of this command"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), IMMEDIATE.values(), ids=IMMEDIATE)
def test_arguments_are_read_before_keras_is_imported(arguments, status, message, tmp_path):
    (tmp_path / "keras.py").write_text("raise SystemExit('imported Keras')")
    process = start(*arguments.split(), path=tmp_path)
    printed = "".join(process.communicate(timeout=60))
    assert (process.returncode, message in printed) == (status, True), printed


def test_what_is_not_installed_is_named_with_its_command(tmp_path):
    (tmp_path / "keras_tuner.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'keras_tuner'\", name='keras_tuner')"
    )
    process = start("search", "digits", path=tmp_path)
    (line,) = process.communicate(timeout=60)[1].splitlines()
    assert line.endswith("""No module named 'keras_tuner': pip install "keras-resblocks[cli]\"""")


def test_the_backend_of_a_running_process_stays(tmp_path, capsys):
    other = next(name for name in BACKENDS if name != keras.backend.backend())
    assert run("search", "digits", "--backend", other, "--out", tmp_path / "out") == 2
    message = "be that of this process" if is_installed(other) else "be installed"
    assert message in capsys.readouterr().err


BEST = {"images.npz": ["ant", "bee", "cow"], "digits": [*"0123456789"]}


@pytest.mark.parametrize(("source", "names"), BEST.items(), ids=BEST)
def test_the_best_of_a_search_is_saved_and_tested(source, names, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = images()
    write_npz("images.npz", x=x, y=np.array(BEST["images.npz"])[y])
    assert run("search", source, *QUICK, "--out", "out") == 0
    printed = capsys.readouterr().out
    assert len(trials_of(printed)) == 2
    assert 0 <= accuracy_of(printed) <= 1
    model = keras.saving.load_model("out/best.keras")
    assert f"out/best.keras, {cost(model).params:,} parameters" in printed
    assert "report: out/report/report.html" in printed
    assert (tmp_path / "out" / "report" / "report.html").exists()
    assert not model.compiled
    assert model.layers[-1].names == names
    assert model.input_shape == (None, None, None, 1)
    assert model.predict(x, verbose=0).shape == (30, len(names))


KINDS = {
    **{name: (*TINY, "--trials", 2, "--tuner", name) for name in ("random", "grid", "bayesian")},
    "hyperband": (*TINY, "--tuner", "hyperband"),
    "inception": ("--stages", 1, "--widths", 16, "--trials", 2, "--network", "inception"),
    "options": (
        *(*TINY, "--trials", 2, "--keep-checkpoints", 1, "--retrain", 2),
        *("--activations", "relu", "--batch-sizes", 8, 16),
        *("--mixed-precision", "bfloat16", "--augmentations", "none", "shift"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_search_ends_with_a_tested_model(kind, tmp_path, capsys):
    npz, out = write_npz(tmp_path / "images.npz"), tmp_path / "out"
    assert run("search", npz, *KINDS[kind], "--epochs", 2, "--out", out) == 0
    printed = capsys.readouterr().out
    assert len(trials_of(printed)) == len(rows_of(printed)) > 0
    assert 0 <= accuracy_of(printed) <= 1


# Searches that want a process of their own.
PROCESSES = {"ray": ("engine", "ray"), **{name: ("backend", name) for name in BACKENDS}}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_another_engine_or_backend_ends_with_a_tested_model_too(name, tmp_path):
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    npz, out = write_npz(tmp_path / "images.npz"), tmp_path / "out"
    option, value = PROCESSES[name]
    process = start("search", npz, *QUICK, "--out", out, f"--{option}", value)
    printed, error = process.communicate(timeout=300)
    assert process.returncode == 0, error + printed
    assert accuracy_of(printed) >= 0
    assert len(rows_of(printed)) == 2
    assert (out / "best.keras").exists()
    assert json.loads((out / "arguments.json").read_text())[option] == value


def test_a_search_goes_on_from_anywhere_and_is_kept_unless_overwritten(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    begin = ("search", write_npz("images.npz"), *QUICK, "--out", "out")
    assert run(*begin) == 0
    assert len(trials_of(capsys.readouterr().out)) == 2
    best = tmp_path / "out" / "best.keras"
    before = best.stat().st_mtime_ns
    assert run(*begin) == 2
    error = capsys.readouterr().err
    assert "resume out" in error
    assert "--overwrite" in error
    assert best.stat().st_mtime_ns == before

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("resume", "../out", "--trials", 3) == 0
    printed = capsys.readouterr().out
    (line,) = trials_of(printed)
    assert line.startswith("trial 2 |")
    assert line.endswith("| 3/3")
    assert accuracy_of(printed) >= 0
    written = json.loads((tmp_path / "out" / "arguments.json").read_text())
    assert (written["trials"], written["epochs"]) == (3, 1)

    monkeypatch.chdir(tmp_path)
    assert run(*begin, "--overwrite") == 0
    assert len(trials_of(capsys.readouterr().out)) == 2


def test_a_search_says_what_it_found_before_it_trains(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "42")
    write_folder(tmp_path / "photos")
    (tmp_path / "photos" / "dark" / "notes.txt").touch()
    assert run("search", "photos", *QUICK) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:4] == [
        "photos: 30 images, 3 classes (bright 10,",
        "  dark 10, grey 10)",
        "32 x 32 pixels, 3 channels; train 18, val",
        "  6, test 6",
    ]
    assert "\nto go on: python -m keras_resblocks resume photos_search\n" in printed.out
    assert "note: left out, no pictures: dark/notes.txt" in printed.err
    assert (tmp_path / "photos_search" / "best.keras").exists()
    assert accuracy_of(printed.out) >= 0

    # The same with other pictures is another search.
    (tmp_path / "photos" / "dark" / "1.png").unlink()
    assert run("resume", "photos_search", "--trials", 3) == 2
    assert "`DATA` must be what the search began with. Received: 1 gone (dark/1.png)" in (
        capsys.readouterr().err
    )
    write_folder(tmp_path / "other" / "photos")
    assert run("search", "other/photos", *QUICK) == 2
    error = capsys.readouterr().err
    assert f"photos_search has a search in it (of {tmp_path / 'photos'})" in error


@pytest.mark.parametrize("out", [".", "photos/out", "photos"])
def test_the_search_is_not_kept_among_the_pictures(out, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(write_folder(tmp_path / "photos") if out == "." else tmp_path)
    folder = "." if out == "." else write_folder(tmp_path / "photos")
    assert run("search", folder, *([] if out == "." else ["--out", out])) == 2
    assert "`--out` must be outside of `DATA`" in capsys.readouterr().err


def test_unequal_classes_are_tested_each(tmp_path, capsys):
    x, y = images(40, 4)
    y = np.array([0, 1, 0, 0])[y]
    npz = write_npz(tmp_path / "images.npz", x=x, y=np.array(["often", "rare"])[y])
    out = tmp_path / "out"
    assert run("search", npz, *QUICK, "--trials", 1, "--class-weights", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "2 classes (often 30, rare 10)" in printed
    end = printed[printed.index("test accuracy of each class:") :].splitlines()[1:]
    each = dict(re.fullmatch(r"  (\d.\d{4}) (.*)", line).groups()[::-1] for line in end[:2])
    assert each.keys() == {"often (6)", "rare (2)"}
    balanced = float(re.fullmatch(r"balanced accuracy (.*)", end[2])[1])
    assert balanced == pytest.approx(sum(map(float, each.values())) / 2, abs=1e-3)
    assert accuracy_of(printed) >= 0


TASKS = {
    "regression": (lambda y: y / 7, "30 images, numbers for regression", ["mae", "rmse"]),
    "multilabel": (lambda y: np.tri(3)[y], "3 labels (0 30, 1 20, 2 10)", ["accuracy", "auc"]),
}


@pytest.mark.parametrize(("labels", "described", "metrics"), TASKS.values(), ids=TASKS)
def test_labels_of_other_tasks_are_searched_and_reported(
    labels, described, metrics, tmp_path, capsys
):
    x, y = images()
    npz, out = write_npz(tmp_path / "images.npz", x=x, y=labels(y)), tmp_path / "out"
    assert run("search", npz, *QUICK, "--trials", 1, "--out", out) == 0
    printed = capsys.readouterr().out
    assert described in printed
    assert [line.split()[1] for line in printed.splitlines()[-2:]] == metrics
    assert run("report", out) == 0
    assert run("search", npz, "--class-weights", "--out", tmp_path / "new") == 2
    assert "`--class-weights` is for classification" in capsys.readouterr().err


def test_data_larger_than_memory_are_searched_in_batches(tmp_path, capsys, monkeypatch):
    for module in (data, data.pictures):
        monkeypatch.setattr(module, "IN_MEMORY", 0)
    begin = ("search", write_folder(tmp_path / "images"), *QUICK, "--trials", 1, "--size", 8)
    assert run(*begin, "--class-weights", "--out", tmp_path / "out") == 0
    assert accuracy_of(capsys.readouterr().out) >= 0
    assert run(*begin, "--batch-sizes", 8, 16, "--out", tmp_path / "new") == 2
    assert "`--batch-size` must be given instead" in capsys.readouterr().err


SEARCHED = '{"data": "digits", "trials": 1, "epochs": 1}'
# What is in the files of a folder, None for no such file, and what `resume` says of one.
DAMAGED = [
    (None, None, "arguments.json is missing"),
    *((text, None, "arguments.json must hold") for text in ("", SEARCHED[:20], "[]", "{}")),
    ('{"data": "digits", "colour": 1}', None, "arguments.json must hold the arguments"),
    *((SEARCHED, text, "data.json must hold what the data were") for text in ("", "{", "[]", "{}")),
]


@pytest.mark.parametrize(("arguments", "record", "message"), DAMAGED)
def test_without_its_files_a_search_cannot_go_on(arguments, record, message, tmp_path, capsys):
    for name, text in (("arguments.json", arguments), ("data.json", record)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert run("resume", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/{message}" in line


def ended(out, engine):
    if engine == "kerastuner":
        return len(json.loads((out / "search" / "oracle.json").read_text())["end_order"])
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{out}/study.db")
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["kerastuner", "optuna"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_was_stopped_goes_on(number, engine, tmp_path, capsys):
    out = tmp_path / "out"
    npz = write_npz(tmp_path / "images.npz")
    process = start(
        "search", npz, *TINY, "--epochs", 20, "--engine", engine, "--trials", 4, "--out", out
    )
    for line in process.stdout:
        if line.startswith("trial 0 "):
            break
    time.sleep(0.5)  # in the middle of the second
    process.send_signal(number)
    rest, _ = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert process.returncode == 128 + signal.SIGINT
        assert rest.splitlines()[-1].endswith(f"python -m keras_resblocks resume {out}")
    before = ended(out, engine)
    assert 1 <= before < 4
    assert run("resume", out) == 0
    printed = capsys.readouterr().out
    assert len(trials_of(printed)) == 4 - before
    assert ended(out, engine) == 4
    assert accuracy_of(printed) >= 0


def test_optuna_stops_trials_early_and_has_more_of_them(tmp_path, monkeypatch):
    made = job_of(tmp_path, f"--storage {tmp_path / 'search.journal'}")
    monkeypatch.setattr(engines.tuner, "optuna_search", lambda *args, **arguments: arguments)
    arguments = engines.optuna(made)()
    assert isinstance(arguments["pruner"], optuna.pruners.MedianPruner)
    assert arguments["max_trials"] > engines.TRIALS


@pytest.mark.parametrize(("known", "engine"), [({}, "kerastuner"), ({"study": "s"}, "optuna")])
def test_a_search_of_the_first_version_keeps_its_engine(known, engine, tmp_path):
    (tmp_path / "arguments.json").write_text(json.dumps({"data": "digits", **known}))
    assert options.read_options(tmp_path).engine == engine


def test_hyperbands_epochs_stay_as_they_were(tmp_path, capsys):
    arguments = {"data": "digits", "epochs": 4, "tuner": "hyperband"}
    (tmp_path / "arguments.json").write_text(json.dumps(arguments))
    assert run("resume", tmp_path, "--epochs", 8) == 2
    assert "`--epochs` must stay as they were" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_is_searched_shared_resumed_and_reported(tmp_path, capsys):
    npz, storage = write_npz(tmp_path / "images.npz"), tmp_path / "search.journal"
    study = ("--study", "tiny", "--storage", storage)
    assert run("search", npz, *QUICK, *study, "--out", tmp_path / "one") == 0
    printed = capsys.readouterr().out
    assert len(trials_of(printed)) == 2
    assert accuracy_of(printed) >= 0

    # Another machine finds all trials over, and the best without its weights.
    assert run("search", npz, *QUICK, *study, "--out", tmp_path / "two") == 0
    printed = capsys.readouterr().out
    assert not trials_of(printed)
    assert accuracy_of(printed) >= 0

    assert run("resume", tmp_path / "one", "--trials", 3, "--retrain", 1) == 0
    assert len(trials_of(capsys.readouterr().out)) == 1
    for source in ([tmp_path / "one"], [*study, "--out", tmp_path / "found"]):
        assert run("report", *source) == 0
        assert len(rows_of(capsys.readouterr().out)) == 3
    assert (tmp_path / "found" / "report.html").exists()
