"""`ImagePreprocessing` against Pillow and keras.applications, and the recipes of the weights."""

import json

import huggingface_hub
import keras
import numpy as np
import PIL.Image
import pytest
from helpers import DATA_FORMATS, assert_close, randomize, refusal, reloaded, revived, to_numpy

import keras_resblocks as kr
from keras_resblocks.checkpoints import ImagePreprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIONS = {"size": 24, "resize": 28, "mean": MEAN, "std": STD}
AXES = {"channels_last": (0, 1, 2, 3), "channels_first": (0, 3, 1, 2)}
FILTERS = {"bilinear": PIL.Image.Resampling.BILINEAR, "bicubic": PIL.Image.Resampling.BICUBIC}

SIZES = {
    "landscape": (60, 93),
    "portrait": (75, 49),
    "square": (64, 64),
    "small": (17, 21),
    "long": (30, 200),
    "of the right size": (28, 28),
    "a column more on one side": (40, 53),  # 28 x 37, of which 24 are left: 6.5 on each side
    "a column more on the other side": (40, 56),  # 28 x 39: 7.5 on each side
    "a row more on one side": (53, 40),
    "a row more on the other side": (56, 40),
}


def smooth_image(height, width, seed=0):
    """Waves, 12 pixels or more from crest to crest, that stay clear of black and white."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 127.0)
    for channel in range(3):
        for _ in range(3):
            fy, fx = rng.uniform(-1 / 12, 1 / 12, 2)
            wave = np.sin(2 * np.pi * (fy * y + fx * x + rng.uniform()))
            image[..., channel] += 30 * wave
    return image.round().astype("uint8")


def smooth_images(height, width, count=2):
    return np.stack([smooth_image(height, width, seed) for seed in range(count)])


def expected_of(image, size, resize, interpolation, mean, std):
    """What torchvision's and timm's transforms make of an image."""
    height, width = image.shape[:2]
    if height <= width:
        height, width = resize, int(resize * width / height)
    else:
        height, width = int(resize * height / width), resize
    pil = PIL.Image.fromarray(image).resize((width, height), FILTERS[interpolation])
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    pil = pil.crop((left, top, left + size, top + size))
    return (np.asarray(pil) / 255 - mean) / std


def outputs_of(layer, images):
    return to_numpy(layer(images))


def assert_like_pillow(outputs, expected, std=STD):
    """Equal but for the rounding of Pillow's values to integers."""
    errors = np.abs(outputs - expected) * (255 * np.array(std))
    assert errors.mean() < 0.5
    assert errors.max() < 1.5


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_images_are_prepared_as_with_pillow(size, interpolation):
    options = {**OPTIONS, "interpolation": interpolation}
    images = smooth_images(*SIZES[size])
    outputs = outputs_of(ImagePreprocessing(**options), images)
    for output, image in zip(outputs, images, strict=True):
        assert_like_pillow(output, expected_of(image, **options))


def test_a_shift_by_a_pixel_would_show():
    image = smooth_image(*SIZES["square"])
    expected = expected_of(image, **OPTIONS, interpolation="bilinear")
    shifted = expected_of(np.roll(image, 2, axis=1), **OPTIONS, interpolation="bilinear")
    with pytest.raises(AssertionError):
        assert_like_pillow(shifted, expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3"])
def test_every_interpolation_runs_and_keeps_a_plain_image(interpolation):
    images = np.full((1, 40, 56, 3), 100.0, "float32")
    layer = ImagePreprocessing(24, resize=28, interpolation=interpolation)
    assert_close(outputs_of(layer, images), np.full((1, 24, 24, 3), 100 / 255, "float32"))


@pytest.mark.parametrize("size", [24, None])
@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_values_are_scaled_and_in_the_order_of_the_output(size, channel_order, data_format):
    images, axes = smooth_images(size or 40, size or 56), AXES[data_format]
    values = images[..., :: 1 if channel_order == "rgb" else -1] / 255
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 1.0, 2.0])
    options = {"channel_order": channel_order, "data_format": data_format}
    given = images.transpose(axes)
    for statistics, expected in (
        ({}, values),
        ({"mean": mean, "std": std}, (values - mean) / std),
    ):
        layer = ImagePreprocessing(size, **statistics, **options)
        assert layer.compute_output_shape(given.shape) == given.shape
        assert_close(outputs_of(layer, given), expected.transpose(axes).astype("float32"))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_integers_and_floats_are_taken(dtype):
    images = smooth_images(40, 56)
    layer = ImagePreprocessing(**OPTIONS)
    expected = outputs_of(layer, images.astype("float32"))
    outputs = layer(images.astype(dtype))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert_close(outputs, expected)


@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_data_formats_agree_and_a_gray_image_is_one_of_three_equal_channels(
    channel_order, data_format
):
    options, axes = {**OPTIONS, "channel_order": channel_order}, AXES[data_format]
    images = smooth_images(40, 56)
    gray = images[..., :1]
    layer = ImagePreprocessing(**options, data_format=data_format)
    for given, meant in ((images, images), (gray, np.repeat(gray, 3, -1))):
        outputs = outputs_of(layer, given.transpose(axes))
        last = ImagePreprocessing(**options, data_format="channels_last")
        assert_close(outputs, outputs_of(last, meant).transpose(axes))


def test_the_data_format_is_that_of_keras():
    keras.config.set_image_data_format("channels_first")
    layer = ImagePreprocessing(**OPTIONS)
    assert layer.data_format == "channels_first"
    assert layer.compute_output_shape((2, 3, 40, 56)) == (2, 3, 24, 24)


# Shapes and dtypes


@pytest.mark.parametrize("shape", [(None, None, None, 3), (4, 60, 93, 3), (4, 60, 93, 1)])
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_the_output_has_the_size_that_was_asked_for(data_format, shape):
    shape, expected = (
        tuple(sizes[axis] for axis in AXES[data_format]) for sizes in (shape, (shape[0], 24, 24, 3))
    )
    layer = ImagePreprocessing(**OPTIONS, data_format=data_format)
    assert layer.compute_output_shape(shape) == expected
    assert layer(keras.Input(batch_shape=shape)).shape == expected


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_model_with_a_network_takes_images_of_any_size_and_reloads(dtype, tmp_path):
    spec = kr.ResNetSpec("residual", (1,), 4, stem=(), input_shape=(24, 24, 3), classes=5)
    options = {"kernel_initializer": "zeros", "classifier_activation": None}
    layer, network = ImagePreprocessing(**OPTIONS), randomize(kr.create_model(spec, **options))
    inputs = keras.Input((None, None, 3), dtype=dtype)
    model = keras.Model(inputs, network(layer(inputs)))
    loaded = reloaded(model, tmp_path)
    for size in ("landscape", "portrait", "a column more on the other side"):
        images = smooth_images(*SIZES[size]).astype(dtype)
        for one in (model, loaded):
            assert_close(one.predict_on_batch(images), network(layer(images)))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_tensorflow_data_set_takes_images_of_varying_sizes(batch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("data sets of TensorFlow run its own operations")
    import tensorflow as tf

    arrays = [smooth_images(*SIZES[size], batch) for size in ("landscape", "portrait", "square")]
    spec = tf.TensorSpec((None, None, None, 3), "uint8")
    layer = ImagePreprocessing(**OPTIONS)
    dataset = tf.data.Dataset.from_generator(lambda: iter(arrays), output_signature=spec).map(layer)
    for outputs, images in zip(dataset, arrays, strict=True):
        assert_close(outputs, outputs_of(layer, images))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_the_dtype_policy_is_followed(policy, interpolation):
    images = smooth_images(40, 56)
    options = {**OPTIONS, "interpolation": interpolation}
    layer = ImagePreprocessing(**options, dtype=policy)
    outputs = layer(images)
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    expected = outputs_of(ImagePreprocessing(**options), images)
    # Four units in the last place of values up to 255.
    tolerance = {"float16": 0.5, "bfloat16": 4.0}[layer.compute_dtype] / (255 * min(STD))
    np.testing.assert_allclose(to_numpy(outputs), expected, rtol=0, atol=tolerance)


def test_the_config_is_json_and_keeps_what_was_given():
    given = {
        "name": "mine",
        "size": 24,
        "resize": 28,
        "interpolation": "bicubic",
        "channel_order": "bgr",
        "data_format": "channels_first",
    }
    layer = ImagePreprocessing(mean=np.array(MEAN), std=list(STD), **given)
    config = revived(layer).get_config()
    expected = {**given, "mean": list(MEAN), "std": list(STD)}
    assert {key: json.loads(json.dumps(config[key])) for key in expected} == expected


# Recipes

APPLICATIONS = {
    "resnet50_keras": (keras.applications.resnet, 224),
    "resnet101_keras": (keras.applications.resnet, 224),
    "resnet50v2_keras": (keras.applications.resnet_v2, 224),
    "resnet152v2_keras": (keras.applications.resnet_v2, 224),
    "inception_v3_keras": (keras.applications.inception_v3, 299),
    "inception_resnet_v2_keras": (keras.applications.inception_resnet_v2, 299),
}


@pytest.mark.parametrize("network", APPLICATIONS)
def test_imagenet_images_are_prepared_as_in_keras_applications(network):
    module, size = APPLICATIONS[network]
    images = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)).astype("float32")
    expected = module.preprocess_input(images.copy())
    outputs = outputs_of(kr.preprocessing("imagenet", network), images)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-4)


def two_tones(height, width):
    """Squares of black and white, which overshoot where they are interpolated."""
    tones = np.random.default_rng(0).integers(0, 2, (height // 8 + 1, width // 8 + 1, 1))
    squares = np.kron(tones, np.ones((8, 8, 1)))[:height, :width]
    return (squares.repeat(3, axis=2) * 255).astype("uint8")


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos3"])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_overshoot_is_clipped_as_with_pillow(interpolation, crop_mode, data_format):
    image = two_tones(61, 90)
    pillows = PIL.Image.Resampling[{"lanczos3": "LANCZOS"}.get(interpolation, "BICUBIC")]
    width = 28 if crop_mode == "squash" else 41
    expected = PIL.Image.fromarray(image).resize((width, 28), pillows)
    left = round((width - 24) / 2)
    expected = np.asarray(expected.crop((left, 2, left + 24, 26))) / 255
    layer = ImagePreprocessing(
        24, resize=28, interpolation=interpolation, crop_mode=crop_mode, data_format=data_format
    )
    axes = AXES[data_format]
    output = outputs_of(layer, image[None].transpose(axes))
    assert output.min() >= 0
    assert output.max() <= 1
    assert (np.abs(output - expected[None].transpose(axes)) > 2 / 255).mean() < 0.01


@pytest.fixture
def hub_config(monkeypatch, tmp_path):
    """Stands in for the hub: serves a `config.json` with `pretrained_cfg` for resnet50.a1_in1k."""

    def serve(**pretrained_cfg):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": pretrained_cfg}))
        files = {("timm/resnet50.a1_in1k", "config.json"): str(path)}
        monkeypatch.setattr(
            huggingface_hub, "hf_hub_download", lambda repo_id, name, **_: files[repo_id, name]
        )

    return serve


TIMM = {"input_size": [3, 224, 224], "mean": list(MEAN), "std": list(STD)}

# What a config adds to that, and what the layer has then.
CONFIGS = {
    "bicubic": (
        {"crop_pct": 0.95, "interpolation": "bicubic"},
        {"size": 224, "resize": 235, "interpolation": "bicubic"},
    ),
    "bilinear": (
        {"crop_pct": 0.875, "interpolation": "bilinear"},
        {"size": 224, "resize": 256, "interpolation": "bilinear"},
    ),
    "no crop": (
        {"crop_pct": 1.0, "interpolation": "bicubic", "input_size": [3, 288, 288]},
        {"size": 288, "resize": 288},
    ),
    "other statistics": (
        {"crop_pct": 0.8975, "mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 299, 299]},
        {"size": 299, "resize": 333, "mean": (0.5,) * 3, "std": (0.5,) * 3},
    ),
    "lanczos": ({"interpolation": "lanczos"}, {"interpolation": "lanczos3"}),
    "squashed": ({"crop_pct": 0.9, "crop_mode": "squash"}, {"resize": 248, "crop_mode": "squash"}),
    "nulls": ({"crop_pct": None, "crop_mode": None}, {"resize": 256, "crop_mode": "center"}),
    "by default": ({}, {"resize": 256, "interpolation": "bicubic", "mean": MEAN, "std": STD}),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_timm_images_are_prepared_as_its_config_says(case, hub_config):
    config, expected = CONFIGS[case]
    hub_config(**{**TIMM, **config})
    for weights in (
        "timm/resnet50.a1_in1k",
        {**TIMM, **config},
        {"architecture": "resnet50", "pretrained_cfg": {**TIMM, **config}},
    ):
        layer = kr.preprocessing(weights)
        assert {name: getattr(layer, name) for name in expected} == expected
        assert layer.channel_order == "rgb"
    assert kr.preprocessing({**TIMM, **config}, size=64).size == 64


TORCHVISION = {
    "resnet50.IMAGENET1K_V2": {"size": 224, "resize": 232, "mean": MEAN, "std": STD},
    "resnet50.imagenet1k_v1": {"size": 224, "resize": 256, "mean": MEAN, "std": STD},
    "resnet50": {"size": 224, "resize": 232},
    "resnet18": {"size": 224, "resize": 256, "interpolation": "bilinear", "channel_order": "rgb"},
    "googlenet": {"size": 224, "resize": 256, "mean": (0.5,) * 3, "std": (0.5,) * 3},
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_images_are_prepared_as_its_weights_say(name):
    layer = kr.preprocessing(f"torchvision/{name}")
    expected = TORCHVISION[name]
    assert {key: getattr(layer, key) for key in expected} == expected


# A size that is asked for, and what the images are resized to: the crop takes the same part.
OTHER_SIZES = {
    ("torchvision/resnet50.IMAGENET1K_V2", None, 160): 166,
    ("torchvision/resnet18", None, 112): 128,
    ("imagenet", "resnet50_keras", 64): 64,
    ("imagenet", "inception_v3_keras", 150): 150,
    ("timm/resnet50.a1_in1k", None, 448): 470,
}


@pytest.mark.parametrize("case", OTHER_SIZES)
def test_images_of_another_size_are_resized_in_proportion(case, hub_config):
    weights, network, size = case
    hub_config(**TIMM, crop_pct=0.95)
    layer = kr.preprocessing(weights, network, size=size)
    assert (layer.size, layer.resize) == (size, OTHER_SIZES[case])


def test_the_layer_of_published_weights_has_a_name_and_takes_any_image():
    layer = kr.preprocessing("torchvision/resnet18")
    assert layer.name == "preprocessing"
    assert outputs_of(layer, smooth_images(60, 93)).shape == (2, 224, 224, 3)


# Bad input


# Options of the layer, the first of which the message names, and what else it holds.
BAD_OPTIONS = [
    ({"size": 0}, ["positive", "Received: size=0"]),
    ({"size": 2.5}, ["Received: size=2.5"]),
    ({"size": [24] * 99999}, ["Received: size=[24, 24, "]),
    ({"size": (24, 24)}, ["Received: size=(24, 24)"]),
    ({"resize": 28, "size": None}, ["`resize` must be None", "Received: resize=28, size=None"]),
    ({"resize": 0}, ["positive", "Received: resize=0"]),
    ({"resize": 20}, ["no less than `size`", "Received: resize=20, size=24"]),
    ({"interpolation": "cubic"}, ["'bicubic'", "Received: interpolation='cubic'"]),
    ({"channel_order": "rbg"}, ["'rgb'", "'bgr'", "Received: channel_order='rbg'"]),
    ({"channel_order": "bgr" * 99999}, []),
    ({"data_format": "NCHW"}, ["'channels_first'", "Received: data_format='NCHW'"]),
    ({"crop_mode": "border"}, ["'center'"]),
    ({"mean": ("a", 0, 0)}, ["Received: mean='a'"]),
    ({"mean": (0, 0, float("inf"))}, ["Received: mean=inf"]),
    ({"mean": 0.5}, ["Received: mean=0.5"]),
    ({"mean": (0.5, 0.5)}, ["Received: mean=(0.5, 0.5)"]),
    ({"mean": [0.5] * 99999}, ["Received: mean=[0.5, 0.5, "]),
    ({"std": (1, 1, float("nan"))}, ["Received: std=nan"]),
    ({"std": (1, 1, 1, 1)}, ["Received: std=(1, 1, 1, 1)"]),
    ({"std": (1, 0, 1)}, ["Received: std="]),
]


@pytest.mark.parametrize(("options", "parts"), BAD_OPTIONS)
def test_bad_options_raise_what_was_expected_and_received(options, parts):
    [name, *_] = options
    refusal(lambda: ImagePreprocessing(**{**OPTIONS, **options}), [f"`{name}`", *parts])


# Options, the shapes of images that a layer is called for, and what the message holds.
BAD_IMAGES = [
    ({}, [(2, 40, 56, 4)], ["1 or 3", "(2, 40, 56, 4)"]),
    ({}, [(2, 3, 40, 56)], ["1 or 3", "channels_last", "(2, 3, 40, 56)"]),
    (
        {"data_format": "channels_first"},
        [(2, 40, 56, 3)],
        ["1 or 3", "channels_first", "(2, 40, 56, 3)"],
    ),
    ({}, [(40, 56, 3)], ["batch", "(40, 56, 3)"]),
    ({}, [(2, 40, 56, 3), (40, 56, 3)], []),
    ({}, [(2, 40, 56, 3), (2, 40, 56, 4)], []),
]


@pytest.mark.parametrize(("options", "shapes", "parts"), BAD_IMAGES)
def test_bad_images_raise_what_was_expected_and_received(options, shapes, parts):
    *good, bad = [np.zeros(shape, "float32") for shape in shapes]
    layer = ImagePreprocessing(**OPTIONS, **options)
    for images in good:
        layer(images)
    refusal(lambda: layer(bad), parts, match=None)


# Weights and a network, and what the message holds.
BAD_RECIPES = [
    (("imagenet", None), ['`weights="imagenet"`', "resnet50_keras", "for None"]),
    (("imagenet", "resnet50"), ['`weights="imagenet"`', "resnet50_keras", "for 'resnet50'"]),
    ((None,), ["`weights`", "Received: weights=None"]),
    (
        ("model.safetensors",),
        ["`weights`", "published weights", "Received: weights='model.safetensors'"],
    ),
    (
        ("torchvision/resnet5",),
        ["`weights`", "Did you mean 'resnet50'", "Received: weights='torchvision/resnet5'"],
    ),
    (({"crop_pct": 0.9},), ["`weights`", "config", "`input_size`", "Received: input_size=None"]),
    (
        ({"input_size": (3, 224, 288)},),
        ["`input_size`", "square", "Received: input_size=(3, 224, 288)"],
    ),
    *[
        (({**TIMM, name: value},), [f"`{name}`", part, f"Received: {name}={value!r}"])
        for name, value, part in [
            ("crop_mode", "border", "'squash'"),
            ("interpolation", "random", "'lanczos'"),
            ("crop_pct", -1, "positive"),
            ("mean", [0.5, 0.5], "three numbers"),
        ]
    ],
]


@pytest.mark.parametrize(("arguments", "parts"), BAD_RECIPES)
def test_bad_weights_raise_what_was_expected_and_received(arguments, parts):
    refusal(lambda: kr.preprocessing(*arguments), parts)


def test_a_bad_size_of_published_images_is_refused():
    parts = ["`size`", "positive", "Received: size=0"]
    refusal(lambda: kr.preprocessing("torchvision/resnet18", size=0), parts)
