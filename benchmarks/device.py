"""What a backend computes on, and its memory."""

import contextlib
import os
import pathlib


def name(backend, cores=None):
    """The device in words; `cores` of the CPU, by default those that the process may use."""
    gpu, _ = _gpu(backend)
    return gpu or f"CPU, {cores or len(os.sched_getaffinity(0))} cores"


def memory(backend):
    """A function of `reset`: the bytes that this process has, and had at most since a reset.

    Of the GPU's memory, where there is one. JAX cannot forget its peak.
    """
    _, read = _gpu(backend)
    return read or _process_memory


def _gpu(backend):
    """The name of the first GPU and a function that reads its memory, or twice None."""
    if backend == "tensorflow":
        import tensorflow as tf

        device = next(iter(tf.config.list_physical_devices("GPU")), None)

        def read(reset):
            if reset:
                tf.config.experimental.reset_memory_stats("GPU:0")
            info = tf.config.experimental.get_memory_info("GPU:0")
            return info["current"], info["peak"]

        known = device and tf.config.experimental.get_device_details(device)["device_name"]
    elif backend == "jax":
        import jax

        device = jax.devices()[0]

        def read(reset):
            stats = device.memory_stats()
            return stats["bytes_in_use"], stats["peak_bytes_in_use"]

        known = device.device_kind if device.platform == "gpu" else None
    else:
        import torch

        def read(reset):
            if reset:
                torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()

        known = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return (known, read) if known else (None, None)


def _process_memory(reset):
    """The resident bytes, now and at most."""
    if reset:
        with contextlib.suppress(OSError):  # then the peak is that of the whole life
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets it
    status = pathlib.Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
