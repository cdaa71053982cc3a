"""Models of this package's layers as models of Keras's own."""

import inspect

import keras

from keras_resblocks.layers.composite import Composite
from keras_resblocks.models.existing.plain_forms import (
    PACKAGE,
    Place,
    copied,
    form,
    is_ours,
    policy_of,
)
from keras_resblocks.models.graphs import check_graph, cloned, copy_values, functional, is_graph


def to_plain_keras(model: keras.Model) -> keras.Model:
    """The same network of Keras's own layers: its file loads where this package is missing.

    Outputs are those of `model`, and so is training, but for the random numbers of stochastic
    depth. Each layer is one call in the graph, so that all inner activations have an `.output`.
    Names are those of the blocks and their parts: the first unit of a block `stage1_block1` is
    `stage1_block1_conv1_pad`, `stage1_block1_conv1` (the convolution), `stage1_block1_conv1_norm`
    and `stage1_block1_conv1_act`; the block's sum is `stage1_block1_add`.

    Weights, initializers, regularizers, constraints, dtype policies and what is frozen carry
    over. `remat`, `fused` and `folded` are left behind, and `NumpyHeNormal` becomes `HeNormal`.
    Layers of other packages stay as they are, nested models are made plain inside, and what was
    shared is shared again.

    Args:
        model: a functional or `Sequential` model; it is left as it is.

    Returns:
        A functional `keras.Model` of new layers with weights of its own, not compiled.

    Raises:
        ValueError: if `model` is not a graph of layers, or holds one that Keras's own layers
            cannot express, such as `RandomShift`; on PyTorch also an average of an open size with
            `padding="same"`, where it is strided or even.

    Examples:
        >>> from keras_resblocks import create_model, to_plain_keras
        >>> model = to_plain_keras(create_model("resnet20_cifar"))
        >>> model.get_layer("stage3_block3_conv2_norm").output.shape
        (None, 8, 8, 64)
        >>> model.save("plain.keras")
    """
    check_graph(model)
    conversion = _Conversion()
    plain = conversion.graph(model, name=model.name)
    conversion.copy_state()
    return plain


class _Conversion:
    """The plain layers by what they stand for: what was shared is shared again."""

    def __init__(self):
        self.made = {}
        self.nonnegative = set()  # ids of tensors, which the graph keeps
        self._copied = []  # triples of a layer, its copy and the copy's own initializers

    def graph(self, model, name):
        """The plain form of a graph of layers."""
        graph = functional(model, name)
        names = {layer.name for layer in graph.operations if form(layer) is copied}

        def call(layer, *args, **kwargs):
            if form(layer) is copied:
                inputs = keras.tree.flatten([args, kwargs])[0]
                return Place(self, set(), layer.name).twin(layer, inputs)(*args, **kwargs)
            given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
            place = Place(self, names, layer.name, given.get("training"))
            return place.expanded(layer, given["inputs"])

        plain = cloned(graph, lambda layer: layer, call)
        if not model.trainable:
            plain.trainable = False  # and its layers, until the end
        return plain

    def twin(self, layer, inputs, name):
        """One layer in place of another, to be called on `inputs` first."""
        if is_graph(layer):
            return self.graph(layer, name)
        if isinstance(layer, keras.layers.TimeDistributed):
            one = keras.Input(batch_shape=(inputs.shape[0], *inputs.shape[2:]), dtype=inputs.dtype)
            inner = Place(self, set(), layer.layer.name).twin(layer.layer, one)
            return type(layer)(**{**layer.get_config(), "layer": inner, "name": name})
        if form(layer) is not copied:
            outputs = Place(self, set(), name).expanded(layer, inputs)
            return keras.Model(inputs, outputs, name=name)
        return self.copy(layer, name=name)

    def copy(self, layer, layer_class=None, **changes):
        """A copy of a layer that is not ours, in another class if need be."""
        layer_class = layer_class or type(layer)
        if is_ours(layer_class) or isinstance(layer, Composite):
            raise _inexpressible(layer)
        config = _without_ours(layer.get_config(), layer)
        if not isinstance(layer, keras.layers.Layer):  # a plain operation
            return layer_class.from_config(config)
        if policy_of(layer) != layer.dtype_policy and layer.path != changes["name"]:
            config["dtype"] = policy_of(layer)  # a map would not know the new path
        copy = layer_class.from_config({**config, **changes})
        own = {k: v for k, v in vars(copy).items() if isinstance(v, keras.initializers.Initializer)}
        for name in own:  # JAX would compile each of them for each shape
            setattr(copy, name, keras.initializers.Zeros())
        self._copied.append((layer, copy, own))
        return copy

    def copy_state(self):
        """Gives the copies their weights, once everything is built."""
        for layer, copy, own in self._copied:
            for name, initializer in own.items():
                setattr(copy, name, initializer)
            if copy.trainable != layer.trainable:
                copy.trainable = layer.trainable
            if layer.dtype_policy.quantization_mode:  # the order of the weights may differ
                store = {}
                layer.save_own_variables(store)
                arrays = {k: keras.ops.convert_to_numpy(v) for k, v in store.items()}
                copy.load_own_variables(arrays)
            else:
                copy_values(copy, zip(layer.weights, copy.weights, strict=True))


def _inexpressible(layer):
    return ValueError(
        "`model` must hold layers that Keras's own layers can express. "
        f"Received: layer '{layer.name}' of class {type(layer).__name__}"
    )


def _without_ours(config, layer):
    """The config of a layer without objects of this package."""
    if isinstance(config, (list, tuple)):
        return type(config)(_without_ours(value, layer) for value in config)
    if not isinstance(config, dict):
        return config
    package, _, name = str(config.get("registered_name")).partition(">")
    if package == PACKAGE and name != "NumpyHeNormal":
        raise _inexpressible(layer)
    if package == PACKAGE:
        stock = {"module": "keras.initializers", "class_name": "HeNormal", "registered_name": None}
        return {**stock, "config": config["config"]}
    return {key: _without_ours(value, layer) for key, value in config.items()}
