"""Run a search's script as one chief and several workers on this host, one for each GPU."""

import argparse
import signal
import sys

from keras_resblocks import launcher

RESTARTS = 3


def add_arguments(parser):
    """Declares what the command takes."""
    add_worker_arguments(parser)
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER)


def add_worker_arguments(parser):
    """Declares what `launch` takes."""
    count = parser.add_mutually_exclusive_group()
    count.add_argument("--workers", type=int, metavar="N", help="workers that share what they see")
    count.add_argument(
        "--gpus",
        help='"all" for a worker on each, or a list: 0,1,3 (0,0,1,1 for two on each)',
    )
    parser.add_argument("--logs", metavar="DIR", help="outputs go to DIR/worker0.log, ...")
    parser.add_argument(
        "--restart",
        action="store_true",
        help=f"start a process that fails again, up to {RESTARTS} times each",
    )


def run(args):
    """Launches the script; the exit status."""
    try:
        return launch([sys.executable, args.script, *args.arguments], args)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def launch(command, args):
    """Runs a command as the chief and the workers that the arguments ask for; the exit status."""
    devices = devices_of(args)
    ending = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _exit) for number in ending]
    try:
        return launcher.launch(
            command,
            workers=args.workers,
            devices=devices,
            logs=args.logs,
            restarts=RESTARTS if args.restart else 0,
        )
    finally:
        for number, handler in zip(ending, before):
            signal.signal(number, handler)


def devices_of(args):
    """The GPUs of the workers; None where their number is given, and all where nothing is.

    Raises:
        ValueError: if there are none.
    """
    if args.workers is not None:
        return None
    devices = launcher.gpus() if args.gpus in (None, "all") else args.gpus.split(",")
    if not devices:
        raise ValueError("There is no GPU to be found; say how many processes: --workers N")
    return devices


def _exit(number, frame):
    sys.exit(128 + number)  # by way of the `finally` that ends all processes
