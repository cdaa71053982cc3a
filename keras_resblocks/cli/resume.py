"""Go on with a search that was interrupted, or with more trials."""

import pathlib

from keras_resblocks.cli import backend, options


def add_arguments(parser):
    """Declares what the command takes."""
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR", help="of the search")
    options.add_shared_arguments(parser)


def run(args):
    """Goes on; the exit status."""
    searched = options.read_options(args.folder)
    options.change_options(searched, args)
    searched.backend = backend.start(searched.backend)
    from keras_resblocks.cli import job

    return job.Job(args.folder, searched, job.read_record(args.folder)).run()
