"""A seed for all that draws at random."""

import random
import sys

import keras
import numpy as np


def seed_all(seed):
    """As `keras.utils.set_random_seed`, without importing TensorFlow on another backend.

    That takes seconds and hundreds of megabytes, for a generator that nothing uses. Keras's own
    generator of seeds, which is made where something asks for it, is left to `clear_session`.
    """
    if keras.backend.backend() == "tensorflow" or "tensorflow" in sys.modules:
        keras.utils.set_random_seed(seed)
        return
    random.seed(seed)
    np.random.seed(seed)
    if keras.backend.backend() == "torch":
        import torch  # Keras has no other way to its generator

        torch.manual_seed(seed)
