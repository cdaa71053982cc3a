"""Which hyperparameters the scores of a search depend on."""

import numbers

_LEAST = 4  # trials with a score; of fewer, a forest says nothing at all


def hyperparameter_importance(search):
    """A share of importance for each hyperparameter: a heuristic, to look where to search next.

    A random forest is fitted to the scores of the trials, and a hyperparameter matters as much as
    the forest's own fit suffers when its values are shuffled. That finds interactions too, but
    says nothing certain of a few trials, nor which of two that always change together it is. The
    epochs that Hyperband gave a trial are shown with the hyperparameters (`epochs (Hyperband)`),
    lest their effect be ascribed to these.

    Args:
        search: a `SearchRecords`.

    Returns:
        A dict, most important first; the shares sum to 1. Empty with fewer than 4 scored trials,
        or if nothing varied. The same search gives the same shares.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    trials = search.scored
    scores = [trial.score for trial in trials]
    columns = {
        name: _codes([trial.hyperparameters.get(name) for trial in trials])
        for name in search.hyperparameters
    }
    if any("tuner/epochs" in trial.values for trial in trials):
        columns["epochs (Hyperband)"] = _codes([trial.epochs for trial in trials])
    columns = {name: codes for name, codes in columns.items() if len(set(codes)) > 1}
    if len(trials) < _LEAST or not columns or len(set(scores)) < 2:
        return {}
    table = list(zip(*columns.values()))
    forest = RandomForestRegressor(n_estimators=200, random_state=0).fit(table, scores)
    drops = permutation_importance(forest, table, scores, n_repeats=10, random_state=0)
    drops = drops.importances_mean.clip(0)
    shares = drops / (drops.sum() or 1)
    return dict(sorted(zip(columns, shares.tolist()), key=lambda item: -item[1]))


def _codes(values):
    """Numbers that stand for the values; an absent one is below all others."""
    present = [value for value in values if value is not None]
    if not all(isinstance(value, numbers.Real) for value in present):
        labels = sorted(set(map(str, present)))
        return [-1 if value is None else labels.index(str(value)) for value in values]
    absent = min(present, default=0) - 1
    return [absent if value is None else float(value) for value in values]
