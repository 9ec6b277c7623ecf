"""Logarithms and powers of two that keep a large exponent exact.

`2^y` loses as many digits as y has before the point. Here the exponents of
floats stay integers, and multiples of them are taken with a factor in two
parts, so that only the small remainder is rounded. Everything is an add, a
multiply or a shift on the bits of a float32, which XLA fuses into one loop;
it would cancel a subtraction that is there for its rounding, so that numbers
are split by masking bits.
"""

import functools
import math

import numpy as np
from keras import ops

MANTISSA_BITS = 23
BITS_OF_SQRT_HALF = np.int32(0x3F3504F3)
_BITS_OF_ONE = np.int32(0x3F800000)
_HALF = np.int32(1 << (MANTISSA_BITS - 1))
_INTEGERS_ONLY = 1.5 * 2.0**MANTISSA_BITS
_BITS_OF_INTEGERS_ONLY = np.float32(_INTEGERS_ONLY).view("int32")
# Half of the bits: products of two such numbers are exact.
_HIGH_HALF = np.int32(-(1 << 12))
_FIT_ERROR = 2e-7


def polynomial(x, coefficients):
    """The sum of `coefficients[i] x^i`."""
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result


def fitted(function, interval):
    """Coefficients of the shortest near-minimax fit, lowest degree first."""
    x = np.linspace(*interval, 201)
    for degree in range(2, 24):
        series = np.polynomial.Chebyshev.interpolate(
            function, degree, domain=interval
        )
        if np.max(np.abs(series(x) / function(x) - 1)) < _FIT_ERROR:
            break
    power_series = series.convert(kind=np.polynomial.Polynomial)
    return [float(c) for c in power_series.coef]


def split_constant(number: float) -> tuple[float, float]:
    """A number as one of 12 bits and the rest."""
    mantissa, exponent = math.frexp(number)
    high = math.ldexp(round(mantissa * 4096), exponent - 12)
    return high, number - high


def split(x):
    """A float32 tensor cut to 12 bits."""
    bits = ops.bitwise_and(ops.view(x, "int32"), _HIGH_HALF)
    return ops.view(bits, "float32")


def nearest_integer(y):
    """Float32 below 2^22 to the nearest int32."""
    # The sum has no bits for a fraction: the last ones are the integer next
    # to y.
    return ops.view(y + _INTEGERS_ONLY, "int32") - _BITS_OF_INTEGERS_ONLY


def mantissa_and_exponent(x):
    """`(m, e)` with `x = 2^e m` and m in [sqrt(1/2), sqrt(2)); e is int32.

    Args:
        x: float32 > 0; a number below the normal ones becomes another.
    """
    bits = ops.view(x, "int32")
    e = ops.right_shift(bits - BITS_OF_SQRT_HALF, MANTISSA_BITS)
    return ops.view(bits - ops.left_shift(e, MANTISSA_BITS), "float32"), e


def log2_parts(x):
    """`(e, f)` with `log2(x) = e + f`, |f| <= 1/2, both float32."""
    m, e = mantissa_and_exponent(x)
    m = m - 1.0
    return ops.cast(e, "float32"), m * polynomial(m, _log2_coefficients())


def exp2_parts(terms, rest):
    """`2^(sum of k e + rest)`, for factors k and integers e.

    Args:
        terms: pairs (k, e): a Python float, and a float32 tensor of integers
            up to 512.
        rest: float32 tensor.

    Returns:
        Float32; 0 below the normal numbers.
    """
    y = 0.0
    for factor, e in terms:
        high, low = split_constant(factor)
        y = y + high * e
        rest = rest + low * e
    first = nearest_integer(y)
    rest = (y - ops.cast(first, "float32")) + rest
    second = nearest_integer(rest)
    power = polynomial(rest - ops.cast(second, "float32"), _exp2_coefficients())
    whole = first + second
    shift = ops.left_shift(ops.clip(whole, -126, 127), MANTISSA_BITS)
    # Adding to the exponent bits multiplies by 2^whole.
    power = ops.view(ops.view(power, "int32") + shift, "float32")
    return ops.where(whole < -126, 0.0, power)


def exp2(y):
    """`2^y`, y kept between the exponents of the normal numbers."""
    y = ops.clip(y, -126.0, 127.0)
    whole = nearest_integer(y)
    power = polynomial(y - ops.cast(whole, "float32"), _exp2_coefficients())
    # Adding to the exponent bits multiplies by 2^whole.
    shift = ops.left_shift(whole, MANTISSA_BITS)
    return ops.view(ops.view(power, "int32") + shift, "float32")


def log2_of_one_plus(x):
    """`log2(1 + x)` for x >= 0, to the rounding of the sum."""
    e, f = log2_parts(1.0 + x)
    return e + f


def exp2_minus_one(y):
    """`2^y - 1`, exact to rounding near zero; y is kept within 64."""
    y = ops.clip(y, -64.0, 64.0)
    whole = nearest_integer(y)
    fraction = y - ops.cast(whole, "float32")
    excess = fraction * polynomial(fraction, _exp2_excess_coefficients())
    bits = ops.left_shift(whole, MANTISSA_BITS) + _BITS_OF_ONE
    power = ops.view(bits, "float32")
    return (power - 1.0) + power * excess


def log2_of_rate(s, a, q: float):
    """A function of x: `log2(s x^q / a)`, where the sum is small.

    The absolute error is about `1e-9 |log2(s / a)| + 1e-7 |q|`, so that a
    small difference of s and a counts as it should.

    Args:
        s, a: float32 > 0 that broadcast.
        q: Python float.
    """
    m_s, e_s = mantissa_and_exponent(s)
    m_a, e_a = mantissa_and_exponent(a)
    apart = ops.view(m_s, "int32") - ops.view(m_a, "int32")
    k = ops.right_shift(apart + _HALF, MANTISSA_BITS)
    m_s = ops.view(
        ops.view(m_s, "int32") - ops.left_shift(k, MANTISSA_BITS), "float32"
    )
    e = ops.cast(e_s - e_a + k, "float32")
    # log(m_s / m_a) = 2 artanh f, f the difference by the sum, in two parts.
    difference, total = m_s - m_a, m_s + m_a
    high = split(total)
    low = (ops.maximum(m_s, m_a) - high) + ops.minimum(m_s, m_a)
    # XLA keeps a quotient that is used twice in memory, but no reciprocal.
    inverse = 1.0 / total
    f = difference * inverse
    f_high = split(f)
    f_low = ((difference - f_high * high) - f_high * low) * inverse
    scale = 2 / math.log(2)
    scale_high, scale_low = split_constant(scale)
    square = f * f
    series = square * polynomial(square, _artanh_coefficients())
    rest = scale_high * f_low + (scale_low + scale * series) * f
    q_high, q_low = split_constant(q)

    def log2_rate(x):
        e_x, f_x = log2_parts(x)
        small = rest + (q_low * e_x + q * f_x)
        return ((e + q_high * e_x) + scale_high * f_high) + small

    return log2_rate


@functools.cache
def _log2_coefficients():
    def slope(x):
        x = np.where(x == 0, 1e-9, x)
        return np.log1p(x) / (x * np.log(2))

    return fitted(slope, (math.sqrt(0.5) - 1.0, math.sqrt(2.0) - 1.0))


@functools.cache
def _exp2_coefficients():
    return fitted(np.exp2, (-0.5, 0.5))


@functools.cache
def _exp2_excess_coefficients():
    def slope(x):
        x = np.where(x == 0, 1e-9, x)
        return np.expm1(x * np.log(2)) / x

    return fitted(slope, (-0.5, 0.5))


@functools.cache
def _artanh_coefficients():
    """Of `(artanh(f) / f - 1) / f^2` in `f^2`, up to f = 0.21."""
    return [1 / (2 * i + 3) for i in range(6)]
