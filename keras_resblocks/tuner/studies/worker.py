"""One worker of a search by Optuna: draws candidates, trains them, writes down what came out."""

import contextlib
import copy
import functools
import math
import os
import re
import time
import traceback
import warnings

import keras
import keras_tuner
import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from keras_resblocks.tuner import memory
from keras_resblocks.tuner.reports.records import describe
from keras_resblocks.tuner.studies.candidates import Space
from keras_resblocks.tuner.studies.queue import DIED, DRAWN, VOID, is_void

MAX_CONSECUTIVE_FAILURES = 3  # as in KerasTuner


class Worker:
    """Runs trials until all that were asked for are over.

    Args:
        queue: a `Queue`.
        hypermodel: a `keras_tuner.HyperModel`.
        objective: a `keras_tuner.Objective`.
        fit_arguments: for `fit`.
        sampler: an Optuna sampler, or None.
        pruner: an Optuna pruner, or None.
        seed: of all that is drawn, or None.
        checkpoints: a `Checkpoints`, or None.
        verbose: 1 for a line a trial.
    """

    def __init__(
        self,
        queue,
        hypermodel,
        objective,
        fit_arguments,
        *,
        sampler=None,
        pruner=None,
        seed=None,
        checkpoints=None,
        verbose=0,
    ):
        self.queue = queue
        self.hypermodel = hypermodel
        self.objective = objective
        self.fit_arguments = fit_arguments
        self.sampler = sampler
        self.pruner = pruner
        self.seed = seed
        self.checkpoints = checkpoints
        self.verbose = verbose
        self._exhausted = False
        self._failures = 0

    @functools.cached_property
    def space(self):
        """The candidates. A worker that comes too late for a trial never learns them."""
        return Space(self.hypermodel)

    def run(self):
        """Returns when the last trial is over, whoever ran it."""
        queue = self.queue
        while True:
            queue.bury_the_dead()
            slots = queue.slots()
            died = next(filter(queue.needs_rerun, slots), None)
            if died or (len(slots) < queue.max_trials and not self._exhausted):
                claim = queue.claim(died)
                if claim:
                    self._run(claim, died)
            elif all(map(queue.is_over, slots)):
                return
            else:  # the others' trials, which may yet need a rerun
                time.sleep(min(1.0, queue.grace_period / 10))

    def _run(self, claim, died):
        # Where this worker was taken for dead, the trial is another's by now.
        with memory.released(), contextlib.suppress(UpdateFinishedTrialError), claim:
            self._run_claim(claim, died)
        if self.verbose:
            self._print(claim.trial())
        if self._failures == MAX_CONSECUTIVE_FAILURES:
            raise RuntimeError(
                f"{self._failures} trials of this worker have failed in a row. The last one:\n"
                + claim.trial().user_attrs["failure"]
            )
        if self.checkpoints:
            self.checkpoints.keep_best(self.queue.trials(), self.objective.direction)

    def _run_claim(self, claim, died):
        began = time.perf_counter()
        try:
            candidate = self.space.redraw(died.params) if died else self._draw(claim.number)
            if candidate is None:
                self._exhausted = True
                warnings.warn("There is no further candidate to try.", stacklevel=2)
                claim.end(TrialState.FAIL, {VOID: "no further candidate"})
                return
            _write_down(claim, candidate)
            claim.set_attr(DRAWN, True)
            score, record = self._train(claim, candidate)
            _write_down(claim, candidate)  # what `fit` has asked for
            record["seconds"]["total"] = time.perf_counter() - began
            claim.end(TrialState.COMPLETE, {"record": record}, score)
            self._failures = 0
        except optuna.TrialPruned:
            reports = claim.trial().intermediate_values
            claim.end(TrialState.PRUNED, {}, reports[max(reports)])
            self._failures = 0
        except (UpdateFinishedTrialError, StorageInternalError):
            raise
        except Exception as error:
            if memory.is_out_of_memory(error):  # which says nothing of the next candidate
                failure = f"Out of memory: {error}"
            else:
                failure = traceback.format_exc()
                self._failures += 1
            claim.end(TrialState.FAIL, {"failure": failure})
            if isinstance(error, keras_tuner.errors.FatalError):
                raise
        except BaseException:  # Ctrl-C: the others need not wait to find out
            with contextlib.suppress(UpdateFinishedTrialError):
                claim.end(TrialState.FAIL, {DIED: True})
            raise

    def _draw(self, number):
        # By number, so that workers with the same seed do not draw the same, and a search that
        # goes on draws what it would have drawn.
        seed = None if self.seed is None else (self.seed + number) % 2**32
        sampler = self.sampler or optuna.samplers.TPESampler(seed=seed)
        trials = [
            trial
            for trial in self.queue.trials()
            if trial.number != number and trial.state != TrialState.WAITING and not is_void(trial)
        ]
        return self.space.draw(trials, self.queue.study.direction, sampler, seed)

    def _train(self, claim, candidate):
        """The score of a candidate, and the record of its training."""
        if candidate.error:
            raise candidate.error
        model, hp = candidate.model, candidate.hp
        arguments = dict(self.fit_arguments)
        epochs = _Epochs(self.objective, functools.partial(self._report, claim))
        callbacks = [*copy.deepcopy(arguments.pop("callbacks", None) or []), epochs]
        if self.checkpoints:
            callbacks.append(self.checkpoints.callback(claim.number, self.objective))
        began = time.perf_counter()
        results = self.hypermodel.fit(hp, model, callbacks=callbacks, verbose=0, **arguments)
        seconds = {"training": time.perf_counter() - began}
        history = getattr(results, "history", epochs.history)
        return _score(results, self.objective), {
            **describe(model),
            "history": {name: [float(v) for v in values] for name, values in history.items()},
            "seconds": seconds,
        }

    def _report(self, claim, epoch, value):
        claim.report(value, epoch)
        if self.pruner and self.pruner.prune(self.queue.study, claim.trial()):
            raise optuna.TrialPruned

    def _print(self, trial):
        slots = self.queue.slots()
        over = sum(map(self.queue.is_over, slots))
        parts = [f"trial {trial.number}", trial.state.name.lower()]
        if trial.state == TrialState.COMPLETE:
            seconds = trial.user_attrs["record"]["seconds"]["total"]
            parts[1] = f"{self.objective.name} {trial.value:.4f} in {seconds:.1f} s"
            best = self.queue.study.best_trial
            parts.append(f"best {best.value:.4f} (trial {best.number})")
        elif "failure" in trial.user_attrs:
            parts[1] = "failed: " + trial.user_attrs["failure"].strip().splitlines()[-1]
        print(" | ".join([*parts, f"{over} of {self.queue.max_trials} over"]), flush=True)


class _Epochs(keras.callbacks.Callback):
    """Keeps the logs of all epochs, and reports the objective."""

    def __init__(self, objective, report):
        super().__init__()
        self.objective = objective
        self.report = report
        self.history = {}

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
        if self.objective.has_value(logs):
            self.report(epoch, float(self.objective.get_value(logs)))


class Checkpoints:
    """The weights of the best trials, each at its best epoch.

    Args:
        folder: a `pathlib.Path`.
        keep: number of trials.
    """

    def __init__(self, folder, keep):
        self.folder = folder
        self.keep = keep

    def callback(self, number, objective):
        """A callback that saves the best epoch of a trial."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return _SaveBestEpoch(self.folder / f"trial_{number}.weights.h5", objective)

    def keep_best(self, trials, direction):
        """Deletes what trials that are over have left, except for the best.

        A trial that is not among the best by now never will be, and one that is under way is
        left alone, so that workers can share the folder.
        """
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        sign = -1 if direction == "max" else 1
        ranked = sorted(complete, key=lambda trial: (sign * trial.value, trial.number))
        best = {trial.number for trial in ranked[: self.keep]}
        over = {trial.number: trial for trial in trials if trial.state.is_finished()}
        for path in self.folder.glob("trial_*.weights.h5"):
            number = int(re.match(r"trial_(\d+)", path.name)[1])
            if number in over and (number not in best or ".part." in path.name):
                path.unlink(missing_ok=True)


class _SaveBestEpoch(keras.callbacks.Callback):
    def __init__(self, path, objective):
        super().__init__()
        self.path = path
        self.objective = objective
        self.best = None

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.objective.name)
        if value is None or math.isnan(value):
            return
        if self.best is None or self.objective.better_than(value, self.best):
            self.best = value
            part = self.path.with_name(self.path.name.replace(".", ".part.", 1))
            self.model.save_weights(part)
            os.replace(part, self.path)


def _write_down(claim, candidate):
    trial = candidate.hp.trial
    claim.set_params(trial.params, trial.distributions, candidate.system_attrs)


def _score(results, objective):
    """The value of the objective in what `fit` returned: that of the best epoch."""
    if isinstance(results, list):
        return sum(_score(result, objective) for result in results) / len(results)
    if isinstance(results, keras.callbacks.History):
        results = results.history
    if isinstance(results, dict):
        if objective.name not in results:
            raise ValueError(
                f"`objective` must be among what the training measures: {sorted(results)}. "
                f"Received: objective={objective.name!r}"
            )
        results = results[objective.name]
    values = [float(value) for value in (results if isinstance(results, list) else [results])]
    best = max if objective.direction == "max" else min
    score = best((value for value in values if not math.isnan(value)), default=math.nan)
    if math.isnan(score):
        raise keras_tuner.errors.FailedTrialError(f"`{objective.name}` is not a number")
    return score
