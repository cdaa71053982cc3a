"""Runs a search's script as one chief and several workers on this host."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

# In the environment of what is launched.
LAUNCHED = "KERAS_RESBLOCKS_LAUNCHED"
RESTARTED = "KERAS_RESBLOCKS_RESTARTED"

GRACE_SECONDS = 10
POLL_SECONDS = 0.1


def launch(command, *, workers=None, devices=None, logs=None, restarts=0):
    """Runs a command as the chief and as each worker of a search, and waits for them.

    The command is a user's own script, unchanged. In a worker it ends with its `search`; what
    follows there is done once, by the chief. The chief sees no GPU.

    Args:
        command: the program and its arguments, as a list of strings.
        workers: number of workers; by default one for each of `devices`.
        devices: the `CUDA_VISIBLE_DEVICES` of each worker, repeated where there are more workers;
            None leaves to the workers what they see.
        logs: folder for the outputs, a file for each process; by default all are printed, each
            line with the name of its process.
        restarts: how often each process is started again that has failed.

    Returns:
        The exit status: 0, or not if the chief failed or all the workers did.

    Raises:
        ValueError: for a number out of its range, or if there is neither a number of workers nor
            a device.

    Example:

    >>> status = launch([sys.executable, "search.py"], devices=["0", "1"])
    """
    if workers is None:
        workers = len(devices or ())
    if workers < 1:
        raise ValueError(
            "`workers` must be a positive integer, or `devices` must name one or more. "
            f"Received: workers={workers!r}, devices={devices!r}"
        )
    if logs is not None:
        pathlib.Path(logs).mkdir(parents=True, exist_ok=True)
    common = {
        **os.environ,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(_free_port()),
        "no_grpc_proxy": "127.0.0.1",  # which `http_proxy` would apply to
        "PYTHONUNBUFFERED": "1",
        LAUNCHED: "1",
    }
    # JAX would insist on a GPU where it has been told to use one.
    without_gpu = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    chief = _Member("chief", command, {**common, **without_gpu}, logs, restarts)
    own = [{"CUDA_VISIBLE_DEVICES": device} for device in devices or ()] or [{}]
    staff = [
        _Member(f"worker{number}", command, {**common, **own[number % len(own)]}, logs, restarts)
        for number in range(workers)
    ]
    started = []
    try:
        for member in (chief, *staff):
            member.start()
            started.append(member)
        return _supervise(chief, staff)
    finally:
        for member in started:
            member.signal(signal.SIGTERM)
        _wait_for(started)
        for member in started:
            member.end()


def _supervise(chief, staff):
    """Waits until the chief has ended, or all workers have failed."""
    while True:
        for member in (chief, *staff):
            member.start_again()
        statuses = [member.poll() for member in staff]
        status = chief.poll()
        all_failed = all(statuses)  # a worker that still runs has None
        if status is not None or all_failed:
            break
        time.sleep(POLL_SECONDS)
    if status == 0:
        _wait_for(staff)  # one that came late finds the search over by itself
    if status is None or status == 0:
        return int(all_failed)
    return status if status > 0 else 128 - status  # by a signal, as a shell says it


def _wait_for(members):
    deadline = time.monotonic() + GRACE_SECONDS
    while any(member.poll() is None for member in members) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def gpus():
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    No backend is imported: they are those of `CUDA_VISIBLE_DEVICES`, or of `nvidia-smi -L`.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


class _Member:
    """A process of the search, with what comes after it if it fails."""

    def __init__(self, name, command, environment, logs, restarts):
        self.name = name
        self._command = command
        self._environment = {**environment, "KERASTUNER_TUNER_ID": name}
        self._log = None if logs is None else pathlib.Path(logs) / f"{name}.log"
        self._restarts = restarts
        self._process = None
        self._reader = None

    def start(self):
        # A session of its own: a Ctrl-C reaches the launcher alone, and what a member has
        # started (workers of a data set) ends with it.
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._pass_on, args=(self._process.stdout,))
        self._reader.start()

    def _pass_on(self, lines):
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(self._log, "a")) if self._log else None
            for line in lines:
                if file:
                    print(line, end="", file=file, flush=True)
                if not file or self.name == "chief":
                    print(f"[{self.name}] {line}", end="", flush=True)

    def poll(self):
        """The exit status; None while it runs."""
        return self._process.poll()

    def start_again(self):
        """Starts it again if it has failed, as often as it may."""
        if not self.poll() or not self._restarts:
            return
        print(f"[launch] {self.name} failed ({self.poll()}) and is started again", flush=True)
        self._restarts -= 1
        self._environment[RESTARTED] = "1"
        self.end()
        self.start()

    def signal(self, number):
        """Sends a signal to the process and to those that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def end(self):
        """Ends it at once, its children with it."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
