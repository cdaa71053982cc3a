"""From a Keras model to the same network of our blocks."""

import collections
import itertools
import re

import keras
import numpy as np

from keras_resblocks.models import graphs
from keras_resblocks.models.existing.forms import block_of
from keras_resblocks.models.existing.patterns import Graph


def from_keras(model: keras.Model) -> keras.Model:
    """The same network, with its residual and inception patterns as blocks of this package.

    Recognized are, in nested models too:

    - convolutions that meet a shortcut in a sum: `ResidualBlock` (two convolutions),
      `BottleneckBlock` (1x1, spatial, 1x1) or else an `InceptionBlock` of one branch; post- and
      pre-activation, with the shortcuts of `keras_resblocks.shortcuts`;
    - branches on one tensor that meet in a `Concatenate`: `InceptionBlock`, also with a 1x1
      convolution, a scale and a sum behind it.

    All else stays the layer that it is, as where a block cannot do it: a dropout inside, a tensor
    that is used elsewhere too, activations, epsilons or regularizers that differ.

    A block has the initializers of its first convolution, and what the names of its convolutions
    have in common (`conv2_block1`), else the name of its last layer. Weights are copied, and what
    is frozen stays so.

    Args:
        model: a functional or `Sequential` model; it is left as it is.

    Returns:
        A functional `keras.Model` of new layers, not compiled. Its outputs have been compared
        with those of `model`, on random inputs in inference.

    Raises:
        ValueError: if `model` is not a graph of layers, if nothing in it is recognized, or if
            the outputs differ by more than 1e-4 of the largest (5e-2 in half precision).

    Examples:
        >>> import keras
        >>> from keras_resblocks import from_keras
        >>> inputs = keras.Input((32, 32, 8))
        >>> x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="a_conv1")(inputs)
        >>> x = keras.layers.Conv2D(8, 3, padding="same", name="a_conv2")(x)
        >>> outputs = keras.layers.ReLU()(keras.layers.Add()([x, inputs]))
        >>> from_keras(keras.Model(inputs, outputs)).get_layer("a")
        <ResidualBlock name=a, built=True>
    """
    graphs.check_graph(model)
    recognition = _Recognition(model)
    recognized = recognition.clone(model)
    if not recognition.found:
        raise ValueError(
            "`model` must have residual or inception patterns: convolutions and a shortcut past "
            "them that meet in a sum, or branches of convolutions on one tensor that meet in a "
            f"`Concatenate`, with options that a block has. Received: model={model!r}"
        )
    recognition.copy_weights()
    _compare(model, recognized, recognition.tolerance)
    return recognized


class _Recognition:
    """Layers and what stands in their place; weights are copied once everything is built."""

    def __init__(self, model):
        self.found = False  # whether there is a block
        self._calls = dict(_calls_of_graphs(model))
        counts = collections.Counter()
        for calls in self._calls.values():
            counts.update({layer: len(calls.nodes[n]) for n, layer in calls.layers.items()})
        # Half precision has two or three digits, and each layer loses some.
        self.tolerance = 5e-2 if any("16" in layer.compute_dtype for layer in counts) else 1e-4
        self._shared = {layer for layer, count in counts.items() if count > 1}
        self._clones = {}  # what was shared is shared again
        self._copied = []  # pairs of a layer and the one in its place
        self._trainable = []  # pairs of a flag and its layer, those inside a layer before it

    def clone(self, layer):
        if layer not in self._clones:
            is_model = graphs.is_graph(layer)
            clone = self._clone_graph(layer) if is_model else graphs.remade(layer)
            if isinstance(layer, keras.layers.Layer):  # and not a plain operation
                self._copied += [] if is_model else [(layer, clone)]
                self._trainable.append((layer.trainable, clone))
            self._clones[layer] = clone
        return self._clones[layer]

    def copy_weights(self):
        for is_trainable, clone in reversed(self._trainable):
            if clone.trainable != is_trainable:
                clone.trainable = is_trainable
        for layer, clone in self._copied:
            # With the state of random generators, as layers may always be in training.
            graphs.copy_values(layer, clone, zip(layer.variables, clone.variables, strict=True))

    def _clone_graph(self, model):
        names = set(self._calls[model].nodes)
        graph = Graph(graphs.functional(model), self._calls[model], self._shared)
        places = {}  # the layers inside blocks; the last one has the block in its place
        for pattern in graph.patterns():
            others = names - {layer.name for layer in pattern.layers}
            found = block_of(pattern, _name(pattern.layers, others))
            if found is not None:
                graph.remove(pattern)
                places.update(dict.fromkeys(pattern.layers))
                places[pattern.layers[-1]] = self._add(*found)
        return graphs.cloned(graphs.functional(model), self.clone, places=places)

    def _add(self, block, pairs):
        self.found = True
        self._copied += pairs
        self._trainable += [(layer.trainable, twin) for layer, twin in pairs]
        self._trainable.append((any(x.trainable for x, _ in pairs if x.weights), block))
        return block


def _calls_of_graphs(model):
    """Pairs of a graph and its `Calls`, for the model and those nested in it."""
    calls = graphs.Calls(graphs.functional(model))
    yield model, calls
    for layer in filter(graphs.is_graph, calls.layers.values()):
        yield from _calls_of_graphs(layer)


def _name(layers, others):
    """What the names given to the convolutions begin with and no others do; else the last name."""
    names = [layer.name for layer in layers if re.match(r"Conv\dD", type(layer).__name__)]
    given = [name.split("_") for name in names if not re.fullmatch(r"conv\dd(_\d+)?", name)]
    levels = zip(*(parts[:-1] for parts in given))
    common = itertools.takewhile(lambda parts: len(set(parts)) == 1, levels)
    prefix = "_".join(parts[0] for parts in common)
    is_own = not any(f"{name}_".startswith(f"{prefix}_") for name in others)
    return prefix if prefix and is_own else layers[-1].name


def _compare(model, recognized, tolerance):
    """Raises a `ValueError` if the outputs of two models differ."""
    model = graphs.functional(model)
    is_open = any(None in x.shape[1:] for x in model.inputs)
    for size in (96, 128) if is_open else (1,):
        inputs = graphs.random_inputs(model, 2, (size,))
        with keras.StatelessScope():  # layers that are always in training change no statistics
            pairs = zip(
                *(keras.tree.flatten(x(inputs, training=False)) for x in (model, recognized))
            )
            pairs = [[keras.ops.convert_to_numpy(x).astype("float64") for x in y] for y in pairs]
        for expected, actual in pairs:
            difference = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)
            if not difference <= tolerance:  # nor if it is NaN
                raise ValueError(
                    "`model` must have the same outputs as the network recognized in it, which "
                    f"differ by {difference:.1e} of the largest. Received: model={model!r}"
                )
