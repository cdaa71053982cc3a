"""One command runs a script as the chief and the workers of a search."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import keras
import pytest

from keras_resblocks import cli, launcher, tuner

# Notes what it sees, as a script of a user's would see it.
NOTE = """
    import json, os, pathlib, sys
    name = os.environ["KERASTUNER_TUNER_ID"]
    seen = {key: os.environ.get(key) for key in (
        "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "CUDA_VISIBLE_DEVICES")}
    folder = pathlib.Path(__file__).parent
    (folder / f"{name}.json").write_text(json.dumps({**seen, "arguments": sys.argv[1:]}))
    print("hello")
"""
# A search as a user writes it: no word of chiefs and workers.
SEARCH = """
    import os, sys
    import keras_tuner
    from keras_resblocks import tuner

    class Quick(tuner.RandomSearch):
        def run_trial(self, trial, **kwargs):
            with open("trials.txt", "a") as file:
                print(trial.trial_id, os.environ["KERASTUNER_TUNER_ID"], file=file)
            return trial.hyperparameters.values["x"]

    space = keras_tuner.HyperParameters()
    space.Int("x", 0, 100)
    search = Quick(
        hyperparameters=space,
        objective=keras_tuner.Objective("score", "max"), max_trials=6, seed=1, directory="results",
        worker_timeout=2, overwrite=True,
    )
    search.search()
    with open("best.txt", "a") as file:
        print(search.get_best_hyperparameters()[0].values["x"], file=file)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    path = tmp_path / "script.py"

    def write(code):
        path.write_text(textwrap.dedent(code))
        return path

    return write


def launch(path, *arguments, **options):
    return launcher.launch([sys.executable, str(path), *arguments], **options)


def notes(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_each_process_is_told_who_it_is_and_which_gpu_is_its(script, tmp_path):
    assert launch(script(NOTE), "--epochs", "3", devices=["0", "3"]) == 0
    seen = notes(tmp_path)
    gpus = {name: note["CUDA_VISIBLE_DEVICES"] for name, note in seen.items()}
    assert gpus == {"chief": "-1", "worker0": "0", "worker1": "3"}
    assert all(note["arguments"] == ["--epochs", "3"] for note in seen.values())
    assert {note["KERASTUNER_ORACLE_IP"] for note in seen.values()} == {"127.0.0.1"}
    assert len({note["KERASTUNER_ORACLE_PORT"] for note in seen.values()}) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"workers": 2}, [None, None]),
        ({"workers": 3, "devices": ["0", "1"]}, ["0", "1", "0"]),
        ({"devices": ["GPU-a"]}, ["GPU-a"]),
    ],
)
def test_workers_share_the_devices(options, expected, script, tmp_path):
    assert launch(script(NOTE), **options) == 0
    seen = notes(tmp_path)
    gpus = [seen[f"worker{number}"]["CUDA_VISIBLE_DEVICES"] for number in range(len(expected))]
    assert gpus == expected
    assert len(seen) == 1 + len(expected)


@pytest.mark.parametrize(
    "options", [{}, {"workers": 0}, {"devices": []}, {"workers": -1, "devices": ["0"]}]
)
def test_no_workers_are_an_error(options, script):
    with pytest.raises(ValueError, match="`workers` must be a positive integer"):
        launch(script(NOTE), **options)


def test_outputs_bear_the_name_of_their_process(script, capfd):
    launch(script(NOTE), workers=1)
    assert sorted(capfd.readouterr().out.splitlines()) == ["[chief] hello", "[worker0] hello"]


def test_outputs_go_to_files(script, tmp_path, capfd):
    launch(script(NOTE), workers=2, logs=tmp_path / "logs")
    files = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert files == dict.fromkeys(("chief.log", "worker0.log", "worker1.log"), "hello\n")
    assert capfd.readouterr().out == "[chief] hello\n"


FAILS = """
    import os, sys, time
    if os.environ["KERASTUNER_TUNER_ID"] in sys.argv[1].split(","):
        sys.exit(3)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("failing", "seconds", "status"),
    [
        ("nobody", 0.2, 0),
        ("worker0", 0.2, 0),
        ("worker0,worker1", 60, 1),
        ("chief", 60, 3),
    ],
)
def test_the_status_tells_whether_the_search_failed(failing, seconds, status, script):
    assert launch(script(FAILS), failing, str(seconds), workers=2) == status


def test_a_chief_that_is_killed_is_a_failure(script):
    code = """
        import os, signal, time
        if os.environ["KERASTUNER_TUNER_ID"] == "chief":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    """
    assert launch(script(code), workers=1) == 128 + signal.SIGKILL


ONCE = """
    import os, pathlib, sys, time
    name = os.environ["KERASTUNER_TUNER_ID"]
    runs = pathlib.Path(f"{name}.runs")
    runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
    if len(runs.read_text()) <= int(sys.argv[1]):
        sys.exit(1)
    time.sleep(1)
"""


@pytest.mark.parametrize(("failures", "restarts", "status"), [(1, 2, 0), (2, 1, 1), (1, 0, 1)])
def test_only_on_request_is_a_process_started_again(failures, restarts, status, script, tmp_path):
    assert launch(script(ONCE), str(failures), workers=1, restarts=restarts) == status
    runs = len((tmp_path / "chief.runs").read_text())
    assert runs == min(failures, restarts) + 1


def test_an_interrupt_ends_all_of_them_and_what_they_started(script, tmp_path):
    code = """
        import os, pathlib, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        name = os.environ["KERASTUNER_TUNER_ID"]
        pathlib.Path(f"{name}.tmp").write_text(f"{os.getpid()} {child.pid}")
        pathlib.Path(f"{name}.tmp").rename(f"{name}.pids")
        time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_resblocks", "launch", "--workers", "2", str(script(code))],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.pids"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(pid) for path in tmp_path.glob("*.pids") for pid in path.read_text().split()]
    assert len(pids) == 6
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    assert not [pid for pid in pids if is_alive(pid)]


def is_alive(pid):
    try:
        # A zombie is one that nobody in this container has asked after.
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def fake_nvidia_smi(folder, code):
    folder.mkdir()
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(code)}")
    path.chmod(0o755)
    return str(folder)


TWO_GPUS = """
    test "$1" = -L && cat <<END
    GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)
    GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-b)
    END
"""


@pytest.mark.parametrize(
    ("code", "visible", "expected"),
    [
        (TWO_GPUS, None, ["0", "1"]),
        (TWO_GPUS, "1", ["1"]),
        (TWO_GPUS, "-1", []),
        ("exit 9", None, []),
        (None, None, []),
    ],
)
def test_gpus_are_found_without_a_backend(code, visible, expected, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    bin_folder = tmp_path / "bin"
    own = fake_nvidia_smi(bin_folder, code) if code else str(tmp_path)
    monkeypatch.setenv("PATH", f"{own}:/bin:/usr/bin" if code else own)
    assert launcher.gpus() == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["0", "1"]),
        (["--gpus", "all"], ["0", "1"]),
        (["--gpus", "2,5,5"], ["2", "5", "5"]),
        (["--workers", "1"], [None]),
    ],
)
def test_the_command_runs_a_worker_on_each_gpu(options, expected, script, tmp_path, monkeypatch):
    folder = fake_nvidia_smi(tmp_path / "bin", TWO_GPUS)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    assert cli.main(["launch", *options, str(script(NOTE)), "--gpus", "of the script"]) == 0
    seen = notes(tmp_path)
    assert seen["chief"]["arguments"] == ["--gpus", "of the script"]
    gpus = [seen[f"worker{number}"]["CUDA_VISIBLE_DEVICES"] for number in range(len(expected))]
    assert gpus == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["launch"], "SCRIPT"),
        (["launch", "--workers", "0", "script.py"], "`workers` must be a positive integer"),
        (["launch", "--workers", "2", "--gpus", "all", "script.py"], "not allowed with"),
        (["launch", "script.py"], "There is no GPU"),
    ],
)
def test_what_is_missing_is_said(arguments, message, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_the_function_is_public():
    assert tuner.launch is launcher.launch


@pytest.mark.slow
def test_a_search_runs_in_two_workers_and_its_results_are_used_once(script, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody there
    assert launch(script(SEARCH), workers=2) == 0
    trials = [line.split() for line in (tmp_path / "trials.txt").read_text().splitlines()]
    assert sorted(trial_id for trial_id, _ in trials) == list("012345")
    assert len((tmp_path / "best.txt").read_text().splitlines()) == 1
