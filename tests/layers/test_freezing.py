"""A frozen block does not move, however it came to be frozen."""

import keras
import numpy as np
import pytest
from helpers import (
    BLOCKS,
    built,
    make_block,
    random_array,
    randomize,
    reloaded,
    shape_of,
    snapshot,
)

SHAPE = shape_of(2, batch=4)
OPTIONS = {
    "activation": keras.layers.PReLU(shared_axes=[1, 2]),
    "attention": "squeeze_excite",
    "shortcut": "projection_always",
    "kernel_regularizer": "l2",
}


def model_with(kind, freeze=False, **options):
    block = make_block(kind, name="block", **OPTIONS, **options)
    if freeze:
        block.trainable = False
    inputs = keras.Input(SHAPE[1:])
    x = keras.layers.GlobalAveragePooling2D()(block(inputs))
    return randomize(keras.Model(inputs, keras.layers.Dense(1, name="head")(x)))


def frozen_after_the_build(kind):
    model = model_with(kind)
    model.get_layer("block").trainable = False
    return model


WAYS = {
    "at construction": lambda kind, _: model_with(kind, trainable=False),
    "before the build": lambda kind, _: model_with(kind, freeze=True),
    "after the build": lambda kind, _: frozen_after_the_build(kind),
    "constructed, reloaded": lambda kind, path: reloaded(model_with(kind, trainable=False), path),
    "set, reloaded": lambda kind, path: reloaded(frozen_after_the_build(kind), path),
    "cloned": lambda kind, _: randomize(keras.models.clone_model(frozen_after_the_build(kind))),
}


def fit(model):
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(random_array(SHAPE), np.ones((4, 1)), epochs=2, batch_size=2, verbose=0)


def moved(before, after):
    return [not np.array_equal(b, a) for b, a in zip(before, after)]


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("way", WAYS)
def test_frozen_block_does_not_move_in_fit_and_thaws_as_a_whole(kind, way, tmp_path):
    model = WAYS[way](kind, tmp_path)
    block, head = model.get_layer("block"), model.get_layer("head")
    assert block.trainable is False
    assert block.trainable_weights == []
    assert len(model.trainable_weights) == 2
    before, head_before = snapshot(block), snapshot(head)
    fit(model)
    assert not any(moved(before, snapshot(block)))
    assert all(moved(head_before, snapshot(head)))

    block.trainable = True
    never_frozen = built(make_block(kind, name="block", **OPTIONS), SHAPE)
    paths, expected = ([w.path for w in one.trainable_weights] for one in (block, never_frozen))
    assert paths == expected


@pytest.mark.parametrize("kind", BLOCKS)
def test_trainable_block_moves_in_every_weight_and_statistic(kind):
    model = model_with(kind)
    block = model.get_layer("block")
    before = snapshot(block)
    fit(model)
    # A bias of attention behind a ReLU may be dead; kernels under L2 and statistics are not.
    for weight, has_moved in zip(block.weights, moved(before, snapshot(block))):
        may_be_dead = "attention" in weight.path and not weight.path.endswith("kernel")
        assert has_moved or may_be_dead, weight.path


def test_thawed_block_moves_in_fit():
    model = model_with("residual", trainable=False)
    block = model.get_layer("block")
    block.trainable = True
    before = snapshot(block.conv1)
    fit(model)
    assert all(moved(before, snapshot(block.conv1)))


def test_frozen_sublayer_alone_does_not_move():
    model = model_with("residual")
    block = model.get_layer("block")
    block.conv1.trainable = False
    frozen, free = snapshot(block.conv1), snapshot(block.conv2.conv)
    fit(model)
    assert not any(moved(frozen, snapshot(block.conv1)))
    assert all(moved(free, snapshot(block.conv2.conv)))
