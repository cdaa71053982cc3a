"""What convolutions, normalizations and poolings compute, by each backend's own fused operations.

Each module is named like its backend and imported only there. The layers stay what they are: their
variables are read at every call, and moving statistics are assigned as Keras does. A module has

- `fuse(layers, stock, inlined, owns_input=False)`, a function of `(inputs, training)` that
  computes, one after another, what `layers` do. They are built Keras layers, or other parts of a
  chain. `stock` makes such a function of a part that is to be called as it is, `inlined` the same,
  but it may leave the call of the layer itself out. `owns_input` says that nothing else reads the
  first one's input, so that it may be overwritten.
- `pooling(kind, pool_size, strides, amounts, data_format)`, a function that pools, the padding left
  out of account, or None if it has none. `amounts` are what to pad, a pair for each spatial axis.
"""

import importlib

import keras


def of_backend(fused):
    """The module of the backend; None if none is wanted."""
    backend = keras.backend.backend()
    known = ("jax", "tensorflow", "torch")
    return importlib.import_module(f"{__name__}.{backend}") if fused and backend in known else None
