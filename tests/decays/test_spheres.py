"""Rules about norms and angles, each with the angle per step as its law."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import ops

from keras_wd import constraints
from keras_wd import decays
from keras_wd import optimizers
from keras_wd.metrics import rotation
from keras_wd.ops import brake_norm
from keras_wd.ops import sphere_step
from tests import reference
from tests.training import take_steps
from tests.training import variables

SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.floats(1e-3, 1e3)


def random(seed=0, shape=(5, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def orthogonal(w, seed, length, axis=None):
    """A gradient at a right angle to `w`, or to each of its units."""
    g, w = np.float64(random(seed, w.shape)), np.float64(w)
    g -= (
        w
        * np.sum(g * w, axis, keepdims=True)
        / np.sum(w * w, axis, keepdims=True)
    )
    norm = np.sqrt(np.sum(g * g, axis, keepdims=True))
    return (length * g / norm).astype("float32")


def moved(rule, start, gradient, inner):
    optimizer = optimizers.WeightDecay(inner, rule)
    return take_steps(optimizer, variables(start), [gradient])[0]


@pytest.mark.parametrize("axis, summed", [(None, None), (-1, (0,))])
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, s=st.floats(1e-3, 2), scale=SCALES)
def test_a_step_on_the_sphere_is_the_reference(axis, summed, seed, s, scale):
    before = random(seed)
    after = before + np.float32(scale) * random(seed + 1)
    s = np.float32(s)
    found = ops.convert_to_numpy(
        sphere_step(after, before, ops.convert_to_tensor(s), axis=axis)
    )
    expected = reference.hyperball(after, before, s, axis=summed)
    # The step is a difference of rounded weights.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        reference.group_norm(found, summed),
        reference.group_norm(before, summed),
        rtol=1e-5,
    )


@pytest.mark.parametrize("axis, summed", [(None, None), (-1, (0,))])
@settings(max_examples=20, deadline=None)
@given(
    seed=SEEDS, outward=st.floats(0, 1), inward=st.floats(0, 1), scale=SCALES
)
def test_a_brake_is_the_reference(axis, summed, seed, outward, inward, scale):
    before = random(seed)
    after = before + np.float32(scale) * random(seed + 1)
    found = ops.convert_to_numpy(
        brake_norm(
            ops.convert_to_tensor(after),
            ops.convert_to_tensor(before),
            ops.convert_to_tensor(outward, "float32"),
            ops.convert_to_tensor(inward, "float32"),
            axis=axis,
        )
    )
    expected = reference.radial_brake(after, before, outward, inward, summed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("coupling", ["decoupled", "independent"])
def test_hyperball_turns_every_layer_by_the_same_angle(coupling):
    # Layers, gradients and optimizers on very different scales.
    start = [random(), 100 * random(1, (4, 7)), 0.01 * random(2, (3, 3, 2, 4))]
    gradient = [
        orthogonal(w, 5, length)
        for w, length in zip(start, (0.1, 1.0, 1e-3), strict=True)
    ]
    rate = 0.03 if coupling == "independent" else 0.3
    for inner in (
        keras.optimizers.SGD(0.1),
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    ):
        rule = decays.Hyperball(rate, coupling=coupling)
        found = moved(rule, start, gradient, inner)
        angles = [rotation(*pair) for pair in zip(start, found, strict=True)]
        np.testing.assert_allclose(angles, np.arctan(0.03), rtol=1e-3)
        norms = [np.linalg.norm(w) for w in start]
        np.testing.assert_allclose(
            [np.linalg.norm(w) for w in found], norms, rtol=1e-5
        )


def test_hyperball_puts_the_weights_on_the_sphere_that_it_is_given():
    rule = decays.Hyperball(0.1, radius=2.0, axis=-1)
    inner = keras.optimizers.Adam(0.1)
    (found,) = moved(rule, [random()], [random(1)], inner)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 2.0, rtol=1e-5)


@pytest.mark.parametrize("inward", [0.0, 1.0])
def test_a_radial_brake_leaves_the_angle_of_the_step(inward):
    start, gradient = [random()], [random(1)]
    for sign in (1, -1):  # one of them makes the norm larger
        inner = keras.optimizers.Adam(0.1)
        (plain,) = moved(decays.L2(0.0), start, [sign * gradient[0]], inner)
        inner = keras.optimizers.Adam(0.1)
        rule = decays.RadialBrake(1.0, inward=inward)
        (found,) = moved(rule, start, [sign * gradient[0]], inner)
        angle = rotation(start[0], plain)
        assert angle > 0.02
        assert rotation(start[0], found) == pytest.approx(angle, rel=1e-4)
        norm, free = np.linalg.norm(start[0]), np.linalg.norm(plain)
        held = free > norm or inward
        expected = norm if held else free
        assert np.linalg.norm(found) == pytest.approx(expected, rel=1e-5)


def test_a_braked_norm_turns_by_the_step_over_the_norm():
    # A right-angled step of SGD: tan of the angle is its length over the norm,
    # which stays, so that the angle is the same at every step.
    start = random()
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), decays.RadialBrake(1.0)
    )
    weights, angles = variables([start]), []
    for seed in range(1, 5):
        before = np.array(ops.convert_to_numpy(weights[0].value))
        step = orthogonal(before, seed, 2.0)
        ((after,),) = take_steps(optimizer, weights, [[step]])
        angles.append(rotation(before, after))
    law = np.arctan(0.1 * 2.0 / np.linalg.norm(start))
    np.testing.assert_allclose(angles, law, rtol=1e-3)


MANIFOLDS = {
    "sphere": (constraints.FixedNorm(axis=None), None),
    "oblique": (constraints.FixedNorm(axis=-1), 0),
    "spectral": (constraints.FixedSpectralNorm(2.0), None),
}


@pytest.mark.parametrize("make, axis", MANIFOLDS.values(), ids=MANIFOLDS)
def test_a_constraint_turns_by_the_step_over_the_norm(make, axis):
    kernel = keras.Variable(
        make(ops.convert_to_tensor(random())), name="kernel"
    )
    kernel.constraint = make
    before = np.array(ops.convert_to_numpy(kernel.value))
    step = orthogonal(before, 1, 0.5, axis)
    keras.optimizers.SGD(0.1).apply([ops.convert_to_tensor(step)], [kernel])
    after = ops.convert_to_numpy(kernel.value)
    law = np.arctan(0.1 * 0.5 / np.linalg.norm(before, axis=axis))
    pairs = [(before, after)]
    if axis == 0:
        pairs = zip(before.T, after.T, strict=True)
    angles = [rotation(*pair) for pair in pairs]
    np.testing.assert_allclose(angles, np.ravel(law), rtol=1e-3)


@pytest.mark.parametrize("kind", [decays.Hyperball, decays.RadialBrake])
def test_a_weight_that_has_no_direction_is_left_to_the_optimizer(kind):
    start, gradient = [np.zeros((2, 2))], [np.ones((2, 2), "float32")]
    rule = kind(0.5, coupling="independent")
    (found,) = moved(rule, start, gradient, keras.optimizers.SGD(0.1))
    assert np.all(np.isfinite(found))
    with pytest.raises(NotImplementedError, match="has no penalty"):
        rule.penalty([ops.ones((2, 2))])


def test_a_step_of_no_length_leads_to_the_sphere_and_one_to_its_centre_stays():
    w = ops.convert_to_tensor(random())
    strength = ops.convert_to_tensor(1.0)
    found = ops.convert_to_numpy(sphere_step(w, w, strength, radius=2.0))
    np.testing.assert_allclose(
        found, 2 * random() / np.linalg.norm(random()), rtol=1e-5
    )
    # Backward by the radius: no direction is left.
    found = ops.convert_to_numpy(sphere_step(0.5 * w, w, strength))
    np.testing.assert_array_equal(found, np.float32(0.5) * random())


def test_what_is_not_in_range_is_refused():
    with pytest.raises(ValueError, match="`coupling` must be one of"):
        decays.RadialBrake(coupling="decoupled")
    with pytest.raises(ValueError, match="`inward` must be a finite number"):
        decays.RadialBrake(inward=2.0)
    with pytest.raises(
        ValueError, match="`radius` must be a finite number > 0"
    ):
        decays.Hyperball(radius=0.0)
