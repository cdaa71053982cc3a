"""A search by Ray Tune: a share of a GPU for each trial, on one host or a cluster."""

import math
import pathlib
import shutil
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner

from keras_resblocks import json_files, validation
from keras_resblocks.tuner.descriptions import describe_search
from keras_resblocks.tuner.hyperparameters import parameters_of
from keras_resblocks.tuner.trials import Objectives, hypermodel_of, objectives_of, run_trial
from keras_resblocks.types import FilePath

if TYPE_CHECKING:
    import optuna
    import ray.tune.schedulers


def ray_search(
    hypermodel: keras_tuner.HyperModel | Callable[[keras_tuner.HyperParameters], keras.Model],
    name: str,
    *,
    max_trials: int,
    objective: Objectives = None,
    resources_per_trial: dict[str, float] | None = None,
    storage_path: FilePath | None = None,
    sampler: "optuna.samplers.BaseSampler | None" = None,
    scheduler: "ray.tune.schedulers.TrialScheduler | None" = None,
    seed: int | None = None,
    max_reruns: int = 3,
    verbose: int = 1,
    **fit_arguments: Any,
) -> "ray.tune.ResultGrid":
    """Searches with Ray Tune and Optuna what KerasTuner's hypermodels describe.

    As many trials run at once as the resources allow: one on each GPU of this host, several on
    each, or on a cluster that `ray.init(address=...)` or `RAY_ADDRESS` names. Ray's `OptunaSearch`
    draws the candidates, within the budget of the hypermodel and none twice, before their models
    are built: hyperparameters that `build` asks for behind an `if` of Python without a
    `conditional_scope`, and those of `fit`, keep their defaults.

    - A trial with a worker that died is run again, `max_reruns` times: from its last epoch where
      the training is one `fit` with callbacks that have no state, else from the start.
    - A search that was interrupted goes on with the same call, up to the number of trials that it
      began with. Finished trials are kept.
    - A trial that raises an exception, or runs out of memory, ends with a score of NaN and its
      traceback as the metric `failure`; if all do, that is an error.

    Args:
        hypermodel: as in `optuna_search`.
        name: of the search, a folder in `storage_path`.
        max_trials: number of trials.
        objective: as in `optuna_search`, one or several.
        resources_per_trial: of Ray, `{"gpu": 0.25}` or `{"cpu": 2}`; by default one CPU, and a
            GPU where there are some.
        storage_path: folder of all results, which a cluster must share, or a URL of cloud storage;
            by default Ray's (`~/ray_results`).
        sampler: of Optuna; by default a `TPESampler`.
        scheduler: of Ray Tune, for one objective; by default every trial trains to its end.
        seed: of the default sampler and of the training.
        max_reruns: how often a trial is run again because its worker died.
        verbose: as in `ray.tune.RunConfig`; 0 for silence.
        **fit_arguments: for `fit` of the models: `x`, `y`, `epochs`, ... Arrays are shared by all
            workers of a host. Each trial gets a copy of the `callbacks`.

    Returns:
        The `ray.tune.ResultGrid`; `report` reads it. The metrics of a result have the values of the
        objectives at its best epoch, its checkpoint has `best.weights.h5` and `record.json`.

    Raises:
        ImportError: without Ray or Optuna.
        ValueError: for an argument out of its range.
        RuntimeError: if no trial could be scored.

    Examples:
        >>> import keras_tuner
        >>> from keras_resblocks.tuner import ResNetHyperModel, ray_search
        >>> hypermodel = ResNetHyperModel((8, 8, 1), 10, max_params=100_000)
        >>> results = ray_search(  # needs: workers
        ...     hypermodel, "digits", max_trials=20, resources_per_trial={"gpu": 0.5},
        ...     x=x, y=y, validation_data=(x_val, y_val), epochs=10,
        ... )
        >>> hp = keras_tuner.HyperParameters()
        >>> hp.values = results.get_best_result("val_accuracy", "max").config
        >>> model = hypermodel.build(hp)
    """
    import ray
    from ray import tune

    hypermodel = hypermodel_of(hypermodel)
    objectives = objectives_of(objective, hypermodel)
    validation.positive_int("max_trials", max_trials)
    validation.non_negative_int("max_reruns", max_reruns)
    if scheduler is not None and len(objectives) > 1:
        raise ValueError(
            "`scheduler` must be None for several objectives, which have no order. "
            f"Received: scheduler={scheduler!r}"
        )
    if not ray.is_initialized():
        ray.init(
            log_to_driver=bool(verbose),
            include_dashboard=False,
            runtime_env={"env_vars": {"KERAS_BACKEND": keras.backend.backend()}},
        )
    if resources_per_trial is None:
        has_gpu = ray.cluster_resources().get("GPU", 0) > 0
        resources_per_trial = {"cpu": 1, **({"gpu": 1} if has_gpu else {})}
    shared = dict(hypermodel=hypermodel, objectives=objectives, seed=seed)
    run = tune.with_parameters(_run, fit_arguments=fit_arguments, **shared)
    trainable = tune.with_resources(run, resources_per_trial)
    folder = f"{storage_path or pathlib.Path.home() / 'ray_results'}/{name}"
    if "://" not in folder:
        folder = str(pathlib.Path(folder).absolute())
    if tune.Tuner.can_restore(folder):
        tuner = tune.Tuner.restore(folder, trainable, resume_unfinished=True, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_search_of(hypermodel, objectives, sampler, seed),
                scheduler=scheduler,
                num_samples=max_trials,
                reuse_actors=True,  # a worker takes seconds to import its backend
                **_goal(objectives) if scheduler else {},
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=folder.rpartition("/")[0],
                failure_config=tune.FailureConfig(max_failures=max_reruns),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                verbose=verbose,
            ),
        )
    results = tuner.fit()
    if not any(_is_scored(result, objectives) for result in results):
        failures = [str(r.error or (r.metrics or {}).get("failure")) for r in results]
        raise RuntimeError("No trial could be scored. The last one:\n" + (failures or ["none"])[-1])
    if len(results) < max_trials:
        warnings.warn(
            f"The search has {len(results)} trials and not {max_trials}: it found no further "
            "candidate, or was begun with fewer.",
            stacklevel=2,
        )
    return results


def _goal(objectives: list) -> dict[str, Any]:
    """Metric and mode as Ray Tune names them: lists for several objectives."""
    if len(objectives) == 1:
        return {"metric": objectives[0].name, "mode": objectives[0].direction}
    return {"metric": [o.name for o in objectives], "mode": [o.direction for o in objectives]}


def _search_of(hypermodel, objectives, sampler, seed):
    """Ray's `OptunaSearch` over a hypermodel, which ends when it finds no further candidate."""
    import ray
    from ray.tune.search import Searcher
    from ray.tune.search.optuna import OptunaSearch
    from ray.tune.utils import flatten_dict

    from keras_resblocks.tuner.candidates import CandidateSampler, explored

    class CandidateSearch(OptunaSearch):
        def __init__(self, candidates):
            def space(trial):
                candidates.hyperparameters(trial)  # Ray keeps what is suggested

            super().__init__(space, sampler=candidates, **_goal(objectives))
            self.candidates = candidates

        def suggest(self, trial_id):
            config = super().suggest(trial_id)
            if self.candidates.exhausted:
                return Searcher.FINISHED
            return flatten_dict(config)  # the names of a `name_scope` have slashes

        def save(self, checkpoint_path):
            # OptunaSearch's cannot pickle a hypermodel from a script.
            pathlib.Path(checkpoint_path).write_bytes(ray.cloudpickle.dumps(vars(self)))

    return CandidateSearch(CandidateSampler(hypermodel, sampler, seed, explored(hypermodel)))


def _run(config, hypermodel, objectives, seed, fit_arguments):
    """One trial, in a worker of Ray."""
    from ray import tune

    about = describe_search(hypermodel, seed)
    if seed is not None:
        seed = zlib.crc32(f"{seed} {sorted(config.items())}".encode())
    names = [one.name for one in objectives]
    unknown = dict.fromkeys(names, math.nan)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        before = tune.get_checkpoint()
        if before:
            with before.as_directory() as kept:
                shutil.copytree(kept, folder, dirs_exist_ok=True)
        backup = folder / "backup"

        def on_epoch(epoch, values):
            if values:
                kept = tune.Checkpoint.from_directory(folder) if backup.exists() else None
                tune.report({**unknown, **values}, checkpoint=kept)

        try:
            arguments = (hypermodel, parameters_of(config), objectives, fit_arguments)
            values, record = run_trial(*arguments, folder, on_epoch, seed)
            metrics = dict(zip(names, values))
            json_files.write(folder / "record.json", {**record, "search": about})
        except Exception:
            metrics = {**unknown, "failure": traceback.format_exc()}
        shutil.rmtree(backup, ignore_errors=True)
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def _is_scored(result, objectives):
    values = [(result.metrics or {}).get(one.name, math.nan) for one in objectives]
    return not any(map(math.isnan, values))
