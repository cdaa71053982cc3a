"""A search by Optuna, from any number of processes and machines."""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import random
import shutil
import time
import traceback
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner

from keras_resblocks import validation
from keras_resblocks.tuner import memory
from keras_resblocks.tuner.descriptions import describe_search
from keras_resblocks.tuner.progress import Progress
from keras_resblocks.tuner.trials import Objectives, hypermodel_of, objectives_of, run_trial
from keras_resblocks.types import FilePath

if TYPE_CHECKING:
    import optuna

MAX_CONSECUTIVE_FAILURES = 3  # as in KerasTuner


def optuna_search(
    hypermodel: keras_tuner.HyperModel | Callable[[keras_tuner.HyperParameters], keras.Model],
    study_name: str,
    storage: "str | pathlib.Path | optuna.storages.BaseStorage",
    *,
    max_trials: int,
    objective: Objectives = None,
    sampler: "optuna.samplers.BaseSampler | None" = None,
    pruner: "optuna.pruners.BasePruner | None" = None,
    seed: int | None = None,
    directory: FilePath | None = None,
    keep_checkpoints: int = 1,
    grace_period: float = 60,
    max_reruns: int = 10,
    verbose: int = 1,
    **fit_arguments: Any,
) -> "optuna.Study":
    """Searches with Optuna what KerasTuner's hypermodels describe.

    Every process that makes the same call takes part, on any machine that reaches the storage. All
    return when `max_trials` trials are complete or pruned, or up to one more for each further
    worker; a larger `max_trials` goes on.

    - The trial of a killed worker ends as failed, and another worker, or the next call, runs it
      again: from its last epoch where all workers share `directory` and the training is one `fit`
      with callbacks that have no state, else from the start. This takes a database: in a journal
      file, or in memory, the trial stays running, and counts for nothing.
    - A trial that raises an exception, or runs out of memory, is failed, with the traceback as its
      attribute `failure`. Three exceptions in a row end the call with an error.
    - No trial is spent on a candidate over the budget of a hypermodel with
      `within_budget(values)`, nor on one that another trial has had; what `study.enqueue_trial`
      asks for is tried as it is. A search that finds no further candidate is over, with a warning
      and a failed trial with the attribute `void`.

    A complete trial has the user attributes `params`, `trainable_params`, `macs`,
    `activation_memory` (bytes), `seconds` and `record`, with the model's `history` and `summary`.

    Args:
        hypermodel: a `keras_tuner.HyperModel`, or a function that builds a model from a
            `keras_tuner.HyperParameters`.
        study_name: of the study, which is made if the storage does not have it.
        storage: URL of a database (`"sqlite:///search.db"`, `"postgresql+psycopg://..."`), path
            of a journal file (`"search.journal"`, `"search.log"`), or a storage of Optuna.
        max_trials: number of trials in the study.
        objective: name of a metric, or a `keras_tuner.Objective`, which counts at its best epoch;
            by default that of the hypermodel's task. Several, as `["val_accuracy", "params"]`,
            have a Pareto front, `study.best_trials`: `params`, `trainable_params`, `macs`,
            `activation_memory` and `seconds` are minimized, and metrics are those of the epoch
            that is best in the first one.
        sampler: of Optuna; by default a `TPESampler`.
        pruner: of Optuna, for one objective; by default no trial is pruned.
        seed: of the default sampler and of the training: of one worker, the same trials.
        directory: where to keep backups of the trials under way and the weights of the best ones,
            as `{directory}/{study_name}/trial_{number}/best.weights.h5`; by default nowhere.
        keep_checkpoints: number of trials that keep their weights; of several objectives, all on
            the Pareto front do.
        grace_period: seconds without a sign of life after which a worker counts as dead.
        max_reruns: how often a trial is run again because its worker died.
        verbose: 1 for a line a trial, 0 for silence, Optuna's own included.
        **fit_arguments: for `fit` of the models: `x`, `y`, `epochs`, ... Each trial gets a copy
            of the `callbacks`.

    Returns:
        The `optuna.Study`.

    Raises:
        ImportError: without Optuna, or the driver of the database.
        ValueError: for an argument out of its range, and for a study of another objective or space.
        RuntimeError: if three trials in a row have failed.

    Examples:
        >>> import keras_tuner
        >>> import numpy as np
        >>> from keras_resblocks.tuner import ResNetHyperModel, optuna_search
        >>> x, y = np.random.rand(32, 8, 8, 1), np.arange(32) % 10
        >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, depths=1, widths=8, stages=1)
        >>> study = optuna_search(
        ...     hypermodel, "digits", "sqlite:///digits.db", max_trials=1, verbose=0,
        ...     x=x, y=y, validation_data=(x, y), epochs=1,
        ... )
        >>> hp = keras_tuner.HyperParameters()
        >>> hp.values = dict(study.best_params)
        >>> model = hypermodel.build(hp)
    """
    import optuna

    from keras_resblocks.tuner.candidates import CandidateSampler

    hypermodel = hypermodel_of(hypermodel)
    objectives = objectives_of(objective, hypermodel)
    validation.positive_int("max_trials", max_trials)
    validation.positive_int("keep_checkpoints", keep_checkpoints)
    validation.positive_number("grace_period", grace_period)
    validation.non_negative_int("max_reruns", max_reruns)
    if pruner and len(objectives) > 1:
        raise ValueError(
            "`pruner` must be None for several objectives, which Optuna does not prune. "
            f"Received: pruner={pruner!r}"
        )
    counted = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    with _quiet_optuna(verbose):
        storage = open_storage(storage, grace_period, max_reruns)
        study = _study(study_name, storage, objectives, pruner)
        study.sampler = CandidateSampler(hypermodel, sampler, seed)
        _check_space(study, study.sampler.distributions)
        folder = directory and pathlib.Path(directory) / study_name
        about = {**describe_search(hypermodel, seed), "directory": folder and str(folder)}
        study.set_user_attr("search", about)
        standing = functools.partial(_standing, study, max_trials)
        progress = Progress(objectives[0].name, standing, verbose, fit_arguments.get("epochs"))
        worker = _Worker(hypermodel, objectives, folder, seed, fit_arguments, progress)
        callbacks = [worker.on_trial_end, optuna.study.MaxTrialsCallback(max_trials, counted)]
        if folder:
            callbacks.append(functools.partial(_keep_best, folder, keep_checkpoints))
        callbacks.append(functools.partial(_print_line, progress))
        with progress, memory.only_new_garbage():
            while len(study.get_trials(deepcopy=False, states=counted)) < max_trials:
                try:
                    study.optimize(worker.run, callbacks=callbacks, catch=(Exception,))
                    break
                except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                    if not worker.was_taken_for_dead:
                        raise
    return study


@dataclasses.dataclass
class _Worker:
    """Runs trials in this process."""

    hypermodel: Any
    objectives: list
    folder: Any
    seed: int | None
    fit_arguments: dict
    progress: Progress
    # Whether another worker has ended the last trial, as it does after a host was suspended.
    # Optuna raises an error then.
    was_taken_for_dead = False
    failures, fatal = 0, None

    def run(self, trial):
        """The values of a trial: the function that Optuna optimizes."""
        import optuna

        study, sampler = trial.study, trial.study.sampler
        self.was_taken_for_dead = False
        self.progress.begin(trial.number, {})
        if _has_twin(study, trial.number):
            trial.set_user_attr("void", "another trial runs the same again")
            return None
        try:
            hp = sampler.hyperparameters(trial)
            if hp is None:
                warnings.warn("There is no further candidate to try.", stacklevel=2)
                trial.set_user_attr("void", "no further candidate")
                study.stop()
                return None
            self.progress.begin(trial.number, hp.values)
            values, record = self._trained(trial, hp)
            costs = {**record["cost"], "seconds": record["seconds"]["total"]}
            for name, value in {**costs, "record": record}.items():
                trial.set_user_attr(name, value)
            trial.set_user_attr("identity", sampler.identity(trial.params))
            return values
        except optuna.TrialPruned:
            trial.set_user_attr("identity", sampler.identity(trial.params))
            raise
        except optuna.exceptions.UpdateFinishedTrialError:
            self.was_taken_for_dead = True
            raise
        except KeyboardInterrupt:  # the next call goes on with it
            _retry(None)(study, _frozen(study, trial.number))
            raise
        except Exception as error:
            if isinstance(error, keras_tuner.errors.FatalError):
                self.fatal = error
            trial.set_user_attr("failure", traceback.format_exc())
            raise

    def _trained(self, trial, hp):
        frozen = _frozen(trial.study, trial.number)
        origin = _original(frozen)
        folder = self.folder and self.folder / f"trial_{origin}"
        seed = None if self.seed is None else self.seed + origin
        on_epoch = functools.partial(self._report, trial, frozen.intermediate_values)
        arguments = (self.hypermodel, hp, self.objectives, self.fit_arguments)
        values, record = run_trial(*arguments, folder, on_epoch, seed)
        if folder and origin != trial.number and folder.exists():
            os.replace(folder, self.folder / f"trial_{trial.number}")
        return values, record

    def _report(self, trial, known, epoch, values):
        import optuna

        self.progress.epoch(epoch, values)
        for value in values.values() if len(self.objectives) == 1 else ():
            if epoch not in known:  # of an earlier run of the trial
                trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

    def on_trial_end(self, study, trial):
        """Raises where the search cannot go on; a callback of Optuna."""
        failure = trial.user_attrs.get("failure")
        if self.fatal is not None:
            raise self.fatal
        if failure is None:
            self.failures = 0
        elif not memory.is_out_of_memory(failure):  # which says nothing of the next candidate
            self.failures += 1
        if self.failures == MAX_CONSECUTIVE_FAILURES:
            raise RuntimeError(
                f"{self.failures} trials of this worker have failed in a row. The last one:\n"
                f"{failure}"
            )


def _frozen(study, number):
    return study.get_trials(deepcopy=False)[number]


def _history(trial):
    """The numbers of the trials that this one runs again, the last one last."""
    import optuna

    return optuna.storages.RetryHeartbeatStaleTrialCallback.retry_history(trial)


def _original(trial):
    """The number of the trial that this one runs again; its own if it runs for the first time."""
    return [*_history(trial), trial.number][0]


def _has_twin(study, number):
    """Whether an earlier trial runs the same one again.

    On SQLite, two workers may notice at once that a third has died, and both ask for its trial.
    """
    *before, last = study.get_trials(deepcopy=False)[: number + 1]
    return bool(_history(last)) and any(_history(one) == _history(last) for one in before)


def _retry(times):
    import optuna

    return optuna.storages.RetryHeartbeatStaleTrialCallback(
        max_retry=times, inherit_intermediate_values=True
    )


def _keep_best(folder, keep, study, _):
    """A callback of Optuna: deletes what ended trials have left, but the best weights.

    A trial that is not among the best by now never will be. One that is under way, or waits to be
    run again, is left alone, so that workers can share the folder.
    """
    trials = study.get_trials(deepcopy=False)
    best = study.best_trials if len(study.directions) > 1 else _ranked(study, trials)[:keep]
    kept = {trial.number for trial in best}
    run_again = {number for trial in trials for number in _history(trial)[-1:]}
    for trial in trials:
        # A worker that finds another one dead ends its trial first, then asks for it again.
        is_over = trial.state.name != "FAIL" or trial.user_attrs.keys() & {"failure", "void"}
        if not (trial.state.is_finished() and is_over) and trial.number not in run_again:
            kept |= {trial.number, _original(trial)}
    for path in folder.glob("trial_*"):
        number = int(path.name.removeprefix("trial_"))
        if number < len(trials) and number not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _ranked(study, trials):
    """The complete ones of a study's trials, best first; of equal ones the smallest."""
    sign = -1 if study.direction.name == "MAXIMIZE" else 1

    def rank(trial):
        return sign * trial.value, trial.user_attrs.get("params") or math.inf, trial.number

    return sorted((one for one in trials if one.state.name == "COMPLETE"), key=rank)


def _standing(study, max_trials):
    """What `Progress` says of a search."""
    trials = study.get_trials(deepcopy=False)
    over = sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials)
    if len(study.directions) > 1:
        return over, max_trials, ""
    best = next(iter(_ranked(study, trials)), None)
    return over, max_trials, f"best {best.value:.4f} ({best.number})" if best else "no best yet"


def _print_line(progress, study, trial):
    """A callback of Optuna: prints the line of a trial."""
    if trial.state.name == "COMPLETE":
        pairs = zip(study.metric_names, trial.values)
        progress.end(", ".join(f"{name} {v:.{4 if v % 1 else 0}f}" for name, v in pairs))
    elif "void" not in trial.user_attrs:  # of which there is a warning
        state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        progress.end(state, trial.user_attrs.get("failure", ""))


@contextlib.contextmanager
def _quiet_optuna(verbose=0):
    """Leaves out Optuna's own lines, as there is one of ours, and what it says of new features.

    Its heartbeat, retries and names of metrics have been called experimental for years.
    """
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR if verbose else optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _study(name, storage, objectives, pruner):
    import optuna

    names = [one.name for one in objectives]
    directions = ["maximize" if one.direction == "max" else "minimize" for one in objectives]
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=directions,
        pruner=pruner or optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    known = (study.metric_names or names, [one.name.lower() for one in study.directions])
    if known != (names, directions):
        expected, received = (
            ", ".join(f"{name} ({direction})" for name, direction in zip(*pair))
            for pair in (known, (names, directions))
        )
        raise ValueError(
            f"`objective` must be that of the study {name!r}: {expected}. Received: "
            f"objective={received}"
        )
    study.set_metric_names(names)
    return study


def _check_space(study, distributions):
    """Raises where a study cannot go on with these hyperparameters, and warns of other changes."""
    from optuna.distributions import check_distribution_compatibility

    known = {}
    for trial in study.get_trials(deepcopy=False):
        known.update(trial.distributions)
    for name, now in distributions.items():
        before = known.get(name, now)
        try:
            check_distribution_compatibility(before, now)
        except ValueError:
            raise ValueError(
                f"`hypermodel` must have the choices that the study {study.study_name!r} began "
                f"with, of `{name}` {before}. Received: {now}"
            ) from None
        if before != now:
            warnings.warn(f"The study goes on with `{name}` of {now}, not {before}.", stacklevel=3)


def open_storage(storage, grace_period=60.0, max_reruns=10):
    """The storage of Optuna that the argument of `optuna_search` stands for."""
    import optuna

    if isinstance(storage, optuna.storages.BaseStorage):
        return storage
    if isinstance(storage, str) and "://" in storage:
        return _database(storage, grace_period, max_reruns)
    if isinstance(storage, (str, pathlib.Path)):
        # Absolute, and with a lock that is a file: a lock that is a link to a relative path
        # is never released if its holder was killed.
        path = pathlib.Path(storage).absolute()
        if path.suffix in (".journal", ".log"):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = optuna.storages.journal.JournalFileOpenLock(str(path), grace_period=10)
            backend = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=lock)
            return optuna.storages.JournalStorage(backend)
    raise ValueError(
        "`storage` must be the URL of a database, a path that ends in `.journal` or `.log`, or "
        f"a storage of Optuna. Received: storage={storage!r}"
    )


def _database(url, grace_period, max_reruns, attempts=6):
    import optuna
    import sqlalchemy

    if url.startswith("redis"):
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalRedisBackend(url))
    is_sqlite = url.startswith("sqlite:")
    options = {"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True}
    for attempt in range(1, attempts + 1):
        try:
            with _quiet_optuna():
                return optuna.storages.RDBStorage(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=max(1, round(grace_period / 6)),
                    grace_period=max(2, round(grace_period)),
                    heartbeat_stale_trial_callback=_retry(max_reruns),
                )
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError):
            # Workers that start together make the tables together, and only one can.
            if attempt == attempts:
                raise
            time.sleep(random.uniform(0, 0.2 * attempt))
