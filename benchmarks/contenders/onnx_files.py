"""ONNX files under onnxruntime: ours by `export_onnx`, and timm's by its own export."""

import os
import tempfile

import numpy as np

from benchmarks.contenders import Contender, keras_networks, torch_networks


def contenders(backend):
    """Both files run alike; ours is written on a Keras backend."""
    packages = ("onnx", "onnxruntime")
    yield Contender(
        name="keras_resblocks, export_onnx",
        group="onnxruntime",
        takes=_takes,
        build=keras_networks.ours,
        step=ours,
        requires=("keras_resblocks", *packages),
        backend=backend,
    )
    yield Contender(
        name="timm, onnx_export",
        group="onnxruntime",
        takes=_takes,
        build=torch_networks.timm,
        step=timm,
        requires=("timm", "torchvision", "onnxscript", *packages),
        before=torch_networks.define_operations,
        backend="torch",
    )


def _takes(work):
    what = (work.kind, work.network, work.size, work.precision)
    return what == ("inference", "resnet50", 224, "float32")


def ours(model, work):
    import keras_resblocks as kr

    return _session(lambda path: kr.export_onnx(model, path), (work.batch, *work.shape))


def timm(model, work):
    from timm.utils.onnx import onnx_export

    def export(path):
        # As timm's own script does it: batch normalization folded by the exporter.
        size = (3, work.size, work.size)
        onnx_export(model.cpu(), path, batch_size=2, input_size=size)

    return _session(export, (work.batch, 3, work.size, work.size))


_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def _session(export, shape):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        export(path)
        providers = [p for p in _PROVIDERS if p in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})
