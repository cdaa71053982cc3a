"""timm's and torchvision's networks in plain PyTorch, channels last in memory."""

import functools

from benchmarks.contenders import Contender

_DEVICES = {"cpu": "cpu", "gpu": "cuda"}


def contenders():
    """Eager ones; and timm by TorchScript (on a CPU) and by `torch.compile` (on a GPU)."""
    on = functools.partial(
        Contender,
        group="torch",
        before=define_operations,
        environment={"KERAS_BACKEND": "torch"},
    )
    for library, build in (("timm", timm), ("torchvision", torchvision)):
        takes = functools.partial(_takes, device="any", kind=("inference", "training"))
        requires = (library, "torchvision")
        yield on(name=library, takes=takes, build=build, step=eager, requires=requires)
        yield on(
            name=f"{library}, state dict",
            takes=functools.partial(_takes, device="any", kind=("saving",)),
            build=build,
            save=_save,
            load=functools.partial(_load, build=build),
            requires=requires,
        )
    requires = ("timm", "torchvision")
    takes = functools.partial(_takes, device="cpu", kind=("inference",))
    yield on(
        name="timm, TorchScript", takes=takes, build=timm, step=torch_script, requires=requires
    )
    takes = functools.partial(_takes, device="gpu", kind=("inference", "training"))
    yield on(name="timm, torch.compile", takes=takes, build=timm, step=compiled, requires=requires)


def _takes(work, device, kind):
    if work.network != "resnet50" or work.kind not in kind:
        return False
    return device in ("any", work.device)


def timm(work):
    from timm import create_model

    return _placed(create_model("resnet50", num_classes=work.classes), work)


def torchvision(work):
    from torchvision.models import resnet50

    return _placed(resnet50(num_classes=work.classes), work)


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


def _placed(model, work):
    import torch

    model = model.to(_DEVICES[work.device], memory_format=torch.channels_last)
    return model.train(work.kind == "training")


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


def torch_script(model, work):
    import torch

    images, _ = _data(work)
    with torch.no_grad():
        traced = torch.jit.trace(model, images)
        return eager(model, work, torch.jit.optimize_for_inference(traced))


def _save(model, path):
    import torch

    torch.save(model.state_dict(), f"{path}.pth")


def _load(path, work, build):
    import torch

    model = build(work)
    model.load_state_dict(torch.load(f"{path}.pth", weights_only=True))
    return model
