"""The options of a search: what the command line takes, what may go together, and their file."""

import argparse
import contextlib
import os
import pathlib
import shlex

import keras

from keras_resblocks import tuner, validation
from keras_resblocks.cli.launch import add_worker_arguments
from keras_resblocks.tuner import storage
from keras_resblocks.tuner.hypermodels import ARGUMENTS

ARGUMENTS_FILE = "arguments.json"
PROJECT = "search"
OBJECTIVE = "val_accuracy"
TRIALS, EPOCHS, BATCH_SIZE = 12, 10, 64  # where nothing is said

TUNERS = {
    "random": tuner.RandomSearch,
    "grid": tuner.GridSearch,
    "hyperband": tuner.Hyperband,
    "bayesian": tuner.BayesianOptimization,
}
NETWORKS = {"resnet": tuner.ResNetHyperModel, "inception": tuner.InceptionHyperModel}
# Of the hypermodel, beside the lists.
_SETTINGS = (
    *("max_params", "max_macs", "max_activation_memory"),
    *("stages", "per_stage", "schedule_epochs"),
)
_WORDS = {"none": None, "true": True, "false": False}
# Of the command, not of the search.
_PASSING = ("run", "parser", "is_own", "out", "overwrite")


def _lists():
    """For each list of the search space: the names that it may have, and its default, as text."""

    def text(values):
        values = values if isinstance(values, (list, tuple)) else (values,)
        return " ".join("none" if value is None else str(value) for value in values)

    lists = {}
    for argument, known in ARGUMENTS.items():
        defaults = {
            name: text(network.defaults[argument])
            for name, network in NETWORKS.items()
            if argument in network.defaults
        }
        if defaults == dict.fromkeys(NETWORKS, defaults.get("resnet")):
            lists[argument] = known.names, f"({defaults['resnet']})"
        else:
            each = (f"{network}: {default}" for network, default in defaults.items())
            lists[argument] = known.names, f"({', '.join(each)})"
    return lists


LISTS = _lists()


def add_arguments(parser):
    """Declares what the command takes."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="digits (scikit-learn's), a folder with a folder of images for each class, or an "
        ".npz file with the arrays x and y, and perhaps x_val, y_val, x_test, y_test",
    )
    parser.add_argument("--out", type=pathlib.Path, default="search_results", metavar="DIR")
    parser.add_argument("--overwrite", action="store_true", help="forget the search in DIR")
    add_shared_arguments(parser)

    images = parser.add_argument_group("images")
    images.add_argument("--size", type=positive, help="to resize those of a folder to (32)")
    images.add_argument("--grayscale", action="store_true", help="even if not all of them are")

    tuning = parser.add_argument_group("search")
    tuning.add_argument("--tuner", choices=TUNERS, help="random by default")
    tuning.add_argument("--batch-size", type=positive, help=f"of all ({BATCH_SIZE})")
    tuning.add_argument("--seed", type=int, default=1)
    tuning.add_argument("--small-first", action="store_true", help="begin with small candidates")
    tuning.add_argument("--warm-start", action="store_true", help="deepen trained candidates")
    tuning.add_argument(
        "--keep-checkpoints", type=positive, default=10, metavar="N", help="of the best (10)"
    )
    tuning.add_argument("--study", metavar="NAME", help="search with Optuna, into --storage")
    tuning.add_argument(
        "--storage", metavar="URL", help="a database, or a file.journal; DIR keeps a note of it"
    )

    space = parser.add_argument_group(
        "search space",
        "Each list is searched, and one value alone is fixed. Numbers may be a range: "
        "1e-4:1e-2:log.",
    )
    space.add_argument("--network", choices=NETWORKS, default="resnet")
    for limit in ("params", "macs", "activation-memory"):
        space.add_argument(f"--max-{limit}", type=positive, metavar="N")
    space.add_argument("--mixed-precision", choices=("bfloat16", "float16"))
    space.add_argument("--stages", type=positive)
    space.add_argument("--per-stage", nargs="*", metavar="LIST", help="of depth and width")
    space.add_argument("--schedule-epochs", type=positive)
    for argument, (names, default) in LISTS.items():
        known = f"of {', '.join(names)}; " if names else ""
        space.add_argument(
            f"--{argument.replace('_', '-')}",
            nargs="+",
            metavar="VALUE",
            help=f"{known}{default}",
        )


def add_shared_arguments(parser):
    """Declares what may be given again to go on."""
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    parser.add_argument("--trials", type=positive, help="in all (12); not for hyperband")
    parser.add_argument("--epochs", type=positive, help="of a trial, at most (10)")
    parser.add_argument(
        "--retrain", type=positive, metavar="EPOCHS", help="train the best again from scratch"
    )
    add_worker_arguments(parser.add_argument_group("workers, none by default"))


def positive(text):
    """A positive integer, as argparse reads it."""
    try:
        return validation.positive_int("N", int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a positive integer. Received: {text!r}"
        ) from None


def options_of(args):
    """The options of a search among the arguments of the command.

    Raises:
        ValueError: for those that do not go together.
    """
    options = _of_the_search(args)
    if pathlib.Path(options.data).exists() and options.data != "digits":
        options.data = os.path.abspath(options.data)  # `resume` may be called from elsewhere
    if options.storage and "://" not in options.storage:
        options.storage = os.path.abspath(options.storage)
    options.backend = options.backend or keras.backend.backend()
    _check(options)
    return options


def _of_the_search(args):
    return argparse.Namespace(**{k: v for k, v in vars(args).items() if k not in _PASSING})


def _check(options):
    if (options.study is None) != (options.storage is None):
        raise ValueError("`--study` and `--storage` go together")
    if options.study:
        for name in ("tuner", "small_first", "warm_start", "workers", "gpus"):
            if getattr(options, name):
                raise ValueError(
                    f"`--{name.replace('_', '-')}` is not for `--study`, which Optuna searches. "
                    "For more workers, start the command in other processes, each with an `--out` "
                    "of its own"
                )
    if options.tuner == "hyperband" and options.trials:
        raise ValueError("`--trials` is not for `--tuner hyperband`, whose `--epochs` tell them")
    if options.batch_size and options.batch_sizes:
        raise ValueError("`--batch-size` and `--batch-sizes` do not go together")
    for name in LISTS.keys() - NETWORKS[options.network].defaults.keys():
        if getattr(options, name):
            option = name.replace("_", "-")
            raise ValueError(f"`--{option}` is not for `--network {options.network}`")
    if options.workers is not None:
        validation.positive_int("--workers", options.workers)


def check_free(folder, overwrite):
    """Checks that a folder has no search that would be lost.

    Raises:
        ValueError: if it has one.
    """
    has_search = is_search(folder) or any((folder / PROJECT).glob("trial_*"))
    if has_search and not overwrite:
        raise ValueError(
            f"{folder} has a search in it. Go on with it: resume {shlex.quote(str(folder))}; or "
            "begin anew: --overwrite"
        )


def is_search(folder):
    """Whether a folder is that of a search of the command line."""
    return any(folder.glob(f"{ARGUMENTS_FILE}*"))


def read_options(folder):
    """The options of the search in a folder.

    Raises:
        ValueError: if they are not there, or damaged.
    """
    path = folder / ARGUMENTS_FILE
    if not is_search(folder):
        raise ValueError(f"{folder} has no search of this command in it: {path} is missing")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    defaults = vars(_of_the_search(parser.parse_args(["digits"])))
    options = storage.read_intact(path)
    if not isinstance(options, dict) or "data" not in options or options.keys() - defaults.keys():
        raise ValueError(
            f"{path} must hold the arguments of the search, but it is damaged. Put a copy in its "
            "place, or begin anew: search DATA --overwrite"
        )
    return argparse.Namespace(**{**defaults, **options})


def change_options(options, args):
    """Changes the options of a search to what `resume` was given.

    Raises:
        ValueError: for what cannot be changed.
    """
    if options.tuner == "hyperband" and args.epochs not in (None, options.epochs):
        raise ValueError("`--epochs` must stay as they were in a search of `--tuner hyperband`")
    if args.workers is not None or args.gpus is not None:
        options.workers = options.gpus = None
    for name in ("backend", "trials", "epochs", "retrain", "workers", "gpus", "logs", "restart"):
        value = getattr(args, name)
        if value not in (None, False):
            setattr(options, name, value)
    _check(options)


def space_of(options):
    """The arguments of the hypermodel."""
    given = {name: getattr(options, name) for name in (*_SETTINGS, *LISTS)}
    space = {
        name: _values(value) if name in LISTS else value
        for name, value in given.items()
        if value is not None
    }
    if options.mixed_precision:
        space["dtype"] = f"mixed_{options.mixed_precision}"
    return space


def _values(words):
    """What a list of the search space says."""
    if len(words) == 1 and ":" in words[0]:
        low, high, *sampling = words[0].split(":")
        return tuner.Range(_value(low), _value(high), sampling=":".join(sampling) or "linear")
    return [_value(word) for word in words]


def _value(word):
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(word)
    return _WORDS.get(word.lower(), word)
