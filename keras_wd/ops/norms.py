"""Norms, penalties and their gradients."""

import math

from keras import ops

from keras_wd import backend
from keras_wd.ops.powers import abs_power
from keras_wd.ops.precision import in_float32

# Below this magnitude a weight counts as zero for gradients that diverge
# there (p < 1): the floor of the released pAdam code.
SMALLEST_MAGNITUDE = 1e-13
# Terms of a sum that XLA adds up where it computes them.
_SHORT = 16


def reduced_axes(rank: int, axis: int | tuple[int, ...] | None):
    """The axes to sum over so that one number per unit remains.

    `axis` numbers the units; every other axis belongs to a unit.
    `None` makes the whole tensor one unit.
    """
    if axis is None:
        return tuple(range(rank))
    axes = (axis,) if isinstance(axis, int) else axis
    kept = {a % rank for a in axes}
    return tuple(a for a in range(rank) if a not in kept)


@in_float32
def group_norm(w, axis: int | tuple[int, ...] | None = -1):
    """Euclidean norm of every unit of `w`.

    Args:
        w: weights. A Dense kernel is `(fan_in, units)`, a Conv2D kernel
            `(height, width, channels_in, units)`: `axis=-1` gives a norm per
            unit for both.
        axis: the axis (or axes) that number the units; `None`: one norm.

    Returns:
        The norms, with the summed axes kept at size one.
    """
    scaled, scale = scale_units(w, axis)
    axes = reduced_axes(len(w.shape), axis)
    squares = total(ops.square(scaled), axes)
    return scale * ops.sqrt(squares)


def total(x, axes: tuple[int, ...] | None = None):
    """The sum over some axes, which are kept at size one; None: all.

    Where a long sum's terms are first written into memory, but not those of
    a sum of up to 32, it is made of short sums.

    Args:
        x: tensor of a known shape.
        axes: which, >= 0 and ascending.
    """
    shape = tuple(x.shape)
    axes = tuple(range(len(shape))) if axes is None else axes
    rows, rest = divmod(math.prod(shape[a] for a in axes), _SHORT)
    neighbours = axes and axes == tuple(range(axes[0], axes[-1] + 1))
    written = backend.writes_terms_of_sums()
    if not (written and neighbours and rows > 1):
        return ops.sum(x, axis=axes, keepdims=True)
    # Without axes of size one, which would make XLA copy.
    outer = [n for n in [math.prod(shape[: axes[0]])] if n > 1]
    inner = [n for n in [math.prod(shape[axes[-1] + 1 :])] if n > 1]
    axis = len(outer)
    whole = rows * _SHORT
    x = ops.reshape(x, (*outer, whole + rest, *inner))
    long, short = ops.split(x, [whole], axis=axis) if rest else (x, None)
    long = ops.reshape(long, (*outer, _SHORT, rows, *inner))
    # The maximum keeps XLA from making one sum of both.
    partial = ops.maximum(ops.sum(long, axis=axis), -math.inf)
    result = ops.sum(partial, axis=axis)
    if rest:
        result = result + ops.sum(short, axis=axis)
    kept = [1 if a in axes else n for a, n in enumerate(shape)]
    return ops.reshape(result, kept)


def scale_units(w, axis: int | tuple[int, ...] | None = -1):
    """`(w / scale, scale)`, scale the largest magnitude of a unit (1 if 0).

    Squares of the scaled weights stay inside the range of the float, however
    small or large the weights are.
    """
    axes = reduced_axes(len(w.shape), axis)
    largest = ops.max(ops.abs(w), axis=axes, keepdims=True)
    scale = ops.stop_gradient(ops.where(largest > 0, largest, 1.0))
    return w / scale, scale


@in_float32
def lp_penalty(w, p: float):
    """`(1/p) * sum |w|^p`, a scalar.

    Differentiable: the gradient is `sign(w) |w|^(p-1)`, and 0 for weights
    below 1e-13, where it would diverge for p < 1.
    """
    if p == 2:
        return ops.sum(ops.square(w)) / 2
    if p == 1:
        # Not `abs`: its gradient at zero is 1 on JAX.
        return ops.sum(w * ops.stop_gradient(ops.sign(w)))
    magnitude = ops.abs(w)
    # So that what is not a number counts.
    counted = ops.logical_not(magnitude <= SMALLEST_MAGNITUDE)
    # Both branches must be finite, or the gradient of `where` is not.
    safe = ops.where(counted, magnitude, 1.0)
    power = ops.exp(p * ops.log(safe))
    return ops.sum(ops.where(counted, power, 0.0)) / p


@in_float32
def lp_gradient(w, p: float, fused: bool = False):
    """`sign(w) |w|^(p-1)`, the gradient of `lp_penalty`; 0 at w = 0.

    For p < 1 it diverges at zero, and is taken as
    `w / max(|w|, 1e-13)^(2-p)` there: large, but finite.
    """
    if p == 2:
        return w
    if p >= 1:
        return ops.sign(w) * abs_power(w, p - 1, fused)
    magnitude = ops.maximum(ops.abs(w), SMALLEST_MAGNITUDE)
    return w * abs_power(magnitude, p - 2, fused)
