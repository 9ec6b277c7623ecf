"""Influence of training examples, against retraining without them."""

import keras
import numpy as np
import pytest

from keras_wd import metrics
from tests.kfac.reference import with_ones

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = X @ RNG.normal(size=(3, 2)) + 0.3 * RNG.normal(size=(40, 2))
X_TEST, Y_TEST = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 2))


def least_squares(x, y):
    return np.linalg.lstsq(with_ones(x), y, rcond=None)[0]


def losses(solution, x, y):
    return ((with_ones(x) @ solution - y) ** 2).mean(axis=1)


@pytest.fixture(scope="module")
def linear():
    """A linear model at the least squares of the training examples."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    solution = least_squares(X, Y)
    model.layers[0].kernel.assign(solution[:-1])
    model.layers[0].bias.assign(solution[-1])
    model.compile(loss="mse", jit_compile=False)
    return model


@pytest.mark.parametrize("batch_size", [40, 20])
def test_influence_is_leave_one_out_on_a_linear_model(linear, batch_size):
    found = metrics.influence(
        linear,
        (X, Y),
        (X_TEST, Y_TEST),
        damping=0.0,
        batch_size=batch_size,
    )
    # The curvature of a mean over two outputs is the identity on them.
    solution, rows = least_squares(X, Y), with_ones(X)
    inverse = np.linalg.inv(rows.T @ rows)
    slopes = with_ones(X_TEST) @ inverse @ rows.T
    residuals = rows @ solution - Y
    errors = with_ones(X_TEST) @ solution - Y_TEST
    expected = slopes * (errors @ residuals.T)
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=1e-4)
    retrained = np.stack(
        [
            losses(
                least_squares(np.delete(X, j, 0), np.delete(Y, j, 0)),
                X_TEST,
                Y_TEST,
            )
            - losses(solution, X_TEST, Y_TEST)
            for j in range(len(X))
        ],
        axis=1,
    )
    for ours, theirs in zip(found, retrained, strict=True):
        assert np.corrcoef(ours, theirs)[0, 1] > 0.98


@pytest.mark.slow(reason="trains again without an example")
def test_damping_and_a_loss_that_is_a_sum(linear):
    data = (X, Y), (X_TEST, Y_TEST)
    small = metrics.influence(linear, *data, damping=1e6)
    free = metrics.influence(linear, *data)
    assert np.abs(small).max() < 1e-3 * np.abs(free).max()
    other = keras.models.clone_model(linear)
    other.compile(loss=keras.losses.MeanSquaredError(reduction="sum"))
    with pytest.raises(ValueError, match="a mean over the examples"):
        metrics.influence(other, *data)


def test_labels_have_to_go_with_the_examples(linear):
    with pytest.raises(ValueError, match="as many labels as examples"):
        metrics.influence(linear, (X, Y[:3]), (X_TEST, Y_TEST))
    with pytest.raises(ValueError, match=r"`test` must be a tuple \(x, y\)"):
        metrics.influence(linear, (X, Y), X_TEST)
