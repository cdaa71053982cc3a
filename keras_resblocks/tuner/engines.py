"""KerasTuner's tuners, kept within the hypermodel's budget, and with a word on progress.

Each takes the arguments of the KerasTuner tuner whose name it bears, searches as that one does
and leaves the same results on disk. Where its hypermodel has a method `within_budget(values)`,
as `ResNetHyperModel` has, no candidate that fails it becomes a trial.
"""

import os
import pathlib

import keras_tuner

from keras_resblocks.tuner import memory, oracles, storage
from keras_resblocks.tuner.progress import Progress


class _BudgetTuner(keras_tuner.Tuner):
    """What a KerasTuner tuner calls as `super()` with the oracle that it has made."""

    oracle_class = None

    def __init__(self, oracle, hypermodel=None, **kwargs):
        # The oracle is fresh: as a subclass it differs in nothing but where it draws from.
        oracle.__class__ = self.oracle_class
        if hasattr(hypermodel, "within_budget"):
            oracle.within_budget = hypermodel.within_budget
        self._progress = Progress(oracle)
        if not kwargs.get("overwrite"):
            _repair(kwargs.get("directory"), kwargs.get("project_name"))
        super().__init__(oracle=oracle, hypermodel=hypermodel, **kwargs)

    def _build_hypermodel(self, hp):
        model = super()._build_hypermodel(hp)
        # A checkpoint holds the optimizer's state too, and only a built optimizer can take it:
        # without this, Hyperband would begin each of its rounds with fresh moments.
        if model.built and model.optimizer is not None:
            model.optimizer.build(model.trainable_variables)
        return model

    def run_trial(self, trial, *fit_args, **fit_kwargs):
        try:
            return super().run_trial(trial, *fit_args, **fit_kwargs)
        except Exception as error:
            if memory.is_out_of_memory(error):
                raise memory.OutOfMemoryTrialError(f"Out of memory: {error}") from None
            raise
        finally:
            memory.release()

    def _build_and_fit_model(self, trial, *args, **kwargs):
        results = super()._build_and_fit_model(trial, *args, **kwargs)
        path = self._get_build_config_fname(trial.trial_id)
        storage.write_json(path, storage.read_json(path))  # as the other files, with a twin
        return results

    def save(self):
        if not self._is_worker():
            self.oracle.save()
        storage.write_json(self._get_tuner_fname(), self.get_state())

    def search(self, *fit_args, verbose=1, **fit_kwargs):
        """Searches, as in KerasTuner.

        Args:
            *fit_args, **fit_kwargs: for `fit` of the models.
            verbose: 1 (or `"auto"`) for a line a trial, 2 for KerasTuner's own tables and the
                epochs of every trial, 0 for silence.
        """
        own, kerastuner = (0, 1) if verbose == 2 else (1 if verbose else 0, 0)
        self._progress.verbose = own
        super().search(*fit_args, verbose=kerastuner, **fit_kwargs)

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self._progress.on_trial_begin(trial)

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        self._progress.on_trial_end(trial)


def _repair(directory, project_name):
    """Makes the state of an earlier search whole, so that it goes on and nothing begins anew."""
    folder = pathlib.Path(directory or ".") / (project_name or "untitled_project")
    if not folder.is_dir():
        return
    for pattern in ("oracle.json", "tuner*.json", "trial_*/*.json"):
        storage.repair(folder, pattern)
    has_trials = any(folder.glob("trial_*/trial.json"))
    if has_trials and not (folder / "oracle.json").exists():
        raise ValueError(
            f"{str(folder)!r} must hold `oracle.json`, the state of the search whose trials are "
            "there. Put a copy in its place, or begin anew with another `project_name` or with "
            "`overwrite=True`."
        )
    if (folder / "oracle.json").exists():
        # KerasTuner takes up a search where this file is; it holds nothing.
        path = folder / f"{os.environ.get('KERASTUNER_TUNER_ID', 'tuner0')}.json"
        if not path.exists():
            storage.write_json(path, {})


class RandomSearch(keras_tuner.RandomSearch, _BudgetTuner):
    """`keras_tuner.RandomSearch` within its hypermodel's budget; the same arguments."""

    oracle_class = oracles.RandomSearchOracle


class GridSearch(keras_tuner.GridSearch, _BudgetTuner):
    """`keras_tuner.GridSearch` within its hypermodel's budget; the same arguments."""

    oracle_class = oracles.GridSearchOracle


class Hyperband(keras_tuner.Hyperband, _BudgetTuner):
    """`keras_tuner.Hyperband` within its hypermodel's budget; the same arguments."""

    oracle_class = oracles.HyperbandOracle


class BayesianOptimization(keras_tuner.BayesianOptimization, _BudgetTuner):
    """`keras_tuner.BayesianOptimization` within its hypermodel's budget; the same arguments."""

    oracle_class = oracles.BayesianOptimizationOracle
