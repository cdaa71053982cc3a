import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import keras
import nbclient
import nbformat
import numpy as np
import pytest
import safetensors.numpy
from helpers import BACKENDS, is_installed

import keras_resblocks as kr

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def start_example(name, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend(), **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run_example(*arguments, **environment):
    """The lines that an example prints."""
    process = start_example(*arguments, **environment)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.splitlines()


def accuracy_of(line):
    (accuracy,) = re.fullmatch(r"test accuracy (\d\.\d{4})", line).groups()
    return float(accuracy)


def test_digits_search_finds_a_good_small_network(tmp_path):
    lines = run_example("search_digits.py", "--out", tmp_path)
    assert sum(line.startswith("trial ") for line in lines) == 10
    assert accuracy_of(lines[-1]) >= 0.985
    assert kr.cost(keras.saving.load_model(tmp_path / "best.keras")).params <= 100_000
    assert (tmp_path / "accuracy_against_parameters.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("backend", [name for name in BACKENDS if is_installed(name)])
def test_digits_search_on_a_backend_goes_on_after_an_interruption(backend, tmp_path):
    is_interrupted = backend == keras.backend.backend()
    trials = 1 + is_interrupted
    options = ("--backend", backend, "--trials", trials, "--epochs", 1, "--out", tmp_path)
    if is_interrupted:
        first = start_example("search_digits.py", *options)
        while not first.stdout.readline().startswith("trial 0"):
            assert first.poll() is None
        first.send_signal(signal.SIGINT)
        errors = first.communicate()[1].splitlines()
        assert errors[-1] == "interrupted; the same command goes on"
    lines = run_example("search_digits.py", *options)
    shown = [line[:8] for line in lines if line.startswith("trial ")]
    assert shown == [f"trial {trials - 1} "]
    assert accuracy_of(lines[-1]) >= 0
    assert (tmp_path / "report" / "report.html").exists()


def test_finetuning_starts_from_published_weights(tmp_path):
    network = kr.create_model("resnet18", input_shape=(32, 32, 3))
    snapshot = tmp_path / "hub" / "models--timm--resnet18.a1_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)  # as the hub's own cache
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(snapshot.name)
    weights = kr.to_torch_state_dict(network, as_numpy=True)
    safetensors.numpy.save_file(weights, snapshot / "model.safetensors")
    cfg = {"input_size": [3, 224, 224], "crop_pct": 0.95, "mean": [0.5] * 3, "std": [0.5] * 3}
    (snapshot / "config.json").write_text(json.dumps({"pretrained_cfg": cfg}))

    out = tmp_path / "out"
    offline = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    lines = run_example("finetune.py", "--epochs", 0, "--out", out, **offline)
    assert accuracy_of(lines[-2]) > 0.1  # of ten classes; only the classifier was trained
    trained = safetensors.numpy.load_file(out / "finetuned.safetensors")
    assert trained.pop("fc.weight").shape == (10, 512)
    assert trained.pop("fc.bias").shape == (10,)
    assert all((array == weights[key]).all() for key, array in trained.items())

    model = keras.saving.load_model(out / "finetuned.keras")
    images = np.full((2, 8, 8, 1), 255, "uint8")
    assert model.predict(images, verbose=0).shape == (2, 10)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="for JAX and TensorFlow")
def test_losses_on_two_devices_are_those_of_one():
    losses = []
    for devices in (1, 2):
        options = ("--simulate", 2, "--devices", devices)
        used, *epochs = run_example("train_on_many_devices.py", *options)
        assert len(used.split(", ")) == devices
        losses.append([float(line.split()[-1]) for line in epochs])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0][1] < losses[0][0]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the notebook says so")
def test_the_notebook_runs_and_exports_what_it_trained(tmp_path):
    notebook = nbformat.read(EXAMPLES / "pictures.ipynb", 4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}).execute()
    texts = [o.text for cell in notebook.cells for o in cell.get("outputs", ()) if "text" in o]
    many, few = (
        float(number) for number in re.findall(r"^test accuracy (.*)$", "".join(texts), re.M)
    )
    assert many > 0.6
    assert few > 0.4  # of five classes
    assert float(texts[-1].splitlines()[-1]) < 1e-4  # between the model and its export
    assert kr.cost(keras.saving.load_model(tmp_path / "digits.keras")).params <= 60_000
