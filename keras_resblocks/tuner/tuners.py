"""KerasTuner's tuners, which run trials as they do, with a few things added.

- Candidates are within the budget of a hypermodel that has `within_budget(values)` and
  `identity(values)`, as `ResNetHyperModel` has, and none is tried twice.
- The same seed gives the same trials and scores.
- State files are written as a whole, and trials go on after their last epoch.
- Trials that run out of memory are recorded and skipped.
- There are `keep_checkpoints`, and a line a trial.
- Garbage is looked for among the objects that are made during a search.
"""

import contextlib
import copy
import os
import pathlib
import shutil
import time
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner
from keras_tuner.engine.trial import Trial

from keras_resblocks import json_files, validation
from keras_resblocks.tuner import epochs, memory, oracles
from keras_resblocks.tuner.descriptions import describe, describe_search
from keras_resblocks.tuner.progress import Progress
from keras_resblocks.tuner.seeding import seed_all


class _Tuner(keras_tuner.Tuner):
    """What a KerasTuner tuner calls as `super()` with the oracle that it has made."""

    oracle_class = None

    def __init__(
        self,
        oracle: Any,
        hypermodel: Any = None,
        *,
        keep_checkpoints: int | None = 10,
        **kwargs: Any,
    ) -> None:
        # KerasTuner's constructors make the oracle; this one differs in methods alone.
        oracle.__class__ = self.oracle_class
        oracle.search_in(hypermodel)
        if keep_checkpoints is not None:
            validation.positive_int("keep_checkpoints", keep_checkpoints)
        self.keep_checkpoints = keep_checkpoints
        self._seed = oracle.seed
        self._progress = Progress(oracle.objective.name, self._standing)
        self._with_checkpoint = None  # the ended trials that may have one
        goes_on = not kwargs.get("overwrite") and _take_up(kwargs)
        super().__init__(oracle=oracle, hypermodel=hypermodel, **kwargs)
        if goes_on and not self._is_worker():
            self._compare_spaces()

    def search(self, *fit_args: Any, verbose: int | str = 1, **fit_kwargs: Any) -> None:
        """Searches, as in KerasTuner.

        Args:
            *fit_args: for `fit` of the models.
            verbose: 1 (or `"auto"`) for a line a trial, 2 for KerasTuner's own tables and the
                epochs of every trial, 0 for silence.
            **fit_kwargs: for `fit` of the models: `validation_data`, `epochs`, `callbacks`, ...
        """
        has_tables = verbose == 2 or "KERASTUNER_ORACLE_IP" in os.environ  # which a chief shows
        self._progress.epochs = fit_kwargs.get("epochs")
        self._progress.verbose = bool(verbose) and not has_tables
        if not self._is_worker():  # what a report cannot read off KerasTuner's own files
            objective = self.oracle.objective
            about = {"objective": {"name": objective.name, "direction": objective.direction}}
            about |= describe_search(self.hypermodel, self._seed)
            json_files.write(pathlib.Path(self.project_dir) / "search.json", about)
        with self._progress, memory.only_new_garbage():
            super().search(*fit_args, verbose=int(bool(verbose) and has_tables), **fit_kwargs)

    def retrain_best(self, *fit_args: Any, **fit_kwargs: Any) -> keras.Model:
        """The best candidate, trained from scratch: the model to keep.

        Args:
            *fit_args: for `fit`, perhaps all of the data.
            **fit_kwargs: for `fit`, perhaps more `epochs`.

        Returns:
            The trained `keras.Model`; its `history` has the epochs.
        """
        hp = self.get_best_hyperparameters(1)[0].copy()
        hp.values = {k: value for k, value in hp.values.items() if not k.startswith("tuner/")}
        keras.utils.set_random_seed(self._seed)
        model = self._build_hypermodel(hp)
        self.hypermodel.fit(hp, model, *fit_args, **fit_kwargs)
        return model

    def __repr__(self) -> str:
        trials = f"{len(self.oracle.trials)} trials"
        return f"<{type(self).__name__} {self.project_name!r}, {trials}, {self.hypermodel!r}>"

    def on_trial_begin(self, trial: Trial) -> None:
        super().on_trial_begin(trial)
        self._began = time.monotonic()
        self._held = memory.held()
        self._progress.begin(trial.trial_id, trial.hyperparameters.values)
        number = trial.trial_id.lstrip("0") or "0"  # which more trials would pad with more zeros
        seed_all(zlib.crc32(f"{self._seed} {number}".encode()))

    def on_epoch_end(
        self, trial: Trial, model: keras.Model, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        super().on_epoch_end(trial, model, epoch, logs=logs)
        self._progress.epoch(epoch, logs or {})

    def on_trial_end(self, trial: Trial) -> None:
        if trial.status == "INVALID" and memory.is_out_of_memory(trial.message):
            trial.status = "FAILED"  # a second try would need as much
        super().on_trial_end(trial)
        memory.release(self._held)
        shutil.rmtree(self._backup_folder(trial), ignore_errors=True)
        self._remove_checkpoints(trial)
        if self._progress.verbose:  # and so no worker of a chief, who alone has the scored copy
            trial = self.oracle.trials.get(trial.trial_id, trial)
            if trial.score is None:
                self._progress.end(trial.status.lower(), trial.message or "no score")
            else:
                self._progress.end(f"{self.oracle.objective.name} {trial.score:.4f}")

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()
        json_files.write(self._get_tuner_fname(), self.get_state())

    def load_model(self, trial: Trial) -> keras.Model:
        """The model of a trial with its best weights.

        Args:
            trial: of KerasTuner, as `tuner.oracle.get_best_trials(1)[0]`.

        Returns:
            The `keras.Model`.

        Raises:
            ValueError: if they are not on disk, as with `keep_checkpoints`.
        """
        if not os.path.exists(self._get_checkpoint_fname(trial.trial_id)):
            raise ValueError(
                f"`trial` must be one that has its weights on disk: this search keeps those of "
                f"the best {self.keep_checkpoints or 'of all'} trials. Received: trial "
                f"{trial.trial_id!r}"
            )
        # Without the trial that Hyperband went on from, the weights of which may be removed.
        trial = copy.copy(trial)
        trial.hyperparameters = trial.hyperparameters.copy()
        trial.hyperparameters.values.pop("tuner/trial_id", None)
        with warnings.catch_warnings():
            # Only the weights are wanted; Keras warns of the optimizer, which is not built yet.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            return super().load_model(trial)

    def _populate_initial_space(self):
        """As KerasTuner's, which builds the defaults: those over the budget refuse."""
        with contextlib.suppress(keras_tuner.errors.FailedTrialError):
            super()._populate_initial_space()

    def _build_and_fit_model(self, trial, *args, **kwargs):
        """As KerasTuner's, which has this method for subclasses: with callbacks of ours behind."""
        callbacks = kwargs.pop("callbacks", [])
        runs = (keras_tuner.Tuner.run_trial, keras_tuner.Hyperband.run_trial)
        is_one_fit = epochs.is_one_fit(self.hypermodel) and type(self).run_trial in runs
        objective = self.oracle.objective if is_one_fit else None
        record = epochs.Record(objective, kwargs.get("validation_freq", 1))
        own = [record]
        if is_one_fit and self.executions_per_trial == 1 and epochs.are_stateless(callbacks):
            checkpoint = next((c for c in callbacks if hasattr(c, "best_value")), None)
            own.append(epochs.Backup(self._backup_folder(trial), checkpoint))
        results = super()._build_and_fit_model(trial, *args, callbacks=[*callbacks, *own], **kwargs)
        seconds = {"total": time.monotonic() - self._began, "training": record.seconds}
        content = {"history": record.history, **describe(record.model), "seconds": seconds}
        json_files.write(pathlib.Path(self.get_trial_dir(trial.trial_id)) / "record.json", content)
        return results

    def _standing(self):
        """What `Progress` says of the search."""
        best = next(iter(self.oracle.get_best_trials(1)), None)
        has_best = best is not None and best.score is not None
        said = f"best {best.score:.4f} ({best.trial_id})" if has_best else "no best yet"
        return len(self.oracle.end_order), self.oracle.total_trials(), said

    def _backup_folder(self, trial):
        return pathlib.Path(self.get_trial_dir(trial.trial_id)) / "backup"

    def _remove_checkpoints(self, trial):
        """Removes the weights of trials that are not among the best, nor gone on with."""
        if self.keep_checkpoints is None or self._is_worker():
            return
        if self._with_checkpoint is None:
            self._with_checkpoint = set(self.oracle.end_order)
        self._with_checkpoint.add(trial.trial_id)
        best = {trial.trial_id for trial in self.oracle.get_best_trials(self.keep_checkpoints)}
        for trial_id in self._with_checkpoint - best - self.oracle.unfinished():
            pathlib.Path(self._get_checkpoint_fname(trial_id)).unlink(missing_ok=True)
            self._with_checkpoint.remove(trial_id)

    def _compare_spaces(self):
        """Warns where the hypermodel has another space than the search began with."""
        stored = {parameter.name: _text(parameter) for parameter in self.oracle.get_space().space}
        hp = keras_tuner.HyperParameters()
        if self.hypermodel is not None:
            self.hypermodel.declare_hyperparameters(hp)
            if not hp.space:
                with contextlib.suppress(Exception):  # which a trial raises again, and records
                    self.hypermodel.build(hp)
        now = {parameter.name: _text(parameter) for parameter in hp.space}
        changed = [
            f"{name}: {stored.get(name, 'none')} -> {text}"
            for name, text in now.items()
            if stored.get(name) != text
        ]
        if changed:
            warnings.warn(
                "The search goes on in the space that it began with, but its hypermodel has "
                f"another one ({'; '.join(changed)}). For a search in that one, give another "
                "`project_name` or `overwrite=True`.",
                stacklevel=4,
            )


def _text(parameter):
    """A hyperparameter in a few words."""
    config, ignored = parameter.get_config(), ("name", "default", "conditions", "ordered")
    parts = (f"{v}" for k, v in config.items() if k not in ignored and v is not None)
    return f"{type(parameter).__name__}({', '.join(parts)})"


def _take_up(kwargs):
    """Whether there is a search to go on with; KerasTuner finds it after this.

    It looks for the tuner's file, which is first written when a trial has ended.
    """
    folder = pathlib.Path(kwargs.get("directory") or ".")
    folder /= kwargs.get("project_name") or "untitled_project"
    if not (folder / "oracle.json").exists():
        if any(folder.glob("trial_*/trial.json")):
            raise ValueError(
                f"{str(folder)!r} must hold `oracle.json`, the state of the search that its trials "
                "belong to. Put a copy in its place, or begin another search with `project_name` "
                "or `overwrite=True`."
            )
        return False
    path = folder / f"{os.environ.get('KERASTUNER_TUNER_ID', 'tuner0')}.json"
    if not path.exists():
        json_files.write(path, {})
    return True


class _Seeded:
    """Makes `seed=0` a seed like any other: to KerasTuner it means none."""

    if not TYPE_CHECKING:  # a checker sees the arguments of KerasTuner's class

        def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
            super().__init__(*args, seed=2**31 - 1 if seed == 0 else seed, **kwargs)


class RandomSearch(_Seeded, keras_tuner.RandomSearch, _Tuner):
    """`keras_tuner.RandomSearch` within its hypermodel's budget; the same arguments.

    Args:
        *args: as in `keras_tuner.RandomSearch`: `hypermodel`, `objective`, `max_trials`.
        seed: of what is drawn and of the training: the same one gives the same trials.
        **kwargs: as there: `directory`, `project_name`, `overwrite`, ...; and `keep_checkpoints`:
            how many trials, the best ones, keep their weights on disk, 10 by default, None for all.

    Raises:
        ValueError: as KerasTuner's, and for a directory that holds a damaged search.

    Examples:
        >>> import numpy as np
        >>> from keras_resblocks.tuner import RandomSearch, ResNetHyperModel
        >>> x, y = np.random.rand(32, 8, 8, 1), np.arange(32) % 10
        >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, depths=1, widths=8, stages=1)
        >>> tuner = RandomSearch(hypermodel, "val_accuracy", max_trials=1, seed=1)
        >>> tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
        >>> model = tuner.retrain_best(x, y, epochs=2, verbose=0)
    """

    oracle_class = oracles.RandomSearchOracle


class GridSearch(_Seeded, keras_tuner.GridSearch, _Tuner):
    """`keras_tuner.GridSearch` within its hypermodel's budget; the same arguments.

    Args:
        *args: as in `keras_tuner.GridSearch`: `hypermodel`, `objective`, `max_trials`.
        seed: as in `RandomSearch`.
        **kwargs: as in `RandomSearch`.

    Raises:
        ValueError: as `RandomSearch`.

    Examples:
        >>> from keras_resblocks.tuner import GridSearch, ResNetHyperModel
        >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, depths=(1, 2), per_stage=())
        >>> tuner = GridSearch(hypermodel, "val_accuracy", max_trials=12)
    """

    oracle_class = oracles.GridSearchOracle


class Hyperband(_Seeded, keras_tuner.Hyperband, _Tuner):
    """`keras_tuner.Hyperband` within its hypermodel's budget; the same arguments.

    Args:
        *args: as in `keras_tuner.Hyperband`: `hypermodel`, `objective`, `max_epochs`, `factor`,
            `hyperband_iterations`.
        seed: as in `RandomSearch`.
        **kwargs: as in `RandomSearch`.

    Raises:
        ValueError: as `RandomSearch`.

    Examples:
        >>> from keras_resblocks.tuner import Hyperband, ResNetHyperModel
        >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, max_params=100_000)
        >>> tuner = Hyperband(hypermodel, "val_accuracy", max_epochs=27, factor=3)

    References:
        Li et al. 2018, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization".
    """

    oracle_class = oracles.HyperbandOracle


class BayesianOptimization(_Seeded, keras_tuner.BayesianOptimization, _Tuner):
    """`keras_tuner.BayesianOptimization` within its hypermodel's budget; the same arguments.

    Args:
        *args: as in `keras_tuner.BayesianOptimization`: `hypermodel`, `objective`, `max_trials`,
            `num_initial_points`, ...
        seed: as in `RandomSearch`.
        **kwargs: as in `RandomSearch`.

    Raises:
        ValueError: as `RandomSearch`.

    Examples:
        >>> from keras_resblocks.tuner import BayesianOptimization, ResNetHyperModel
        >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, max_params=100_000)
        >>> tuner = BayesianOptimization(hypermodel, "val_accuracy", max_trials=30)
    """

    oracle_class = oracles.BayesianOptimizationOracle
