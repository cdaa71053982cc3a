"""The engines of a search: functions of a `Job`, which find mistakes in its options.

Each returns a function that takes the arguments of `fit`, searches, or goes on, and returns what
`report` reads.
"""

import functools

from keras_resblocks import tuner
from keras_resblocks.cli.options import PROJECT, PRUNED_TRIALS, TRIALS
from keras_resblocks.tuner.optuna_search import open_storage
from keras_resblocks.tuner.seeding import seed_all

TUNERS = {
    "random": tuner.RandomSearch,
    "grid": tuner.GridSearch,
    "hyperband": tuner.Hyperband,
    "bayesian": tuner.BayesianOptimization,
}


def kerastuner(job):
    """One of KerasTuner's tuners, in this process."""
    options = job.options
    seed_all(options.seed)
    limit = {"max_trials": options.trials or TRIALS}
    if options.tuner == "hyperband":
        limit = {"max_epochs": job.epochs}
    searching = TUNERS[options.tuner or "random"](
        job.hypermodel,
        job.hypermodel.objective,
        **limit,
        seed=options.seed,
        keep_checkpoints=options.keep_checkpoints,
        directory=job.folder,
        project_name=PROJECT,
    )

    def search(**fit_arguments):
        searching.search(**fit_arguments)
        return searching

    return search


def optuna(job):
    """Optuna, which stops trials early; any number of these commands share a study."""
    from optuna.pruners import MedianPruner

    options = job.options
    if str(job.folder.absolute()) in options.storage:
        job.folder.mkdir(parents=True, exist_ok=True)
    return functools.partial(
        tuner.optuna_search,
        job.hypermodel,
        options.study,
        _opened(options.storage),
        max_trials=options.trials or PRUNED_TRIALS,
        objective=job.hypermodel.objective,
        pruner=MedianPruner(),
        seed=options.seed,
        directory=job.folder,
        keep_checkpoints=options.keep_checkpoints,
    )


def ray(job):
    """Ray Tune: a share of a GPU, or CPUs, for each trial."""
    options = job.options
    shares = {"cpu": options.cpus_per_trial, "gpu": options.gpus_per_trial}
    return functools.partial(
        tuner.ray_search,
        job.hypermodel,
        PROJECT,
        max_trials=options.trials or TRIALS,
        objective=job.hypermodel.objective,
        resources_per_trial={name: n for name, n in shares.items() if n is not None} or None,
        storage_path=job.folder,
        seed=options.seed,
    )


ENGINES = {"kerastuner": kerastuner, "optuna": optuna, "ray": ray}


def _opened(url):
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return open_storage(url)
    except (SQLAlchemyError, StorageInternalError) as error:
        raise ValueError(f"`--storage` cannot be opened: {error}") from None


def load_study(name, url):
    """A study of Optuna; a `ValueError` if the storage does not have it."""
    from optuna import load_study as load

    try:
        return load(study_name=name, storage=_opened(url))
    except KeyError:
        raise ValueError(f"`--storage` must have the study {name!r}. Received: {url}") from None
