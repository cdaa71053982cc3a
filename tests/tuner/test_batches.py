"""Batches of arrays: the same samples as Keras's, for less."""

import keras
import numpy as np
import pytest
from helpers import random_array

from keras_resblocks import tuner
from keras_resblocks.tuner import batches

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="of TensorFlow alone"
)


@pytest.mark.parametrize("shuffle", [True, False])
def test_full_batches_have_every_sample_and_one_size(shuffle):
    keras.utils.set_random_seed(0)
    x = np.arange(10.0)
    data = batches.FullBatches(x, -x, 4, shuffle)
    orders = []
    for _ in range(2):
        parts = [data[i] for i in range(len(data))]
        assert [len(images) for images, _ in parts] == [4, 4, 4]
        assert all((images == -labels).all() for images, labels in parts)
        orders.append([*np.concatenate([images for images, _ in parts])])
        assert sorted(orders[-1][:10]) == [*x]
        assert orders[-1][10:] == orders[-1][:2]
        data.on_epoch_end()
    assert (orders[0] != orders[1]) == shuffle


@on_tensorflow
@pytest.mark.parametrize("shuffle", [True, False])
def test_threadless_batches_have_every_sample(shuffle):
    x = np.arange(10.0)
    orders = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        data = batches.threadless(x, (-x).astype("int32"), 4, shuffle)
        assert len(data) == 3
        for _ in range(2):
            parts = list(data.as_numpy_iterator())
            assert [images.shape for images, _ in parts] == [(4,), (4,), (2,)]
            assert {(images.dtype.name, labels.dtype.name) for images, labels in parts} == {
                ("float32", "int32")
            }
            assert all((images == -labels).all() for images, labels in parts)
            orders.append(tuple(np.concatenate([images for images, _ in parts])))
            assert sorted(orders[-1]) == [*x]
    assert orders[:2] == orders[2:4]  # by the seed
    assert len(set(orders)) == (4 if shuffle else 1)


def fitted(*args, **kwargs):
    """The history of a model of one layer and its weights, as a list."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(*args, **kwargs, verbose=0).history
    return [history["loss"], history["val_loss"], *model.get_weights()]


@pytest.mark.parametrize("samples", [8, 12])
def test_training_is_the_same(samples):
    x, y = random_array((samples, 3)), random_array((samples, 1), 1)
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "validation_batch_size": 3}
    options |= {"x": x, "y": y, "validation_data": (x[:7].astype("float64"), y[:7])}
    args, kwargs = batches.for_fit((), options, 4)
    for a, b in zip(fitted(*args, **kwargs), fitted(**options), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def kind_of_batches(samples):
    """What arrays of so many samples are to become, four to a batch; None: they stay."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return None if tf.config.list_physical_devices("GPU") else tf.data.Dataset
    has_remainder = samples > 4 and samples % 4
    return batches.FullBatches if keras.backend.backend() == "jax" and has_remainder else None


@pytest.mark.parametrize("samples", [3, 8, 10])
@pytest.mark.parametrize("arguments", [{}, {"validation_data": None, "shuffle": False}], ids=str)
def test_arrays_become_batches(samples, arguments):
    x = np.zeros((samples, 2))
    arguments = {"batch_size": 4, "epochs": 3, **arguments}
    kind = kind_of_batches(samples)
    for args, kwargs in (((x, x), arguments), ((), {"x": x, "y": x, **arguments})):
        new_args, new_kwargs = batches.for_fit(args, kwargs, 4)
        if kind is None:
            assert new_args == args
            assert new_kwargs == kwargs
        else:
            assert isinstance(new_args[0], kind)
            if kind is batches.FullBatches:
                assert new_args[0].shuffle == arguments.get("shuffle", True)
            others = {k: v for k, v in arguments.items() if k not in ("batch_size", "shuffle")}
            assert new_kwargs == {**others, "shuffle": False}


@pytest.mark.parametrize(
    "arguments",
    [
        {"sample_weight": np.ones(10)},
        {"validation_split": 0.5},
        {"steps_per_epoch": 1},
        {"x": [[1.0]] * 10},
        {"x": {"input": np.ones(10)}},
        {"y": None},
    ],
    ids=str,
)
def test_what_it_does_not_know_stays(arguments):
    options = {"x": np.zeros((10, 2)), "y": np.zeros(10), **arguments}
    assert batches.for_fit((), options, 4) == ((), options)


@on_tensorflow
@pytest.mark.parametrize(
    "validation",
    [
        lambda x: (x, x, x[:, 0]),
        lambda x: (x, x[:4]),  # for Keras to refuse
        lambda x: iter([]),
        lambda x: [x, x],
    ],
)
def test_other_validation_data_stays(validation):
    x = np.zeros((8, 2))
    options = {"validation_data": validation(x), "validation_batch_size": 2}
    _, kwargs = batches.for_fit((x, x), options, 4)
    assert kwargs == {**options, "shuffle": False}


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="whose batches stay Keras's")
def test_the_search_uses_them(tmp_path, monkeypatch):
    seen = []

    class Watching(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, sorted(logs)))

    x, y = random_array((10, 8, 8, 1)), np.zeros(10)
    hypermodel = tuner.ResNetHyperModel((8, 8, 1), 2, depths=1, widths=4, stages=1)
    engine = tuner.RandomSearch(hypermodel, "val_loss", max_trials=1, directory=tmp_path)
    fit = keras.Model.fit
    given = []

    def spy(self, *args, **kwargs):
        given.append(type(args[0]))
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", spy)
    engine.search(
        x, y, validation_data=(x, y), epochs=2, batch_size=4, verbose=0, callbacks=[Watching()]
    )
    assert issubclass(given[0], kind_of_batches(10) or np.ndarray)
    assert seen == [(epoch, ["accuracy", "loss", "val_accuracy", "val_loss"]) for epoch in (0, 1)]


@pytest.mark.parametrize(
    ("samples", "batch_size", "expected"),
    [(288, 32, 32), (300, 32, 30), (180, 32, 30), (31, 32, 31), (293, 32, 32), (10, 32, 32)],
)
def test_an_even_batch_size_leaves_no_remainder(samples, batch_size, expected):
    assert batches.even_batch_size(samples, batch_size) == expected
