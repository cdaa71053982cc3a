"""A search from the command line, from the arguments to the best model."""

import argparse
import json
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
from keras_resblocks import cost
from keras_resblocks.cli import data, engines, job, options, space
from keras_resblocks.tuner import Range
from keras_resblocks.tuner.hypermodels import ARGUMENTS


def job_of(folder, *arguments):
    """The search that these arguments stand for."""
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    npz = write_npz(folder / "images.npz")
    args = parser.parse_args([str(npz), *map(str, arguments)])
    searched = options.options_of(args)
    searched.backend = keras.backend.backend()
    return job.Job(folder / "out", searched)


def accuracy_of(printed):
    (accuracy,) = re.fullmatch(r"test accuracy (\d\.\d{4})", printed.splitlines()[-1]).groups()
    return float(accuracy)


def trials_of(printed):
    return [line for line in printed.splitlines() if re.match(r"trial +\d", line)]


LISTS = {
    "blocks": (["bottleneck", "residual"], ["bottleneck", "residual"]),
    "depths": (["1", "3"], [1, 3]),
    "widths": (["8"], [8]),
    "width_multipliers": (["1", "1.5"], [1, 1.5]),
    "expansions": (["2", "4"], [2, 4]),
    "groups": (["1", "2"], [1, 2]),
    "stems": (["small", "large"], ["small", "large"]),
    "activations": (["relu", "elu", "gelu"], ["relu", "elu", "gelu"]),
    "normalizations": (["batch", "none"], ["batch", None]),
    "attentions": (["None", "squeeze_excite"], [None, "squeeze_excite"]),
    "shortcuts": (["zero_pad"], ["zero_pad"]),
    "preactivations": (["true", "False"], [True, False]),
    "drop_path_rates": (["0", "0.1"], [0, 0.1]),
    "regularizers": (["0", "1e-4"], [0, 1e-4]),
    "optimizers": (["adam", "sgd"], ["adam", "sgd"]),
    "learning_rates": (["1e-3", "0.01"], [1e-3, 0.01]),
    "schedules": (["cosine"], ["cosine"]),
    "batch_sizes": (["16", "32"], [16, 32]),
    "augmentations": (["none", "shift"], [None, "shift"]),
    "label_smoothings": (["0", "0.1"], [0, 0.1]),
    "kinds": (["v2", "factorized"], ["v2", "factorized"]),
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


@pytest.mark.parametrize("name", LISTS)
def test_a_list_reaches_the_search_space(name, tmp_path):
    words, values = LISTS[name]
    network = ["--network", "inception"] if name == "kinds" else []
    made = job_of(tmp_path, f"--{name.replace('_', '-')}", *words, *network)
    choices = made.hypermodel.options[ARGUMENTS[name].option]
    assert list(choices.labels.values()) == values


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("1e-4:1e-2:log", Range(1e-4, 1e-2, sampling="log")),
        ("0.1:0.2", Range(0.1, 0.2)),
    ],
)
def test_numbers_may_be_a_range(word, expected, tmp_path):
    made = job_of(tmp_path, "--learning-rates", word)
    assert made.hypermodel.options["learning_rate"] == expected


@pytest.mark.parametrize(
    ("arguments", "read", "expected"),
    [
        (["--max-params", 9000], lambda made: made.hypermodel.budget.max_params, 9000),
        (["--max-macs", "1000000"], lambda made: made.hypermodel.budget.max_macs, 1_000_000),
        (
            ["--max-activation-memory", 90_000],
            lambda made: made.hypermodel.budget.max_activation_memory,
            90_000,
        ),
        (["--stages", 2], lambda made: made.hypermodel.stages, 2),
        (["--per-stage"], lambda made: made.hypermodel.per_stage, ()),
        (["--per-stage", "width"], lambda made: made.hypermodel.per_stage, ("width",)),
        (["--schedule-epochs", 5], lambda made: made.hypermodel.schedule_epochs, 5),
        (
            ["--mixed-precision", "bfloat16"],
            lambda made: made.hypermodel.block_options,
            {"dtype": "mixed_bfloat16", "data_format": "channels_last"},
        ),
        (["--network", "inception"], lambda made: type(made.hypermodel).__name__[:4], "Ince"),
        (["--batch-size", 7], lambda made: made._fit_arguments(1)["batch_size"], 7),
        ([], lambda made: made._fit_arguments(1)["batch_size"], options.BATCH_SIZE),
    ],
)
def test_an_option_has_its_effect(arguments, read, expected, tmp_path):
    space = ["--widths", 2] if "--network" not in arguments else []
    assert read(job_of(tmp_path, *space, *arguments)) == expected


STUDY = ("--study", "s", "--storage", "s.journal")
MISTAKES = {
    "no data": (["search"], "DATA"),
    "unknown option": (["search", "digits", "--depth", "1"], "Did you mean '--depths'"),
    "unknown command": (["serch", "digits"], "Did you mean 'search'? Received: serch"),
    "no such data": (["search", "nowhere"], "nowhere, which does not exist"),
    "tuner": (["search", "digits", "--tuner", "best"], "--tuner"),
    "trials": (["search", "digits", "--trials", "0"], "--trials: must be a positive integer"),
    "epochs": (["search", "digits", "--epochs", "few"], "--epochs: must be a positive integer"),
    "activation": (["search", "digits", "--activations", "rely"], "`activation` must be"),
    "depth": (["search", "digits", "--depths", "1", "0"], "`depths` must be a positive integer"),
    "twice": (["search", "digits", "--depths", "1", "1"], "must not repeat a value"),
    "range": (["search", "digits", "--learning-rates", "1:0"], "`low` must be less than `high`"),
    "no range": (["search", "digits", "--activations", "relu:elu"], "`low` must be a finite"),
    "budget": (["search", "digits", "--max-params", "10"], "No candidate is within the budget"),
    "network": (["search", "digits", "--kinds", "v1"], "`--kinds` is not for `--network resnet`"),
    "per stage": (["search", "digits", "--per-stage", "stem"], "`per_stage` must be one of"),
    "hyperband": (["search", "digits", "--tuner", "hyperband", "--trials", "2"], "`--trials`"),
    "batches": (["search", "digits", "--batch-size", "8", "--batch-sizes", "8"], "go together"),
    "study, tuner": (["search", "digits", *STUDY, "--tuner", "grid"], "for `--engine kerastuner`"),
    "study, engine": (["search", "digits", *STUDY, "--engine", "ray"], "for `--engine optuna`"),
    "share": (["search", "digits", "--gpus-per-trial", "1"], "is for `--engine ray`"),
    "no share": (["search", "digits", "--cpus-per-trial", "0"], "must be a positive number"),
    "engine": (["search", "digits", "--engine", "spark"], "--engine"),
    "resume nothing": (["resume", "out"], "no search of this command"),
    "resume nowhere": (["resume"], "DIR"),
    "report nothing": (["report"], "Say of what"),
    "report two": (["report", "out", *STUDY], "Say of what"),
    "report a study": (["report", "--study", "s"], "Say of what"),
    "report nowhere": (["report", "out"], "which is no directory"),
    "report no study": (["report", *STUDY], "must have the study 's'"),
    "no storage": (["search", "digits", *STUDY[:3], "s.txt"], "`storage` must be the URL of"),
    "search, no database": (
        ["search", "digits", *STUDY[:3], "sqlite:////no/where.db"],
        "`--storage` cannot be opened",
    ),
    "no database": (
        ["report", "--study", "s", "--storage", "sqlite:////no/where.db"],
        "`--storage` cannot be opened",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run(*arguments, *(["--out", "o"] if arguments[0] == "search" else [])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m keras_resblocks")
    assert message in line
    assert not (tmp_path / "o").exists()


IMMEDIATE = {
    "help": (["--help"], 0, "COMMAND"),
    "help of a search": (["search", "--help"], 0, "--learning-rates VALUE"),
    "version": (["--version"], 0, keras_resblocks.__version__),
    "command": (["repot"], 2, "Did you mean 'report'"),
    "option": (["search", "digits", "--epoch", "3"], 2, "Did you mean '--epochs'"),
    "value": (["search", "digits", "--epochs", "few"], 2, "must be a positive integer"),
    "together": (["search", "digits", "--study", "s", "--tuner", "grid"], 2, "`--tuner` is for"),
    "folder": (["resume", "nowhere"], 2, "no search of this command"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), IMMEDIATE.values(), ids=IMMEDIATE)
def test_arguments_are_read_before_keras_is_imported(arguments, status, message, tmp_path):
    (tmp_path / "keras.py").write_text("raise SystemExit('imported Keras')")
    process = start(*arguments, path=tmp_path)
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


SMALL_DATA = {
    "npz": lambda folder: [write_npz(folder / "images.npz")],
    "folder": lambda folder: [write_folder(folder / "images"), "--size", 8],
    "digits": lambda folder: ["digits"],
}


@pytest.mark.parametrize("source", SMALL_DATA)
def test_the_best_of_a_search_is_saved_and_tested(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("search", *SMALL_DATA[source](tmp_path), *QUICK, "--out", out) == 0
    printed = capsys.readouterr().out
    assert len(trials_of(printed)) == 2
    assert 0 <= accuracy_of(printed) <= 1
    model = keras.saving.load_model(out / "best.keras")
    assert f"{out / 'best.keras'}, {cost(model).params:,} parameters" in printed
    assert (out / "report" / "report.html").exists()
    assert f"report: {out / 'report' / 'report.html'}" in printed


KINDS = {
    "random": ["--trials", 2],
    "grid": ["--trials", 2],
    "hyperband": [],
    "bayesian": ["--trials", 2],
    "inception": ["--trials", 2, "--network", "inception"],
    "options": [
        *("--trials", 2, "--keep-checkpoints", 1, "--retrain", 2),
        *("--activations", "relu", "--batch-sizes", 8, 16),
        *("--mixed-precision", "bfloat16", "--augmentations", "none", "shift"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_search_ends_with_a_tested_model(kind, tmp_path, capsys):
    tuner = ["--tuner", kind] if kind in options.TUNERS else []
    space = TINY if kind != "inception" else ("--stages", 1, "--widths", 16)
    npz = write_npz(tmp_path / "images.npz")
    out = ("--out", tmp_path / "out")
    assert run("search", npz, *space, *KINDS[kind], *tuner, "--epochs", 2, *out) == 0
    printed = capsys.readouterr().out
    assert trials_of(printed)
    assert 0 <= accuracy_of(printed) <= 1


def test_a_search_in_the_folder_is_kept_unless_overwritten(tmp_path, capsys):
    out = tmp_path / "out"
    begin = ("search", write_npz(tmp_path / "images.npz"), *QUICK, "--out", out)
    assert run(*begin) == 0
    before = (out / "best.keras").stat().st_mtime_ns
    assert run(*begin) == 2
    error = capsys.readouterr().err
    assert f"resume {out}" in error
    assert "--overwrite" in error
    assert (out / "best.keras").stat().st_mtime_ns == before
    assert run(*begin, "--overwrite") == 0
    assert len(trials_of(capsys.readouterr().out)) == 2


def test_a_search_goes_on_with_more_trials_from_anywhere(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "images.npz")
    assert run("search", "images.npz", *QUICK, "--out", "out") == 0
    first = capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("resume", "../out", "--trials", 3) == 0
    printed = capsys.readouterr().out
    assert len(trials_of(first)) == 2
    (line,) = trials_of(printed)
    assert line.startswith("trial 2 |")
    assert line.endswith("| 3/3")
    assert accuracy_of(printed) >= 0
    written = json.loads((tmp_path / "out" / "arguments.json").read_text())
    assert (written["trials"], written["epochs"]) == (3, 1)


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


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_record_of_the_data_is_an_error(content, tmp_path, capsys):
    arguments = {"data": "digits", "backend": keras.backend.backend()}
    (tmp_path / "arguments.json").write_text(json.dumps(arguments))
    path = tmp_path / "data.json"
    path.write_text(content)
    assert run("resume", tmp_path) == 2
    assert f"{path} must hold what the data were" in capsys.readouterr().err


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


def forget(path):
    path.unlink()


def cut(path):
    path.write_text(path.read_text()[:20])


def write(text):
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (forget, "is missing"),
        (cut, "damaged"),
        (write(""), "damaged"),
        (write("[]"), "damaged"),
        (write("{}"), "damaged"),
        (write('{"data": "digits", "colour": 1}'), "damaged"),
    ],
)
def test_without_its_arguments_a_search_cannot_go_on(damage, message, tmp_path, capsys):
    path = tmp_path / "arguments.json"
    path.write_text(json.dumps({"data": "digits", "trials": 1, "epochs": 1}))
    damage(path)
    assert run("resume", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "engine"),
    [
        ([], "optuna"),
        (["--tuner", "random"], "kerastuner"),
        (["--storage", "postgresql://host/db"], "optuna"),
        (["--engine", "ray"], "ray"),
    ],
)
def test_the_engine_is_optuna_unless_another_is_asked_for(arguments, engine, tmp_path):
    assert job_of(tmp_path, *arguments).options.engine == engine


def test_optuna_stops_trials_early_and_has_more_of_them(tmp_path, monkeypatch):
    made = job_of(tmp_path, "--storage", tmp_path / "search.journal")
    monkeypatch.setattr(engines.tuner, "optuna_search", lambda *args, **arguments: arguments)
    arguments = engines.Optuna(made).search(None, None)
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
@pytest.mark.parametrize("engine", ["kerastuner", "ray"])
def test_another_engine_ends_with_a_tested_model_too(engine, tmp_path):
    if engine == "ray":
        pytest.importorskip(engine)
    npz, out = write_npz(tmp_path / "images.npz"), tmp_path / "out"
    process = start("search", npz, *QUICK, "--engine", engine, "--out", out)
    printed, error = process.communicate(timeout=300)
    assert process.returncode == 0, error + printed
    assert accuracy_of(printed) >= 0
    assert (out / "best.keras").exists()
    assert len(re.findall(r"^\| +\d", printed, re.MULTILINE)) == 2  # the trials of the report


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
        assert len(re.findall(r"^\| +\d", capsys.readouterr().out, re.MULTILINE)) == 3
    assert (tmp_path / "found" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_backend_is_that_of_the_option(backend, tmp_path):
    if not is_installed(backend):
        pytest.skip(f"{backend} is not installed")
    npz, out = write_npz(tmp_path / "images.npz"), tmp_path / "out"
    process = start(*("search", npz, *QUICK, "--out", out, "--backend", backend))
    printed, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert accuracy_of(printed) >= 0
    assert json.loads((out / "arguments.json").read_text())["backend"] == backend
