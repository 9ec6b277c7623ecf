"""The Kronecker math against dense products in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.ops import kronecker
from keras_wd.ops import symmetric

# float32 against float64: eps times the condition number, here below 1e3.
TOLERANCE = 2e-4


def positive(rng, *shape):
    root = rng.normal(size=(*shape, shape[-1] + 2))
    return root @ np.swapaxes(root, -1, -2) / shape[-1]


def tensors(*arrays):
    return [ops.convert_to_tensor(a.astype("float32")) for a in arrays]


def dense_pi(a, s):
    return np.sqrt((np.trace(a) / len(a)) / (np.trace(s) / len(s)))


@settings(max_examples=15, deadline=None)
@given(
    # Few sizes: JAX compiles for each.
    sizes=st.sampled_from([(1, 6), (5, 1), (5, 6)]),
    damping=st.floats(1e-2, 10.0),
    scale=st.floats(1e-2, 1e2),
    seed=st.integers(0, 99),
)
def test_damped_preconditioning_is_the_dense_kronecker_solve(
    sizes, damping, scale, seed
):
    n, m = sizes
    rng = np.random.default_rng(seed)
    a, s = scale * positive(rng, n), positive(rng, m) / scale
    gradient = rng.normal(size=(n, m))
    pi = dense_pi(a, s)
    dense = np.kron(
        a + pi * np.sqrt(damping) * np.eye(n),
        s + np.sqrt(damping) / pi * np.eye(m),
    )
    expected = np.linalg.solve(dense, gradient.ravel()).reshape(n, m)

    a32, s32, g32 = tensors(a, s, gradient)
    dampings = kronecker.split_damping(a32, s32, damping)
    left, good = kronecker.damped_inverse(a32, dampings[0])
    right, fine = kronecker.damped_inverse(s32, dampings[1])
    result = kronecker.multiply_both_sides(left, g32, right)
    assert bool(good) and bool(fine)
    np.testing.assert_allclose(
        ops.convert_to_numpy(result),
        expected,
        rtol=TOLERANCE,
        atol=TOLERANCE * np.abs(expected).max(),
    )


def test_diagonal_factors_equal_the_same_factors_in_full():
    rng = np.random.default_rng(0)
    a, s = rng.uniform(0.1, 2.0, 4), rng.uniform(0.1, 2.0, 3)
    gradient = rng.normal(size=(4, 3))
    thin = tensors(a, s)
    full = tensors(np.diag(a), np.diag(s))
    (g32,) = tensors(gradient)
    results = []
    for inputs, outputs in (thin, full):
        dampings = kronecker.split_damping(inputs, outputs, 0.3)
        left, _ = kronecker.damped_inverse(inputs, dampings[0])
        right, _ = kronecker.damped_inverse(outputs, dampings[1])
        product = kronecker.multiply_both_sides(left, g32, right)
        results.append(ops.convert_to_numpy(product))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_groups_are_independent_problems():
    rng = np.random.default_rng(1)
    a, s = positive(rng, 3, 4), positive(rng, 3, 2)
    gradient = rng.normal(size=(3, 4, 2))
    a32, s32, g32 = tensors(a, s, gradient)
    dampings = kronecker.split_damping(a32, s32, 0.1, group_axes=1)
    left, _ = kronecker.damped_inverse(a32, dampings[0], 1)
    right, _ = kronecker.damped_inverse(s32, dampings[1], 1)
    result = kronecker.multiply_both_sides(left, g32, right, 1)
    for group in range(3):
        pi = dense_pi(a[group], s[group])
        dense = np.kron(
            a[group] + pi * np.sqrt(0.1) * np.eye(4),
            s[group] + np.sqrt(0.1) / pi * np.eye(2),
        )
        expected = np.linalg.solve(dense, gradient[group].ravel())
        np.testing.assert_allclose(
            ops.convert_to_numpy(result)[group].ravel(), expected, rtol=1e-3
        )


@given(scale=st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_damping_split_does_not_depend_on_how_scale_is_divided(scale):
    rng = np.random.default_rng(2)
    a, s = positive(rng, 3), positive(rng, 2)
    base = kronecker.split_damping(*tensors(a, s), 0.01)
    moved = kronecker.split_damping(*tensors(a * scale, s / scale), 0.01)
    np.testing.assert_allclose(float(moved[0]), scale * float(base[0]), 1e-5)
    np.testing.assert_allclose(float(moved[1]), float(base[1]) / scale, 1e-5)


def test_dead_factor_takes_the_damping_alone():
    a, s = tensors(np.eye(3), np.zeros((2, 2)))
    dampings = kronecker.split_damping(a, s, 0.04)
    np.testing.assert_allclose([float(d) for d in dampings], 0.2, rtol=1e-6)
    inverse, good = kronecker.damped_inverse(s, dampings[1])
    assert bool(good)
    np.testing.assert_allclose(
        ops.convert_to_numpy(inverse), 5.0 * np.eye(2), rtol=1e-5
    )


@pytest.mark.parametrize(
    "factor",
    [
        np.array([[1.0, 2.0], [2.0, 1.0]]),
        np.array([[np.nan, 0.0], [0.0, 1.0]]),
        np.array([[np.inf, 0.0], [0.0, 1.0]]),
        np.array([1.0, 0.0]),
        np.array([1.0, -1.0]),
        np.array([np.nan, 1.0]),
    ],
    ids=["indefinite", "nan", "inf", "zero", "negative", "nan diagonal"],
)
def test_unusable_factor_is_reported(factor):
    def positive_inverse(matrix):
        return symmetric.inverse(matrix, autodiff.cholesky)

    _, good = kronecker.damped_inverse(
        *tensors(factor), 0.0, inverse=positive_inverse
    )
    assert not bool(good)


def test_rank_one_factor_has_an_inverse_under_damping():
    v = np.array([[1.0], [2.0], [3.0]])
    inverse, good = kronecker.damped_inverse(*tensors(v @ v.T), 0.1)
    assert bool(good)
    expected = np.linalg.inv(v @ v.T + 0.1 * np.eye(3))
    np.testing.assert_allclose(
        ops.convert_to_numpy(inverse), expected, rtol=1e-3
    )


def test_one_by_one_factor():
    inverse, good = kronecker.damped_inverse(*tensors(np.array([[3.0]])), 1.0)
    assert bool(good)
    np.testing.assert_allclose(ops.convert_to_numpy(inverse), [[0.25]], 1e-6)


def test_inverse_of_the_identity_is_exact():
    inverse, _ = kronecker.damped_inverse(*tensors(np.eye(5)), 0.0)
    np.testing.assert_array_equal(ops.convert_to_numpy(inverse), np.eye(5))


@given(
    quadratic=st.floats(1e-6, 1e6),
    rate=st.floats(1e-4, 10.0),
    clip=st.floats(1e-6, 1e2),
)
@settings(max_examples=25, deadline=None)
def test_kl_scale_bounds_the_step(quadratic, rate, clip):
    scale = float(kronecker.kl_scale(ops.array(quadratic), rate, clip))
    assert 0 < scale <= 1
    step = (scale * rate) ** 2 * quadratic
    assert step <= clip * (1 + 1e-4)
    if scale < 1:
        np.testing.assert_allclose(step, clip, rtol=1e-4)


def test_kl_scale_of_no_step_is_one():
    assert float(kronecker.kl_scale(ops.array(0.0), 0.1, 1e-3)) == 1.0
