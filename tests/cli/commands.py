"""What the tests of the command line share: tiny images, and ways to run a command."""

import functools
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np

import keras_resblocks
from keras_resblocks import cli

# A space of a few tiny networks.
TINY = ("--stages", 1, "--depths", 1, 2, "--widths", 2, 4, "--blocks", "residual")
QUICK = (*TINY, "--trials", 2, "--epochs", 1)


def images(count=30, classes=3, shape=(6, 5, 1), seed=0):
    """Images that differ in brightness by their class, uint8, and the classes."""
    y = np.arange(count) % classes
    noise = np.random.default_rng(seed).integers(0, 20, size=(count, *shape))
    return (noise + 60 * y.reshape(-1, *[1] * len(shape))).astype("uint8"), y


def write_npz(path, **arrays):
    """An `.npz` file, by default of `images()`; its path."""
    if not arrays:
        arrays = dict(zip("xy", images()))
    np.savez(path, **arrays)
    return path


def write_files(folder, files):
    """Files by their names, each with a function that writes it; the path of their folder."""
    for name, write in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name)
    return folder


def write_folder(folder, channels=3, classes=("bright", "dark", "grey"), count=10):
    """A folder of PNG files for each class; its path."""
    pictures = zip(*images(count * len(classes), len(classes), (6, 5, channels)))
    saved = {
        f"{classes[label]}/{number}.png": functools.partial(keras.utils.save_img, x=x, scale=False)
        for number, (x, label) in enumerate(pictures)
    }
    return write_files(folder, saved)


def sizes_of(loaded):
    """The numbers of images to train, validate and test with."""
    return [len(x) for x in (loaded.x, loaded.x_val, loaded.x_test)]


def run(*arguments):
    """Runs a command in this process; the exit status."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def start(*arguments, path=None):
    """Starts a command as a process, which finds modules in the folder `path` first."""
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    if path:
        root = str(pathlib.Path(keras_resblocks.__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join([str(path), root])
    command = [sys.executable, "-m", "keras_resblocks", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test in the background has inherited that a Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
