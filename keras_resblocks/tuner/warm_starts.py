"""Warm starts: a deeper candidate begins with the weights of a shallower one."""


def check(hypermodel):
    """Checks that the candidates of a hypermodel can start as shallower ones.

    Raises:
        ValueError: where they cannot, with the reason.
    """
    if not hasattr(hypermodel, "check_growth"):
        raise ValueError(
            "`warm_start=True` needs a hypermodel with `is_deeper(values, others)` and "
            f"`check_growth()`, as `ResNetHyperModel` has. Received: {hypermodel!r}"
        )
    hypermodel.check_growth()


def find(tuner, trial):
    """The weights, by layer, of the best finished trial that this one deepens; None if none.

    Args:
        tuner: of the search.
        trial: that is to begin.
    """
    values = trial.hyperparameters.values
    for other in tuner.oracle.get_best_trials(10**6):
        is_finished = other.status == "COMPLETED" and tuner.has_checkpoint(other)
        if is_finished and tuner.hypermodel.is_deeper(values, other.hyperparameters.values):
            model = tuner.load_model(other)
            return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    return None


def give(model, weights):
    """Gives the layers of a model the weights of their names; the others start as they are."""
    for name, values in (weights or {}).items():
        model.get_layer(name).set_weights(values)
