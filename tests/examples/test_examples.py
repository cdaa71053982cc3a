import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_resblocks as kr

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def run_example(name, *arguments):
    """The lines that an example prints."""
    process = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def accuracy_of(line):
    (accuracy,) = re.fullmatch(r"test accuracy (\d\.\d{4})", line).groups()
    return float(accuracy)


def test_digits_search_finds_a_good_small_network(tmp_path):
    lines = run_example("search_digits.py", "--out", tmp_path)
    assert sum(line.startswith("trial ") for line in lines) == 12
    assert accuracy_of(lines[-1]) >= 0.985
    assert kr.cost(keras.saving.load_model(tmp_path / "best.keras")).params <= 100_000
    assert (tmp_path / "accuracy_against_parameters.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("tuner", ["bayesian", "hyperband"])
def test_search_runs_on_a_folder_of_images(tuner, tmp_path):
    rng = np.random.default_rng(0)
    for name, brightness in (("bright", 220), ("dark", 30)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            image = brightness + rng.normal(0, 10, size=(12, 10, 3))
            keras.utils.save_img(tmp_path / "images" / name / f"{i}.png", image, scale=False)
    options = ("--data", tmp_path / "images", "--size", 8, "--trials", 2, "--epochs", 2)
    budget = ("--max-params", 30_000)
    lines = run_example(
        "search_digits.py", *options, *budget, "--tuner", tuner, "--out", tmp_path / "out"
    )
    assert 0 <= accuracy_of(lines[-1]) <= 1
    best = keras.saving.load_model(tmp_path / "out" / "best.keras")
    assert kr.cost(best).params <= 30_000


def test_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="two or more classes"):
        run_example("search_digits.py", "--data", tmp_path, "--out", tmp_path / "out")


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_backend_option_chooses_the_backend(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    options = ("--backend", backend, "--trials", 1, "--epochs", 1, "--out", tmp_path)
    lines = run_example("search_digits.py", *options)
    assert accuracy_of(lines[-1]) >= 0
    assert any(line.startswith("trial  1 of 1 |") for line in lines)
