"""A loss and an augmentation that Keras lacks."""

import keras
import numpy as np
import pytest

from keras_resblocks.training import RandomShift, SmoothedSparseCategoricalCrossentropy


class TestSmoothedSparseCategoricalCrossentropy:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
    def test_is_kerass_own_of_one_hot_labels(self, smoothing):
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 5, size=(7, 1))
        predicted = rng.dirichlet(np.ones(5), size=7).astype("float32")
        expected = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)(
            np.eye(5, dtype="float32")[labels[:, 0]], predicted
        )
        one_hot = np.eye(5, dtype="float32")[labels[:, 0]]
        for given in (labels, labels[:, 0], one_hot):
            loss = SmoothedSparseCategoricalCrossentropy(smoothing)
            assert float(loss(given, predicted)) == pytest.approx(float(expected), rel=1e-5)

    def test_a_model_compiled_with_it_is_saved_and_loaded(self, tmp_path):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
        model.compile("sgd", SmoothedSparseCategoricalCrossentropy(0.2))
        model.save(tmp_path / "model.keras")
        assert keras.saving.load_model(tmp_path / "model.keras").loss.label_smoothing == 0.2

    @pytest.mark.parametrize("smoothing", [-0.1, 1.0, "much"])
    def test_a_bad_share_is_an_error(self, smoothing):
        with pytest.raises(ValueError, match=r"`label_smoothing`.*Received"):
            SmoothedSparseCategoricalCrossentropy(smoothing)


SHAPES = [(9, 2), (8, 16, 1), (4, 6, 5, 2)]


class TestRandomShift:
    @pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_each_sample_is_moved_by_whole_positions(self, shape, data_format):
        spatial = shape[:-1]
        image = np.arange(1.0, 1 + np.prod(shape), dtype="float32").reshape(shape)
        batch = np.stack([image] * 40)
        if data_format == "channels_first":
            batch = np.moveaxis(batch, -1, 1)
        layer = RandomShift(0.25, data_format=data_format, seed=1)
        moved = keras.ops.convert_to_numpy(layer(batch, training=True))
        if data_format == "channels_first":
            moved = np.moveaxis(moved, 1, -1)
        most = [max(1, round(size / 4)) for size in spatial]
        expected = {shifted(image, by).tobytes() for by in np.ndindex(*(2 * m + 1 for m in most))}
        found = {sample.tobytes() for sample in moved}
        assert found <= expected
        assert len(found) > 3  # each by its own

    def test_does_nothing_outside_of_training(self):
        images = np.ones((2, 8, 8, 1), "float32")
        assert (keras.ops.convert_to_numpy(RandomShift()(images)) == 1).all()

    def test_a_model_with_it_trains_and_is_saved_and_loaded(self, tmp_path):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Flatten()(RandomShift(seed=3)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(2)(x))
        model.compile("sgd", "mse")
        images = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype("float32")
        model.fit(images, np.zeros((6, 2)), batch_size=4, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(
            loaded.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-5
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"factor": 1.0}, "`factor`.*Received"),
            ({"factor": -0.1}, "`factor`.*Received"),
            ({"data_format": "channels"}, "`data_format`.*Received"),
        ],
    )
    def test_a_bad_argument_is_an_error(self, options, message):
        with pytest.raises(ValueError, match=message):
            RandomShift(**options)

    def test_an_open_size_is_an_error(self):
        with pytest.raises(ValueError, match=r"known size.*Received"):
            RandomShift()(keras.Input((None, 8, 1)))


def shifted(image, index):
    """An image moved by an index that counts from the most negative shift."""
    most = [max(1, round(size / 4)) for size in image.shape[:-1]]
    for axis, (i, m) in enumerate(zip(index, most)):
        padded = np.pad(image, [(m, m) if a == axis else (0, 0) for a in range(image.ndim)])
        image = np.take(padded, range(i, i + image.shape[axis]), axis=axis)
    return image
