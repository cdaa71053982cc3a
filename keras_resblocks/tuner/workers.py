"""A search by a chief and workers that outlives the loss of any of them.

KerasTuner's distributed search: the chief holds the oracle, the workers run the trials, and all of
them share the search's directory. Which of them a process is stands in its environment:
`KERASTUNER_TUNER_ID` (the chief's contains "chief"), `KERASTUNER_ORACLE_IP` and
`KERASTUNER_ORACLE_PORT`. Added here, without a change to what is said between them:

- A trial is on lease. A worker that has it asks for it from time to time; when nothing has been
  heard for `worker_timeout` seconds, the trial is run again by another worker. If both finish it
  after all, the first result counts.
- The chief ends when the search is over and every living worker knows.
- A worker whose chief is gone waits `chief_timeout` seconds for it to be started again, then ends
  with a `ChiefLostError`.
"""

import collections
import contextlib
import functools
import os
import pathlib
import threading
import time

import keras_tuner

from keras_resblocks import launcher, validation
from keras_resblocks.tuner import storage

# How often a trial may lose its worker before it is taken for the cause.
MAX_LOSSES = 3
# A worker may be up long before its chief; both may wait for a queue, or for a large data set.
FIRST_CONTACT_SECONDS = 600
# For one answer of a chief that is there: the model of a Bayesian search takes its time.
ANSWER_SECONDS = 600
IDLE_SECONDS = 0.25

_SEARCHED = threading.Event()  # in this process


class ChiefLostError(keras_tuner.errors.FatalRuntimeError):
    """The worker cannot reach its chief; not the trial's failure."""


def is_distributed():
    """Whether this process is a chief or a worker."""
    return "KERASTUNER_ORACLE_IP" in os.environ


def is_chief():
    """Whether this process holds the oracle for workers."""
    return is_distributed() and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker():
    """Whether this process runs trials for a chief."""
    return is_distributed() and not is_chief()


def keeps_state():
    """Whether what is on disk belongs to the search under way, and is not to be overwritten."""
    return is_worker() or launcher.RESTARTED in os.environ


def _guarded(fatal=False):
    """Makes a method of the chief's oracle run alone, and let go of its lock if it fails.

    KerasTuner's `synchronized` keeps the lock after an exception, and all would wait for ever.

    Args:
        fatal: whether an exception is the end of the search, as it is without workers.
    """

    def decorate(method):
        @keras_tuner.synchronized
        def locked(self, *args, **kwargs):
            try:
                return method(self, *args, **kwargs), None
            except Exception as error:
                self.error = error if fatal else self.error
                return None, error

        @functools.wraps(method)
        def guarded(self, *args, **kwargs):
            if self.leases is None:
                return getattr(super(LeasedOracle, self), method.__name__)(*args, **kwargs)
            result, error = locked(self, *args, **kwargs)
            if error is not None:
                raise error
            return result

        return guarded

    return decorate


class Leases:
    """When each worker was heard of last.

    Args:
        timeout: seconds of silence after which a worker counts as dead.
    """

    def __init__(self, timeout):
        self.timeout = timeout
        self._heard = {}

    def hear(self, tuner_id):
        """Notes a sign of life."""
        self._heard[tuner_id] = time.monotonic()

    def pop_silent(self):
        """The workers that have been silent for too long; each is named once."""
        limit = time.monotonic() - self.timeout
        silent = [tuner_id for tuner_id, heard in self._heard.items() if heard < limit]
        for tuner_id in silent:
            del self._heard[tuner_id]
        return silent

    @contextlib.contextmanager
    def paused(self):
        """While the chief is busy it hears nobody: that time is no worker's silence."""
        began = time.monotonic()
        yield
        busy = time.monotonic() - began
        self._heard = {tuner_id: heard + busy for tuner_id, heard in self._heard.items()}


class LeasedOracle:
    """Mixed into an oracle: a chief's takes trials back from workers that are gone."""

    leases = None  # of a chief only
    progress = None
    error = None  # that ended the search
    over = False
    _told = False  # to a worker: that nothing is left to run

    def begin_leases(self, worker_timeout):
        """Makes this the oracle of a chief."""
        self.leases = Leases(worker_timeout)
        self._losses = collections.Counter()

    @_guarded(fatal=True)
    def create_trial(self, tuner_id):
        if self.error is not None:
            raise self.error
        self._take_back_silent()
        self.leases.hear(tuner_id)
        if tuner_id in self.ongoing_trials and not self.multi_worker:
            self._take_back(tuner_id)  # started again: it asks, and so runs nothing
        with self.leases.paused():
            trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED" and self.ongoing_trials:
            # Those that run may be lost: who leaves now could not run their trials again.
            trial.status = "IDLE"
            self.tuner_ids.add(tuner_id)
        self._told = self._told or trial.status == "STOPPED"
        if trial.status == "RUNNING" and self.progress:
            self.progress.on_trial_begin(trial)
        return trial

    @_guarded()
    def get_trial(self, trial_id):
        self._hear_of(trial_id)
        return super().get_trial(trial_id)

    @_guarded()
    def update_trial(self, trial_id, metrics, step=0):
        self._hear_of(trial_id)
        trial = self.trials[trial_id]
        return trial if self._has_ended(trial) else super().update_trial(trial_id, metrics, step)

    @_guarded(fatal=True)
    def end_trial(self, trial):
        self._hear_of(trial.trial_id)
        if self._has_ended(trial):
            return  # whoever ran it as well was first
        if trial.trial_id in self._retry_queue:
            self._retry_queue.remove(trial.trial_id)
        if trial.status != "COMPLETED":
            trial.message = trial.message or self._read_message(trial)
        super().end_trial(trial)
        if self.progress:
            self.progress.on_trial_end(trial)

    @_guarded()
    def check_over(self):
        """Whether nothing is left to run, and every living worker has been told."""
        self._take_back_silent()
        if self.ongoing_trials or self._retry_queue or self.tuner_ids:
            return False
        total = self.total_trials()
        self.over = self._told or (total is not None and len(self.trials) >= total)
        return self.over

    def get_state(self):
        return {**super().get_state(), **({"over": self.over} if self.leases else {})}

    def set_state(self, state):
        super().set_state(state)
        self._were_ongoing = dict(self.ongoing_trials)

    def reload(self):
        super().reload()
        if self.leases is None:
            return
        # The chief was started again, and its workers may still be running their trials.
        for tuner_id, trial in self._were_ongoing.items():
            if trial.trial_id in self._retry_queue:
                self._retry_queue.remove(trial.trial_id)
                self.ongoing_trials[tuner_id] = trial
                self.tuner_ids.add(tuner_id)
                self.leases.hear(tuner_id)

    def _has_ended(self, trial):
        return trial.trial_id in self.end_order

    def _hear_of(self, trial_id):
        for tuner_id, trial in self.ongoing_trials.items():
            if trial.trial_id == trial_id:
                self.leases.hear(tuner_id)

    def _take_back_silent(self):
        for tuner_id in self.leases.pop_silent():
            self.tuner_ids.discard(tuner_id)
            if tuner_id in self.ongoing_trials:
                self._take_back(tuner_id)

    def _take_back(self, tuner_id):
        trial = self.ongoing_trials.pop(tuner_id)
        self._losses[trial.trial_id] += 1
        lost = f"trial {trial.trial_id} lost its worker {tuner_id}"
        if trial.metrics.exists(self.objective.name):  # it was lost after it had reported
            trial.status = "COMPLETED"
            self.end_trial(trial)
        elif self._losses[trial.trial_id] >= MAX_LOSSES:
            trial.status = "FAILED"
            trial.message = f"{lost}: {MAX_LOSSES} workers ended while they ran it"
            self.end_trial(trial)
        else:
            self._retry_queue.append(trial.trial_id)
            self.save()
            if self.progress and self.progress.verbose:
                print(f"{lost} and is run again", flush=True)

    def _read_message(self, trial):
        path = pathlib.Path(self._get_trial_dir(trial.trial_id)) / "message.json"
        return storage.read_json(path)["message"] if path.exists() else None


class _PatientStub:
    """The chief's procedures for a worker: they wait for a chief that is started again.

    Args:
        stub: of KerasTuner's client, whose calls would wait an hour.
        timeout: seconds to wait for a chief that has answered before.
        first_timeout: seconds to wait for its first answer.
        is_over: says whether there is nothing left to wait for.
    """

    def __init__(self, stub, timeout, first_timeout, is_over):
        self._stub = stub
        self._later_timeout = timeout
        self._timeout = first_timeout
        self._is_over = is_over

    def __getattr__(self, name):
        return functools.partial(self._call, getattr(self._stub, name))

    def _call(self, procedure, request, **_):
        import grpc

        deadline = time.monotonic() + self._timeout
        while True:
            try:
                reply = procedure(request, timeout=ANSWER_SECONDS)
            except grpc.RpcError as error:
                if error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ):
                    raise RuntimeError(f"The chief said: {error.details()}") from None
                if time.monotonic() > deadline or self._is_over():
                    raise ChiefLostError(_no_chief(self._timeout)) from None
                time.sleep(IDLE_SECONDS)
            else:
                self._timeout = self._later_timeout
                return reply


def _no_chief(seconds):
    ip, port = (os.environ[f"KERASTUNER_ORACLE_{name}"] for name in ("IP", "PORT"))
    return (
        f"No chief answers at {ip}:{port}; this worker waited {seconds:g} s. Start chief and "
        "workers again with the same directory, and the search goes on where it was."
    )


class DistributedTuner(keras_tuner.Tuner):
    """What KerasTuner's tuners are built on here: chiefs and workers that may be lost.

    Args:
        oracle, hypermodel, **kwargs: as in KerasTuner.
        worker_timeout: seconds of a worker's silence after which its trial is run again.
        chief_timeout: seconds that a worker waits for a chief that is gone.
    """

    def __init__(
        self, oracle, hypermodel=None, *, worker_timeout=30.0, chief_timeout=60.0, **kwargs
    ):
        self._worker_timeout = validation.positive_number("worker_timeout", worker_timeout)
        chief_timeout = validation.positive_number("chief_timeout", chief_timeout)
        self._own_oracle = oracle
        self._trial_id = self._lost = None
        self._asks_again = False
        if is_chief():
            oracle.begin_leases(worker_timeout)
        super().__init__(oracle=oracle, hypermodel=hypermodel, **kwargs)
        if is_worker():
            was_over = self._is_over_on_disk()
            self.oracle.stub = _PatientStub(
                self.oracle.stub,
                chief_timeout,
                chief_timeout if was_over else max(chief_timeout, FIRST_CONTACT_SECONDS),
                lambda: not was_over and self._is_over_on_disk(),
            )

    def search(self, *fit_args, **fit_kwargs):
        if not is_distributed():
            super().search(*fit_args, **fit_kwargs)
            return
        if _SEARCHED.is_set():
            raise RuntimeError(
                "A chief and its workers run one search. Start others for the next, with a port "
                "of their own."
            )
        _SEARCHED.set()
        if is_chief():
            self._serve(*fit_args, **fit_kwargs)
        else:
            self._work(*fit_args, **fit_kwargs)

    def _serve(self, *fit_args, **fit_kwargs):
        """Serves the oracle until the search is over."""

        def serve():
            try:
                super(DistributedTuner, self).search(*fit_args, **fit_kwargs)
            except Exception as error:
                self.oracle.error = error

        # KerasTuner's own loop ends only if each worker that ever came has said goodbye.
        server = threading.Thread(target=serve, daemon=True)
        server.start()
        while not self.oracle.check_over() and server.is_alive() and self.oracle.error is None:
            server.join(IDLE_SECONDS)
        if self.oracle.error is not None:
            raise self.oracle.error
        self.oracle.save()  # a worker that comes late reads there that all is over

    def _work(self, *fit_args, **fit_kwargs):
        """Runs trials until the search is over, then takes up its results from disk."""
        try:
            with self._signs_of_life():
                super().search(*fit_args, **fit_kwargs)
        except ChiefLostError:
            if not self._is_over_on_disk():
                raise
        if launcher.LAUNCHED in os.environ:
            raise SystemExit(0)  # what follows in the script is done once, by the chief
        self.oracle = self._own_oracle
        self.oracle.reload()

    @contextlib.contextmanager
    def _signs_of_life(self):
        ended = threading.Event()

        def ask():
            while not ended.wait(self._worker_timeout / 3):
                try:
                    if self._trial_id is not None:
                        self.oracle.get_trial(self._trial_id)
                except Exception as error:
                    self._lost = error
                    return

        threading.Thread(target=ask, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _is_over_on_disk(self):
        path = pathlib.Path(self._own_oracle._get_oracle_fname())
        return storage.is_intact(path) and storage.read_json(path).get("over", False)

    def pre_create_trial(self):
        super().pre_create_trial()
        if self._asks_again:  # KerasTuner would ask some thousand times a second
            time.sleep(IDLE_SECONDS)
        self._asks_again = True

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self._asks_again = False
        self._trial_id = trial.trial_id

    def on_batch_end(self, trial, model, batch, logs=None):
        super().on_batch_end(trial, model, batch, logs)
        if self._lost is not None:  # there is nobody to report to
            raise ChiefLostError(str(self._lost)) from self._lost

    def on_trial_end(self, trial):
        self._trial_id = None
        if is_worker() and trial.message:  # which KerasTuner does not send
            path = pathlib.Path(self.get_trial_dir(trial.trial_id)) / "message.json"
            storage.write_json(path, {"message": trial.message})
        super().on_trial_end(trial)
