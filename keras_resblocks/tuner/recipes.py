"""How the candidates of a search are trained: what the names of its options stand for."""

import functools
import math

import keras

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.training import PackedOptimizer, RandomShift

# Further arguments of the optimizers beside the learning rate.
OPTIMIZERS = {
    "adam": {},
    "adamw": {"weight_decay": 0.01},
    "lion": {"weight_decay": 0.01},
    "nadam": {},
    "rmsprop": {},
    "sgd": {"momentum": 0.9, "nesterov": True},
}

# What the learning rate is multiplied by, where `done` in [0, 1) of the epochs are over.
SCHEDULES = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "step": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.75)),  # He et al. 2016a, section 4.2
}

_Flip = functools.partial(keras.layers.RandomFlip, "horizontal")

# The layers of an augmentation by its name.
AUGMENTATIONS = {
    "flip": (_Flip,),
    "shift": (RandomShift,),
    "shift_and_flip": (RandomShift, _Flip),
}

# A layer of the user's own: each model gets a copy.
_layer_template = templates.Slot("augmentation", {})


def check_augmentation(value):
    """Checks one of the `augmentations` of a hypermodel."""
    if isinstance(value, str):
        validation.one_of("augmentation", value, tuple(AUGMENTATIONS))
    else:
        _layer_template.get(value)


def augmented(x, value, site):
    """Images, changed in training by a name, a Keras layer or None, at their `Site`."""
    if value is None:
        return x
    if not isinstance(value, str):
        return _layer_template.get(value).make(site, "augmentation")(x)
    for i, layer_class in enumerate(AUGMENTATIONS[value], start=1):
        x = layer_class(data_format=site.data_format, name=f"augmentation{i}")(x)
    return x


def optimizer_of(name, learning_rate, dtype, pack=PackedOptimizer):
    """A Keras optimizer by its name, for models of that dtype policy.

    Packed: to compile the steps of a small network takes longer than to train it.
    """
    config = {"learning_rate": learning_rate, **OPTIMIZERS[name]}
    optimizer = pack(keras.optimizers.get({"class_name": name, "config": config}))
    if keras.dtype_policies.get(dtype).name == "mixed_float16":  # whose gradients vanish
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def schedule_of(name, learning_rate, epochs):
    """The callback that sets the learning rate of each epoch, by nothing but its number."""
    factor = SCHEDULES[name]
    return keras.callbacks.LearningRateScheduler(
        lambda epoch, current: learning_rate * factor(min(1.0, epoch / epochs))
    )
