"""How far a search is: a line for each trial, and a live one on a terminal."""

import time

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner


class Progress:
    """Says how far a search is: trial i of N, its epoch, the best so far and the time left.

    Each trial leaves a line. On a terminal another one follows the epochs of the trial that is
    under way. A context manager: outside of it there is no live line.

    Args:
        oracle: the oracle of the search, which knows its trials.

    Attributes:
        verbose: whether to say anything.
        epochs: of the trial that is under way.
    """

    def __init__(self, oracle):
        self.oracle = oracle
        self.verbose = 1
        self.epochs = 1
        self._durations = []
        self._began = {}  # by trial: a chief has several under way
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
        self._began[trial.trial_id] = time.monotonic()
        self._show(trial, ["begins"])

    def on_epoch_end(self, trial, epoch, logs):
        """Shows the epoch of a trial that is over, counted from 0, and its metrics."""
        name = self.oracle.objective.name
        score = [f"{name} {logs[name]:.4f}"] if name in logs else []
        self._show(trial, [f"epoch {epoch + 1} of {self.epochs}", *score])

    def on_trial_end(self, trial):
        """Prints the line of a trial."""
        now = time.monotonic()
        self._durations.append(now - self._began.pop(trial.trial_id, now))
        if self.verbose:
            print(self.line(trial), flush=True)

    def line(self, trial):
        """What there is to say at the end of a trial."""
        return self._joined(trial, [self._result(trial)])

    def _show(self, trial, parts):
        if self._live is not None:
            self._live.update(Spinner("dots", self._joined(trial, parts)), refresh=True)

    def _joined(self, trial, parts):
        number, total = self._number(trial), self.oracle.total_trials()
        remaining = total and total - len(self.oracle.end_order)
        of_total = f" of {total}" if total else ""
        parts = [f"trial {number:>2}{of_total}", *parts, self._best()]
        if remaining and self._durations:
            mean = sum(self._durations) / len(self._durations)
            workers = max(1, len(self.oracle.tuner_ids))
            parts.append(f"about {_duration(mean * remaining / workers)} left")
        return " | ".join(parts)

    def _number(self, trial):
        return self.oracle.start_order.index(trial.trial_id) + 1

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
        return f"best {best.score:.4f} (trial {self._number(best)})"


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
