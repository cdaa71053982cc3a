"""A search by Optuna, from any number of processes and machines."""

import contextlib
import pathlib
import random
import time

import keras_tuner

from keras_resblocks import validation
from keras_resblocks.tuner.compilation import plain_graphs


def optuna_search(
    hypermodel,
    study_name,
    storage,
    *,
    max_trials,
    objective="val_accuracy",
    sampler=None,
    pruner=None,
    seed=None,
    directory=None,
    keep_checkpoints=1,
    grace_period=60.0,
    max_reruns=10,
    verbose=1,
    **fit_arguments,
):
    """Searches with Optuna what KerasTuner's hypermodels describe.

    Every process that makes the same call takes part: start it as often as you like, on any
    machine that reaches the storage. All return when `max_trials` trials are over; calls that
    come late return at once, and a larger `max_trials` goes on.

    - A worker may be killed at any moment. Its trial ends as failed with the attribute `died`,
      and another worker, or the next call, runs its hyperparameters again. Only the rerun counts.
    - A trial that raises an exception is failed, with the traceback as its attribute `failure`,
      and counts as one of `max_trials`, as do pruned ones. Running out of memory is such a
      failure; but three others in a row end the call in which they happen with an error.
    - No trial is spent on a candidate that another one has had, nor, where the hypermodel has a
      method `within_budget(values)`, on one over budget: these leave nothing in the study. A
      search that finds no further candidate is over, with a warning.

    A complete trial has the attribute `record`: `cost`, `history`, `seconds` and `summary` of
    its model. Rows of the study with the attribute `void` never had a candidate.

    Args:
        hypermodel: a `keras_tuner.HyperModel`, or a function that builds a model from a
            `keras_tuner.HyperParameters`.
        study_name: of the study, which is made if the storage does not have it.
        storage: URL of a database (`"sqlite:///search.db"`, `"postgresql+psycopg://..."`), path
            of a journal file (`"search.journal"`, `"search.log"`), or a storage of Optuna.
        max_trials: number of trials in the study.
        objective: name of a metric, or a `keras_tuner.Objective`. Its best epoch counts.
        sampler: of Optuna; by default a `TPESampler`.
        pruner: of Optuna; by default no trial is pruned.
        seed: of the default sampler. One worker, called again with the same seed and another
            study, runs the same trials.
        directory: where to keep the weights of the best trials, as
            `{directory}/{study_name}/trial_{number}.weights.h5`; by default nowhere.
        keep_checkpoints: number of trials whose weights are kept.
        grace_period: seconds without a sign of life after which a worker is taken for dead. If
            it is not, no harm is done but that its trial is run twice, and counted once.
        max_reruns: how often a trial is run again whose worker died; a candidate that kills its
            workers counts as failed after that.
        verbose: 1 for a line a trial, 0 for silence, Optuna's own included.
        **fit_arguments: for `fit` of the models: `x`, `y`, `epochs`, ... Each trial gets a copy
            of the `callbacks`.

    Returns:
        The `optuna.Study`.

    Raises:
        ImportError: without Optuna, or the driver of the database.
        ValueError: for an argument out of its range, and for a study of the other direction.
        RuntimeError: if three trials in a row have failed.

    Example:

    >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, max_params=100_000)
    >>> study = optuna_search(
    ...     hypermodel, "digits", "digits.journal", max_trials=20,
    ...     x=x, y=y, validation_data=(x_val, y_val), epochs=10,
    ... )
    >>> hp = keras_tuner.HyperParameters()
    >>> hp.values = dict(study.best_params)
    >>> model = hypermodel.build(hp)
    """
    from keras_resblocks.tuner.studies.queue import Queue
    from keras_resblocks.tuner.studies.worker import Checkpoints, Worker

    hypermodel = _hypermodel(hypermodel)
    objective = _objective(objective)
    validation.positive_int("max_trials", max_trials)
    validation.positive_int("keep_checkpoints", keep_checkpoints)
    validation.positive_number("grace_period", grace_period)
    validation.non_negative_number("max_reruns", max_reruns)
    with _quiet_optuna(verbose), plain_graphs():
        storage = open_storage(storage)
        study = _study(study_name, storage, objective, sampler, pruner)
        queue = Queue(study, storage, max_trials, grace_period, max_reruns)
        Worker(
            queue,
            hypermodel,
            objective,
            fit_arguments,
            sampler=sampler,
            pruner=pruner,
            seed=seed,
            checkpoints=directory
            and Checkpoints(pathlib.Path(directory) / study_name, keep_checkpoints),
            verbose=verbose,
        ).run()
    return study


class _Function(keras_tuner.HyperModel):
    """A hypermodel of a function that builds models."""

    def __init__(self, build):
        super().__init__()
        self.build = build


def _hypermodel(hypermodel):
    if isinstance(hypermodel, keras_tuner.HyperModel):
        return hypermodel
    if not callable(hypermodel):
        raise ValueError(
            "`hypermodel` must be a `keras_tuner.HyperModel` or a function that builds a model. "
            f"Received: hypermodel={hypermodel!r}"
        )
    return _Function(hypermodel)


def _objective(objective):
    if not isinstance(objective, (str, keras_tuner.Objective)):
        raise ValueError(
            "`objective` must be the name of a metric or a `keras_tuner.Objective`. "
            f"Received: objective={objective!r}"
        )
    # KerasTuner tells the direction of a metric nowhere else in public.
    return keras_tuner.oracles.RandomSearchOracle(objective).objective


@contextlib.contextmanager
def _quiet_optuna(verbose):
    """Optuna's messages are about studies in memory too, of which there is one a trial."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING if verbose else optuna.logging.CRITICAL)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _study(name, storage, objective, sampler, pruner):
    import optuna

    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction={"max": "maximize", "min": "minimize"}[objective.direction],
        sampler=sampler,
        pruner=pruner or optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    if study.direction.name.lower()[:3] != objective.direction:
        raise ValueError(
            f"`objective` must have the direction of the study {name!r}, which is to "
            f"{study.direction.name.lower()} its values. Received: objective={objective}"
        )
    return study


def open_storage(storage):
    """The storage of Optuna that the argument of `optuna_search` stands for."""
    import optuna

    if isinstance(storage, optuna.storages.BaseStorage):
        return storage
    if isinstance(storage, str) and "://" in storage:
        return _database(storage)
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


def _database(url, attempts=6):
    import optuna
    import sqlalchemy

    is_sqlite = url.startswith("sqlite:///") and ":memory:" not in url
    options = {"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True}
    for attempt in range(1, attempts + 1):
        try:
            storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
            break
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError):
            # Workers that start together make the tables together, and only one can.
            if attempt == attempts:
                raise
            time.sleep(random.uniform(0, 0.2 * attempt))
    if is_sqlite:
        _lock_whole_transactions(storage.engine)
    return storage


def _lock_whole_transactions(engine):
    """Keeps SQLite from reading a trial's state, and changing it after another process has."""
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection, _):
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # the connections that were made before
