"""A strength for every tensor: weight norm control, and CPR."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import schedules
from keras_wd import where
from tests import reference
from tests.training import assert_equal
from tests.training import take_steps
from tests.training import variables

RATE = 0.1  # of the inner optimizer


def sgd():
    return keras.optimizers.SGD(RATE, momentum=0.9)


def random(seed=0, shape=(5, 3), scale=1.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=shape)).astype("float32")


def gradients(steps):
    return [[random(seed)] for seed in range(1, steps + 1)]


def run(rule, start, steps, inner=sgd):
    """The weights after each step."""
    optimizer = optimizers.WeightDecay(inner(), rule)
    history = take_steps(optimizer, variables([start]), steps)
    return [weights for (weights,) in history]


def expected(shrink, start, steps):
    inner, before, found = reference.SGD(0.9), np.float64(start), []
    for grads in steps:
        (stepped,) = inner.step([before], grads, RATE)
        before = shrink(stepped, before)
        found.append(before)
    return found


@pytest.mark.parametrize("axis, summed", [(None, None), (-1, (0,))])
@pytest.mark.parametrize("relative", [True, False])
def test_norm_control_is_the_reference(axis, summed, relative):
    start, steps = random(), gradients(3)
    first = reference.group_norm(start, summed) if relative else 1.0
    ours = run(
        decays.NormControl(3.0, 0.7, relative=relative, axis=axis), start, steps
    )
    theirs = expected(
        lambda w, before: reference.toward_norm(
            w, before, RATE * 3.0, 0.7 * first, summed
        ),
        start,
        steps,
    )
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("warmup_steps", [0, 2])
def test_cpr_is_the_reference(warmup_steps):
    # Gradients that make the weights grow.
    start, steps = random(), [[-random() + random(s)] for s in range(1, 7)]
    cpr = reference.CPR(warmup_steps, bound=0.95)
    theirs = expected(lambda w, before: cpr.step(w, before, 0.2), start, steps)
    assert cpr.multiplier > 0
    ours = run(decays.CPR(0.2, warmup_steps, bound=0.95), start, steps)
    np.testing.assert_allclose(ours, theirs, rtol=5e-5, atol=5e-6)


def test_at_target_zero_it_is_l2():
    start, steps = random(), gradients(3)
    zero = decays.NormControl(0.5, target=0.0)
    assert_equal(run(zero, start, steps), run(decays.L2(0.5), start, steps))


def test_without_a_gradient_the_norm_goes_to_its_target_by_a_fixed_share():
    start, nothing = random(), [[np.zeros((5, 3), "float32")]] * 5
    rule = decays.NormControl(
        0.3, target=2.0, relative=False, coupling="independent"
    )
    found = [np.linalg.norm(w) for w in run(rule, start, nothing)]
    first = np.linalg.norm(start)
    law = [2 + (first - 2) * 0.7**step for step in range(1, 6)]
    np.testing.assert_allclose(found, law, rtol=1e-5)


def test_the_norm_is_held_at_its_target_where_l2_would_lose_it():
    def inner():
        return keras.optimizers.Adam(0.01)

    start = random(shape=(20, 10))
    steps = [[random(seed, (20, 10))] for seed in range(25)]
    first = np.linalg.norm(start)
    control = decays.NormControl(0.1, coupling="independent")
    held = run(control, start, steps, inner)
    np.testing.assert_allclose(
        [np.linalg.norm(w) / first for w in held], 1.0, atol=0.02
    )
    l2 = decays.L2(0.1, coupling="independent")
    assert np.linalg.norm(run(l2, start, steps, inner)[-1]) < 0.6 * first


def test_a_target_may_follow_a_schedule():
    start, nothing = random(), [[np.zeros((5, 3), "float32")]] * 4
    rule = decays.NormControl(
        1.0, schedules.Stepwise([1.5, 0.5], steps=2), coupling="independent"
    )
    found = [np.linalg.norm(w) for w in run(rule, start, nothing)]
    wanted = np.linalg.norm(start) * np.array([1.5, 1.5, 0.5, 0.5])
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_cpr_bounds_a_norm_that_grows_and_leaves_one_that_does_not():
    def inner():
        return keras.optimizers.SGD(0.2)

    start = random()
    grow = [[-start + random(seed)] for seed in range(60)]
    free = run(decays.L2(0.0), start, grow, inner)
    bounded = run(decays.CPR(0.1, warmup_steps=5), start, grow, inner)
    assert_equal(bounded[:6], free[:6])
    bound = np.linalg.norm(free[4])
    norms = [np.linalg.norm(w) for w in bounded[30:]]
    assert np.linalg.norm(free[-1]) > 3 * bound
    np.testing.assert_allclose(np.mean(norms), bound, rtol=0.02)
    assert max(norms) < 1.25 * bound
    # A norm that falls is never above its bound: no decay, bit for bit.
    fall = [[0.1 * start]] * 6
    assert_equal(
        run(decays.CPR(warmup_steps=3), start, fall, inner),
        run(decays.L2(0.0), start, fall, inner),
    )


def test_cpr_has_a_bound_of_its_own_for_every_tensor():
    start = [random(), random(1, scale=0.1)]
    optimizer = optimizers.WeightDecay(sgd(), decays.CPR())
    take_steps(optimizer, variables(start), [[random(2), random(3)]])
    kappas = [
        float(v.numpy()) for v in optimizer.variables if "kappa" in v.name
    ]
    means = [np.mean(np.square(w)) for w in start]
    np.testing.assert_allclose(kappas, means, rtol=1e-5)


def test_a_rate_that_is_set_to_zero_stops_the_decay():
    weights = variables([random()])
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.0), decays.CPR(1.0, bound=0.5)
    )
    zero = [[np.zeros((5, 3), "float32")]]
    first, second = take_steps(optimizer, weights, zero * 2)
    assert np.all(np.abs(second[0]) < np.abs(first[0]))
    optimizer.set_weight_decay(0.0)
    assert_equal(take_steps(optimizer, weights, zero)[0], second)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_shares_below_the_rounding_of_the_weights_act(dtype):
    weights = variables([[[1.0, 2.0]]], dtype)
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.0),
        decays.NormControl(3e-3, target=0.5, coupling="independent"),
    )
    take_steps(optimizer, weights, [[np.zeros((1, 2), "float32")]] * 25)
    left = 0.5 + 0.5 * 0.997**25
    np.testing.assert_allclose(
        np.float32(ops.convert_to_numpy(weights[0].value)),
        [[left, 2 * left]],
        rtol=0.01,
    )


def test_what_is_kept_is_named_after_its_weight_and_copied_with_the_rest():
    optimizer = optimizers.WeightDecay(
        sgd(),
        [
            decays.NormControl(0.1, axis=-1, where=where.everything()),
            decays.CPR(name="bound"),
        ],
    )
    weights = variables([random(), random(1, (3,))])
    optimizer.build(weights)
    kept = {
        v.name: tuple(v.shape)
        for v in optimizer.variables
        if "kernel" in v.name
    }
    assert kept["kernel_0_norm_control_first_norm"] == (1, 3)
    assert kept["kernel_1_norm_control_first_norm"] == (3,)
    assert kept["kernel_0_bound_multiplier"] == ()
    assert "kernel_1_bound_multiplier" not in kept
    steps = [[random(2), random(3, (3,))], [random(4), random(5, (3,))]]
    take_steps(optimizer, weights, steps)
    again = type(optimizer).from_config(optimizer.get_config())
    others = variables([w.numpy() for w in weights])
    again.build(others)
    again.set_weights([np.array(v) for v in optimizer.variables])
    assert_equal(
        take_steps(optimizer, weights, steps)[-1],
        take_steps(again, others, steps)[-1],
    )


def test_what_is_not_in_range_is_refused():
    for rule in (decays.NormControl(0.1), decays.CPR()):
        optimizer = optimizers.WeightDecay(sgd(), rule)
        with pytest.raises(ValueError, match="not all zero, because"):
            optimizer.build(variables([np.zeros((2, 2))]))
    with pytest.raises(ValueError, match="`coupling` must be one of"):
        decays.NormControl(0.1, coupling="coupled")
    with pytest.raises(ValueError, match="`coupling` must be one of"):
        decays.CPR(coupling="decoupled")
    with pytest.raises(ValueError, match="`target` must be a finite number"):
        decays.NormControl(0.1, target=-1.0)
    with pytest.raises(ValueError, match="`bound` must be a finite number > 0"):
        decays.CPR(bound=0.0)
    with pytest.raises(ValueError, match="`warmup_steps` must be an integer"):
        decays.CPR(warmup_steps=0.5)
    optimizer = optimizers.WeightDecay(sgd(), decays.NormControl(0.1, axis=2))
    with pytest.raises(ValueError, match="`axis` must be an axis of every"):
        optimizer.build(variables([random()]))
