"""KerasTuner's oracles, kept within a budget, without repeats, and able to outlive a kill.

KerasTuner has no public hook for any of this, so some of its private methods are overridden, as
they are in 1.4.7 and 1.4.8:

- `_duplicate` and `_compute_values_hash` say which candidates are rejected and which are equal.
- `_record_values` draws what a trial lacks by no seed.
- `_save_trial` writes in place (keras_tuner/src/utils.py, `save_json`): a kill leaves half a file.
- `reload` runs every trial again that was under way, also one that had just ended.
- `_check_consecutive_failures` ends a search.
- A grid's place, and a Gaussian process' random numbers, are not in the state.
"""

import functools
import pathlib

import keras_tuner
import numpy as np

from keras_resblocks import json_files
from keras_resblocks.tuner.memory import is_out_of_memory

_INTERNAL = "tuner/"  # the values that Hyperband adds to a trial
_LONGEST = "tuner/max_epochs"  # and we: how many epochs the longest has, for schedules


class SearchOracle(keras_tuner.Oracle):
    """Mixed into an oracle: what the four have in common."""

    candidates = None  # the hypermodel, if it has `within_budget(values)` and `identity(values)`

    def get_best_trials(self, num_trials=1):
        """As KerasTuner's; of equal scores the trial with the fewest parameters is better."""
        sign = -1 if self.objective.direction == "max" else 1

        def rank(trial):
            if trial.status != "COMPLETED":
                return np.inf, np.inf
            return sign * trial.score, self._params(trial.trial_id)

        return sorted(super().get_best_trials(len(self.trials)), key=rank)[:num_trials]

    @functools.cache  # noqa: B019 (an oracle lives as long as its search)
    def _params(self, trial_id):
        record = json_files.read(pathlib.Path(self._get_trial_dir(trial_id)) / "record.json")
        params = record and record["cost"].get("params")
        return np.inf if params is None else params

    def search_in(self, hypermodel):
        """Draws only candidates of a hypermodel that are within its budget."""
        if hasattr(hypermodel, "within_budget") and hasattr(hypermodel, "identity"):
            self.candidates = hypermodel
            # A budget may leave little of a space, and a draw takes about a millisecond.
            self._max_collisions = 1000

    def _duplicate(self, values):
        if self.candidates and not self.candidates.within_budget(_own(values)):
            return True
        return super()._duplicate(values)

    def _compute_values_hash(self, values):
        if self.candidates:
            own = _own(values)
            internal = {k: v for k, v in values.items() if k not in own and k != _LONGEST}
            values = {**internal, "identity": self.candidates.identity(own)}
        return super()._compute_values_hash(values)

    def _record_values(self, trial):
        """As KerasTuner's; what is missing is drawn by the seed.

        Hyperband goes on with a trial that began before another one asked for a hyperparameter.
        """
        hp = trial.hyperparameters
        for parameter in hp.space:
            if parameter.name not in hp.values and hp.is_active(parameter):
                seed = f"{self.seed} {trial.trial_id} {parameter.name}"
                hp.values[parameter.name] = parameter.random_sample(seed)
        super()._record_values(trial)

    def total_trials(self):
        """The number of trials that the search runs at most; None if there is no telling."""
        return self.max_trials

    def unfinished(self):
        """The ended trials from which others may yet go on, a set."""
        return set()

    def save(self):
        json_files.write(self._get_oracle_fname(), self.get_state())

    def _save_trial(self, trial):
        path = pathlib.Path(self._get_trial_dir(trial.trial_id)) / "trial.json"
        json_files.write(path, trial.get_state())

    def reload(self):
        try:
            super().reload()
        except ValueError as error:
            raise ValueError(
                f"The state of the search in {self._project_dir!r} is damaged ({error}). Put "
                "copies of `oracle.json` and `trial_*/trial.json` in their place, or begin another "
                "search with `project_name` or `overwrite=True`."
            ) from error
        # A trial killed between its two files was never announced, and is drawn again.
        self.trials = {key: self.trials[key] for key in self.start_order}
        verbose, self.verbose = self.verbose, 0
        for trial_id in [*self._retry_queue]:
            trial = self.trials[trial_id]
            if trial.metrics.exists(self.objective.name):
                trial.status = "COMPLETED"
            if trial.status in ("COMPLETED", "INVALID", "FAILED"):
                self._retry_queue.remove(trial_id)
                if trial_id not in self.end_order:
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


def _own(values):
    """The values that a hypermodel knows."""
    return {name: value for name, value in values.items() if not name.startswith(_INTERNAL)}


class RandomSearchOracle(SearchOracle, keras_tuner.oracles.RandomSearchOracle):
    """Draws at random."""


class GridSearchOracle(SearchOracle, keras_tuner.oracles.GridSearchOracle):
    """Walks through all candidates within the budget, each once."""

    def populate_space(self, trial_id):
        proposal = super().populate_space(trial_id)
        # KerasTuner begins with the defaults, within the budget or not.
        if proposal.get("values") and self.candidates and self._duplicate(proposal["values"]):
            proposal["values"] = self._get_next_combination(proposal["values"])
            if proposal["values"] is None:
                proposal["status"] = "STOPPED"
        return proposal

    def _get_next_combination(self, values):
        # A hyperparameter that a trial never asked for has no further values for it.
        last = {
            one.name: [one.default, *(v for v in one.values if v != one.default)][-1]
            for one in self.get_space().space
        }
        values = super()._get_next_combination({**last, **values})
        while values is not None and self.candidates and self._duplicate(values):
            values = super()._get_next_combination(values)
        return values

    def reload(self):
        super().reload()
        walked = sorted(self.start_order, key=functools.cmp_to_key(self._compare_trials))
        for previous, trial_id in zip([None, *walked], walked):
            self._ordered_ids.insert(trial_id, previous)
        self._populate_next = walked

    def _compare(self, a, b):
        return super()._compare({name: value for name, value in a.items() if name in b}, b)

    def _compare_trials(self, a, b):
        return self._compare(*(self.trials[key].hyperparameters.values for key in (a, b)))


class HyperbandOracle(SearchOracle, keras_tuner.oracles.HyperbandOracle):
    """Gives many candidates a few epochs, and the best of them more."""

    def populate_space(self, trial_id):
        proposal = super().populate_space(trial_id)
        if proposal.get("values") and hasattr(self.candidates, "schedule_epochs"):
            proposal["values"][_LONGEST] = self.max_epochs
        return proposal

    def unfinished(self):
        self._remove_completed_brackets()
        rounds = (round_ for bracket in self._brackets for round_ in bracket["rounds"][:-1])
        retried = (self.trials[key].hyperparameters.values for key in self._retry_queue)
        begun_from = {values.get("tuner/trial_id") for values in retried}
        return begun_from.union(info["id"] for round_ in rounds for info in round_)

    def total_trials(self):
        if self.hyperband_iterations == float("inf"):
            return None
        return self.hyperband_iterations * sum(
            self._get_size(bracket, round_)
            for bracket in range(self._get_num_brackets())
            for round_ in range(self._get_num_rounds(bracket))
        )


class BayesianOptimizationOracle(SearchOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Draws where a model of the scores expects most."""

    def populate_space(self, trial_id):
        proposal = super().populate_space(trial_id)
        values = proposal["values"]
        if values is None or not self._duplicate(values):
            return proposal
        # The model of the scores knows nothing of the budget, nor that a value is no news the
        # second time, and would propose the same again.
        return self._random_populate_space()

    def get_state(self):
        kind, keys, *rest = self._random_state.get_state()
        return {**super().get_state(), "random_state": [kind, keys.tolist(), *rest]}

    def set_state(self, state):
        super().set_state(state)
        if "random_state" in state:  # not in a project of KerasTuner
            self._random_state = np.random.RandomState()
            self._random_state.set_state(state["random_state"])
