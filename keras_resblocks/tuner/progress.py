"""How far a search is: a line for each trial, and live ones on a terminal."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from keras_resblocks.tuner.reports.tables import format_value


class Progress:
    """Says how far a search is: the trial and its epoch, the best so far and the time left.

    Each trial leaves a line, of at most 80 characters. Within the context, two others on a
    terminal follow the epochs of the trial that is under way, with its hyperparameters.

    Args:
        objective: its name.
        standing: a function that returns how many trials are over, how many there will be (None
            if there is no telling), and the best one in words.
        verbose: whether to say anything.
        epochs: of a trial, None if not known.
    """

    def __init__(self, objective, standing, verbose=1, epochs=None):
        self.objective = objective
        self.standing = standing
        self.verbose = verbose
        self.epochs = epochs
        self._durations = []
        self._began = None
        self._live = None

    def __enter__(self):
        console = Console()
        if self.verbose and console.is_terminal:
            self._live = Live(console=console, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error):
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin(self, number, values):
        """Starts the clock of a trial; its hyperparameters may be filled in later."""
        self._began = time.monotonic()
        self._number, self._values = number, values
        self._show("begins")

    def epoch(self, epoch, logs):
        """Shows an epoch of the trial that is over, counted from 0, and its metrics."""
        name = self.objective
        score = f"{name} {logs[name]:.4f}" if name in logs else ""
        of_all = f" of {self.epochs}" if self.epochs else ""
        self._show(f"epoch {epoch + 1}{of_all}", score)

    def end(self, result, reason=None):
        """Prints the line of the trial: its result, or what became of it and why."""
        self._durations.append(time.monotonic() - self._began)
        if self.verbose:
            print(self.line(result, reason), flush=True)

    def line(self, result, reason=None):
        """What there is to say at the end of a trial."""
        took = _duration(self._durations[-1])
        if reason is None:
            return self._joined(f"{result} in {took}")
        last = reason.strip().splitlines()[-1:]
        return self._joined(": ".join([f"{result} after {took}", *last]))

    def _show(self, *parts):
        if self._live is not None:
            values = ((k, v) for k, v in self._values.items() if "/" not in k)
            candidate = ", ".join(f"{name} {format_value(value)}" for name, value in values)
            line, below = (
                Text(text, no_wrap=True, overflow="ellipsis")
                for text in (self._joined(*parts), f"  {candidate}")
            )
            self._live.update(Group(Spinner("dots", line), below), refresh=True)

    def _joined(self, *parts):
        over, total, best = self.standing()
        count = f"{over}/{total}" if total else f"{over} over"
        if total and total > over and self._durations:
            mean = sum(self._durations) / len(self._durations)
            count += f", {_duration(mean * (total - over))} left"
        return " | ".join(filter(None, [f"trial {self._number}", *parts, best, count]))


def _duration(seconds):
    units = {"s": 1, "min": 60, "h": 3600}
    unit = next((unit for unit, one in units.items() if seconds < 99.5 * one), "h")
    return f"{seconds / units[unit]:.{int(unit == 'h')}f} {unit}"
