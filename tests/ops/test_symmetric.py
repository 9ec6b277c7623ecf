"""Products and inverses of symmetric matrices, whole and split in halves."""

import numpy as np
import pytest
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.ops import symmetric

SIZES = [1, 3, 8, 9, 20]


@pytest.fixture(autouse=True)
def small_leaf(monkeypatch):
    """Splits matrices of test size several times."""
    monkeypatch.setattr(symmetric, "LEAF", 8)
    monkeypatch.setattr(symmetric, "NUMPY_LEAF", 4)


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("groups", [(), (2,)])
@pytest.mark.parametrize("size", SIZES)
def test_gram_is_the_product(size, groups):
    for count in (2, 20):
        x = rows(*groups, count, size)
        result = numpy(symmetric.gram(ops.convert_to_tensor(x)))
        exact = np.swapaxes(x.astype("float64"), -1, -2) @ x
        np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [(), (3,)])
@pytest.mark.parametrize("size", SIZES)
def test_gram_of_lower_is_the_product(size, groups):
    root = np.tril(rows(*groups, size, size))
    result = numpy(symmetric.gram_of_lower(ops.convert_to_tensor(root)))
    exact = np.swapaxes(root.astype("float64"), -1, -2) @ root
    np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [(), (3,)])
@pytest.mark.parametrize("size", SIZES)
def test_inverse_root_inverts_the_cholesky_factor(size, groups):
    x = rows(*groups, size + 5, size)
    matrix = np.swapaxes(x, -1, -2) @ x / size + 0.1 * np.eye(size, dtype="f4")
    root = symmetric.inverse_root(
        ops.convert_to_tensor(matrix), autodiff.cholesky
    )
    exact = np.linalg.inv(np.linalg.cholesky(matrix.astype("float64")))
    np.testing.assert_allclose(numpy(root), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position", [0, 11, 19])
def test_a_matrix_that_is_not_positive_definite_has_no_root(position):
    matrix = np.eye(20, dtype="float32")
    matrix[position, position] = -1.0
    root = symmetric.inverse_root(
        ops.convert_to_tensor(matrix), autodiff.cholesky
    )
    inverse = symmetric.gram_of_lower(root)
    assert not np.all(np.isfinite(numpy(inverse)))


@pytest.mark.parametrize("size", [4, 8, 10])
def test_the_inverse_by_a_loop_is_the_inverse(size, monkeypatch):
    monkeypatch.setattr(symmetric, "PANEL", 4)
    x = rows(size + 5, size)
    matrix = x.T @ x / size + 0.1 * np.eye(size, dtype="f4")
    found = numpy(
        symmetric.inverse(
            ops.convert_to_tensor(matrix), autodiff.cholesky, written_out=3
        )
    )
    np.testing.assert_array_equal(found, found.T)
    exact = np.linalg.inv(matrix.astype("float64"))
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)
    matrix[-1, -1] = -1.0
    found = symmetric.inverse(
        ops.convert_to_tensor(matrix), autodiff.cholesky, written_out=3
    )
    assert not np.isfinite(numpy(found)).all()


@pytest.mark.parametrize("groups", [(), (3,)])
@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_by_numpy_is_the_inverse(size, groups):
    x = rows(*groups, size + 5, size)
    matrix = np.swapaxes(x, -1, -2) @ x / size + 0.1 * np.eye(size, dtype="f4")
    found = symmetric.inverse_by_numpy(
        np.where(np.tri(size, dtype=bool), matrix, np.float32(np.nan))
    )
    assert found.dtype == matrix.dtype
    np.testing.assert_array_equal(found, np.swapaxes(found, -1, -2))
    exact = np.linalg.inv(matrix.astype("float64"))
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)
    matrix[..., -1, -1] = -1.0
    assert np.isnan(symmetric.inverse_by_numpy(matrix)).all()
