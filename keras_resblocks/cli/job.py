"""A search in a folder, as the options of the command line describe it.

The folder has the options (`arguments.json`), a record of the data (`data.json`), KerasTuner's
project (`search`) or the weights of a study, and in the end the report (`report`) and the best
model (`best.keras`), which takes pictures and knows the names of the classes.
"""

import importlib.util
import os
import shlex
import shutil
import signal
import sys
import textwrap

import keras
import numpy as np

from keras_resblocks import json_files
from keras_resblocks.cli import backend, data, report
from keras_resblocks.cli.engines import ENGINES
from keras_resblocks.cli.options import ARGUMENTS_FILE, BATCH_SIZE, DATA_FILE, EPOCHS
from keras_resblocks.cli.space import HYPERMODELS, space_of
from keras_resblocks.training.pictures import from_pictures
from keras_resblocks.transforms import export_onnx
from keras_resblocks.tuner.hyperparameters import parameters_of

UNEQUAL = 1.5  # times as many images of a class as of another
# What is needed, by extra.
PACKAGES = {
    "cli": ("PIL", "jinja2", "optuna", "plotly", "sklearn"),
    "ray": ("ray",),
    "onnx": ("onnx", "onnxruntime", "tensorflow", "tf2onnx"),
}


class _Interrupter(keras.callbacks.Callback):
    """Raises a Ctrl-C that was lost: what a callback of the garbage collector raises, and JAX
    has one, is printed and no more.
    """

    interrupted = False  # of the class, as trials get copies

    @classmethod
    def interrupt(cls, number, frame):
        cls.interrupted = True
        raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):  # the last epoch is on disk
        if self.interrupted:
            raise KeyboardInterrupt


class Job:
    """A search.

    Args:
        folder: a `pathlib.Path`.
        options: as `options_of` and `read_options` return them; what is left to the data is set.
        known: the record of the data that the search began with.

    Raises a `ValueError` if there is no such data, it has changed, or for no such search space.
    """

    def __init__(self, folder, options, known=None):
        self.folder = folder
        self.options = options
        # To say so before the search, and not after.
        _require("A search", "cli")
        if options.engine == "ray":
            _require("`--engine ray`", "ray")
        if options.onnx:
            _require("`--onnx`", "onnx")
        self.data = data.load(
            options.data,
            size=options.size,
            grayscale=options.grayscale,
            seed=options.seed,
            task=options.task,
            known=known,
            say=lambda sentence: print(f"note: {sentence}", file=sys.stderr, flush=True),
        )
        options.task = self.data.task
        if isinstance(self.data.x, data.Images) and options.batch_sizes:
            raise ValueError(
                "`--batch-size` must be given instead of `--batch-sizes` for data as large as "
                f"these, which are read in batches. Received: {' '.join(options.batch_sizes)}"
            )
        if options.class_weights and self.data.task != "classification":
            raise ValueError(
                f"`--class-weights` is for classification. Received: data for {self.data.task}"
            )
        self.epochs = options.epochs or EPOCHS
        self.hypermodel = HYPERMODELS[options.network](
            self.data.x.shape[1:], self.data.outputs, task=self.data.task, **space_of(options)
        )

    def run(self):
        """Searches, or goes on, and uses what was found; the exit status."""
        before = signal.getsignal(signal.SIGINT)
        if before != signal.SIG_IGN:  # as in the background
            signal.signal(signal.SIGINT, _Interrupter.interrupt)
        try:
            return self._run()
        except KeyboardInterrupt:
            print(f"interrupted; to go on: {self._to_go_on()}", flush=True)
            return 128 + signal.SIGINT
        finally:
            signal.signal(signal.SIGINT, before)
            _Interrupter.interrupted = False

    def _run(self):
        search = ENGINES[self.options.engine](self)  # first what may find a mistake in the options
        self.folder.mkdir(parents=True, exist_ok=True)
        json_files.write(self.folder / DATA_FILE, self.data.record)
        json_files.write(self.folder / ARGUMENTS_FILE, vars(self.options))
        name = os.path.basename(self.options.data)
        for line in f"{name}: {self.data.described()}".splitlines():
            width = shutil.get_terminal_size().columns
            print(textwrap.fill(line, width, subsequent_indent="  "))
        print(f"to go on: {self._to_go_on()}", flush=True)  # in one piece, to be copied
        source = search(**self._fit_arguments(self.epochs))
        found = report.write(source, self.folder / "report", self.hypermodel.objective.name)
        if found.best is None:
            raise ValueError("No trial of this search was completed; the report says why")
        self._save_and_test(self._best_model(found.best))
        return 0

    def _best_model(self, trial):
        """The model of a trial with its weights; trained again on request, or if it has none."""
        backend.import_tensorflow()
        if trial.weights and not self.options.retrain:
            return trial.load_model(self.hypermodel)
        hp = parameters_of(trial.hyperparameters)
        keras.utils.set_random_seed(self.options.seed)
        model = self.hypermodel.build(hp)
        arguments = self._fit_arguments(self.options.retrain or self.epochs)
        self.hypermodel.fit(hp, model, verbose=0, **arguments)
        return model

    def _save_and_test(self, best):
        found = self.data
        whole = from_pictures(best, found.classes, found.divisor, found.background)
        path = self.folder / "best.keras"
        half_written = path.with_name(f"best.{os.getpid()}.keras")
        whole.save(half_written)
        os.replace(half_written, path)
        print(f"best model: {path}, {best.count_params():,} parameters")
        if self.options.onnx:
            export_onnx(whole, self.folder / "best.onnx")
            print(f"for other runtimes: {self.folder / 'best.onnx'}")
        test = self._batched(self.data.x_test, self.data.y_test)
        if self.data.task == "classification":
            print(_tested(found, best.predict(test[0], verbose=0).argmax(axis=-1)))
        else:
            tested = best.evaluate(*test, verbose=0, return_dict=True)
            tested.pop("loss")
            print("\n".join(f"test {name} {value:.4f}" for name, value in tested.items()))

    def _to_go_on(self):
        return f"python -m keras_resblocks resume {shlex.quote(str(self.folder))}"

    def _batched(self, x, y, seed=None):
        """The arguments of `fit` for images and labels."""
        if not isinstance(x, data.Images):
            return x, y
        return data.Batches(x, y, self.options.batch_size or BATCH_SIZE, seed), None

    def _fit_arguments(self, epochs):
        x, y = self._batched(self.data.x, self.data.y, self.options.seed)
        validation = self._batched(self.data.x_val, self.data.y_val)
        arguments = {
            "x": x,
            "y": y,
            "validation_data": validation[0] if y is None else validation,
            "epochs": epochs,
            "callbacks": [_Interrupter()],
        }
        if y is not None and not self.options.batch_sizes:
            arguments["batch_size"] = self.options.batch_size or BATCH_SIZE
        if self.options.class_weights:
            counts = np.bincount(self.data.y)
            weights = len(self.data.y) / np.maximum(1, counts * np.count_nonzero(counts))
            arguments["class_weight"] = dict(enumerate(weights.tolist()))
        return arguments


def _tested(found, predicted):
    """The accuracy on the test; of unequal classes also that of each, the worst first."""
    is_right = predicted == found.y_test
    lines = []
    if found.counts.max() > UNEQUAL * found.counts.min():
        each = {label: is_right[found.y_test == label] for label in np.unique(found.y_test)}
        worst = sorted(each.items(), key=lambda item: item[1].mean())
        lines = [
            "test accuracy of each class:",
            *(f"  {of.mean():.4f} {found.classes[label]} ({len(of)})" for label, of in worst[:20]),
            *([f"  and {len(each) - 20} more"] if len(each) > 20 else []),
            f"balanced accuracy {np.mean([of.mean() for of in each.values()]):.4f}",
        ]
    return "\n".join([*lines, f"test accuracy {is_right.mean():.4f}"])


def read_record(folder):
    """The record of the data that the search in a folder began with; None if it has none."""
    path = folder / DATA_FILE
    if not path.exists():  # a search of 0.1.0
        print(f"note: {path} is missing: the data are split again", file=sys.stderr, flush=True)
        return None
    record = json_files.read(path)
    if not isinstance(record, dict) or "split" not in record:
        raise ValueError(
            f"{path} must hold what the data were, but it is damaged. Put a copy in its place, or "
            "start over: search DATA --overwrite"
        )
    return record


def _require(what, extra):
    for name in PACKAGES[extra]:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"{what} needs {name}: install keras-resblocks[{extra}]")
