"""KerasTuner's oracles, kept within a budget and able to take up a search that was killed."""

import json
import pathlib

import keras_tuner
import numpy as np

from keras_resblocks.tuner import storage
from keras_resblocks.tuner.memory import is_out_of_memory
from keras_resblocks.tuner.workers import LeasedOracle

_ENDED = ("COMPLETED", "INVALID", "FAILED")


class _BudgetOracle:
    """Mixed into an oracle: draws again until a candidate is within the budget, and new."""

    # A budget may leave little of a space, and a draw costs less than a millisecond.
    max_draws = 1000

    identity = None
    _cost = None
    _waiting = ()

    @staticmethod
    def within_budget(values):
        return True

    def search_in(self, hypermodel, small_first=False):
        """Sets where to draw from.

        Args:
            hypermodel: may have `within_budget(values)`, `identity(values)` and `cost(hp)`.
            small_first: whether to draw some at a time and begin with the smallest.
        """
        if small_first and not hasattr(hypermodel, "cost"):
            raise ValueError(
                "`small_first=True` needs a hypermodel with `cost(hp)`, as `ResNetHyperModel` "
                f"has. Received: {hypermodel!r}"
            )
        for name in ("within_budget", "identity"):
            if hasattr(hypermodel, name):
                setattr(self, name, getattr(hypermodel, name))
        self._cost = hypermodel.cost if small_first else None
        self._waiting = []  # drawn, and not yet issued
        self._identities = {}

    def _random_values(self):
        # All the oracles draw their random candidates here, and only here.
        if self._cost is None:
            return self._draw()
        if not self._waiting:
            self._waiting = []
            while len(self._waiting) < max(1, self._draws_at_once()) and (values := self._draw()):
                self._waiting.append(values)
            self._waiting.sort(key=self._params)
        return self._waiting.pop(0) if self._waiting else None

    def _draw(self):
        for _ in range(self.max_draws):
            values = super()._random_values()
            if values is None or (self.within_budget(values) and self._is_new(values)):
                return values
        return None

    def _is_candidate(self, values):
        is_tried = self._duplicate(values)
        return not is_tried and self.within_budget(values) and self._is_new(values)

    def _is_new(self, values):
        """Whether no trial is the same network, trained alike: the values may yet differ."""
        issued = (trial.hyperparameters.values for trial in self.trials.values())
        known = {self._identity_of(others) for others in (*issued, *self._waiting)}
        return self._identity_of(values) not in known

    def _identity_of(self, values):
        text = json.dumps(values, sort_keys=True, default=float)
        if self.identity is None:
            return text
        if text not in self._identities:
            self._identities[text] = self.identity(values)
        return self._identities[text]

    def _params(self, values):
        hp = keras_tuner.HyperParameters()
        hp.values = values
        return self._cost(hp).params

    def _draws_at_once(self):
        """How many candidates there are to begin with the smallest of."""
        return self.max_trials - len(self.trials)

    def total_trials(self):
        """The number of trials that the search runs at most; None if there is no telling."""
        return self.max_trials

    def unfinished(self):
        """The trials that ended, but from which others may yet go on."""
        return ()

    def get_state(self):
        return {**super().get_state(), "waiting": list(self._waiting)}

    def set_state(self, state):
        super().set_state(state)
        self._waiting = state.get("waiting", [])


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


class RandomSearchOracle(
    _BudgetOracle, LeasedOracle, _DurableOracle, keras_tuner.oracles.RandomSearchOracle
):
    """Draws at random."""


class GridSearchOracle(
    _BudgetOracle, LeasedOracle, _DurableOracle, keras_tuner.oracles.GridSearchOracle
):
    """Walks through all candidates within the budget, each once."""

    def search_in(self, hypermodel, small_first=False):
        if small_first:
            raise ValueError(
                "`small_first` must be False for a grid, which is walked through in its own "
                "order. Received: small_first=True"
            )
        super().search_in(hypermodel)

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
        while values is not None and not self._is_candidate(values):
            values = self._get_next_combination(values)
        return values


class HyperbandOracle(
    _BudgetOracle, LeasedOracle, _DurableOracle, keras_tuner.oracles.HyperbandOracle
):
    """Gives many candidates a few epochs, and the best of them more.

    Its trials hold as `tuner/max_epochs` the number of epochs of the longest.
    """

    def populate_space(self, trial_id):
        proposal = super().populate_space(trial_id)
        if proposal.get("values"):
            proposal["values"]["tuner/max_epochs"] = self.max_epochs
        return proposal

    def unfinished(self):
        self._remove_completed_brackets()
        rounds = (round_ for bracket in self._brackets for round_ in bracket["rounds"][:-1])
        return {info["id"] for round_ in rounds for info in round_}

    def _compute_values_hash(self, values):
        others = {key: value for key, value in values.items() if key != "tuner/max_epochs"}
        return super()._compute_values_hash(others)

    def _draws_at_once(self):
        bracket = self._brackets[-1]
        return self._get_size(bracket["bracket_num"], 0) - len(bracket["rounds"][0])

    def total_trials(self):
        if self.hyperband_iterations == float("inf"):
            return None
        return self.hyperband_iterations * sum(
            self._get_size(bracket, round_)
            for bracket in range(self._get_num_brackets())
            for round_ in range(self._get_num_rounds(bracket))
        )


class BayesianOptimizationOracle(
    _BudgetOracle, LeasedOracle, _DurableOracle, keras_tuner.oracles.BayesianOptimizationOracle
):
    """Draws where a model of the scores expects most."""

    def populate_space(self, trial_id):
        # Where the search for the best expectation begins; KerasTuner's own is not on disk.
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        proposal = super().populate_space(trial_id)
        values = proposal["values"]
        if values is None or self._is_candidate(values):
            return proposal
        # The model of the scores knows nothing of the budget, nor that a value is no news the
        # second time, and would propose the same again.
        return self._random_populate_space()

    def _draws_at_once(self):
        initial = self.num_initial_points or 3 * max(1, len(self.get_space().space))
        return initial - len(self.trials)
