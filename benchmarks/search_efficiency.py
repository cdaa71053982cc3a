"""How much training the engines of a search need, compared with random search.

    KERAS_BACKEND=torch python -m benchmarks.search_efficiency

Prints its tables and writes them to `benchmarks/results/search_efficiency.md`. PyTorch is the
quickest here: there is nothing to compile. A run that was killed goes on when it is started again.

Each engine searches the default space of `ResNetHyperModel`, with widths for images of 8 pixels and
at most 100,000 parameters, on 200 training images. Random search has `--trials` trials of 9
epochs; the other engines search until they find as good a validation accuracy, or have used half
as much again. They have seeds of their own: with the same one, KerasTuner's would draw the very
candidates that the goal is from. **Compute** is counted, not timed: multiply-accumulates of a
candidate times images times the epochs that were trained, also of trials that are stopped.

**The learning curves are tabulated**, as in NAS-Bench. A candidate is trained once for each data
set, by `ResNetHyperModel`'s own `build` and `fit`, as far as some engine asks for; the curve is
kept on disk, and the engines, which are the real ones, are told its values. A value depends on the
candidate, the data and the seed of the training (one for each candidate), but not on the engine.
One thing is simplified: `Hyperband` goes on from the last epoch of a trial, not from the best one.
The seeds are those of the searches; the data and the trainings are the same for all of them.

Random search is KerasTuner's own, less what is over budget or was tried. Its row, of another seed
than the goal, is what an engine gets that is no better.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import statistics
import tempfile
import zlib

import keras
import keras_tuner
import numpy as np
import optuna
from sklearn import datasets
from sklearn.model_selection import train_test_split

from benchmarks.tables import RESULTS, publish, spread, table, versions
from keras_resblocks import json_files
from keras_resblocks import tuner as search
from keras_resblocks.tuner.hyperparameters import parameters_of
from keras_resblocks.tuner.seeding import seed_all

IMAGES, EPOCHS, BATCH_SIZE, LIVE_MODELS = 200, 9, 32, 200
CAP, ENDLESS = 1.5, 10_000  # times the compute of random search; trials


def space():
    """What is searched."""
    return search.ResNetHyperModel((8, 8, 1), 10, widths=(8, 12, 16), max_params=100_000)


def digits():
    """Scikit-learn's digits."""
    x, y = datasets.load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8, 1).astype("float32") / 16, y


def waves(count=1000, noise=0.7):
    """Waves of five directions and two lengths, of any phase, in noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, count)
    angle, frequency, phase = np.pi * (y % 5) / 5, 1 + y // 5, rng.uniform(0, 2 * np.pi, count)
    rows, columns = np.mgrid[:8, :8].reshape(2, 1, 64) / 8
    along = np.cos(angle)[:, None] * columns + np.sin(angle)[:, None] * rows
    x = np.sin(2 * np.pi * frequency[:, None] * along + phase[:, None])
    return (x + noise * rng.normal(size=x.shape)).reshape(-1, 8, 8, 1).astype("float32"), y


DATA = {"digits": digits, "waves": waves}


class Curves:
    """The validation accuracy of candidates after each epoch, computed when it is asked for.

    Args:
        data: a name in `DATA`.
        path: of a file with the known ones, a line for each epoch.
    """

    def __init__(self, data, path):
        x, y = DATA[data]()
        split = dict(train_size=IMAGES, test_size=400, stratify=y, random_state=0)
        x, x_val, y, y_val = train_test_split(x, y, **split)
        self.fit_arguments = dict(x=x, y=y, validation_data=(x_val, y_val), verbose=0)
        self.fit_arguments.update(batch_size=BATCH_SIZE, validation_batch_size=len(y_val))
        self.hypermodel = space()
        self.path = path
        self.known = collections.defaultdict(list)
        self.models = collections.OrderedDict()  # of which further epochs may be asked for
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):  # of a line that a kill cut off
                self._note(*json.loads(line))

    def value(self, values, epoch):
        """The accuracy of the candidate with these hyperparameters after an epoch, from 0."""
        key = self.hypermodel.identity(values)
        while epoch >= len(self.known[key]):
            self._train(key, values)
        return self.known[key][epoch]

    def _train(self, key, values):
        """Trains a candidate for one more epoch."""
        hp = parameters_of(values)
        if key not in self.models:
            seed_all(zlib.crc32(key.encode()))
            self.models[key] = (self.hypermodel.build(hp), 0)
        model, epoch = self.models.pop(key)
        seed_all(zlib.crc32(f"{key} {epoch}".encode()))
        one = dict(initial_epoch=epoch, epochs=epoch + 1)
        history = self.hypermodel.fit(hp, model, **self.fit_arguments, **one).history
        self.models[key] = (model, epoch + 1)
        if len(self.models) > LIVE_MODELS:
            self.models.popitem(last=False)
        value = history["val_accuracy"][0]
        if self._note(key, epoch, value):
            with open(self.path, "a") as file:
                file.write(json.dumps([key, epoch, value]) + "\n")

    def _note(self, key, epoch, value):
        """Whether the value is news."""
        is_news = epoch == len(self.known[key])
        if is_news:
            self.known[key].append(value)
        return is_news


class SearchOverError(BaseException):
    """Ends a search; not an Exception, which the engines would catch."""


class Tabulated(keras_tuner.HyperModel):
    """The space, with trials that read their curves off a table, until a goal or limit is met."""

    def __init__(self, curves, goal=np.inf, limit=np.inf):
        super().__init__()
        self.curves, self.goal, self.limit = curves, goal, limit
        self.best, self.spent, self.trials = -1.0, 0, 0
        self.improvements = []  # pairs of the compute and the accuracy that it led to
        self.declare_hyperparameters = curves.hypermodel.declare_hyperparameters
        self.within_budget = curves.hypermodel.within_budget
        self.identity = curves.hypermodel.identity

    def build(self, hp):
        self.declare_hyperparameters(hp)
        return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    def fit(self, hp, model, *args, callbacks, epochs, initial_epoch=0, **kwargs):
        self.trials += 1
        cost, history = self.curves.hypermodel.cost(hp), keras.callbacks.History()
        values = {k: value for k, value in hp.values.items() if not k.startswith("tuner/")}
        callbacks = keras.callbacks.CallbackList([history, *callbacks], model=model)
        model.history = history
        callbacks.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            callbacks.on_epoch_begin(epoch)
            accuracy = self.curves.value(values, epoch)
            self._count(accuracy, cost.macs * IMAGES)
            callbacks.on_epoch_end(epoch, {"val_accuracy": accuracy, "params": cost.params})
        callbacks.on_train_end()
        return history

    def _count(self, accuracy, compute):
        self.spent += compute
        if accuracy > self.best:
            self.best = accuracy
            self.improvements.append((self.spent, accuracy))
        if self.best >= self.goal or self.spent >= self.limit:
            raise SearchOverError


def kerastuner(engine, shift=500_000, **options):
    """A search by one of KerasTuner's tuners; the shift is of the seed."""

    def run(hypermodel, seed, folder):
        tuner = engine(hypermodel, "val_accuracy", seed=seed + shift, directory=folder, **options)
        tuner.search(epochs=EPOCHS, verbose=0)

    return run


def by_optuna(pruner=None, *args, objective="val_accuracy"):
    """A search by Optuna, with its default sampler, TPE, and a pruner of these arguments."""
    options = dict(max_trials=ENDLESS, objective=objective, epochs=EPOCHS, verbose=0)

    def run(hypermodel, seed, folder):
        storage = optuna.storages.InMemoryStorage()
        options.update(pruner=pruner and pruner(*args), seed=seed)
        search.optuna_search(hypermodel, "search", storage, **options)

    return run


pruners = optuna.pruners
ENGINES = {
    "Hyperband": kerastuner(search.Hyperband, max_epochs=EPOCHS, hyperband_iterations=100),
    # By default it draws at random three times as often as there are hyperparameters.
    "BayesianOptimization, 5 initial points": kerastuner(
        search.BayesianOptimization, max_trials=ENDLESS, num_initial_points=5
    ),
    "Optuna": by_optuna(),
    "Optuna, MedianPruner": by_optuna(pruners.MedianPruner),
    "Optuna, SuccessiveHalvingPruner": by_optuna(pruners.SuccessiveHalvingPruner, 1, 3),
    "Optuna, HyperbandPruner": by_optuna(pruners.HyperbandPruner, 1, EPOCHS),
    "Optuna, accuracy and parameters": by_optuna(objective=["val_accuracy", "params"]),
}


def searched(run, hypermodel, seed):
    """What a search did, a dict."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SearchOverError):
        run(hypermodel, 1000 * (seed + 1), folder)  # Optuna's trials count on from the seed
    names = ("best", "spent", "trials", "improvements")
    return {name: getattr(hypermodel, name) for name in names}


def another_seed(randoms, seed):
    """What random search with the other seeds does, one after the other, for this seed's goal."""
    goal, limit = randoms[seed]["best"], CAP * randoms[seed]["spent"]
    spent = trials = 0
    for other in randoms[seed + 1 :] + randoms[:seed]:
        for used, accuracy in other["improvements"]:
            if accuracy >= goal or spent + used > limit:
                found = accuracy if spent + used <= limit else 0.0
                return {"best": found, "spent": min(spent + used, limit), "trials": trials}
        spent, trials = spent + other["spent"], trials + other["trials"]
    return {"best": 0.0, "spent": limit, "trials": trials}


def row(name, randoms, runs):
    """The row of an engine in a table."""
    used = [min(run["spent"] / goal["spent"], CAP) for run, goal in zip(runs, randoms)]
    reached = [run["best"] >= goal["best"] for run, goal in zip(runs, randoms)]
    first = sum(goal["improvements"][-1][0] for goal in randoms)
    return (
        name,
        f"{statistics.median(used):.2f}",
        *spread(used, ".2f"),
        f"{sum(reached)} of {len(runs)}",
        f"{sum(run['spent'] for run in runs) / first:.2f}",
        f"{statistics.median(run['trials'] for run in runs):.0f}",
    )


COLUMNS = ("engine", "median", "mean", "min", "max", "reached", "of its first", "trials")


def main(arguments=None):
    """Searches, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=24, help="of random search")
    work = pathlib.Path(tempfile.gettempdir()) / "keras_resblocks_efficiency"
    parser.add_argument("--work", type=pathlib.Path, default=work, help="folder of what is known")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder of the report")
    args = parser.parse_args(arguments)
    args.work.mkdir(parents=True, exist_ok=True)
    with_versions = versions(("keras", "keras-tuner", "optuna", keras.backend.backend()))
    report = ["# Search: compute to random search's final accuracy", f"{with_versions}."]
    for data in args.data:
        report += measured(data, args)
    publish(report, args.out / "search_efficiency.md")


def measured(data, args):
    """The paragraphs of a data set."""
    curves = Curves(data, args.work / f"{data}_{keras.backend.backend()}.jsonl")

    def once(name, seed, run, **limits):
        path = args.work / f"{data}, {name}, {args.trials} trials, seed {seed}.json"
        if not path.exists():
            result = searched(run, Tabulated(curves, **limits), seed)
            json_files.write(path, result)
            print(f"{path.stem}: {result['trials']}, {result['best']:.4f}", flush=True)
        return json_files.read(path)

    random = kerastuner(search.RandomSearch, shift=0, max_trials=args.trials)
    randoms, runs = [], {name: [] for name in args.engines}
    for seed in range(args.seeds):
        randoms.append(once("RandomSearch", seed, random))
        limits = dict(goal=randoms[-1]["best"], limit=CAP * randoms[-1]["spent"])
        for name in args.engines:
            runs[name].append(once(name, seed, ENGINES[name], **limits))
    others = [another_seed(randoms, seed) for seed in range(args.seeds)]
    rows = [row("RandomSearch, another seed", randoms, others)]
    rows += [row(name, randoms, found) for name, found in runs.items()]
    least, most = (f"{choose(goal['best'] for goal in randoms):.4f}" for choose in (min, max))
    return [
        f"## {data}",
        f"Compute of an engine relative to that of {args.trials} random trials of {EPOCHS} epochs, "
        f"over {args.seeds} seeds, at most {CAP}; how often it reached their best validation "
        f"accuracy ({least} to {most}); the sum of all seeds relative to that at which random "
        "search had first come to it; and the number of trainings.",
        table(COLUMNS, rows),
    ]


if __name__ == "__main__":
    main()
