"""Shortcut policies: what carries a block's input past its residual branch.

A policy is to a shortcut what an initializer is to a weight: a small serializable object without
weights, safe to share. At `build`, a block asks it for steps or layers.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.layers.steps import Conv, Pool, Subsample
from keras_resblocks.layers.templates import INHERIT
from keras_resblocks.types import Config, Pluggable, Size
from keras_resblocks.validation import exceeds_one

__all__ = [
    "AvgPoolShortcut",
    "IdentityShortcut",
    "LayerShortcut",
    "ProjectionShortcut",
    "Shortcut",
    "ZeroPadShortcut",
    "changes_shape",
    "deserialize",
    "get",
    "serialize",
]


class Shortcut:
    """Base class of the policies.

    To write one, define `steps` (and `get_config` where there are options) and register it. In a
    pre-activation block, a shortcut with weights reads the activated input, as in the code of He
    et al. 2016b.

    Examples:
        >>> import keras
        >>> from keras_resblocks import ResidualBlock, shortcuts
        >>> from keras_resblocks.layers import Pool
        >>> @keras.saving.register_keras_serializable("my_package")
        ... class MaxPoolShortcut(shortcuts.Shortcut):
        ...     def steps(self, channels, filters, strides):
        ...         return [Pool("max", 3, strides), self.convolution(filters)]
        >>> block = ResidualBlock(32, strides=2, shortcut=MaxPoolShortcut())
    """

    _arguments: tuple[str, ...] = ()

    def steps(self, channels: int, filters: int, strides: Size) -> Sequence[Any]:
        """What leads from the block's input to the shape of its output.

        Args:
            channels: of the block's input.
            filters: channels of its output.
            strides: of the block, an integer or one for each spatial axis.

        Returns:
            A sequence of `Conv`, `Pool` and `Subsample` steps (in `keras_resblocks.layers`), or
            unbuilt Keras layers; empty for the identity.

        Raises:
            ValueError: if the policy cannot do it.
        """
        raise NotImplementedError

    def convolution(self, filters: int, strides: Size = 1, **options: Any) -> Conv:
        """A linear 1x1 convolution, with the block's normalization unless told otherwise.

        Args:
            filters: number of output channels.
            strides: an integer, or one for each spatial axis.
            **options: of `Conv`.

        Returns:
            The `Conv` step, for `steps`.
        """
        return Conv(filters, 1, strides, activation=None, **options)

    def get_config(self) -> Config:
        """The arguments to make an equal policy."""
        return {name: templates.serialize(getattr(self, name)) for name in self._arguments}

    @classmethod
    def from_config(cls, config: Config) -> "Shortcut":
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


_registered = keras.saving.register_keras_serializable(package="keras_resblocks")


@_registered
class IdentityShortcut(Shortcut):
    """The input itself: `"identity"`. An error where the block changes its shape.

    Examples:
        >>> from keras_resblocks import ResidualBlock
        >>> block = ResidualBlock(64, shortcut="identity")
    """

    def steps(self, channels: int, filters: int, strides: Size) -> Sequence[Any]:
        if changes_shape(channels, filters, strides):
            raise ValueError(
                '`shortcut="identity"` must join equal shapes; use "projection" or "zero_pad" '
                f"where a block changes them. Received: {channels} input channels for {filters} "
                f"output channels, strides={strides!r}"
            )
        return ()


@_registered
class ZeroPadShortcut(Shortcut):
    """Option A: every `strides`-th position, new channels are zero: `"zero_pad"`. No parameters.

    Examples:
        >>> from keras_resblocks import ResidualBlock
        >>> block = ResidualBlock(64, strides=2, shortcut="zero_pad")

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", section 3.3.
    """

    def steps(self, channels: int, filters: int, strides: Size) -> Sequence[Any]:
        if filters < channels:
            raise ValueError(
                '`shortcut="zero_pad"` can only add channels. '
                f"Received: {channels} input channels for {filters} output channels"
            )
        if not changes_shape(channels, filters, strides):
            return ()
        return (Subsample(filters, strides),)


_normalization = templates.Slot(
    "normalization", {**templates.normalization.names, INHERIT: INHERIT}
)


class _ConvolutionShortcut(Shortcut):
    _arguments = ("use_bias", "normalization")

    def __init__(
        self,
        *,
        use_bias: bool | Literal["inherit"] | None = INHERIT,
        normalization: Pluggable = INHERIT,
    ) -> None:
        self.use_bias = validation.one_of("use_bias", use_bias, (INHERIT, None, True, False))
        self.normalization = _normalization.get(normalization)

    def convolution(self, filters: int, strides: Size = 1, **options: Any) -> Conv:
        return super().convolution(
            filters, strides, use_bias=self.use_bias, normalization=self.normalization, **options
        )


@_registered
class ProjectionShortcut(_ConvolutionShortcut):
    """Options B and C: a strided 1x1 convolution, then the normalization.

    `"projection"` is option B, `"projection_always"` is `ProjectionShortcut("always")`.

    Args:
        when: `"shape"`, where the block changes the number of channels or the resolution
            (option B); `"always"` (option C); or `"channels"`, where it changes the number of
            channels, and subsampling otherwise (as in keras.applications' ResNetV2).
        use_bias: `"inherit"` for the block's own, or as in a block.
        normalization: likewise; in a pre-activation block, `"inherit"` is for none.

    Raises:
        ValueError: for another value.

    Examples:
        >>> from keras_resblocks import ResidualBlock, shortcuts
        >>> shortcut = shortcuts.ProjectionShortcut("channels", normalization=None)
        >>> block = ResidualBlock(64, strides=2, shortcut=shortcut)

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", sections 3.3 and 4.1.
    """

    _arguments = ("use_bias", "normalization", "when")

    def __init__(
        self,
        when: Literal["shape", "channels", "always"] = "shape",
        *,
        use_bias: bool | Literal["inherit"] | None = INHERIT,
        normalization: Pluggable = INHERIT,
    ) -> None:
        super().__init__(use_bias=use_bias, normalization=normalization)
        self.when = validation.one_of("when", when, ("shape", "channels", "always"))

    def steps(self, channels: int, filters: int, strides: Size) -> Sequence[Any]:
        if self.when == "channels" and channels == filters:
            return ZeroPadShortcut().steps(channels, filters, strides)
        if self.when == "shape" and not changes_shape(channels, filters, strides):
            return ()
        return (self.convolution(filters, strides),)


@_registered
class AvgPoolShortcut(_ConvolutionShortcut):
    """An average pooling by the strides, a 1x1 convolution and the normalization: `"avg_pool"`.

    Args:
        use_bias: as in `ProjectionShortcut`.
        normalization: as in `ProjectionShortcut`.

    Raises:
        ValueError: for another value.

    Examples:
        >>> from keras_resblocks import BottleneckBlock
        >>> block = BottleneckBlock(64, strides=2, shortcut="avg_pool")

    References:
        He et al. 2019, "Bag of Tricks for Image Classification with CNNs", section 4.2
        (ResNet-D).
    """

    def steps(self, channels: int, filters: int, strides: Size) -> Sequence[Any]:
        if not changes_shape(channels, filters, strides):
            return ()
        pool = (Pool("avg", strides, strides),) if exceeds_one(strides) else ()
        return (*pool, self.convolution(filters))


@_registered
class LayerShortcut(Shortcut):
    """A copy of a given Keras layer, or a function, on every shortcut.

    Args:
        layer: anything that an `activation` may be, except None.

    Raises:
        ValueError: for anything else.

    Examples:
        >>> import keras
        >>> from keras_resblocks import ResidualBlock
        >>> block = ResidualBlock(64, strides=2, shortcut=keras.layers.Conv2D(64, 1, strides=2))
    """

    _arguments = ("layer",)

    def __init__(self, layer: Pluggable) -> None:
        if layer is None:
            raise validation.bad_argument("layer", "be a Keras layer or a function", layer)
        self.layer = layer_template(layer)

    def steps(self, channels: int, filters: int, strides: Size) -> Sequence[Any]:
        return (self.layer,)


def changes_shape(channels: int, filters: int, strides: Size) -> bool:
    """Whether a block's output has another shape than its input.

    Args:
        channels: as in `Shortcut.steps`.
        filters: as in `Shortcut.steps`.
        strides: as in `Shortcut.steps`.

    Returns:
        True or False.

    Examples:
        >>> from keras_resblocks import shortcuts
        >>> shortcuts.changes_shape(64, 64, strides=(1, 2))
        True
    """
    return channels != filters or exceeds_one(strides)


_policies = {
    "identity": IdentityShortcut(),
    "zero_pad": ZeroPadShortcut(),
    "projection": ProjectionShortcut(),
    "projection_always": ProjectionShortcut("always"),
    "avg_pool": AvgPoolShortcut(),
}
NAMES = tuple(_policies)

layer_template = templates.Slot("shortcut", {}).get


def get(identifier: Shortcut | Pluggable) -> Shortcut | None:
    """The policy for what a block takes as `shortcut`.

    Args:
        identifier: None, a name, a config dict, a `Shortcut`, a Keras layer or a function.

    Returns:
        A `Shortcut`. None stays None: no shortcut at all, a plain network.

    Raises:
        ValueError: for anything else; the message lists the names.

    Examples:
        >>> from keras_resblocks import shortcuts
        >>> shortcuts.get("avg_pool")
        AvgPoolShortcut(use_bias='inherit', normalization='inherit')
    """
    if isinstance(identifier, dict):
        config = identifier
        try:
            identifier = keras.saving.deserialize_keras_object(config)
        except Exception as error:
            raise templates.bad_config("shortcut", config, error) from error
    if identifier is None or isinstance(identifier, Shortcut):
        return identifier
    if isinstance(identifier, str) and identifier in _policies:
        return _policies[identifier]
    if isinstance(identifier, (str, type)) or not callable(identifier):
        raise validation.bad_argument(
            "shortcut",
            f"be None, one of {sorted(_policies)}, a `Shortcut` (an instance), a Keras layer, a "
            "registered function or a config dict",
            identifier,
            validation.did_you_mean(identifier, _policies),
        )
    return LayerShortcut(identifier)


def serialize(policy: Shortcut | None) -> str | Config | None:
    """The JSON form of a policy.

    Args:
        policy: a `Shortcut`, or None.

    Returns:
        Its name where it has one, else a config dict; None for None.

    Examples:
        >>> from keras_resblocks import shortcuts
        >>> shortcuts.serialize(shortcuts.ProjectionShortcut("always"))
        'projection_always'
    """
    if policy is None:
        return None
    for name, named_policy in _policies.items():
        if policy == named_policy:
            return name
    return keras.saving.serialize_keras_object(policy)


def deserialize(config: str | Config | None) -> Shortcut | None:
    """The policy that `serialize` described.

    Args:
        config: a name, a config dict or None.

    Returns:
        A `Shortcut`, or None.

    Raises:
        ValueError: for an unknown name, or a config that nothing can be made from.

    Examples:
        >>> from keras_resblocks import shortcuts
        >>> shortcuts.deserialize("zero_pad")
        ZeroPadShortcut()
    """
    return get(config)
