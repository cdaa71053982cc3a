"""The template rule: one description of a layer, a fresh copy of it for each place.

Whatever is pluggable (an activation, a normalization, an attention) may be given as None, a
name, a function, a config dict or a Keras layer. A layer is a *template*: only its class and
config are kept, and every place that uses it gets a copy with weights of its own.
"""

import dataclasses
import inspect
import math
import types
from typing import Literal

import keras

from keras_resblocks import validation

INHERIT: Literal["inherit"] = "inherit"  # as the owner's own option says


@dataclasses.dataclass(frozen=True)
class Site:
    """The place that a copy of a template is made for."""

    rank: int  # number of spatial axes
    channels: int
    data_format: str
    dtype: str | keras.DTypePolicy  # name of the dtype policy, or a map of policies
    # The convolution options of the owner: what is made by name follows them.
    kernel_options: dict = dataclasses.field(default_factory=dict)

    @property
    def channel_axis(self):
        return -1 if self.data_format == "channels_last" else 1


class Template:
    """Something pluggable, resolved: makes a fresh Keras layer for each place.

    Attributes:
        config: what was given, as JSON: a name, or the dict of a serialized object.
        dtype: name of the dtype policy that was given to a layer; None to follow the site.
    """

    def __init__(self, config, recipe, dtype=None):
        self.config = config
        self.dtype = dtype
        self._recipe = recipe  # site -> (layer class, config)

    def recipe(self, site):
        """The class and the config of the layer that `make` returns for `site`."""
        layer_class, config = self._recipe(site)
        site = dataclasses.replace(site, dtype=self.dtype or site.dtype)
        return layer_class, _placed({**config, "dtype": site.dtype}, site)

    def make(self, site, name, **overrides):
        """A new layer called `name`, with weights of its own."""
        layer_class, config = self.recipe(site)
        if layer_class is keras.layers.LayerNormalization and config["axis"] in (1, [1]):
            layer_class, config = LayerNormalizationOfAxis1, {**config, "axis": -1}
        return layer_class.from_config({**config, "name": name, **overrides})

    def can_start_at_zero(self, site):
        """Whether the layer has a gain, `gamma`, that may be initialized to zero."""
        layer_class, config = self._recipe(site)
        parameters = inspect.signature(layer_class.__init__).parameters
        return "gamma_initializer" in parameters and config.get("scale", True)

    def is_batch_normalization(self, site):
        """Whether the layer is Keras's own batch normalization, of the channels."""
        layer_class, config = self.recipe(site)
        if layer_class is not keras.layers.BatchNormalization:
            return False
        return (config.get("axis", -1) - site.channel_axis) % (site.rank + 2) == 0

    def __repr__(self):
        return f"<Template {self.config!r}>"


class Slot:
    """Reads one kind of pluggable argument, as `keras.activations.get` reads activations.

    Attributes:
        argument: its name, for messages.
        names: dict of name to `Template`; `"inherit"`, where there is one, stays as it is.
    """

    def __init__(self, argument, names):
        self.argument = argument
        self.names = names

    def get(self, identifier):
        """The `Template` of None, a name, a function, a config dict or a Keras layer."""
        if identifier is None or isinstance(identifier, Template):
            return identifier
        if isinstance(identifier, str):
            return self._from_name(identifier)
        if isinstance(identifier, dict):
            return self._from_dict(identifier)
        if isinstance(identifier, keras.layers.Layer):
            return self._from_layer(identifier, _given_dtype(identifier))
        if callable(identifier) and not inspect.isclass(identifier):
            return self._from_function(identifier)
        raise self._unexpected(identifier)

    def _from_name(self, name):
        if name.lower() in self.names:
            return self.names[name.lower()]
        function = keras.saving.get_registered_object(name)
        if function is None or inspect.isclass(function):
            raise self._unexpected(name)
        return self._from_function(function)

    def _from_dict(self, config):
        try:
            obj = keras.saving.deserialize_keras_object(config)
        except Exception as error:
            if _contains_lambda(config):
                raise self._lambda(config) from error
            raise bad_config(self.argument, config, error) from error
        if obj is None or isinstance(obj, dict):
            raise self._unexpected(config)
        if isinstance(obj, keras.layers.Layer):
            # A policy that Keras has written down, rather than a name, was mostly not given.
            dtype = config["config"].get("dtype")
            return self._from_layer(obj, dtype if isinstance(dtype, str) else None)
        return self.get(obj)

    def _from_layer(self, layer, dtype):
        serialized = _without_history(keras.saving.serialize_keras_object(layer))
        if _contains_lambda(serialized):
            raise self._lambda(layer)
        layer_class, config = type(layer), _without_history(layer.get_config())
        if dtype:
            serialized["config"]["dtype"] = dtype
        return Template(serialized, lambda site: (layer_class, config), dtype)

    def _from_function(self, function):
        if getattr(function, "__name__", None) == "<lambda>":
            raise self._lambda(function)
        if not isinstance(function, types.FunctionType):
            raise self._unexpected(function)
        config = keras.activations.serialize(function)
        return Template(config, _function_recipe(function))

    def _lambda(self, received):
        expectation = "not be or contain a lambda: a model with one cannot be loaded again"
        hint = (
            " Write a function and register it with `@keras.saving.register_keras_serializable()`."
        )
        return validation.bad_argument(self.argument, expectation, received, hint)

    def _unexpected(self, received):
        expectation = (
            "be None, a registered function, a Keras layer (an instance), a config dict or one of "
            f"the names {sorted(self.names)}"
        )
        hint = validation.did_you_mean(received, self.names)
        return validation.bad_argument(self.argument, expectation, received, hint)


def bad_config(argument, config, error):
    """The error for a config dict that nothing can be made from."""
    return ValueError(
        f"`{argument}` could not be made from its config ({error}). "
        f"Received: {argument}={validation.shown(config)}"
    )


def _given_dtype(layer):
    """The name of the dtype policy that a layer was given; None if it has Keras's own."""
    policy = layer.dtype_policy.name
    if policy != keras.config.dtype_policy().name:
        return policy
    # One that is equal was given too if it is among the arguments, which Keras keeps only here,
    # and only where all of them are plain values.
    arguments = getattr(getattr(layer, "_auto_config", None), "config", {})
    return policy if arguments.get("dtype") else None


def of_class(layer_class, **config):
    """The `Template` of a Keras layer, without making one."""
    serialized = {
        "module": "keras.layers",
        "class_name": layer_class.__name__,
        "config": config,
        "registered_name": None,
    }
    return Template(serialized, lambda site: (layer_class, config))


@keras.saving.register_keras_serializable(package="keras_resblocks")
class LayerNormalizationOfAxis1(keras.layers.LayerNormalization):
    """The stock layer behind a transposition.

    On PyTorch, Keras 3.15 fails at any other axis than the last (keras-team/keras#23510).
    """

    def build(self, input_shape):
        batch, channels, *others = input_shape
        super().build((batch, *others, channels))

    def call(self, inputs):
        outputs = super().call(keras.ops.moveaxis(inputs, 1, -1))
        return keras.ops.moveaxis(outputs, -1, 1)


def serialize(value):
    """The JSON form of an argument, for `get_config`."""
    if isinstance(value, Template):
        return value.config
    return keras.saving.serialize_keras_object(value)


def named(recipes):
    """Templates by their names; a recipe is a function from `Site` to a layer class and config."""
    return {name: Template(name, recipe) for name, recipe in recipes.items()}


def _function_recipe(function):
    # The function itself rather than its name, so that it need not be registered to be used.
    return lambda site: (keras.layers.Activation, {"activation": function})


def _contains_lambda(config):
    if isinstance(config, dict):
        is_lambda = config.get("class_name") == "__lambda__" or _is_code(config.get("value"))
        return is_lambda or any(map(_contains_lambda, config.values()))
    return isinstance(config, (list, tuple)) and any(map(_contains_lambda, config))


def _is_code(value):
    # All that layers with an `activation` keep of a lambda: its code, defaults and closure.
    return isinstance(value, (list, tuple)) and len(value) == 3 and isinstance(value[0], str)


def _placed(config, site):
    """The config of a layer, and of the layers inside it, fitted to the site."""
    if isinstance(config, (list, tuple)):
        return type(config)(_placed(value, site) for value in config)
    if not isinstance(config, dict):
        return config
    config = {key: _placed(value, site) for key, value in config.items()}
    if "dtype" in config and "batch_shape" not in config:  # an input has no policy
        config["dtype"] = site.dtype
    if "data_format" in config:
        config["data_format"] = site.data_format
    if config.get("axis") in (-1, [-1]):  # Keras's default, meant as "the channels"
        config["axis"] = site.channel_axis
    return config


def _without_history(config):
    # A template that was built elsewhere must not build its copies to that shape; and layers
    # inside a template that Keras has seen before, while it saves or loads, are not to be shared.
    if isinstance(config, dict):
        if "layers" in config and "input_layers" not in config:  # a Sequential
            inner = [c for c in config["layers"] if c.get("class_name") != "InputLayer"]
            config = {**config, "layers": inner}
        return {
            key: _without_history(value)
            for key, value in config.items()
            if key not in ("build_config", "build_input_shape", "shared_object_id")
        }
    if isinstance(config, (list, tuple)):
        return type(config)(map(_without_history, config))
    return config


activation = Slot(
    "activation",
    named(
        {
            name: _function_recipe(function)
            for name, function in vars(keras.activations).items()
            if isinstance(function, types.FunctionType)
            and not name.startswith("_")
            and name not in ("get", "serialize", "deserialize")
        }
    ),
)


def _normalization(layer_class, **config):
    # Epsilon as in the papers' code and in PyTorch; Keras's own default is 1e-3.
    return layer_class, {"axis": -1, "epsilon": 1e-5, **config}


normalization = Slot(
    "normalization",
    named(
        {
            "batch": lambda site: _normalization(keras.layers.BatchNormalization, momentum=0.9),
            "layer": lambda site: _normalization(keras.layers.LayerNormalization),
            # Wu & He 2018 use 32 groups; narrower layers get the most that divide their channels.
            "group": lambda site: _normalization(
                keras.layers.GroupNormalization, groups=math.gcd(32, site.channels)
            ),
            "instance": lambda site: _normalization(
                keras.layers.GroupNormalization, groups=site.channels
            ),
        }
    ),
)
