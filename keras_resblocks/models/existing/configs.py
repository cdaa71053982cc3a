"""Configs of layers with other options."""

import collections

import keras

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.layers.composite import Composite
from keras_resblocks.layers.residual import Block
from keras_resblocks.models.graphs import is_graph

_KINDS = ("initializer", "regularizer", "constraint")
# The arguments of layers that an option stands for.
_KEYS = {
    **{f"kernel_{k}": [f"{w}_{k}" for w in ("kernel", "depthwise", "pointwise")] for k in _KINDS},
    **{f"bias_{k}": [f"bias_{k}"] for k in _KINDS},
}
# Arguments of layers with an `activation` that is not a hidden one of the network.
_INNER = {"recurrent_initializer", "gate_activation"}
NOT_HIDDEN = {"linear", "softmax", "logsoftmax", "sparsemax", "glu", templates.INHERIT}


def read_option(name, value):
    """The value of an option: a template, a dtype policy, or as it is in the config of a layer."""
    if name in ("activation", "normalization"):
        return getattr(templates, name).get(value)
    try:
        if name == "dtype":
            return keras.dtype_policies.get(value)
        module = getattr(keras, f"{name.partition('_')[2]}s")
        config = module.serialize(module.get(value))
        module.get(config)  # a lambda could not be loaded
        return config
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be what Keras's own layers take ({validation.cut(error)}). "
            f"Received: {name}={validation.shown(value)}"
        ) from error


def is_hidden(config):
    """Whether the config of an activation, or of a normalization, is of one to be replaced."""
    name = config.get("class_name") if isinstance(config, dict) else config
    return name is not None and name.lower().replace("_", "") not in NOT_HIDDEN


class Configs:
    """Configs of the layers of a model with other options.

    Attributes:
        options: dict of name to value, as `read_option` gives it.
        used: the names of those that something had.
    """

    def __init__(self, model, options):
        self.options = options
        self.used = set()
        policies = collections.Counter(layer.dtype_policy.name for layer in _leaves(model))
        self._usual_policy = max(policies, key=policies.get, default=None)

    def policy(self, layer):
        """The dtype policy of the clone of a layer, or of the layer in place of an operation."""
        policy = getattr(layer, "dtype_policy", keras.dtype_policies.get(self._usual_policy))
        if "dtype" not in self.options or policy.name != self._usual_policy:
            return policy
        self.used.add("dtype")
        return self.options["dtype"]

    def of(self, layer, stays):
        """The config of a layer with the options, but for the `activation` of one of Keras.

        `stays`: whether the layer ends in no hidden activation.
        """
        config = self._inside(layer.get_config())
        if isinstance(layer, keras.layers.Layer):  # and not a plain operation
            config["dtype"] = keras.dtype_policies.serialize(self.policy(layer))
        if isinstance(layer, Composite):
            stays = stays and not isinstance(layer, Block)
            self._set_template(config, "activation", stays)
            if not config.get("folded"):
                self._set_template(config, "normalization")
                if isinstance(config.get("shortcut"), dict):
                    self._set_template(config["shortcut"]["config"], "normalization")
        return config

    def changes(self, option, config, stays=False):
        """Whether the activation or normalization in a config is to be replaced."""
        stays = stays or (option == "activation" and _INNER & config.keys())
        return option in self.options and not stays and is_hidden(config.get(option))

    def _set_template(self, config, option, stays=False):
        """Sets an option of a layer of this package, and that of its exit."""
        if self.changes(option, config, stays):
            self.used.add(option)
            keys = [key for key in (option, f"exit_{option}") if is_hidden(config.get(key))]
            config.update(dict.fromkeys(keys, templates.serialize(self.options[option])))

    def _inside(self, config):
        """A config, and those of the layers inside it, with the options that are no templates."""
        changed = {key: self._value(value) for key, value in config.items()}
        for option in self.options.keys() & _KEYS.keys():
            has_none = option.startswith("bias") and config.get("use_bias") is False
            keys = [key for key in _KEYS[option] if key in config and not has_none]
            changed.update(dict.fromkeys(keys, self.options[option]))
            self.used.update([option] if keys else [])
        return changed

    def _value(self, value):
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._value, value))
        if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
            return value
        if value.get("class_name") != "DTypePolicy":
            return {**value, "config": self._inside(value["config"])}
        changes = "dtype" in self.options and value["config"].get("name") == self._usual_policy
        return keras.dtype_policies.serialize(self.options["dtype"]) if changes else value


def _leaves(model):
    for layer in model.layers:
        if is_graph(layer):
            yield from _leaves(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer
