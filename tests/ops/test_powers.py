import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_wd.ops import abs_power

HALVES = [-4, -3.5, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 4]
OTHERS = [-9.3, -3.7, -1.9, -1.2, -0.2, 0.1, 1 / 3, 0.8, 1.2, 2.3, 5.5]
# Outside of it a result may be rounded to 0 or infinity.
LARGEST = 2.0**125


def magnitudes():
    """Float32 numbers of all sizes and both signs, with awkward mantissas."""
    rng = np.random.default_rng(0)
    sizes = np.concatenate(
        [
            10.0 ** rng.uniform(-37, 38, 5000),
            10.0 ** rng.uniform(-1, 1, 5000),
            2.0 ** np.arange(-125.0, 126.0),
            np.sqrt(0.5) * 2.0 ** np.arange(-100.0, 100.0),
            np.nextafter(2.0 ** np.arange(-100.0, 100.0), 0, dtype="float32"),
        ]
    ).astype("float32")
    return sizes * rng.choice([-1, 1], sizes.size).astype("float32")


def relative_error(x, exponent, fused):
    with np.errstate(over="ignore"):
        expected = np.abs(x.astype("float64")) ** exponent
    kept = (expected > 1 / LARGEST) & (expected < LARGEST)
    power = abs_power(ops.convert_to_tensor(x[kept]), exponent, fused)
    result = ops.convert_to_numpy(power).astype("float64")
    return expected[kept], np.abs(result / expected[kept] - 1)


def stated_error(result):
    return 1e-6 + 2e-7 * np.abs(np.log2(result))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("exponent", OTHERS)
def test_power_has_the_stated_error(exponent, fused):
    result, error = relative_error(magnitudes(), exponent, fused)
    assert np.all(error < stated_error(result))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("exponent", HALVES)
def test_half_integer_powers_are_exact_to_rounding(exponent, fused):
    x = magnitudes()
    # Up to eight factors, each rounded (a reciprocal root to 2 ulp).
    x = x[(np.abs(x) > 1e-9) & (np.abs(x) < 1e9)]
    _, error = relative_error(x, exponent, fused)
    assert np.max(error) < 1.5 * max(1, 2 * abs(exponent)) * 2**-23


@pytest.mark.parametrize("exponent", HALVES + OTHERS)
def test_fused_and_not_fused_agree(exponent):
    x = magnitudes()
    x = ops.convert_to_tensor(x[(np.abs(x) > 1e-3) & (np.abs(x) < 1e3)])
    plain = ops.convert_to_numpy(abs_power(x, exponent, fused=False))
    fused = ops.convert_to_numpy(abs_power(x, exponent, fused=True))
    assert np.all(np.abs(fused / plain - 1) < 2 * stated_error(plain))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("exponent", HALVES + OTHERS)
def test_power_of_zero(exponent, fused):
    result = ops.convert_to_numpy(
        abs_power(ops.array([0.0, -0.0]), exponent, fused)
    )
    if exponent == 0:
        expected = 1.0
    else:
        expected = 0.0 if exponent > 0 else np.inf
    assert result.tolist() == [expected, expected]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("exponent", [-3.7, 2.3, -4, 3.5])
def test_power_beyond_the_range_of_floats_keeps_to_the_bounds(exponent, fused):
    x = ops.array([1e-30, 1e30])
    result = ops.convert_to_numpy(abs_power(x, exponent, fused))
    smallest, largest = result if exponent > 0 else result[::-1]
    assert 0 <= smallest <= 1.01 / LARGEST
    assert 0.99 * LARGEST <= largest


@pytest.mark.parametrize("exponent", [-1.2, -0.5, 0.8, 1.5])
def test_compiled_power_equals_the_eager_one(exponent, compiled):
    x = magnitudes()
    x = x[(np.abs(x) > 1e-12) & (np.abs(x) < 1e12)]
    xla = compiled(lambda t: abs_power(t, exponent, fused=True))
    eager = abs_power(ops.convert_to_tensor(x), exponent, fused=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(xla(x)), ops.convert_to_numpy(eager), rtol=1e-6
    )


@given(
    st.floats(-4, 4).filter(lambda q: abs(q) > 1e-3),
    st.floats(-9, 9).map(lambda log: float(np.float32(10**log))),
)
def test_power_for_any_exponent(exponent, x):
    expected = x**exponent
    for fused in (False, True):
        result = float(abs_power(ops.array([x]), exponent, fused)[0])
        assert abs(result / expected - 1) < stated_error(expected)


def test_power_keeps_shape_and_dtype():
    x = ops.ones((2, 3, 4), "float32")
    for fused in (False, True):
        result = abs_power(x, 0.7, fused)
        assert tuple(result.shape) == (2, 3, 4)
        assert keras.backend.standardize_dtype(result.dtype) == "float32"
