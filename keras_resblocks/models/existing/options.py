"""A model with other options, its weights kept."""

import dataclasses
import itertools
import tempfile
import warnings

import keras
from keras import layers

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.layers.composite import Composite
from keras_resblocks.models.existing.configs import NOT_HIDDEN, Configs, is_hidden, read_option
from keras_resblocks.models.graphs import (
    Calls,
    check_graph,
    cloned,
    copy_values,
    functional,
    is_graph,
)
from keras_resblocks.types import ModelOptions, Unpack


def with_options(model: keras.Model, **options: "Unpack[ModelOptions]") -> keras.Model:
    """The same network with other options, and the weights of `model` wherever they fit.

    To set `layer.kernel_regularizer` of a layer that is built does nothing. Here each layer is
    made again from its config with the options. Nested models, `TimeDistributed`,
    `SpectralNormalization` and `Bidirectional` are entered; a layer of your own has those
    options that are arguments in its config. Names, sharing and what is frozen stay.

    Args:
        model: a functional or `Sequential` model; it is left as it is.
        activation: in place of hidden activations: layers, operations such as `keras.ops.relu`,
            and the `activation` of convolutions, dense layers and blocks. A layer is a template:
            each place gets a copy. These stay: softmax, what makes the outputs of the model (but
            in blocks of this package), gates (what goes nowhere but to multiplications), and
            activations of recurrent and attention layers. Where there is none, none is added.
        normalization: in place of batch, layer, group and RMS normalizations. One of the same
            class keeps its weights, another begins fresh. None removes them; convolutions in
            blocks then have a bias, as `use_bias=None` says there.
        kernel_initializer: of the kernels of convolutions (depthwise and pointwise ones too),
            dense, attention and recurrent layers, but not of recurrent kernels. The weights
            stay: it is for those who build the network again.
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
    check_graph(model)
    _check_quantized(model, options)
    configs = Configs(model, {name: read_option(name, value) for name, value in options.items()})
    clones = _Clones(configs)
    changed = clones.clone(model, stays=True)
    for name, value in options.items():
        if name not in configs.used:
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


_NORMALIZATIONS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
)
_ACTIVATIONS = (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
_WRAPPERS = (layers.TimeDistributed, layers.SpectralNormalization)
# Layers that end in their activation, so that a layer behind them can take its place.
_ACTIVATED = (
    layers.Dense,
    layers.EinsumDense,
    *(getattr(layers, f"Conv{n}D{end}") for n in (1, 2, 3) for end in ("", "Transpose")),
    *(getattr(layers, f"{kind}Conv{n}D") for n in (1, 2) for kind in ("Depthwise", "Separable")),
)
_OPERATIONS = {name.replace("_", "") for name in templates.activation.names} - NOT_HIDDEN
# What may stand between a gate and its multiplication.
_RESHAPING = {"BroadcastTo", "ExpandDims", "Permute", "RepeatVector", "Reshape", "Transpose"} | {
    f"UpSampling{n}D" for n in (1, 2, 3)
}
_ANYWHERE = templates.Site(rank=0, channels=0, data_format="channels_last", dtype="float32")
_NOTHING = templates.of_class(layers.Identity)


class _Clones:
    """Clones layers; the weights are copied once everything is built."""

    def __init__(self, configs):
        self._configs = configs
        self._clones = {}  # what was shared is shared again
        self._models = []  # pairs of a model and its clone
        self._copied = []  # pairs of a layer and its clone
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
        for model, clone in self._models:
            if clone.trainable != model.trainable:
                clone.trainable = model.trainable
        return [path for layer, clone in self._copied for path in _copy(layer, clone)]

    def _clone(self, layer, stays):
        if is_graph(layer):
            return self._clone_graph(layer, stays)
        option = _option_of(layer)
        if option in self._configs.options and not (stays and option == "activation"):
            clone = self._plug(option, layer, layer.name)
        elif isinstance(layer, _WRAPPERS):
            clone = self._rewrap(layer, stays)
        else:
            clone = self._remake(layer, stays)
        if isinstance(layer, layers.Layer):  # and not a plain operation
            self._copied.append((layer, clone))
        return clone

    def _clone_graph(self, model, stays):
        graph = functional(model)
        calls = Calls(graph)

        def clone(layer):
            makes_outputs = stays and layer.name in calls.outputs
            return self.clone(layer, makes_outputs or _is_gate(calls, layer.name))

        twin = cloned(graph, clone, self._call)
        self._models.append((model, twin))
        return twin

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
        self._configs.used.add(option)
        site = _site(layer, self._configs.policy(layer))
        layer_class, config = (self._configs.options[option] or _NOTHING).recipe(site)
        placed = {"name": name, "trainable": getattr(layer, "trainable", True)}
        plugged = layer_class.from_config({**config, **placed})
        self._plugged[plugged] = layer
        return plugged

    def _rewrap(self, layer, stays):
        inner = self.clone(layer.layer, stays)
        if inner in self._behind:
            raise self._no_place_in(layer)
        return type(layer)(**{**self._configs.of(layer, stays), "layer": inner})

    def _remake(self, layer, stays):
        config = self._configs.of(layer, stays)
        if isinstance(layer, layers.Lambda):  # as code, its function would lose its globals
            return type(layer)(**{**config, "function": layer.function})
        if isinstance(layer, Composite) or not self._configs.changes("activation", config, stays):
            return type(layer).from_config(config)
        self._configs.used.add("activation")
        template = self._configs.options["activation"]
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
            f"Received: activation={validation.cut(self._configs.options['activation'].config)}"
        )


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
    if isinstance(layer, layers.Activation):
        is_activation = is_hidden(layer.get_config()["activation"])
    elif isinstance(layer, layers.Layer):
        is_activation = isinstance(layer, _ACTIVATIONS)
    else:
        is_activation = type(layer).__name__.lower() in _OPERATIONS
    return "activation" if is_activation else None


def _is_gate(calls, name):
    """Whether the outputs of a layer go nowhere but to multiplications, reshaped or not."""
    if not calls.users[name] or name in calls.outputs:
        return False
    return all(
        calls.kinds[user] == "Multiply"
        or (calls.kinds[user] in _RESHAPING and _is_gate(calls, user))
        for user in calls.users[name]
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
    """Copies weights and what is frozen; the paths of the normalizations that begin fresh."""
    if clone.trainable != layer.trainable:
        clone.trainable = layer.trainable
    if isinstance(layer, Composite):
        twins = {twin.name: twin for twin in clone.sublayers()}
        for sublayer in layer.sublayers():
            if sublayer.name in twins:
                yield from _copy(sublayer, twins[sublayer.name])
    elif isinstance(layer, _WRAPPERS):
        store = {}
        layer.save_own_variables(store)
        clone.load_own_variables({k: keras.ops.convert_to_numpy(v) for k, v in store.items()})
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
    if isinstance(layer, _NORMALIZATIONS) or len(layer.weights) != len(clone.weights):
        named = {weight.name: weight for weight in layer.weights}
        pairs = [(named[twin.name], twin) for twin in clone.weights if twin.name in named]
    fitting = [(weight, twin) for weight, twin in pairs if weight.shape == twin.shape]
    copy_values(clone, fitting)
    return len(fitting) == len(pairs)
