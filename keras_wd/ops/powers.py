"""|x|^q at the price of a few multiplications.

XLA on a CPU computes `pow`, `exp` and `log` one element at a time, which
makes an elementwise power several times slower than the optimizer step around
it. Where the surrounding program is fused, the power is taken here on the
bits of the float instead: every operation is an add, a multiply or a shift.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from keras_wd.ops.exponents import MANTISSA_BITS
from keras_wd.ops.exponents import fitted
from keras_wd.ops.exponents import mantissa_and_exponent
from keras_wd.ops.exponents import nearest_integer
from keras_wd.ops.exponents import polynomial

_LARGEST_FITTED_EXPONENT = 6


def abs_power(x, exponent: float, fused: bool = False):
    """`|x|^exponent` for a fixed exponent; at x = 0 it is 0, 1 or infinity.

    Multiples of one half up to 4 use multiplications and a (reciprocal) square
    root and are exact to rounding. Other exponents use `exp(q log|x|)`, or,
    when `fused` is true, x float32 and |q| <= 6, polynomials on the bits of x.
    Their relative error is below 1e-6 + 2e-7 |log2 r| for a result r. What
    lies outside [2^-125, 2^125] becomes that bound, 0 or infinity.

    Args:
        x: tensor of any shape.
        exponent: Python float, of either sign.
        fused: whether the operations will be fused into one loop (XLA). Both
            ways give the same values to rounding; only the speed differs.

    Returns:
        Tensor of the shape and dtype of `x`. Not meant for differentiation.
    """
    magnitude = ops.abs(x)
    if exponent == 0:
        return ops.ones_like(magnitude)
    if float(2 * exponent).is_integer() and abs(exponent) <= 4:
        return _half_integer_power(magnitude, exponent)
    if (
        fused
        and abs(exponent) <= _LARGEST_FITTED_EXPONENT
        and keras.backend.standardize_dtype(x.dtype) == "float32"
    ):
        return _power_from_bits(magnitude, exponent)
    return ops.exp(exponent * ops.log(magnitude))


def _half_integer_power(magnitude, exponent):
    if exponent < 0:
        # Multiplications by the reciprocal root fuse better than divisions.
        factors = [ops.rsqrt(magnitude)] * int(-2 * exponent)
    else:
        factors = [magnitude] * int(exponent)
        if not float(exponent).is_integer():
            factors.append(ops.sqrt(magnitude))
    return functools.reduce(lambda a, b: a * b, factors)


def _power_from_bits(magnitude, exponent):
    """2^(qe) * m^q for magnitude = 2^e * m with m in [sqrt(1/2), sqrt(2))."""
    smallest = 2.0 ** max(-126.0, -125 / abs(exponent))
    largest = 2.0 ** min(127.0, 125 / abs(exponent))

    # A comparison, as XLA's minimum spends more on values not a number.
    bounded = ops.where(magnitude < largest, magnitude, largest)
    m, e = mantissa_and_exponent(bounded)
    mantissa_power = polynomial(m - 1.0, _mantissa_coefficients(exponent))

    y = exponent * ops.cast(e, "float32")
    whole = nearest_integer(y)
    fraction = y - ops.cast(whole, "float32")
    product = mantissa_power * polynomial(fraction, _exp2_coefficients())

    # Adding to the exponent bits multiplies by 2^whole.
    shift = ops.left_shift(whole, MANTISSA_BITS)
    power = ops.view(ops.view(product, "int32") + shift, "float32")
    at_zero = 0.0 if exponent > 0 else math.inf
    return ops.where(magnitude < smallest, at_zero, power)


@functools.cache
def _mantissa_coefficients(exponent):
    half_octave = math.sqrt(2.0)
    return fitted(
        lambda x: (1.0 + x) ** exponent,
        (1 / half_octave - 1.0, half_octave - 1.0),
    )


@functools.cache
def _exp2_coefficients():
    return fitted(np.exp2, (-0.5, 0.5))
