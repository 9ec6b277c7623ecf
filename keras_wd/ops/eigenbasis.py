"""Curvature that is diagonal in the eigenbasis of Kronecker factors.

Legend, as in `keras_wd.ops.kronecker`:
    A, S  input and output factor, (..., n, n) and (..., m, m)
    U, V  their eigenvectors as columns, or None for a diagonal factor, whose
          eigenvectors are the axes
    G     gradient of one layer as a matrix, (..., n, m)
    M     second moments in the basis, (..., n, m): `M[i, j]` is the mean of
          `(U^T G V)[i, j]^2` over the gradients G of single examples

The curvature is `(U (x) V) diag(M) (U (x) V)^T`: of all matrices with these
eigenvectors the one nearest to `E[vec(G) vec(G)^T]` in the Frobenius norm,
which `A (x) S`, the one with `M = a s^T` of their eigenvalues, is too.
"""

import numpy as np
from keras import ops


def eigenbasis(factor, xp=ops):
    """Eigenvectors and eigenvalues, and whether they are usable.

    Args:
        factor: symmetric, (..., n, n).
        xp: `keras.ops` or `numpy`.

    Returns:
        U (..., n, n) with the eigenvectors as columns, the eigenvalues
        (..., n) in ascending order, negative ones (which rounding makes) as
        zeros; a boolean scalar.
    """
    finite = xp.all(xp.isfinite(factor))
    eye = xp.eye(factor.shape[-1], dtype=factor.dtype)
    # Some decompositions raise an error for a NaN.
    try:
        values, vectors = xp.linalg.eigh(xp.where(finite, factor, eye))
    except np.linalg.LinAlgError:  # NumPy's, where it does not converge
        return eye, xp.zeros_like(eye[0]), False
    usable = xp.logical_and(finite, xp.all(xp.isfinite(vectors)))
    usable = xp.logical_and(usable, xp.all(xp.isfinite(values)))
    return vectors, xp.maximum(values, 0.0), usable


def into_basis(matrix, inputs, outputs, xp=ops):
    """`U^T G V`.

    Args:
        matrix: G, (..., n, m).
        inputs: U, or None.
        outputs: V, or None.
        xp: `keras.ops` or `numpy`.
    """
    if inputs is not None:
        matrix = xp.matmul(xp.swapaxes(inputs, -1, -2), matrix)
    return matrix if outputs is None else xp.matmul(matrix, outputs)


def out_of_basis(matrix, inputs, outputs):
    """`U G V^T`, the inverse of `into_basis`."""
    if inputs is not None:
        matrix = ops.matmul(inputs, matrix)
    if outputs is None:
        return matrix
    return ops.matmul(matrix, ops.swapaxes(outputs, -1, -2))


def overlap(old, new, xp=ops):
    """`(U_old^T U_new)^2`, entry by entry: how much of one is the other."""
    return xp.square(xp.matmul(xp.swapaxes(old, -1, -2), new))


def transferred(moments, inputs, outputs, xp=ops):
    """The moments in another basis, of the curvature known in the old one.

    Formula: `P^T M Q` with P, Q the overlaps of the bases of the inputs and of
    the outputs: the diagonal, in the new basis, of what was diagonal in the
    old one. The trace stays what it is.

    Args:
        moments: M, (..., n, m).
        inputs: P (..., n, n), or None where the basis is the axes.
        outputs: Q (..., m, m), or None.
        xp: `keras.ops` or `numpy`.
    """
    return into_basis(moments, inputs, outputs, xp)


def products(inputs, outputs):
    """`M = a s^T`, the moments with which the curvature is `A (x) S`.

    Args:
        inputs: eigenvalues of A, (..., n).
        outputs: eigenvalues of S, (..., m).
    """
    return inputs[..., :, None] * outputs[..., None, :]


def second_moments(rows, grads):
    """`sum over examples of (sum over places of a g^T)^2`, (..., n, m).

    Args:
        rows: what enters, in the basis, (examples, places, n), or
            (examples, places, groups, n).
        grads: what leaves, in the basis, (examples, places, m), or
            (examples, places, groups, m).

    >>> from keras import ops
    >>> rows = ops.array([[[1.0], [2.0]]])
    >>> grads = ops.array([[[3.0], [-1.0]]])
    >>> float(second_moments(rows, grads)[0, 0])
    1.0
    """
    if rows.shape[1] == 1:
        rows, grads = ops.square(rows[:, 0]), ops.square(grads[:, 0])
        return ops.einsum("e...n,e...m->...nm", rows, grads)
    examples, n, m = rows.shape[0], rows.shape[-1], grads.shape[-1]
    groups = rows.shape[2] if len(rows.shape) == 4 else 1
    if examples * groups * n * m <= MOST_ENTRIES:
        each = ops.einsum("et...n,et...m->e...nm", rows, grads)
        return ops.sum(ops.square(each), axis=0)

    def add(total, pair):
        one = ops.einsum("t...n,t...m->...nm", *pair)
        return total + ops.square(one), None

    shape = (*rows.shape[2:], m)
    start = ops.zeros(shape, dtype=rows.dtype)
    return ops.scan(add, start, (rows, grads))[0]


# Of the gradients of all examples at once; more are made one by one.
MOST_ENTRIES = 2**25
