"""A search in a folder, as the options of the command line describe it.

The folder has the options (`arguments.json`), KerasTuner's project (`search`) or the weights of a
study, and in the end the report (`report`) and the best model (`best.keras`).
"""

import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import sys
import threading

import keras
import keras_tuner

from keras_resblocks import tuner
from keras_resblocks.cli import data, launch
from keras_resblocks.cli.options import (
    ARGUMENTS_FILE,
    BATCH_SIZE,
    EPOCHS,
    NETWORKS,
    OBJECTIVE,
    PROJECT,
    TRIALS,
    TUNERS,
    space_of,
)
from keras_resblocks.tuner import storage
from keras_resblocks.tuner.seeding import seed_all
from keras_resblocks.tuner.studies.search import open_storage


def choose_backend(backend, args):
    """Starts this process anew where Keras has another backend.

    Raises:
        ValueError: if it is not installed, or if the command is called from Python.
    """
    if backend == keras.backend.backend():
        return
    if importlib.util.find_spec(backend) is None:
        raise ValueError(f"`--backend` must be installed. Received: {backend}")
    if not args.is_own:
        raise ValueError(
            f"`--backend` must be that of this process, {keras.backend.backend()}. "
            f"Received: {backend}"
        )
    # Keras reads its backend once, when it is imported, and `python -m keras_resblocks` imports
    # it before any line of the command: so the same command is run again in this process' place.
    sys.stdout.flush()
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "KERAS_BACKEND": backend})


def load_study(name, url):
    """A study of Optuna.

    Raises:
        ValueError: if the storage does not have it.
    """
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=_open(url))
    except KeyError:
        raise ValueError(f"`--storage` must have the study {name!r}. Received: {url}") from None


def _open(url):
    import optuna
    import sqlalchemy

    try:
        return open_storage(url)
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise ValueError(f"`--storage` cannot be opened: {error}") from None


_interrupted = threading.Event()


def _interrupt(number, frame):
    _interrupted.set()
    raise KeyboardInterrupt


class _Interrupter(keras.callbacks.Callback):
    """Raises a Ctrl-C that was lost: what a callback of the garbage collector raises, and JAX
    has one, is printed and no more.
    """

    def on_epoch_begin(self, epoch, logs=None):  # the last epoch is on disk
        if _interrupted.is_set():
            raise KeyboardInterrupt


@contextlib.contextmanager
def _interruptible():
    """A Ctrl-C ends what is within, soon if not at once."""
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:  # as in the background
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _interrupted.clear()


class Job:
    """A search.

    Args:
        folder: a `pathlib.Path`.
        options: as `options_of` and `read_options` return them.

    Raises:
        ValueError: if there is no such data, or no such search space.
    """

    def __init__(self, folder, options):
        self.folder = folder
        self.options = options
        for name in ("jinja2", "matplotlib", "plotly", *(["optuna"] if options.study else [])):
            if importlib.util.find_spec(name) is None:  # to say so before the search, not after
                raise ImportError(f"A search needs {name}: install keras-resblocks[cli]")
        self.data = data.load(
            options.data, size=options.size, grayscale=options.grayscale, seed=options.seed
        )
        self.hypermodel = NETWORKS[options.network](
            self.data.x.shape[1:], self.data.classes, **space_of(options)
        )

    def begin(self, overwrite=False):
        """Searches in a folder that has no search yet; the exit status."""
        if overwrite:
            for path in (PROJECT, "report"):
                shutil.rmtree(self.folder / path, ignore_errors=True)
            for path in self.folder.glob(f"{ARGUMENTS_FILE}*"):
                path.unlink()
        return self.run()

    def run(self):
        """Searches, or goes on, and uses what was found; the exit status."""
        has_workers = self.options.workers is not None or self.options.gpus is not None
        if has_workers:
            launch.devices_of(self.options)
        try:
            with _interruptible():
                return self._run(has_workers)
        except KeyboardInterrupt:
            folder = shlex.quote(str(self.folder))
            print(f"interrupted; to go on: python -m keras_resblocks resume {folder}", flush=True)
            return 128 + signal.SIGINT

    def take_part(self):
        """Searches as one of the processes of `launch`; the exit status."""
        self._search(self._tuner())
        return 0

    def _run(self, has_workers):
        options = self.options
        # First what may find a mistake in the options; but the GPUs are for the workers.
        engine = None if has_workers or options.study else self._tuner()
        study_storage = _open(options.storage) if options.study else None
        self.folder.mkdir(parents=True, exist_ok=True)
        storage.write_json(self.folder / ARGUMENTS_FILE, vars(options))
        if has_workers:
            command = [sys.executable, "-m", "keras_resblocks", "resume", str(self.folder)]
            status = launch.launch([*command, "--member"], options)
            if status:
                return status
            engine = self._tuner()
        if options.study:
            self._finish(self._search_study(study_storage), self._best_of_study)
        else:
            self._search(engine)  # over at once, where the workers have searched
            self._finish(engine, self._best_of_tuner)
        return 0

    def _tuner(self):
        options = self.options
        seed_all(options.seed)
        limit = {"max_trials": options.trials or TRIALS}
        if options.tuner == "hyperband":
            limit = {"max_epochs": self._epochs}
        return TUNERS[options.tuner or "random"](
            self.hypermodel,
            OBJECTIVE,
            **limit,
            seed=options.seed,
            small_first=options.small_first,
            warm_start=options.warm_start,
            keep_checkpoints=options.keep_checkpoints,
            directory=self.folder,
            project_name=PROJECT,
        )

    @property
    def _epochs(self):
        return self.options.epochs or EPOCHS

    def _fit_arguments(self, epochs):
        batch_size = None if self.options.batch_sizes else self.options.batch_size or BATCH_SIZE
        return {
            "validation_data": (self.data.x_val, self.data.y_val),
            "epochs": epochs,
            "callbacks": [_Interrupter()],
            **({"batch_size": batch_size} if batch_size else {}),
        }

    def _search(self, engine):
        engine.search(self.data.x, self.data.y, **self._fit_arguments(self._epochs))

    def _search_study(self, study_storage):
        return tuner.optuna_search(
            self.hypermodel,
            self.options.study,
            study_storage,
            max_trials=self.options.trials or TRIALS,
            objective=OBJECTIVE,
            seed=self.options.seed,
            directory=self.folder,
            keep_checkpoints=self.options.keep_checkpoints,
            x=self.data.x,
            y=self.data.y,
            **self._fit_arguments(self._epochs),
        )

    def _finish(self, source, best):
        """Reports on a tuner or a study, saves its best model and tests it."""
        found = tuner.report(source, self.folder / "report", objective=OBJECTIVE)
        print(found)
        print(f"report: {found.paths['report.html']}")
        if found.best is None:
            raise ValueError("No trial of this search was completed; the report says why")
        path = self.folder / "best.keras"
        half_written = path.with_name(f"best.{os.getpid()}.keras")
        best(source).save(half_written)
        os.replace(half_written, path)
        model = keras.saving.load_model(path)
        print(f"best model: {path}, {model.count_params():,} parameters")
        tested = model.evaluate(self.data.x_test, self.data.y_test, verbose=0, return_dict=True)
        print(f"test accuracy {tested['accuracy']:.4f}")

    def _best_of_tuner(self, engine):
        if not self.options.retrain:
            return engine.get_best_models(1)[0]
        arguments = self._fit_arguments(self.options.retrain)
        return engine.retrain_best(self.data.x, self.data.y, verbose=0, **arguments)

    def _best_of_study(self, study):
        hp = keras_tuner.HyperParameters()
        hp.values = dict(study.best_params)
        keras.utils.set_random_seed(self.options.seed)
        model = self.hypermodel.build(hp)
        weights = self.folder / study.study_name / f"trial_{study.best_trial.number}.weights.h5"
        if weights.exists() and not self.options.retrain:
            model.optimizer.build(model.trainable_variables)  # whose state is in the file
            model.load_weights(weights)
        else:  # it was another machine's
            arguments = self._fit_arguments(self.options.retrain or self._epochs)
            self.hypermodel.fit(hp, model, self.data.x, self.data.y, verbose=0, **arguments)
        return model
