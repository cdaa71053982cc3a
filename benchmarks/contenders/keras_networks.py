"""Ours and its peers written in Keras, on one of its backends."""

import functools

import numpy as np

from benchmarks.contenders import Contender
from benchmarks.contenders.flat_network import flat_network

OURS = "keras_resblocks"


def contenders(backend):
    """What runs on a Keras backend: in inference by each way to call a model, in training."""
    libraries = {
        OURS: (ours, lambda network: True, OURS),
        "keras.applications": (applications, {"resnet50_keras"}.__contains__),
        "the same network flat": (flat, FLAT.__contains__),
    }
    rows = [("inference_function", "inference", OURS, inference_function, {})]
    rows += [("predict_on_batch", "inference", name, predict_on_batch, {}) for name in libraries]
    # Lines of one's own: they are for the fastest call of the peer.
    rows += [("compiled", "inference", "keras.applications", compiled, {})]
    rows += [("", "training", name, train_on_batch, {}) for name in libraries]
    rows += [("not fused", "training", OURS, train_on_batch, {"fused": False})]
    rows += [("remat", "training", OURS, train_on_batch, {"remat": True})]
    for way, kind, library, step, options in rows:
        build, knows, *requires = libraries[library]
        yield Contender(
            name=f"{library}, {way}" if way else library,
            group=backend,
            takes=functools.partial(_takes, kind, knows),
            build=functools.partial(build, **options),
            step=step,
            requires=tuple(requires),
        )
    yield Contender("matrix product", backend, lambda work: True, lambda work: work, product)


def _takes(kind, knows, work):
    return work.kind == kind and knows(work.network)


def set_precision(precision):
    """Float32, TF32 in place of it, or bfloat16 with float32 variables."""
    import keras

    is_tf32 = precision == "tf32"
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(is_tf32)
    elif keras.backend.backend() == "jax":
        import jax

        name = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": None}[precision]
        jax.config.update("jax_default_matmul_precision", name)
    else:
        import torch

        torch.backends.cudnn.allow_tf32 = is_tf32
        torch.set_float32_matmul_precision("high" if is_tf32 else "highest")


# The networks.


def ours(work, **options):
    import keras_resblocks as kr

    return kr.create_model(
        work.network,
        input_shape=work.shape,
        classes=work.classes,
        classifier_activation=None,
        **options,
    )


def applications(work):
    import keras

    return keras.applications.ResNet50(
        weights=None, input_shape=work.shape, classes=work.classes, classifier_activation=None
    )


def flat(work):
    """The layers of our network one by one, all of them Keras's own, without a block."""
    return flat_network(work.shape, work.classes, **FLAT[work.network])


FLAT = {
    "resnet18": {"block": "residual", "depths": (2, 2, 2, 2), "width": 64, "stem": "large"},
    "resnet50": {"block": "bottleneck", "depths": (3, 4, 6, 3), "width": 64, "stem": "large"},
    "resnet20_cifar": {"block": "residual", "depths": (3, 3, 3), "width": 16, "zero_pad": True},
}


# The steps.


def _images(work):
    import keras

    rng = np.random.default_rng(0)
    images = rng.normal(size=(work.batch, *work.shape)).astype("float32")
    labels = rng.integers(0, work.classes, work.batch).astype("int32")
    return keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(labels)


def _waiting(function, images):
    import keras

    return lambda: keras.ops.convert_to_numpy(function(images))


def inference_function(model, work):
    import keras_resblocks as kr

    images, _ = _images(work)
    return _waiting(kr.inference_function(model), images)


def predict_on_batch(model, work):
    images, _ = _images(work)
    return lambda: model.predict_on_batch(images)


def compiled(model, work):
    """The model called in the backend's own compiled function; in PyTorch, which compiles
    whole Keras models to no gain, without gradients.
    """
    images, _ = _images(work)
    return _waiting(_jitted(lambda images: model(images, training=False)), images)


def _jitted(function):
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import torch

    return torch.no_grad()(function)


def train_on_batch(model, work):
    import keras

    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images, labels = _images(work)
    return lambda: model.train_on_batch(images, labels)


PRODUCT_SIZE = {"cpu": 1024, "gpu": 8192}


def product(work, _):
    """The product of two square matrices, in the backend's compiled function."""
    import keras

    size = PRODUCT_SIZE[work.device]
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype("float32")
    dtype = "bfloat16" if work.precision == "bfloat16" else "float32"
    matrix = keras.ops.cast(keras.ops.convert_to_tensor(matrix), dtype)
    multiply = _jitted(keras.ops.matmul)

    def step():
        keras.ops.convert_to_numpy(multiply(matrix, matrix)[:1, :1])

    step.operations = 2 * size**3
    return step
