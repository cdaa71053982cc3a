"""What a backend computes on, and its memory."""

import contextlib
import os
import pathlib


def name(backend, cores=None):
    """The device in words; `cores` of the CPU, by default those that the process may use."""
    gpu = {"tensorflow": _tensorflow_gpu, "jax": _jax_gpu, "torch": _torch_gpu}[backend]()
    return gpu or f"CPU, {cores or len(os.sched_getaffinity(0))} cores"


def _tensorflow_gpu():
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(gpu)["device_name"]


def _jax_gpu():
    import jax

    (first, *_) = jax.devices()
    return first.device_kind if first.platform == "gpu" else None


def _torch_gpu():
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def memory(backend):
    """A function of `reset`: the bytes that this process has, and had at most since a reset.

    Of the GPU's memory, where there is one.
    """
    of_gpu = {
        "tensorflow": _tensorflow_gpu_memory,
        "jax": _jax_gpu_memory,
        "torch": _torch_gpu_memory,
    }[backend]()
    return of_gpu or _process_memory


class PeakMemory:
    """The most memory that the process has had since this was made, beyond what it had then."""

    def __init__(self, backend):
        self.read = memory(backend)
        self.begin, _ = self.read(reset=True)

    def megabytes(self):
        _, peak = self.read(reset=False)
        return (peak - self.begin) / 1e6


def _process_memory(reset):
    """The resident bytes, now and at most."""
    if reset:
        with contextlib.suppress(OSError):  # then the peak is that of the whole life
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets it
    status = pathlib.Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))


def _tensorflow_gpu_memory():
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return None

    def read(reset):
        if reset:
            tf.config.experimental.reset_memory_stats("GPU:0")
        info = tf.config.experimental.get_memory_info("GPU:0")
        return info["current"], info["peak"]

    return read


def _jax_gpu_memory():
    import jax

    device = jax.devices()[0]
    if device.platform != "gpu":
        return None

    def read(reset):  # JAX cannot forget its peak
        stats = device.memory_stats()
        return stats["bytes_in_use"], stats["peak_bytes_in_use"]

    return read


def _torch_gpu_memory():
    import torch

    if not torch.cuda.is_available():
        return None

    def read(reset):
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()

    return read
