import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_wd.ops import project_to_sphere
from tests import reference


def project(w, *args, **kwargs):
    w = ops.convert_to_tensor(np.asarray(w, "float32"))
    return ops.convert_to_numpy(project_to_sphere(w, *args, **kwargs))


def weights(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    "shape, axis, summed",
    [
        ((5, 3), -1, (0,)),
        ((5, 3), 0, (1,)),
        ((3, 3, 4, 6), -1, (0, 1, 2)),
        ((3, 3, 4, 2), (-2, -1), (0, 1)),
        ((4, 3), None, (0, 1)),
    ],
)
@pytest.mark.parametrize("radius", [1.0, 0.3, 20.0])
def test_projection_is_the_reference(shape, axis, summed, radius):
    w = weights(*shape)
    np.testing.assert_allclose(
        project(w, radius, axis),
        reference.fixed_norm(w, summed, radius),
        rtol=1e-6,
    )


@given(
    st.integers(0, 1000),
    st.floats(-18, 18),
    st.floats(1e-3, 1e3),
    st.sampled_from([-1, 0, None, (0, 1)]),
)
def test_projection_is_idempotent(seed, log_size, radius, axis):
    once = project(weights(4, 3, seed=seed) * 10**log_size, radius, axis)
    twice = project(once, radius, axis)
    np.testing.assert_allclose(twice, once, rtol=3e-7)


def test_no_point_of_the_sphere_is_nearer():
    rng = np.random.default_rng(3)
    w = weights(4, 2)
    nearest = np.linalg.norm(project(w, 1.5).astype("float64") - w, axis=0)
    for _ in range(200):
        other = reference.fixed_norm(rng.normal(size=(4, 2)), (0,), 1.5)
        assert np.all(nearest <= np.linalg.norm(other - w, axis=0) + 1e-6)


@pytest.mark.parametrize("axis", [-1, None])
def test_a_zero_unit_stays_zero(axis):
    w = weights(4, 3)
    w[:, 1] = 0
    if axis is None:
        w[:] = 0
    result = project(w, 2.0, axis)
    assert np.all(result[:, 1] == 0)
    assert np.all(np.isfinite(result))


@pytest.mark.parametrize("size", [1e-35, 1e-25, 1e-19, 1e19, 1e37])
def test_very_small_and_very_large_weights_reach_the_sphere(size):
    w = weights(4, 3) * np.float32(size)
    norms = np.linalg.norm(project(w, 1.0).astype("float64"), axis=0)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-6)


def test_units_of_very_different_size_all_reach_the_sphere():
    w = weights(4, 3) * np.float32([1e-25, 1.0, 1e10])
    norms = np.linalg.norm(project(w, 1.0).astype("float64"), axis=0)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-6)
