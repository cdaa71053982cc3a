"""Which published weights there are for which network, and how accurate they are."""

import dataclasses
import fnmatch


@dataclasses.dataclass(frozen=True)
class Weights:
    """Published weights.

    Attributes:
        name: what `create_model` takes as `weights`.
        network: the name of the network that they are for.
        top1: accuracy on ImageNet-1k's validation images in percent, as published for the
            image size of their `preprocessing`.

    Examples:
        >>> from keras_resblocks import list_weights
        >>> list_weights("resnet18")[0]
        Weights(name='timm/resnet18.a1_in1k', network='resnet18', top1=71.504)
    """

    name: str
    network: str
    top1: float


# keras.io/api/applications: (function, top-1).
KERAS = {
    "resnet50_keras": ("ResNet50", 74.9),
    "resnet101_keras": ("ResNet101", 76.4),
    "resnet152_keras": ("ResNet152", 76.6),
    "resnet50v2_keras": ("ResNet50V2", 76.0),
    "resnet101v2_keras": ("ResNet101V2", 77.2),
    "resnet152v2_keras": ("ResNet152V2", 78.0),
    "inception_v3_keras": ("InceptionV3", 77.9),
    "inception_resnet_v2_keras": ("InceptionResNetV2", 80.3),
}

# Torchvision's `models`: first digits of the file's SHA-256 and top-1, for the original training
# (V1) and a longer one (V2).
_TORCHVISION = {
    "resnet18": [("f37072fd", 69.758)],
    "resnet34": [("b627a593", 73.314)],
    "resnet50": [("0676ba61", 76.130), ("11ad3fa6", 80.858)],
    "resnet101": [("63fe2227", 77.374), ("cd907fc2", 81.886)],
    "resnet152": [("394f9c45", 78.312), ("f82ba261", 82.284)],
    "wide_resnet50_2": [("95faca4d", 78.468), ("9ba9bcbe", 81.602)],
    "wide_resnet101_2": [("32ee1156", 78.848), ("d733dc28", 82.510)],
    "resnext50_32x4d": [("7cdf4587", 77.618), ("1a0047aa", 81.198)],
    "resnext101_32x8d": [("8ba56ff5", 79.312), ("110c445d", 82.834)],
    "googlenet": [("1378be20", 69.778)],
}
# For each network and version: the digits, the shorter side before the crop, and top-1.
TORCHVISION = {
    network: {
        f"IMAGENET1K_V{v}": (digits, side, top1)
        for v, side, (digits, top1) in zip((1, 2), (256, 232), versions)
    }
    for network, versions in _TORCHVISION.items()
}

# timm's `results/results-imagenet.csv`; any other weights of theirs for the same architecture,
# which is the name up to the first dot, load as well.
TIMM = {
    "resnet18.a1_in1k": 71.504,
    "resnet18.gluon_in1k": 70.844,
    "resnet18d.ra2_in1k": 72.296,
    "resnet18d.ra4_e3600_r224_in1k": 74.356,
    "resnet34.a1_in1k": 76.420,
    "resnet34.ra4_e3600_r224_in1k": 77.492,
    "resnet34d.ra2_in1k": 77.108,
    "resnet50.a1_in1k": 80.382,
    "resnet50.a1h_in1k": 80.654,
    "resnet50.c2_in1k": 79.868,
    "resnet50.gluon_in1k": 77.580,
    "resnet50d.a1_in1k": 80.730,
    "resnet50d.ra2_in1k": 80.546,
    "resnet50d.ra4_e3600_r224_in1k": 80.956,
    "resnet101.a1_in1k": 81.494,
    "resnet101.a1h_in1k": 81.950,
    "resnet101d.ra2_in1k": 82.254,
    "resnet152.a1_in1k": 81.998,
    "resnet152.a1h_in1k": 82.818,
    "resnet152d.ra2_in1k": 83.160,
    "resnetv2_50.a1h_in1k": 80.410,
    "resnetv2_101.a1h_in1k": 82.042,
    "wide_resnet50_2.racm_in1k": 81.466,
    "resnext50_32x4d.a1_in1k": 80.526,
    "resnext50_32x4d.a1h_in1k": 81.140,
    "resnext50_32x4d.fb_swsl_ig1b_ft_in1k": 82.162,
    "resnext101_32x8d.fb_swsl_ig1b_ft_in1k": 84.276,
    "resnext101_32x8d.fb_wsl_ig1b_ft_in1k": 82.720,
    "seresnet50.a1_in1k": 80.012,
    "seresnet50.ra2_in1k": 80.260,
    "inception_resnet_v2.tf_in1k": 80.434,
}

# Where our name of a structure is not theirs.
_OUR_NAMES = {
    "googlenet": "googlenet_torchvision",
    "inception_resnet_v2": "inception_resnet_v2_keras",
}


def our_name(architecture):
    """The name here of a network of timm's or torchvision's."""
    return _OUR_NAMES.get(architecture, architecture)


def _all():
    for network, (_, top1) in KERAS.items():
        yield Weights("imagenet", network, top1)
    for network, versions in TORCHVISION.items():
        for version, (_, _, top1) in versions.items():
            name = f"torchvision/{network}.{version}"
            yield Weights(name, our_name(network), top1)
    for model, top1 in TIMM.items():
        network = model.partition(".")[0]
        yield Weights(f"timm/{model}", our_name(network), top1)


def list_weights(network: str = "*") -> list[Weights]:
    """The published weights for the networks that match a glob by name, the best first.

    Args:
        network: a name, or a glob, in which `*` is for any text and `?` for any character.

    Returns:
        A list of `Weights`.

    Examples:
        >>> from keras_resblocks import list_weights
        >>> [weights.name for weights in list_weights("resnet18")]
        ['timm/resnet18.a1_in1k', 'timm/resnet18.gluon_in1k', 'torchvision/resnet18.IMAGENET1K_V1']
    """
    found = [weights for weights in _all() if fnmatch.fnmatch(weights.network, network)]
    return sorted(found, key=lambda weights: (weights.network, -weights.top1))
