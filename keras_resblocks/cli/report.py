"""Say what a search found, of this package, of KerasTuner itself or of Optuna."""

import pathlib
import sys

from keras_resblocks.cli import backend, options


def add_arguments(parser):
    """Declares what the command takes."""
    parser.add_argument(
        "folder",
        type=pathlib.Path,
        nargs="?",
        metavar="DIR",
        help="of a search, or of a KerasTuner project",
    )
    parser.add_argument("--study", metavar="NAME", help="of Optuna, in --storage")
    parser.add_argument("--storage", metavar="URL", help="a database, or a file.journal")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="by default DIR/report")
    parser.add_argument("--objective", metavar="NAME", help="if DIR does not tell")


def run(args):
    """Writes the report and prints its table; the exit status."""
    if (args.folder is None) == (args.study is None) or (args.study and not args.storage):
        raise ValueError("Say of what: DIR, or --study NAME --storage URL")
    backend.start()
    from keras_resblocks.cli import engines
    from keras_resblocks.tuner import tasks

    study, storage, objective = args.study, args.storage, args.objective
    if args.folder and options.is_search(args.folder):
        searched = options.read_options(args.folder)
        study, storage = searched.study, searched.storage
        objective = objective or tasks.objective_of(searched.task or "classification").name
    source = engines.load_study(study, storage) if study else args.folder
    write(source, args.out or (args.folder and args.folder / "report"), objective)
    return 0


def write(source, out, objective):
    """Writes a report and prints its table: what fits in a terminal, or all; the `Report`."""
    from keras_resblocks.tuner import report

    found = report(source, out, objective=objective)
    if sys.stdout.isatty():
        import rich

        rich.print(found)
    else:
        print(found)
    print(f"report: {found.paths['report.html']}")
    return found
