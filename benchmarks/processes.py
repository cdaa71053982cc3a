"""Contenders in processes of their own, which take turns."""

import functools
import os
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest import mock

_SPAWN = get_context("spawn")
# Environment variables, which a process that is started in this context inherits.
_environment = functools.partial(mock.patch.dict, os.environ)


def in_turns(contenders, rounds):
    """The contenders of each round, as (round, contender); who begins changes."""
    for i in range(rounds):
        shift = i % len(contenders)
        for contender in (*contenders[shift:], *contenders[:shift]):
            yield i, contender


def alone(backend, function, *args):
    """What a function returns in a process of its own, with that Keras backend."""
    with _environment(KERAS_BACKEND=backend), ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        return pool.submit(function, *args).result()


class FailedError(Exception):
    """A worker's error, or its end; the text is the last line of the traceback."""


class Worker:
    """A process that holds `make(*args)`, and calls its methods on request.

    A call that takes more than `timeout` seconds has failed, and ends the process, which has
    `variables` in its environment.
    """

    def __init__(self, make, *args, timeout=600, **variables):
        self.timeout = timeout
        self.connection, other = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(other, make, args), daemon=True)
        with _environment(**variables):
            self.process.start()
        other.close()

    def __call__(self, method, *args):
        """What the method of the process's object returns; else a `FailedError`."""
        try:
            self.connection.send((method, args))
            if not self.connection.poll(self.timeout):
                self.close()
                raise FailedError(f"no answer within {self.timeout} s")
            is_error, value = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise FailedError(f"the process ended: {self.process.exitcode}") from None
        if is_error:
            raise FailedError(value)
        return value

    def close(self):
        self.connection.close()  # at which the process ends, unless it hangs
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection, make, args):
    target = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            target = target or make(*args)
            answer = False, getattr(target, method)(*arguments)
        except Exception:
            print(traceback.format_exc(), flush=True)
            answer = True, traceback.format_exc().strip().splitlines()[-1]
        connection.send(answer)
