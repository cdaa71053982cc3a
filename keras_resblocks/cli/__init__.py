"""The command line: `python -m keras_resblocks COMMAND`, a module for each command.

A module of a command has a docstring, whose first line is its help, `add_arguments(parser)`, and
`run(args)`, which returns the exit status. What is the user's to mend it raises as `ValueError`,
`OSError` or `ImportError`: a line on stderr, and the exit status 2.
"""

import argparse
import sys

from keras_resblocks.cli import launch, report, resume, search

COMMANDS = {"search": search, "resume": resume, "report": report, "launch": launch}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: the usage of a search fills a screen."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def main(arguments=None):
    """Runs the command in `arguments`, by default those of this process; its exit status."""
    is_own = arguments is None
    arguments = sys.argv[1:] if is_own else list(arguments)
    parser = _Parser(prog="python -m keras_resblocks")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        subparser = subparsers.add_parser(
            name, help=summary, description=summary, allow_abbrev=False
        )
        if arguments[:1] == [name]:  # a search's come from the tuner, whose import takes a while
            module.add_arguments(subparser)
        subparser.set_defaults(run=module.run, parser=subparser, is_own=is_own)
    args = parser.parse_args(arguments)
    try:
        return args.run(args)
    except (ValueError, OSError, ImportError) as error:
        args.parser.error(str(error))
