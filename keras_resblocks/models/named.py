"""The published networks by name, with the arguments of `create_model`."""

import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

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
def ResNet18(**arguments):
    """`create_model("resnet18", ...)`, with all its arguments."""
    return create_model("resnet18", **arguments)


@_arguments_of(create_model)
def ResNet34(**arguments):
    """`create_model("resnet34", ...)`, with all its arguments."""
    return create_model("resnet34", **arguments)


@_arguments_of(create_model)
def ResNet50(**arguments):
    """`create_model("resnet50", ...)`, with all its arguments."""
    return create_model("resnet50", **arguments)


@_arguments_of(create_model)
def ResNet101(**arguments):
    """`create_model("resnet101", ...)`, with all its arguments."""
    return create_model("resnet101", **arguments)


@_arguments_of(create_model)
def ResNet152(**arguments):
    """`create_model("resnet152", ...)`, with all its arguments."""
    return create_model("resnet152", **arguments)


@_arguments_of(create_model)
def GoogLeNet(**arguments):
    """`create_model("googlenet", ...)`, with all its arguments."""
    return create_model("googlenet", **arguments)
