"""Search over depths and widths with KerasTuner. Needs the extra `tuner`."""

from keras_resblocks.tuner.engines import (
    BayesianOptimization,
    GridSearch,
    Hyperband,
    RandomSearch,
)
from keras_resblocks.tuner.hypermodels import ResNetHyperModel
from keras_resblocks.tuner.hyperparameters import (
    hp_activation,
    hp_regularizer,
    hp_residual_stage,
)
from keras_resblocks.tuner.report import plot_trials, print_trials, trial_rows

__all__ = [
    "BayesianOptimization",
    "GridSearch",
    "Hyperband",
    "RandomSearch",
    "ResNetHyperModel",
    "hp_activation",
    "hp_regularizer",
    "hp_residual_stage",
    "plot_trials",
    "print_trials",
    "trial_rows",
]
