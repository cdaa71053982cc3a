"""The published networks as specs, each with its source."""

import dataclasses
import itertools

import keras

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.layers.inception import branches_v1
from keras_resblocks.layers.shortcuts import ProjectionShortcut
from keras_resblocks.layers.steps import AdaptivePool, Conv, Pool
from keras_resblocks.models.specs import AuxHead, InceptionSpec, NetworkSpec, ResNetSpec


def _batch_norm(**config):
    return templates.of_class(keras.layers.BatchNormalization, axis=-1, **config)


# Depths: He et al. 2016a, table 1.
_BOTTLENECK_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _imagenet():
    """Torchvision's and timm's structure (v1.5): the stride in the 3x3 of a bottleneck."""
    yield "resnet18", ResNetSpec("residual", (2, 2, 2, 2))
    yield "resnet34", ResNetSpec("residual", (3, 4, 6, 3))
    for layers, depths in _BOTTLENECK_DEPTHS.items():
        yield f"resnet{layers}", ResNetSpec("bottleneck", depths)


def _resnet_d():
    """He et al. 2019, "Bag of Tricks", section 4.2, as in timm: a deep stem, pooled shortcuts."""
    stem = (Conv(32, 3, 2), Conv(32, 3), Conv(64, 3), Pool("max", 3, 2))
    for name, spec in _imagenet():
        yield f"{name}d", dataclasses.replace(spec, stem=stem, options={"shortcut": "avg_pool"})


def _resnet_v2():
    """He et al. 2016b as in timm: no convolution has a bias."""
    options = {"preactivation": True, "use_bias": False}
    for layers, depths in _BOTTLENECK_DEPTHS.items():
        yield f"resnetv2_{layers}", ResNetSpec("bottleneck", depths, options=options)


def _wide_and_grouped():
    """Wider or grouped 3x3 convolutions in ResNet-50 and 101, as in torchvision and timm."""

    def bottlenecks(layers, width, **options):
        return ResNetSpec("bottleneck", _BOTTLENECK_DEPTHS[layers], width, options=options)

    # Zagoruyko & Komodakis 2016, section 3.3: the 3x3 convolutions twice as wide.
    yield "wide_resnet50_2", bottlenecks(50, 128, expansion=2)
    yield "wide_resnet101_2", bottlenecks(101, 128, expansion=2)
    # Xie et al. 2017, table 1: cardinality x width of a group.
    yield "resnext50_32x4d", bottlenecks(50, 32 * 4, expansion=2, groups=32)
    yield "resnext101_32x8d", bottlenecks(101, 32 * 8, expansion=1, groups=32)
    # Hu et al. 2018, table 1.
    yield "seresnet50", bottlenecks(50, 64, attention="squeeze_excite")


def _keras_applications():
    """keras.applications' structures: biased convolutions, the stride in the 1x1; and v2."""
    norm = {"normalization": _batch_norm(epsilon=1.001e-5, momentum=0.99)}
    v1 = {"use_bias": True, "stride_in_1x1": True, **norm}
    v2 = {"preactivation": True, "shortcut": ProjectionShortcut("channels"), **norm}
    v2_stem = (Conv(64, 7, 2), Pool("max", 3, 2, pad_value=0.0))
    for layers, depths in _BOTTLENECK_DEPTHS.items():
        yield f"resnet{layers}_keras", ResNetSpec("bottleneck", depths, options=v1)
        v2_strides = {"strides": (2, 2, 2, 1), "stride_at": "last"}
        network = ResNetSpec("bottleneck", depths, stem=v2_stem, options=v2, **v2_strides)
        yield f"resnet{layers}v2_keras", network


def _cifar_network(block, depth, width, **options):
    images = {"input_shape": (32, 32, 3), "classes": 10}
    return ResNetSpec(block, (depth,) * 3, width, stem=(Conv(16, 3),), options=options, **images)


def _cifar():
    """Networks for 32x32 pixels and 10 classes."""
    # He et al. 2016a, section 4.2: 6n + 2 layers, option A shortcuts.
    for layers in (20, 32, 44, 56, 110):
        network = _cifar_network("residual", (layers - 2) // 6, 16, shortcut="zero_pad")
        yield f"resnet{layers}_cifar", network
    # He et al. 2016b, section 3: 9n + 2 layers.
    v2 = {"preactivation": True, "use_bias": False}
    yield "preact_resnet164_cifar", _cifar_network("bottleneck", (164 - 2) // 9, 16, **v2)
    # Zagoruyko & Komodakis 2016, table 1: 6n + 4 layers, ten times as wide.
    yield "wide_resnet28_10_cifar", _cifar_network("residual", (28 - 4) // 6, 10 * 16, **v2)


def _googlenet():
    """Szegedy et al. 2015, table 1, without the two local response normalizations."""
    stem = (Conv(64, 7, 2), Pool("max", 3, 2), Conv(64, 1), Conv(192, 3), Pool("max", 3, 2))
    stages = (
        (
            branches_v1(64, (96, 128), (16, 32), 32),
            branches_v1(128, (128, 192), (32, 96), 64),
        ),
        (
            Pool("max", 3, 2),
            branches_v1(192, (96, 208), (16, 48), 64),
            branches_v1(160, (112, 224), (24, 64), 64),
            branches_v1(128, (128, 256), (24, 64), 64),
            branches_v1(112, (144, 288), (32, 64), 64),
            branches_v1(256, (160, 320), (32, 128), 128),
        ),
        (
            Pool("max", 3, 2),
            branches_v1(256, (160, 320), (32, 128), 128),
            branches_v1(384, (192, 384), (48, 128), 128),
        ),
    )
    pool = Pool("avg", 5, 3, padding="valid")
    heads = (AuxHead("stage2_block1", pool), AuxHead("stage2_block4", pool))  # section 5: 4a, 4d
    with_norm = InceptionSpec(stages, stem=stem, dropout=0.4, aux_heads=heads)
    yield "googlenet", dataclasses.replace(with_norm, options={"normalization": None})
    yield "googlenet_bn", with_norm

    def as_in_torchvision(part):
        if isinstance(part, Pool):
            return dataclasses.replace(part, padding="ceil")
        if isinstance(part, Conv):
            return part
        one, three, (reduction, (filters, _)), pool = part.arguments()["branches"]
        return (one, three, (reduction, (filters, 3)), pool)  # 3x3 in the 5x5 path

    stages = [[as_in_torchvision(part) for part in stage] for stage in with_norm.stages]
    stages[2][0] = Pool("max", 2, 2, padding="ceil")
    torchvision = InceptionSpec(
        stages,
        stem=tuple(map(as_in_torchvision, stem)),
        dropout=0.2,
        options={"normalization": _batch_norm(epsilon=1e-3, momentum=0.9)},
        aux_heads=tuple(dataclasses.replace(head, pool=AdaptivePool(4)) for head in heads),
    )
    yield "googlenet_torchvision", torchvision


# Of Inception-v3 and Inception-ResNet-v2: no padding wherever the resolution falls.
_V3_STEM = (
    Conv(32, 3, 2, padding="valid"),
    Conv(32, 3, padding="valid"),
    Conv(64, 3),
    Pool("max", 3, 2, padding="valid"),
    Conv(80, 1),
    Conv(192, 3, padding="valid"),
    Pool("max", 3, 2, padding="valid"),
)


def _reduction(*branches):
    return {"branches": (*branches, ("max_pool",)), "strides": 2, "padding": "valid"}


def _inception_v3():
    """Szegedy et al. 2016, "Rethinking the Inception Architecture", table 1."""

    def block5(pool_filters):  # figure 5
        return ((64,), (48, (64, 5)), (64, (96, 3), (96, 3)), ("avg_pool", pool_filters))

    def block6(n):  # figure 6, with n = 7
        return (
            (192,),
            (n, (n, (1, 7)), (192, (7, 1))),
            (n, (n, (7, 1)), (n, (1, 7)), (n, (7, 1)), (192, (1, 7))),
            ("avg_pool", 192),
        )

    fan = (((384, (1, 3)),), ((384, (3, 1)),))
    block7 = ((320,), (384, fan), (448, (384, 3), fan), ("avg_pool", 192))  # figure 7
    stages = (
        (block5(32), block5(64), block5(64)),
        (
            _reduction(((384, 3),), (64, (96, 3), (96, 3))),
            block6(128),
            block6(160),
            block6(160),
            block6(192),
        ),
        (
            _reduction((192, (320, 3)), (192, (192, (1, 7)), (192, (7, 1)), (192, 3))),
            block7,
            block7,
        ),
    )
    yield "inception_v3_keras", _tf_inception(stages)


def _inception_resnet_v2():
    """Szegedy et al. 2017, "Inception-v4, Inception-ResNet", figures 15 to 18."""

    def residual(branches, filters, scale, **options):
        options.update(shortcut="identity", residual_scale=scale)
        return {"branches": branches, "filters": filters, **options}

    block35 = ((32,), (32, (32, 3)), (32, (48, 3), (64, 3)))
    block17 = ((192,), (128, (160, (1, 7)), (192, (7, 1))))
    block8 = ((192,), (192, (224, (1, 3)), (256, (3, 1))))
    stages = (
        (
            ((96,), (48, (64, 5)), (64, (96, 3), (96, 3)), ("avg_pool", 64)),
            *[residual(block35, 320, 0.17)] * 10,
        ),
        (
            _reduction(((384, 3),), (256, (256, 3), (384, 3))),
            *[residual(block17, 1088, 0.1)] * 20,
        ),
        (
            _reduction((256, (384, 3)), (256, (288, 3)), (256, (288, 3), (320, 3))),
            *[residual(block8, 2080, 0.2)] * 9,
            residual(block8, 2080, 1.0, exit_activation=None),
            Conv(1536, 1),
        ),
    )
    yield "inception_resnet_v2_keras", _tf_inception(stages)


def _tf_inception(stages):
    norm = _batch_norm(epsilon=1e-3, momentum=0.99, scale=False)
    return InceptionSpec(
        stages, stem=_V3_STEM, options={"normalization": norm}, input_shape=(299, 299, 3)
    )


_FAMILIES = (
    *(_imagenet, _resnet_d, _resnet_v2, _wide_and_grouped, _keras_applications, _cifar),
    *(_googlenet, _inception_v3, _inception_resnet_v2),
)
SPECS = dict(itertools.chain.from_iterable(family() for family in _FAMILIES))


def get_spec(name_or_spec):
    """The spec of a name, or the spec itself."""
    if isinstance(name_or_spec, NetworkSpec):
        return name_or_spec
    if not isinstance(name_or_spec, str) or name_or_spec not in SPECS:
        raise ValueError(
            "The model must be a spec or one of the names that `list_models()` gives."
            f"{validation.did_you_mean(name_or_spec, SPECS)} Received: {name_or_spec!r}"
        )
    return SPECS[name_or_spec]
