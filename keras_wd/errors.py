"""Checks of what a user typed, with one wording for all of them."""

import difflib
import math
import numbers
from collections.abc import Iterable
from collections.abc import Sequence


def check_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> float:
    """Return `value` as a float, or raise if it is not a number in range."""
    bounds = []
    if above is not None:
        bounds.append(f"> {above:g}")
    if minimum is not None:
        bounds.append(f">= {minimum:g}")
    if maximum is not None:
        bounds.append(f"<= {maximum:g}")
    fits = (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
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


def check_count(name: str, value: int, *, minimum: int = 1) -> int:
    """Return `value`, or raise if it is not an integer >= `minimum`."""
    if (
        not isinstance(value, numbers.Integral)
        or isinstance(value, bool)
        or value < minimum
    ):
        raise ValueError(
            f"`{name}` must be an integer >= {minimum}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value`, or raise naming the choices and the nearest one."""
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(
            f"`{name}` must be one of {listed}. "
            f"Received: {name}={value!r}{did_you_mean(value, choices)}"
        )
    return value


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """A closing sentence with the nearest choice, or nothing."""
    near = difflib.get_close_matches(str(value), list(choices), n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


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
