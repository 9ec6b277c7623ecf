"""|x|^q at the price of a few multiplications.

XLA on a CPU computes `pow`, `exp` and `log` one element at a time, which
makes an elementwise power several times dearer than the optimizer step around
it. Where the surrounding program is fused, the power is taken here on the
bits of the float instead: every operation is an add, a multiply or a shift.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

_MANTISSA_BITS = 23
_BITS_OF_SQRT_HALF = np.int32(0x3F3504F3)


def abs_power(x, exponent: float, fused: bool = False):
    """`|x|^exponent` for a fixed exponent >= 0; 0 at x = 0 (1 if exponent=0).

    Multiples of one half use multiplications and a square root and are exact
    to rounding. Other exponents use `exp(q log|x|)`, or, when `fused` is true
    and x is float32, polynomials on the bits of x, with a relative error
    below 1e-6 wherever |x| is larger than 1e-18 and the result is a normal
    number; results below 2^-125 become 0.

    Args:
        x: tensor of any shape.
        exponent: Python float >= 0.
        fused: whether the operations will be fused into one loop (XLA). Both
            ways give the same values to rounding; only the speed differs.

    Returns:
        Tensor of the shape and dtype of `x`. Not meant for differentiation.
    """
    magnitude = ops.abs(x)
    if exponent == 0:
        return ops.ones_like(magnitude)
    if float(2 * exponent).is_integer() and exponent <= 4:
        return _half_integer_power(magnitude, exponent)
    if fused and keras.backend.standardize_dtype(x.dtype) == "float32":
        return _power_from_bits(magnitude, exponent)
    return ops.exp(exponent * ops.log(magnitude))


def _half_integer_power(magnitude, exponent):
    whole = int(exponent)
    factors = [magnitude] * whole
    if exponent != whole:
        factors.append(ops.sqrt(magnitude))
    return functools.reduce(lambda a, b: a * b, factors)


def _power_from_bits(magnitude, exponent):
    """2^(qe) * m^q for magnitude = 2^e * m with m in [sqrt(1/2), sqrt(2))."""
    smallest = 2.0 ** max(-126.0, -125 / exponent)
    largest = 2.0 ** min(127.0, 125 / exponent)

    bits = ops.view(ops.minimum(magnitude, largest), "int32")
    e = ops.right_shift(bits - _BITS_OF_SQRT_HALF, _MANTISSA_BITS)
    m = ops.view(bits - ops.left_shift(e, _MANTISSA_BITS), "float32")
    mantissa_power = _polynomial(m - 1.0, _mantissa_coefficients(exponent))

    # `coarse * e` is exact in float32: 14 bits times 8 bits.
    coarse = math.ldexp(round(math.ldexp(exponent, 12)), -12)
    e = ops.cast(e, "float32")
    whole = ops.cast(coarse * e + 512.5, "int32") - 512
    fraction = (coarse * e - ops.cast(whole, "float32")) + (
        exponent - coarse
    ) * e
    product = mantissa_power * _polynomial(fraction, _exp2_coefficients())

    # Adding to the exponent bits multiplies by 2^whole.
    scaled = ops.view(product, "int32") + ops.left_shift(whole, _MANTISSA_BITS)
    return ops.where(magnitude < smallest, 0.0, ops.view(scaled, "float32"))


def _polynomial(x, coefficients):
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result


@functools.cache
def _mantissa_coefficients(exponent):
    half_octave = math.sqrt(2.0)
    return _fit(
        lambda x: (1.0 + x) ** exponent,
        (1 / half_octave - 1.0, half_octave - 1.0),
        degree=7,
    )


@functools.cache
def _exp2_coefficients():
    return _fit(np.exp2, (-0.51, 0.51), degree=5)


def _fit(function, interval, degree):
    """Near-minimax coefficients, lowest degree first."""
    series = np.polynomial.Chebyshev.interpolate(
        function, degree, domain=interval
    )
    power_series = series.convert(kind=np.polynomial.Polynomial)
    return [float(c) for c in power_series.coef]
