"""The command line: `keras-resblocks COMMAND`, a module for each command.

A module of a command has a docstring with its help as first line, `add_arguments(parser)`, and
`run(args)`, which returns the exit status. None imports Keras before `run`: that takes seconds.
User errors are raised as `ValueError`, `OSError` or `ImportError`: a line on stderr,
and the exit status 2.
"""

import argparse
import sys

import keras_resblocks
from keras_resblocks import validation
from keras_resblocks.cli import predict, report, resume, search

COMMANDS = {"search": search, "resume": resume, "report": report, "predict": predict}


class _Parser(argparse.ArgumentParser):
    """A parser with errors of one line: the usage of a search fills a screen."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def main(arguments=None):
    """Runs the command in `arguments`, by default those of this process; its exit status."""
    args = _parsed(sys.argv[1:] if arguments is None else list(arguments))
    try:
        return args.run(args)
    except ModuleNotFoundError as error:
        extra = error.name if error.name in ("tensorflow", "jax", "torch") else "cli"
        args.parser.error(f'{error}: pip install "keras-resblocks[{extra}]"')
    except (ValueError, OSError, ImportError) as error:
        args.parser.error(str(error))


def _parsed(arguments):
    parser = _Parser(prog="python -m keras_resblocks")
    parser.add_argument("--version", action="version", version=keras_resblocks.__version__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        subparser = subparsers.add_parser(
            name, help=summary, description=summary, allow_abbrev=False
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run, parser=subparser)
    command = next(iter(arguments), "-")
    if not command.startswith("-") and command not in COMMANDS:
        meant = validation.did_you_mean(command, COMMANDS)
        parser.error(f"COMMAND must be {', '.join(COMMANDS)}.{meant} Received: {command}")
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = args.parser.format_help().split()
        meant = validation.did_you_mean(unknown[0], {w for w in known if w.startswith("--")})
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant and f'.{meant}'}")
    return args
