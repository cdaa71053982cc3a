"""Budgets on what a search may try, checked before anything is built."""

import dataclasses

from keras_resblocks import validation


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that a candidate may cost; None for no limit.

    Attributes:
        max_params: number of all parameters.
        max_macs: multiply-accumulates for one sample.
        max_activation_memory: bytes of the activations for one sample.
    """

    max_params: int | None = None
    max_macs: int | None = None
    max_activation_memory: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            limit = getattr(self, field.name)
            if limit is not None:
                validation.positive_int(field.name, limit)

    def excess(self, cost, bytes_a_value=4):
        """What the cost exceeds, as text; empty where it is within the budget."""
        memory = None if cost.activations is None else cost.activations * bytes_a_value
        pairs = (
            ("max_params", self.max_params, cost.params),
            ("max_macs", self.max_macs, cost.macs),
            ("max_activation_memory", self.max_activation_memory, memory),
        )
        return ", ".join(
            f"{name}={limit} < {value}"
            for name, limit, value in pairs
            if limit is not None and value is not None and value > limit
        )
