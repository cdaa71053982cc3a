"""Runs a snippet where what it needs is stood in for.

`weights`: published files, with random values. `gpu`: one that Ray believes in. `postgresql`:
SQLite. `course`: the file that the first snippet of the guide on a course's network saves.
`scans_search`: the folder of a search of the command line.
"""

import json
import os
import pathlib
import re
import runpy
import sys

import snippets


def weights(code):
    """The files of timm on the Hub, with random values."""
    import huggingface_hub
    import safetensors.numpy

    import keras_resblocks as kr

    config = {"input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic"}
    networks = {known.name: known.network for known in kr.list_weights()}

    def hf_hub_download(repo_id, filename):
        path = pathlib.Path(f"{repo_id.replace('/', '+')}+{filename}")
        if filename == "config.json":
            path.write_text(json.dumps({"pretrained_cfg": config}))
        elif not path.exists():
            arrays = kr.to_torch_state_dict(kr.create_model(networks[repo_id]), as_numpy=True)
            safetensors.numpy.save_file(arrays, path)
        return str(path)

    huggingface_hub.hf_hub_download = hf_hub_download
    return code


def gpu(code):
    """Ray hands out a GPU without looking whether there is one."""
    import ray

    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    return code


def postgresql(code):
    """The database is a file."""
    return re.sub(r'"postgresql[^"]*"', '"sqlite:///study.db"', code)


def course(code):
    """`course.keras` is there."""
    page = "docs/guides/course-resnet.md"
    first = next(b for b in snippets.blocks("python") if b.place.startswith(page))
    exec(first.code, {})
    return code


def scans_search(code):
    """The folder of a search has its best model."""
    import keras

    from keras_resblocks.training.pictures import from_pictures

    inputs = keras.Input((32, 32, 1))
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(inputs))
    model = from_pictures(keras.Model(inputs, outputs), [*"0123456789"], 255)
    pathlib.Path("scans_search").mkdir()
    model.save("scans_search/best.keras")
    return code


def run(code, needs, folder):
    """Runs a snippet as a script in a folder, where `stdout` and `stderr` have what it prints."""
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), number)
    for need in needs:
        code = globals()[need](code)
    pathlib.Path("snippet.py").write_text(code, encoding="utf-8")
    sys.argv, sys.path[0] = ["snippet.py"], str(folder)
    runpy.run_path("snippet.py", run_name="__main__")
