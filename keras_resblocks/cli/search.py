"""Search a network for images, report what was found, save the best and test it."""

import argparse
import pathlib

from keras_resblocks import validation
from keras_resblocks.cli.launch import add_worker_arguments


def add_arguments(parser):
    """Declares what the command takes."""
    from keras_resblocks.cli import job

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
    tuning.add_argument("--tuner", choices=job.TUNERS, help="random by default")
    tuning.add_argument("--batch-size", type=positive, help=f"of all ({job.BATCH_SIZE})")
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
    space.add_argument("--network", choices=job.NETWORKS, default="resnet")
    for limit in ("params", "macs", "activation-memory"):
        space.add_argument(f"--max-{limit}", type=positive, metavar="N")
    space.add_argument("--mixed-precision", choices=("bfloat16", "float16"))
    space.add_argument("--stages", type=positive)
    space.add_argument("--per-stage", nargs="*", metavar="LIST", help="of depth and width")
    space.add_argument("--schedule-epochs", type=positive)
    for argument, (names, default) in job.LISTS.items():
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


def run(args):
    """Searches; the exit status."""
    from keras_resblocks.cli import job

    options = job.options_of(args)
    job.check_free(args.out, args.overwrite)
    job.choose_backend(options.backend, args)
    return job.Job(args.out, options).begin(args.overwrite)
