"""Symmetric matrices without the half that is the mirror image of the other.

`rectangle`  all of a matrix in one array, for what is read now and then
`split`      in square blocks, for what every step multiplies by

A step multiplies by the blocks as they are: putting a matrix together first
takes longer than half of it is worth.
"""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_wd.ops import symmetric

RECTANGLE_ABOVE = 512  # rows of the largest matrix that is kept whole
SPLIT_ABOVE = 1536  # rows of the largest block that is not split


def is_rectangle(shape: Sequence[int]) -> bool:
    """Whether a matrix of this shape is kept as a rectangle.

    One of several, with leading axes, is not.
    """
    return len(shape) == 2 and shape[0] == shape[1] > RECTANGLE_ABOVE


def rectangle_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of `rectangle`, or the same where a matrix is kept whole.

    >>> rectangle_shape((1024, 1024)), rectangle_shape((64, 64))
    ((1025, 512), (64, 64))
    """
    if not is_rectangle(shape):
        return tuple(shape)
    first, last, _ = _halves(shape[-1])
    return (2 * last + 1, first)


def rectangle(matrix):
    """The n (n + 1) / 2 entries of a symmetric matrix, (n, n).

    Formula: with `matrix = [[A, C^T], [C, B]]`, C, and below it an array whose
    lower triangle is A's and whose upper one is B's.

    Source: Gustavson, Wasniewski, Dongarra and Langou, 2010, "Rectangular
    Full Packed Format for Cholesky's Algorithm".
    """
    first, _, _ = _halves(matrix.shape[-1])
    return _of_parts(
        matrix[:first, :first], matrix[first:, first:], matrix[first:, :first]
    )


def rectangle_of_gram(x):
    """The rectangle of `x^T x`, which is not put together; x is (rows, n)."""
    first, _, _ = _halves(x.shape[-1])
    left, right = x[:, :first], x[:, first:]
    return _of_parts(
        symmetric.gram(left),
        symmetric.gram(right),
        symmetric.products(right, left),
    )


def _of_parts(a, b, c):
    even = int(a.shape == b.shape)
    triangles = ops.pad(ops.tril(a), ((even, 0), (0, 0)))
    triangles = triangles + ops.pad(ops.triu(b), ((0, 1), (1 - even, 0)))
    return ops.concatenate([c, triangles], axis=0)


def from_rectangle(packed, xp=ops):
    """The matrix of `rectangle`, (n, n).

    Args:
        packed: what `rectangle` returned.
        xp: `keras.ops` or `numpy`.
    """
    last = (packed.shape[0] - 1) // 2
    first = packed.shape[1]
    even = int(first == last)
    c, triangles = packed[:last], packed[last:]
    a, b = triangles[even:], triangles[:last, 1 - even :]
    a = xp.where(_lower(first, xp), a, xp.transpose(a))
    b = xp.where(_lower(last, xp), xp.transpose(b), b)
    above = xp.concatenate([a, xp.transpose(c)], axis=1)
    below = xp.concatenate([c, b], axis=1)
    return xp.concatenate([above, below], axis=0)


def lower_of_rectangle(packed: np.ndarray) -> np.ndarray:
    """The matrix of `rectangle` on and below its diagonal, (n, n).

    Above it are other numbers of the matrix: no half is written twice.
    """
    last, first = (packed.shape[0] - 1) // 2, packed.shape[1]
    even = int(first == last)
    matrix = np.empty((first + last,) * 2, packed.dtype)
    matrix[first:, :first] = packed[:last]
    matrix[:first, :first] = packed[last + even :]
    matrix[first:, first:] = packed[last : 2 * last, 1 - even :].T
    matrix[:first, first:] = 0.0
    return matrix


def _halves(rows):
    """Rows of the first part, of the second, and whether they are equal."""
    return rows - rows // 2, rows // 2, 1 - rows % 2


def _lower(rows, xp):
    """Which entries are on or below the diagonal."""
    return xp.arange(rows)[:, None] >= xp.arange(rows)


def split_shapes(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes of `split`: one, where a matrix is kept whole.

    >>> split_shapes((2048, 2048))
    [(1024, 1024), (1024, 1024), (1024, 1024)]
    """
    if len(shape) != 2 or not shape[0] == shape[1] > SPLIT_ABOVE:
        return [tuple(shape)]
    half = shape[0] // 2
    rest = shape[0] - half
    return [
        *split_shapes((half, half)),
        (rest, half),
        *split_shapes((rest, rest)),
    ]


def split(matrix) -> list:
    """The blocks of a symmetric matrix, on the diagonal and below it.

    Formula: `[[A, C^T], [C, B]]` is A, C, B, and so are A and B until they
    are small.

    Args:
        matrix: (n, n), or anything that is kept whole.
    """
    if len(split_shapes(matrix.shape)) == 1:
        return [matrix]
    half = matrix.shape[0] // 2
    return [
        *split(matrix[:half, :half]),
        matrix[half:, :half],
        *split(matrix[half:, half:]),
    ]


@dataclasses.dataclass(frozen=True)
class Split:
    """A symmetric matrix by its blocks.

    Args:
        blocks: what `split` returned, several.
        shape: of the matrix.
    """

    blocks: Sequence[Any]
    shape: Sequence[int]

    @property
    def dtype(self):
        """The dtype of the blocks."""
        return self.blocks[0].dtype

    def times(self, matrix, on_the_right: bool = False):
        """The product with a matrix, `self @ matrix` or `matrix @ self`."""
        return _product(iter(self.blocks), self.shape[0], matrix, on_the_right)


def _product(blocks: Iterator, rows, matrix, on_the_right):
    if len(split_shapes((rows, rows))) == 1:
        block = next(blocks)
        if on_the_right:
            return ops.matmul(matrix, block)
        return ops.matmul(block, matrix)
    half = rows // 2
    axis = -1 if on_the_right else -2
    first, last = ops.split(matrix, [half], axis=axis)
    above = _product(blocks, half, first, on_the_right)
    block = next(blocks)
    below = _product(blocks, rows - half, last, on_the_right)
    mirrored = ops.swapaxes(block, -1, -2)
    if on_the_right:
        above = above + ops.matmul(last, block)
        below = below + ops.matmul(first, mirrored)
    else:
        above = above + ops.matmul(mirrored, last)
        below = below + ops.matmul(block, first)
    return ops.concatenate([above, below], axis=axis)
