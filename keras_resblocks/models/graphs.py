"""Functional models as graphs of layers: their calls, and clones of them."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

KERNEL_LAYERS = (
    layers.Dense,
    *(getattr(layers, f"Conv{n}D{end}") for n in (1, 2, 3) for end in ("", "Transpose")),
    *(getattr(layers, f"{kind}Conv{n}D") for n in (1, 2) for kind in ("Depthwise", "Separable")),
)


def is_graph(layer: Any) -> bool:
    """Whether this is a functional model, or a `Sequential` one that is built."""
    return isinstance(layer, keras.Model) and getattr(layer, "inputs", None) is not None


def check_graph(model: Any) -> None:
    """Raises a `ValueError` if `is_graph` is false."""
    if not is_graph(model):
        raise ValueError(
            "`model` must be a functional model, or a `Sequential` one that is built. "
            f"Received: model={model!r}"
        )


def functional(model: keras.Model, name: str | None = None) -> keras.Model:
    """A functional model of the same layers and tensors, neither compiled nor `Sequential`."""
    is_list = isinstance(model, keras.Sequential)
    outputs = model.outputs if is_list else model.output
    if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
        outputs = outputs[0]  # as a call returns it
    return keras.Model(
        model.inputs[0] if is_list else model.input, outputs, name=name or model.name
    )


def cloned(
    graph: keras.Model,
    clone: Callable[[Any], Any],
    call: Callable[..., Any] | None = None,
    places: Mapping[Any, Any] | None = None,
) -> keras.Model:
    """A functional model of other layers, connected as those of `graph`.

    Args:
        clone: from a layer to the one in its place.
        call: from that one and the arguments of a call to the outputs; None for its own call.
        places: layers that pass on the first tensor that they are given, or have a layer in
            their place that is called on that.
    """
    places = places or {}
    made = {layer for layer in places.values() if layer is not None}

    def clone_or_place(layer):
        return (places[layer] or layer) if layer in places else clone(layer)

    def called(layer, *args, **kwargs):
        if layer not in places and layer not in made:
            return call(layer, *args, **kwargs) if call else layer(*args, **kwargs)
        tensors = keras.tree.flatten((args, kwargs))
        tensor = next(x for x in tensors if isinstance(x, keras.KerasTensor))
        return layer(tensor) if layer in made else tensor

    # Keras would name the inputs after the tensors and not the layers.
    names = {id(x.output): x.name for x in graph.layers if isinstance(x, layers.InputLayer)}
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=names[id(x)]), graph.input
    )
    return keras.models.clone_model(graph, inputs, clone_or_place, called)


def remade(layer: Any, config: dict[str, Any] | None = None) -> Any:
    """A new layer, or operation, of the same class from a config, by default its own."""
    options: dict[str, Any] = layer.get_config() if config is None else config
    if isinstance(layer, layers.Lambda):  # as code, its function would lose its globals
        return type(layer)(**{**options, "function": layer.function})
    return type(layer).from_config(options)


def copy_values(layer: Any, clone: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Gives a clone the values of a layer's weights, as pairs of a weight and its twin."""
    if layer.dtype_policy.quantization_mode:  # the order of the weights may differ
        copy_own_variables(layer, clone)
        return
    for weight, twin in pairs:
        twin.assign(keras.ops.convert_to_numpy(weight))  # JAX would share a tensor
    for inner in clone._flatten_layers():  # Keras has no public way to layers inside of layers
        if isinstance(inner, layers.Normalization):
            inner.finalize_state()  # it computes with what its weights were at last


def copy_own_variables(layer: Any, clone: Any) -> None:
    """Copies what a layer saves itself: not what is inside it, and in whatever order."""
    store = {}
    layer.save_own_variables(store)
    clone.load_own_variables({k: keras.ops.convert_to_numpy(v) for k, v in store.items()})


def copy_trainable(layer: Any, clone: Any) -> None:
    """Freezes a layer as another one; to set what it has already would reach the layers inside."""
    if clone.trainable != layer.trainable:
        clone.trainable = layer.trainable


def random_inputs(model: keras.Model, batch: int, sizes: tuple[int, ...]) -> Any:
    """Random arrays as the model takes them, of these sizes in turn where its axes are open."""
    rng = np.random.default_rng(0)
    arrays = []
    for tensor in model.inputs:
        is_volume = tensor.shape[1:].count(None) > 2
        open_sizes = itertools.cycle((32,) if is_volume else sizes)
        shape = [next(open_sizes) if n is None else n for n in tensor.shape[1:]]
        arrays.append(_random(rng, (tensor.shape[0] or batch, *shape), tensor.dtype))
    return keras.tree.pack_sequence_as(model.input, arrays)


def _random(rng, shape, dtype):
    if dtype == "uint8":  # pixels
        return rng.integers(0, 256, shape, dtype)
    if "float" not in dtype:  # which may be indices, of however few things
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


class Calls:
    """Which layers and operations of a functional model are called on what, in dicts by name."""

    def __init__(self, graph: keras.Model) -> None:
        configs = graph.get_config()["layers"]
        self.layers = {layer.name: layer for layer in graph.layers}
        self.kinds = {config["name"]: config["class_name"] for config in configs}
        self.nodes = {config["name"]: config["inbound_nodes"] for config in configs}  # the calls
        # The names of those that use an output, once for each use; None for the model itself.
        self.users: dict[str, list] = {
            name: [None] * graph.output_names.count(name) for name in self.nodes
        }
        for user, nodes in self.nodes.items():
            for (name, *_), _ in tensors(nodes):
                self.users[name].append(user)


def tensors(config: Any) -> Iterator[tuple[tuple, tuple]]:
    """What computes each tensor in the config of a call (layer, call, index), and its shape."""
    if isinstance(config, dict) and config.get("class_name") == "__keras_tensor__":
        yield tuple(config["config"]["keras_history"]), tuple(config["config"]["shape"])
    elif isinstance(config, (dict, list, tuple)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from tensors(value)
