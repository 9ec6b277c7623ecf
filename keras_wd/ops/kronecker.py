"""Kronecker-factored curvature: damping, inverses and preconditioning.

Legend:
    A   input factor, (..., n, n), or its diagonal (..., n)
    S   output factor, (..., m, m), or its diagonal (..., m)
    G   gradient of one layer as a matrix, (..., n, m): inputs by outputs, with
        the bias, if there is one, as the last row
    d   damping, a scalar >= 0, in units of the curvature A (x) S

Leading axes are groups: one small problem per group. The curvature of the
entries G[i, j] and G[k, l] is A[i, k] * S[j, l]: `kron(A, S)` in row-major
order. A tensor of the rank of its group axes plus one is a diagonal.
Functions with an argument `xp` take arrays of NumPy too, with `xp=numpy`.
"""

from collections.abc import Callable

from keras import ops

from keras_wd.ops import symmetric
from keras_wd.ops.packed import Split


def is_diagonal(factor, group_axes: int = 0) -> bool:
    """Whether `factor` holds a diagonal, given its number of group axes."""
    return len(factor.shape) == group_axes + 1


def mean_diagonal(factor, group_axes: int = 0, xp=ops):
    """The trace divided by the size, per group: (...,)."""
    if not is_diagonal(factor, group_axes):
        factor = xp.diagonal(factor, axis1=-2, axis2=-1)
    return xp.mean(factor, axis=-1)


def split_damping(
    input_factor, output_factor, damping, group_axes: int = 0, xp=ops
):
    """The damping of each factor, `(pi * sqrt(d), sqrt(d) / pi)`.

    Formula: `pi = sqrt((tr A / n) / (tr S / m))`, so that the damped product
    `(A + pi sqrt(d) I) (x) (S + sqrt(d)/pi I)` is the same however the scale
    is divided between A and S. Where a trace is not positive, pi is 1.

    Args:
        input_factor: A, (..., n, n) or (..., n).
        output_factor: S, (..., m, m) or (..., m).
        damping: d, a scalar.
        group_axes: number of leading axes that count groups.
        xp: `keras.ops` or `numpy`.

    Returns:
        Two tensors of the groups' shape.

    >>> from keras import ops
    >>> a, s = split_damping(4.0 * ops.eye(2), ops.eye(3), 0.01)
    >>> round(float(a), 4), round(float(s), 4)
    (0.2, 0.05)

    Source: Martens and Grosse, 2015, section 6.3.
    """
    inputs = mean_diagonal(input_factor, group_axes, xp)
    outputs = mean_diagonal(output_factor, group_axes, xp)
    usable = xp.logical_and(inputs > 0, outputs > 0)
    one = xp.ones_like(inputs)
    pi = xp.sqrt(xp.where(usable, inputs, one) / xp.where(usable, outputs, one))
    root = xp.sqrt(damping * one)
    return pi * root, root / pi


def damped_inverse(
    factor,
    damping,
    group_axes: int = 0,
    inverse: Callable = symmetric.inverse,
    size=None,
    xp=ops,
):
    """`(factor + damping * I)^-1` and whether it is usable.

    Args:
        factor: symmetric, (..., n, n), or a diagonal (..., n).
        damping: scalar or one number per group.
        group_axes: number of leading axes that count groups.
        inverse: function from a symmetric matrix to its inverse that returns
            NaN where it is not positive definite; it may overwrite the matrix.
        size: rows of a matrix that is filled up with zeros; its inverse is
            then filled up with the identity.
        xp: `keras.ops` or `numpy`.

    Returns:
        The inverse, of the shape of `factor`, and a boolean scalar: False if
        some group is not positive definite or not finite; the inverse is then
        not to be used.

    >>> from keras import ops
    >>> inverse, usable = damped_inverse(ops.ones((2, 2)), 1.0)
    >>> ops.convert_to_numpy(inverse).round(3).tolist(), bool(usable)
    ([[0.6669999957084656, -0.3330000042915344], \
[-0.3330000042915344, 0.6669999957084656]], True)
    """
    rows = factor.shape[-1]
    ones = xp.ones((rows,), dtype=factor.dtype)
    diagonal = xp.expand_dims(damping * ones[0], -1) * ones
    if is_diagonal(factor, group_axes):
        damped = factor + diagonal
        found = 1.0 / damped
        usable = xp.logical_and(xp.all(damped > 0), all_finite(damped, xp))
        return found, xp.logical_and(usable, all_finite(found, xp))
    if size is not None:
        diagonal = xp.where(xp.arange(rows) < size, diagonal, ones)
    damped = _with_diagonal(factor, diagonal, xp)
    # An infinite factor has a finite inverse, of zeros.
    finite = all_finite(damped, xp)
    found = inverse(damped)
    return found, xp.logical_and(finite, all_finite(found, xp))


def _with_diagonal(factor, diagonal, xp):
    if xp is ops:
        eye = xp.eye(factor.shape[-1], dtype=factor.dtype)
        return factor + xp.expand_dims(diagonal, -1) * eye
    damped = factor.copy()
    xp.einsum("...ii->...i", damped)[...] += diagonal
    return damped


def all_finite(tensor, xp=ops):
    """Whether every entry is finite; a boolean scalar."""
    return xp.all(xp.isfinite(tensor))


def multiply_left(factor, matrix, group_axes: int = 0):
    """`factor @ matrix` for a full, split or diagonal factor."""
    if isinstance(factor, Split):
        return factor.times(matrix)
    if is_diagonal(factor, group_axes):
        return ops.expand_dims(factor, -1) * matrix
    return ops.matmul(factor, matrix)


def multiply_right(matrix, factor, group_axes: int = 0):
    """`matrix @ factor` for a full, split or diagonal factor."""
    if isinstance(factor, Split):
        return factor.times(matrix, on_the_right=True)
    if is_diagonal(factor, group_axes):
        return matrix * ops.expand_dims(factor, -2)
    return ops.matmul(matrix, factor)


def multiply_both_sides(left, matrix, right, group_axes: int = 0):
    """`left @ matrix @ right`, either factor full or diagonal.

    With the inverses of the damped factors this is the K-FAC direction
    `A^-1 G S^-1`; with the factors themselves, the curvature times G.

    >>> from keras import ops
    >>> left, right = ops.array([2.0, 3.0]), ops.eye(2)
    >>> product = multiply_both_sides(left, ops.ones((2, 2)), right)
    >>> ops.convert_to_numpy(product).tolist()
    [[2.0, 2.0], [3.0, 3.0]]
    """
    matrix = multiply_left(left, matrix, group_axes)
    return multiply_right(matrix, right, group_axes)


def kl_scale(quadratic, learning_rate, kl_clip):
    """The factor that limits the KL divergence of one step.

    Formula: `min(1, sqrt(c / (lr^2 * q)))` with `q = sum g . F^-1 g` over the
    preconditioned variables. Convention: q carries no 1/2, and c bounds
    `lr^2 * q`, twice the KL divergence of the step to second order.

    >>> from keras import ops
    >>> round(float(kl_scale(ops.array(4.0), 0.5, 0.25)), 3)
    0.5

    Source: Zhang, Wang, Xu and Grosse, 2019, released code.
    """
    quadratic = ops.convert_to_tensor(quadratic)
    learning_rate = ops.cast(learning_rate, quadratic.dtype)
    step = ops.square(learning_rate) * quadratic
    # A condition is what XLA does not copy into the step of every tensor, with
    # the sums q consists of.
    return ops.cond(
        step > 0,
        lambda: ops.minimum(1.0, ops.sqrt(kl_clip / step)),
        lambda: ops.ones_like(step),
    )
