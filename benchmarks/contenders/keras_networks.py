"""Ours and its peers written in Keras, on one of its backends."""

import functools

import numpy as np

from benchmarks.contenders import Contender
from benchmarks.contenders.flat_network import flat_network

OURS = ("keras_resblocks",)


def contenders(backend):
    """What runs on a Keras backend: in inference by each way to call a model, in training."""
    on = functools.partial(Contender, group=backend, environment={"KERAS_BACKEND": backend})
    libraries = [
        ("keras_resblocks", ours, lambda network: True, OURS),
        ("keras.applications", applications, {"resnet50_keras"}.__contains__, ()),
        ("keras_hub", hub, {"resnet50"}.__contains__, ("keras_hub",)),
        ("kimm", kimm, {"resnet50"}.__contains__, ("kimm",)),
        ("the same network flat", flat, FLAT.__contains__, ()),
    ]
    ways = {"predict_on_batch": predict_on_batch, "compiled": compiled}
    yield on(
        name="keras_resblocks, inference_function",
        takes=lambda work: work.kind == "inference",
        build=ours,
        step=inference_function,
        requires=OURS,
    )
    for library, build, knows, requires in libraries:
        for way, step in ways.items():
            if way == "compiled" and library != "keras.applications":
                continue  # lines of one's own: they are for the fastest call of the peer
            yield on(
                name=f"{library}, {way}",
                takes=_taker("inference", knows),
                build=build,
                step=step,
                requires=requires,
            )
        yield on(
            name=library,
            takes=_taker("training", knows),
            build=build,
            step=train_on_batch,
            requires=requires,
        )
        yield on(
            name=f"{library}, .keras file",
            takes=_taker("saving", knows),
            build=build,
            save=lambda model, path: model.save(f"{path}.keras"),
            load=lambda path, work: _load(f"{path}.keras"),
            requires=requires,
        )
    if backend != "jax":  # which fuses by itself
        yield on(
            name="keras_resblocks, not fused",
            takes=_taker("training", lambda network: True),
            build=functools.partial(ours, fused=False),
            step=train_on_batch,
            requires=OURS,
        )
    yield on(
        name="matrix product",
        takes=lambda work: work.kind != "saving",
        build=lambda work: work,
        step=matrix_product,
    )


def _taker(kind, knows):
    return lambda work: work.kind == kind and knows(work.network)


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


def hub(work):
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=work.shape,
    )
    return keras_hub.models.ResNetImageClassifier(backbone, num_classes=work.classes)


def kimm(work):
    import kimm

    return kimm.models.ResNet50(
        input_shape=work.shape,
        weights=None,
        classes=work.classes,
        classifier_activation="linear",
        include_preprocessing=False,
    )


def flat(work):
    """The layers of our network one by one, all of them Keras's own, without a block."""
    return flat_network(work.shape, work.classes, **FLAT[work.network])


FLAT = {
    "resnet50": {"block": "bottleneck", "depths": (3, 4, 6, 3), "width": 64, "stem": "large"},
    "resnet20_cifar": {"block": "residual", "depths": (3, 3, 3), "width": 16, "zero_pad": True},
    "resnet110_cifar": {"block": "residual", "depths": (18,) * 3, "width": 16, "zero_pad": True},
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
    import keras

    def call(images):
        return model(images, training=False)

    images, _ = _images(work)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(call)
    elif keras.backend.backend() == "jax":
        import jax

        call = jax.jit(call)
    else:
        import torch

        call = torch.no_grad()(call)
    return _waiting(call, images)


def train_on_batch(model, work):
    import keras

    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images, labels = _images(work)
    return lambda: model.train_on_batch(images, labels)


def _load(path):
    import keras

    return keras.saving.load_model(path)


PRODUCT_SIZE = {"cpu": 1024, "gpu": 8192}


def matrix_product(work, _):
    """The product of two square matrices, in the backend's compiled function."""
    import keras

    backend = keras.backend.backend()
    size = PRODUCT_SIZE[work.device]
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype("float32")
    dtype = "bfloat16" if work.precision == "bfloat16" else "float32"
    matrix = keras.ops.cast(keras.ops.convert_to_tensor(matrix), dtype)
    product = keras.ops.matmul
    if backend == "tensorflow":
        import tensorflow as tf

        product = tf.function(product)
    elif backend == "jax":
        import jax

        product = jax.jit(product)
    else:
        import torch

        product = torch.no_grad()(torch.matmul)

    def step():
        result = product(matrix, matrix)
        keras.ops.convert_to_numpy(result[:1, :1])

    step.operations = 2 * size**3
    return step
