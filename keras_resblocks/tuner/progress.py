"""How far a search is: a line for each trial, and live ones on a terminal."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from keras_resblocks.tuner.reports.tables import format_value


class Progress:
    """Says how far a search is: the trial and its epoch, the best so far and the time left.

    Each trial leaves a line, of less than 80 characters. On a terminal two others follow the
    epochs of the trial that is under way, with its hyperparameters. A context manager: outside of
    it there is no live line.

    Args:
        oracle: the oracle of the search, which knows its trials.

    Attributes:
        verbose: whether to say anything.
        epochs: of the trial that is under way, None if not known.
    """

    def __init__(self, oracle):
        self.oracle = oracle
        self.verbose = 1
        self.epochs = None
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

    def on_trial_begin(self, trial):
        """Starts the clock of a trial."""
        self._began = time.monotonic()
        self._show(trial, ["begins"])

    def on_epoch_end(self, trial, epoch, logs):
        """Shows the epoch of a trial that is over, counted from 0, and its metrics."""
        name = self.oracle.objective.name
        score = [f"{name} {logs[name]:.4f}"] if name in logs else []
        of_all = f" of {self.epochs}" if self.epochs else ""
        self._show(trial, [f"epoch {epoch + 1}{of_all}", *score])

    def on_trial_end(self, trial):
        """Prints the line of a trial."""
        self._durations.append(time.monotonic() - self._began)
        if self.verbose:
            print(self.line(trial), flush=True)

    def line(self, trial):
        """What there is to say at the end of a trial."""
        return self._joined(trial, [self._result(trial)])

    def _show(self, trial, parts):
        if self._live is not None:
            values = trial.hyperparameters.values.items()
            candidate = ", ".join(f"{k} {format_value(v)}" for k, v in values if "/" not in k)
            line, below = (
                Text(text, no_wrap=True, overflow="ellipsis")
                for text in (self._joined(trial, parts), f"  {candidate}")
            )
            self._live.update(Group(Spinner("dots", line), below), refresh=True)

    def _joined(self, trial, parts):
        over, total = len(self.oracle.end_order), self.oracle.total_trials()
        count = f"{over}/{total}" if total else f"{over} over"
        if total and total > over and self._durations:
            mean = sum(self._durations) / len(self._durations)
            count += f", {_duration(mean * (total - over))} left"
        return " | ".join([f"trial {trial.trial_id}", *parts, self._best(), count])

    def _result(self, trial):
        took = _duration(self._durations[-1])
        # The oracle holds the scored copy of the trial.
        trial = self.oracle.trials.get(trial.trial_id, trial)
        if trial.score is None:
            reason = (trial.message or "no score").strip().splitlines()[-1]
            return f"{trial.status.lower()} after {took}: {reason}"
        return f"{self.oracle.objective.name} {trial.score:.4f} in {took}"

    def _best(self):
        best = next(iter(self.oracle.get_best_trials(1)), None)
        if best is None or best.score is None:
            return "no best yet"
        return f"best {best.score:.4f} ({best.trial_id})"


def _duration(seconds):
    units = {"s": 1, "min": 60, "h": 3600}
    unit = next((unit for unit, one in units.items() if seconds < 99.5 * one), "h")
    return f"{seconds / units[unit]:.{int(unit == 'h')}f} {unit}"
