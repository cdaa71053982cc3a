"""The published networks by name, with the arguments of `create_model`."""

from keras_resblocks.models.builders import create_model


def ResNet18(**arguments):
    """`create_model("resnet18", ...)`, with all its arguments."""
    return create_model("resnet18", **arguments)


def ResNet34(**arguments):
    """`create_model("resnet34", ...)`, with all its arguments."""
    return create_model("resnet34", **arguments)


def ResNet50(**arguments):
    """`create_model("resnet50", ...)`, with all its arguments."""
    return create_model("resnet50", **arguments)


def ResNet101(**arguments):
    """`create_model("resnet101", ...)`, with all its arguments."""
    return create_model("resnet101", **arguments)


def ResNet152(**arguments):
    """`create_model("resnet152", ...)`, with all its arguments."""
    return create_model("resnet152", **arguments)


def GoogLeNet(**arguments):
    """`create_model("googlenet", ...)`, with all its arguments."""
    return create_model("googlenet", **arguments)
