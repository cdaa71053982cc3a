"""Budgets on what a search may try, checked before anything is built."""

import dataclasses

from keras_resblocks import validation


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that a candidate may cost; None for no limit.

    Attributes:
        max_params: number of all parameters.
        max_macs: multiply-accumulates for one sample.
    """

    max_params: int | None = None
    max_macs: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            limit = getattr(self, field.name)
            if limit is not None:
                validation.positive_int(field.name, limit)

    def excess(self, cost):
        """What the cost exceeds, as text; empty where it is within the budget."""
        pairs = (
            ("max_params", self.max_params, cost.params),
            ("max_macs", self.max_macs, cost.macs),
        )
        return ", ".join(
            f"{name}={limit} < {value}"
            for name, limit, value in pairs
            if limit is not None and value is not None and value > limit
        )
