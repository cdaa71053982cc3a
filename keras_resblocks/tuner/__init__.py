"""Search over depths and widths, with KerasTuner or Optuna. Needs the extra `tuner`."""

from keras_resblocks.launcher import launch
from keras_resblocks.tuner.engines import (
    BayesianOptimization,
    GridSearch,
    Hyperband,
    RandomSearch,
)
from keras_resblocks.tuner.hypermodels import (
    InceptionHyperModel,
    NetworkHyperModel,
    ResNetHyperModel,
)
from keras_resblocks.tuner.hyperparameters import (
    hp_activation,
    hp_regularizer,
    hp_residual_stage,
)
from keras_resblocks.tuner.reports.report import plot_trials, print_trials, report, trial_rows
from keras_resblocks.tuner.space import Range
from keras_resblocks.tuner.studies.search import optuna_search
from keras_resblocks.tuner.workers import ChiefLostError

__all__ = [
    "BayesianOptimization",
    "ChiefLostError",
    "GridSearch",
    "Hyperband",
    "InceptionHyperModel",
    "NetworkHyperModel",
    "RandomSearch",
    "Range",
    "ResNetHyperModel",
    "hp_activation",
    "hp_regularizer",
    "hp_residual_stage",
    "launch",
    "optuna_search",
    "plot_trials",
    "print_trials",
    "report",
    "trial_rows",
]
