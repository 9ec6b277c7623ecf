"""The exact proximal operator of `(s/p) |w|^p`, for any p.

With a = |z| the minimiser of `(s/p) |w|^p + (w - z)^2 / 2` is `sign(z) t`,
where t = 0 or t solves `t + s t^(p-1) = a`. For p in {1/2, 2/3, 1, 4/3, 3/2, 2}
the equation has a closed form; elsewhere a fixed number of Newton steps solves
it from a side on which Newton cannot overshoot.
"""

import math

from keras import ops

from keras_wd.ops.powers import abs_power
from keras_wd.ops.precision import in_float32
from keras_wd.ops.shrinkage import soft_threshold

_NEWTON_STEPS_CONVEX = 10
_NEWTON_STEPS_NONCONVEX = 7


@in_float32
def prox_lp(z, strength, p: float, fused: bool = False):
    """argmin over w of `(s/p) |w|^p + (w - z)^2 / 2`, elementwise.

    For p < 1 the minimiser jumps: it is 0 up to `|z| = b + s b^(p-1)` with
    `b = (2 s (1-p) / p)^(1/(2-p))`, and at least b beyond.

    Args:
        z: tensor of any shape.
        strength: scalar >= 0.
        p: exponent in [0.1, 4].
        fused: see `abs_power`.

    Returns:
        Tensor of the shape of `z`; exactly `z` at strength zero.

    Source: closed forms for p = 1/2 from Xu et al., 2012, p = 2/3 from Cao et
    al., 2013, p = 4/3 and 3/2 from Chaux et al., 2007; the jump for p < 1
    from Marjanovic and Solo, 2012.
    """
    if p == 1:
        return soft_threshold(z, strength)
    a = ops.abs(z)
    if p == 2:
        t = a / (1 + strength)
    elif p > 1:
        t = _convex_root(a, strength, p, fused)
    else:
        t = _nonconvex_minimiser(a, strength, p, fused)
    return ops.where(strength > 0, ops.sign(z) * t, z)


def _convex_root(a, s, p, fused):
    s = ops.where(s > 0, s, 1.0)
    positive = ops.where(a > 0, a, 1.0)
    if p == 1.5:
        root = 2 * positive / (s + ops.sqrt(s * s + 4 * positive))
        t = root * root
    elif math.isclose(p, 4 / 3):
        t = _four_thirds_root(positive, s)
    else:
        t = _log_newton(positive, s, p)
    t = _polish(t, positive, s, p, fused)
    return ops.where(a > 0, t, 0.0)


def _four_thirds_root(a, s):
    """u^3 + s u = a by the hyperbolic form of Cardano; t = u^3."""
    scale = ops.sqrt(s / 3)
    u = 2 * scale * ops.sinh(ops.arcsinh(a / (2 * scale**3)) / 3)
    return u * u * u


def _log_newton(a, s, p):
    """Newton for log(t + s t^(p-1)) = log a in y = log t.

    The left side is convex and increasing in y with slopes between 1 and
    p - 1, and the start lies right of the root by at most log 2.
    """
    log_a = ops.log(a)
    log_s = ops.log(s)
    y = ops.minimum(log_a, (log_a - log_s) / (p - 1))
    for _ in range(_NEWTON_STEPS_CONVEX):
        other = log_s + (p - 1) * y
        share = ops.sigmoid(y - other)
        slope = share + (p - 1) * (1 - share)
        y = y - (ops.logaddexp(y, other) - log_a) / slope
    return ops.exp(y)


def _nonconvex_minimiser(a, s, p, fused):
    """The larger root of t + s t^(p-1) = a, or 0 before the jump."""
    jump = (2 * s * (1 - p) / p) ** (1 / (2 - p))
    positive_jump = ops.where(jump > 0, jump, 1.0)
    threshold = jump + s * positive_jump ** (p - 1)
    beyond = a > threshold
    start = ops.where(beyond, a, ops.maximum(threshold, 1.0))
    if p == 0.5:
        t = _half_root(start, s)
    elif math.isclose(p, 2 / 3):
        t = _two_thirds_root(start, s)
    else:
        t = start
    # The function is convex and increasing right of the jump with a slope of
    # at least 1/2, so Newton from the right converges without overshooting.
    steps = _NEWTON_STEPS_NONCONVEX if t is start else 1
    for _ in range(steps):
        t = _polish(t, start, s, p, fused)
    return ops.where(beyond, t, 0.0)


def _half_root(a, s):
    # At the jump the argument is sqrt(1/2); the clip guards masked entries.
    cosine = ops.clip(s / 2 * (a / 3) ** -1.5, 0.0, 1.0)
    angle = ops.arccos(cosine)
    return 2 / 3 * a * (1 + ops.cos(2 / 3 * (math.pi - angle)))


def _two_thirds_root(a, s):
    s = ops.where(s > 0, s, 1.0)
    quarter = (3 * s) ** 0.25
    argument = 27 / 16 * a * a / (3 * s) ** 1.5
    angle = ops.arccosh(ops.maximum(argument, 1.0))
    width = 2 / math.sqrt(3) * quarter * ops.sqrt(ops.cosh(angle / 3))
    discriminant = ops.maximum(2 * a / width - width * width, 0.0)
    return ((width + ops.sqrt(discriminant)) / 2) ** 3


def _polish(t, a, s, p, fused):
    """One Newton step for t + s t^(p-1) = a."""
    t = ops.maximum(t, 1e-30)
    rate = s * abs_power(t, p - 1, fused)
    return t - (t + rate - a) / (1 + (p - 1) * rate / t)
