"""What several test files share: shapes, arrays, products of options, processes."""

import importlib.util
import itertools
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import keras_resblocks as kr

BACKENDS = ("tensorflow", "jax", "torch")
DATA_FORMATS = ("channels_last", "channels_first")
BLOCKS = ("residual", "bottleneck", "inception")
SPATIAL = (5, 4, 6)  # odd and even, and no two alike


@keras.saving.register_keras_serializable("keras_resblocks_tests")
def registered_function(x):
    return x * keras.ops.sigmoid(x)


def make_block(kind, filters=4, strides=1, **options):
    """A block of that kind with `filters` output channels, an even number."""
    if kind == "residual":
        return kr.ResidualBlock(filters, strides, **options)
    if kind == "bottleneck":
        return kr.BottleneckBlock(filters // 2, strides, expansion=2, **options)
    half = filters // 2
    branches = [[half], [2, (filters - half - 1, 3)], ["max_pool", 1]]
    return kr.InceptionBlock(branches, strides, **options)


def shape_of(rank=2, channels=4, data_format="channels_last", batch=2, spatial=SPATIAL):
    spatial = tuple(spatial[:rank])
    if data_format == "channels_last":
        return (batch, *spatial, channels)
    return (batch, channels, *spatial)


def random_array(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def randomize(layer, seed=0):
    """Random weights and statistics, so that no term of a formula is zero or one; `layer`."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        positive = "variance" in weight.name
        value = rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(size=weight.shape)
        weight.assign((value if positive else 0.5 * value).astype("float32"))
    return layer


def built(layer, shape, seed=0):
    layer.build(shape)
    return randomize(layer, seed)


def assert_equal_values(actual, expected, tolerance=1e-5):
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, tolerance)


def twin_of(source, layer, shape):
    """`layer`, built and with the weights of `source`."""
    layer.build(shape)
    layer.set_weights(source.get_weights())
    return layer


def model_of(*layers, shape, seed=0):
    """A functional model of the layers, one after another, with random weights."""
    inputs = outputs = keras.Input(shape[1:])
    for layer in layers:
        outputs = layer(outputs)
    return randomize(keras.Model(inputs, outputs), seed)


def side_by_side(layers, shape, seed=0):
    """A functional model of one input with the output of each layer, with random weights."""
    inputs = keras.Input(shape[1:])
    return randomize(keras.Model(inputs, [layer(inputs) for layer in layers]), seed)


def snapshot(layer):
    return [to_numpy(weight).copy() for weight in layer.weights]


def assert_close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), rtol=tolerance, atol=tolerance)


def revived(layer):
    """The layer of that one's config as JSON, which is its config too."""
    config = json.dumps(layer.get_config())
    again = type(layer).from_config(json.loads(config))
    assert json.dumps(again.get_config()) == config
    return again


def reloaded(model, folder):
    """The model, saved and loaded."""
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def assert_reloads(model, inputs, folder, tolerance=1e-6):
    """Saved and loaded, the model gives equal outputs; the loaded one."""
    loaded = reloaded(model, folder)
    outputs, expected = (keras.tree.flatten(one(inputs)) for one in (loaded, model))
    assert_equal_values(outputs, expected, tolerance)
    return loaded


def refusal(use, parts, match="Received"):
    """The message of a `ValueError`, in less than a screen; it holds all the parts."""
    with pytest.raises(ValueError, match=match) as raised:
        use()
    message = str(raised.value)
    assert len(message) < 2000
    assert [part for part in parts if part not in message] == [], message
    return message


def product(options):
    """Every combination of a dict of name -> values, as dicts."""
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values))


def pairs(case):
    return set(itertools.combinations(case.items(), 2))


def covering(options, is_valid=lambda case: True, seed=0):
    """A small list of valid combinations in which every pair of valid choices meets."""
    rng = random.Random(seed)
    numbers = itertools.product(*(range(len(choices)) for choices in options.values()))
    valid = [n for n, case in zip(numbers, product(options)) if is_valid(case)]
    columns = dict(zip(options, np.array(valid, "int8").T))  # which choice each candidate has

    def case_of(candidate):
        return {name: options[name][column[candidate]] for name, column in columns.items()}

    missing = set()
    for one, other in itertools.combinations(options, 2):
        meets = np.zeros((len(options[one]), len(options[other])), bool)
        meets[columns[one], columns[other]] = True
        for i, j in np.argwhere(meets):
            missing.add(((one, options[one][i]), (other, options[other][j])))
    cases = []
    while missing:
        (one, this), (other, that) = min(missing, key=repr)
        has_one = columns[one] == options[one].index(this)
        holders = np.flatnonzero(has_one & (columns[other] == options[other].index(that)))
        chosen = rng.sample(range(len(holders)), min(30, len(holders)))
        sample = [case_of(holders[i]) for i in chosen]
        cases.append(max(sample, key=lambda case: len(missing & pairs(case))))
        missing -= pairs(cases[-1])
    return cases


def label(case):
    return "-".join(str(value) for value in case.values())


def is_installed(backend):
    return importlib.util.find_spec(backend) is not None


def run_python(code, *arguments, backend=None):
    """Runs code in a fresh interpreter on `backend`; by default, on this process's own."""
    return _run("-c", textwrap.dedent(code), *arguments, backend=backend)


def run_together(code, environments):
    """Runs code in a fresh interpreter for each of some environments, all at once."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    backend = {"KERAS_BACKEND": keras.backend.backend()}
    started = [
        subprocess.Popen(command, env={**os.environ, **backend, **environment}, **options)
        for environment in environments
    ]
    for process in started:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output


def free_port():
    """The number of a port of this host, as text."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run_benchmark(module, *arguments):
    """Runs a module of `benchmarks` as a command, on this process's backend."""
    return _run("-m", module, *arguments, cwd=pathlib.Path(__file__).parents[1])


def _run(*arguments, backend=None, cwd=None):
    """What Python prints."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": backend or keras.backend.backend()},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
