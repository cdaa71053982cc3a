"""Go on with a search that was interrupted, or with more trials."""

import argparse
import pathlib


def add_arguments(parser):
    """Declares what the command takes."""
    from keras_resblocks.cli import options

    parser.add_argument("folder", type=pathlib.Path, metavar="DIR", help="of the search")
    options.add_shared_arguments(parser)
    # What the chief and the workers of a search are started with.
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)


def run(args):
    """Goes on; the exit status."""
    from keras_resblocks.cli import job, options

    searched = options.read_options(args.folder)
    options.change_options(searched, args)
    job.choose_backend(searched.backend, args)
    going_on = job.Job(args.folder, searched)
    return going_on.take_part() if args.member else going_on.run()
