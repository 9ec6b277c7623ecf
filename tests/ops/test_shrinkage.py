import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_wd.ops import group_soft_threshold
from keras_wd.ops import lp_shrink
from keras_wd.ops import soft_threshold
from tests import reference

EXPONENTS = [0.1, 0.5, 0.8, 1.0, 1.2, 4 / 3, 1.5, 1.9, 2.0, 2.5, 3.0, 4.0, 6.0]
FUSED = pytest.mark.parametrize("fused", [False, True])
ALL_P = pytest.mark.parametrize("p", EXPONENTS)


def weights(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def shrink(w, before, s, p, fused=False):
    tensors = [
        ops.convert_to_tensor(np.asarray(x, "float32")) for x in (w, before, s)
    ]
    return numpy(lp_shrink(*tensors, p, fused))


# The pAdam step.


@FUSED
@ALL_P
def test_lp_shrink_is_the_reference(p, fused):
    w, before = weights(500), weights(500, seed=1)
    # The power has a relative error of 6e-6, the division less.
    np.testing.assert_allclose(
        shrink(w, before, 0.01, p, fused),
        reference.shrink_lp(w, before, np.float32(0.01), p),
        rtol=6.5e-6,
    )


@FUSED
@given(
    p=st.floats(0.1, 5),
    log_w=st.floats(-6, 2),
    log_before=st.floats(-6, 2),
    log_s=st.floats(-9, 0),
)
def test_lp_shrink_for_any_p(fused, p, log_w, log_before, log_s):
    w, before, s = (np.float32(10**x) for x in (log_w, log_before, log_s))
    expected = reference.shrink_lp(w, before, s, p)
    assert shrink(w, before, s, p, fused) == pytest.approx(expected, rel=6.5e-6)


@FUSED
@pytest.mark.parametrize("p", [p for p in EXPONENTS if p < 2])
def test_zero_is_absorbing_below_two(p, fused):
    w = [1.0, -3.0, 1e-30, 0.0]
    result = shrink(w, [0.0, -0.0, 0.0, 0.0], 1e-3, p, fused)
    assert np.all(result == 0)


@FUSED
@pytest.mark.parametrize("p", [p for p in EXPONENTS if p > 2])
def test_zero_before_the_step_shrinks_nothing_above_two(p, fused):
    w = np.float32([1.0, -3.0, 1e-30, 0.0])
    np.testing.assert_array_equal(shrink(w, w * 0, 1e-3, p, fused), w)


@FUSED
def test_p_two_divides_by_one_plus_s(fused):
    w, before = weights(100), weights(100, seed=1)
    np.testing.assert_array_equal(
        shrink(w, before, 0.25, 2.0, fused), w / np.float32(1.25)
    )


@FUSED
@ALL_P
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-20, 1e20, 3e38])
def test_the_factor_lies_between_zero_and_one_at_all_sizes(p, size, fused):
    w = np.float32([size, -size])
    result = shrink(w, w, 1e-3, p, fused)
    factor = result.astype("float64") / w
    assert np.all((factor >= 0) & (factor <= 1))


def lp_objective_of_two_blocks(weight, w, p):
    """`(weight w^2 + (2 - p) / p weight^(p / (p - 2))) / 2`."""
    ending = (2 - p) / p * weight ** (p / (p - 2))
    return (weight * np.square(w) + ending) / 2


@pytest.mark.parametrize("p", [p for p in EXPONENTS if p < 2])
def test_the_step_is_the_half_quadratic_minimisation(p):
    # |w|^p / p is the minimum over the weight of a quadratic in w, reached
    # at |w|^(p - 2): the first block of the alternation behind the step.
    w = np.linspace(0.05, 3, 40)
    best = w ** (p - 2)
    minimum = lp_objective_of_two_blocks(best, w, p)
    np.testing.assert_allclose(minimum, w**p / p, rtol=1e-12)
    for factor in (0.9, 1.1):
        other = lp_objective_of_two_blocks(best * factor, w, p)
        assert np.all(other > minimum)
    # The second block, for L(w) = (w - z)^2 / 2 and strength s: the step.
    z, s = w + 0.3, 0.2
    result = shrink(z, w, s, p).astype("float64")
    slope = result - z + s * best * result
    np.testing.assert_allclose(slope, 0, atol=2e-5)


# One weight, L = (w - w0)^2 / 2, step size alpha: PAPERS 2.3.


def iterate(p, target, rate, w, alpha=0.1, steps=3000):
    """Gradient steps followed by the pAdam step, all starts at once."""

    def body(_, w):
        return lp_shrink(w - alpha * (w - target), w, alpha * rate, p, True)

    return ops.fori_loop(0, steps, body, w)


def stationary(p, target, rate, low, high):
    """Root of `target - w = rate w^(p - 1)` between low and high."""

    def force(w):
        return target - w - rate * w ** (p - 1)

    sign = np.sign(force(low))
    assert sign == -np.sign(force(high))
    for _ in range(200):
        middle = (low + high) / 2
        if np.sign(force(middle)) == sign:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@pytest.mark.parametrize(
    "p, target, low, high, known",
    [
        (0.8, 1.0, 0.5, 1.0, 0.7904),
        (0.8, 1.0, 1e-9, 0.1, 0.0003),
        (0.5, 1.0, 0.5, 1.0, 0.7724),
        (0.5, 1.0, 1e-9, 0.1, 0.0437),
        (1.2, 0.1, 1e-9, 0.1, 0.0144),
        (1.5, 0.1, 1e-9, 0.1, 0.0537),
    ],
)
def test_the_root_finder_gives_the_known_roots(p, target, low, high, known):
    root = stationary(p, target, 0.2, low, high)
    assert root == pytest.approx(known, abs=6e-5)


@pytest.mark.parametrize("p", [0.5, 0.8])
def test_below_one_the_step_has_two_basins(p, compiled):
    unstable = stationary(p, 1.0, 0.2, 1e-9, 0.15)
    stable = stationary(p, 1.0, 0.2, 0.5, 1.0)
    start = np.float32([0.5, 1.0, 1.2, unstable * 0.9, unstable * 1.1])
    end = compiled(lambda w: iterate(p, 1.0, 0.2, w))(start)
    expected = [stable, stable, stable, 0.0, stable]
    # A rounding error is divided by one minus the contraction, about 10.
    np.testing.assert_allclose(numpy(end), expected, atol=3e-6)


@pytest.mark.parametrize("p", [1.2, 1.5])
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_between_one_and_two_one_point_attracts_all(p, alpha, compiled):
    root = stationary(p, 0.1, 0.2, 1e-9, 0.1)
    start = np.float32([1e-6, 0.01, 0.5, -0.3])
    end = compiled(lambda w: iterate(p, 0.1, 0.2, w, alpha))(start)
    np.testing.assert_allclose(numpy(end), root, atol=1e-6)


@pytest.mark.parametrize("target", [1.0, 0.3, 0.1, -0.7])
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_p_one_finds_the_lasso_solution(target, alpha, compiled):
    start = np.float32([0.5, 1.0, -0.2])
    end = compiled(lambda w: iterate(1.0, target, 0.2, w, alpha))(start)
    expected = reference.soft_threshold(target, 0.2)
    np.testing.assert_allclose(numpy(end), expected, atol=1e-6)


@pytest.mark.parametrize(
    "p, steps", [(0.5, 13), (0.8, 41), (1.0, 109), (1.2, 325)]
)
def test_steps_from_a_hundredth_to_below_1e_13(p, steps, compiled):
    def body(w, count):
        return lp_shrink(w, w, 1e-4, p, True), count + 1

    def count_steps(w):
        return ops.while_loop(
            lambda w, _: ops.max(w) >= 1e-13,
            body,
            (w, ops.convert_to_tensor(0)),
        )[1]

    assert int(compiled(count_steps)(np.float32([0.01]))) == steps


# Soft thresholds.


@pytest.mark.parametrize("s", [0.0, 1e-4, 0.3, 5.0])
def test_soft_threshold_is_the_reference(s):
    w = weights(300)
    result = numpy(soft_threshold(ops.convert_to_tensor(w), s))
    np.testing.assert_allclose(
        result, reference.soft_threshold(w, s), rtol=1e-6, atol=1e-7
    )
    assert np.all(result[np.abs(w) <= s] == 0)


@given(
    st.integers(0, 10**6),
    st.floats(-6, 2),
    st.sampled_from([((6, 4), -1, (0,)), ((2, 3, 4), (1, 2), (0,))]),
)
def test_group_soft_threshold_is_the_reference(seed, log_s, case):
    shape, axis, summed = case
    s = np.float32(10**log_s)
    w = weights(*shape, seed=seed)
    result = numpy(group_soft_threshold(ops.convert_to_tensor(w), s, axis))
    np.testing.assert_allclose(
        result,
        reference.group_soft_threshold(w, s, summed),
        rtol=1e-5,
        # 1 - s / norm cancels where the norm is near s.
        atol=1e-6,
    )


def test_group_soft_threshold_minimises_its_problem():
    rng = np.random.default_rng(1)
    w, s = weights(5, 3), 1.3

    def objective(v):
        distance = np.sum(np.square(v - w), axis=0) / 2
        return s * reference.group_norm(v, (0,))[0] + distance

    best = numpy(group_soft_threshold(ops.convert_to_tensor(w), s))
    best = best.astype("float64")
    for step in (1e-3, 0.1, 1.0):
        for _ in range(300):
            other = best + step * rng.normal(size=w.shape)
            assert np.all(objective(best) <= objective(other) + 1e-6)
    # A numerical minimiser gets no lower: shrink w by all factors.
    factors = np.linspace(0, 1, 100001)[:, None]
    norms = np.linalg.norm(w.astype("float64"), axis=0)
    lines = s * factors * norms + np.square((1 - factors) * norms) / 2
    np.testing.assert_allclose(objective(best), lines.min(0), rtol=1e-6)


def test_short_units_become_exactly_zero():
    w = weights(5, 3) * np.float32([0.01, 1.0, 0.0])
    result = numpy(group_soft_threshold(ops.convert_to_tensor(w), 0.5))
    assert np.all(result[:, [0, 2]] == 0)
    assert np.all(result[:, 1] != 0)


@pytest.mark.parametrize("size", [1e-35, 1e-25, 1e-21])
def test_tiny_units_become_exactly_zero(size):
    # The squares of these weights are below the range of float32.
    w = weights(5, 3) * np.float32(size)
    result = numpy(group_soft_threshold(ops.convert_to_tensor(w), 1e-3))
    assert np.all(result == 0)


def test_huge_units_are_thresholded():
    w = weights(5, 3) * np.float32(1e25)
    result = numpy(group_soft_threshold(ops.convert_to_tensor(w), 1e25))
    expected = reference.group_soft_threshold(w, 1e25, (0,))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e19)


# Strength zero.

RULES = {
    "lp 0.5": lambda w, before, s: lp_shrink(w, before, s, 0.5),
    "lp 0.8": lambda w, before, s: lp_shrink(w, before, s, 0.8),
    "lp 0.8 fused": lambda w, before, s: lp_shrink(w, before, s, 0.8, True),
    "lp 1": lambda w, before, s: lp_shrink(w, before, s, 1.0),
    "lp 2": lambda w, before, s: lp_shrink(w, before, s, 2.0),
    "lp 3": lambda w, before, s: lp_shrink(w, before, s, 3.0),
    "lp 3.7 fused": lambda w, before, s: lp_shrink(w, before, s, 3.7, True),
    "soft": lambda w, before, s: soft_threshold(w, s),
    "group": lambda w, before, s: group_soft_threshold(w, s),
}
ORDINARY = [0.0, 1.0, -2.5, 1e-10, -1e-30, 1.2e-38, 1e20, -1e30]
AWKWARD = {
    "negative zero": [-0.0, 1.0],
    "subnormal": [1e-40, -9.2e-41],
    "largest": [3.3e38, -3.3e38],
}


def bits(tensor):
    """The bits as integers; float32 holds every bfloat16 as it is."""
    return numpy(ops.cast(tensor, "float32")).view("uint32")


def assert_identity_at_strength_zero(rule, values, dtype, before=None):
    w = ops.cast(ops.reshape(ops.array(values, "float32"), (-1, 1)), dtype)
    before = w if before is None else ops.full_like(w, before)
    result = rule(w, before, ops.array(0.0, "float32"))
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    np.testing.assert_array_equal(bits(result), bits(w))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_strength_zero_changes_no_bit(rule, dtype):
    for before in (None, 0.0, -0.0, 1e-30, 1e30):
        assert_identity_at_strength_zero(RULES[rule], ORDINARY, dtype, before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("kind", sorted(AWKWARD))
def test_strength_zero_changes_no_awkward_number(rule, dtype, kind):
    assert_identity_at_strength_zero(RULES[rule], AWKWARD[kind], dtype)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_strength_zero_changes_no_bit_when_compiled(rule, compiled):
    w = np.float32(ORDINARY)[:, None]
    result = compiled(RULES[rule])(w, w, np.float32(0))
    np.testing.assert_array_equal(bits(result), w.view("uint32"))
