"""The options of a search: what the command line takes, what may go together, and their file.

Nothing here imports Keras: a mistake is said at once.
"""

import argparse
import contextlib
import math
import os
import pathlib
import shlex
import shutil

from keras_resblocks import json_files

ARGUMENTS_FILE = "arguments.json"
PROJECT = "search"
STUDY_FILE = "study.db"
DATA_FILE = "data.json"
TRIALS, EPOCHS, BATCH_SIZE = 12, 10, 64  # where nothing is said
PRUNED_TRIALS = 24  # which take about as long, as many are stopped early

TASKS = ("classification", "multilabel", "regression")
TUNERS = ("random", "grid", "hyperband", "bayesian")

# The lists of the search space, with what is said of them.
LISTS = {
    "blocks": "residual, bottleneck; by default both",
    "kinds": "v1, v2, factorized; by default v1 v2",
    "depths": "blocks in a stage; by default 1 to 4, or 3",
    "widths": "channels of the first stage; by default 16 32 64, or twice that",
    "width_multipliers": "from stage to stage (2)",
    "expansions": "of bottleneck blocks (4)",
    "groups": "of their convolutions (1)",
    "stems": "auto, small, large (auto)",
    "activations": "relu, elu, gelu, silu, ... (relu elu)",
    "normalizations": "batch, layer, group, instance, none (batch)",
    "attentions": "squeeze_excite, efficient_channel, none (none)",
    "shortcuts": "identity, zero_pad, projection, projection_always, avg_pool, none",
    "preactivations": "true, false (false)",
    "drop_path_rates": "of stochastic depth (0)",
    "regularizers": "strengths of the L2 penalty (0 1e-4)",
    "optimizers": "adam, adamw, lion, nadam, rmsprop, sgd (adam)",
    "learning_rates": "at the start (3e-4 1e-3 3e-3)",
    "schedules": "constant, cosine, linear, step (constant)",
    "batch_sizes": "one for all is --batch-size",
    "augmentations": "flip, shift, shift_and_flip, none (none)",
    "label_smoothings": "shares in [0, 1) (0)",
}
# The networks, with the lists that are theirs alone.
NETWORKS = {"resnet": ("blocks", "expansions", "groups"), "inception": ("kinds",)}
# Of the hypermodel, beside the lists.
LIMITS = ("max_params", "max_macs", "max_activation_memory")
SETTINGS = (*LIMITS, "stages", "per_stage", "schedule_epochs")
# Of the command, not of the search.
_PASSING = ("run", "parser", "out", "overwrite")


def add_arguments(parser):
    """Declares what the command takes."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="digits (scikit-learn's), a folder with a folder of images for each class (and "
        "perhaps in train, val, test), or an .npz file with the arrays x and y, and perhaps "
        "x_val, y_val, x_test, y_test",
    )
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="(the data's name)_search")
    parser.add_argument("--overwrite", action="store_true", help="forget the search in DIR")
    add_shared_arguments(parser)

    images = parser.add_argument_group("images")
    images.add_argument("--size", type=positive, help="to resize those of a folder to (32 to 128)")
    images.add_argument("--grayscale", action="store_true", help="even if not all of them are")
    images.add_argument("--task", choices=TASKS, help="of labels in an .npz file")
    images.add_argument(
        "--class-weights", action="store_true", help="rare classes count as much as frequent ones"
    )

    tuning = parser.add_argument_group("search")
    tuning.add_argument("--tuner", choices=TUNERS, help="of kerastuner (random)")
    tuning.add_argument("--batch-size", type=positive, help=f"of all ({BATCH_SIZE})")
    tuning.add_argument("--seed", type=int, default=1)
    tuning.add_argument(
        "--keep-checkpoints", type=positive, default=10, metavar="N", help="of the best (10)"
    )
    tuning.add_argument(
        "--engine",
        choices=("kerastuner", "optuna", "ray"),
        help="optuna (the default): stops trials that promise little; any number of these "
        "commands, on any hosts that reach --storage; kerastuner: what --tuner says; ray: several "
        "trials at once, on one host or a cluster",
    )
    tuning.add_argument("--study", metavar="NAME", help="of optuna (search)")
    tuning.add_argument(
        "--storage", metavar="URL", help="of optuna: a database, or a file.journal (DIR/study.db)"
    )
    for kind in ("cpus", "gpus"):
        tuning.add_argument(
            f"--{kind}-per-trial",
            type=lambda text: positive(text, float),
            metavar="N",
            help="of ray; may be a fraction",
        )

    space = parser.add_argument_group(
        "search space",
        "Each list is searched, and one value alone is fixed. Numbers may be a range: "
        "1e-4:1e-2:log.",
    )
    space.add_argument("--network", choices=NETWORKS, default="resnet")
    for limit in LIMITS:
        space.add_argument(f"--{limit.replace('_', '-')}", type=positive, metavar="N")
    space.add_argument("--mixed-precision", choices=("bfloat16", "float16"))
    space.add_argument("--stages", type=positive)
    space.add_argument("--per-stage", nargs="*", metavar="LIST", help="of depth and width")
    space.add_argument("--schedule-epochs", type=positive)
    for argument, known in LISTS.items():
        space.add_argument(
            f"--{argument.replace('_', '-')}", nargs="+", metavar="VALUE", help=known
        )


def add_shared_arguments(parser):
    """Declares what may be given again to go on."""
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    parser.add_argument(
        "--trials",
        type=positive,
        help=f"in all ({PRUNED_TRIALS} of optuna, {TRIALS} of others); not for hyperband",
    )
    parser.add_argument("--epochs", type=positive, help="of a trial, at most (10)")
    parser.add_argument(
        "--retrain", type=positive, metavar="EPOCHS", help="train the best again from scratch"
    )
    parser.add_argument("--onnx", action="store_true", help="write the best as best.onnx too")


def positive(text, kind=int):
    """A positive number, as argparse reads it."""
    with contextlib.suppress(ValueError):
        if 0 < kind(text) < math.inf:
            return kind(text)
    expected = "integer" if kind is int else "number"
    raise argparse.ArgumentTypeError(f"must be a positive {expected}. Received: {text!r}")


def options_of(args):
    """The options of a search among the arguments of the command."""
    options = _of_the_search(args)
    if args.out is None:
        stem = pathlib.Path(os.path.abspath(options.data)).name.removesuffix(".npz")
        args.out = pathlib.Path(f"{stem}_search")
    if pathlib.Path(options.data).exists() and options.data != "digits":
        options.data = os.path.abspath(options.data)  # `resume` may be called from elsewhere
    if options.engine is None:
        has_study = options.study or options.storage
        options.engine = "kerastuner" if options.tuner and not has_study else "optuna"
    _check(options)
    if options.engine == "optuna":
        options.study = options.study or "search"
        options.storage = options.storage or f"sqlite:///{os.path.abspath(args.out)}/{STUDY_FILE}"
        if "://" not in options.storage:
            options.storage = os.path.abspath(options.storage)
    return options


def _of_the_search(args):
    return argparse.Namespace(**{k: v for k, v in vars(args).items() if k not in _PASSING})


# Options that belong to one engine.
_OF_ENGINES = {
    "kerastuner": ("tuner",),
    "optuna": ("study", "storage"),
    "ray": ("cpus_per_trial", "gpus_per_trial"),
}


def _check(options):
    for engine, names in _OF_ENGINES.items():
        for name in names:
            if getattr(options, name) and engine != options.engine:
                raise ValueError(
                    f"`--{name.replace('_', '-')}` is for `--engine {engine}`. "
                    f"Received: --engine {options.engine}"
                )
    if options.tuner == "hyperband" and options.trials:
        raise ValueError(
            "`--trials` is not for `--tuner hyperband`, which tells them by `--epochs`"
        )
    if options.batch_size and options.batch_sizes:
        raise ValueError("`--batch-size` and `--batch-sizes` do not go together")
    for network, names in NETWORKS.items():
        for name in names:
            if getattr(options, name) and network != options.network:
                raise ValueError(f"`--{name}` is not for `--network {options.network}`")


def check_free(folder, overwrite, data):
    """Checks that a folder has no search that would be lost, and is not among the data."""
    if os.path.isdir(data) and pathlib.Path(data).resolve() in (folder / "x").resolve().parents:
        raise ValueError(f"`--out` must be outside of `DATA`. Received: {folder}")
    if overwrite or not (is_search(folder) or any((folder / PROJECT).glob("trial_*"))):
        return
    options = json_files.read(folder / ARGUMENTS_FILE)
    has_data = isinstance(options, dict) and "data" in options
    of_data = f" (of {options['data']})" if has_data else ""
    raise ValueError(
        f"{folder} has a search in it{of_data}. Go on with it: resume "
        f"{shlex.quote(str(folder))}; or start over: --overwrite; or give another --out"
    )


def forget(folder):
    """Deletes the search in a folder, but for its best model."""
    for name in (PROJECT, "report"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (ARGUMENTS_FILE, DATA_FILE, STUDY_FILE):
        (folder / name).unlink(missing_ok=True)


def is_search(folder):
    """Whether a folder is that of a search of the command line."""
    return (folder / ARGUMENTS_FILE).exists()


def read_options(folder):
    """The options of the search in a folder; an error if they are not there, or damaged."""
    path = folder / ARGUMENTS_FILE
    if not is_search(folder):
        raise ValueError(f"{folder} has no search of this command in it: {path} is missing")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    defaults = vars(_of_the_search(parser.parse_args(["digits"])))
    options = json_files.read(path)
    if not isinstance(options, dict) or "data" not in options or options.keys() - defaults.keys():
        raise ValueError(
            f"{path} must hold the arguments of the search, but it is damaged. Put a copy in its "
            "place, or start over: search DATA --overwrite"
        )
    defaults["engine"] = "optuna" if options.get("study") else "kerastuner"  # in 0.1.0
    return argparse.Namespace(**{**defaults, **options})


def change_options(options, args):
    """Changes the options of a search to what `resume` was given."""
    if options.tuner == "hyperband" and args.epochs not in (None, options.epochs):
        raise ValueError("`--epochs` must stay as they were in a search of `--tuner hyperband`")
    for name in ("backend", "trials", "epochs", "retrain", "onnx"):
        value = getattr(args, name)
        if value not in (None, False):
            setattr(options, name, value)
    _check(options)
