import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_wd.ops import prox_lp
from tests import catalogue
from tests import reference

CLOSED = [0.5, 1.0, 1.5, 2.0, 3.0]
SOLVED = [
    0.1,
    0.25,
    0.6,
    0.79,
    0.9,
    0.9995,
    1.001,
    1.01,
    1.1,
    1.21,
    1.7,
    2.5,
    4,
]
ALL = sorted(CLOSED + SOLVED)
# On JAX everything is fused.
FUSED = pytest.mark.parametrize(
    "fused", [True] if keras.backend.backend() == "jax" else [False, True]
)
# What a minimiser does, and where it is one is tested on each backend.
FOLLOWS = pytest.mark.one_backend
# A closed form of each kind, and each way of solving the rest.
WAYS = (0.5, 0.6, 0.9995, 1.0, 1.01, 1.5, 1.7, 3.0)


def quick(exponents):
    return pytest.mark.parametrize("p", catalogue.quick(exponents, *WAYS))


ALL_P = quick(ALL)


def prox(z, s, p, fused=False):
    z = ops.convert_to_tensor(np.asarray(z, "float32"))
    s = ops.convert_to_tensor(np.asarray(s, "float32"))
    return ops.convert_to_numpy(prox_lp(z, s, p, fused)).astype("float64")


def assert_is_minimiser(z, s, p, result):
    """Within 16 units in the last place of the minimiser by bisection.

    For p < 1 two points are minimisers where the solution jumps: there, and
    only as near as 16 units in the last place of z, both count.
    """
    z, s = (np.float64(np.float32(x)) for x in np.broadcast_arrays(z, s))
    branch, best = reference.prox_lp_branches(z, s, p)
    if p > 1:
        best = branch
    good = is_near(result, best)
    if p < 1:
        jump = reference.prox_lp_jump(s, p)
        tied = np.abs(np.abs(z) / jump - 1) <= 16 * 2**-23
        good |= tied & (is_near(result, branch) | (result == 0))
    units = np.abs(result - best) / np.spacing(np.float32(np.abs(best)))
    worst = np.argmax(np.where(good, 0, units))
    assert np.all(good), (
        f"p={p} s={s} z={np.ravel(z)[worst]} prox={np.ravel(result)[worst]} "
        f"minimiser={np.ravel(best)[worst]}"
    )


def is_near(result, exact):
    """Up to 16 units in the last place, or both below the normal numbers."""
    smallest = np.finfo("float32").tiny
    size = np.maximum(np.abs(exact), smallest)
    near = np.abs(result - exact) <= 16 * np.spacing(np.float32(size))
    return near | ((np.abs(exact) < smallest) & (np.abs(result) < 2 * smallest))


def grid():
    positive = np.concatenate(
        [np.logspace(-8, 3, 400), np.linspace(0.001, 5, 400)]
    )
    return np.float32(np.concatenate([[0.0], positive, -positive]))


@pytest.mark.few_cases(3)
@FUSED
@ALL_P
def test_prox_is_the_minimiser(p, fused):
    z, s = grid(), np.float32([[1e-6], [1e-3], [0.1], [1.0], [10.0]])
    assert_is_minimiser(z, s, p, prox(z, s, p, fused))


@FUSED
@quick([p for p in ALL if p < 1])
def test_prox_is_the_minimiser_around_the_jump(p, fused):
    for s in (1e-6, 1e-3, 0.1, 1.0, 10.0):
        jump = np.float32(reference.prox_lp_jump(s, p))
        near = jump * (1 + 2.0**-23 * np.arange(-40, 41))
        far = jump * np.linspace(0.9, 1.1, 101)
        z = np.float32(np.concatenate([near, far]))
        result = prox(z, s, p, fused)
        assert_is_minimiser(z, s, p, result)
        # Both sides of the jump are there.
        assert result[81] == 0 and result[-1] > 0.5 * jump * (1 - p)


@FUSED
@given(
    p=st.floats(0.1, 4),
    log_z=st.floats(-7, 3),
    log_s=st.floats(-7, 2),
    sign=st.sampled_from([-1, 1]),
)
def test_prox_is_the_minimiser_for_any_p(fused, p, log_z, log_s, sign):
    z, s = np.float32(sign * 10**log_z), np.float32(10**log_s)
    assert_is_minimiser(z, s, p, prox(z, s, p, fused))


@FOLLOWS
@FUSED
@given(
    p=st.floats(0.1, 0.999),
    log_s=st.floats(-6, 2),
    shift=st.floats(-1e-5, 1e-5),
)
def test_prox_is_the_minimiser_near_any_jump(fused, p, log_s, shift):
    s = np.float32(10**log_s)
    z = np.float32(reference.prox_lp_jump(np.float64(s), p) * (1 + shift))
    assert_is_minimiser(z, s, p, prox(z, s, p, fused))


@ALL_P
def test_prox_is_odd(p):
    z = grid()
    np.testing.assert_array_equal(prox(-z, 0.1, p), -prox(z, 0.1, p))


@FUSED
@ALL_P
def test_prox_of_zero_is_zero(p, fused):
    assert prox([0.0, -0.0], 0.1, p, fused).tolist() == [0.0, 0.0]


@FOLLOWS
@FUSED
@quick([p for p in ALL if p <= 1])
def test_small_weights_become_exactly_zero(p, fused):
    s = 0.1
    edge = s if p == 1 else reference.prox_lp_jump(s, p)
    z = edge * np.float32([-0.999, -0.5, -1e-3, 1e-20, 0.3, 0.999])
    assert np.all(prox(z, s, p, fused) == 0)
    assert np.all(prox(1.001 * edge * np.float32([-1, 1]), s, p, fused) != 0)


@FOLLOWS
@FUSED
@ALL_P
def test_prox_shrinks_and_keeps_the_order(p, fused):
    z = np.float32(np.linspace(0, 5, 2001))
    result = prox(z, 0.3, p, fused)
    assert np.all(result <= z) and np.all(result >= 0)
    # Equal to rounding where it is nearly flat.
    assert np.all(np.diff(result) >= -16 * 2.0**-23 * result[1:])


@pytest.mark.few_cases(1)
@FOLLOWS
@FUSED
@given(p=st.floats(1, 4), a=st.floats(-9, 9), b=st.floats(-9, 9))
def test_prox_is_not_expansive_for_convex_penalties(fused, p, a, b):
    first, second = prox([a, b], 0.7, p, fused)
    distance = abs(float(np.float32(a)) - float(np.float32(b)))
    assert abs(first - second) <= distance + 1e-6 * max(1, abs(a), abs(b))


@FOLLOWS
@FUSED
@given(p=st.floats(0.1, 4), z=st.floats(-5, 5), log_s=st.floats(-4, 1))
def test_prox_beats_its_neighbours(fused, p, z, log_s):
    z, s = np.float64(np.float32(z)), np.float64(np.float32(10**log_s))
    result = prox(z, s, p, fused)
    steps = np.random.default_rng(0).normal(size=200)
    others = np.concatenate(
        [result + size * steps for size in (1e-3, 0.1, 1.0)] + [[0.0, z]]
    )
    mine = reference.lp_objective(result, z, s, p)
    theirs = reference.lp_objective(others, z, s, p)
    # The result is off by up to 1e-6, at a slope of about (s p)^... <= 1.
    assert mine <= np.min(theirs) + 1e-6 * max(1, mine)


@ALL_P
@FUSED
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_strength_zero_changes_no_bit(p, fused, dtype):
    values = [0.0, -0.0, 1.0, -2.5, 1e-10, 1e-40, -9.2e-41, 1e30, -3.3e38]
    z = ops.cast(ops.array(values, "float32"), dtype)
    result = prox_lp(z, ops.array(0.0), p, fused)
    before, after = (
        ops.convert_to_numpy(ops.cast(x, "float32")).view("uint32")
        for x in (z, result)
    )
    np.testing.assert_array_equal(after, before)


@ALL_P
def test_extreme_inputs_give_numbers(p):
    z = [1e-44, -1e-38, 1e-30, 1e-20, 1e15, -1e30]
    for s in (1e-30, 1e-10, 1.0, 1e10):
        result = prox(z, s, p)
        assert np.all(np.isfinite(result))
        assert np.all(np.abs(result) <= np.abs(np.float32(z)) * (1 + 1e-6))


@quick([0.3, 0.5, 2 / 3, 4 / 3, 1.5, 1.7, 3.0])
def test_compiled_prox_is_the_minimiser(p, compiled):
    z = grid()
    xla = compiled(lambda z, s: prox_lp(z, s, p, True))
    result = ops.convert_to_numpy(xla(z, np.float32(0.1)))
    assert_is_minimiser(z, 0.1, p, result.astype("float64"))


@pytest.mark.usefixtures("float64")
def test_prox_in_float64_is_exact():
    z = ops.cast(ops.convert_to_tensor([[-0.89085507]], "float32"), "float64")
    result = prox_lp(z, ops.convert_to_tensor(1.0, "float64"), 1.7)
    # From 50 digits.
    assert abs(float(result[0, 0]) + 0.3814845148706437) < 1e-13


@pytest.mark.usefixtures("float64")
@given(
    p=st.floats(0.1, 4).filter(lambda p: abs(p - 1) > 1e-4),
    z=st.floats(-1e3, 1e3),
    log_s=st.floats(-7, 3),
)
def test_prox_in_float64_solves_its_equation(p, z, log_s):
    s = 10**log_s
    tensors = (ops.convert_to_tensor(x, "float64") for x in (z, s))
    t, a = abs(float(prox_lp(*tensors, p))), abs(z)
    if t < 1e-300:
        assert p > 1 or a < reference.prox_lp_jump(s, p) * (1 + 1e-12)
        return
    assert p > 1 or a > reference.prox_lp_jump(s, p) * (1 - 1e-12)
    # The distance to the root is this times t, in extended precision.
    t, a, s, q = map(np.longdouble, (t, a, s, p - 1))
    rate = s * t**q / a
    assert abs((t / a + rate - 1) / (t / a + q * rate)) < 1e-12


@FUSED
@ALL_P
def test_an_infinite_strength_gives_zero(p, fused):
    z = [0.0, -0.0, 1.0, -2.5, 1e-30, -3e38]
    assert prox(z, np.inf, p, fused).tolist() == [0.0] * len(z)


@FUSED
@ALL_P
def test_what_is_not_finite_stays_so(p, fused):
    result = prox([np.nan, np.inf, -np.inf], 0.1, p, fused)
    np.testing.assert_array_equal(result, [np.nan, np.inf, -np.inf])


@FUSED
@quick([0.3, 0.5, 0.95, 1.05, 1.3, 1.5, 1.7, 3, 4])
def test_numbers_of_any_size(p, fused):
    rng = np.random.default_rng(0)
    z, s = 10 ** rng.uniform(-36, 36, (2, 300))
    z[::2] = (s * 10 ** rng.normal(size=300))[::2] ** (1 / (2 - p))
    z = np.clip(z, 1e-37, 3e38)
    assert_is_minimiser(z, s, p, prox(z, s, p, fused))
