"""Second moments of the rows that enter or leave a layer."""

import functools
import operator
from collections.abc import Iterable
from collections.abc import Sequence

from keras import ops

from keras_wd.ops.packed import is_rectangle
from keras_wd.ops.packed import rectangle_of_gram
from keras_wd.ops.symmetric import gram


def added(tensors: Iterable):
    """Their sum; that of Python begins with a 0, which costs operations."""
    return functools.reduce(operator.add, tensors)


def flat_rows(tensor, dtype: str):
    """(..., n) as (rows, n), in the dtype of the factors."""
    if len(tensor.shape) != 2:
        tensor = ops.reshape(tensor, (-1, tensor.shape[-1]))
    return ops.cast(tensor, dtype)


def second_moment(rows, diagonal: bool):
    """Sum of `row row^T` over rows, or its diagonal.

    Args:
        rows: (rows, n), or (rows, groups, n) for one moment per group.
        diagonal: sum of the squares only.

    Returns:
        (n, n) or (n,), with a leading group axis if there are groups.
    """
    if diagonal:
        return ops.sum(ops.square(rows), axis=0)
    if len(rows.shape) == 2:
        return gram(rows)
    return gram(ops.transpose(rows, (1, 0, 2)))


def kept_moment(rows, diagonal: bool):
    """`second_moment` as it is kept, a large one as a rectangle."""
    size = rows.shape[-1]
    if diagonal or len(rows.shape) > 2 or not is_rectangle((size, size)):
        return second_moment(rows, diagonal)
    return rectangle_of_gram(rows)


def with_constant(moment, sums, count):
    """The moment of rows that end in a 1, from the moment without it.

    Saves a copy of all rows, which are many in a convolution.

    Args:
        moment: (..., n, n) or the diagonal (..., n), summed over rows.
        sums: (..., n), sum of the rows.
        count: number of rows, or the sum of their weights.
    """
    corner = ops.ones_like(sums[..., :1]) * count
    if len(moment.shape) == len(sums.shape):
        return ops.concatenate([moment, corner], axis=-1)
    column = ops.expand_dims(sums, -1)
    above = ops.concatenate([moment, column], axis=-1)
    below = ops.expand_dims(ops.concatenate([sums, corner], axis=-1), -2)
    return ops.concatenate([above, below], axis=-2)


def with_one(rows):
    """Rows that end in a 1."""
    return ops.concatenate([rows, ops.ones_like(rows[..., :1])], axis=-1)


def weighed(rows, weights):
    """Rows times the root of their weights, (rows, n) or (rows, groups, n)."""
    missing = (1,) * (len(rows.shape) - 1)
    root = ops.cast(ops.sqrt(weights), rows.dtype)
    return rows * ops.reshape(root, (-1, *missing))


def input_factor(uses: Sequence, bias: bool, diagonal: bool):
    """A: the mean of `a a^T` over the rows of all uses of a layer.

    It may be whole or as it is kept.

    Args:
        uses: pairs of rows and of their weights, None where all are one.
        bias: whether a final 1 belongs to every row.
        diagonal: the diagonal only.
    """
    if bias and all(rows.shape[0] <= rows.shape[-1] for rows, _ in uses):
        # A copy of few rows takes less than one of the moment.
        uses = [(with_one(rows), weights) for rows, weights in uses]
        bias = False
    moment = second_moment if bias else kept_moment
    moments, sums, counts = [], [], []
    for rows, weights in uses:
        if weights is None:
            counts.append(float(rows.shape[0]))
            moments.append(moment(rows, diagonal))
            if bias:
                sums.append(ops.sum(rows, axis=0))
            continue
        weights = ops.cast(weights, rows.dtype)
        scaled = weighed(rows, weights)
        counts.append(ops.sum(weights))
        moments.append(moment(scaled, diagonal))
        if bias:
            sums.append(ops.sum(weighed(scaled, weights), axis=0))
    total, count = added(moments), added(counts)
    if bias:
        total = with_constant(total, added(sums), count)
    if isinstance(count, float):
        return total / count
    return ops.divide_no_nan(total, count)


def output_factor(uses: Sequence, loss_elements, diagonal: bool):
    """S: the sum of `g g^T` over the rows of all uses, per loss element.

    It may be whole or as it is kept.
    """
    total = added(kept_moment(rows, diagonal) for rows in uses)
    return total / ops.cast(loss_elements, total.dtype)


def mean_rows(rows, weights, examples: int):
    """The mean row of every example, and the example's weight.

    Args:
        rows: (examples * places, ...), the places of an example together.
        weights: one per row, or None.
        examples: how many there are.
    """
    places = rows.shape[0] // examples
    if places == 1:
        return rows, weights
    split = ops.reshape(rows, (examples, places, *rows.shape[1:]))
    if weights is None:
        return ops.mean(split, axis=1), None
    weights = ops.reshape(weights, (examples, places))
    own = ops.mean(weights, axis=1)
    parts = ops.divide_no_nan(weights, own[:, None] * places)
    missing = (1,) * (len(rows.shape) - 1)
    parts = ops.cast(ops.reshape(parts, (*parts.shape, *missing)), rows.dtype)
    return ops.sum(split * parts, axis=1), own


def summed_rows(rows, examples: int):
    """The sum of the rows of every example, (examples, ...)."""
    places = rows.shape[0] // examples
    if places == 1:
        return rows
    split = ops.reshape(rows, (examples, places, *rows.shape[1:]))
    return ops.sum(split, axis=1)


def in_basis(rows, basis, constant: bool = False):
    """Rows in an eigenbasis, (rows, n) or (rows, groups, n).

    Args:
        rows: without the final 1.
        basis: eigenvectors as columns, (n, n) or (groups, n, n), or None.
        constant: whether a final 1 belongs to every row.
    """
    if basis is None:
        if not constant:
            return rows
        return with_one(rows)
    below = None
    if constant:
        basis, below = basis[..., :-1, :], basis[..., -1, :]
    if len(rows.shape) == 2:
        rows = ops.matmul(rows, basis)
    else:
        rows = ops.einsum("rgn,gnk->rgk", rows, basis)
    return rows if below is None else rows + below


def by_example(entering: Sequence, leaving: Sequence, examples) -> list:
    """Pairs of rows as (examples, places, ...), over all uses of a layer.

    Args:
        entering: rows that enter, per use.
        leaving: rows that leave, per use.
        examples: how many, per use.
    """

    def split(rows, count):
        return ops.reshape(rows, (count, -1, *rows.shape[1:]))

    pairs = [
        (split(a, count), split(g, count))
        for a, g, count in zip(entering, leaving, examples, strict=True)
    ]
    if len(set(examples)) == 1 and len(pairs) > 1:
        # The uses of an example are places of it.
        parts = zip(*pairs, strict=True)
        pairs = [tuple(ops.concatenate(part, axis=1) for part in parts)]
    return pairs


def gradients(rows, grads):
    """`sum over places of a g^T`, (examples, ..., n, m)."""
    return ops.einsum("et...n,et...m->e...nm", rows, grads)
