"""An optimizer that costs a compiler less."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_resblocks import validation
from keras_resblocks.types import Config, Tensor


@keras.saving.register_keras_serializable(package="keras_resblocks")
class PackedOptimizer(keras.optimizers.Optimizer):
    """Updates all variables as one long vector, with the values of the optimizer inside.

    Keras writes the some forty operations of Adam down for each variable: more than half of what
    is traced and compiled for a small network. Here they are written down once, between a
    concatenation and a split, which takes the memory of the weights once more. A variable without a
    gradient is updated as with one of zeros.

    Args:
        inner_optimizer: a `keras.optimizers.Optimizer` that treats each number by itself, as Adam,
            SGD, RMSprop and Lion do, and Muon, Lamb and Adafactor do not; without variables that
            are excluded from weight decay.
        name: of this optimizer.

    Raises:
        ValueError: for options of the inner optimizer that would be lost (`clipnorm`, `use_ema`,
            `loss_scale_factor`); for variables of several dtypes; and for gradients of fewer or
            more than it was built for, as after a layer was frozen.

    Examples:
        >>> import keras
        >>> from keras_resblocks import create_model
        >>> from keras_resblocks.tuner import PackedOptimizer
        >>> model = create_model("resnet20_cifar")
        >>> model.compile(PackedOptimizer(keras.optimizers.Adam(1e-3)), "crossentropy")
    """

    def __init__(
        self, inner_optimizer: keras.optimizers.Optimizer | str | Config, name: str | None = None
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)  # which are the inner one's
        self.inner_optimizer = keras.optimizers.get(inner_optimizer)
        for option in ("clipnorm", "use_ema", "loss_scale_factor"):  # of single variables, or outer
            value = getattr(self.inner_optimizer, option)
            if value:
                raise ValueError(
                    f"`inner_optimizer` must not have `{option}`, which has no effect inside of "
                    f"another optimizer. Received: {option}={value!r}"
                )

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        self._packing = _Packing(variables)
        self.vector = self.add_variable(
            shape=(self._packing.size,), dtype=self._packing.dtype, name="vector"
        )
        self.inner_optimizer.build([self.vector])
        super().build(variables)

    def apply(
        self,
        grads: Sequence[Tensor | None],
        trainable_variables: Any = None,
    ) -> None:
        if not self.built:
            self.build(trainable_variables)
        variables = self._packing.variables
        if len(grads) != len(variables):
            raise ValueError(
                f"`grads` must have one for each of the {len(variables)} variables that the "
                f"optimizer was built for; compile again to train others. Received: {len(grads)}"
            )
        before = self._packing.pack(variables)
        self.vector.assign(before)
        self.inner_optimizer.apply([self._packing.pack(grads)], [self.vector])
        self._packing.unpack(self._updated(before, keras.ops.convert_to_tensor(self.vector)))

    def _updated(self, before, after):
        """What the variables become, given what the inner optimizer makes of them."""
        return after

    @property
    def variables(self) -> list[keras.Variable]:
        return [*super().variables, *self.inner_optimizer.variables]

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> keras.Variable:
        return self.inner_optimizer.iterations

    def get_config(self) -> Config:
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"name": self.name, "inner_optimizer": inner}

    @classmethod
    def from_config(cls, config: Config) -> "PackedOptimizer":
        inner = keras.saving.deserialize_keras_object(config["inner_optimizer"])
        return cls(**{**config, "inner_optimizer": inner})


@keras.saving.register_keras_serializable(package="keras_resblocks")
class DiscriminativeOptimizer(PackedOptimizer):
    """A `PackedOptimizer` with a smaller learning rate for all layers but the head.

    Their updates, weight decay included, are multiplied by a share; to scale the gradients would
    change nothing for Adam.

    Args:
        inner_optimizer: as in `PackedOptimizer`.
        share: of the learning rate of the head, for the others; 0 or more.
        head: name of the layer that has the whole learning rate.
        name: of this optimizer.

    Raises:
        ValueError: as `PackedOptimizer`; and for a negative share.

    Examples:
        >>> import keras
        >>> from keras_resblocks import create_model
        >>> from keras_resblocks.tuner import DiscriminativeOptimizer
        >>> model = create_model("resnet20_cifar")
        >>> optimizer = DiscriminativeOptimizer(keras.optimizers.Adam(1e-3), share=0.1)
        >>> model.compile(optimizer, "crossentropy")

    References:
        Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification",
        section 3.2, "Discriminative fine-tuning".
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str | Config,
        share: float = 0.1,
        *,
        head: str = "head",
        name: str | None = None,
    ) -> None:
        super().__init__(inner_optimizer, name)
        self.share = validation.non_negative_number("share", share)
        self.head = head

    def _updated(self, before, after):
        # By runs of variables: a rate for each number would be a constant as large as the model.
        steps, start, scaled = after - before, 0, []
        for is_head, run in itertools.groupby(self._packing.variables, self._is_of_head):
            end = start + sum(math.prod(variable.shape) for variable in run)
            scaled.append((1.0 if is_head else self.share) * steps[start:end])
            start = end
        return before + keras.ops.concatenate(scaled)

    def _is_of_head(self, variable):
        return variable.path.partition("/")[0] == self.head

    def get_config(self) -> Config:
        return {**super().get_config(), "share": self.share, "head": self.head}


class _Packing:
    """Where each variable is in the vector. No list of Keras's, which would own the variables."""

    def __init__(self, variables):
        dtypes = sorted({variable.dtype for variable in variables})
        if len(dtypes) != 1:
            raise ValueError(
                "`variables` must be of one dtype to be updated as one vector. "
                f"Received: variables of {', '.join(dtypes) or 'no dtype: there are none'}"
            )
        self.variables = list(variables)
        (self.dtype,) = dtypes
        self._ends = list(itertools.accumulate(math.prod(v.shape) for v in variables))
        self.size = self._ends[-1]

    def pack(self, tensors):
        """One vector of all numbers; zeros where there is None."""
        pairs = zip(self.variables, tensors)
        parts = [keras.ops.zeros(v.shape, v.dtype) if t is None else t for v, t in pairs]
        return keras.ops.concatenate([keras.ops.reshape(part, (-1,)) for part in parts])

    def unpack(self, vector):
        """Assigns the numbers of the vector to the variables."""
        # Keras on TensorFlow fails to split at no place.
        parts = keras.ops.split(vector, self._ends[:-1]) if len(self._ends) > 1 else [vector]
        for variable, part in zip(self.variables, parts):
            value = keras.ops.reshape(part, variable.shape)
            variable.assign(value if variable.constraint is None else variable.constraint(value))
