"""K-FAC for some weights, other optimizers for the rest or after it."""

import keras
import numpy as np
import pytest

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import graph
from keras_wd import metrics
from keras_wd import where
from keras_wd.optimizers import KFAC
from keras_wd.optimizers import WeightDecay
from tests.kfac.running import mlp
from tests.kfac.running import value
from tests.optimizers.test_kfac import LOSS
from tests.optimizers.test_kfac import X
from tests.optimizers.test_kfac import Y
from tests.optimizers.test_kfac import directions
from tests.optimizers.test_kfac import gradients
from tests.optimizers.test_kfac import saves
from tests.optimizers.test_kfac import weights
from tests.training import assert_close
from tests.training import assert_equal

pytestmark = pytest.mark.eager

FIRST = where.paths("d0/*")
Adam, SGD = keras.optimizers.Adam, keras.optimizers.SGD


def kfac(*args, **arguments):
    own = {"damping": 0.05, "estimator": "fisher_exact", "kl_clip": None}
    return KFAC(*args, seed=0, **{**own, **arguments})


def beside(rest=None, **arguments):
    """K-FAC for the first layer, Adam or another for the second."""
    return kfac(0.1, where=FIRST, rest=rest or Adam(0.01), **arguments)


def started(optimizer, around=None, steps=1):
    """A model after so many steps with one curvature."""
    model = mlp(4, 3)
    outer = optimizer if around is None else around(optimizer)
    model.compile(outer, LOSS, run_eagerly=keras.backend.backend() != "jax")
    model.jit_compile = False
    optimizer.update_curvature(model, X)
    for _ in range(steps):
        model.train_on_batch(X, Y)
    return model


def adam(gradients, count, rate, b1=0.9, b2=0.999, epsilon=1e-7):
    """`w` moves by this in step `count` of Adam (Kingma and Ba, 2015)."""
    m, v = adam.state
    m = [b1 * a + (1 - b1) * g for a, g in zip(m, gradients, strict=True)]
    v = [b2 * a + (1 - b2) * g**2 for a, g in zip(v, gradients, strict=True)]
    adam.state = m, v
    scale = rate * np.sqrt(1 - b2**count) / (1 - b1**count)
    return [
        -scale * a / (np.sqrt(b) + epsilon) for a, b in zip(m, v, strict=True)
    ]


def test_adam_takes_the_preconditioned_gradient_for_its_gradient():
    model = started(kfac(inner=Adam(0.01)), steps=0)
    zeros = [np.zeros(w.shape) for w in weights(model)]
    adam.state = zeros, zeros
    for count in (1, 2):
        before = weights(model)
        solved = directions(model.optimizer, gradients(model), 0.05)
        expected = adam(solved, count, 0.01)
        model.train_on_batch(X, Y)
        found = [a - b for a, b in zip(weights(model), before, strict=True)]
        assert_close(found, expected, 2e-5)


def test_the_rest_takes_the_plain_gradient_to_adam():
    model = started(beside(momentum=0.0), steps=0)
    before, grads = weights(model), gradients(model)
    zeros = [np.zeros(w.shape) for w in before[2:]]
    adam.state = zeros, zeros
    expected = [
        *(-0.1 * u for u in directions(model.optimizer, grads[:2], 0.05)),
        *adam(grads[2:], 1, 0.01),
    ]
    assert list(model.optimizer.factors()) == ["net/d0/kernel"]
    model.train_on_batch(X, Y)
    found = [a - b for a, b in zip(weights(model), before, strict=True)]
    assert_close(found, expected, 2e-5)


def test_without_a_rest_what_is_left_out_takes_the_plain_gradient():
    plain = started(kfac(0.1, where=FIRST))
    by_sgd = started(beside(SGD(0.1, momentum=0.9)))
    assert_equal(weights(plain), weights(by_sgd))


@pytest.mark.parametrize("clip", [{}, {"kl_clip": 1e-4}])
def test_sgd_inside_is_the_step_of_kfac(clip):
    own = started(kfac(0.1, **clip), steps=2)
    inside = started(kfac(inner=SGD(0.1, momentum=0.9), **clip), steps=2)
    assert_equal(weights(own), weights(inside))


def test_a_decay_is_multiplied_by_the_learning_rate_of_each_part():
    before = weights(mlp(4, 3))
    plain = started(beside())
    decayed = started(
        beside(),
        lambda o: WeightDecay(o, decays.L2(0.5, where=where.kernels())),
    )
    shrunk = [
        a - b for a, b in zip(weights(plain), weights(decayed), strict=True)
    ]
    expected = [0.1 * 0.5 * before[0], 0, 0.01 * 0.5 * before[2], 0]
    for found, wanted in zip(shrunk, expected, strict=True):
        np.testing.assert_allclose(found, wanted + 0 * found, atol=1e-6)


@saves
def test_callbacks_pace_a_decay_by_the_learning_rate_of_each_part():
    # The loss stays, so that the rate drops as soon as it may: 4 steps of the
    # rest, and the second of K-FAC's own.
    optimizer = WeightDecay(
        kfac(1e-20, where=FIRST, rest=SGD(1e-22)),
        decays.L2(0.1, where=where.kernels()),
    )
    model = mlp(4, 3)
    model.compile(optimizer, LOSS, run_eagerly=keras.backend.backend() != "jax")
    optimizer.inner_optimizer.update_curvature(model, X)
    paced = callbacks.AutoL2((X, Y), every=1, delay=3.5e-23, patience=1)
    rates = [
        model.fit(X[:n], Y[:n], 1, verbose=0, callbacks=[paced]).history[
            "weight_decay"
        ][0]
        for n in (3, 1, 5)
    ]
    assert rates == [0.1, 0.01, 0.01]
    assert optimizer.learning_rates_of() == {
        "net/d0/kernel": 1e-20,
        "net/d1/kernel": 1e-22,
    }


def test_a_layers_feedback_is_paced_by_its_own_learning_rate():
    model = started(beside(), steps=0)
    optimizer = WeightDecay(
        beside(), decays.L2(0.5, where=where.kernels(), layerwise=True)
    )
    model.compile(optimizer, LOSS, run_eagerly=keras.backend.backend() != "jax")
    optimizer.inner_optimizer.update_curvature(model, X)
    paced = callbacks.LayerwiseDecay(1, gain=8.0)
    logs = model.fit(X, Y, verbose=0, callbacks=[paced]).history
    ((_, memory),) = optimizer.callback_memory.items()
    # Two angles, whose logarithms are on both sides of their mean.
    excess = np.log1p(logs["rotation_spread"][0]) / 2
    found = memory["sums"]["net/d0/kernel"] - memory["sums"]["net/d1/kernel"]
    expected = (8 * 0.05 + 8 * 0.005) * excess
    assert abs(found) == pytest.approx(expected, rel=1e-4)


def test_what_is_left_out_turns_as_the_plain_gradient_turns_it():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="d0"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2, name="d1"),
            keras.layers.BatchNormalization(),
        ],
        name="net",
    )
    optimizer = kfac(0.1, where=FIRST)
    optimizer.build(model.trainable_variables)
    squares = float(np.sum(np.square(weights(model)[4])))
    found = metrics.effective_learning_rate(model, optimizer)
    assert found["net/d0/kernel"] == pytest.approx(0.1)
    assert found["net/d1/kernel"] == pytest.approx(1.0 / squares, rel=1e-5)
    dampings = metrics.effective_damping(model, optimizer)
    assert dampings["net/d0/kernel"] > 0 and dampings["net/d1/kernel"] is None


def test_a_decay_of_paths_has_one_learning_rate():
    model = mlp(4, 3, activation="relu")
    optimizer = WeightDecay(
        beside(), decays.PathNorm(0.1, graph.homogeneous_units(model))
    )
    with pytest.raises(ValueError, match="leave the weights of a unit to one"):
        optimizer.build(model.trainable_variables)


def test_accumulation_clipping_and_loss_scaling_are_of_the_whole():
    whole = started(beside(global_clipnorm=0.1))
    scaled = started(
        beside(global_clipnorm=0.1), keras.optimizers.LossScaleOptimizer
    )
    assert_close(weights(scaled), weights(whole), 1e-6)
    halves = started(
        beside(global_clipnorm=0.1, gradient_accumulation_steps=2), steps=0
    )
    for rows in (slice(4), slice(4, 8)):
        halves.train_on_batch(X[rows], Y[rows])
    assert_close(weights(halves), weights(whole), 1e-5)
    assert int(halves.optimizer.rest.iterations.numpy()) == 1


def test_a_constraint_acts_once():
    class Halved(keras.constraints.Constraint):
        def __call__(self, w):
            return w / 2

    found = []
    for optimizer in (beside(SGD(0.1, momentum=0.9)), kfac(0.1, where=FIRST)):
        model = mlp(4, 3)
        for variable in model.trainable_variables:
            variable.constraint = Halved()
        model.compile(
            optimizer, LOSS, run_eagerly=keras.backend.backend() != "jax"
        )
        model.jit_compile = False
        optimizer.update_curvature(model, X)
        model.train_on_batch(X, Y)
        found.append(weights(model))
    assert_equal(*found)


@saves
def test_saved_it_takes_the_identical_next_steps(tmp_path):
    model = started(
        kfac(inner=Adam(0.01), where=FIRST, rest=SGD(0.1, momentum=0.9)),
        lambda o: WeightDecay(o, decays.L2(0.1)),
        steps=2,
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.run_eagerly = model.run_eagerly
    again.jit_compile = False
    for one in (model, again):
        one.optimizer.inner_optimizer.update_curvature(one, X)
        one.train_on_batch(X, Y)
    assert_equal(weights(model), weights(again))
    assert int(value(again.optimizer.inner_optimizer.inner.iterations)) == 3


def test_the_learning_rate_is_that_of_the_optimizer_inside():
    optimizer = kfac(inner=Adam(0.01))
    wrapped = WeightDecay(optimizer, decays.L2(0.1))
    wrapped.learning_rate = 0.25
    assert float(value(optimizer.inner.learning_rate)) == 0.25
    assert float(value(optimizer.learning_rate)) == 0.25
    with pytest.raises(ValueError, match="without optimizers inside"):
        metrics.effective_learning_rate(mlp(4, 3), optimizer)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: KFAC(0.1, rest=Adam()), "`where` must be given with `rest`"),
        (lambda: KFAC(0.1, inner=Adam()), "`learning_rate` must be None"),
        (lambda: KFAC(inner=Adam(), momentum=0.9), "`momentum` must be None"),
        (lambda: KFAC(inner="adam"), "`inner` must be a Keras optimizer"),
        (lambda: KFAC(inner=KFAC(0.1)), "another optimizer than KFAC"),
        (lambda: KFAC(inner=Adam(use_ema=True)), "without use_ema.*to KFAC"),
        (
            lambda: KFAC(inner=WeightDecay(SGD(), decays.L2(0.1))),
            "Put the WeightDecay around KFAC",
        ),
        (
            lambda: KFAC(0.1, where=FIRST, rest=Adam(), weight_decay=0.1),
            "`weight_decay` must be None beside `rest`",
        ),
        (
            lambda: WeightDecay(
                KFAC(inner=keras.optimizers.AdamW()), decays.L2(0.1)
            ),
            "without a weight decay of its own",
        ),
        (
            lambda: beside().build(mlp(4, 3).trainable_variables[:2]),
            "`where` must leave variables for `rest`",
        ),
        (
            lambda: kfac(0.1, where=where.paths("d7/*")).build(
                mlp(4, 3).trainable_variables
            ),
            "`where` must select at least one",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
