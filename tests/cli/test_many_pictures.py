"""Twenty thousand pictures are read by several threads, in little memory."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

COUNT, CLASSES = 20_000, 4

# The peak is that of the process alone: `ru_maxrss` is inherited from what has started it.
SCRIPT = """
import pathlib
import re
import sys
import threading

import keras

from keras_resblocks.cli import data

threads = set()
read = data.Images.__getitem__


def noted(images, index):
    threads.add(threading.get_ident())
    return read(images, index)


def main():
    parts = data.load(sys.argv[1])
    data.Images.__getitem__ = noted
    model = keras.Sequential(
        [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data.Batches(parts.x, parts.y, 64, seed=0), epochs=1, verbose=0)
    print(sum(map(len, (parts.y, parts.y_val, parts.y_test))), len(threads))
    print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text()).group(1))


main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory by /proc")
def test_many_small_files(tmp_path):
    random = np.random.default_rng(0)
    pictures = []
    for i in range(50):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), "uint8")).save(tmp_path / f"{i}.png")
        pictures.append((tmp_path / f"{i}.png").read_bytes())
    for i in range(CLASSES):
        (tmp_path / "photos" / str(i)).mkdir(parents=True)
    for i in range(COUNT):
        path = tmp_path / "photos" / str(i % CLASSES) / f"{i}.png"
        path.write_bytes(pictures[i % len(pictures)])
    child = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "photos")], capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    count, threads, kibibytes = map(int, child.stdout.split()[-3:])
    assert count == COUNT
    assert threads >= min(2, os.cpu_count())
    assert kibibytes <= 1.5 * 2**20
