"""An initializer that costs a compiler nothing."""

import math
import random
from collections.abc import Sequence

import keras
import numpy as np

from keras_resblocks import validation
from keras_resblocks.types import Config, Tensor

# The standard deviation of a standard normal distribution that is cut off at two of them.
_STANDARD_DEVIATION = 0.87962566103423978


@keras.saving.register_keras_serializable(package="keras_resblocks")
class NumpyHeNormal(keras.initializers.Initializer):
    """The distribution of `keras.initializers.HeNormal`, drawn by NumPy.

    Equal seeds give equal weights on every backend, and JAX has nothing to compile: for Keras's
    own it compiles a program for each shape of a kernel, which is nine tenths of the time that
    it takes to build a network.

    Args:
        seed: a non-negative integer; None for one that `keras.utils.set_random_seed` decides.

    Raises:
        ValueError: for another `seed`.

    Examples:
        >>> import keras
        >>> from keras_resblocks import NumpyHeNormal
        >>> layer = keras.layers.Conv2D(64, 3, kernel_initializer=NumpyHeNormal(seed=1))

    References:
        He et al. 2015, "Delving Deep into Rectifiers", section 2.2.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed if seed is None else validation.non_negative_int("seed", seed)
        # Drawn as Keras draws it: what else is seeded is not changed by the choice of initializer.
        self._seed = random.randint(1, 10**9) if seed is None else self.seed

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        rng = np.random.default_rng(self._seed)
        values = rng.standard_normal(shape, dtype="float32")
        while (is_outside := np.abs(values) > 2).any():
            values[is_outside] = rng.standard_normal(is_outside.sum(), dtype="float32")
        fan_in = math.prod(shape[:-1] or shape)
        values *= math.sqrt(2 / fan_in) / _STANDARD_DEVIATION
        return keras.ops.convert_to_tensor(values, dtype or keras.config.floatx())

    def get_config(self) -> Config:
        return {"seed": self.seed}
