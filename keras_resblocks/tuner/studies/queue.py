"""Who runs what: the trials of a study, shared out among workers that may die at any moment.

Optuna's heartbeat and retries are for databases alone, and its storages have no lock in common.
What they do have in common is that a new trial gets the next number, in one step together with
its attributes, and that a finished trial is finished for good. So the state of the search is a
function of the list of its trials, the same for all workers:

- A trial takes a slot, unless it ended without a candidate (`void`). A worker creates its trial
  first and then looks whether it is among the first `max_trials` to take one. If it is not, the
  trial was one too many, and is void. As a slot once given up is never taken up again, no two
  workers both get the last one.
- A worker writes down a sign of life every now and then. Where that has not changed for
  `grace_period` seconds on the clock of another worker, that one ends the trial as `died`. The
  slot is not free: it waits for a new trial with the same hyperparameters, and belongs to the
  first one that says to be the rerun of the dead one.
- A worker that was taken for dead cannot write to its trial any more, and drops it.
"""

import contextlib
import itertools
import threading
import time
import uuid

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

# Attributes of a trial.
WORKER = "worker"  # who runs it; trials without one are none of ours
BEAT = "beat"  # the last sign of life, a number
DRAWN = "drawn"  # True once all its hyperparameters are written down
DIED = "died"  # True if its worker gave no sign of life
VOID = "void"  # why it never had a candidate
RERUN_OF = "rerun_of"  # number of the trial whose candidate this one runs again
RERUNS = "reruns"  # how often that candidate had been begun before


def is_void(trial):
    """Whether a trial ended without a candidate, and takes no slot."""
    attrs = trial.user_attrs
    lost = attrs.get(DIED) and not attrs.get(DRAWN)
    return trial.state == TrialState.FAIL and (VOID in attrs or lost)


def slots(trials):
    """The latest trial of each slot, in the order in which the slots were taken."""
    ours = [trial for trial in trials if WORKER in trial.user_attrs]
    reruns = {}
    for trial in ours:
        reruns.setdefault(trial.user_attrs.get(RERUN_OF), trial)
    latest = []
    for trial in ours:
        if RERUN_OF not in trial.user_attrs and not is_void(trial):
            while trial.number in reruns:
                trial = reruns[trial.number]
            latest.append(trial)
    return latest


class Queue:
    """The slots of a study, as one worker sees them.

    Args:
        study: an `optuna.Study`.
        storage: where it is kept.
        max_trials: number of slots.
        grace_period: seconds without a sign of life after which a worker is taken for dead.
        max_reruns: how often a candidate whose workers died is run again.
    """

    def __init__(self, study, storage, max_trials, grace_period, max_reruns):
        self.study = study
        self.max_trials = max_trials
        self.grace_period = grace_period
        self.max_reruns = max_reruns
        self.worker = uuid.uuid4().hex
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._beats = {}

    def trials(self):
        """All trials of the study, by number."""
        return self.study.get_trials(deepcopy=False)

    def slots(self):
        """The latest trial of each slot."""
        return slots(self.trials())[: self.max_trials]

    def needs_rerun(self, trial):
        """Whether a slot's latest trial waits for a rerun."""
        return (
            trial.state == TrialState.FAIL
            and trial.user_attrs.get(DIED, False)
            and trial.user_attrs.get(RERUNS, 0) < self.max_reruns
        )

    def is_over(self, trial):
        """Whether a slot's latest trial is the last one there."""
        return trial.state.is_finished() and not self.needs_rerun(trial)

    def claim(self, died=None):
        """A `Claim` on a free slot, or on that of a trial which died; None if others have it."""
        rerun = died and {
            "params": died.params,
            "distributions": died.distributions,
            "user_attrs": {
                DRAWN: True,
                RERUN_OF: died.number,
                RERUNS: died.user_attrs.get(RERUNS, 0) + 1,
            },
        }
        options = rerun or {"user_attrs": {}}
        options["user_attrs"][WORKER] = self.worker
        trial = optuna.trial.create_trial(state=TrialState.RUNNING, **options)
        trial_id = self._storage.create_new_trial(self._study_id, trial)
        number = self._storage.get_trial_number_from_id(trial_id)
        claim = Claim(self._storage, trial_id, number, self.grace_period / 6)
        if number in (trial.number for trial in self.slots()):
            return claim
        claim.end(TrialState.FAIL, {VOID: "one too many"})
        return None

    def bury_the_dead(self):
        """Ends the trials whose workers have given no sign of life for too long."""
        now = time.monotonic()
        beats = {
            trial.number: trial.user_attrs.get(BEAT)
            for trial in self.trials()
            if trial.state == TrialState.RUNNING and WORKER in trial.user_attrs
        }
        known = self._beats
        self._beats = {
            number: known[number] if number in known and known[number][0] == beat else (beat, now)
            for number, beat in beats.items()
        }
        for number, (_, since) in self._beats.items():
            if now - since >= self.grace_period:
                trial_id = self._storage.get_trial_id_from_study_id_trial_number(
                    self._study_id, number
                )
                with contextlib.suppress(UpdateFinishedTrialError):  # alive, or buried
                    Claim(self._storage, trial_id, number).end(TrialState.FAIL, {DIED: True})


class Claim:
    """A trial that this worker runs. A context that gives signs of life in the meantime.

    Every method raises `optuna.exceptions.UpdateFinishedTrialError` if another worker took this
    one for dead.
    """

    def __init__(self, storage, trial_id, number, interval=None):
        self.number = number
        self._storage = storage
        self._trial_id = trial_id
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _beat(self):
        for beat in itertools.count(1):
            try:
                self.set_attr(BEAT, beat)
            except UpdateFinishedTrialError:
                break
            except Exception:  # the storage is out of reach: perhaps not for long
                pass
            if self._ended.wait(self._interval):
                break
        self._storage.remove_session()

    def trial(self):
        """The trial as it is written down."""
        return self._storage.get_trial(self._trial_id)

    def set_attr(self, name, value):
        """Writes down a user attribute."""
        self._storage.set_trial_user_attr(self._trial_id, name, value)

    def set_params(self, params, distributions, system_attrs):
        """Writes down hyperparameters, and what the sampler has to say of them."""
        known = self.trial().params
        for name, value in system_attrs.items():
            self._storage.set_trial_system_attr(self._trial_id, name, value)
        for name, value in params.items():
            if name not in known:
                internal = distributions[name].to_internal_repr(value)
                self._storage.set_trial_param(self._trial_id, name, internal, distributions[name])

    def report(self, value, step):
        """Writes down an intermediate value."""
        self._storage.set_trial_intermediate_value(self._trial_id, step, value)

    def end(self, state, attrs, value=None):
        """Ends the trial."""
        for name, attr in attrs.items():
            self.set_attr(name, attr)
        values = None if value is None else [value]
        self._storage.set_trial_state_values(self._trial_id, state, values)
