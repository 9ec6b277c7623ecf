"""Second moments of the rows that enter or leave a layer."""

from collections.abc import Sequence

from keras import ops

from keras_wd.ops.symmetric import gram


def flat_rows(tensor, dtype: str):
    """(..., n) as (rows, n), in the dtype of the factors."""
    return ops.cast(ops.reshape(tensor, (-1, tensor.shape[-1])), dtype)


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


def with_constant(moment, sums, count: int):
    """The moment of rows that end in a 1, from the moment without it.

    Saves a copy of all rows, which are many in a convolution.

    Args:
        moment: (..., n, n) or the diagonal (..., n), summed over rows.
        sums: (..., n), sum of the rows.
        count: number of rows.
    """
    corner = ops.ones_like(sums[..., :1]) * count
    if len(moment.shape) == len(sums.shape):
        return ops.concatenate([moment, corner], axis=-1)
    column = ops.expand_dims(sums, -1)
    above = ops.concatenate([moment, column], axis=-1)
    below = ops.expand_dims(ops.concatenate([sums, corner], axis=-1), -2)
    return ops.concatenate([above, below], axis=-2)


def input_factor(uses: Sequence, bias: bool, diagonal: bool):
    """A: the mean of `a a^T` over the rows of all uses of a layer."""
    total = sum(second_moment(rows, diagonal) for rows in uses)
    count = sum(rows.shape[0] for rows in uses)
    if bias:
        sums = sum(ops.sum(rows, axis=0) for rows in uses)
        total = with_constant(total, sums, count)
    return total / count


def output_factor(uses: Sequence, loss_elements: int, diagonal: bool):
    """S: the sum of `g g^T` over the rows of all uses, per loss element."""
    total = sum(second_moment(rows, diagonal) for rows in uses)
    return total / loss_elements
