"""Runs a workload: every contender in a process of its own, taking turns."""

import dataclasses
import gc
import os
import time

from benchmarks import contenders as all_contenders
from benchmarks import device
from benchmarks.processes import FailedError, Worker, in_turns

PRODUCT = "matrix product"


@dataclasses.dataclass
class Result:
    """What was measured of a contender on a workload."""

    contender: object
    once: dict = dataclasses.field(default_factory=dict)  # seconds, and megabytes
    turns: list = dataclasses.field(default_factory=list)  # seconds of a step in each round
    operations: float = 0.0  # of a step
    error: str | None = None  # why there is no more


class Bench:
    """What a worker process does; the arguments are options of `benchmarks.__main__`."""

    def __init__(self, name, group, backends, threads, clock):
        self.cores = len(os.sched_getaffinity(0))
        if threads:  # before anything is imported that counts them
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
        self.contender = all_contenders.find(name, group, backends)
        self.contender.import_required()
        self.clock = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
        self.step = None

    def device(self):
        import keras

        return device.name(keras.backend.backend(), self.cores)

    def prepare(self, work):
        """Builds the model and does the first steps; what they took, and a step's operations."""
        import keras

        from benchmarks.contenders.keras_networks import set_precision

        self.step = None
        keras.utils.clear_session()
        gc.collect()
        set_precision(work.precision)
        memory = device.memory(keras.backend.backend())
        (held, _), begin = memory(reset=True), self.clock()
        model, built = self.contender.build(work), self.clock()
        self.step = self.contender.step(model, work)
        self.step()
        first = self.clock() - built
        self.step()
        once = {"build (s)": built - begin, "first step (s)": first}
        once["peak memory (MB)"] = (memory(reset=False)[1] - held) / 1e6
        return once, getattr(self.step, "operations", work.operations)

    def turn(self, seconds):
        """The seconds of a step, over steps that take that long."""
        begin, steps = self.clock(), 0
        end = time.perf_counter() + seconds
        while not steps or time.perf_counter() < end:
            self.step()
            steps += 1
        return (self.clock() - begin) / steps


class Field:
    """The contenders of a run and their processes, by the options of `benchmarks.__main__`."""

    def __init__(self, settings):
        self.settings = settings
        self.left_out = {}  # by the name: the packages missing
        self.workers = {}
        self.contenders = []
        wanted = settings.contenders
        for contender in all_contenders.every(settings.backends):
            if wanted and not any(part in contender.name for part in wanted):
                continue
            if missing := contender.missing():
                self.left_out[contender.name] = missing
            else:
                self.contenders.append(contender)

    def device(self):
        """The device that the first contender runs on."""
        return self.worker(self.contenders[0])("device")

    def run(self, work, group):
        """The results of a group's contenders, ours first, the product of matrices last."""
        results = [Result(c) for c in self.contenders if c.group == group and c.takes(work)]
        if all(result.contender.name == PRODUCT for result in results):
            return []
        self.close(but=[result.contender for result in results])
        for result in results:
            self._attempt(result, self._prepare, work)
        racing = [result for result in results if not result.error]
        for _, result in in_turns(racing, self.settings.rounds if racing else 0):
            if not result.error:
                self._attempt(result, self._turn)
        return results

    def _attempt(self, result, function, *args):
        try:
            function(result, *args)
        except FailedError as error:
            result.error = str(error)
            self.workers.pop(_key(result.contender)).close()
            print(f"{result.contender.name}: {error}", flush=True)

    def _prepare(self, result, work):
        result.once, result.operations = self.worker(result.contender)("prepare", work)

    def _turn(self, result):
        result.turns.append(self.worker(result.contender)("turn", self.settings.seconds))

    def worker(self, contender):
        key = _key(contender)
        if key not in self.workers:
            settings = self.settings
            args = (*key, settings.backends, settings.threads, settings.clock)
            environment = {**_ENVIRONMENT, "KERAS_BACKEND": contender.backend or contender.group}
            if settings.threads:
                environment.update(
                    OMP_NUM_THREADS=str(settings.threads),
                    TF_NUM_INTRAOP_THREADS=str(settings.threads),
                    TF_NUM_INTEROP_THREADS="1",
                )
            self.workers[key] = Worker(Bench, *args, timeout=settings.timeout, **environment)
        return self.workers[key]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self, but=()):
        """Ends all processes but those of some contenders."""
        for key in self.workers.keys() - set(map(_key, but)):
            self.workers.pop(key).close()


# Of all processes: little talk, and no GPU memory that is not needed.
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


def _key(contender):
    return contender.name, contender.group
