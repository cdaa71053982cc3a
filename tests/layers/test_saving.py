"""Models with the blocks, saved and loaded: in this process, a fresh one, another backend."""

import json

import h5py
import keras
import numpy as np
import pytest
from helpers import (
    BACKENDS,
    BLOCKS,
    assert_close,
    assert_equal_values,
    assert_reloads,
    built,
    is_installed,
    make_block,
    model_of,
    random_array,
    randomize,
    reloaded,
    revived,
    run_python,
    shape_of,
    side_by_side,
    snapshot,
    to_numpy,
)

import keras_resblocks as kr

SHAPE = shape_of(2)
MAPS = (2, 4, 3, 8)


def templated_options():
    return {"activation": prelu(), "kernel_regularizer": keras.regularizers.L2(1e-3)}


def prelu():
    return keras.layers.PReLU(alpha_initializer="zeros", shared_axes=[1, 2])


# What blocks and poolings may be, for `MAPS`.
FORMS = {
    "residual": lambda: kr.ResidualBlock(
        4, 2, activation=keras.layers.ELU(alpha=0.3), kernel_regularizer="l2"
    ),
    "bottleneck": lambda: kr.BottleneckBlock(
        2,
        preactivation=True,
        attention="squeeze_excite",
        normalization="group",
        drop_path_rate=0.1,
        **templated_options(),
    ),
    "inception": lambda: kr.InceptionBlock.v1(
        2, (2, 3), (1, 2), 1, attention="efficient_channel", **templated_options()
    ),
    "atrous": lambda: kr.ResidualBlock(8, 2, atrous=True, exit_activation=prelu()),
    "atrous bottleneck": lambda: kr.BottleneckBlock(
        2, (2, 1), atrous=True, dilation_rate=2, stride_in_1x1=True, exit_activation=None
    ),
    "filters": lambda: kr.InceptionBlock(
        [[2], [1, (2, 3)], ["max_pool"]],
        filters=8,
        shortcut="identity",
        residual_scale=0.2,
        exit_activation="tanh",
    ),
    "atrous filters": lambda: kr.InceptionBlock(
        [[2], [1, (2, 3)]], 2, filters=4, atrous=True, exit_activation=keras.layers.ELU(alpha=0.3)
    ),
    "valid": lambda: kr.InceptionBlock([[(2, 3)], ["max_pool"]], 2, padding="valid"),
    "ceil": lambda: kr.layers.Pooling("avg", (3, 2), (2, 2), padding="ceil"),
    "adaptive": lambda: kr.layers.AdaptiveAveragePooling((2, 1)),
}


def model_of_all():
    return side_by_side([make() for make in FORMS.values()], MAPS)


def test_all_forms_give_equal_outputs_when_loaded(tmp_path):
    model = model_of_all()
    loaded = assert_reloads(model, random_array(MAPS), tmp_path)
    for ours, theirs in zip(loaded.layers, model.layers, strict=True):
        assert ours.get_config() == theirs.get_config()


COMPARE = """
    import sys
    import numpy as np
    import keras
    import keras_resblocks

    folder = sys.argv[1]
    expected = np.load(folder + "/outputs.npz")
    model = keras.saving.load_model(folder + "/model.keras")
    for i, output in enumerate([*model(expected["inputs"]), sum(model.losses)]):
        output = keras.ops.convert_to_numpy(output)
        np.testing.assert_allclose(output, expected[f"arr_{i}"], rtol=1e-5, atol=1e-5)
    print("compared", i, "on", keras.backend.backend())
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_forms_load_in_a_fresh_process_on_every_backend(backend, tmp_path):
    if not is_installed(backend):
        pytest.skip(f"{backend} is not installed")
    model, inputs = model_of_all(), random_array(MAPS)
    outputs = [*model(inputs), sum(model.losses)]
    np.savez(tmp_path / "outputs.npz", *map(to_numpy, outputs), inputs=inputs)
    model.save(tmp_path / "model.keras")
    printed = run_python(COMPARE, tmp_path, backend=backend)
    assert f"compared {len(FORMS)} on {backend}" in printed


def test_reloaded_model_trains_on_as_the_original(tmp_path):
    model = model_of(kr.ResidualBlock(4, activation="elu", kernel_regularizer="l2"), shape=SHAPE)
    model.compile("adam", "mse")
    inputs, targets = random_array(SHAPE), random_array(SHAPE, seed=1)
    model.fit(inputs, targets, verbose=0)
    loaded = reloaded(model, tmp_path)
    for _ in range(2):
        model.fit(inputs, targets, verbose=0)
        loaded.fit(inputs, targets, verbose=0)
    assert_close(loaded(inputs), model(inputs))


def test_model_with_a_shared_block_has_its_weights_once(tmp_path):
    block = kr.ResidualBlock(4)
    model = model_of(block, block, shape=SHAPE)
    assert len(model.weights) == len(block.weights)
    assert_reloads(model, random_array(SHAPE), tmp_path)


COPIES = {
    "clone": keras.models.clone_model,
    "JSON": lambda model: keras.models.model_from_json(model.to_json()),
}


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("kind", BLOCKS)
def test_copy_computes_the_same_with_the_same_weights(kind, copied):
    options = {"shortcut": "projection_always", "preactivation": True, **templated_options()}
    model = model_of(make_block(kind, strides=2, **options), shape=SHAPE)
    copy = COPIES[copied](model)
    copy.set_weights(model.get_weights())
    inputs = random_array(SHAPE)
    assert_close(copy(inputs), model(inputs), 1e-6)
    assert_close(sum(copy.losses), sum(model.losses), 1e-6)
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}


@pytest.mark.parametrize("option", [{"fused": False}, {"remat": True}, {"drop_path_rate": 0.5}])
def test_weights_files_fit_with_an_option_and_without(option, tmp_path):
    models = [
        side_by_side([make_block(k, shortcut="projection", **o) for k in BLOCKS], SHAPE, seed)
        for seed, o in enumerate(({}, option))
    ]
    inputs, path = random_array(SHAPE), tmp_path / "a.weights.h5"
    for source, target in (models, models[::-1]):
        source.save_weights(path)
        randomize(target, seed=5).load_weights(path)
        assert_equal_values(snapshot(target), snapshot(source), 0)
        assert_equal_values(target(inputs), source(inputs))


@keras.saving.register_keras_serializable("keras_resblocks_tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [make_block(kind) for kind in BLOCKS]

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


def test_block_in_a_subclassed_model_is_saved(tmp_path):
    assert_reloads(built(Subclassed(), SHAPE), random_array(SHAPE), tmp_path)


# A block, and the paths in its weights file, each with the number of weights there.
LAYOUTS = {
    "residual": (
        lambda: kr.ResidualBlock(6, 2, activation=keras.layers.PReLU(), name="block"),
        """
        conv1/act*1 conv1/conv*1 conv1/norm*4 conv2/conv*1 conv2/norm*4 exit_act*1
        shortcut/conv*1 shortcut/norm*4
        """,
    ),
    "bottleneck": (
        lambda: kr.BottleneckBlock(
            2,
            preactivation=True,
            normalization="layer",
            attention="squeeze_excite",
            drop_path_rate=0.1,
            name="block",
        ),
        """
        attention/expand*2 attention/reduce*2 conv1/conv*1 conv1/norm*2 conv2/conv*1
        conv2/norm*2 conv3/conv*2 entry_norm*2 shortcut/conv*2
        """,
    ),
    "inception": (
        lambda: kr.InceptionBlock(
            [[1], [2, [[(1, 3)], [2, (2, 3)]]], ["max_pool", 1]],
            normalization=None,
            attention="efficient_channel",
            name="block",
        ),
        """
        attention/conv*1 branch1_conv1/conv*2 branch2_branch1_conv1/conv*2
        branch2_branch2_conv1/conv*2 branch2_branch2_conv2/conv*2 branch2_conv1/conv*2
        branch3_conv1/conv*2
        """,
    ),
    "inception_resnet": (
        lambda: kr.InceptionBlock(
            [[1], [1, (2, 3)], ["max_pool"]],
            filters=4,
            shortcut="identity",
            residual_scale=0.2,
            exit_activation=prelu(),
            normalization=keras.layers.BatchNormalization(scale=False),
            name="block",
        ),
        """
        branch1_conv1/conv*1 branch1_conv1/norm*3 branch2_conv1/conv*1 branch2_conv1/norm*3
        branch2_conv2/conv*1 branch2_conv2/norm*3 conv1/conv*2 exit_act*1
        """,
    ),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layout_of_weights_files_is_frozen(kind, tmp_path):
    make, layout = LAYOUTS[kind]
    model_of(make(), shape=SHAPE).save_weights(tmp_path / "model.weights.h5")
    paths = []
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(
            lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None
        )
    [prefix] = {path.split("/")[1] for path in paths}
    counts = [entry.split("*") for entry in layout.split()]
    expected = [f"{path}/vars/{i}" for path, count in counts for i in range(int(count))]
    assert sorted(paths) == sorted(f"layers/{prefix}/{path}" for path in expected)


def test_config_is_json_and_keeps_what_was_given():
    given = {
        "filters": 8,
        "strides": (2, 1),
        "kernel_size": (3, 1),
        "activation": "elu",
        "normalization": None,
        "padding": "same",
        "expansion": 2,
        "stride_in_1x1": True,
        "name": "mine",
    }
    shortcut = kr.shortcuts.ProjectionShortcut(use_bias=True)
    block = kr.BottleneckBlock(shortcut=shortcut, **given)
    config = block.get_config()
    assert {key: config[key] for key in given} == given
    assert json.loads(json.dumps(config))["strides"] == [2, 1]
    assert revived(block).get_config() == config


def test_building_does_not_change_the_config():
    for kind in BLOCKS:
        block = make_block(kind, normalization="layer", **templated_options())
        before = json.dumps(block.get_config())
        block.build(SHAPE)
        assert json.dumps(block.get_config()) == before
