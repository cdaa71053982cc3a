"""What every layer made of other layers has to get right."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from keras_resblocks import validation
from keras_resblocks.layers import templates
from keras_resblocks.layers.wiring import Cast
from keras_resblocks.types import (
    CompositeArguments,
    Config,
    Constraint,
    Initializer,
    LayerArguments,
    Regularizer,
    Shape,
    Unpack,
)

# Of every Keras layer; the last two are among its keyword arguments.
_LAYER_ARGUMENTS = {
    *inspect.signature(keras.layers.Layer.__init__).parameters,
    "input_shape",
    "input_dim",
}


class Composite(keras.layers.Layer):
    """A layer that makes, names and builds its sublayers in `compose`.

    The rank is read from the input, so one class serves signals, images and volumes. Sublayers
    are attributes called like themselves (`self.add(layer)`), so that a weight has the same path
    in the model and in a `.weights.h5` file.
    """

    # The arguments of a class, kept as attributes, that its config has besides its parent's.
    _arguments: tuple[str, ...] = ("data_format",)

    def __init__(
        self, *, data_format: str | None = None, **kwargs: "Unpack[LayerArguments]"
    ) -> None:
        known = _LAYER_ARGUMENTS.union(self.__class__.__signature__.parameters)
        validation.known_arguments(
            self.__class__.__name__, kwargs, known - {"self", "kwargs", "options"}
        )
        super().__init__(**kwargs)
        self.data_format = validation.one_of(
            "data_format",
            data_format or keras.config.image_data_format(),
            ("channels_last", "channels_first"),
        )
        # What the sublayers are given: a map knows them by their paths. Else a name, as a policy
        # object would not survive some layers' own `get_config`.
        policy = keras.dtype_policies.get(kwargs.get("dtype"))
        is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
        self.given_dtype = policy if is_map else self.dtype_policy.name
        self._sublayer_names = []
        self._policies = {}  # their names, of the sublayers as they were made
        self._changes = {}  # made to sublayers since, in the model that was saved

    def __init_subclass__(cls, **kwargs):
        """Lets `help` and editors show the options that a subclass takes as `**options`."""
        super().__init_subclass__(**kwargs)
        parent = cls.__mro__[1]
        inherited = inspect.signature(
            parent if "__signature__" in vars(parent) else parent.__init__
        )
        parameters = dict(inspect.signature(cls.__init__).parameters)
        if parameters.pop("options", None):
            parameters |= {k: v for k, v in inherited.parameters.items() if k not in parameters}
        parameters.pop("self")
        cls.__signature__ = inspect.Signature([*parameters.values()])

    def compose(self, input_shape: Shape) -> None:
        """Makes and builds the sublayers for `input_shape`, a tuple."""
        raise NotImplementedError

    def build(self, input_shape: Shape) -> None:
        input_shape = tuple(input_shape)
        self.spatial_shape(input_shape)
        if self.channels(input_shape) is None:
            expectation = f"have a defined channel dimension (data_format={self.data_format!r})"
            raise self._bad_input(expectation, input_shape)
        self.compose(input_shape)
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes={self.channel_axis: self.channels(input_shape)}
        )
        if not self.trainable:
            for layer in self.sublayers():
                if "trainable" not in self._changes.get(layer.name, {}):
                    _freeze(layer)

    def add(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        """Tracks `layer` as the attribute that bears its name, and returns it."""
        self._policies[layer.name] = layer.dtype_policy.name
        if layer.name in self._changes:
            changes = self._changes[layer.name]
            layer = type(layer).from_config({**layer.get_config(), **changes})
        setattr(self, layer.name, layer)
        self._sublayer_names.append(layer.name)
        return layer

    def sublayers(self) -> list[keras.layers.Layer]:
        """The tracked layers, in the order in which they were added."""
        return [getattr(self, name) for name in self._sublayer_names]

    def add_copy(
        self, template: templates.Template | None, name: str, site: templates.Site, **overrides: Any
    ) -> keras.layers.Layer | None:
        """Tracks a new copy of `template` as `name`; None without a template."""
        return None if template is None else self.add(template.make(site, name, **overrides))

    def cast_back(self, *given: templates.Template | None) -> Cast | None:
        """Casts back to this layer's dtype if one of the templates may have another; else None."""
        may_differ = any(template is not None and template.dtype for template in given)
        is_by_name = isinstance(self.given_dtype, str)
        return Cast(self.compute_dtype) if may_differ or not is_by_name else None

    def site(self, input_shape: Shape, kernel_options: Config | None = None) -> templates.Site:
        """Where a copy of a template would stand, given the shape of its input."""
        return templates.Site(
            rank=len(input_shape) - 2,
            channels=self.channels(input_shape),
            data_format=self.data_format,
            dtype=self.given_dtype,
            kernel_options=kernel_options or {},
        )

    @property
    def channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def channels(self, shape: Shape) -> Any:
        """The number of channels in a full shape (batch included)."""
        return shape[self.channel_axis]

    def spatial_shape(self, shape: Shape) -> tuple:
        """The sizes of the spatial axes in a full shape (batch included), checked."""
        if not 3 <= len(shape) <= 5:
            axes = "batch, channels and one, two or three spatial axes"
            raise self._bad_input(f"have rank 3, 4 or 5: {axes}", shape)
        spatial = tuple(shape[1:-1] if self.data_format == "channels_last" else shape[2:])
        if 0 in spatial:
            raise self._bad_input("not be empty", shape)
        return spatial

    def _bad_input(self, expectation, shape):
        layer = f"{self.__class__.__name__} '{self.name}'"
        return ValueError(
            f"The input of {layer} must {expectation}. Received: input_shape={tuple(shape)}"
        )

    def full_shape(self, batch: Any, spatial: Sequence[Any], channels: Any) -> tuple:
        """The inverse of `spatial_shape` and `channels`."""
        if self.data_format == "channels_last":
            return (batch, *spatial, channels)
        return (batch, channels, *spatial)

    def get_config(self) -> Config:
        classes = reversed(type(self).__mro__)
        names = [name for cls in classes for name in vars(cls).get("_arguments", ())]
        changes = self._changed() if self.built else self._changes
        return {
            **super().get_config(),
            **{name: templates.serialize(getattr(self, name)) for name in names},
            **({"sublayers": changes} if changes else {}),
        }

    @classmethod
    def from_config(cls, config: Config) -> "Composite":
        layer = super().from_config({k: v for k, v in config.items() if k != "sublayers"})
        layer._changes = config.get("sublayers", {})
        return layer

    def _changed(self):
        """What was done to sublayers since they were made, as parts of their configs by name.

        Their options follow from those of this layer; freezing, quantization and low-rank
        adaptation of a single one do not.
        """
        changes = {}
        for layer in self.sublayers():
            change = {}
            if layer.trainable != self.trainable:
                change["trainable"] = layer.trainable
            if layer.dtype_policy.name != self._policies[layer.name]:
                change["dtype"] = keras.dtype_policies.serialize(layer.dtype_policy)
            if getattr(layer, "lora_enabled", False):
                change.update(lora_rank=layer.lora_rank, lora_alpha=layer.lora_alpha)
            if isinstance(layer, Composite) and layer.built:
                inside = layer._changed()
                change.update({"sublayers": inside} if inside else {})
            if change:
                changes[layer.name] = change
        return changes


class KernelComposite(Composite):
    """A `Composite` of sublayers with kernels, which all have the same options."""

    _arguments = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")

    def __init__(
        self,
        *,
        kernel_initializer: Initializer = "glorot_uniform",
        kernel_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        **options: "Unpack[CompositeArguments]",
    ) -> None:
        super().__init__(**options)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)

    def kernel_options(self) -> Config:
        """The options for a sublayer with a kernel."""
        options = {name: fresh(getattr(self, name)) for name in KernelComposite._arguments}
        return {**options, "dtype": self.given_dtype}


def fresh(option):
    """An option for a sublayer: an initializer is copied, as it gives equal shapes equal values.

    Not by `keras.initializers.serialize`, which imports TensorFlow on any backend: that takes
    seconds and hundreds of megabytes.
    """
    is_copied = isinstance(option, keras.initializers.Initializer)
    return option.clone() if is_copied else option


def _freeze(layer):
    layer.trainable = False
    # On TensorFlow, setting `trainable` to the value it has does nothing, and so would not
    # reach variables made after it was first set.
    for weight in layer.weights:
        weight.trainable = False
