"""A seed for all that draws at random."""

import random
import sys

import keras
import numpy as np


def seed_all(seed):
    """As `keras.utils.set_random_seed`, without the seconds that importing TensorFlow takes.

    Only for where a trial is yet to be built: KerasTuner clears Keras's session then, and with it
    Keras's own generator, which is not seeded here.
    """
    if keras.backend.backend() == "tensorflow" or "tensorflow" in sys.modules:
        keras.utils.set_random_seed(seed)
        return
    random.seed(seed)
    np.random.seed(seed)
    if keras.backend.backend() == "torch":
        import torch  # Keras seeds its generator only together with TensorFlow's

        torch.manual_seed(seed)
