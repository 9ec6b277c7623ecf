"""Projections on sets of weights."""

import functools

import numpy as np
from keras import ops

from keras_wd.ops.norms import group_norm
from keras_wd.ops.norms import scale_units
from keras_wd.ops.precision import in_float32


@in_float32
def project_to_sphere(
    w, radius: float = 1.0, axis: int | tuple[int, ...] | None = -1
):
    """argmin over v of `|v - w|` with `|v_unit| = radius` for every unit.

    `radius * w_unit / |w_unit|`. A unit that is exactly zero has no
    direction and stays zero.

    Args:
        w: weights, see `group_norm` for the shapes.
        radius: the norm every unit gets, > 0.
        axis: the axis (or axes) that number the units; `None`: one norm for
            the whole tensor.
    """
    scaled, _ = scale_units(w, axis)
    norm = group_norm(scaled, axis)
    return scaled * (radius / ops.where(norm > 0, norm, 1.0))


@in_float32
def project_to_spectral_sphere(w, radius: float = 1.0):
    """`radius * w / sigma`, sigma the largest singular value of `w`.

    A weight that is exactly zero stays zero.

    Args:
        w: weights of rank two or more, see `spectral_norm`.
        radius: the largest singular value it gets, > 0.
    """
    sigma = spectral_norm(w)
    return ops.where(
        sigma > 0, w * (radius / ops.where(sigma > 0, sigma, 1)), w
    )


# Steps of Lanczos: relative errors of 1e-5 for random 512 x 512 matrices,
# where as many power iterations are off by 1e-2. Then squarings of the small
# matrix, until its first eigenvector is all that is left.
_KRYLOV, _SQUARINGS = 24, 14


@in_float32
def spectral_norm(w):
    """The largest singular value of the matrix `(all axes but the last, last)`.

    By the Lanczos process on `w^T w` from a fixed vector, without a
    decomposition, which XLA has not on every device.

    Args:
        w: weights of rank two or more, such as a kernel `(fan_in, units)` or
            `(height, width, channels_in, units)`.

    Source: Golub and Kahan, 1965, "Calculating the Singular Values and
    Pseudo-Inverse of a Matrix".
    """
    matrix = ops.reshape(w, (-1, w.shape[-1]))
    matrix, scale = scale_units(matrix, None)
    transposed = ops.transpose(matrix)
    vector = ops.cast(_start(w.shape[-1]), matrix.dtype)
    previous, off = ops.zeros_like(vector), ops.zeros((), matrix.dtype)
    diagonal, beside = [], []
    for _ in range(_KRYLOV):
        image = ops.matmul(transposed, ops.matmul(matrix, vector))
        image = image - off * previous
        diagonal.append(ops.sum(vector * image))
        image = image - diagonal[-1] * vector
        off = ops.sqrt(ops.sum(ops.square(image)))
        beside.append(off)
        previous = vector
        vector = image / ops.where(off > 0, off, 1.0)
    upper = ops.diag(ops.stack(beside[:-1]), 1)
    small = ops.diag(ops.stack(diagonal)) + upper + ops.transpose(upper)
    first = small
    for _ in range(_SQUARINGS):
        trace = ops.trace(first)
        first = first / ops.where(trace > 0, trace, 1.0)
        first = ops.matmul(first, first)
    trace = ops.trace(first)
    square = ops.sum(first * small) / ops.where(trace > 0, trace, 1.0)
    return ops.reshape(scale, ()) * ops.sqrt(ops.maximum(square, 0))


@functools.cache
def _start(size):
    """A unit vector that no weights know of."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size)
    return signs / np.sqrt(size)
