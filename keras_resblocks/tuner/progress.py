"""One line for each trial of a search."""

import time


class Progress:
    """Says how far a search is: trial i of N, its score, the best so far and the time left.

    Args:
        oracle: the oracle of the search, which knows its trials.
    """

    def __init__(self, oracle):
        self.oracle = oracle
        self.verbose = 1
        self._durations = []
        self._began = None

    def on_trial_begin(self, trial):
        """Starts the clock of a trial."""
        self._began = time.monotonic()

    def on_trial_end(self, trial):
        """Prints the line of a trial."""
        self._durations.append(time.monotonic() - self._began)
        if self.verbose:
            print(self.line(trial), flush=True)

    def line(self, trial):
        """What there is to say at the end of a trial."""
        number, total = len(self.oracle.trials), self.oracle.total_trials()
        of_total = f" of {total}" if total else ""
        parts = [f"trial {number:>2}{of_total}", self._result(trial), self._best()]
        if total and total > number:
            mean = sum(self._durations) / len(self._durations)
            parts.append(f"about {_duration(mean * (total - number))} left")
        return " | ".join(parts)

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
        number = self.oracle.start_order.index(best.trial_id) + 1
        return f"best {best.score:.4f} (trial {number})"


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
