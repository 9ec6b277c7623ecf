"""Steps along and around the sphere: what happens to the norm of a tensor.

Norms are Euclidean. A tensor whose norm is zero or not finite has no direction
to keep, and is left as it is.
"""

from keras import ops

from keras_wd.ops.norms import reduced_axes
from keras_wd.ops.norms import total
from keras_wd.ops.precision import in_float32

# Of float32, in a sum of squares.
_ROUNDING = 1e-6


def length(w, axis: int | tuple[int, ...] | None = None):
    """Euclidean norms of the units of `w`, with the summed axes kept.

    Unlike `group_norm` it reads the weights once: the squares of weights below
    1e-19 or above 1e19 leave the range of float32.

    Args:
        w: weights, any shape.
        axis: the axis (or axes) that number the units; None: one norm.
    """
    return ops.sqrt(total(ops.square(w), reduced_axes(len(w.shape), axis)))


def share_to_norm(norm, target, strength):
    """`s (1 - target / norm)`: the share of w that brings its norm to target.

    `w - share * w` has the norm `(1 - s) norm + s target`. At target zero, and
    where the norm has no meaning, it is s.
    """
    usable = ops.logical_and(norm > 0, ops.isfinite(norm))
    ratio = target / ops.where(usable, norm, 1.0)
    return strength * (1 - ops.where(usable, ratio, 0.0))


@in_float32
def sphere_step(
    w,
    previous,
    strength,
    radius: float | None = None,
    axis: int | tuple[int, ...] | None = None,
):
    """`R normalize(previous + s R normalize(w - previous))`.

    A step of the length `s R` in the direction of the optimizer's, and back
    to the sphere. If the step is orthogonal to the weights, they turn by
    `atan(s)`, whatever its length was.

    Args:
        w: weights after the inner step, any shape.
        previous: weights before it, same shape.
        strength: s, a scalar >= 0.
        radius: R; the norm of `previous` if None.
        axis: the axis (or axes) that number the units; None: one sphere.
    """
    axes = reduced_axes(len(w.shape), axis)
    # The difference is written in three ways, so that XLA computes it where it
    # is used and does not keep it in memory.
    square = total(ops.square(previous), axes)
    step_square = total(ops.square(previous - w), axes)
    along = total(previous * (w - previous), axes)
    norm, size = ops.sqrt(square), ops.sqrt(step_square)
    wanted = norm if radius is None else radius
    move = strength * wanted / ops.where(size > 0, size, 1.0)
    far = ops.where(size > 0, ops.square(strength * wanted), 0.0)
    reached = square + 2 * move * along + far
    # Where the step leads to the centre, what is left is rounding.
    usable = reached > _ROUNDING * (square + far)
    usable = ops.logical_and(usable, ops.isfinite(reached))
    usable = ops.logical_and(usable, strength > 0)
    scale = wanted / ops.sqrt(ops.where(usable, reached, 1.0))
    pull = scale * move
    moved = scale * previous + (pull * w - pull * previous)
    return ops.where(usable, moved, w)


@in_float32
def brake_norm(
    w,
    previous,
    outward,
    inward,
    axis: int | tuple[int, ...] | None = None,
):
    """`w` with less of the change of its norm, and in the same direction.

    `|v| = |previous| + (1 - b) (|w| - |previous|)`, with b = `outward` where
    the norm grew and `inward` where it fell.

    Args:
        w: weights after the inner step, any shape.
        previous: weights before it, same shape.
        outward: scalar in [0, 1].
        inward: scalar in [0, 1].
        axis: the axis (or axes) that number the units; None: one norm.

    Source: NVIDIA Emerging-Optimizers, 2026, `RadialBrakeHook`, whose scales
    are what is kept: `1 - outward` and `1 - inward`.
    """
    before, after = length(previous, axis), length(w, axis)
    change = after - before
    brake = ops.where(change > 0, outward, inward)
    usable = ops.logical_and(after > 0, ops.isfinite(after))
    usable = ops.logical_and(usable, ops.isfinite(before))
    usable = ops.logical_and(usable, brake > 0)
    factor = 1 - brake * change / ops.where(usable, after, 1.0)
    return ops.where(usable, w * factor, w)
