"""Patterns in a functional model: chains of layers from one tensor to a sum or a concatenation."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from keras_resblocks.layers.units import rank_layer
from keras_resblocks.models.graphs import Calls, tensors


@dataclasses.dataclass(frozen=True)
class Node:
    """A layer or an operation that is called once."""

    layer: Any
    arguments: Any  # of the call, `(args, kwargs)`, with Keras tensors
    inputs: tuple  # for each tensor what computes it (layer, call, index), and its shape

    def run(self, *values):
        """The output for these values of the inputs."""
        values = iter(values)
        args, kwargs = keras.tree.map_structure(
            lambda x: next(values) if isinstance(x, keras.KerasTensor) else x, self.arguments
        )
        return self.layer(*args, **kwargs)

    def is_pure(self):
        """Whether the output depends on the inputs alone."""
        return not getattr(self.layer, "variables", ()) and not _takes_training(self.layer)

    def is_concatenation(self):
        """Whether this concatenates its inputs and nothing else."""
        is_all = len(keras.tree.flatten(self.arguments)) == len(self.inputs)
        return is_all and type(self.layer).__name__ == "Concatenate"

    @functools.cached_property
    def kind(self):
        """A letter: convolution, padding (z), normalization, activation, pure or other (x)."""
        layer = self.layer
        if type(layer) in _CONVS:
            has_own_weights = not (layer.lora_enabled or layer.dtype_policy.quantization_mode)
            return "c" if has_own_weights else "x"
        if type(layer) in _PADS:
            return "z"
        has_kernel = any("kernel" in weight.name for weight in getattr(layer, "weights", ()))
        if has_kernel or isinstance(layer, (keras.Model, keras.layers.Wrapper)):
            return "x"
        args, kwargs = self.arguments
        output = layer.compute_output_spec(*args, **kwargs)
        keeps_shape = [getattr(output, "shape", None)] == [shape for _, shape in self.inputs]
        if "Norm" in type(layer).__name__ and keeps_shape:
            return "n"
        return "x" if _takes_training(layer) else "a" if keeps_shape else "p"


_CONVS = [rank_layer("Conv", rank) for rank in (1, 2, 3)]
_PADS = [rank_layer("ZeroPadding", rank) for rank in (1, 2, 3)]


def _takes_training(layer):
    function = layer.function if isinstance(layer, keras.layers.Lambda) else layer.call
    return "training" in inspect.signature(function).parameters


@dataclasses.dataclass(frozen=True)
class Split:
    """A concatenation, and the branches that lead to it."""

    node: Node
    branches: list
    kind: ClassVar[str] = "s"


@dataclasses.dataclass(frozen=True)
class Part:
    """Layers that belong together, or a single one as `act`; an activation may be a function."""

    pad: Any = None
    conv: Any = None
    norm: Any = None
    act: Any = None
    plain: Sequence = ()  # nodes without weights: a pooling, a padding, a subsampling


@dataclasses.dataclass(frozen=True)
class Pattern:
    """What leads from a tensor to a sum or a concatenation, as `Part`s and `Split`s."""

    input_shape: tuple
    entry: list  # a normalization and an activation, or less
    activated: bool  # whether the shortcut reads what the entry computes
    residual: list
    scale: float  # of the residual, in the sum
    shortcut: list | None  # None: there is no sum
    exit: list  # an activation, or nothing
    layers: list  # all of them; the last one computes the output


class Graph:
    """The calls of a functional model that can be part of a pattern, those of `shared` left out."""

    def __init__(self, model: keras.Model, calls: Calls, shared: set) -> None:
        nodes = ((op, _node(op, calls.nodes[op.name])) for op in model.operations)
        self.nodes = {op.name: node for op, node in nodes if node and op not in shared}
        self.users = calls.users

    def patterns(self) -> Iterator[Pattern]:
        """What may be blocks, from the output on; those that are can be removed meanwhile."""
        for merge in reversed(self.nodes.copy().values()):
            if merge.layer.name in self.nodes and len(merge.inputs) > 1:
                yield from self._patterns_at(merge)

    def remove(self, pattern: Pattern) -> None:
        """Leaves the layers of a pattern out of all others."""
        for layer in pattern.layers:
            del self.nodes[layer.name]

    def _patterns_at(self, merge):
        chains, starts = zip(*map(self._chain, merge.inputs))
        has_convolutions = any("c" in _kinds(_flat(chain)) for chain in chains)
        if not has_convolutions or any(start != starts[0] for start in starts):
            return
        if (ends := _ends(merge, chains)) is None:
            return
        residual, scale, shortcut = ends
        n = re.match("n?a?", _kinds(residual)).end()
        exits = [] if n else self._exit(merge)
        yield _pattern(merge, starts[0], residual[:n], residual[n:], scale, shortcut, exits)
        # In a pre-activation block, the shortcut may read the activated input too.
        before, _ = self._chain(starts[0], uses=len(chains))
        entry = before[re.search("n?a?$", _kinds(before)).start() :]
        if entry and merge.layer.name in self.nodes:
            start = entry[0].inputs[0]
            yield _pattern(merge, start, entry, residual, scale, shortcut, [], activated=True)

    def _chain(self, tensor, uses=1):
        """What leads to a tensor, used so often in the pattern, from one that is used elsewhere."""
        elements = []
        while (node := self.nodes.get(tensor[0][0])) and len(self.users[tensor[0][0]]) == uses:
            element, starts = node, node.inputs
            if node.is_concatenation():
                branches, starts = zip(*map(self._chain, node.inputs))
                element = Split(node, branches)
            if any(start != starts[0] for start in starts) or (element is node and len(starts) > 1):
                break
            elements.insert(0, element)
            tensor, uses = starts[0], len(starts)
        return elements, tensor

    def _exit(self, merge):
        """The activation that is all that follows a node, in a list."""
        users = self.users[merge.layer.name]
        followers = [self.nodes[name] for name in users if name in self.nodes]
        return followers if len(users) == 1 and _kinds(followers) == "a" else []


def _node(operation, calls):
    """The `Node` of an operation; None if it is not called once, on tensors, without options."""
    inputs = tuple(tensors(calls))
    if len(calls) != 1 or not inputs:
        return None
    arguments = keras.saving.deserialize_keras_object([calls[0]["args"], calls[0]["kwargs"]])
    given = [x for x in keras.tree.flatten(arguments) if x is not None]
    is_plain = not isinstance(operation, keras.layers.Layer) or len(given) == len(inputs)
    return Node(operation, arguments, inputs) if is_plain else None


def _ends(merge, chains):
    """The residual, its scale and the shortcut that meet in a node; None if it is no sum either."""
    if merge.is_concatenation():
        return [Split(merge, chains)], 1.0, None
    factors = _factors(merge)
    if factors is None or len(factors) != 2:
        return None
    (shortcut, one), (residual, scale) = sorted(
        zip(chains, factors), key=lambda pair: _kinds(_flat(pair[0])).count("c")
    )
    return (residual, scale, shortcut) if one == 1.0 else None


def _factors(node):
    """The factors of the inputs, at most two, in a weighted sum; None if it is something else."""
    shapes = [shape for _, shape in node.inputs]
    if len(shapes) > 2 or shapes[0] != shapes[-1] or not node.is_pure():
        return None
    if type(node.layer).__name__ == "Add":
        return (1.0,) * len(shapes)
    # A lambda or a layer of one's own says nothing of what it computes: it is tried out.
    values = [example(shape, seed=i) for i, shape in enumerate(shapes)]
    output = keras.ops.convert_to_numpy(node.run(*values))
    if output.shape != values[0].shape:
        return None
    terms = np.stack([value.ravel() for value in values], axis=-1).astype("float64")
    factors = np.linalg.lstsq(terms, output.ravel(), rcond=None)[0]
    is_sum = np.allclose(terms @ factors, output.ravel(), rtol=1e-6, atol=1e-6)
    return tuple(float(f"{factor:.6g}") for factor in factors) if is_sum else None


def example(shape, size=4, seed=0):
    """Random values of a shape; `size` is for what is open."""
    shape = [1, *(size if n is None else n for n in shape[1:])]
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _pattern(merge, start, entry, residual, scale, shortcut, exits, activated=False):
    ends = exits if shortcut is None else [merge, *exits]  # a concatenation is in the residual
    nodes = list(_flat([*entry, *residual, *(shortcut or ()), *ends]))
    factor = _factors(residual[-1]) if _kinds(residual).endswith("a") else None
    if factor is not None:
        residual, scale = residual[:-1], scale * factor[0]
    return Pattern(
        input_shape=start[1],
        entry=[Part(act=_activation(node)) for node in entry],
        activated=activated,
        residual=_parts(residual),
        scale=scale,
        shortcut=None if shortcut is None else _parts(shortcut),
        exit=[Part(act=_activation(node)) for node in exits],
        layers=[node.layer for node in nodes],
    )


_PART = re.compile("(?P<unit>z?cn?a?)|(?P<split>s)|(?P<plain>[zap]+)|(?P<single>[nx])")
_FIELDS = {"z": "pad", "c": "conv", "n": "norm", "a": "act"}


def _parts(elements):
    """The elements of a chain, put together."""
    parts = []
    for match in _PART.finditer(_kinds(elements)):
        group = elements[match.start() : match.end()]
        if match["unit"]:
            parts.append(_unit({_FIELDS[node.kind]: _activation(node) for node in group}))
        elif match["split"]:
            parts.append(Split(group[0].node, list(map(_parts, group[0].branches))))
        else:
            parts.append(Part(plain=group) if match["plain"] else Part(act=group[0].layer))
    return parts


def _unit(layers):
    conv = layers["conv"]
    if conv.activation is keras.activations.linear:
        return Part(**layers)
    if "norm" in layers or "act" in layers:
        return Part(act=conv)  # which no block has: something follows the activation
    return Part(**layers, act=conv.activation)


def _activation(node):
    """The layer of a node, or for an operation the function in `keras.activations`."""
    if isinstance(node.layer, keras.layers.Layer):
        return node.layer
    name, values = type(node.layer).__name__.lower(), example(node.inputs[0][1])
    for key, function in vars(keras.activations).items():
        if key.replace("_", "") == name:
            results = map(keras.ops.convert_to_numpy, (function(values), node.run(values)))
            return function if np.allclose(*results) else node.layer
    return node.layer


def _kinds(elements):
    return "".join(element.kind for element in elements)


def _flat(elements):
    """The nodes of chains, those in splits too."""
    for element in elements:
        if isinstance(element, Split):
            for branch in element.branches:
                yield from _flat(branch)
        yield getattr(element, "node", element)
