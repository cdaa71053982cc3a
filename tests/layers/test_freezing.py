"""A frozen block does not move, however it came to be frozen."""

import keras
import numpy as np
import pytest
from helpers import BLOCKS, make_block, random_array, randomize, shape_of, snapshot

SHAPE = shape_of(2, batch=4)
OPTIONS = {
    "activation": keras.layers.PReLU(shared_axes=[1, 2]),
    "attention": "squeeze_excite",
    "shortcut": "projection_always",
    "kernel_regularizer": "l2",
}


def model_with(block):
    inputs = keras.Input(SHAPE[1:])
    x = block(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(inputs, keras.layers.Dense(1, name="head")(x)))


def at_construction(kind, folder):
    return model_with(make_block(kind, trainable=False, name="block", **OPTIONS))


def set_before_build(kind, folder):
    block = make_block(kind, name="block", **OPTIONS)
    block.trainable = False
    return model_with(block)


def set_after_build(kind, folder):
    model = model_with(make_block(kind, name="block", **OPTIONS))
    model.get_layer("block").trainable = False
    return model


def reloaded(kind, folder):
    set_after_build(kind, folder).save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def constructed_frozen_and_reloaded(kind, folder):
    at_construction(kind, folder).save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def cloned(kind, folder):
    return randomize(keras.models.clone_model(set_after_build(kind, folder)))


def fit(model):
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(random_array(SHAPE), np.ones((4, 1)), epochs=2, batch_size=2, verbose=0)


def moved(before, after):
    return [not np.array_equal(b, a) for b, a in zip(before, after)]


WAYS = [
    at_construction,
    set_before_build,
    set_after_build,
    reloaded,
    constructed_frozen_and_reloaded,
    cloned,
]


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("frozen_model", WAYS, ids=lambda way: way.__name__)
def test_frozen_block_does_not_move_in_fit(kind, frozen_model, tmp_path):
    model = frozen_model(kind, tmp_path)
    block, head = model.get_layer("block"), model.get_layer("head")
    assert block.trainable is False
    assert block.trainable_weights == []
    assert len(model.trainable_weights) == 2
    before, head_before = snapshot(block), snapshot(head)
    fit(model)
    assert not any(moved(before, snapshot(block)))
    assert all(moved(head_before, snapshot(head)))


@pytest.mark.parametrize("kind", BLOCKS)
def test_trainable_block_moves_in_every_weight_and_statistic(kind):
    model = model_with(make_block(kind, name="block", **OPTIONS))
    block = model.get_layer("block")
    before = snapshot(block)
    fit(model)
    # A bias of attention behind a ReLU may be dead; kernels under L2 and statistics are not.
    still = {
        weight.path
        for weight, has_moved in zip(block.weights, moved(before, snapshot(block)))
        if not has_moved
    }
    assert not {path for path in still if "attention" not in path}
    assert not {path for path in still if path.endswith("kernel")}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("frozen_model", WAYS, ids=lambda way: way.__name__)
def test_thawed_block_has_all_its_trainable_weights_back(kind, frozen_model, tmp_path):
    block = frozen_model(kind, tmp_path).get_layer("block")
    never_frozen = model_with(make_block(kind, name="block", **OPTIONS)).get_layer("block")
    block.trainable = True
    assert [w.path for w in block.trainable_weights] == [
        w.path for w in never_frozen.trainable_weights
    ]


def test_thawed_block_moves_in_fit():
    model = at_construction("residual", None)
    block = model.get_layer("block")
    block.trainable = True
    before = snapshot(block.conv1)
    fit(model)
    assert all(moved(before, snapshot(block.conv1)))


def test_frozen_sublayer_alone_does_not_move():
    model = model_with(make_block("residual", name="block", **OPTIONS))
    block = model.get_layer("block")
    block.conv1.trainable = False
    frozen, free = snapshot(block.conv1), snapshot(block.conv2.conv)
    fit(model)
    assert not any(moved(frozen, snapshot(block.conv1)))
    assert all(moved(free, snapshot(block.conv2.conv)))
