"""Checks of what a user typed, with one wording for all of them."""

import difflib
import numbers
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

# Numbers become float32 tensors.
_LARGEST = 3.4e38


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> float:
    """Return `value` as a float, or raise if it is not a number in range.

    A number too large for float32 is infinite in every computation.
    """
    bounds = []
    if above is not None:
        bounds.append(f"> {above:g}")
    if minimum is not None:
        bounds.append(f">= {minimum:g}")
    if maximum is not None:
        bounds.append(f"<= {maximum:g}")
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    fits = (
        is_number
        and _is_finite(value)
        and (above is None or value > above)
        and (minimum is None or value >= minimum)
        and (maximum is None or value <= maximum)
    )
    if not fits:
        expected = f"a finite number {' and '.join(bounds)}".strip()
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}={value!r}"
        )
    return float(value)


def _is_finite(value):
    try:
        return abs(float(value)) <= _LARGEST
    except OverflowError:
        return False


def check_count(
    name: str, value: int, *, minimum: int = 1, maximum: int | None = None
) -> int:
    """Return `value`, or raise if it is not an integer in range."""
    if (
        not isinstance(value, numbers.Integral)
        or isinstance(value, bool)
        or value < minimum
        or (maximum is not None and value > maximum)
    ):
        end = "" if maximum is None else f" and <= {maximum}"
        raise ValueError(
            f"`{name}` must be an integer >= {minimum}{end}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value`, or raise naming the choices and the nearest one."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(
            f"`{name}` must be one of {listed}. "
            f"Received: {name}={value!r}{did_you_mean(value, choices)}"
        )
    return value


def check_seed(name: str, value: int) -> int:
    """Return `value`, or raise if nothing can be drawn with it."""
    return check_count(name, value, minimum=0, maximum=2**31 - 1)


def check_fraction(name: str, value: float) -> float:
    """Return `value` as a float, or raise if it is not in [0, 1)."""
    value = check_number(name, value, minimum=0)
    if value >= 1:
        raise ValueError(f"`{name}` must be < 1. Received: {name}={value!r}")
    return value


def check_flag(name: str, value: bool) -> bool:
    """Return `value`, or raise if it is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be True or False. Received: {name}={value!r}"
        )
    return value


def check_name(name: str, value: str | None) -> str | None:
    """Return `value`, or raise if it is not None and no variable's name."""
    if value is not None and (
        not isinstance(value, str) or not value or "/" in value
    ):
        raise ValueError(
            f"`{name}` must be a string without '/' and not empty, or None. "
            f"Received: {name}={value!r}"
        )
    return value


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """A closing sentence with the nearest choice, or nothing."""
    choices = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(value).lower(), choices, n=1)
    return f". Did you mean {choices[near[0]]!r}?" if near else ""


def check_axis(
    name: str, axis: int | Sequence[int] | None, *, none: bool = False
) -> int | tuple[int, ...] | None:
    """Return an int or a tuple of ints, or raise. None only where allowed."""
    if axis is None and none:
        return None
    axes = (axis,) if isinstance(axis, int) else axis
    if (
        not isinstance(axes, list | tuple)
        or not axes
        or any(not isinstance(a, int) or isinstance(a, bool) for a in axes)
    ):
        expected = "an integer, a tuple of integers" if none else "an integer"
        ending = "or None" if none else "or a tuple of integers"
        raise ValueError(
            f"`{name}` must be {expected} {ending}. Received: {name}={axis!r}"
        )
    return axis if isinstance(axis, int) else tuple(axes)


def check_axis_fits(
    name: str,
    axis: int | tuple[int, ...] | None,
    shape: Sequence[int],
    path: str,
) -> None:
    """Raise if a tensor of `shape` does not have the axis."""
    axes = (axis,) if isinstance(axis, int) else axis or ()
    rank = len(shape)
    if any(not -rank <= a < rank for a in axes):
        raise ValueError(
            f"`{name}` must be an axis of every selected variable. Received: "
            f"{name}={axis!r}, but {path} has shape {tuple(shape)}."
        )
