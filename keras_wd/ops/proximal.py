"""The exact proximal operator of `(s/p) |w|^p`, for any p.

With a = |z| the minimiser of `(s/p) |w|^p + (w - z)^2 / 2` is `sign(z) t`,
where t = 0 or t solves `t + s t^(p-1) = a`. For p in {3/2, 2, 3} this is a
quadratic equation at most. Otherwise t / a is a polynomial, to the rounding of
float32, of the right variable: the root of the distance to where two solutions
meet. In float64, and near p = 1, where a rounding error of `s t^(p-1)` counts
`1 / |p - 1|` times, steps of Newton follow.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from keras_wd import backend
from keras_wd.ops import near_one
from keras_wd.ops.exponents import exp2_parts
from keras_wd.ops.exponents import fitted
from keras_wd.ops.exponents import log2_parts
from keras_wd.ops.exponents import polynomial
from keras_wd.ops.precision import in_float32
from keras_wd.ops.shrinkage import soft_threshold

# Where float32 needs no step of Newton.
_FAR_BELOW_ONE = 0.8
_FAR_ABOVE_ONE = 1.2


@in_float32
def prox_lp(z, strength, p: float, fused: bool = False):
    """argmin over w of `(s/p) |w|^p + (w - z)^2 / 2`, elementwise.

    For p < 1 the minimiser jumps: it is 0 up to `|z| = b + s b^(p-1)` with
    `b = (2 s (1-p) / p)^(1/(2-p))`, and at least b beyond.

    Exact to 16 units in the last place in float32 and to 1e-12 of the result
    in float64, for every p and all numbers whose result is a normal one; the
    place of the jump likewise.

    Args:
        z: tensor of any shape.
        strength: scalar >= 0, or a tensor that broadcasts with `z`.
        p: exponent in [0.1, 4].
        fused: whether the operations will be fused into one loop (XLA), which
            then stays in float32. Otherwise powers of float32 are taken in
            float64.

    Returns:
        Tensor of the shape of `z`; exactly `z` at strength zero, and zero at
        an infinite strength.

    Source: p = 3/2 from Chaux et al., 2007; the jump for p < 1 from
    Marjanovic and Solo, 2012.
    """
    if p == 1:
        return soft_threshold(z, strength)
    # There may be no float64 where everything is compiled by XLA.
    fused = fused or backend.always_fused()
    a = ops.abs(z)
    dtype = keras.backend.standardize_dtype(z.dtype)
    strength = ops.convert_to_tensor(strength, dtype)
    # Positive and finite in between; the others are chosen at the end.
    inside = ops.logical_and(a > 0, a < math.inf)
    finite = ops.logical_and(strength > 0, strength < math.inf)
    # As limits, and not by `where`: what depends on one tensor alone XLA
    # computes where it is used, and keeps nothing in memory.
    limits = np.finfo(dtype)
    a_inside = ops.clip(a, float(limits.tiny), float(limits.max))
    s = ops.where(finite, strength, 1.0)
    if p in _QUADRATICS:
        t = _QUADRATICS[p](a_inside, s)
    elif dtype == "float64":
        t = _in_float64(a_inside, s, p)
    elif _FAR_BELOW_ONE < p < _FAR_ABOVE_ONE:
        t = _near_one(a_inside, s, p, fused)
    elif p > 1:
        t = _convex_root(a_inside, s, p, fused)
    else:
        t = _nonconvex_minimiser(a_inside, s, p, fused)
    # Never more than a, where a is below the normal numbers.
    t = ops.where(inside, ops.minimum(t, a), a)
    t = ops.where(strength < math.inf, t, 0.0)
    return ops.where(strength > 0, ops.sign(z) * t, z)


def _sesquilinear(a, s):
    """p = 3/2: a quadratic equation in the root of t."""
    c = s * ops.rsqrt(a)
    # From 1e12 on it is 1 / c to rounding, and the square may be infinite.
    large = ops.maximum(c, 1e12)
    small = ops.minimum(c, 1e12)
    root = 2 / (small + ops.sqrt(small * small + 4))
    root = ops.where(c < 1e12, root, 1 / large)
    return (a * root) * root


def _square(a, s):
    return a / (1 + s)


def _cube(a, s):
    """p = 3: a quadratic equation in t."""
    # The root of c, which is finite.
    root = 2 * ops.sqrt(s) * ops.sqrt(a)
    large = ops.maximum(root, 1e12)
    small = ops.minimum(root, 1e12)
    share = 2 / (1 + ops.sqrt(small * small + 1))
    return ops.where(root < 1e12, a * share, a / large * 2)


_QUADRATICS = {1.5: _sesquilinear, 2: _square, 3: _cube}


def _in_float64(a, s, p):
    rate = near_one.Rate(a, s, p - 1)
    if _FAR_BELOW_ONE < p < _FAR_ABOVE_ONE:
        return near_one.minimiser(a, rate, p, steps=4)
    if p > 1:
        t = _convex_root(a, s, p, fused=False)
        return rate.polished(t, steps=2)
    t = _nonconvex_minimiser(a, s, p, fused=False)
    return ops.where(t > 0, rate.polished(ops.where(t > 0, t, a), 2), 0.0)


def _near_one(a, s, p, fused):
    if fused:
        return near_one.minimiser(
            a, near_one.FusedRate(a, s, p - 1), p, steps=2
        )
    # Without double precision the difference of s and a is lost.
    return ops.cast(
        _in_float64(ops.cast(a, "float64"), ops.cast(s, "float64"), p),
        "float32",
    )


def _convex_root(a, s, p, fused):
    """The root of t + s t^(p-1) = a for p > 1.

    With c = s a^(p-2) and D = (a / s)^(1/(p-1)), t goes to a for a small c,
    and to D for a large one.
    """
    q = p - 1
    if fused:
        e_a, f_a = log2_parts(a)
        e_s, f_s = log2_parts(s)
        to_d = e_s + f_s + (p - 2) * (e_a + f_a) > 0
        low = exp2_parts([(1.0, e_s), (p - 2, e_a)], f_s + (p - 2) * f_a)
        high = exp2_parts([(1 / q, e_a - e_s)], (f_a - f_s) / q)
        power = ops.where(to_d, high, low)
    else:
        log_a, log_s = (ops.log(ops.cast(x, "float64")) for x in (a, s))
        log_c = log_s + (p - 2) * log_a
        to_d = log_c > 0
        power = ops.exp(ops.where(to_d, (log_a - log_s) / q, log_c))
        power = ops.cast(power, a.dtype)
    of_c, of_d = _convex_fits(p)
    c = ops.where(to_d, 1.0, power)
    d = ops.where(to_d, power / a, 1.0)
    return ops.where(to_d, power * of_d(d), a * of_c(c))


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
    """The larger root of t + s t^(p-1) = a, or 0 before the jump; p < 1."""
    fold, jump, coefficients = _share_kept(p)
    if p == 0.5:
        root = ops.rsqrt(a)
        y = ((s * root) * root) * (root / fold)
    elif fused:
        e_a, f_a = log2_parts(a)
        e_s, f_s = log2_parts(s)
        rest = f_s + (p - 2) * f_a - math.log2(fold)
        y = exp2_parts([(1.0, e_s), (p - 2, e_a)], rest)
    else:
        log_a, log_s = (ops.log(ops.cast(x, "float64")) for x in (a, s))
        y = ops.exp(log_s + (p - 2) * log_a - math.log(fold))
        y = ops.cast(y, a.dtype)
    beyond = y < jump / fold
    distance = ops.sqrt(1 - ops.where(beyond, y, 0.0))
    return ops.where(beyond, a * polynomial(distance, coefficients), 0.0)


@functools.cache
def _share_kept(p):
    """The larger root r of `r + y r^(p-1) = 1` for y up to the jump.

    Both roots meet at a fold, a square root of the distance to which makes
    r as good as a polynomial: of degree 2 for p = 0.1, 4 for 1/2, 7 for 0.9.

    Returns:
        y at the fold and at the jump, and coefficients of r in
        `sqrt(1 - y / fold)`.
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

    return fold, jump, fitted(root, (np.sqrt(1 - jump / fold), 1.0))
