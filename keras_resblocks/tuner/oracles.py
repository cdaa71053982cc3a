"""KerasTuner's oracles, kept within a budget and able to take up a search that was killed."""

import pathlib

import keras_tuner
import numpy as np

from keras_resblocks.tuner import storage
from keras_resblocks.tuner.memory import is_out_of_memory

_ENDED = ("COMPLETED", "INVALID", "FAILED")


class _BudgetOracle:
    """Mixed into an oracle: draws again until a candidate is within the budget."""

    # A budget may leave little of a space, and a draw costs less than a millisecond.
    max_draws = 1000

    @staticmethod
    def within_budget(values):
        return True

    def _random_values(self):
        # All the oracles draw their random candidates here, and only here.
        for _ in range(self.max_draws):
            values = super()._random_values()
            if values is None or self.within_budget(values):
                return values
        return None

    def total_trials(self):
        """The number of trials that the search runs at most; None if there is no telling."""
        return self.max_trials


class _DurableOracle:
    """Mixed into an oracle: its state outlives a kill at any moment."""

    def save(self):
        storage.write_json(self._get_oracle_fname(), self.get_state())

    def _save_trial(self, trial):
        path = pathlib.Path(self._get_trial_dir(trial.trial_id)) / "trial.json"
        storage.write_json(path, trial.get_state())

    def reload(self):
        super().reload()
        # Killed between the files of a new trial: it was never announced, and is drawn again.
        self.trials = {key: self.trials[key] for key in self.start_order}
        # The trials that were under way wait to be run again, except for those that had ended.
        for trial_id in [*self._retry_queue]:
            trial = self.trials[trial_id]
            if trial.metrics.exists(self.objective.name):
                trial.status = "COMPLETED"
            if trial.status in _ENDED:
                self._retry_queue.remove(trial_id)
                if trial_id not in self.end_order:  # else it had been written down as well
                    self._end_quietly(trial)

    def _end_quietly(self, trial):
        verbose, self.verbose = self.verbose, 0
        self.end_trial(trial)
        self.verbose = verbose

    def _check_consecutive_failures(self):
        """As KerasTuner does, but too large a candidate says nothing of the next one."""
        end_order = self.end_order
        self.end_order = [
            key for key in end_order if not is_out_of_memory(self.trials[key].message or "")
        ]
        try:
            super()._check_consecutive_failures()
        finally:
            self.end_order = end_order


class RandomSearchOracle(_BudgetOracle, _DurableOracle, keras_tuner.oracles.RandomSearchOracle):
    """Draws at random."""


class GridSearchOracle(_BudgetOracle, _DurableOracle, keras_tuner.oracles.GridSearchOracle):
    """Walks through all candidates within the budget, each once."""

    def populate_space(self, trial_id):
        values = self._next_values()
        if values is not None:
            return {"status": "RUNNING", "values": values}
        return {"status": "IDLE" if self.ongoing_trials else "STOPPED", "values": None}

    def _next_values(self):
        """What follows the last trial: KerasTuner's own place in the grid is not on disk."""
        if self.start_order:
            last = self.trials[self.start_order[-1]]
            values = self._get_next_combination(last.hyperparameters.values)
        else:
            space = self.get_space()
            values = {hp.name: hp.default for hp in space.space if space.is_active(hp)}
        while values is not None and (self._duplicate(values) or not self.within_budget(values)):
            values = self._get_next_combination(values)
        return values


class HyperbandOracle(_BudgetOracle, _DurableOracle, keras_tuner.oracles.HyperbandOracle):
    """Gives many candidates a few epochs, and the best of them more."""

    def total_trials(self):
        if self.hyperband_iterations == float("inf"):
            return None
        return self.hyperband_iterations * sum(
            self._get_size(bracket, round_)
            for bracket in range(self._get_num_brackets())
            for round_ in range(self._get_num_rounds(bracket))
        )


class BayesianOptimizationOracle(
    _BudgetOracle, _DurableOracle, keras_tuner.oracles.BayesianOptimizationOracle
):
    """Draws where a model of the scores expects most."""

    def populate_space(self, trial_id):
        # Where the search for the best expectation begins; KerasTuner's own is not on disk.
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        proposal = super().populate_space(trial_id)
        values = proposal["values"]
        if values is None or (self.within_budget(values) and not self._duplicate(values)):
            return proposal
        # The model of the scores knows nothing of the budget, nor that a value is no news the
        # second time, and would propose the same again.
        return self._random_populate_space()
