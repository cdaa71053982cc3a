"""The published networks by name, with the arguments of `create_model`."""

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import keras

from keras_resblocks.models.builders import create_model

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _arguments_of(
    function: Callable[Concatenate[str, _P], _T],
) -> Callable[[Callable[..., _T]], Callable[_P, _T]]:
    """Shows the arguments of a function but for its first to editors, checkers and `help`."""
    signature = inspect.signature(function)
    signature = signature.replace(parameters=[*signature.parameters.values()][1:])

    def decorate(network):
        network.__signature__ = signature
        return network

    return decorate


@_arguments_of(create_model)
def ResNet18(**arguments: Any) -> keras.Model:
    """ResNet-18: `create_model("resnet18", ...)`, with its arguments, result and errors.

    Examples:
        >>> from keras_resblocks import ResNet18
        >>> model = ResNet18(input_shape=(32, 32, 3), classes=6, activation="elu")

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", table 1.
    """
    return create_model("resnet18", **arguments)


@_arguments_of(create_model)
def ResNet34(**arguments: Any) -> keras.Model:
    """ResNet-34: `create_model("resnet34", ...)`, with its arguments, result and errors.

    Examples:
        >>> from keras_resblocks import ResNet34
        >>> model = ResNet34(input_shape=(32, 32, 3), classes=6, attention="squeeze_excite")

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", table 1.
    """
    return create_model("resnet34", **arguments)


@_arguments_of(create_model)
def ResNet50(**arguments: Any) -> keras.Model:
    """ResNet-50 (v1.5): `create_model("resnet50", ...)`, with its arguments, result and errors.

    Examples:
        >>> from keras_resblocks import ResNet50
        >>> model = ResNet50(input_shape=(32, 32, 3), classes=6, kernel_regularizer="l2")

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", table 1.
    """
    return create_model("resnet50", **arguments)


@_arguments_of(create_model)
def ResNet101(**arguments: Any) -> keras.Model:
    """ResNet-101 (v1.5): `create_model("resnet101", ...)`, with its arguments, result and errors.

    Examples:
        >>> from keras_resblocks import ResNet101
        >>> model = ResNet101(weights="torchvision/resnet101")  # needs: weights

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", table 1.
    """
    return create_model("resnet101", **arguments)


@_arguments_of(create_model)
def ResNet152(**arguments: Any) -> keras.Model:
    """ResNet-152 (v1.5): `create_model("resnet152", ...)`, with its arguments, result and errors.

    Examples:
        >>> from keras_resblocks import ResNet152
        >>> model = ResNet152(weights="timm/resnet152.a1_in1k")  # needs: weights

    References:
        He et al. 2016a, "Deep Residual Learning for Image Recognition", table 1.
    """
    return create_model("resnet152", **arguments)


@_arguments_of(create_model)
def GoogLeNet(**arguments: Any) -> keras.Model:
    """GoogLeNet: `create_model("googlenet", ...)`, with its arguments, result and errors.

    Examples:
        >>> from keras_resblocks import GoogLeNet
        >>> model = GoogLeNet(classes=6, aux_heads=True)
        >>> [output.shape for output in model.outputs]
        [(None, 6), (None, 6), (None, 6)]

    References:
        Szegedy et al. 2015, "Going Deeper with Convolutions", table 1.
    """
    return create_model("googlenet", **arguments)
