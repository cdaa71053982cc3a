"""How objects show themselves: short reprs, and tables in a notebook."""

import dataclasses
import html
from collections.abc import Mapping
from typing import Any


class ShortRepr:
    """A base of dataclasses: their `repr` leaves out the fields that have their default."""

    def __repr__(self) -> str:
        fields: Any = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields
            if field.repr and getattr(self, field.name) != _default(field)
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def _default(field):
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


def html_rows(rows: Mapping[str, Any]) -> str:
    """A table of HTML with a row for each name that has a value; numbers have their commas."""
    cells = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in rows.items()
        if value is not None
    )
    return f"<table>{''.join(cells)}</table>"


def _text(value):
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
