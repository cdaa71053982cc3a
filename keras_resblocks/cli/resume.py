"""Go on with a search that was interrupted, or with more trials."""

import argparse
import pathlib

from keras_resblocks.cli.search import add_shared_arguments


def add_arguments(parser):
    """Declares what the command takes."""
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR", help="of the search")
    add_shared_arguments(parser)
    # What the chief and the workers of a search are started with.
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)


def run(args):
    """Goes on; the exit status."""
    from keras_resblocks.cli import job

    options = job.read_options(args.folder)
    job.change_options(options, args)
    job.choose_backend(options.backend, args)
    going_on = job.Job(args.folder, options)
    return going_on.take_part() if args.member else going_on.run()
