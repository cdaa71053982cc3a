"""What was done to the images that published weights were trained and measured on."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import keras
import numpy as np

from keras_resblocks import validation
from keras_resblocks.types import Config, LayerArguments, Shape, Tensor, Unpack


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The arguments of `ImagePreprocessing`."""

    size: int
    resize: int
    interpolation: str = "bilinear"
    mean: tuple = (0.485, 0.456, 0.406)  # of ImageNet, on a scale from 0 to 1
    std: tuple = (0.229, 0.224, 0.225)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    crop_mode: Literal["center", "squash"] = "center"

    def layer(self, size: int | None = None) -> "ImagePreprocessing":
        """A layer that does it, to squares of another `size` where one is given."""
        arguments = dataclasses.asdict(self)
        if size is not None:
            arguments["size"] = validation.positive_int("size", size)
            arguments["resize"] = round(self.resize * size / self.size)
        return ImagePreprocessing(**arguments, name="preprocessing")


def _bilinear(x):
    return keras.ops.relu(1 - x)


def _bicubic(x):  # Keys 1981, with a = -0.5 as in Pillow
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return keras.ops.where(x < 1, near, keras.ops.where(x < 2, far, 0.0))


def _lanczos3(x):
    p = math.pi * keras.ops.maximum(x, 1e-6)
    return keras.ops.where(x < 3, 3 * keras.ops.sin(p) * keras.ops.sin(p / 3) / p**2, 0.0)


# The weight of a pixel by its distance; spread where the image shrinks (antialiasing).
_KERNELS = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos3": _lanczos3}
_OVERSHOOTING = ("bicubic", "lanczos3")


@keras.saving.register_keras_serializable(package="keras_resblocks")
class ImagePreprocessing(keras.layers.Layer):
    """From RGB images of any size, values 0 to 255, to what a network expects.

    The shorter side is resized (with antialiasing, clipped to the range of pixels as in Pillow), a
    square is cropped from the center, and values on a scale from 0 to 1 are normalized:
    `(value - mean) / std`.

    Args:
        size: side of the square, in pixels; None leaves images as large as they are.
        resize: length of the shorter side before the crop, in pixels; by default `size`.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos3"`.
        mean: of each channel, on a scale from 0 to 1, in the order of the output.
        std: of each channel, on a scale from 0 to 1, in the order of the output.
        channel_order: of the output, `"rgb"` or `"bgr"`.
        crop_mode: `"center"`; or `"squash"`, which resizes both sides to `resize`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.
        **kwargs: as in any Keras layer.

    Raises:
        ValueError: for an argument out of its range, and for another shape of the input.

    Input shape:
        `(batch, height, width, 3)`, or channels first; or 1 channel, gray, which is repeated.

    Output shape:
        `(batch, size, size, 3)`, or channels first.

    Examples:
        >>> import numpy as np
        >>> from keras_resblocks.checkpoints import ImagePreprocessing
        >>> prepare = ImagePreprocessing(224, resize=256, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> tuple(prepare(np.zeros((2, 300, 400, 3), "uint8")).shape)
        (2, 224, 224, 3)
    """

    def __init__(
        self,
        size: int | None,
        *,
        resize: int | None = None,
        interpolation: str = "bilinear",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        channel_order: Literal["rgb", "bgr"] = "rgb",
        crop_mode: Literal["center", "squash"] = "center",
        data_format: str | None = None,
        **kwargs: "Unpack[LayerArguments]",
    ) -> None:
        super().__init__(**kwargs)
        self.size = size if size is None else validation.positive_int("size", size)
        self.resize = self.size if resize is None else validation.positive_int("resize", resize)
        if resize is not None and (size is None or resize < size):
            expected = "None as" if size is None else "no less than"
            raise ValueError(
                f"`resize` must be {expected} `size`. Received: resize={resize!r}, size={size!r}"
            )
        self.interpolation = validation.one_of(
            "interpolation", interpolation, ("nearest", *_KERNELS)
        )
        self.mean = _three_numbers("mean", mean, validation.finite_number)
        self.std = _three_numbers("std", std, validation.positive_number)
        self.channel_order = validation.one_of("channel_order", channel_order, ("rgb", "bgr"))
        self.crop_mode = validation.one_of("crop_mode", crop_mode, ("center", "squash"))
        self.data_format = validation.one_of(
            "data_format",
            data_format or keras.config.image_data_format(),
            ("channels_last", "channels_first"),
        )
        self._channels_first = self.data_format == "channels_first"

    def build(self, input_shape: Shape) -> None:
        self._check(input_shape)

    def call(self, images: Tensor) -> Tensor:
        self._check(images.shape)
        images = keras.ops.cast(images, "float32")
        if self._channels_first:
            images = keras.ops.moveaxis(images, 1, -1)
        if self.size is not None:
            images = self._resized_and_cropped(images)
        if self.channel_order == "bgr":
            images = keras.ops.flip(images, axis=-1)
        mean, std = (
            keras.ops.convert_to_tensor(values, "float32") for values in (self.mean, self.std)
        )
        images = images / (255 * std) - mean / std  # also makes three channels of one
        if self._channels_first:
            images = keras.ops.moveaxis(images, -1, 1)
        return keras.ops.cast(images, self.compute_dtype)

    def _check(self, shape):
        axis = 1 if self._channels_first else -1
        if len(shape) != 4 or shape[axis] not in (1, 3):
            raise ValueError(
                f"The input of {type(self).__name__} must be a batch of images with 1 or 3 "
                f"channels (data_format={self.data_format!r}). Received: shape {tuple(shape)}"
            )

    def _resized_and_cropped(self, images):
        sizes = keras.ops.shape(images)[1:3]
        is_known = all(isinstance(size, int) for size in sizes)
        shorter = min(sizes) if is_known else keras.ops.minimum(*sizes)
        is_squashed = self.crop_mode == "squash"
        rows, columns = (
            self._interpolation_matrix(
                size, self.resize if is_squashed else self.resize * size // shorter
            )
            for size in sizes
        )
        # Columns first and clipped in between, as in Pillow.
        for equation, matrix in (("bhwc,jw->bhjc", columns), ("bhjc,ih->bijc", rows)):
            images = keras.ops.einsum(equation, images, matrix)
            if self.interpolation in _OVERSHOOTING:
                images = keras.ops.clip(images, 0.0, 255.0)
        return images

    def _interpolation_matrix(self, size, resized):
        """What each of `self.size` positions at the center of `resized` takes of `size` pixels.

        `keras.ops.image.resize` needs sizes that are known before the images are.
        """
        ratio = keras.ops.cast(size, "float32") / keras.ops.cast(resized, "float32")
        first = keras.ops.cast(_half(resized - self.size), "float32")
        centers = (keras.ops.arange(self.size, dtype="float32") + first + 0.5) * ratio - 0.5
        pixels = keras.ops.arange(size, dtype="float32")
        if self.interpolation == "nearest":
            nearest = keras.ops.floor(centers + 0.5)[:, None]
            return keras.ops.cast(pixels == nearest, "float32")
        distances = keras.ops.abs(pixels - centers[:, None]) / keras.ops.maximum(ratio, 1.0)
        weights = _KERNELS[self.interpolation](distances)
        return weights / keras.ops.sum(weights, axis=1, keepdims=True)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._check(input_shape)
        batch, *sizes = input_shape
        spatial = sizes[1:] if self._channels_first else sizes[:-1]
        if self.size is not None:
            spatial = (self.size, self.size)
        return (batch, 3, *spatial) if self._channels_first else (batch, *spatial, 3)

    def get_config(self) -> Config:
        recipe = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        return {**super().get_config(), **recipe, "data_format": self.data_format}


def _three_numbers(argument, values, check):
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != 3:
        raise validation.bad_argument(argument, "be three numbers, one for each channel", values)
    return tuple(check(argument, value) for value in values)


def _half(number):
    """Half of an integer, rounded to even as Python's `round`; also of a tensor."""
    return (number + number // 2 % 2) // 2


def timm_recipe(config):
    """The recipe in timm's config: a `config.json` of the Hub, or a model's `pretrained_cfg`."""
    config = config.get("pretrained_cfg", config)
    if not isinstance(config, Mapping):
        raise _bad_config("`pretrained_cfg`, if there is one, a dict", "pretrained_cfg", config)
    sizes = config.get("input_size")
    if not isinstance(sizes, (list, tuple)) or len(sizes) != 3 or sizes[1] != sizes[2]:
        raise _bad_config("`input_size`: channels and the side of a square", "input_size", sizes)
    size = validation.positive_int("input_size", sizes[-1])
    crop = config.get("crop_pct") or 0.875  # timm's default, here and below
    crop = validation.positive_number("crop_pct", crop)
    mode = config.get("crop_mode") or "center"
    interpolation = config.get("interpolation") or "bicubic"
    for name, value, known in (
        ("crop_mode", mode, ("center", "squash")),
        ("interpolation", interpolation, ("nearest", "bilinear", "bicubic", "lanczos")),
    ):
        if value not in known:
            raise _bad_config(f"`{name}`: one of {known}", name, value)
    return Recipe(
        size=size,
        resize=math.floor(size / crop),
        interpolation="lanczos3" if interpolation == "lanczos" else interpolation,
        mean=config.get("mean", Recipe.mean),
        std=config.get("std", Recipe.std),
        crop_mode=mode,
    )


def _bad_config(expected, name, value):
    return ValueError(
        f"`weights`, where it is a config of timm's, must have {expected}. "
        f"Received: {name}={validation.shown(value)}"
    )


def keras_recipe(network):
    """keras.applications' scaling of the values; it says nothing of a crop."""
    size = 299 if network.startswith("inception") else 224
    if network.endswith("v2_keras") or network.startswith("inception"):
        return Recipe(size, size, mean=(0.5,) * 3, std=(0.5,) * 3)
    # Caffe's: blue first, minus the mean, on a scale from 0 to 255.
    mean = tuple(value / 255 for value in (103.939, 116.779, 123.68))
    return Recipe(size, size, mean=mean, std=(1 / 255,) * 3, channel_order="bgr")
