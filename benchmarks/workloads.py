"""What is measured, and the goals, as data."""

import dataclasses
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Workload:
    """One kind of work, the same for all contenders."""

    kind: str  # "inference" or "training", which is a step of SGD with momentum
    network: str  # as `create_model` knows it; peers of that structure take part
    size: int  # of the images, in pixels
    batch: int
    precision: str = "float32"  # or "tf32" or "bfloat16"
    device: str = "cpu"  # or "gpu"

    @property
    def classes(self):
        return 10 if self.network.endswith("_cifar") else 1000

    @property
    def shape(self):
        return (self.size, self.size, 3)

    @property
    def operations(self):
        """Floating-point operations of a step; the backward pass counts as two forward ones."""
        import keras_resblocks as kr  # and a backend, which only the contenders need

        macs = kr.cost(self.network, input_shape=self.shape, classes=self.classes).macs
        return 2 * macs * self.batch * {"inference": 1, "training": 3}[self.kind]

    def __str__(self):
        what = {"training": "training step"}.get(self.kind, self.kind)
        return f"{self.network}, {what}, {self.size} pixels, batch {self.batch}, {self.precision}"


def on_cpu():
    """What is measured on a CPU."""
    return [
        Workload("inference", "resnet50_keras", 224, 1),
        *(Workload("inference", "resnet50", 224, batch) for batch in (1, 4, 8, 32)),
        Workload("inference", "resnet18", 64, 16),
        Workload("inference", "resnet50", 64, 16),
        Workload("training", "resnet20_cifar", 32, 32),
        Workload("training", "resnet50_keras", 64, 16),
        Workload("training", "resnet18", 64, 16),
        Workload("training", "resnet50", 64, 16),
        Workload("training", "resnet50", 224, 4),
        Workload("training", "resnet50", 224, 8),
    ]


def on_gpu():
    """What is measured on a GPU."""
    works = [
        Workload("inference", "resnet50_keras", 224, 1),
        *(Workload("inference", "resnet50", 224, 32, p) for p in ("float32", "tf32", "bfloat16")),
        Workload("training", "resnet20_cifar", 32, 256, "bfloat16"),
        Workload("training", "resnet50_keras", 224, 256, "bfloat16"),
        Workload("training", "resnet50", 224, 256, "bfloat16"),
        *(Workload("training", "resnet50", 224, 64, p) for p in ("float32", "tf32")),
    ]
    return [dataclasses.replace(work, device="gpu") for work in works]


def quick():
    """A little of everything, to see that it runs."""
    return [Workload(kind, "resnet20_cifar", 32, 2) for kind in ("inference", "training")]


class Goal(NamedTuple):
    """A ratio of times that ought not to be exceeded."""

    group: str
    kind: str
    network: str
    size: int | None  # None is any
    batch: int | None
    ours: str
    theirs: tuple  # the fastest counts
    at_most: float

    def is_for(self, work, group):
        here = (group, work.kind, work.network, work.size, work.batch)
        return all(wanted in (None, given) for wanted, given in zip(self, here))


OURS = "keras_resblocks"
FUNCTION, PREDICT = f"{OURS}, inference_function", f"{OURS}, predict_on_batch"
ONNX, TIMM_ONNX = f"{OURS}, export_onnx", ("timm, onnx_export",)
APPS_FASTEST = ("keras.applications, predict_on_batch", "keras.applications, compiled")
FLAT, FLAT_PREDICT = ("the same network flat",), ("the same network flat, predict_on_batch",)
APPS, FLAX, TIMM = ("keras.applications",), ("flax",), ("timm", "timm, torch.compile")

GOALS = [
    Goal(*row)
    for row in (
        ("tensorflow", "inference", "resnet50_keras", 224, 1, FUNCTION, APPS_FASTEST, 0.90),
        ("jax", "inference", "resnet50_keras", 224, 1, FUNCTION, APPS_FASTEST, 0.85),
        ("torch", "inference", "resnet50_keras", 224, 1, FUNCTION, APPS_FASTEST, 0.65),
        ("onnxruntime", "inference", "resnet50", 224, None, ONNX, TIMM_ONNX, 1.03),
        ("jax", "inference", "resnet18", 64, 16, PREDICT, FLAT_PREDICT, 0.12),
        ("jax", "inference", "resnet50", 64, 16, PREDICT, FLAT_PREDICT, 0.30),
        ("jax", "inference", "resnet50", 224, 4, PREDICT, FLAT_PREDICT, 1.0),
        ("jax", "training", "resnet18", 64, 16, OURS, FLAT, 0.20),
        ("jax", "training", "resnet50", 64, 16, OURS, FLAT, 0.35),
        ("jax", "training", "resnet50", 224, 4, OURS, FLAT, 0.80),
        ("jax", "training", "resnet18", 64, 16, OURS, FLAX, 0.20),
        ("jax", "training", "resnet50", 64, 16, OURS, FLAX, 0.35),
        ("jax", "training", "resnet50", 224, 4, OURS, FLAX, 0.80),
        ("jax", "training", "resnet20_cifar", None, None, OURS, FLAT, 1.0),
        ("tensorflow", "training", "resnet50_keras", None, None, OURS, APPS, 0.90),
        ("tensorflow", "training", "resnet50", None, None, OURS, FLAT, 1.0),
        ("tensorflow", "training", "resnet20_cifar", None, None, OURS, FLAT, 1.0),
        ("torch", "training", "resnet50", 64, 16, OURS, TIMM, 1.0),
        ("torch", "training", "resnet50", 224, 8, OURS, TIMM, 1.0),
        ("torch", "training", "resnet50", 224, 256, OURS, TIMM, 1.0),
        ("torch", "training", "resnet50_keras", None, None, OURS, APPS, 0.75),
        ("torch", "training", "resnet50", None, None, OURS, FLAT, 0.75),
        ("torch", "training", "resnet20_cifar", None, None, OURS, FLAT, 0.65),
    )
]
