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
    """A way to do some workloads.

    Attributes:
        name: in the tables.
        group: whose table it stands in: a backend, or `"onnxruntime"`.
        takes: whether it does a workload.
        build: of a workload, returns the model.
        step: of a model and a workload, returns a function without arguments that does one step
            and waits for its result.
        requires: the packages it needs, by the names that are imported; before a clock runs.
        before: what has to be done before they are imported.
        backend: of Keras; by default the group.
    """

    name: str
    group: str
    takes: Callable
    build: Callable
    step: Callable | None = None
    requires: tuple = ()
    before: Callable = lambda: None
    backend: str | None = None

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
