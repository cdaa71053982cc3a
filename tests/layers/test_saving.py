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
    built,
    is_installed,
    make_block,
    model_of,
    random_array,
    randomize,
    run_python,
    shape_of,
)

import keras_resblocks as kr

SHAPE = (4, 7, 6, 3)


def templated_options():
    return {
        "activation": prelu(),
        "kernel_regularizer": keras.regularizers.L2(1e-3),
    }


def prelu():
    return keras.layers.PReLU(alpha_initializer="zeros", shared_axes=[1, 2])


# What blocks and poolings may be beside their first forms, for 4x3 maps of 8 channels.
FORMS = {
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


def model_of_all_blocks():
    """All three blocks in all their forms, with ELU, L2 and PReLU templates."""
    inputs = keras.Input(SHAPE[1:])
    x = kr.ResidualBlock(
        4, 2, activation=keras.layers.ELU(alpha=0.3), kernel_regularizer="l2", name="residual"
    )(inputs)
    x = kr.BottleneckBlock(
        2,
        preactivation=True,
        attention="squeeze_excite",
        normalization="group",
        drop_path_rate=0.1,
        name="bottleneck",
        **templated_options(),
    )(x)
    x = kr.InceptionBlock.v1(
        2, (2, 3), (1, 2), 1, attention="efficient_channel", name="inception", **templated_options()
    )(x)
    for form in ("atrous", "filters"):
        x = FORMS[form]()(x)
    ends = [FORMS[form]()(x) for form in ("valid", "ceil", "adaptive")]
    x = keras.layers.concatenate([keras.layers.GlobalAveragePooling2D()(end) for end in ends])
    outputs = keras.layers.Dense(3, activation="softmax", name="head")(x)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return randomize(model)


def save_with_results(folder):
    """Saves the model, and beside it inputs with what it makes of them."""
    model = model_of_all_blocks()
    inputs, targets = random_array(SHAPE), np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    np.savez(
        folder / "results.npz",
        inputs=inputs,
        targets=targets,
        outputs=model.predict(inputs, verbose=0),
        penalty=keras.ops.convert_to_numpy(sum(model.losses)),
        loss=model.evaluate(inputs, targets, verbose=0)[0],
    )
    model.save(folder / "model.keras")


COMPARE_WITH_RESULTS = """
    import sys
    import numpy as np
    import keras
    import keras_resblocks

    folder = sys.argv[1]
    results = np.load(folder + "/results.npz")
    model = keras.saving.load_model(folder + "/model.keras")
    inputs, targets = results["inputs"], results["targets"]
    close = dict(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.predict(inputs, verbose=0), results["outputs"], **close)
    penalty = keras.ops.convert_to_numpy(sum(model.losses))
    np.testing.assert_allclose(penalty, results["penalty"], **close)
    loss = model.evaluate(inputs, targets, verbose=0)[0]
    np.testing.assert_allclose(loss, results["loss"], **close)
    print("compared on", keras.backend.backend())
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_model_loads_in_a_fresh_process_on_every_backend(backend, tmp_path):
    if not is_installed(backend):
        pytest.skip(f"{backend} is not installed")
    save_with_results(tmp_path)
    printed = run_python(COMPARE_WITH_RESULTS, tmp_path, backend=backend)
    assert f"compared on {backend}" in printed


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_equal_outputs_when_loaded(form, tmp_path):
    shape = (2, 4, 3, 8)
    model = model_of(FORMS[form](), shape=shape)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = random_array(shape)
    assert_close(reloaded(inputs), model(inputs), 1e-6)
    assert reloaded.layers[-1].get_config() == model.layers[-1].get_config()


def test_reloaded_model_trains_on_as_the_original(tmp_path):
    shape = shape_of(2)
    model = model_of(kr.ResidualBlock(4, activation="elu", kernel_regularizer="l2"), shape=shape)
    model.compile("adam", "mse")
    inputs, targets = random_array(shape), random_array(shape, seed=1)
    model.fit(inputs, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    for _ in range(2):
        model.fit(inputs, targets, verbose=0)
        reloaded.fit(inputs, targets, verbose=0)
    assert_close(reloaded(inputs), model(inputs))


def test_model_with_a_shared_block_has_its_weights_once(tmp_path):
    shape = shape_of(2)
    block = kr.ResidualBlock(4)
    model = model_of(block, block, shape=shape)
    assert len(model.weights) == len(block.weights)
    model.save(tmp_path / "model.keras")
    inputs = random_array(shape)
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs), 1e-6)


@pytest.mark.parametrize("kind", BLOCKS)
def test_clone_computes_the_same_with_the_same_weights(kind):
    shape = shape_of(2)
    options = {"shortcut": "projection_always", "kernel_regularizer": "l2", "preactivation": True}
    model = model_of(make_block(kind, strides=2, **options), shape=shape)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    inputs = random_array(shape)
    assert_close(clone(inputs), model(inputs), 1e-6)
    assert_close(sum(clone.losses), sum(model.losses), 1e-6)
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_survives_model_to_json(kind):
    shape = shape_of(2)
    model = model_of(make_block(kind, **templated_options()), shape=shape)
    revived = keras.models.model_from_json(model.to_json())
    revived.set_weights(model.get_weights())
    inputs = random_array(shape)
    assert_close(revived(inputs), model(inputs), 1e-6)


def test_weights_files_fit_a_model_built_from_the_same_config(tmp_path):
    shape = shape_of(2)
    layers = [make_block(kind, attention="squeeze_excite") for kind in BLOCKS]
    model = model_of(*layers, shape=shape)
    fresh = keras.Model.from_config(model.get_config())
    inputs = random_array(shape)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    for name in ("model.keras", "model.weights.h5"):
        other = randomize(keras.Model.from_config(model.get_config()), seed=9)
        other.load_weights(tmp_path / name)
        assert_close(other(inputs), model(inputs), 1e-6)
    fresh.load_weights(tmp_path / "model.keras")
    fresh.save_weights(tmp_path / "again.weights.h5")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    randomize(reloaded, seed=9).load_weights(tmp_path / "again.weights.h5")
    assert_close(reloaded(inputs), model(inputs), 1e-6)


def test_block_in_a_subclassed_model_is_saved(tmp_path):
    shape = shape_of(2)

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

    inputs = random_array(shape)
    model = built(Subclassed(), shape)
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs), 1e-6)


LAYOUTS = {
    "residual": (
        lambda: kr.ResidualBlock(6, 2, activation=keras.layers.PReLU(), name="block"),
        """
        conv1/act/vars/0 conv1/conv/vars/0
        conv1/norm/vars/0 conv1/norm/vars/1 conv1/norm/vars/2 conv1/norm/vars/3
        conv2/conv/vars/0
        conv2/norm/vars/0 conv2/norm/vars/1 conv2/norm/vars/2 conv2/norm/vars/3
        exit_act/vars/0
        shortcut/conv/vars/0
        shortcut/norm/vars/0 shortcut/norm/vars/1 shortcut/norm/vars/2 shortcut/norm/vars/3
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
        attention/expand/vars/0 attention/expand/vars/1
        attention/reduce/vars/0 attention/reduce/vars/1
        conv1/conv/vars/0 conv1/norm/vars/0 conv1/norm/vars/1
        conv2/conv/vars/0 conv2/norm/vars/0 conv2/norm/vars/1
        conv3/conv/vars/0 conv3/conv/vars/1
        entry_norm/vars/0 entry_norm/vars/1
        shortcut/conv/vars/0 shortcut/conv/vars/1
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
        attention/conv/vars/0
        branch1_conv1/conv/vars/0 branch1_conv1/conv/vars/1
        branch2_branch1_conv1/conv/vars/0 branch2_branch1_conv1/conv/vars/1
        branch2_branch2_conv1/conv/vars/0 branch2_branch2_conv1/conv/vars/1
        branch2_branch2_conv2/conv/vars/0 branch2_branch2_conv2/conv/vars/1
        branch2_conv1/conv/vars/0 branch2_conv1/conv/vars/1
        branch3_conv1/conv/vars/0 branch3_conv1/conv/vars/1
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
        branch1_conv1/conv/vars/0
        branch1_conv1/norm/vars/0 branch1_conv1/norm/vars/1 branch1_conv1/norm/vars/2
        branch2_conv1/conv/vars/0
        branch2_conv1/norm/vars/0 branch2_conv1/norm/vars/1 branch2_conv1/norm/vars/2
        branch2_conv2/conv/vars/0
        branch2_conv2/norm/vars/0 branch2_conv2/norm/vars/1 branch2_conv2/norm/vars/2
        conv1/conv/vars/0 conv1/conv/vars/1
        exit_act/vars/0
        """,
    ),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layout_of_weights_files_is_frozen(kind, tmp_path):
    make, layout = LAYOUTS[kind]
    model = model_of(make(), shape=shape_of(2))
    model.save_weights(tmp_path / "model.weights.h5")
    paths = []
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(
            lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None
        )
    [prefix] = {path.split("/")[1] for path in paths}
    assert sorted(paths) == sorted(f"layers/{prefix}/{path}" for path in layout.split())


def test_config_is_json_and_keeps_what_was_given():
    block = kr.BottleneckBlock(
        8,
        (2, 1),
        kernel_size=(3, 1),
        activation="elu",
        normalization=None,
        shortcut=kr.shortcuts.ProjectionShortcut(use_bias=True),
        padding="same",
        expansion=2,
        stride_in_1x1=True,
        name="mine",
    )
    config = json.loads(json.dumps(block.get_config()))
    assert config["filters"] == 8
    assert config["strides"] == [2, 1]
    assert config["activation"] == "elu"
    assert config["normalization"] is None
    assert config["padding"] == "same"
    assert config["stride_in_1x1"] is True
    assert config["name"] == "mine"
    assert type(block).from_config(config).get_config() == block.get_config()


def test_building_does_not_change_the_config():
    for kind in BLOCKS:
        block = make_block(kind, normalization="layer", **templated_options())
        before = json.dumps(block.get_config())
        block.build(shape_of(2))
        assert json.dumps(block.get_config()) == before
