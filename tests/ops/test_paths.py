"""The math of PathProx, against float64 references and brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_wd.ops import paths
from tests.graph import reference


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


SHAPES = [
    # w, v, positions, channels
    ((5, 4), (4, 3), 1, 1),
    ((3, 3, 2, 4), (3, 3, 4, 2), 1, 1),
    ((2, 4), (24, 3), 6, 1),
    ((2, 4), (2, 8, 3), 1, 2),
    ((2, 4), (24, 3), 3, 2),
    ((4,), (4, 3), 1, 1),
]


def kernels(w_shape, v_shape, seed=0):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=w_shape).astype("float32")
    v = rng.normal(size=v_shape).astype("float32")
    w[..., 1] = 0
    return w, v


@pytest.mark.parametrize(
    ("w_shape", "v_shape", "positions", "channels"), SHAPES
)
def test_norms_are_those_of_the_units(w_shape, v_shape, positions, channels):
    w, v = kernels(w_shape, v_shape)
    np.testing.assert_allclose(
        numpy(paths.input_norms(w)), reference.input_norms(w), rtol=1e-6
    )
    np.testing.assert_allclose(
        numpy(paths.output_norms(v, positions, channels)),
        reference.output_norms(v, 4, positions, channels),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("w_shape", "v_shape", "positions", "channels"), SHAPES
)
def test_scaling_outputs_scales_the_rows_of_a_unit(
    w_shape, v_shape, positions, channels
):
    _, v = kernels(w_shape, v_shape)
    factors = np.array([2.0, 0.0, -1.0, 4.0], "float32")
    np.testing.assert_array_equal(
        numpy(paths.scale_outputs(v, factors, positions, channels)),
        reference.scaled_outputs(v, factors, positions, channels),
    )


@given(
    z=st.lists(st.floats(-3, 3), min_size=2, max_size=2),
    strength=st.floats(0, 2),
)
def test_the_threshold_is_the_proximal_operator(z, strength):
    z = np.array([z], "float32")
    factor = paths.threshold_factors(
        paths.output_norms(z), ops.convert_to_tensor(strength, "float32")
    )
    found = numpy(factor) * z[0].astype("float64")

    def objective(u):
        return strength * np.linalg.norm(u, axis=-1) + 0.5 * np.sum(
            np.square(u - z[0].astype("float64")), axis=-1
        )

    # The minimiser lies on the segment from 0 to z; look at all of it, and
    # around what was found.
    segment = np.linspace(0, 1, 20001)[:, None] * z[0].astype("float64")
    rng = np.random.default_rng(0)
    around = found + rng.normal(size=(2000, 2)) * 10.0 ** rng.uniform(
        -6, 0, (2000, 1)
    )
    best = min(objective(segment).min(), objective(around).min())
    assert objective(found) <= best + 1e-6


def test_a_unit_at_most_the_strength_long_becomes_exactly_zero():
    norms = np.array([0.0, 0.1, 0.5, 0.5001], "float32")
    factors = numpy(paths.threshold_factors(norms, 0.5))
    np.testing.assert_array_equal(factors[1:3], 0.0)
    assert factors[3] > 0
    assert np.isfinite(factors).all()


def test_normalizing_gives_norm_one_and_leaves_zero_alone():
    norms = np.array([4.0, 0.25, 1e-9, 0.0], "float32")
    factors = numpy(paths.normalizing_factors(norms))
    np.testing.assert_allclose(factors, [0.25, 4.0, 1e6, 1.0], rtol=1e-6)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5))
def test_balancing_equalizes_and_its_product_is_one(norms):
    factors = [
        float(f)
        for f in paths.balancing_factors(
            [ops.convert_to_tensor(n, "float32") for n in norms]
        )
    ]
    np.testing.assert_allclose(np.prod(factors), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        np.multiply(factors, norms), np.exp(np.mean(np.log(norms))), rtol=2e-5
    )


def test_balancing_leaves_pairs_without_a_path_alone():
    norms = [ops.convert_to_tensor(n, "float32") for n in (2.0, 0.0, 3.0)]
    assert [float(f) for f in paths.balancing_factors(norms)] == [1, 1, 1]


def test_the_gradient_of_the_path_norm(gradient):
    w, v = kernels((5, 4), (4, 3))
    w[..., 1] += 1  # no unit at zero, where there is no gradient

    def penalty(weights):
        return paths.path_norm(
            paths.input_norms(weights), paths.output_norms(v)
        )

    np.testing.assert_allclose(
        numpy(paths.path_norm_gradient(w, paths.output_norms(v))),
        gradient(penalty, w),
        rtol=2e-5,
        atol=1e-6,
    )


def test_the_gradient_is_zero_at_zero():
    w, v = kernels((5, 4), (4, 3))
    found = numpy(paths.path_norm_gradient(w, paths.output_norms(v)))
    np.testing.assert_array_equal(found[:, 1], 0.0)
    assert np.isfinite(found).all()


def test_low_precision_is_computed_in_float32():
    w = ops.cast(np.full((1000, 1), 0.1), "bfloat16")
    exact = reference.input_norms(np.full((1000, 1), 0.1))
    found = numpy(ops.cast(paths.input_norms(w), "float32"))
    np.testing.assert_allclose(found, exact, rtol=0.01)
