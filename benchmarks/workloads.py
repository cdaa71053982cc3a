"""What is measured, as data."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Workload:
    """One kind of work, the same for all contenders.

    Attributes:
        kind: `"inference"`, `"training"` (a step of SGD with momentum) or `"saving"`.
        network: the name that `create_model` knows; peers of that structure take part.
        size: of the image, in pixels.
        batch: number of images.
        precision: `"float32"`, `"tf32"` or `"bfloat16"`.
        device: `"cpu"` or `"gpu"`.
    """

    kind: str
    network: str
    size: int
    batch: int
    precision: str = "float32"
    device: str = "cpu"

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
        return 2 * macs * self.batch * {"inference": 1, "training": 3, "saving": 0}[self.kind]

    def __str__(self):
        what = {"training": "training step", "saving": "save and load"}.get(self.kind, self.kind)
        if self.kind == "saving":
            return f"{self.network}, {what}"
        return f"{self.network}, {what}, {self.size} pixels, batch {self.batch}, {self.precision}"


def on_cpu():
    """What is measured on a CPU."""
    return [
        Workload("inference", "resnet50_keras", 224, 1),
        *(Workload("inference", "resnet50", 224, batch) for batch in (1, 8, 32)),
        Workload("training", "resnet20_cifar", 32, 32),
        Workload("training", "resnet110_cifar", 32, 2),  # for its first step, of many layers
        Workload("training", "resnet50_keras", 64, 16),
        Workload("training", "resnet50", 64, 16),
        Workload("training", "resnet50", 224, 8),
        Workload("saving", "resnet50", 224, 1),
    ]


def on_gpu():
    """What is measured on a GPU."""
    works = [
        Workload("inference", "resnet50_keras", 224, 1),
        *(Workload("inference", "resnet50", 224, 32, p) for p in ("float32", "tf32", "bfloat16")),
        Workload("training", "resnet20_cifar", 32, 256, "bfloat16"),
        Workload("training", "resnet50_keras", 224, 256, "bfloat16"),
        Workload("training", "resnet50", 224, 256, "bfloat16"),
        Workload("training", "resnet50", 224, 64, "float32"),
        Workload("training", "resnet50", 224, 64, "tf32"),
        Workload("saving", "resnet50", 224, 1),
    ]
    return [dataclasses.replace(work, device="gpu") for work in works]


def quick():
    """A little of everything, to see that it runs."""
    return [
        Workload("inference", "resnet20_cifar", 32, 2),
        Workload("training", "resnet20_cifar", 32, 2),
        Workload("saving", "resnet20_cifar", 32, 1),
    ]


@dataclasses.dataclass(frozen=True)
class Goal:
    """A ratio of times that ought not to be exceeded.

    Attributes:
        ours: the name of a contender.
        theirs: names of contenders, of which the fastest counts.
        at_most: by the backend.
    """

    what: str
    kind: str
    network: str
    ours: str
    theirs: tuple
    at_most: dict
    sizes: tuple = ()  # all
    batches: tuple = ()

    def is_for(self, workload):
        return (
            (self.kind, self.network) == (workload.kind, workload.network)
            and workload.size in (self.sizes or (workload.size,))
            and workload.batch in (self.batches or (workload.batch,))
        )


APPLICATIONS = ("keras.applications, predict_on_batch", "keras.applications, compiled")
TIMM = ("timm", "timm, torch.compile")

GOALS = (
    Goal(
        "inference_function against keras.applications by its fastest call",
        "inference",
        "resnet50_keras",
        "keras_resblocks, inference_function",
        APPLICATIONS,
        {"tensorflow": 0.90, "jax": 0.85, "torch": 0.65},
        batches=(1,),
    ),
    Goal(
        "export_onnx under onnxruntime against timm's own export",
        "inference",
        "resnet50",
        "keras_resblocks, export_onnx",
        ("timm, onnx_export",),
        {"onnxruntime": 1.03},
    ),
    Goal(
        "training step against keras.applications",
        "training",
        "resnet50_keras",
        "keras_resblocks",
        ("keras.applications",),
        {"tensorflow": 1.0, "jax": 1.0, "torch": 0.75},
    ),
    Goal(
        "training step against the same network flat, of stock Keras layers",
        "training",
        "resnet50",
        "keras_resblocks",
        ("the same network flat",),
        {"tensorflow": 1.0, "jax": 1.0, "torch": 0.75},
    ),
    Goal(
        "training step against the same network flat, of stock Keras layers",
        "training",
        "resnet20_cifar",
        "keras_resblocks",
        ("the same network flat",),
        {"tensorflow": 1.0, "jax": 1.0, "torch": 0.65},
    ),
    Goal(
        "training step against timm",
        "training",
        "resnet50",
        "keras_resblocks",
        TIMM,
        {"torch": 1.2},
        sizes=(64,),
    ),
    Goal(
        "training step against flax",
        "training",
        "resnet50",
        "keras_resblocks",
        ("flax",),
        {"jax": 1.0},
        sizes=(224,),
    ),
    Goal(
        "training step against timm",
        "training",
        "resnet50",
        "keras_resblocks",
        TIMM,
        {"torch": 1.0},
        sizes=(224,),
        batches=(256,),
    ),
)
