"""How objects show themselves: short reprs, and tables in a notebook."""

import dataclasses
import html
from collections.abc import Mapping
from typing import Any


def short_repr(instance: Any) -> str:
    """The `repr` of a dataclass instance without the fields that have their default."""
    shown = (
        f"{field.name}={getattr(instance, field.name)!r}"
        for field in dataclasses.fields(instance)
        if field.repr and getattr(instance, field.name) != _default(field)
    )
    return f"{type(instance).__name__}({', '.join(shown)})"


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
