"""Augmentation that costs little beside a small network."""

import string

import keras

from keras_resblocks import validation
from keras_resblocks.types import Config, LayerArguments, Shape, Tensor, Unpack


@keras.saving.register_keras_serializable(package="keras_resblocks")
class RandomShift(keras.layers.Layer):
    """Moves each sample by whole positions along its spatial axes, in training alone.

    What moves in is zero. `keras.layers.RandomTranslation` interpolates for every position, and
    on a CPU takes many times as long as a small network does.

    Args:
        factor: the most that a sample moves, as a share in [0, 1) of each axis; at least one
            position. An eighth, the default, is the usual 4 of 32 pixels.
        data_format: `"channels_last"` or `"channels_first"`; Keras's default if None.
        seed: of the random numbers.
        **kwargs: as in any Keras layer.

    Raises:
        ValueError: for a `factor` out of its range, and for an input of open size.

    Input shape:
        `(batch, *spatial, channels)` with one, two or three spatial axes of known size, or
        channels first.

    Output shape:
        That of the input.

    Examples:
        >>> import keras
        >>> from keras_resblocks.tuner import RandomShift
        >>> shifted = RandomShift(0.25, seed=1)(keras.ops.ones((2, 8, 8, 1)), training=True)
        >>> tuple(shifted.shape)
        (2, 8, 8, 1)

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", section 4.2.
    """

    def __init__(
        self,
        factor: float = 0.125,
        *,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: "Unpack[LayerArguments]",
    ) -> None:
        super().__init__(**kwargs)
        self.factor = validation.rate("factor", factor)
        self.data_format = validation.one_of(
            "data_format",
            data_format or keras.config.image_data_format(),
            ("channels_last", "channels_first"),
        )
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        first = 1 if self.data_format == "channels_last" else 2
        spatial = range(first, first + len(input_shape) - 2)
        if None in (input_shape[axis] for axis in spatial):
            raise ValueError(
                "The input must have spatial axes of known size. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.sizes = {axis: input_shape[axis] for axis in spatial}
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training:
            return inputs
        letters = string.ascii_lowercase[: len(inputs.shape)]
        outputs = inputs
        for axis, size in self.sizes.items():
            # A product with a matrix for each sample: gathering is slow on most devices.
            source, moved = letters[axis], letters.replace(letters[axis], "z")
            sources = self._sources(inputs, size)
            outputs = keras.ops.einsum(f"az{source},{letters}->{moved}", sources, outputs)
        return outputs

    def _sources(self, inputs, size):
        """For each sample and position a one-hot vector of where its value comes from."""
        most = max(1, round(size * self.factor))
        shape = (keras.ops.shape(inputs)[0], 1)
        offsets = keras.random.randint(shape, -most, most + 1, seed=self.generator)
        positions = keras.ops.arange(size, dtype="int32")
        sources = keras.ops.expand_dims(positions + offsets, -1)  # beyond the ends: none
        return keras.ops.cast(keras.ops.equal(sources, positions), inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "factor": self.factor,
            "data_format": self.data_format,
            "seed": self.seed,
        }
