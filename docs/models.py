"""Writes `models.md`, the table of all networks: python docs/models.py."""

import pathlib

import keras_resblocks as kr
from keras_resblocks.models.published import get_spec

PAGE = pathlib.Path(__file__).with_name("models.md")

INTRODUCTION = """\
# Networks

Written by `python docs/models.py`. Parameters are the trainable ones with the classifier, in
millions; MACs are multiply-accumulates for one image of the given size, in billions: what
`kr.cost(name)` says. Top-1 is the accuracy on ImageNet-1k's validation images, as published with
the weights for the image size of their `kr.preprocessing(weights)`.

Structures: *v1* has the stride in the first 1x1 convolution of a bottleneck (He et al. 2016a),
*v1.5* in its 3x3 convolution, *v2* normalization and activation before the convolutions (He et
al. 2016b), *D* a stem of three 3x3 convolutions and an average pooling before the 1x1 convolution
of a shortcut (He et al. 2019). *basic* are blocks of two 3x3 convolutions.

| name | structure | image | parameters | MACs | published weights (top-1) |
|---|---|---|---|---|---|
"""

NOTES = """
`weights="imagenet"` are Keras's own files. Of timm's, any other weights for the same architecture
load as well (`weights="timm/<architecture>.<tag>"`), and so does a file, by its path.

Numerically equal, tested to 1e-4 of the logits' scale with random weights at 224 and 193 pixels:
the names without suffix and `googlenet_torchvision` to torchvision's, those with `d`, `resnetv2_...`,
`seresnet50`, `resnet50` and `inception_resnet_v2_keras` to timm's, and those with `_keras` to
keras.applications'.

| name | reference |
|---|---|
| `resnet18` ... `resnet152`, `..._keras`, `..._cifar` | He et al. 2016a, Deep Residual Learning for Image Recognition |
| `resnet...d` | He et al. 2019, Bag of Tricks for Image Classification with CNNs |
| `resnetv2_...`, `resnet...v2_keras`, `preact_resnet164_cifar` | He et al. 2016b, Identity Mappings in Deep Residual Networks |
| `wide_resnet...` | Zagoruyko & Komodakis 2016, Wide Residual Networks |
| `resnext...` | Xie et al. 2017, Aggregated Residual Transformations |
| `seresnet50` | Hu et al. 2018, Squeeze-and-Excitation Networks |
| `googlenet...` | Szegedy et al. 2015, Going Deeper with Convolutions; `_bn` with batch normalization, `_torchvision` with 3x3 in the 5x5 path |
| `inception_v3_keras` | Szegedy et al. 2016, Rethinking the Inception Architecture |
| `inception_resnet_v2_keras` | Szegedy et al. 2017, Inception-v4, Inception-ResNet |
"""  # noqa: E501


def page():
    """The text of the page."""
    return INTRODUCTION + "".join(map(row, kr.list_models())) + NOTES


def row(name):
    """The line of a network."""
    spec, cost = get_spec(name), kr.cost(name)
    size = "x".join(map(str, spec.input_shape[:2]))
    weights = ", ".join(f"`{known.name}` ({known.top1:.1f})" for known in kr.list_weights(name))
    cells = (
        f"`{name}`",
        structure(spec),
        size,
        f"{cost.trainable_params / 1e6:.2f}",
        f"{cost.macs / 1e9:.3f}",
        weights,
    )
    return f"| {' | '.join(cells)} |\n"


def structure(spec):
    """The variant of a network, in a few words."""
    if spec.block == "inception":
        residual = any("residual_scale" in str(part) for part in spec.stages[0])
        return "inception, residual" if residual else "inception"
    options = spec.options
    words = ["basic" if spec.block == "residual" else "bottleneck"]
    if options.get("preactivation"):
        words.append("v2")
    elif options.get("shortcut") == "avg_pool":
        words.append("D")
    elif spec.block == "bottleneck":
        words.append("v1" if options.get("stride_in_1x1") else "v1.5")
    elif options.get("shortcut") == "zero_pad":
        words.append("v1, option A")
    else:
        words.append("v1")
    if "groups" in options:
        words.append(f"{options['groups']} groups")
    if "attention" in options:
        words.append("squeeze and excitation")
    return ", ".join(words)


if __name__ == "__main__":
    PAGE.write_text(page())
