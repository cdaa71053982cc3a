"""What was done to the images that published weights were trained and measured on."""

import dataclasses
import math

import keras
import numpy as np

from keras_resblocks import validation


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The arguments of `ImagePreprocessing`."""

    size: int
    resize: int
    interpolation: str = "bilinear"
    mean: tuple = (0.485, 0.456, 0.406)  # of ImageNet, on a scale from 0 to 1
    std: tuple = (0.229, 0.224, 0.225)
    channel_order: str = "rgb"

    def layer(self, size=None):
        """A layer that does it, to squares of another `size` where one is given."""
        arguments = dataclasses.asdict(self)
        if size is not None:
            arguments["size"] = validation.positive_int("size", size)
            arguments["resize"] = round(self.resize * size / self.size)
        return ImagePreprocessing(**arguments, name="preprocessing")


@keras.saving.register_keras_serializable(package="keras_resblocks")
class ImagePreprocessing(keras.layers.Layer):
    """From RGB images of any size, values 0 to 255, to what a network expects.

    The shorter side is resized (with antialiasing), a square is cropped from the center, and
    the values, scaled to 0 to 1, are normalized: `(value - mean) / std`.

    Args:
        size: side of the square, in pixels.
        resize: length of the shorter side before the crop, in pixels.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos3"`.
        mean, std: of each channel, on a scale from 0 to 1, in the order of the output.
        channel_order: of the output, `"rgb"` or `"bgr"`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's setting by default.

    Input shape: `(batch, height, width, 3)`, or channels first; or 1 channel, gray, which is
    repeated. Output shape: `(batch, size, size, 3)`, or channels first.
    """

    def __init__(
        self,
        size,
        *,
        resize=None,
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        channel_order="rgb",
        data_format=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.size = validation.positive_int("size", size)
        self.resize = self.size if resize is None else validation.positive_int("resize", resize)
        if self.resize < self.size:
            raise ValueError(
                f"`resize` must be no less than `size`. Received: resize={resize!r}, size={size!r}"
            )
        self.interpolation = validation.one_of(
            "interpolation", interpolation, ("nearest", "bilinear", "bicubic", "lanczos3")
        )
        self.mean, self.std = (
            tuple(validation.finite_number(name, value) for value in values)
            for name, values in (("mean", mean), ("std", std))
        )
        self.channel_order = validation.one_of("channel_order", channel_order, ("rgb", "bgr"))
        self.data_format = validation.one_of(
            "data_format",
            data_format or keras.config.image_data_format(),
            ("channels_last", "channels_first"),
        )
        self._channels_first = self.data_format == "channels_first"

    def build(self, input_shape):
        axis = 1 if self._channels_first else -1
        if len(input_shape) != 4 or input_shape[axis] not in (1, 3):
            raise ValueError(
                f"The input of {type(self).__name__} must be a batch of images with 1 or 3 "
                f"channels (data_format={self.data_format!r}). "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def call(self, images):
        images = keras.ops.cast(images, self.compute_dtype)
        images = self._crop(self._resized(images))
        if self.channel_order == "bgr":
            images = keras.ops.flip(images, axis=1 if self._channels_first else -1)
        return images * self._per_channel(1 / (255 * np.array(self.std))) - self._per_channel(
            np.array(self.mean) / np.array(self.std)
        )

    def _sizes(self, images):
        sizes = keras.ops.shape(images)
        return sizes[2:] if self._channels_first else sizes[1:3]

    def _resized(self, images):
        height, width = self._sizes(images)
        if isinstance(height, int) and isinstance(width, int):
            shorter = min(height, width)
        else:
            shorter = keras.ops.minimum(height, width)
        return keras.ops.image.resize(
            images,
            (self.resize * height // shorter, self.resize * width // shorter),
            interpolation=self.interpolation,
            antialias=True,
            data_format=self.data_format,
        )

    def _crop(self, images):
        rows, columns = (
            slice(first, first + self.size)
            for first in (_half(size - self.size) for size in self._sizes(images))
        )
        if self._channels_first:
            return images[:, :, rows, columns]
        return images[:, rows, columns]

    def _per_channel(self, values):
        shape = (3, 1, 1) if self._channels_first else (3,)
        return keras.ops.convert_to_tensor(values.reshape(shape), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        if self._channels_first:
            return (input_shape[0], 3, self.size, self.size)
        return (input_shape[0], self.size, self.size, 3)

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
            "channel_order": self.channel_order,
            "data_format": self.data_format,
        }


def _half(number):
    """Half of an integer, rounded to even as Python's `round`; also of a tensor."""
    return (number + number // 2 % 2) // 2


def timm_recipe(config):
    """The recipe in a `config.json` of timm's models on the Hugging Face Hub."""
    config = config.get("pretrained_cfg", config)
    size = config["input_size"][-1]
    return Recipe(
        size=size,
        resize=math.floor(size / config.get("crop_pct", 0.875)),
        interpolation=config.get("interpolation", "bicubic"),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def keras_recipe(network):
    """keras.applications' scaling of the values; it says nothing of a crop."""
    size = 299 if network.startswith("inception") else 224
    if network.endswith("v2_keras") or network.startswith("inception"):
        return Recipe(size, size, mean=(0.5,) * 3, std=(0.5,) * 3)
    # Caffe's: blue first, minus the mean, on a scale from 0 to 255.
    mean = tuple(value / 255 for value in (103.939, 116.779, 123.68))
    return Recipe(size, size, mean=mean, std=(1 / 255,) * 3, channel_order="bgr")
