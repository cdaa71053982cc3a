"""Stochastic depth."""

import keras

from keras_resblocks import validation
from keras_resblocks.types import Config, LayerArguments, Shape, Tensor, Unpack


@keras.saving.register_keras_serializable(package="keras_resblocks")
class StochasticDepth(keras.layers.Layer):
    """Drops the whole residual of a sample, at random, during training.

    `output = input * mask / (1 - rate)` with one Bernoulli draw for each sample, so that the
    expectation is unchanged; the identity at inference.

    Args:
        rate: probability in [0, 1) that a sample's input becomes zero.
        seed: optional integer, for a reproducible sequence of masks.
        **kwargs: as in any Keras layer.

    Raises:
        ValueError: for a `rate` outside [0, 1).

    Input shape:
        `(batch, ...)`, of any rank.

    Output shape:
        That of the input.

    Examples:
        >>> import keras
        >>> from keras_resblocks import StochasticDepth
        >>> samples = StochasticDepth(0.5, seed=1)(keras.ops.ones((100, 8)), training=True)
        >>> {0.0, 2.0} == set(keras.ops.convert_to_numpy(samples).flatten().tolist())
        True

    References:
        Huang et al. 2016, "Deep Networks with Stochastic Depth", section 3, with the scale moved
        from inference to training.
    """

    def __init__(
        self, rate: float = 0.1, *, seed: int | None = None, **kwargs: "Unpack[LayerArguments]"
    ) -> None:
        super().__init__(**kwargs)
        self.rate = validation.rate("rate", rate)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        if not training or self.rate == 0.0:
            return inputs
        one_draw_a_sample = (keras.ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        return keras.random.dropout(
            inputs, self.rate, noise_shape=one_draw_a_sample, seed=self.seed_generator
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
