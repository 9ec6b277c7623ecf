import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_wd.ops import group_norm
from keras_wd.ops import lp_gradient
from keras_wd.ops import lp_penalty
from keras_wd.ops import reduced_axes
from keras_wd.ops.norms import total
from tests import reference

EXPONENTS = [0.1, 0.5, 2 / 3, 0.8, 1.0, 1.2, 4 / 3, 1.5, 2.0, 2.5, 3.0, 4.0]


def weights(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    "rank, axis, expected",
    [
        (2, -1, (0,)),
        (2, 1, (0,)),
        (2, -2, (1,)),
        (4, -1, (0, 1, 2)),
        (4, (-2, -1), (0, 1)),
        (4, (2, 3), (0, 1)),
        (4, (3, 2), (0, 1)),
        (4, (0, -1), (1, 2)),
        (3, None, (0, 1, 2)),
        (2, (0, 1), ()),
        (1, -1, ()),
    ],
)
def test_reduced_axes(rank, axis, expected):
    assert reduced_axes(rank, axis) == expected


@pytest.mark.parametrize(
    "shape, axis, summed",
    [
        ((5, 3), -1, (0,)),
        ((5, 3), -2, (1,)),
        ((3, 3, 4, 6), -1, (0, 1, 2)),
        ((3, 3, 4, 2), (-2, -1), (0, 1)),
        ((3, 3, 4, 2), None, (0, 1, 2, 3)),
        ((7,), -1, ()),
    ],
)
def test_group_norm_is_the_reference(shape, axis, summed):
    w = weights(*shape)
    result = ops.convert_to_numpy(group_norm(ops.convert_to_tensor(w), axis))
    expected = reference.group_norm(w, summed)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "shape, axes",
    [
        ((100, 7), None),
        ((100, 7), (0,)),
        ((7, 100), (1,)),
        ((2, 37, 3), (1,)),
        ((40, 2, 40), (0, 2)),
        ((32, 1), (0,)),
        ((), ()),
    ],
)
def test_a_total_counts_every_term_once(shape, axes):
    # Signed whole numbers, whose sums are exact in any order.
    x = np.random.default_rng(0).integers(-9, 9, shape).astype("float32")
    found = ops.convert_to_numpy(total(ops.convert_to_tensor(x), axes))
    np.testing.assert_array_equal(found, np.sum(x, axes, keepdims=True))


def test_a_total_with_what_is_not_finite_is_not_finite():
    x = np.ones((100, 2), "float32")
    x[90, 0], x[3, 1] = np.nan, -np.inf
    found = ops.convert_to_numpy(total(ops.convert_to_tensor(x), (0,)))
    np.testing.assert_array_equal(found, [[np.nan, -np.inf]])


@pytest.mark.parametrize("p", EXPONENTS)
def test_lp_penalty_is_the_reference(p):
    w = np.concatenate([weights(50), np.zeros(3, "float32")])
    result = float(lp_penalty(ops.convert_to_tensor(w), p))
    assert result == pytest.approx(reference.lp_penalty(w, p), rel=2e-6)


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_penalty_has_the_gradient_of_the_reference(p, gradient):
    w = weights(4, 5)
    result = gradient(lambda x: lp_penalty(x, p), w)
    np.testing.assert_allclose(
        result, reference.lp_gradient(w, p), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("p", EXPONENTS)
def test_lp_gradient_is_the_reference(p, fused):
    w = weights(200)
    result = lp_gradient(ops.convert_to_tensor(w), p, fused)
    np.testing.assert_allclose(
        ops.convert_to_numpy(result), reference.lp_gradient(w, p), rtol=6e-6
    )


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_reference_gradient_is_the_slope_of_the_penalty(p):
    w = weights(3, 4).astype("float64")
    w = np.sign(w) * np.maximum(np.abs(w), 0.05)
    slope = reference.finite_difference(
        lambda x: reference.lp_penalty(x, p), w, step=1e-6
    )
    np.testing.assert_allclose(slope, reference.lp_gradient(w, p), rtol=1e-6)


@pytest.mark.parametrize("p", EXPONENTS)
def test_gradients_at_zero_are_zero_and_near_zero_finite(p, gradient):
    near = [0.0, -0.0, 1e-45, -1e-38, 1e-30, 1e-14, -1e-13, 1e-10]
    for result in (
        gradient(lambda x: lp_penalty(x, p), near),
        ops.convert_to_numpy(lp_gradient(ops.array(near, "float32"), p)),
        ops.convert_to_numpy(lp_gradient(ops.array(near, "float32"), p, True)),
    ):
        assert np.all(np.isfinite(result))
        assert np.all(result[:2] == 0)


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_gradient_is_odd(p):
    w = weights(30)
    plus = ops.convert_to_numpy(lp_gradient(ops.convert_to_tensor(w), p))
    minus = ops.convert_to_numpy(lp_gradient(ops.convert_to_tensor(-w), p))
    np.testing.assert_array_equal(plus, -minus)


@given(st.floats(0.1, 4), st.floats(-4, 4))
def test_gradient_times_weight_is_p_times_the_penalty(p, log_size):
    # Euler's theorem for a function homogeneous of degree p.
    w = ops.convert_to_tensor(weights(8) * np.float32(10**log_size))
    product = float(ops.sum(w * lp_gradient(w, p)))
    assert product == pytest.approx(p * float(lp_penalty(w, p)), rel=2e-5)
