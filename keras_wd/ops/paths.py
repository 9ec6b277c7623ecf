"""Math of units with input weights `w_i` and output weights `v_i`.

    w   input kernel (..., units): column i belongs to unit i
    v   output kernel (..., rows, outputs), rows = positions * units * channels:
        row (p, i, c) belongs to unit i
    a   norms |w_i|, (units,)         b   norms |v_i|, (units,)
    PN  path norm of a pair of layers, `sum_i |w_i| |v_i|`, a scalar

Every step is a factor per unit: w and v are read once for their norms and
written once.
"""

import functools
from collections.abc import Sequence

from keras import ops

from keras_wd.ops.precision import in_float32

# The floor under a norm by which weights are divided, as in the released code.
SMALLEST_NORM = 1e-6


@in_float32
def input_norms(w):
    """`|w_i|` for every unit, (units,); w is `(..., units)`."""
    axes = tuple(range(len(w.shape) - 1))
    return ops.sqrt(ops.sum(ops.square(w), axis=axes))


@in_float32
def output_norms(v, positions: int = 1, channels: int = 1):
    """`|v_i|` for every unit, (units,).

    Args:
        v: `(..., rows, outputs)`.
        positions: how often the units are repeated along the rows.
        channels: neighbouring rows of a unit at each position.
    """
    rank = len(v.shape)
    axes = tuple(axis for axis in range(rank) if axis != rank - 2)
    squares = ops.sum(ops.square(v), axis=axes)
    if positions != 1 or channels != 1:
        squares = ops.reshape(squares, (positions, -1, channels))
        squares = ops.sum(squares, axis=(0, 2))
    return ops.sqrt(squares)


@in_float32
def scale_outputs(v, factors, positions: int = 1, channels: int = 1):
    """`v_i * factors_i`; see `output_norms` for the arguments."""
    rows = ops.tile(repeat_channels(factors, channels), positions)
    return v * ops.expand_dims(rows, -1)


@in_float32
def repeat_channels(factors, channels: int):
    """Every factor `channels` times: (units,) to (units * channels,)."""
    return factors if channels == 1 else ops.repeat(factors, channels)


@in_float32
def path_norm(a, b):
    """`sum_i a_i b_i`, a scalar: the penalty of a pair at rate one."""
    return ops.sum(a * b)


@in_float32
def path_norm_gradient(w, b):
    """The gradient of `sum_i |w_i| b_i` in w: `b_i w_i / |w_i|`, 0 at 0.

    The gradient in v is `a_i v_i / |v_i|`: scale v by `unit_factors(b, a)`.

    Args:
        w: `(..., units)`.
        b: `(units,)`, the norms of the other weights of the units.
    """
    return w * unit_factors(input_norms(w), b)


@in_float32
def unit_factors(norms, lengths):
    """Factors that give units a length, `lengths / norms`; 0 at norm 0."""
    return ops.where(norms > 0, lengths / ops.where(norms > 0, norms, 1.0), 0.0)


@in_float32
def normalizing_factors(a):
    """`1 / max(a_i, 1e-6)`, so that units have norm 1; 1 where a_i = 0.

    The exception keeps the bias of a unit without input weights finite.
    """
    return ops.where(a > 0, 1 / ops.maximum(a, SMALLEST_NORM), 1.0)


@in_float32
def threshold_factors(norms, strength):
    """`max(1 - s / |v_i|, 0)`: v times this is the proximal step.

    argmin over u of `s sum_i |u_i| + |u - v|^2 / 2`.

    Args:
        norms: `|v_i|`, (units,).
        strength: s, a scalar >= 0.
    """
    safe = ops.where(norms > 0, norms, 1.0)
    return ops.where(norms > 0, ops.maximum(1 - strength / safe, 0.0), 1.0)


def balancing_factors(path_norms: Sequence) -> list:
    """`g / PN_k` with g the geometric mean of all PN_k; their product is 1.

    Multiplying the output kernel of pair k by factor k makes all path norms
    equal. What comes after it grows by the running product of the factors,
    and so must the biases there.

    Args:
        path_norms: PN_k of pairs in a row, scalars. If one of them is at most
            1e-6, all factors are 1: there is no path left to balance.
    """
    least = functools.reduce(ops.minimum, path_norms)
    logs = [ops.log(ops.maximum(p, SMALLEST_NORM)) for p in path_norms]
    mean = sum(logs) / len(logs)
    return [
        ops.where(least > SMALLEST_NORM, ops.exp(mean - log), 1.0)
        for log in logs
    ]
