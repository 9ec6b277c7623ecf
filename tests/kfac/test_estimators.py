"""Factors of small networks against formulas in float64."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd.optimizers.kfac import KFAC
from tests.kfac import reference
from tests.kfac.running import array
from tests.kfac.running import measured
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager

BATCH = 6


def weights(model):
    return [value(v).astype("float64") for v in model.trainable_variables]


def hidden(model, x):
    """Rows into and slopes at the hidden layer, rows into the last."""
    w0, b0, w1, b1 = weights(model)
    h = np.tanh(x @ w0 + b0)
    return h, 1 - h * h, h @ w1 + b1


def metric(kind, z):
    """M per example, (batch, k, k), from its definition."""
    k = z.shape[-1]
    if kind == "categorical":
        p = reference.softmax(z)
        return np.array([np.diag(q) - np.outer(q, q) for q in p])
    if kind == "bernoulli":
        p = 1 / (1 + np.exp(-z))
        return np.array([np.diag(q * (1 - q)) / k for q in p])
    scale = 2 / k if kind == "gaussian" else 1.0
    return np.array([scale * np.eye(k)] * len(z))


LOSSES = {
    "categorical": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "bernoulli": keras.losses.BinaryCrossentropy(from_logits=True),
    "gaussian": keras.losses.MeanSquaredError(),
}


def expected_factors(kind, model, x):
    h, slope, z = hidden(model, x)
    m = metric(kind, z)
    _, _, w1, _ = weights(model)
    back = [np.diag(d) @ w1 for d in slope]
    s0 = np.mean([b @ n @ b.T for b, n in zip(back, m, strict=True)], axis=0)
    rows, inner = reference.with_ones(x), reference.with_ones(h)
    return [
        (rows.T @ rows / len(x), s0),
        (inner.T @ inner / len(x), m.mean(axis=0)),
    ]


@pytest.mark.parametrize("kind", [*LOSSES, "identity"])
def test_exact_estimators_are_the_formula(kind):
    model, x = mlp(4, 3), array(1, BATCH, 3)
    if kind == "identity":
        found = measured(model, x, estimator="gauss_newton_exact")
    else:
        found = measured(model, x, loss=LOSSES[kind], estimator="fisher_exact")
    expected = expected_factors(kind, model, x.astype("float64"))
    for factors, (a, s) in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(factors["input_factor"], a, rtol=1e-5)
        np.testing.assert_allclose(
            factors["output_factor"], s, rtol=1e-4, atol=1e-6
        )


def test_empirical_uses_the_labels():
    model, x = mlp(4, 3), array(1, BATCH, 3)
    y = np.array([0, 1, 2, 0, 1, 2])
    found = measured(
        model, x, y, loss=LOSSES["categorical"], estimator="empirical"
    )
    _, slope, z = hidden(model, x.astype("float64"))
    residual = reference.softmax(z) - np.eye(3)[y]
    _, _, w1, _ = weights(model)
    before = residual @ w1.T * slope
    for factors, g in zip(found.values(), (before, residual), strict=True):
        np.testing.assert_allclose(
            factors["output_factor"], g.T @ g / BATCH, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    "last, kind, loss",
    [
        (
            "softmax",
            "categorical",
            keras.losses.SparseCategoricalCrossentropy(),
        ),
        ("sigmoid", "bernoulli", keras.losses.BinaryCrossentropy()),
    ],
)
def test_probabilities_have_the_fisher_of_their_logits(last, kind, loss):
    x = array(1, BATCH, 3)
    model = mlp(4, 3, last=last)
    found = measured(model, x, loss=loss, estimator="fisher_exact")
    expected = expected_factors(kind, model, x.astype("float64"))
    for factors, (_, s) in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(
            factors["output_factor"], s, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("kind", ["gaussian", "identity", "categorical"])
def test_fisher_of_one_linear_layer_is_exact(kind):
    # The metric does not depend on the example: for the categorical one
    # because the weights are zero.
    model, x = mlp(3), array(1, BATCH, 3)
    if kind == "categorical":
        for variable in model.trainable_variables:
            variable.assign(0.0 * value(variable))
    if kind == "identity":
        found = measured(model, x, estimator="gauss_newton_exact")
    else:
        found = measured(model, x, loss=LOSSES[kind], estimator="fisher_exact")
    (factors,) = found.values()
    rows = reference.with_ones(x.astype("float64"))
    (kernel, bias) = weights(model)
    m = metric(kind, x @ kernel + bias)
    jacobian = [np.kron(row[:, None], np.eye(3)).T for row in rows]
    exact = np.mean(
        [j.T @ n @ j for j, n in zip(jacobian, m, strict=True)], axis=0
    )
    product = np.kron(factors["input_factor"], factors["output_factor"])
    np.testing.assert_allclose(product, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.compiled
@pytest.mark.weekly(reason="averages many draws")
@pytest.mark.one_backend
@pytest.mark.parametrize("kind", [*LOSSES, "identity"])
def test_drawn_estimators_converge_like_one_over_root_n(kind):
    model, x = mlp(4, 3), array(1, BATCH, 3)
    expected = expected_factors(kind, model, x.astype("float64"))[0][1]
    estimator = "gauss_newton" if kind == "identity" else "fisher"
    optimizer = KFAC(0.1, estimator=estimator, seed=3)
    errors = {}
    for draws in range(1, 1025):
        optimizer.update_curvature(
            model, x, loss=LOSSES.get(kind), invert=False, first_pass=True
        )
        if draws in (16, 64, 256, 1024):
            found = optimizer.factors()["net/d0/kernel"]["output_factor"]
            errors[draws] = np.linalg.norm(found - expected)
    # Without bias the error falls eightfold from 16 to 1024 draws; one path
    # of averages scatters around that.
    assert errors[1024] < 0.1 * np.linalg.norm(expected)
    assert errors[1024] < errors[16] / 2
    slope = np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)
    assert -1.0 < slope[0] < -0.2


def test_sequence_loss_is_a_mean_over_positions():
    model = keras.Sequential([keras.Input((5, 3)), layers.Dense(4)], name="s")
    x = array(2, 2, 5, 3)
    loss = LOSSES["categorical"]
    (found,) = measured(model, x, loss=loss, estimator="fisher_exact").values()
    flat = mlp(4)
    for mine, other in zip(
        flat.trainable_variables, model.trainable_variables, strict=True
    ):
        mine.assign(value(other))
    (expected,) = measured(
        flat, x.reshape(10, 3), loss=loss, estimator="fisher_exact"
    ).values()
    for name in found:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-4, atol=1e-6
        )


def test_two_outputs_add_their_weighted_curvatures():
    inputs = keras.Input((3,))
    body = layers.Dense(4, activation="tanh", name="body")(inputs)
    one = layers.Dense(3, name="one")(body)
    two = layers.Dense(2, name="two")(body)
    model = keras.Model(inputs, [one, two], name="both")
    model.compile(
        KFAC(0.1, estimator="fisher_exact"),
        [LOSSES["categorical"], LOSSES["gaussian"]],
        loss_weights=[1.0, 0.25],
    )
    x = array(1, BATCH, 3)
    model.optimizer.update_curvature(model, x, invert=False)
    found = model.optimizer.factors()["body/kernel"]["output_factor"]
    expected = 0.0
    for output, weight in ((one, 1.0), (two, 0.25)):
        single = keras.Model(inputs, output, name=f"only{output.shape[-1]}")
        kind = "categorical" if weight == 1.0 else "gaussian"
        factors = measured(
            single, x, loss=LOSSES[kind], estimator="fisher_exact"
        )
        expected = expected + weight * factors["body/kernel"]["output_factor"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_sample_weights_weigh_the_examples():
    model, x = mlp(4, 3), array(1, BATCH, 3)
    sample_weight = np.array([2.0, 0, 0, 0, 0, 0], "float32")
    optimizer = KFAC(0.1, estimator="fisher_exact")
    optimizer.update_curvature(
        model,
        x,
        sample_weight=sample_weight,
        loss=LOSSES["categorical"],
        invert=False,
    )
    found = optimizer.factors()["net/d1/kernel"]["output_factor"]
    _, _, z = hidden(model, x.astype("float64"))
    expected = 2.0 * metric("categorical", z)[0] / BATCH
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_rejects_a_loss_without_distribution():
    with pytest.raises(ValueError, match="must be a .sparse. categorical"):
        measured(mlp(3), array(1, 2, 3), loss="mae")


def test_rejects_a_model_without_loss():
    with pytest.raises(ValueError, match="must be compiled with a loss"):
        measured(mlp(3), array(1, 2, 3))


def test_rejects_gauss_newton_on_probabilities():
    loss = keras.losses.CategoricalCrossentropy()
    with pytest.raises(ValueError, match="must be from_logits=True"):
        measured(mlp(3), array(1, 2, 3), loss=loss, estimator="gauss_newton")


def test_rejects_empirical_without_labels():
    with pytest.raises(ValueError, match="`y` must be given"):
        measured(mlp(3), array(1, 2, 3), loss="mse", estimator="empirical")


def test_rejects_too_many_passes():
    with pytest.raises(ValueError, match="must not need more than 256 passes"):
        measured(mlp(257), array(1, 2, 3), estimator="gauss_newton_exact")
