"""Search over networks or over how they are fine-tuned, with KerasTuner, Optuna or Ray.

Needs the extra `tuner`.
"""

from keras_resblocks.training import (
    DiscriminativeOptimizer,
    PackedOptimizer,
    RandomShift,
    SmoothedSparseCategoricalCrossentropy,
)
from keras_resblocks.tuner.base import TrainingHyperModel
from keras_resblocks.tuner.fine_tuning import FineTuneHyperModel
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
from keras_resblocks.tuner.optuna_search import optuna_search
from keras_resblocks.tuner.ray_search import ray_search
from keras_resblocks.tuner.reports.report import plot_trials, print_trials, report, trial_rows
from keras_resblocks.tuner.space import Range
from keras_resblocks.tuner.tuners import (
    BayesianOptimization,
    GridSearch,
    Hyperband,
    RandomSearch,
)

__all__ = [
    "BayesianOptimization",
    "DiscriminativeOptimizer",
    "FineTuneHyperModel",
    "GridSearch",
    "Hyperband",
    "InceptionHyperModel",
    "NetworkHyperModel",
    "PackedOptimizer",
    "RandomSearch",
    "RandomShift",
    "Range",
    "ResNetHyperModel",
    "SmoothedSparseCategoricalCrossentropy",
    "TrainingHyperModel",
    "hp_activation",
    "hp_regularizer",
    "hp_residual_stage",
    "optuna_search",
    "plot_trials",
    "print_trials",
    "ray_search",
    "report",
    "trial_rows",
]
