"""Less waiting for compilers."""

import contextlib
import os

import keras


@contextlib.contextmanager
def compilation_cache(folder):
    """Keeps what JAX compiles in a folder, where the next process and the next trial find it.

    Nothing changes on another backend, or where a cache is set already.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax  # Keras has no way to its cache
    from jax.experimental.compilation_cache import compilation_cache as cache

    if jax.config.jax_compilation_cache_dir or not os.access(folder.parent, os.W_OK):
        yield
        return
    options = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,  # many small programs
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    _update(jax, cache, options)
    try:
        yield
    finally:
        _update(jax, cache, before)


def _update(jax, cache, options):
    for name, value in options.items():
        jax.config.update(name, value)
    cache.reset_cache()  # it is opened once, with the folder of that time


def is_on_tensorflow_cpu():
    """Whether TensorFlow is the backend and sees no GPU."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf  # Keras does not tell

    return not tf.config.list_physical_devices("GPU")


@contextlib.contextmanager
def plain_graphs():
    """Leaves TensorFlow's graphs on a CPU as they are traced.

    To rewrite them takes a quarter of the time that a network takes to begin, and makes no step
    faster: what could be gained there is in the convolutions, which stay what they are.
    """
    if not is_on_tensorflow_cpu():  # on a GPU, the layout of images is rewritten
        yield
        return
    import tensorflow as tf  # Keras has no way to its settings

    option = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options()[option]
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


@contextlib.contextmanager
def quick_programs():
    """Has JAX compile with less care: for what runs once, as the initializers of weights do.

    They are compiled for each shape of a kernel, three to four times as long as it takes so.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax  # Keras has no way to its settings

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def steps_per_execution(samples, batch_size):
    """How many steps to run at once: most help small models, and some epochs have few steps.

    1 on PyTorch, whose Keras backend knows no more.
    """
    if samples is None or keras.backend.backend() == "torch":
        return 1
    return min(16, max(1, -(-samples // batch_size) // 4))


def build_training(model, targets):
    """Makes the variables of a model's optimizer and metrics before it is trained.

    Keras makes them while the first step is traced, and TensorFlow traces what has made
    variables once more: a third of the time that a small network takes to begin.

    Args:
        model: compiled; one with several outputs is left as it is.
        targets: an array of them, one or more.
    """
    has_one_output = len(model.outputs) == 1
    if keras.backend.backend() != "tensorflow" or not (
        has_one_output and hasattr(targets, "shape")
    ):
        return
    model.optimizer.build(model.trainable_variables)
    outputs = keras.ops.zeros((1, *model.output_shape[1:]), model.compute_dtype)
    model.compute_metrics(None, targets[:1], outputs)
    model.reset_metrics()
