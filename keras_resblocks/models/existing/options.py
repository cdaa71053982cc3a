"""A model with other options, its weights kept."""

import collections
import dataclasses
import itertools
import tempfile
import warnings

import keras
from keras import layers

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.layers.composite import Composite
from keras_resblocks.layers.residual import Block
from keras_resblocks.models import graphs
from keras_resblocks.types import ModelOptions, Unpack


def with_options(model: keras.Model, **options: "Unpack[ModelOptions]") -> keras.Model:
    """The same network with other options, and the weights of `model` wherever they fit.

    Each layer is made again from its config, as to set `layer.kernel_regularizer` of one that is
    built does nothing. Nested models, `TimeDistributed`, `SpectralNormalization` and
    `Bidirectional` are entered; a layer of your own has the options that are in its config.
    Names, sharing and what is frozen stay.

    Args:
        model: a functional or `Sequential` model; it is left as it is.
        activation: in place of hidden activations: layers, operations such as `keras.ops.relu`,
            and arguments of layers. A layer is a template: each place gets a copy. Softmax stays,
            and so does what makes the outputs of the model (but in blocks of this package), gates
            (what goes nowhere but to multiplications), and recurrent and attention layers.
        normalization: in place of batch, layer, group and RMS normalizations. One of the same
            class keeps its weights, another begins fresh. None removes them; convolutions in
            blocks then have a bias, as `use_bias=None` says there.
        kernel_initializer: of the kernels of convolutions (depthwise and pointwise ones too),
            dense, attention and recurrent layers, but not of recurrent kernels; the weights stay.
        kernel_regularizer: of the same kernels.
        kernel_constraint: of the same kernels.
        bias_initializer: of the biases of those layers; the weights stay.
        bias_regularizer: of the same biases.
        bias_constraint: of the same biases.
        dtype: of the layers with the policy that most layers have.

    Returns:
        A functional `keras.Model` with weights of its own, not compiled.

    Raises:
        ValueError: if `model` is not a graph of layers, for an unknown option or value, and for
            an option that nothing in the model has.

    Warns:
        UserWarning: if normalizations begin fresh; it says how many. The model needs training.

    Examples:
        >>> import keras
        >>> from keras_resblocks import with_options
        >>> layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.Flatten()]
        >>> theirs = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(4)])
        >>> model = with_options(theirs, activation="elu", kernel_regularizer="l2")
        >>> len(model.losses)  # one for each kernel
        2
    """
    validation.known_arguments("with_options", options, ModelOptions.__annotations__)
    graphs.check_graph(model)
    _check_quantized(model, options)
    clones = _Clones(model, {name: _read_option(name, value) for name, value in options.items()})
    changed = clones.clone(model, stays=True)
    for name, value in options.items():
        if name not in clones.used:
            raise ValueError(
                f"`{name}` must be an option that something in the model has; nothing does that "
                f"it would change. Received: {name}={validation.shown(value)}"
            )
    fresh = clones.copy_weights()
    if fresh:
        warnings.warn(
            f"{len(fresh)} normalizations begin fresh, as they are of another class: "
            f"{validation.cut(', '.join(fresh))}",
            stacklevel=2,
        )
    return changed


def _check_quantized(model, options):
    """Kernels of integers have no penalty, initializer or other dtype."""
    kernels = [weight for weight in model.weights if weight.name.endswith("kernel")]
    for name in options:
        if name.startswith(("kernel", "dtype")) and any("int" in k.dtype for k in kernels):
            raise ValueError(
                f"`{name}` must not be given for a model with quantized kernels. "
                f"Received: {name}={validation.shown(options[name])}"
            )


_KINDS = ("initializer", "regularizer", "constraint")
# The arguments of layers that an option stands for.
_KEYS = {
    **{f"kernel_{k}": [f"{w}_{k}" for w in ("kernel", "depthwise", "pointwise")] for k in _KINDS},
    **{f"bias_{k}": [f"bias_{k}"] for k in _KINDS},
}
# Arguments of layers with an `activation` that is not a hidden one of the network.
_INNER = {"recurrent_initializer", "gate_activation"}
_NOT_HIDDEN = {"linear", "softmax", "logsoftmax", "sparsemax", "glu", templates.INHERIT}

_NORMALIZATIONS = tuple(
    getattr(layers, f"{kind}Normalization") for kind in ("Batch", "Layer", "Group", "RMS")
)
_ACTIVATIONS = (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
_WRAPPERS = (layers.TimeDistributed, layers.SpectralNormalization)
# Layers that end in their activation, so that a layer behind them can take its place.
_ACTIVATED = (*graphs.KERNEL_LAYERS, layers.EinsumDense)
_OPERATIONS = {name.replace("_", "") for name in templates.activation.names} - _NOT_HIDDEN
# What may stand between a gate and its multiplication.
_RESHAPING = {"BroadcastTo", "ExpandDims", "Permute", "RepeatVector", "Reshape", "Transpose"} | {
    f"UpSampling{n}D" for n in (1, 2, 3)
}
_ANYWHERE = templates.Site(rank=0, channels=0, data_format="channels_last", dtype="float32")
_NOTHING = templates.of_class(layers.Identity)


def _read_option(name, value):
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


def _is_hidden(config):
    """Whether the config of an activation, or of a normalization, is of one to be replaced."""
    name = config.get("class_name") if isinstance(config, dict) else config
    return name is not None and name.lower().replace("_", "") not in _NOT_HIDDEN


class _Clones:
    """Clones layers; the weights are copied once everything is built."""

    def __init__(self, model, options):
        self.options = options  # by name, as `_read_option` gives them
        self.used = set()  # the names of those that something had
        policies = [layer.dtype_policy for layer in _leaves(model)] or [keras.config.dtype_policy()]
        counts = collections.Counter(policy.name for policy in policies)
        # Maps of policies have names from which Keras cannot make them.
        self._default_policy = max(policies, key=lambda policy: counts[policy.name])
        self._usual_policy = self._default_policy.name
        self._clones = {}  # what was shared is shared again
        self._copied = []  # pairs of a layer and its clone, those inside a layer before it
        self._plugged = {}  # from a template's layer to the one that it replaces or is behind
        self._behind = {}  # from a clone to the activation behind it
        self._numbers = itertools.count(2)

    def clone(self, layer, stays):
        """The layer with the options; `stays` says that it ends in no hidden activation."""
        if layer not in self._clones:
            self._clones[layer] = self._clone(layer, stays)
        return self._clones[layer]

    def copy_weights(self):
        """Copies weights and what is frozen; the paths of the normalizations that begin fresh."""
        for layer, clone in reversed(self._copied):
            graphs.copy_trainable(layer, clone)
        copied = (pair for pair in self._copied if not graphs.is_graph(pair[0]))
        return [path for layer, clone in copied for path in _copy(layer, clone)]

    def _clone(self, layer, stays):
        option = _option_of(layer)
        if graphs.is_graph(layer):
            clone = self._clone_graph(layer, stays)
        elif option in self.options and not (stays and option == "activation"):
            clone = self._plug(option, layer, layer.name)
        elif isinstance(layer, _WRAPPERS):
            clone = self._rewrap(layer, stays)
        else:
            clone = self._remake(layer, stays)
        if isinstance(layer, layers.Layer):  # and not a plain operation
            self._copied.append((layer, clone))
        return clone

    def _clone_graph(self, model, stays):
        graph = graphs.functional(model)
        calls = graphs.Calls(graph)

        def clone(layer):
            makes_outputs = stays and None in calls.users[layer.name]
            return self.clone(layer, makes_outputs or _is_gate(calls, layer.name))

        return graphs.cloned(graph, clone, self._call)

    def _call(self, layer, *args, **kwargs):
        if type(layer) is not type(self._plugged.get(layer, layer)):
            args, kwargs = [*args, *kwargs.values()][:1], {}  # another class has other arguments
        outputs = self._at_place(layer)(*args, **kwargs)
        return self._at_place(self._behind[layer])(outputs) if layer in self._behind else outputs

    def _at_place(self, layer):
        """The layer, or a copy where it is an activation with weights that has a place already."""
        replaced = self._plugged.get(layer, layer)
        is_shared = type(replaced) is type(layer) or isinstance(replaced, _NORMALIZATIONS)
        if is_shared or not (layer.built and layer.weights):
            return layer
        name = f"{layer.name}_place{next(self._numbers)}"
        return type(layer).from_config({**layer.get_config(), "name": name})

    def _plug(self, option, layer, name):
        """The template's layer for the place of `layer`, or behind it."""
        self.used.add(option)
        site = _site(layer, self._policy(layer))
        layer_class, config = (self.options[option] or _NOTHING).recipe(site)
        placed = {"name": name, "trainable": getattr(layer, "trainable", True)}
        plugged = layer_class.from_config({**config, **placed})
        self._plugged[plugged] = layer
        return plugged

    def _rewrap(self, layer, stays):
        inner = self.clone(layer.layer, stays)
        if inner in self._behind:
            raise self._no_place_in(layer)
        return type(layer)(**{**self._config(layer, stays), "layer": inner})

    def _remake(self, layer, stays):
        config = self._config(layer, stays)
        if isinstance(layer, Composite) or not self._changes("activation", config, stays):
            return graphs.remade(layer, config)
        self.used.add("activation")
        template = self.options["activation"]
        function = _as_function(template)
        clone = type(layer).from_config({**config, "activation": function})
        if template is not None and function is None:
            if not isinstance(layer, _ACTIVATED):
                raise self._no_place_in(layer)
            self._behind[clone] = self._plug("activation", layer, f"{layer.name}_activation")
        return clone

    def _no_place_in(self, layer):
        return ValueError(
            f"`activation` must be a function for the {type(layer).__name__} '{layer.name}', in "
            "which there is no place for a layer. "
            f"Received: activation={validation.cut(self.options['activation'].config)}"
        )

    # Configs

    def _policy(self, layer):
        """The dtype policy of the clone of a layer, or of the layer in place of an operation."""
        policy = getattr(layer, "dtype_policy", self._default_policy)
        if "dtype" not in self.options or policy.name != self._usual_policy:
            return policy
        self.used.add("dtype")
        return self.options["dtype"]

    def _config(self, layer, stays):
        """The config of a layer with the options, but for the `activation` of one of Keras."""
        config = self._inside(layer.get_config())
        if isinstance(layer, layers.Layer):  # and not a plain operation
            config["dtype"] = keras.dtype_policies.serialize(self._policy(layer))
        if isinstance(layer, Composite):
            stays = stays and not isinstance(layer, Block)
            self._set_template(config, "activation", stays)
            if not config.get("folded"):
                self._set_template(config, "normalization")
                if isinstance(config.get("shortcut"), dict):
                    self._set_template(config["shortcut"]["config"], "normalization")
        return config

    def _changes(self, option, config, stays=False):
        """Whether the activation or normalization in a config is to be replaced."""
        stays = stays or (option == "activation" and _INNER & config.keys())
        return option in self.options and not stays and _is_hidden(config.get(option))

    def _set_template(self, config, option, stays=False):
        """Sets an option of a layer of this package, and that of its exit."""
        if self._changes(option, config, stays):
            self.used.add(option)
            keys = [key for key in (option, f"exit_{option}") if _is_hidden(config.get(key))]
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
        if graphs.is_graph(layer):
            yield from _leaves(layer)
        elif not isinstance(layer, layers.InputLayer):
            yield layer


def _as_function(template):
    """An activation as a layer's `activation` in JSON; None for none, and for one with a layer."""
    layer_class, config = (template or _NOTHING).recipe(_ANYWHERE)
    if layer_class is not layers.Activation:
        return None
    return keras.activations.serialize(keras.activations.get(config["activation"]))


def _option_of(layer):
    """The option that a layer, or an operation, is the value of; else None."""
    if isinstance(layer, _NORMALIZATIONS):
        return "normalization"
    is_activation = isinstance(layer, _ACTIVATIONS)
    if isinstance(layer, layers.Activation):
        is_activation = _is_hidden(layer.get_config()["activation"])
    elif not isinstance(layer, layers.Layer):
        is_activation = type(layer).__name__.lower() in _OPERATIONS
    return "activation" if is_activation else None


def _is_gate(calls, name):
    """Whether the outputs of a layer go nowhere but to multiplications, reshaped or not."""
    kinds = {user: calls.kinds.get(user) for user in calls.users[name]}
    return bool(kinds) and all(
        kind == "Multiply" or (kind in _RESHAPING and _is_gate(calls, user))
        for user, kind in kinds.items()
    )


def _site(layer, policy):
    """Where a layer stands; a normalization says which axis is that of the channels."""
    is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    site = dataclasses.replace(_ANYWHERE, dtype=policy if is_map else policy.name)
    if not isinstance(layer, _NORMALIZATIONS):
        return site
    shape = layer.get_build_config()["input_shape"]
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[-1]
    is_first = axis % len(shape) == 1 and len(shape) > 2
    return dataclasses.replace(
        site,
        rank=len(shape) - 2,
        channels=shape[axis],
        data_format="channels_first" if is_first else "channels_last",
    )


def _copy(layer, clone):
    """Copies the weights of a layer; the paths of the normalizations that begin fresh."""
    if isinstance(layer, Composite):
        twins = {twin.name: twin for twin in clone.sublayers()}
        for sublayer in layer.sublayers():
            if sublayer.name in twins:
                graphs.copy_trainable(sublayer, twins[sublayer.name])
                yield from _copy(sublayer, twins[sublayer.name])
    elif isinstance(layer, _WRAPPERS):
        graphs.copy_own_variables(layer, clone)
    elif hasattr(layer, "save_assets"):  # a vocabulary
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            clone.load_assets(folder)
    elif not _assign(layer, clone) and isinstance(layer, _NORMALIZATIONS) and clone.weights:
        yield layer.path


def _assign(layer, clone):
    """Copies the weights to a layer of the same class; whether they all fit."""
    if type(layer) is not type(clone):
        return False
    pairs = list(zip(layer.weights, clone.weights))
    if isinstance(layer, _NORMALIZATIONS):  # which may have a gain or an offset more, or less
        named = {weight.name: weight for weight in layer.weights}
        pairs = [(named[twin.name], twin) for twin in clone.weights if twin.name in named]
    fitting = [(weight, twin) for weight, twin in pairs if weight.shape == twin.shape]
    graphs.copy_values(layer, clone, fitting)
    return len(fitting) == len(pairs)
