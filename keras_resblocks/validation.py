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


def bad_argument(argument, expectation, value, hint=""):
    """The error for an argument that must "be ...", as the expectation says."""
    return ValueError(f"`{argument}` must {expectation}.{hint} Received: {argument}={shown(value)}")


def _is_int(value, least):
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_int and value >= least


def positive_int(argument, value):
    """`value` as an `int`, or a `ValueError` that names `argument`."""
    if not _is_int(value, least=1):
        raise bad_argument(argument, "be a positive integer", value)
    return int(value)


def non_negative_int(argument, value):
    """`value` as an `int`, or a `ValueError` that names `argument`."""
    if not _is_int(value, least=0):
        raise bad_argument(argument, "be a non-negative integer", value)
    return int(value)


def positive_ints(argument, value):
    """`value` as an `int`, or as a tuple of one `int` for each spatial axis."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    if not 1 <= len(values) <= 3 or not all(_is_int(v, least=1) for v in values):
        expectation = "be a positive integer, or one for each spatial axis"
        raise bad_argument(argument, expectation, value)
    return int(value) if values is not value else tuple(map(int, values))


def per_axis(argument, value, rank):
    """`value` as a tuple of `rank` integers."""
    if isinstance(value, int):
        return (value,) * rank
    if len(value) != rank:
        expectation = f"be an integer or a tuple of {rank} integers, one for each spatial axis"
        raise bad_argument(argument, f"{expectation} of the input", value)
    return value


def exceeds_one(value):
    """Whether a size, given as an integer or one for each axis, is more than 1 anywhere."""
    return max(value) > 1 if isinstance(value, tuple) else value > 1


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def rate(argument, value):
    """`value` as a `float` in [0, 1)."""
    if not _is_number(value) or not 0 <= value < 1:
        raise bad_argument(argument, "be a number in the range [0, 1)", value)
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
    if not _is_number(value) or not abs(value) < float("inf") or not accepts(value):
        raise bad_argument(argument, f"be a {kind} number", value)
    return float(value)


def boolean(argument, value):
    """`value`, which must be True or False."""
    if not isinstance(value, bool):
        raise bad_argument(argument, "be True or False", value)
    return value


def one_of(argument, value, choices):
    """`value`, which must be one of `choices`."""
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise bad_argument(argument, f"be one of {list(choices)}", value, hint)
    return value


def known_arguments(owner, arguments, known, beside=()):
    """Checks that `known` has every name of `arguments`, a dict of what `owner` was given.

    The message also lists the names `beside`, other arguments of the same function.
    """
    for name, value in arguments.items():
        if name not in known:
            names = sorted({*known, *beside})
            hint = did_you_mean(name, names)
            raise bad_argument(name, f"be one of the arguments of {owner}: {names}", value, hint)


def did_you_mean(name, choices):
    """' Did you mean ...?' where a string is close to some of `choices`, else ''."""
    if not isinstance(name, str):
        return ""
    close = difflib.get_close_matches(name.lower(), [c for c in choices if isinstance(c, str)])
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def divisor(argument, value, of, number):
    """`value` as an `int` that divides `number`, which is called `of`."""
    if number % positive_int(argument, value):
        raise bad_argument(argument, f"divide the number of {of} ({number})", value)
    return int(value)


def strides_or_dilation(strides, dilation_rate):
    """Checks that a convolution is strided or dilated, not both."""
    if exceeds_one(strides) and exceeds_one(dilation_rate):
        raise ValueError(
            "`strides` and `dilation_rate` must not both be more than 1. "
            f"Received: strides={strides!r}, dilation_rate={dilation_rate!r}"
        )
