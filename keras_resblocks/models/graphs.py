"""Functional models as graphs of layers: their calls, and clones of them."""

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras


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
    """A functional model of the same layers and tensors, neither compiled nor `Sequential`.

    Args:
        name: of the new model; by default, that of `model`.
    """
    is_list = isinstance(model, keras.Sequential)
    return keras.Model(
        model.inputs[0] if is_list else model.input,
        model.outputs[0] if is_list else model.output,
        name=name or model.name,
    )


def cloned(
    graph: keras.Model, clone: Callable[[Any], Any], call: Callable[..., Any] | None = None
) -> keras.Model:
    """A functional model of other layers, connected as those of `graph`.

    Args:
        clone: from a layer to the one in its place.
        call: from that one and the arguments of a call to the outputs; None for its own call.
    """
    return keras.models.clone_model(graph, _new_inputs(graph), clone, call)


def copy_values(clone: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Gives a layer the values of other weights, as pairs of a weight and its twin in the layer."""
    for weight, twin in pairs:
        twin.assign(keras.ops.convert_to_numpy(weight))  # JAX would share a tensor
    if isinstance(clone, keras.layers.Normalization):
        clone.finalize_state()  # it computes with what its weights were at last


def _new_inputs(graph):
    """Inputs like the graph's; Keras would name them after the tensors and not the layers."""
    names = {id(x.output): x.name for x in graph.layers if isinstance(x, keras.layers.InputLayer)}
    return keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=names[id(x)]), graph.input
    )


class Calls:
    """Which layers of a functional model are called on what.

    Attributes:
        layers: dict of the layers by name.
        kinds: dict from a layer's or operation's name to that of its class.
        nodes: dict from a layer's name to the configs of its calls.
        users: dict from a layer's name to the names of those that its outputs go to.
        outputs: the names of the layers that make the outputs of the model.
        uses: how many times the outputs of each layer are used, by its name; as an output of the
            model too.
        in_training: the names of layers that are called with `training=True`.
    """

    def __init__(self, graph: keras.Model) -> None:
        config = graph.get_config()
        self.layers = {layer.name: layer for layer in graph.layers}
        self.kinds = {layer["name"]: layer["class_name"] for layer in config["layers"]}
        self.nodes = {layer["name"]: layer["inbound_nodes"] for layer in config["layers"]}
        self.in_training = {
            name
            for name, nodes in self.nodes.items()
            if any(node["kwargs"].get("training") for node in nodes)
        }
        self.uses = collections.Counter(
            name for nodes in self.nodes.values() for name, _ in tensors(nodes)
        )
        self.users = collections.defaultdict(set)
        for user, nodes in self.nodes.items():
            for name, _ in tensors(nodes):
                self.users[name].add(user)
        self.outputs = set(_output_names(config["output_layers"]))
        self.uses.update(_output_names(config["output_layers"]))


def tensors(config: Any) -> Iterator[tuple[str, tuple]]:
    """Pairs of the name of a layer and a shape, for the tensors in the config of a call."""
    return ((tensor["keras_history"][0], tensor["shape"]) for tensor in tensor_configs(config))


def tensor_configs(config: Any) -> Iterator[dict[str, Any]]:
    """The configs of the tensors in the config of a call."""
    if isinstance(config, dict) and config.get("class_name") == "__keras_tensor__":
        yield config["config"]
    elif isinstance(config, (dict, list, tuple)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from tensor_configs(value)


def _output_names(config):
    """The names of the layers in a structure of `[name, node, tensor]`."""
    if isinstance(config, (list, tuple)) and config and isinstance(config[0], str):
        yield config[0]
    elif isinstance(config, (dict, list, tuple)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _output_names(value)
