"""The root of `t + s t^q = a` to full precision, for q = p - 1 near 0 too.

There a rounding error of `s t^q / a` counts up to `1 / |q|` times. Its
distance from 1 is what is computed here, from the difference of s and a, and a
step of Newton on it is exact to rounding.
"""

import math

import keras
from keras import ops

from keras_wd.ops.exponents import exp2
from keras_wd.ops.exponents import exp2_minus_one
from keras_wd.ops.exponents import log2_of_one_plus
from keras_wd.ops.exponents import log2_of_rate

# Above the least normal number: smaller ones have no logarithm everywhere.
_SMALLEST = {"float32": 1.2e-38, "float64": 2.3e-308}


class Rate:
    """`s t^q / a` as a function of t, for float64 tensors a, s > 0.

    `exp`, `expm1` and `log1p` are as exact as where Newton's steps start from
    needs them.
    """

    exp = staticmethod(ops.exp)
    expm1 = staticmethod(ops.expm1)
    log1p = staticmethod(ops.log1p)

    def __init__(self, a, s, q: float):
        self.a, self.q = a, q
        ratio = s / a
        near = ops.logical_and(ratio > 0.5, ratio < 2)
        difference = ops.where(near, (s - a) / a, 0.0)
        normal = ops.logical_and(ratio > 1e-300, ratio < 1e300)
        far = ops.where(
            normal,
            ops.log(ops.where(normal, ratio, 1.0)),
            ops.log(s) - ops.log(a),
        )
        self._log_ratio = ops.where(near, ops.log1p(difference), far)

    def log(self, t):
        """Its natural logarithm."""
        return self._log_ratio + self.q * ops.log(t)

    def minus_one(self, t):
        """Its distance from 1, exact to rounding."""
        return ops.expm1(self.log(t))

    def polished(self, t, steps: int):
        """t after steps of Newton on `t / a + s t^q / a = 1`."""
        dtype = keras.backend.standardize_dtype(t.dtype)
        normal = t > _SMALLEST[dtype]
        root = ops.where(normal, t, self.a)
        # As normal a number as a is; XLA keeps a quotient that is used twice
        # in memory.
        inverse = 4 / self.a
        for _ in range(steps):
            share, excess = root * inverse / 4, self.minus_one(root)
            slope = share + self.q * (1 + excess)
            root = root * (1 - (share + excess) / slope)
        return ops.where(normal, root, t)


class FusedRate(Rate):
    """The same for float32, in operations that XLA fuses.

    XLA on a CPU computes a logarithm or an exponential of its own one element
    at a time, which would be most of the work.
    """

    @staticmethod
    def exp(x):
        return exp2(x / math.log(2))

    @staticmethod
    def expm1(x):
        return exp2_minus_one(x / math.log(2))

    @staticmethod
    def log1p(x):
        return math.log(2) * log2_of_one_plus(x)

    def __init__(self, a, s, q: float):
        self.a, self.q = a, q
        self._log2 = log2_of_rate(s, a, q)

    def log(self, t):
        return math.log(2) * self._log2(t)

    def minus_one(self, t):
        return exp2_minus_one(self._log2(t))


def minimiser(a, rate: Rate, p: float, steps: int):
    """The minimiser for |p - 1| up to 0.2; 0 before the jump for p < 1.

    Args:
        a: |z| > 0.
        rate: of a, s and q = p - 1.
        p: exponent, not 1.
        steps: of Newton.
    """
    log_c = rate.log(a)
    if p > 1:
        t = _start_above_one(a, log_c, p - 1, rate)
        return rate.polished(t, steps)
    at_jump = 2 * (1 - p) / (2 - p)
    limit = math.log1p(-at_jump) + (1 - p) * math.log(at_jump)
    beyond = log_c < limit
    t = _start_below_one(a, ops.where(beyond, log_c, limit), p - 1, rate)
    return ops.where(beyond, rate.polished(t, steps), 0.0)


# With u = t / a and m = -log(1 - u) the equation is m + q log u = -log c, and
# log u is about log m - m / 2: the equation of Lambert's function.


def _start_above_one(a, log_c, q, of):
    """Within some percent, v + log v = x solved as Winitzki, 2003, did."""
    slope = 1 - q / 2
    x = -log_c / q - math.log(q / slope)
    softplus = ops.maximum(x, 0.0) + of.log1p(of.exp(-ops.abs(x)))
    v = softplus * (1 - of.log1p(softplus) / (2 + softplus))
    # For a small v, from where v does not cancel.
    root = of.exp(ops.minimum(-log_c / q - v, 0.0) / 2)
    small = (a * root) * root
    return ops.where(x < 0, small, -a * of.expm1(-(q / slope) * v))


def _start_below_one(a, log_c, q, of):
    """The same for v - log v = x, as Barry et al., 2000, but for a factor."""
    slope = 1 - q / 2
    x = log_c / q + math.log(-q / slope)
    over = ops.maximum(x - 1, 0.0)
    factor = 0.3361
    root = factor * ops.sqrt(over / 2)
    v = 1 + over + (2 / factor) * (root / (1 + root))
    return -a * of.expm1((q / slope) * v)
