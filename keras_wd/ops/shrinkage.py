"""What a decoupled decay does to the weights after the inner step.

Every function returns `w` bit for bit at strength zero, so that a schedule may
start or end at zero and a gated step is a step that did not happen.
"""

from keras import ops

from keras_wd.ops.norms import reduced_axes
from keras_wd.ops.norms import total
from keras_wd.ops.powers import abs_power
from keras_wd.ops.precision import in_float32


@in_float32
def lp_shrink(w, previous, strength, p: float, fused: bool = False):
    """`w / (1 + s |previous|^(p-2))`: the pAdam step.

    It is the proximal step of the quadratic `(s/2) |previous|^(p-2) w^2`
    that touches `(s/p) |w|^p` at `previous`.

    Args:
        w: weights after the inner step, any shape.
        previous: weights before it, same shape. Zero stays zero for p < 2.
        strength: scalar >= 0.
        p: exponent > 0.
        fused: see `abs_power`.

    Source: Outmezguine and Levi, 2024, "Decoupled Weight Decay for Any p
    Norm", the printed update (with lambda, not the code's p * lambda).
    """
    shrunk = w / (1 + strength * abs_power(previous, p - 2, fused))
    # At strength zero, zero times an infinite power is not a number.
    return ops.where(strength > 0, shrunk, w)


@in_float32
def soft_threshold(w, strength):
    """argmin over v of `s sum |v| + |v - w|^2 / 2`.

    `sign(w) max(|w| - s, 0)`, elementwise.
    """
    shrunk = ops.sign(w) * ops.maximum(ops.abs(w) - strength, 0)
    return ops.where(strength > 0, shrunk, w)


@in_float32
def group_soft_threshold(w, strength, axis: int | tuple[int, ...] | None = -1):
    """argmin over v of `s sum_units |v_unit| + |v - w|^2 / 2`.

    `w_unit * max(1 - s / |w_unit|, 0)`: a unit at most `s` long becomes 0.

    Args:
        w: weights, see `group_norm` for the shapes.
        strength: scalar >= 0.
        axis: the axis (or axes) that number the units.
    """
    # In units of s, so that squares leave the range of the float only where
    # a unit is far longer or far shorter than s, and what becomes of
    # it is clear.
    scaled = w / ops.where(strength > 0, strength, 1.0)
    axes = reduced_axes(len(w.shape), axis)
    squares = total(ops.square(scaled), axes)
    shrunk = w * ops.maximum(1 - 1 / ops.sqrt(squares), 0)
    return ops.where(strength > 0, shrunk, w)


# Newton steps from the left of the root: 4 reach float32 and 6 float64, for
# strengths that differ by factors up to 1e12 in one unit.
_GROUP_STEPS = 6


@in_float32
def group_soft_threshold_in_metric(
    w, strength, axis: int | tuple[int, ...] | None = -1
):
    """argmin over v of `sum_units |v_unit| + sum_i (v_i - w_i)^2 / (2 s_i)`.

    With one s for all weights this is `group_soft_threshold`. A unit is 0
    where `sum (w_i / s_i)^2 <= 1`; elsewhere `v_i = w_i t / (t + s_i)`, and
    its length t solves `sum (w_i / (t + s_i))^2 = 1`.

    Args:
        w: weights, see `group_norm` for the shapes.
        strength: s, >= 0, of the shape of `w`.
        axis: the axis (or axes) that number the units.
    """
    axes = reduced_axes(len(w.shape), axis)

    size = ops.abs(w)
    s = ops.where(strength > 0, strength, 0.0)
    # From here on no ratio is above 1.
    t = ops.max(size - s, axis=axes, keepdims=True)
    t = ops.maximum(t, 0.0)
    for _ in range(_GROUP_STEPS):
        below = ops.where(size > 0, t + s, 1.0)
        below = ops.where(below > 0, below, 1.0)
        ratio = size / below
        squares = total(ops.square(ratio), axes)
        slope = total(ops.square(ratio) / below, axes)
        # The step of Newton for 1 / sqrt(squares), which is concave in t.
        step = squares * (ops.sqrt(squares) - 1)
        step = step / ops.where(slope > 0, slope, 1.0)
        t = t + ops.maximum(step, 0.0)
    shrunk = w * t / ops.where(t + s > 0, t + s, 1.0)
    return ops.where(strength > 0, shrunk, w)


def cautious(shrunk, w, stepped, previous):
    """`shrunk` where `(previous - stepped) * previous >= 0`, `w` elsewhere.

    Args:
        shrunk: the weights after a decay.
        w: the weights before that decay.
        stepped: the weights after the inner step, before all decays.
        previous: the weights before the inner step. Same shape, all of them.

    Source: Chen et al., 2025, "Cautious Weight Decay", algorithm 1.
    """
    # The sign, since the product of two small numbers is zero.
    toward_zero = (previous - stepped) * ops.sign(previous) >= 0
    return ops.where(toward_zero, shrunk, w)
