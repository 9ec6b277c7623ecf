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
    """The root of t + s t^(p-1) = a."""
    s = ops.where(s > 0, s, 1.0)
    positive = ops.where(a > 0, a, 1.0)
    # With t = a u: u + c u^(p-1) = 1, c = s a^(p-2). A bounded c keeps the
    # closed forms finite, and moves u by less than rounding.
    if p == 1.5:
        c = ops.minimum(s * abs_power(positive, p - 2), 1e18)
        root = 2 / (c + ops.sqrt(c * c + 4))
        t = positive * root * root
    elif math.isclose(p, 4 / 3):
        c = ops.clip(s * abs_power(positive, p - 2, fused), 1e-12, 1e24)
        t = positive * _four_thirds_root(c)
    else:
        log_c = ops.log(s) + (p - 2) * ops.log(positive)
        t = positive * _log_newton(log_c, p)
    usable = ops.where(t > 0, t, positive)
    polished = _newton_step(usable, positive, s, p, fused)
    # Beyond the range of the float the step is not a number, or leads away
    # because the power of a number that small is zero.
    improves = (t > 0) & (polished > 0.5 * t) & (polished < 2 * t)
    return ops.where(a > 0, ops.where(improves, polished, t), 0.0)


def _four_thirds_root(c):
    """v^3 + c v = 1 by the hyperbolic form of Cardano; u = v^3."""
    scale = ops.sqrt(c / 3)
    v = 2 * scale * ops.sinh(ops.arcsinh(1 / (2 * scale**3)) / 3)
    return v * v * v


def _log_newton(log_c, p):
    """Newton for log(u + c u^(p-1)) = 0 in y = log u.

    The left side is convex and increasing in y with slopes between 1 and
    p - 1, and the start lies right of the root by at most log 2.
    """
    y = ops.minimum(0.0, -log_c / (p - 1))
    for _ in range(_NEWTON_STEPS_CONVEX):
        other = log_c + (p - 1) * y
        share = ops.sigmoid(y - other)
        slope = share + (p - 1) * (1 - share)
        y = y - ops.logaddexp(y, other) / slope
    return ops.exp(y)


def _nonconvex_minimiser(a, s, p, fused):
    """The larger root of t + s t^(p-1) = a, or 0 before the jump."""
    # With t = b u, b the root at the jump, s is gone: u + k u^(p-1) = x.
    b = (2 * s * (1 - p) / p) ** (1 / (2 - p))
    k = p / (2 * (1 - p))
    beyond = a > b * (1 + k)
    x = a / ops.where(b > 0, b, 1.0)
    # Beyond 1e9 the root is x to rounding.
    x = ops.where(beyond, ops.minimum(x, 1e9), 1 + k)
    if p == 0.5:
        u = _half_root(x)
    elif math.isclose(p, 2 / 3):
        u = _two_thirds_root(x)
    else:
        # The left side is convex and increasing right of u = 1 with a slope
        # of at least 1/2: Newton from the right cannot overshoot.
        u = x
        for _ in range(_NEWTON_STEPS_NONCONVEX - 1):
            u = _newton_step(u, x, k, p, fused)
    u = _newton_step(u, x, k, p, fused)
    return ops.where(beyond, a * (u / x), 0.0)


def _half_root(x):
    """u + u^(-1/2) / 2 = x by the trigonometric form of Cardano."""
    angle = ops.arccos(ops.minimum(0.25 * (x / 3) ** -1.5, 1.0))
    return 2 / 3 * x * (1 + ops.cos(2 / 3 * (math.pi - angle)))


def _two_thirds_root(x):
    """u + u^(-1/3) = x, a quartic in u^(1/3), by Ferrari."""
    angle = ops.arccosh(ops.maximum(27 / 16 * x * x / 3**1.5, 1.0))
    width = 2 / 3**0.25 * ops.sqrt(ops.cosh(angle / 3))
    discriminant = ops.maximum(2 * x / width - width * width, 0.0)
    return ((width + ops.sqrt(discriminant)) / 2) ** 3


def _newton_step(t, a, s, p, fused):
    """One Newton step for t + s t^(p-1) = a."""
    rate = s * abs_power(t, p - 1, fused)
    return t - (t + rate - a) / (1 + (p - 1) * rate / t)
