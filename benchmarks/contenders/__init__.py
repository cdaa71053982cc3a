"""Who takes part.

To add a contender, write a function that returns a `Contender` and name it in `every`: what
builds its model, and what makes of that model a step that waits for its result.
"""

import dataclasses
import importlib.util
from collections.abc import Callable

BACKENDS = ("tensorflow", "jax", "torch")


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to do some workloads."""

    name: str
    group: str  # whose table it stands in: a backend, or "onnxruntime"
    takes: Callable  # whether it does a workload
    build: Callable  # of a workload, returns the model
    # Of both, returns a function without arguments that does a step and waits for its result.
    step: Callable | None = None
    requires: tuple = ()  # packages, by the names that are imported before a clock runs
    before: Callable = lambda: None  # what has to be done before they are imported
    backend: str | None = None  # of Keras; by default the group

    def import_required(self):
        """Imports what is needed, which is not part of any measurement."""
        self.before()
        for name in self.requires:
            importlib.import_module(name)

    def missing(self):
        """The packages that are not installed."""
        return [name for name in self.requires if importlib.util.find_spec(name) is None]


def every(backends):
    """All contenders on these Keras backends, ours first."""
    from benchmarks.contenders import flax_resnet, keras_networks, onnx_files, torch_networks

    contenders = [c for backend in backends for c in keras_networks.contenders(backend)]
    if "torch" in backends:
        contenders += torch_networks.contenders()
    if "jax" in backends:
        contenders += flax_resnet.contenders()
    return [*contenders, *onnx_files.contenders(backends[0])]


def find(name, group, backends):
    """The contender of that name in that group."""
    (found,) = [c for c in every(backends) if (c.name, c.group) == (name, group)]
    return found
