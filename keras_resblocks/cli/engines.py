"""The engines that may run a search of the command line."""

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


class _Engine:
    """An engine.

    Args:
        job: the `Job`, with options, hypermodel and folder.

    Attributes:
        needs: modules beside those of every search.
        default_trials: how many there are where nothing is said.
    """

    needs = ()
    default_trials = TRIALS

    def __init__(self, job):
        self.job = job
        self.options = job.options
        self.trials = job.options.trials or self.default_trials

    def search(self, x, y, **fit_arguments):
        """Searches, or goes on; what `report` reads."""
        raise NotImplementedError


class KerasTuner(_Engine):
    """One of KerasTuner's tuners, in this process."""

    def __init__(self, job):
        super().__init__(job)
        seed_all(self.options.seed)
        limit = {"max_trials": self.trials}
        if self.options.tuner == "hyperband":
            limit = {"max_epochs": job.epochs}
        self.tuner = TUNERS[self.options.tuner or "random"](
            job.hypermodel,
            job.hypermodel.objective,
            **limit,
            seed=self.options.seed,
            keep_checkpoints=self.options.keep_checkpoints,
            directory=job.folder,
            project_name=PROJECT,
        )

    def search(self, x, y, **fit_arguments):
        self.tuner.search(x, y, **fit_arguments)
        return self.tuner


class Optuna(_Engine):
    """Optuna, which stops trials early; any number of these commands share a study."""

    needs = ("optuna",)
    default_trials = PRUNED_TRIALS

    def __init__(self, job):
        super().__init__(job)
        if str(job.folder.absolute()) in self.options.storage:
            job.folder.mkdir(parents=True, exist_ok=True)
        self.storage = opened(self.options.storage)

    def search(self, x, y, **fit_arguments):
        import optuna

        return tuner.optuna_search(
            self.job.hypermodel,
            self.options.study,
            self.storage,
            max_trials=self.trials,
            objective=self.job.hypermodel.objective,
            pruner=optuna.pruners.MedianPruner(),
            seed=self.options.seed,
            directory=self.job.folder,
            keep_checkpoints=self.options.keep_checkpoints,
            x=x,
            y=y,
            **fit_arguments,
        )


class Ray(_Engine):
    """Ray Tune: a share of a GPU, or CPUs, for each trial."""

    needs = ("ray", "optuna")

    def search(self, x, y, **fit_arguments):
        shares = {"cpu": self.options.cpus_per_trial, "gpu": self.options.gpus_per_trial}
        given = {name: share for name, share in shares.items() if share is not None}
        return tuner.ray_search(
            self.job.hypermodel,
            PROJECT,
            max_trials=self.trials,
            objective=self.job.hypermodel.objective,
            resources_per_trial=given or None,
            storage_path=self.job.folder,
            seed=self.options.seed,
            x=x,
            y=y,
            **fit_arguments,
        )


ENGINES = {"kerastuner": KerasTuner, "optuna": Optuna, "ray": Ray}


def opened(url):
    """The storage of a study.

    Raises:
        ValueError: if it cannot be opened.
    """
    import optuna
    import sqlalchemy

    try:
        return open_storage(url)
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise ValueError(f"`--storage` cannot be opened: {error}") from None


def load_study(name, url):
    """A study of Optuna.

    Raises:
        ValueError: if the storage does not have it.
    """
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=opened(url))
    except KeyError:
        raise ValueError(f"`--storage` must have the study {name!r}. Received: {url}") from None
