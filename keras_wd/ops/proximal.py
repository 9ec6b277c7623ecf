"""The exact proximal operator of `(s/p) |w|^p`, for any p.

With a = |z| the minimiser of `(s/p) |w|^p + (w - z)^2 / 2` is `sign(z) t`,
where t = 0 or t solves `t + s t^(p-1) = a`. Besides p in {1, 3/2, 2}, where
this is a quadratic equation at most, t / a is a polynomial, to rounding, of the
right variable: the root of the distance to where two solutions meet.
"""

import functools

import numpy as np
from keras import ops

from keras_wd.ops.powers import abs_power
from keras_wd.ops.powers import fitted
from keras_wd.ops.powers import polynomial
from keras_wd.ops.precision import in_float32
from keras_wd.ops.shrinkage import soft_threshold


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

    Source: p = 3/2 from Chaux et al., 2007; the jump for p < 1 from
    Marjanovic and Solo, 2012.
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
    # With t = a u: u + c u^(p-1) = 1.
    if p == 1.5:
        # A bounded c keeps the root finite, and moves u by less than rounding.
        c = ops.minimum(s * abs_power(positive, -0.5), 1e18)
        root = 2 / (c + ops.sqrt(c * c + 4))
        return ops.where(a > 0, positive * root * root, 0.0)
    c = s * abs_power(positive, p - 2, fused)
    d = abs_power(ops.maximum(c, 1.0), -1 / (p - 1), fused)
    of_c, of_d = _convex_fits(p)
    share = ops.where(c > 1, d * of_d(d), of_c(ops.minimum(c, 1.0)))
    if p < 1.1:
        # The fits of two sides of what is nearly a kink: a Newton step.
        rate = c * abs_power(share, p - 1, fused)
        slope = share + (p - 1) * rate
        polished = share * (1 + (p - 2) * rate) / slope
        share = ops.where(slope > 0, polished, share)
    return ops.where(a > 0, a * share, 0.0)


@functools.cache
def _convex_fits(p):
    """Functions for the root u of `u + c u^(p-1) = 1`, each of one tensor.

    The first is u for c up to 1, and the second `u / d` for c from 1 up, with
    `d = c^(-1/(p-1))`, which u goes to. Where two roots meet at a negative c
    (p > 2) or d (p < 2), the square root of the distance to it is what u is
    as good as a polynomial of.
    """
    meeting = (abs((p - 1) / (p - 2)) ** (1 - p)) / abs(p - 2)

    def root_of(log_c):
        y = np.minimum(0.0, -log_c / (p - 1))
        for _ in range(60):  # Newton, on log(u + c u^(p-1)) in y = log u
            other = log_c + (p - 1) * y
            total = np.logaddexp(y, other)
            slope = np.exp(y - total) + (p - 1) * np.exp(other - total)
            y = y - total / slope
        return y

    def of_c(c):
        return np.exp(root_of(np.log(c)))

    def of_d(d):
        log_d = np.log(d)
        return np.exp(root_of((1 - p) * log_d) - log_d)

    if p > 2:
        return _fit_of_root(of_c, meeting), _fit(of_d)
    return _fit(of_c), _fit_of_root(of_d, meeting ** (-1 / (p - 1)))


_SMALLEST = 1e-12  # in place of zero, whose logarithm is none


def _fit(function):
    """A polynomial as good as a function of [0, 1]."""
    coefficients = fitted(
        lambda v: function(np.maximum((v + 1) / 2, _SMALLEST)), (-1.0, 1.0)
    )
    return lambda x: polynomial(2 * x - 1, coefficients)


def _fit_of_root(function, distance):
    """The same, a polynomial of the root of the distance from `-distance`."""
    last = np.sqrt(1 + 1 / distance)
    middle, half = (last + 1) / 2, (last - 1) / 2

    def of_root(v):
        x = distance * ((middle + half * v) ** 2 - 1)
        return function(np.clip(x, _SMALLEST, 1.0))

    coefficients = fitted(of_root, (-1.0, 1.0))

    def fit(x):
        root = ops.sqrt(1 + x / distance)
        return polynomial((root - middle) / half, coefficients)

    return fit


def _nonconvex_minimiser(a, s, p, fused):
    """The larger root of t + s t^(p-1) = a, or 0 before the jump."""
    # With t = b u, b the root at the jump, s is gone: u + k u^(p-1) = x.
    b = (2 * s * (1 - p) / p) ** (1 / (2 - p))
    k = p / (2 * (1 - p))
    beyond = a > b * (1 + k)
    x = a / ops.where(b > 0, b, 1.0)
    # Beyond 1e9 the root is x to rounding.
    x = ops.where(beyond, ops.minimum(x, 1e9), 1 + k)
    fold, coefficients = _share_kept(p)
    distance = ops.sqrt(1 - k / fold * abs_power(x, p - 2, fused))
    share = polynomial(distance, coefficients)
    if p > 0.9:
        # The distance is the root of a small difference: a Newton step.
        rate = k * abs_power(x * share, p - 1, fused) / x
        slope = 1 + (p - 1) * rate / share
        share = share - (share + rate - 1) / slope
    return ops.where(beyond, a * share, 0.0)


@functools.cache
def _share_kept(p):
    """The larger root r of `r + y r^(p-1) = 1` for y up to the jump.

    Both roots meet at a fold, a square root of the distance to which makes
    r as good as a polynomial: of degree 2 for p = 0.1, 4 for 1/2, 7 for 0.9.

    Returns:
        y at the fold, and coefficients of r in `sqrt(1 - y / fold)`.
    """

    def y_of(r):
        return (1 - r) * r ** (1 - p)

    fold = y_of((1 - p) / (2 - p))
    jump = y_of(2 * (1 - p) / (2 - p))

    def root(distance):
        y = fold * (1 - distance**2)
        # From the right of the root of a convex function.
        r = np.ones_like(y)
        for _ in range(60):
            r = r - (r + y * r ** (p - 1) - 1) / (
                1 + (p - 1) * y * r ** (p - 2)
            )
        return r

    return fold, fitted(root, (np.sqrt(1 - jump / fold), 1.0))
