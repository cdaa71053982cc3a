"""timm's networks in plain PyTorch, channels last in memory."""

import functools

from benchmarks.contenders import Contender

_DEVICES = {"cpu": "cpu", "gpu": "cuda"}


def contenders():
    """Eager, and on a GPU by `torch.compile`."""
    requires = ("timm", "torchvision")
    options = dict(requires=requires, before=define_operations)
    yield Contender("timm", "torch", _takes, timm, eager, **options)
    yield Contender("timm, torch.compile", "torch", _takes_on_gpu, timm, compiled, **options)


def _takes(work):
    return work.network == "resnet50"


def _takes_on_gpu(work):
    return _takes(work) and work.device == "gpu"


def timm(work):
    import torch
    from timm import create_model

    model = create_model("resnet50", num_classes=work.classes)
    model = model.to(_DEVICES[work.device], memory_format=torch.channels_last)
    return model.train(work.kind == "training")


@functools.cache
def define_operations():
    """What torchvision's compiled part would, where it is for another PyTorch; no network
    needs it.
    """
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    if not hasattr(torch.ops.torchvision, "nms"):
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _data(work):
    import torch

    torch.manual_seed(0)
    images = torch.randn(work.batch, 3, work.size, work.size, device=_DEVICES[work.device])
    labels = torch.randint(work.classes, (work.batch,), device=_DEVICES[work.device])
    return images.to(memory_format=torch.channels_last), labels


def _autocast(work):
    import torch

    enabled = work.precision == "bfloat16"
    return torch.autocast(_DEVICES[work.device], torch.bfloat16, enabled=enabled)


def eager(model, work, compute=None):
    import torch

    compute = compute or model
    images, labels = _data(work)
    if work.kind == "inference":

        def infer():
            with torch.inference_mode(), _autocast(work):
                return compute(images).float().cpu().numpy()

        return infer

    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def train():
        with _autocast(work):
            loss = torch.nn.functional.cross_entropy(compute(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return train


def compiled(model, work):
    import torch

    return eager(model, work, torch.compile(model))
