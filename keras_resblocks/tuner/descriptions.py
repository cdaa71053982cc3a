"""What a search and its trials write down for a report."""

import contextlib
import importlib
import importlib.metadata
import platform
import sys

import keras

from keras_resblocks.models import cost
from keras_resblocks.tuner.base import TrainingHyperModel


def describe(model):
    """The costs, the summary and the shapes of a trial's model, for its record."""
    if not isinstance(model, keras.Model):  # what a hypermodel builds may be anything
        return {"cost": {}, "summary": ""}
    counted, lines = cost(model), []
    with _nothing_displayed():
        model.summary(print_fn=lambda line, **_: lines.append(line), line_length=100)
    costs = {name: getattr(counted, name) for name in ("params", "trainable_params", "macs")}
    costs["activation_memory"] = counted.activations and 4 * counted.activations  # in float32
    shapes = model.get_build_config()
    return {"cost": costs, "summary": "\n".join(lines), "build_config": shapes}


def _nothing_displayed():
    """In a notebook, a summary for `print_fn` leaves an empty box of rich's."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    if get_ipython() is None:
        return contextlib.nullcontext()
    from IPython.utils.capture import capture_output

    return capture_output()


def describe_search(hypermodel, seed=None):
    """What a search says of itself for its report: hypermodel, budget, seed and versions."""
    limits = hypermodel.budget._asdict() if isinstance(hypermodel, TrainingHyperModel) else {}
    backend = keras.backend.backend()
    packages = {"keras": keras, backend: importlib.import_module(backend)}
    versions = {name: getattr(module, "__version__", "?") for name, module in packages.items()}
    versions["keras_tuner"] = importlib.metadata.version("keras-tuner")
    return {
        "hypermodel": type(hypermodel).__name__,
        "budget": {name: limit for name, limit in limits.items() if limit is not None},
        "seed": seed,
        "versions": {"python": platform.python_version(), **versions},
    }
