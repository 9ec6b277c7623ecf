"""What a decoupled decay does to the weights after the inner step.

Every function returns `w` bit for bit at strength zero, so that a schedule may
start or end at zero and a gated step is a step that did not happen.
"""

from keras import ops

from keras_wd.ops.norms import group_norm
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
    norm = group_norm(w, axis)
    safe = ops.where(norm > 0, norm, 1.0)
    shrunk = w * ops.maximum(1 - strength / safe, 0)
    return ops.where(strength > 0, shrunk, w)
