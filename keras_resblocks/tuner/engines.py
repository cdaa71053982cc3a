"""KerasTuner's tuners, kept within the hypermodel's budget, and with a word on progress.

Each takes the arguments of the KerasTuner tuner whose name it bears, searches as that one does
and leaves the same results on disk. Where its hypermodel has a method `within_budget(values)`,
as `ResNetHyperModel` has, no candidate that fails it becomes a trial.
"""

import keras_tuner

from keras_resblocks.tuner.progress import Progress


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


class _RandomSearchOracle(_BudgetOracle, keras_tuner.oracles.RandomSearchOracle):
    pass


class _HyperbandOracle(_BudgetOracle, keras_tuner.oracles.HyperbandOracle):
    def total_trials(self):
        if self.hyperband_iterations == float("inf"):
            return None
        return self.hyperband_iterations * sum(
            self._get_size(bracket, round_)
            for bracket in range(self._get_num_brackets())
            for round_ in range(self._get_num_rounds(bracket))
        )


class _BayesianOptimizationOracle(_BudgetOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    def populate_space(self, trial_id):
        proposal = super().populate_space(trial_id)
        if proposal["values"] is None or self.within_budget(proposal["values"]):
            return proposal
        # The model of the scores knows nothing of the budget and would propose the same again.
        return self._random_populate_space()


class _BudgetTuner(keras_tuner.Tuner):
    """What a KerasTuner tuner calls as `super()` with the oracle that it has made."""

    oracle_class = None

    def __init__(self, oracle, hypermodel=None, **kwargs):
        # The oracle is fresh: as a subclass it differs in nothing but where it draws from.
        oracle.__class__ = self.oracle_class
        if hasattr(hypermodel, "within_budget"):
            oracle.within_budget = hypermodel.within_budget
        self._progress = Progress(oracle)
        super().__init__(oracle=oracle, hypermodel=hypermodel, **kwargs)

    def _build_hypermodel(self, hp):
        model = super()._build_hypermodel(hp)
        # A checkpoint holds the optimizer's state too, and only a built optimizer can take it:
        # without this, Hyperband would begin each of its rounds with fresh moments.
        if model.built and model.optimizer is not None:
            model.optimizer.build(model.trainable_variables)
        return model

    def search(self, *fit_args, verbose=1, **fit_kwargs):
        """Searches, as in KerasTuner.

        Args:
            *fit_args, **fit_kwargs: for `fit` of the models.
            verbose: 1 (or `"auto"`) for a line a trial, 2 for KerasTuner's own tables and the
                epochs of every trial, 0 for silence.
        """
        own, kerastuner = (0, 1) if verbose == 2 else (1 if verbose else 0, 0)
        self._progress.verbose = own
        super().search(*fit_args, verbose=kerastuner, **fit_kwargs)

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self._progress.on_trial_begin(trial)

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        self._progress.on_trial_end(trial)


class RandomSearch(keras_tuner.RandomSearch, _BudgetTuner):
    """`keras_tuner.RandomSearch` within its hypermodel's budget; the same arguments."""

    oracle_class = _RandomSearchOracle


class Hyperband(keras_tuner.Hyperband, _BudgetTuner):
    """`keras_tuner.Hyperband` within its hypermodel's budget; the same arguments."""

    oracle_class = _HyperbandOracle


class BayesianOptimization(keras_tuner.BayesianOptimization, _BudgetTuner):
    """`keras_tuner.BayesianOptimization` within its hypermodel's budget; the same arguments."""

    oracle_class = _BayesianOptimizationOracle
