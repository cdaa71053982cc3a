"""Checks of arguments: what is expected, and what was received."""

import difflib
import numbers
import reprlib

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 160
_REPR.maxlevel = 3


def shown(value):
    """The `repr` of what was received, shortened for a message."""
    text = repr(value)
    return text if len(text) <= 300 else cut(_REPR.repr(value))


def cut(text, limit=300):
    """A text, without its middle where it is longer than `limit` characters."""
    text = str(text)
    return text if len(text) <= limit else f"{text[: limit // 2 - 2]}...{text[1 - limit // 2 :]}"


def _is_int(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_positive_int(value):
    return _is_int(value) and value > 0


def positive_int(argument, value):
    """`value` as an `int`, or a `ValueError` that names `argument`."""
    if not _is_positive_int(value):
        raise ValueError(
            f"`{argument}` must be a positive integer. Received: {argument}={shown(value)}"
        )
    return int(value)


def non_negative_int(argument, value):
    """`value` as an `int`, or a `ValueError` that names `argument`."""
    if not _is_int(value) or value < 0:
        raise ValueError(
            f"`{argument}` must be a non-negative integer. Received: {argument}={shown(value)}"
        )
    return int(value)


def positive_ints(argument, value):
    """`value` as an `int`, or as a tuple of one `int` for each spatial axis."""
    if _is_positive_int(value):
        return int(value)
    if (
        isinstance(value, (list, tuple))
        and 1 <= len(value) <= 3
        and all(_is_positive_int(v) for v in value)
    ):
        return tuple(int(v) for v in value)
    raise ValueError(
        f"`{argument}` must be a positive integer, or one for each spatial axis. "
        f"Received: {argument}={shown(value)}"
    )


def per_axis(argument, value, rank):
    """`value` as a tuple of `rank` integers."""
    if isinstance(value, int):
        return (value,) * rank
    if len(value) != rank:
        raise ValueError(
            f"`{argument}` must be an integer or a tuple of {rank} integers, one for each "
            f"spatial axis of the input. Received: {argument}={shown(value)}"
        )
    return value


def exceeds_one(value):
    """Whether a size, given as an integer or one for each axis, is more than 1 anywhere."""
    return max(value) > 1 if isinstance(value, tuple) else value > 1


def rate(argument, value):
    """`value` as a `float` in [0, 1)."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(
            f"`{argument}` must be a number in the range [0, 1). "
            f"Received: {argument}={shown(value)}"
        )
    return float(value)


def finite_number(argument, value):
    """`value` as a `float` that is neither infinite nor NaN."""
    return _number(argument, value, "finite", lambda number: True)


def positive_number(argument, value):
    """`value` as a finite `float` above 0."""
    return _number(argument, value, "positive", lambda number: number > 0)


def non_negative_number(argument, value):
    """`value` as a finite `float` of 0 or more."""
    return _number(argument, value, "non-negative", lambda number: number >= 0)


def _number(argument, value, kind, accepts):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not abs(value) < float("inf") or not accepts(value):
        raise ValueError(
            f"`{argument}` must be a {kind} number. Received: {argument}={shown(value)}"
        )
    return float(value)


def boolean(argument, value):
    """`value`, which must be True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"`{argument}` must be True or False. Received: {argument}={shown(value)}")
    return value


def one_of(argument, value, choices):
    """`value`, which must be one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"`{argument}` must be one of {list(choices)}.{did_you_mean(value, choices)} "
            f"Received: {argument}={shown(value)}"
        )
    return value


def known_arguments(owner, arguments, known, beside=()):
    """Checks that `known` has every name of `arguments`, a dict of what `owner` was given.

    The message also lists the names `beside`, other arguments of the same function.
    """
    for name, value in arguments.items():
        if name not in known:
            names = sorted({*known, *beside})
            raise ValueError(
                f"`{name}` must be one of the arguments of {owner}: {names}."
                f"{did_you_mean(name, names)} Received: {name}={shown(value)}"
            )


def did_you_mean(name, choices):
    """' Did you mean ...?' where a string is close to some of `choices`, else ''."""
    if not isinstance(name, str):
        return ""
    close = difflib.get_close_matches(name.lower(), [c for c in choices if isinstance(c, str)])
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def divisor(argument, value, of, number):
    """`value` as an `int` that divides `number`, which is called `of`."""
    if number % positive_int(argument, value):
        raise ValueError(
            f"`{argument}` must divide the number of {of} ({number}). "
            f"Received: {argument}={shown(value)}"
        )
    return int(value)


def strides_or_dilation(strides, dilation_rate):
    """Checks that a convolution is strided or dilated, not both."""
    if exceeds_one(strides) and exceeds_one(dilation_rate):
        raise ValueError(
            "`strides` and `dilation_rate` must not both be more than 1. "
            f"Received: strides={strides!r}, dilation_rate={dilation_rate!r}"
        )
