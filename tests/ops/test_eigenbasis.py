"""Curvature in a Kronecker eigenbasis, against dense matrices in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_wd.ops import eigenbasis

# (n, m, examples, places). Few of them: JAX compiles for each.
SIZES = st.sampled_from(
    [(1, 1, 1, 1), (4, 2, 1, 2), (2, 3, 6, 1), (3, 4, 5, 3), (4, 4, 2, 1)]
)
SEEDS = st.integers(0, 99)


pytestmark = pytest.mark.usefixtures("float64")


def drawn(n, m, examples, places, seed):
    """Rows in, gradients out, (examples, places, ...), that go together."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(examples, places, n))
    grads = rng.normal(size=(examples, places, m)) * (1 + rows[..., :1] ** 2)
    return rows, grads


def dense(rows, grads):
    """`sum over examples of vec(G) vec(G)^T` and the Kronecker factors."""
    gradients = np.einsum("etn,etm->enm", rows, grads)
    flat = gradients.reshape(len(gradients), -1)
    places = rows.shape[0] * rows.shape[1]
    inputs = np.einsum("etn,etk->nk", rows, rows) / places
    outputs = np.einsum("etm,etk->mk", grads, grads)
    return flat.T @ flat, inputs, outputs


def tensor(array):
    return ops.convert_to_tensor(array, dtype="float64")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def fitted(rows, grads, inputs, outputs):
    """Bases and the moments in them."""
    u, a, good = eigenbasis.eigenbasis(tensor(inputs))
    v, s, fine = eigenbasis.eigenbasis(tensor(outputs))
    assert bool(good) and bool(fine)
    moments = eigenbasis.second_moments(
        ops.matmul(tensor(rows), u), ops.matmul(tensor(grads), v)
    )
    products = eigenbasis.products(a, s)
    return map(array, (u, v, moments, products))


def matrix(u, v, moments):
    basis = np.kron(u, v)
    return basis * moments.ravel() @ basis.T


@given(sizes=SIZES, seed=SEEDS)
def test_moments_are_the_diagonal_and_no_further_from_the_exact_block(
    sizes, seed
):
    rows, grads = drawn(*sizes, seed)
    exact, inputs, outputs = dense(rows, grads)
    u, v, moments, products = fitted(rows, grads, inputs, outputs)
    basis = np.kron(u, v)
    diagonal = np.diag(basis.T @ exact @ basis)
    np.testing.assert_allclose(moments.ravel(), diagonal, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(
        matrix(u, v, products), np.kron(inputs, outputs), rtol=1e-8, atol=1e-8
    )
    ours = np.linalg.norm(matrix(u, v, moments) - exact)
    others = np.linalg.norm(np.kron(inputs, outputs) - exact)
    assert ours <= others + 1e-9 * np.linalg.norm(exact)


@given(sizes=SIZES, seed=SEEDS)
def test_moments_carried_over_are_the_diagonal_of_what_was_known(sizes, seed):
    old = list(fitted(*(d := drawn(*sizes, seed)), *dense(*d)[1:]))
    new = list(fitted(*(d := drawn(*sizes, seed + 1)), *dense(*d)[1:]))
    found = eigenbasis.transferred(
        tensor(old[2]),
        *(
            eigenbasis.overlap(tensor(a), tensor(b))
            for a, b in zip(old[:2], new[:2], strict=True)
        ),
    )
    basis = np.kron(*new[:2])
    expected = np.diag(basis.T @ matrix(*old[:3]) @ basis)
    found = array(found)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.sum(), old[2].sum(), rtol=1e-8)


def test_moments_example_by_example_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    rows, grads = rng.normal(size=(3, 2, 4, 2)), rng.normal(size=(3, 2, 4, 5))
    found = []
    for entries in (2**25, 1):
        monkeypatch.setattr(eigenbasis, "MOST_ENTRIES", entries)
        found.append(
            array(eigenbasis.second_moments(tensor(rows), tensor(grads)))
        )
    expected = np.einsum("etgn,etgm->egnm", rows, grads) ** 2
    for one in found:
        np.testing.assert_allclose(one, expected.sum(axis=0), rtol=1e-10)


def test_axes_are_the_basis_of_a_diagonal():
    g, v = np.ones((2, 3)), np.linalg.qr(np.ones((3, 3)) + np.eye(3))[0]
    inside = eigenbasis.into_basis(tensor(g), None, tensor(v))
    np.testing.assert_allclose(array(inside), g @ v)
    back = eigenbasis.out_of_basis(inside, None, tensor(v))
    np.testing.assert_allclose(array(back), g)


def test_what_is_not_finite_has_no_basis():
    bad = np.full((2, 2), np.nan)
    assert not bool(eigenbasis.eigenbasis(tensor(bad))[2])
