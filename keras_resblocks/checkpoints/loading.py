"""Weights in and out: published ones, files of other libraries, and our own."""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras

from keras_resblocks import validation
from keras_resblocks.checkpoints import files
from keras_resblocks.checkpoints.catalog import KERAS, TORCHVISION, list_weights, our_name
from keras_resblocks.checkpoints.keras_layout import (
    arrays_of_layers,
    keras_layout,
    layers_of_model,
)
from keras_resblocks.checkpoints.layout import assign
from keras_resblocks.checkpoints.own_files import load_own_weights, own_layout
from keras_resblocks.checkpoints.preprocessing import (
    ImagePreprocessing,
    Recipe,
    keras_recipe,
    timm_recipe,
)
from keras_resblocks.checkpoints.torch_layout import to_torch_arrays, torch_layout
from keras_resblocks.types import FilePath
from keras_resblocks.validation import cut, shown


def load_torch_weights(
    model: keras.Model,
    weights: FilePath | Mapping[str, Any],
    *,
    new_head: bool = False,
    adapt_channels: bool = False,
) -> None:
    """Loads the weights of a PyTorch model of the same structure, all of them or none.

    Args:
        model: a model of `create_model`. Where it has no classifier, or no auxiliary ones,
            theirs are left out.
        weights: the path of a `.safetensors` file (PyTorch need not be installed) or of one
            that `torch.save` wrote, or a state dict of tensors or arrays; with the keys of
            torchvision, timm or `to_torch_state_dict`. In a training checkpoint, the state dict
            under `state_dict`, `model` or the like is taken, averaged weights (`model_ema`)
            first. Prefixes of all keys (`module.`, `model.`, `_orig_mod.`) are left out.
        new_head: whether a classifier for another number of classes is left as it is.
        adapt_channels: whether the first convolution is fitted to the model's number of
            channels: repeated over them and scaled, or summed for one.

    Raises:
        ValueError: if keys are missing, unused or of another shape; it names them. Also if the
            file is damaged or holds anything but tensors. The model stays as it was.
        ImportError: if a file needs PyTorch or safetensors to be read, and it is missing.

    Examples:
        >>> from keras_resblocks import create_model, load_torch_weights, to_torch_state_dict
        >>> theirs = to_torch_state_dict(create_model("resnet20_cifar"), as_numpy=True)
        >>> model = create_model("resnet20_cifar", classes=6)
        >>> load_torch_weights(model, theirs, new_head=True)  # or torch_model.state_dict()
    """
    _assign_torch(model, weights, new_head=new_head, adapt_channels=adapt_channels)


def load_keras_weights(
    model: keras.Model,
    weights: keras.Model | FilePath,
    *,
    new_head: bool = False,
    adapt_channels: bool = False,
) -> None:
    """Loads the weights of a model of keras.applications, all of them or none.

    Args:
        model: a model of `create_model("..._keras")`, with or without its classifier.
        weights: a model of keras.applications, or the path of one of its `.h5` files, also in
            the naming before 2019 (`res2a_branch2a`), or of a `.keras` file of one.
        new_head: as in `load_torch_weights`.
        adapt_channels: as in `load_torch_weights`.

    Raises:
        ValueError: as `load_torch_weights`, for layers instead of keys.

    Examples:
        >>> import keras
        >>> from keras_resblocks import create_model, load_keras_weights
        >>> theirs = keras.applications.ResNet50(input_shape=(32, 32, 3), weights=None, classes=6)
        >>> model = create_model("resnet50_keras", input_shape=(32, 32, 3), classes=6)
        >>> load_keras_weights(model, theirs)
    """
    _assign_keras(model, weights, new_head=new_head, adapt_channels=adapt_channels)


def to_torch_state_dict(model: keras.Model, *, as_numpy: bool = False) -> dict[str, Any]:
    """A model's weights as a PyTorch state dict, with the keys of torchvision or timm.

    Args:
        model: a model of `create_model`. A network that neither has gets keys of the same kind.
        as_numpy: whether to give NumPy arrays instead of tensors, which need PyTorch.

    Returns:
        A dict of tensors or arrays, in PyTorch's layout, by key.

    Raises:
        ImportError: without PyTorch, unless `as_numpy`.
        ValueError: if `model` is quantized.

    Examples:
        >>> from keras_resblocks import create_model, to_torch_state_dict
        >>> arrays = to_torch_state_dict(create_model("resnet20_cifar"), as_numpy=True)
        >>> arrays["layer1.0.conv1.weight"].shape
        (16, 16, 3, 3)
    """
    arrays = to_torch_arrays(model)
    if as_numpy:
        return arrays
    try:
        import torch  # a state dict holds its tensors
    except ImportError:
        raise files.missing_package("torch", "A state dict of tensors", "torch") from None

    def tensor(array):
        if array.dtype.name == "bfloat16":  # which NumPy and PyTorch do not share
            return torch.tensor(array.astype("float32")).bfloat16()
        return torch.tensor(array)

    return {key: tensor(array) for key, array in arrays.items()}


def preprocessing(
    weights: str | Mapping[str, Any], network: str | None = None, *, size: int | None = None
) -> ImagePreprocessing:
    """The layer that prepares images for published weights, as they were trained.

    Args:
        weights: a name of published weights, as in `create_model`; or a config of timm's as a
            dict (`timm_model.pretrained_cfg`, or a `config.json` from the Hub) with `input_size`
            and any of `crop_pct`, `crop_mode`, `interpolation`, `mean` and `std`.
        network: the name of the network; only for `weights="imagenet"`.
        size: side of the images in pixels; by default the published one.

    Returns:
        An `ImagePreprocessing`, from RGB images of any size, values 0 to 255, to the network's
        input.

    Raises:
        ValueError: for anything else, or if the config of timm's weights cannot be fetched.

    Examples:
        >>> import numpy as np
        >>> from keras_resblocks import preprocessing
        >>> prepare = preprocessing("torchvision/resnet50.IMAGENET1K_V2")
        >>> tuple(prepare(np.zeros((2, 300, 400, 3), "uint8")).shape)
        (2, 224, 224, 3)
    """
    if isinstance(weights, Mapping):
        return timm_recipe(weights).layer(size)
    library, model = _parse(weights)
    if library == "keras":
        return keras_recipe(_keras_name(network)).layer(size)
    if library == "torchvision":
        return _torchvision_recipe(*_torchvision_entry(model)).layer(size)
    if library == "timm":
        return timm_recipe(_hub_config(model)).layer(size)
    raise validation.bad_argument(
        "weights",
        'be the name of published weights: "imagenet", "timm/..." or "torchvision/..."; or a '
        "config of timm's as a dict",
        weights,
    )


_TORCH_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
_SUFFIXES = (".h5", ".hdf5", ".keras", *_TORCH_SUFFIXES)


def check_weights(weights, network):
    """Checks before anything is built that `weights` is something that `load_weights` takes."""
    library, model = _parse(weights)
    if library == "keras":
        _keras_name(network)
    elif library == "torchvision":
        _check_architecture(weights, _torchvision_entry(model)[0], network)
    elif library == "timm":
        architecture, has_tag, _ = model.partition(".")
        if network is not None and not has_tag and our_name(architecture) != network:
            architecture = _hub_config(model).get("architecture", architecture)
        _check_architecture(weights, architecture, network)
    elif library is None and not (os.path.isfile(weights) and model.lower().endswith(_SUFFIXES)):
        raise _no_weights(weights, network)


def _check_architecture(weights, architecture, network):
    # Some have the names and shapes of the network's weights, but another order of the layers.
    if network is None or our_name(architecture) == network:
        return
    published = _published_for(network)
    raise ValueError(
        f"`weights` must be of the architecture {network!r}"
        f"{': ' if published else ''}{', '.join(published)}. If the structure is known to be the "
        f"same, give the path of the file. Received: weights={shown(weights)}, of the "
        f"architecture {shown(architecture)}"
    )


def _published_for(network):
    return [known.name for known in list_weights(network)] if network else []


def load_weights(model, weights, network, *, new_head, adapt_channels=True):
    """Loads what `create_model` takes as `weights` for the network of a name, or for None."""
    library, name = _parse(weights)
    adapt = {"new_head": new_head, "adapt_channels": adapt_channels}
    if library == "keras":
        _assign_keras(model, _published_keras_model(model, network), **adapt)
    elif library == "timm":
        _assign_torch(model, _from_hub(name, "model.safetensors"), **adapt)
    elif library == "torchvision":
        _assign_torch(model, _from_torchvision(*_torchvision_entry(name)), **adapt)
    elif name.lower().endswith(".weights.h5"):
        load_own_weights(model, name, **adapt)
    elif name.lower().endswith(".keras"):
        _load_saved_model(model, name, **adapt)
    elif name.lower().endswith((".h5", ".hdf5")):
        _assign_keras(model, name, **adapt)
    else:
        _assign_torch(model, name, **adapt)


def _load_saved_model(model, path, **adapt):
    """Loads what is in a `.keras` file: a model of ours, or of keras.applications."""
    saved = files.read_keras_model(path)
    layout = own_layout(model)
    arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in saved.weights}
    if layout.entries.keys() & arrays.keys():
        assign(model, layout, arrays, **adapt)
    else:
        _assign_keras(model, saved, **adapt)


def _parse(weights):
    """The library and the model of published weights; or None and the path of a file."""
    if weights == "imagenet":
        return "keras", None
    if not isinstance(weights, (str, os.PathLike)):
        raise _no_weights(weights, None)
    library, _, model = os.fspath(weights).partition("/")
    if library in ("timm", "torchvision") and model and not os.path.exists(weights):
        return library, model
    return None, os.fspath(weights)


def _no_weights(weights, network):
    published = _published_for(network)
    expectation = (
        "be None (random initialization), the name of published weights "
        f"({', '.join(published) or 'see `list_weights()`'}) or the path of a `.weights.h5`, "
        "`.keras`, `.safetensors`, `.pth` (or another ending of PyTorch's) or keras.applications "
        "`.h5` file"
    )
    hint = validation.did_you_mean(weights, published)
    return validation.bad_argument("weights", expectation, weights, hint)


# keras.applications


def _keras_name(network):
    if network not in KERAS:
        others = ", ".join(_published_for(network))
        raise ValueError(
            '`weights="imagenet"` must be for one of the structures of keras.applications: '
            f"{', '.join(KERAS)}. {f'For this network there are {others}. ' if others else ''}"
            f"Received: weights='imagenet' for {shown(network)}"
        )
    return network


def _published_keras_model(model, network):
    """Keras's own model, which downloads, caches and checks the file."""
    function = getattr(keras.applications, KERAS[network][0])
    has_head = any(layer.name == "head" and layer.units == 1000 for layer in model.layers)
    with _fetching("imagenet", "fill ~/.keras/models, the cache of keras.applications"):
        return function(weights="imagenet", include_top=has_head)


def _keras_layers(weights):
    if isinstance(weights, keras.Model):
        return layers_of_model(weights)
    if not isinstance(weights, (str, os.PathLike)):
        expectation = "be a model of keras.applications or the path of one of its `.h5` files"
        raise validation.bad_argument("weights", expectation, weights)
    if os.fspath(weights).lower().endswith(".keras"):
        return layers_of_model(files.read_keras_model(weights))
    return files.read_h5_layers(weights)


def _assign_keras(model, weights, **adapt):
    layers = _keras_layers(weights)
    assign(model, keras_layout(model, layers), arrays_of_layers(layers), **adapt)


@contextlib.contextmanager
def _fetching(weights, offline, is_answer=lambda error: False):
    """Turns errors of the network, but for a server's answers, into one that says what to do."""
    try:
        yield
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        is_of_network = (
            isinstance(error, OSError)
            or type(error) is Exception  # Keras's downloads
            or library in ("httpx", "requests")
        )
        if is_answer(error) or not is_of_network:
            raise
        raise ValueError(
            "`weights` are published ones, which could not be fetched over the network and are "
            f"in no cache here. Without a connection, give the path of a local file, or {offline}. "
            f"Received: weights={shown(weights)} ({type(error).__name__}: {cut(error, 200)})"
        ) from error


# PyTorch


def _assign_torch(model, weights, **adapt):
    is_path = isinstance(weights, (str, os.PathLike))
    arrays = files.read_torch_file(weights) if is_path else files.state_dict_arrays(weights)
    layout = torch_layout(model)
    keys = {*layout.constants, *(entry.key for entry in layout.entries.values())}
    assign(model, layout, files.without_prefixes(arrays, keys), **adapt)


def _hub_config(model):
    return json.loads(_from_hub(model, "config.json").read_text())


def _from_hub(model, file):
    """The local path of a file of one of timm's models on the Hugging Face Hub."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise files.missing_package(
            "huggingface_hub", f'`weights="timm/{model}"`', "pretrained"
        ) from None
    absent = (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.HFValidationError)

    def is_absent(error):
        return isinstance(error, absent) and not isinstance(error, errors.LocalEntryNotFoundError)

    offline = "fill the Hub's cache where there is one and set HF_HUB_OFFLINE=1"
    try:
        with _fetching(f"timm/{model}", offline, is_absent):
            return pathlib.Path(huggingface_hub.hf_hub_download(f"timm/{model}", file))
    except absent as error:
        known = [weights.name for weights in list_weights()]
        raise ValueError(
            f"`weights` must be a model of timm on the Hugging Face Hub that has a {file}."
            f"{validation.did_you_mean(f'timm/{model}', known)} "
            f"Received: weights={shown(f'timm/{model}')} ({cut(error)})"
        ) from error


def _torchvision_entry(model):
    """The network and the version of `resnet50.IMAGENET1K_V2`; the last if none is given."""
    network, _, version = model.partition(".")
    versions = TORCHVISION.get(network, {})
    version = version.upper() or next(reversed(versions), "")
    if version not in versions:
        known = [f"torchvision/{n}.{v}" for n, others in TORCHVISION.items() for v in others]
        expectation = f"be one of torchvision's: {', '.join(known)}"
        hint = validation.did_you_mean(model, TORCHVISION)
        raise validation.bad_argument("weights", expectation, f"torchvision/{model}", hint)
    return network, version


def _from_torchvision(network, version):
    """The local path of torchvision's file, once its hash is that in its name."""
    prefix, _, _ = TORCHVISION[network][version]
    name = f"{network}-{prefix}.pth"
    with _fetching(f"torchvision/{network}.{version}", f"put {name} into ~/.keras/models"):
        path = keras.utils.get_file(
            name, f"https://download.pytorch.org/models/{name}", cache_subdir="models"
        )
    received = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    if not received.startswith(prefix):
        raise ValueError(
            f"{path!r} must have a SHA-256 that begins with {prefix}, as torchvision published "
            f"it; delete the file to load it again. Received: {received}"
        )
    return path


def _torchvision_recipe(network, version):
    _, resize, _ = TORCHVISION[network][version]
    if network == "googlenet":  # trained on values from -1 to 1, which its model makes itself
        return Recipe(224, resize, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Recipe(224, resize)
