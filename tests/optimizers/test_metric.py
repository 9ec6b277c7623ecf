"""Proximal steps in the metric of an adaptive optimizer."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from sklearn.linear_model import Lasso

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where
from keras_wd.ops import group_soft_threshold_in_metric
from keras_wd.optimizers.metric import StepMetric
from tests import catalogue
from tests import reference
from tests.training import take_steps
from tests.training import variables

# Without momentum, so that the last step is `rate * gradient / d`.
ADAPTIVE = {
    "Adam": lambda rate: keras.optimizers.Adam(rate, beta_1=0.0),
    "AMSGrad": lambda rate: keras.optimizers.Adam(
        rate, beta_1=0.0, amsgrad=True
    ),
    "AdamW": lambda rate: keras.optimizers.AdamW(
        rate, weight_decay=0.0, beta_1=0.0
    ),
    "Nadam": lambda rate: keras.optimizers.Nadam(rate, beta_1=0.0),
    "Adamax": lambda rate: keras.optimizers.Adamax(rate, beta_1=0.0),
    "RMSprop": lambda rate: keras.optimizers.RMSprop(rate),
    "RMSprop centered": lambda rate: keras.optimizers.RMSprop(
        rate, centered=True
    ),
    "Adagrad": lambda rate: keras.optimizers.Adagrad(rate),
    "Adafactor": lambda rate: keras.optimizers.Adafactor(rate),
    "Adafactor clipped": lambda rate: keras.optimizers.Adafactor(
        rate, clip_threshold=0.3, relative_step=False, global_clipnorm=0.5
    ),
}
DECAYS = {
    "L1": lambda **a: decays.L1(0.2, **a),
    "ProximalLp": lambda **a: decays.ProximalLp(0.2, p=0.5, **a),
    "GroupLasso": lambda **a: decays.GroupLasso(0.2, **a),
}


def problem(seed=0, examples=60, inputs=20):
    """A least squares problem of few inputs, on scales a factor 30 apart."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, inputs)) * 10 ** rng.uniform(
        -0.75, 0.75, inputs
    )
    true = np.zeros(inputs)
    true[:5] = 2 * rng.normal(size=5) / x[:, :5].std(0)
    y = x @ true + 0.3 * rng.normal(size=examples)
    return x, y - y.mean()


def lasso(x, y, rate):
    return Lasso(alpha=rate, fit_intercept=False, tol=1e-10, max_iter=10**6)


def objective(w, x, y, rate):
    return np.sum((y - x @ w) ** 2) / (2 * len(x)) + rate * np.sum(np.abs(w))


def rests_at(make, decay, x, y, steps=600):
    """Where an optimizer comes to rest on `|y - x w|^2 / (2 examples)`."""
    rate = keras.optimizers.schedules.CosineDecay(0.05, steps, alpha=0.01)
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    half = np.sqrt(0.5)
    model.compile(
        optimizers.WeightDecay(make(rate), decay), "mse", jit_compile=True
    )
    model.fit(
        np.tile(half * x, (steps, 1)),
        np.tile(half * y, steps),
        batch_size=len(x),
        shuffle=False,
        verbose=0,
    )
    return ops.convert_to_numpy(model.layers[0].kernel.value)[:, 0]


RESTING = {
    "Adam": lambda rate: keras.optimizers.Adam(rate),
    "RMSprop with momentum": lambda rate: keras.optimizers.RMSprop(
        rate, momentum=0.8
    ),
    "Adagrad": lambda rate: keras.optimizers.Adagrad(20.0),
    "Adafactor": lambda rate: keras.optimizers.Adafactor(
        rate, clip_threshold=0.5, epsilon_2=1.0
    ),
}


@pytest.mark.slow(reason="trains to convergence")
@pytest.mark.parametrize("name", catalogue.quick(list(RESTING), "Adam"))
def test_the_weights_come_to_rest_where_the_lasso_is_least(name):
    x, y = problem()
    best = lasso(x, y, 0.2).fit(x, y).coef_
    ours = rests_at(RESTING[name], decays.L1(0.2, metric="optimizer"), x, y)
    least = objective(best, x, y, 0.2)
    assert objective(ours, x, y, 0.2) == pytest.approx(least, rel=5e-3)
    if name == "Adam":
        assert 5 <= np.sum(best == 0) <= 15
        np.testing.assert_array_equal(ours == 0, best == 0)


@pytest.mark.weekly(reason="trains to convergence")
def test_the_plain_step_after_adam_solves_another_problem():
    x, y = problem()
    least = objective(lasso(x, y, 0.2).fit(x, y).coef_, x, y, 0.2)
    plain = rests_at(RESTING["Adam"], decays.L1(0.2), x, y)
    assert objective(plain, x, y, 0.2) > 1.02 * least


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("shape", [(5,), (4, 3)])
def test_the_metric_is_what_the_step_divided_by(name, shape):
    rng = np.random.default_rng(0)
    # So that Adafactor's steps are shorter than its rate from the second on.
    rate = 0.8 if "Adafactor" in name else 0.1
    inner, weight = ADAPTIVE[name](rate), np.ones(shape)
    (kernel,) = weights = variables([weight])
    inner.build(weights)
    for _ in range(3):
        gradient = ops.convert_to_tensor(rng.normal(size=shape), "float32")
        metric = StepMetric(inner, ())
        metric.before({0: kernel})
        metric.read({0: gradient})
        inner.apply([gradient], weights)
        before, weight = weight, ops.convert_to_numpy(kernel.value)
    divisor = ops.convert_to_numpy(metric.divided_by(0))
    gradient = ops.convert_to_numpy(metric.gradients.get(0, gradient))
    # Nadam's share of the gradient is 1 without momentum.
    np.testing.assert_allclose(
        rate * gradient / divisor, before - weight, rtol=2e-4
    )


# One step of each rule.


def step_of_adafactor(w, r, c, gradient, t, rate, clip):
    """The weights after a step, what it divides by, and both factors."""
    beta, square = 1 - t**-0.8, gradient**2 + 1e-30
    r = beta * r + (1 - beta) * (square.mean(1) if w.ndim > 1 else square)
    c = beta * c + (1 - beta) * square.mean(0)
    v = np.outer(r, c) / r.mean() if w.ndim > 1 else r
    shortened = max(1, np.sqrt(np.mean(gradient**2 / v)) / clip)
    alpha = max(1e-3, np.sqrt(np.mean(w**2))) * min(rate, t**-0.5)
    d = rate * np.sqrt(v) * shortened / alpha
    return w - rate * gradient / d, d, r, c


@pytest.mark.parametrize(
    "case",
    catalogue.quick(
        [
            ("decoupled", 2, (3, 2)),
            ("decoupled", 1, (2,)),
            ("independent", 2, (2,)),
        ],
        ("decoupled", 2, (3, 2)),
    ),
)
@pytest.mark.usefixtures("float64")
def test_the_steps_of_adafactor_are_the_reference(case):
    coupling, each, shape = case
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape)
    grads = rng.normal(size=(6, *shape))
    grads *= np.resize([0.1, 3.0], 6).reshape(-1, *(1 for _ in shape))
    rate, clip, penalty = 0.5, 0.25, 0.0625
    optimizer = optimizers.WeightDecay(
        keras.optimizers.Adafactor(
            rate,
            clip_threshold=clip,
            gradient_accumulation_steps=None if each == 1 else each,
            loss_scale_factor=4.0,
            clipvalue=2.0,
        ),
        decays.L1(
            penalty,
            metric="optimizer",
            coupling=coupling,
            where=where.everything(),
        ),
    )
    ours = take_steps(
        optimizer, variables([w], "float64"), [[4 * g] for g in grads]
    )
    r = c = 0.0
    for t, update in enumerate(grads.reshape(-1, each, *shape).mean(1), 1):
        update = np.clip(update, -2, 2)
        w, d, r, c = step_of_adafactor(w, r, c, update, t, rate, clip)
        s = penalty * (rate if coupling == "decoupled" else 1)
        w = reference.soft_threshold(w, s / d)
        np.testing.assert_allclose(
            ours[t * each - 1][0], w, rtol=1e-6, atol=1e-9
        )


def divisor_of_adam(gradients, beta=0.999, epsilon=1e-3):
    square = np.zeros_like(gradients[0], "float64")
    for gradient in gradients:
        square = beta * square + (1 - beta) * np.float64(gradient) ** 2
    warmth = 1 - beta ** len(gradients)
    return (np.sqrt(square) + epsilon) / np.sqrt(warmth)


def adam():
    return keras.optimizers.Adam(0.1, epsilon=1e-3)


REFERENCE = {
    "L1": lambda w, s: reference.soft_threshold(w, s),
    "ProximalLp": lambda w, s: reference.prox_lp(w, s, 0.5),
    "GroupLasso": lambda w, s: reference.group_soft_threshold_in_metric(
        w, s, (0,)
    ),
}


@pytest.mark.parametrize("coupling", ["decoupled", "independent"])
@pytest.mark.parametrize("kind", DECAYS)
def test_one_step_is_the_reference_in_the_metric(kind, coupling):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 4)).astype("float32")
    grads = [rng.normal(size=(6, 4)).astype("float32") for _ in range(2)]
    plain, moved = adam(), variables([start])
    (stepped,) = take_steps(plain, moved, [[grads[0]]])[0]
    optimizer = optimizers.WeightDecay(
        adam(),
        DECAYS[kind](metric="optimizer", coupling=coupling),
    )
    (ours,) = take_steps(optimizer, variables([start]), [[grads[0]]])[0]
    s = 0.2 * (0.1 if coupling == "decoupled" else 1.0)
    expected = REFERENCE[kind](stepped, s / divisor_of_adam(grads[:1]))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", DECAYS)
def test_under_accumulation_only_real_updates_take_the_step(kind):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 3)).astype("float32")
    grads = [rng.normal(size=(5, 3)).astype("float32") for _ in range(4)]

    def run(gradients, **arguments):
        optimizer = optimizers.WeightDecay(
            keras.optimizers.Adam(0.1, **arguments),
            DECAYS[kind](metric="optimizer"),
        )
        return take_steps(
            optimizer, variables([start]), [[g] for g in gradients]
        )

    micro = run(grads, gradient_accumulation_steps=2)
    np.testing.assert_array_equal(micro[0][0], start)
    means = [(grads[0] + grads[1]) / 2, (grads[2] + grads[3]) / 2]
    whole = run(means)
    np.testing.assert_allclose(micro[1][0], whole[0][0], atol=1e-6)
    np.testing.assert_allclose(micro[3][0], whole[1][0], atol=1e-6)


@given(
    log_spread=st.floats(0, 3),
    log_scale=st.floats(-3, 1),
    axis=st.sampled_from([(0,), (1,), (0, 1)]),
    seed=st.integers(0, 99),
)
def test_the_group_step_minimizes_in_any_metric(
    log_spread, log_scale, axis, seed
):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(7, 4))
    s = 10 ** rng.uniform(
        log_scale - log_spread, log_scale + log_spread, w.shape
    )
    units = {(0,): -1, (1,): 0, (0, 1): None}[axis]
    w, s = np.float32(w), np.float32(s)
    result = group_soft_threshold_in_metric(
        ops.convert_to_tensor(w), ops.convert_to_tensor(s), units
    )
    expected = reference.group_soft_threshold_in_metric(w, s, axis)
    # Close to the zero of a unit its length is a small difference.
    np.testing.assert_allclose(
        ops.convert_to_numpy(result), expected, rtol=1e-4, atol=1e-5
    )


def test_with_one_strength_it_is_the_plain_group_step():
    w = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    result = group_soft_threshold_in_metric(
        ops.convert_to_tensor(w), ops.full((7, 4), 2.5)
    )
    expected = reference.group_soft_threshold(w, 2.5, (0,))
    assert np.any(np.all(expected == 0, 0)) and np.any(expected)
    np.testing.assert_allclose(
        ops.convert_to_numpy(result), expected, rtol=1e-5, atol=1e-6
    )
    same = group_soft_threshold_in_metric(
        ops.convert_to_tensor(w), ops.zeros((7, 4))
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(same), w)


# What is refused.


@pytest.mark.parametrize(
    "inner, reason",
    [
        (lambda: keras.optimizers.SGD(0.1), "metric=None is its metric"),
        (lambda: keras.optimizers.Lion(0.1), "not of that form"),
        (lambda: optimizers.KFAC(0.1), "not of that form"),
    ],
)
def test_an_optimizer_without_such_a_metric_is_refused(inner, reason):
    with pytest.raises(ValueError, match=reason):
        optimizers.WeightDecay(inner(), decays.L1(0.1, metric="optimizer"))


def test_a_coupled_decay_and_an_unknown_metric_are_refused():
    with pytest.raises(ValueError, match="`metric` must be None for a coupled"):
        decays.L1(0.1, metric="optimizer", coupling="coupled")
    with pytest.raises(ValueError, match="`metric` must be one of 'optimizer'"):
        decays.GroupLasso(0.1, metric="adam")


@pytest.mark.parametrize("kind", DECAYS)
def test_it_is_saved(kind):
    decay = DECAYS[kind](metric="optimizer")
    again = type(decay).from_config(decay.get_config())
    assert again.metric == "optimizer"
