"""Symmetric matrices by halves: products and inverses out of large blocks.

A matrix product runs near the peak of the machine; a Cholesky decomposition
and a triangular solve do not, on a CPU by far. Splitting a matrix in two
turns most of their work into products, and leaves out the half of a symmetric
result that is the mirror image of the other.
"""

from collections.abc import Callable

from keras import ops

LEAF = 256  # rows of a block that is not split any more


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
    size = x.shape[-1]
    if size <= LEAF:
        return ops.matmul(_transposed(x), x)
    left, right = x[..., : size // 2], x[..., size // 2 :]
    return _symmetric(
        gram(left), ops.matmul(_transposed(left), right), gram(right)
    )


def gram_of_lower(root):
    """`root^T root` for a lower triangular matrix, (..., n, n)."""
    size = root.shape[-1]
    if size <= LEAF:
        return gram(root)
    half = size // 2
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
    half = size // 2
    first = inverse_root(matrix[..., :half, :half], cholesky)
    mixed = ops.matmul(matrix[..., half:, :half], _transposed(first))
    rest = matrix[..., half:, half:] - gram(_transposed(mixed))
    last = inverse_root(rest, cholesky)
    below = -ops.matmul(last, ops.matmul(mixed, first))
    return _blocks(first, ops.zeros_like(_transposed(below)), below, last)


def _transposed(matrix):
    return ops.swapaxes(matrix, -1, -2)


def _symmetric(first, mixed, last):
    return _blocks(first, mixed, _transposed(mixed), last)


def _blocks(a, b, c, d):
    above = ops.concatenate([a, b], axis=-1)
    below = ops.concatenate([c, d], axis=-1)
    return ops.concatenate([above, below], axis=-2)
