"""KerasTuner's tuners, kept within the hypermodel's budget, and hard to stop.

Each takes the arguments of the KerasTuner tuner whose name it bears and some more, searches as
that one does and leaves the same results on disk. Where its hypermodel has the methods
`within_budget(values)` and `identity(values)`, as `ResNetHyperModel` has, no candidate that
fails the one or repeats the other becomes a trial.
"""

import os
import pathlib
import time
import zlib

import keras
import keras_tuner

from keras_resblocks import validation
from keras_resblocks.tuner import compilation, memory, oracles, storage, warm_starts, workers
from keras_resblocks.tuner.progress import Progress
from keras_resblocks.tuner.reports.records import describe
from keras_resblocks.tuner.seeding import seed_all
from keras_resblocks.tuner.trial_state import BatchRecorder, Recorder, Restorer, TrialState


class _DurableTuner(workers.DistributedTuner):
    """What a KerasTuner tuner calls as `super()` with the oracle that it has made.

    Args:
        oracle, hypermodel, **kwargs: as in `keras_tuner.Tuner`.
        small_first: whether to begin with the smallest of the candidates drawn at random.
        warm_start: whether a candidate begins with the weights of the best finished one that
            differs from it in being shallower.
        halve_batch: whether a trial that runs out of memory is run once more with half the
            batch.
        keep_checkpoints: number of trials, the best ones, whose weights stay on disk; None for
            all.
    """

    oracle_class = None

    def __init__(
        self,
        oracle,
        hypermodel=None,
        *,
        small_first=False,
        warm_start=False,
        halve_batch=False,
        keep_checkpoints=10,
        **kwargs,
    ):
        # The oracle is fresh: as a subclass it differs in nothing but where it draws from.
        oracle.__class__ = self.oracle_class
        oracle.search_in(hypermodel, validation.boolean("small_first", small_first))
        self.warm_start = validation.boolean("warm_start", warm_start)
        if self.warm_start:
            warm_starts.check(hypermodel)
        self.halve_batch = validation.boolean("halve_batch", halve_batch)
        if keep_checkpoints is not None:
            validation.positive_int("keep_checkpoints", keep_checkpoints)
        self.keep_checkpoints = keep_checkpoints
        self._seed = oracle.seed
        self._ended = []  # a worker's oracle is a client, which does not know
        self._progress = Progress(oracle)
        if workers.keeps_state():
            kwargs["overwrite"] = False
        if not kwargs.get("overwrite") and not workers.is_worker():
            _repair(kwargs.get("directory"), kwargs.get("project_name"))
        super().__init__(oracle=oracle, hypermodel=hypermodel, **kwargs)

    def search(self, *fit_args, verbose=1, **fit_kwargs):
        """Searches, as in KerasTuner.

        Args:
            *fit_args, **fit_kwargs: for `fit` of the models.
            verbose: 1 (or `"auto"`) for a line a trial, 2 for KerasTuner's own tables and the
                epochs of every trial, 0 for silence.
        """
        own, kerastuner = (0, 1) if verbose == 2 else (1 if verbose else 0, 0)
        if workers.is_chief():  # KerasTuner's tables are for one trial at a time
            own, kerastuner = own or kerastuner, 0
            self.oracle.progress = self._progress
        self._progress.verbose = 0 if workers.is_worker() else own
        folder = pathlib.Path(self.project_dir)
        if not workers.is_worker():
            storage.write_json(folder / "search.json", self._description())
        compiled = compilation.compilation_cache(folder / "compiled")
        with self._progress, compiled, compilation.plain_graphs(), memory.quickly_collected():
            super().search(*fit_args, verbose=kerastuner, **fit_kwargs)

    def retrain_best(self, *fit_args, **fit_kwargs):
        """The best candidate, trained from scratch.

        A trial is short, and may have begun with the weights of another one: this is the model
        to keep.

        Args:
            *fit_args, **fit_kwargs: for `fit`: more `epochs`, or all of the data.

        Returns:
            The trained `keras.Model`; its `history` has the epochs.
        """
        hp = self.get_best_hyperparameters(1)[0].copy()
        hp.values = {k: value for k, value in hp.values.items() if not k.startswith("tuner/")}
        keras.utils.set_random_seed(self._seed)
        model = self.hypermodel.build(hp)
        self.hypermodel.fit(hp, model, *fit_args, **fit_kwargs)
        return model

    def run_trial(self, trial, *fit_args, **fit_kwargs):
        """As KerasTuner's, but it goes on after the last epoch of one that was interrupted."""
        began = time.monotonic()
        self._progress.epochs = fit_kwargs.get("epochs", 1)
        state = self._state(trial.trial_id)
        state.load()
        hp = trial.hyperparameters
        try:
            record = self._run_executions(trial, hp, state, *fit_args, **fit_kwargs)
        except memory.OutOfMemoryTrialError:
            data = fit_args[0] if fit_args else fit_kwargs.get("x")
            if not (self.halve_batch and hasattr(data, "shape")):  # others are batched already
                raise
            hp, fit_kwargs = self._with_half_the_batch(hp, fit_kwargs)
            record = self._run_executions(trial, hp, state, *fit_args, **fit_kwargs)
        record["seconds"] = {"total": time.monotonic() - began, "training": state.seconds}
        storage.write_json(state.folder / "record.json", record)
        return state.results

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self._progress.on_trial_begin(trial)

    def on_epoch_end(self, trial, model, epoch, logs=None):
        super().on_epoch_end(trial, model, epoch, logs=logs)
        self._progress.on_epoch_end(trial, epoch, logs or {})

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        self._ended.append(trial.trial_id)
        self._remove_files()
        self._progress.on_trial_end(trial)

    def save(self):
        if not self._is_worker():
            self.oracle.save()
        storage.write_json(self._get_tuner_fname(), self.get_state())

    def _populate_initial_space(self):
        with compilation.quick_programs():  # builds models, to see their hyperparameters
            super()._populate_initial_space()

    def _try_build(self, hp):
        # KerasTuner's collects the garbage first; here that is done after each trial.
        model = self._build_hypermodel(hp)
        if not isinstance(model, keras.Model):
            raise keras_tuner.errors.FatalTypeError(
                "`hypermodel` must build a Keras model. "
                f"Received: {model!r} of type {type(model).__name__}"
            )
        if self.max_model_size and model.count_params() > self.max_model_size:
            raise keras_tuner.errors.FailedTrialError(
                f"Oversized model: {model.count_params()} parameters, more than "
                f"max_model_size={self.max_model_size}"
            )
        return model

    def _build_hypermodel(self, hp):
        with compilation.quick_programs():
            model = super()._build_hypermodel(hp)
            # A checkpoint holds the optimizer's state too, and only a built one can take it.
            if model.built and model.optimizer is not None:
                model.optimizer.build(model.trainable_variables)
        return model

    def _run_executions(self, trial, hp, state, *fit_args, callbacks=(), **fit_kwargs):
        """Trains until the state has a result of each execution; what to record of them."""
        for execution in range(len(state.results), self.executions_per_trial):
            own = self._deepcopy_callbacks(list(callbacks))
            self._configure_tensorboard_dir(own, trial, execution)
            start = self._start_of(trial.hyperparameters)
            own = [Restorer(state, start), *own, self._recorder(trial, state)]
            if state.epoch:
                fit_kwargs = {**fit_kwargs, "initial_epoch": state.epoch}
            # So that a search can be repeated, whatever ran before this trial.
            seed = zlib.crc32(f"{self._seed} {trial.trial_id} {execution}".encode())
            seed_all(seed)
            with memory.released():
                record = self._fit(trial, hp, state, *fit_args, callbacks=own, **fit_kwargs)
        return record

    def _fit(self, trial, hp, state, *fit_args, **fit_kwargs):
        weights = warm_starts.find(self, trial) if self.warm_start else None
        model = self._try_build(hp)
        warm_starts.give(model, weights)
        result = self.hypermodel.fit(hp, model, *fit_args, **fit_kwargs)
        record = {"history": state.history, **describe(model)}
        state.end_execution(result)
        path = self._get_build_config_fname(trial.trial_id)
        storage.write_json(path, model.get_build_config())
        return record

    def _description(self):
        """What a report cannot read off KerasTuner's own files."""
        objective = self.oracle.objective
        return {"objective": {"name": objective.name, "direction": objective.direction}}

    def _recorder(self, trial, state):
        has_batch_hooks = workers.is_worker() or any(
            getattr(type(self), hook) is not getattr(workers.DistributedTuner, hook)
            for hook in ("on_batch_begin", "on_batch_end")
        )
        recorder_class = BatchRecorder if has_batch_hooks else Recorder
        return recorder_class(self, trial, state, self._get_checkpoint_fname(trial.trial_id))

    def _start_of(self, hp):
        """The state that the first epoch begins with, None for a fresh model."""
        return None

    def _going_on(self):
        """The trials that ended, but whose last state others may yet begin with."""
        return ()

    def has_checkpoint(self, trial):
        """Whether the best weights of a trial are on disk."""
        return os.path.exists(self._get_checkpoint_fname(trial.trial_id))

    def load_model(self, trial):
        """The model of a trial with its best weights.

        Raises:
            ValueError: if they are not kept, because of `keep_checkpoints`.
        """
        if not self.has_checkpoint(trial):
            raise ValueError(
                f"`trial` must be one whose weights are on disk. Received: trial "
                f"{trial.trial_id!r}; this search keeps those of {self.keep_checkpoints} trials"
            )
        return super().load_model(trial)

    def _state(self, trial_id):
        return TrialState(self.get_trial_dir(trial_id), self.oracle.objective)

    def _with_half_the_batch(self, hp, fit_kwargs):
        if "batch_size" in hp.values:
            halved = hp.copy()
            halved.values["batch_size"] = max(1, hp.values["batch_size"] // 2)
            return halved, fit_kwargs
        fixed = getattr(self.hypermodel, "batch_size", None) or 32  # as in `fit`
        batch_size = fit_kwargs.get("batch_size") or fixed
        return hp, {**fit_kwargs, "batch_size": max(1, batch_size // 2)}

    def _remove_files(self):
        """Removes what nothing will read again, of the trials that this process knows ended."""
        ended = getattr(self.oracle, "end_order", self._ended)
        going_on = self._going_on()
        kept = ended
        if self.keep_checkpoints is not None:
            kept = {trial.trial_id for trial in self.oracle.get_best_trials(self.keep_checkpoints)}
        for trial_id in ended:
            self._state(trial_id).remove(keep_last=trial_id in going_on)
            if trial_id not in kept:
                pathlib.Path(self._get_checkpoint_fname(trial_id)).unlink(missing_ok=True)


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


class RandomSearch(keras_tuner.RandomSearch, _DurableTuner):
    """`keras_tuner.RandomSearch` within its hypermodel's budget; the same arguments."""

    oracle_class = oracles.RandomSearchOracle


class GridSearch(keras_tuner.GridSearch, _DurableTuner):
    """`keras_tuner.GridSearch` within its hypermodel's budget; the same arguments."""

    oracle_class = oracles.GridSearchOracle


class Hyperband(keras_tuner.Hyperband, _DurableTuner):
    """`keras_tuner.Hyperband` within its hypermodel's budget; the same arguments."""

    oracle_class = oracles.HyperbandOracle

    def _build_hypermodel(self, hp):
        if self._start_of(hp):  # KerasTuner would go on with the best weights, not the last
            return _DurableTuner._build_hypermodel(self, hp)
        return super()._build_hypermodel(hp)

    def _going_on(self):
        # A worker's oracle is a client, which cannot tell.
        return self.oracle.unfinished() if hasattr(self.oracle, "unfinished") else self._ended

    def _start_of(self, hp):
        parent = hp.values.get("tuner/trial_id")
        path = parent and self._state(parent).last_path
        return path if path and path.exists() else None


class BayesianOptimization(keras_tuner.BayesianOptimization, _DurableTuner):
    """`keras_tuner.BayesianOptimization` within its hypermodel's budget; the same arguments."""

    oracle_class = oracles.BayesianOptimizationOracle
