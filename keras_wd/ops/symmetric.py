"""Symmetric matrices by halves: products and inverses out of large blocks.

A matrix product runs near the peak of the machine; a Cholesky decomposition
and a triangular solve do not, on a CPU by far. Splitting a matrix in two
turns most of their work into products, and leaves out the half of a symmetric
result that is the mirror image of the other.
"""

from collections.abc import Callable

import numpy as np
from keras import ops

LEAF = 256  # rows of a block that is not split any more
NUMPY_LEAF = 128  # the same for arrays of NumPy
PANEL = 128  # rows that a loop eliminates at a time


def gram(x):
    """`x^T x`.

    Args:
        x: (..., rows, n).

    Returns:
        (..., n, n), symmetric to rounding.

    >>> from keras import ops
    >>> ops.convert_to_numpy(gram(ops.array([[1.0, 2.0]]))).tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """
    rows, size = x.shape[-2:]
    # Of few rows, putting the result together takes longer than half of it.
    if min(rows, size) <= LEAF:
        return products(x, x)
    half = _first_part(size, LEAF)
    left, right = x[..., :half], x[..., half:]
    return _symmetric(gram(left), products(left, right), gram(right))


def products(x, y):
    """`x^T y`, (..., n, m); one operation where a transpose is another."""
    return ops.einsum("...ri,...rj->...ij", x, y)


def gram_of_lower(root):
    """`root^T root` for a lower triangular matrix, (..., n, n)."""
    size = root.shape[-1]
    if size <= LEAF:
        return gram(root)
    half = _first_part(size, LEAF)
    first = root[..., :half, :half]
    below, last = root[..., half:, :half], root[..., half:, half:]
    return _symmetric(
        gram_of_lower(first) + gram(below),
        ops.matmul(_transposed(below), last),
        gram_of_lower(last),
    )


def inverse_root(matrix, cholesky: Callable):
    """The lower triangular R with `R^T R = matrix^-1`: `R = L^-1`.

    Formula: with `matrix = [[A, C^T], [C, B]]` and R_1 the root of A,
    `M = C R_1^T`, R_2 the root of `B - M M^T`: `R = [[R_1, 0],
    [-R_2 M R_1, R_2]]`.

    Args:
        matrix: symmetric positive definite, (..., n, n).
        cholesky: function from a matrix to its lower Cholesky factor, with
            NaN where there is none. The result has NaN there too.
    """
    size = matrix.shape[-1]
    if size <= LEAF:
        eye = ops.broadcast_to(
            ops.eye(size, dtype=matrix.dtype), ops.shape(matrix)
        )
        return ops.solve_triangular(cholesky(matrix), eye, lower=True)
    half = _first_part(size, LEAF)
    first = inverse_root(matrix[..., :half, :half], cholesky)
    mixed = ops.matmul(matrix[..., half:, :half], _transposed(first))
    rest = matrix[..., half:, half:] - gram(_transposed(mixed))
    last = inverse_root(rest, cholesky)
    below = -ops.matmul(last, ops.matmul(mixed, first))
    return _blocks(first, ops.zeros_like(_transposed(below)), below, last)


def inverse(
    matrix,
    cholesky: Callable = ops.cholesky,
    written_out: int | None = None,
    size=None,
):
    """The inverse of a symmetric positive definite matrix, (..., n, n).

    Args:
        matrix: see `inverse_root`.
        cholesky: see `inverse_root`; the inverse has NaN where there is none.
        written_out: a larger matrix, without leading axes, is inverted by a
            loop: a program of constant size, with more arithmetic.
        size: see `inverse_by_loop`.
    """
    if written_out is not None and matrix.shape[-1] > written_out:
        return inverse_by_loop(matrix, cholesky, size)
    return gram_of_lower(inverse_root(matrix, cholesky))


def inverse_by_loop(matrix, cholesky: Callable, size=None):
    """The inverse of a symmetric positive definite matrix, (n, n).

    Args:
        matrix: (n, n).
        cholesky: see `inverse_root`.
        size: scalar tensor; behind so many rows the matrix is the identity,
            which needs no work.

    Formula: Gauss-Jordan elimination in place, `PANEL` rows k at a time: with
    `P = A_kk^-1`, `A_kj <- P A_kj`, `A_ij <- A_ij - A_ik P A_kj`,
    `A_ik <- -A_ik P`, `A_kk <- P`.
    """
    rows = matrix.shape[-1]
    filling = -rows % PANEL
    if filling:
        matrix = ops.pad(matrix, ((0, filling), (0, filling)))
        ones = ops.cast(ops.arange(rows + filling) >= rows, matrix.dtype)
        matrix = matrix + ops.diag(ones)

    def eliminate(step, a):
        k = step * PANEL
        pivot = ops.slice(a, (k, k), (PANEL, PANEL))
        pivot = gram_of_lower(inverse_root(pivot, cholesky))
        row = ops.slice(a, (k, 0), (PANEL, rows + filling))
        column = ops.slice(a, (0, k), (rows + filling, PANEL))
        row = ops.slice_update(ops.matmul(pivot, row), (0, k), pivot)
        a = ops.slice_update(a, (0, k), ops.zeros_like(column))
        column = ops.slice_update(column, (k, 0), ops.zeros_like(pivot))
        return ops.slice_update(a - ops.matmul(column, row), (k, 0), row)

    steps = ((rows if size is None else size) + PANEL - 1) // PANEL
    found = ops.fori_loop(0, steps, eliminate, matrix)[:rows, :rows]
    return (found + _transposed(found)) / 2.0


def inverse_by_numpy(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite array, (..., n, n).

    The same as `inverse`, of floats; NaN throughout where some matrix is not
    positive definite.

    Args:
        matrix: overwritten by the result. What is above the diagonal is not
            read.

    >>> import numpy as np
    >>> inverse_by_numpy(np.array([[2.0, 1.0], [1.0, 2.0]])).round(3).tolist()
    [[0.667, -0.333], [-0.333, 0.667]]
    """
    try:
        _to_root(matrix)
    except np.linalg.LinAlgError:
        matrix[...] = np.nan
        return matrix
    _to_gram(matrix)
    return matrix


def _to_root(matrix):
    """`inverse_root`, in place."""
    if matrix.shape[-1] <= NUMPY_LEAF:
        matrix[...] = np.linalg.inv(np.linalg.cholesky(matrix))
        return
    first, above, below, last = _four_parts(matrix)
    _to_root(first)
    mixed = below @ first.swapaxes(-1, -2)
    # NumPy takes half the time for a product with the array's own transpose.
    last -= mixed @ mixed.swapaxes(-1, -2)
    _to_root(last)
    np.negative(last @ (mixed @ first), out=below)
    above[...] = 0.0


def _to_gram(root):
    """`gram_of_lower`, in place."""
    if root.shape[-1] <= NUMPY_LEAF:
        root[...] = root.swapaxes(-1, -2) @ root
        return
    first, above, below, last = _four_parts(root)
    _to_gram(first)
    first += below.swapaxes(-1, -2) @ below
    below[...] = last.swapaxes(-1, -2) @ below
    above[...] = below.swapaxes(-1, -2)
    _to_gram(last)


def _four_parts(matrix):
    half = _first_part(matrix.shape[-1], NUMPY_LEAF)
    return (
        matrix[..., :half, :half],
        matrix[..., :half, half:],
        matrix[..., half:, :half],
        matrix[..., half:, half:],
    )


def _first_part(size, leaf):
    """How many rows the first of two parts has: whole leaves, about half."""
    return max(size // 2 // leaf, 1) * leaf


def _transposed(matrix):
    return ops.swapaxes(matrix, -1, -2)


def _symmetric(first, mixed, last):
    return _blocks(first, mixed, _transposed(mixed), last)


def _blocks(a, b, c, d):
    above = ops.concatenate([a, b], axis=-1)
    below = ops.concatenate([c, d], axis=-1)
    return ops.concatenate([above, below], axis=-2)
