"""Weights of float64 are measured, constrained and decayed in float64."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import constraints
from keras_wd import decays
from keras_wd import graph
from keras_wd import metrics
from keras_wd import optimizers
from keras_wd import where
from tests.graph import reference

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rel": 1e-12, "abs": 0}
X = np.random.default_rng(0).normal(size=(5, 3))


def network(normalized=False):
    """3-4-2 in float64, whose numbers float32 does not have."""
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="float64"),
            layers.Dense(4, name="first", dtype="float64"),
            *([layers.BatchNormalization(dtype="float64")] * normalized),
            layers.Activation("relu", dtype="float64"),
            layers.Dense(2, name="second", dtype="float64"),
        ]
    )
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def parts(model):
    return [np.array(weight, "float64") for weight in model.get_weights()]


def jacobian(model):
    """Of the outputs in the inputs: (examples, inputs, outputs)."""
    w, a, v, _ = parts(model)
    return (w * (X @ w + a > 0)[:, None]) @ v


def test_the_weights():
    model = network()
    w, _, v, _ = parts(model)
    both = np.concatenate([w.ravel(), v.ravel()])
    found = metrics.weight_norm(model)
    assert found == pytest.approx(np.linalg.norm(both), **EXACT)
    threshold = np.sort(np.abs(both))[9]
    assert metrics.sparsity(model, threshold) == 10 / both.size
    below = np.nextafter(threshold, 0)
    metric = metrics.Sparsity(below, dtype="float64")
    metric.update_state(model)
    assert float(metric.result()) == metrics.sparsity(model, below)
    assert metrics.sparsity(model, below) == 9 / both.size
    norms = np.linalg.norm(w, axis=0) @ np.linalg.norm(v, axis=1)
    assert metrics.path_norm(model) == pytest.approx(norms, **EXACT)


def test_the_jacobian():
    model = network()
    squares = np.square(jacobian(model)).sum((1, 2))
    found = metrics.jacobian_norm(model, X, method="exact")
    assert found.value == pytest.approx(squares.mean(), **EXACT)
    metric = metrics.JacobianNorm("exact", dtype="float64")
    metric.update_state(model, X)
    assert float(metric.result()) == pytest.approx(squares.mean(), **EXACT)


@pytest.mark.parametrize(
    "form",
    [
        "block",
        *(
            pytest.param(
                form,
                marks=pytest.mark.slow(reason="compiles for nearly the same"),
            )
            for form in ("full", "kfac")
        ),
    ],
)
def test_the_gauss_newton_norm(form):
    # The motion of the outputs along the kernels, layer by layer. The
    # Kronecker factors of the last layer are exact, and those of the first
    # a product of means.
    model = network()
    w, a, v, _ = parts(model)
    active = (X @ w + a > 0).astype("float64")
    hidden = np.maximum(X @ w + a, 0)
    first, second = (X @ w * active) @ v, hidden @ v
    expected = {
        "full": np.square(first + second).sum(1).mean(),
        "block": (np.square(first) + np.square(second)).sum(1).mean(),
        "kfac": np.trace(
            w.T @ (X.T @ X / 5) @ w @ ((v @ v.T) * (active.T @ active) / 5)
        )
        + np.square(second).sum(1).mean(),
    }[form]
    found = metrics.gauss_newton_norm(model, X, form)
    assert found == pytest.approx(expected, **EXACT)


@pytest.mark.slow(reason="compiles six programs")
def test_the_influence():
    model = keras.Sequential(
        [keras.Input((3,), dtype="float64"), layers.Dense(2, dtype="float64")]
    )
    rng = np.random.default_rng(2)
    y = X @ rng.normal(size=(3, 2)) + 0.3 * rng.normal(size=(5, 2))
    rows = np.concatenate([X, np.ones((5, 1))], axis=1)
    solution = np.linalg.lstsq(rows, y, rcond=None)[0]
    model.layers[0].set_weights([solution[:-1], solution[-1]])
    # A loss of Keras is float32 unless it is told.
    loss = keras.losses.MeanSquaredError(dtype="float64")
    model.compile(loss=loss, jit_compile=False)
    found = metrics.influence(model, (X, y), (X, y), damping=0.0)
    slopes = rows @ np.linalg.inv(rows.T @ rows) @ rows.T
    residuals = rows @ solution - y
    expected = slopes * (residuals @ residuals.T)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


def test_rates_and_rotation():
    model = network(normalized=True)
    w = parts(model)[0]
    model.compile(optimizers.SGDW(0.1, weight_decay=0.3, momentum=0.9))
    (found, _) = metrics.effective_learning_rate(model).values()
    assert found == pytest.approx(0.1 / (0.1 * np.sum(w**2)), **EXACT)
    (found,) = metrics.equilibrium_rotation(model).values()
    assert found == pytest.approx(np.sqrt(2 * 0.03 * 0.1 / 1.9), **EXACT)
    kfac = optimizers.KFAC(0.1, damping=0.1)
    (found, _) = metrics.effective_damping(model, kfac).values()
    assert found == pytest.approx(0.1 * np.sum(w**2), **EXACT)
    angle = 1e-9
    turned = np.array([np.cos(angle), np.sin(angle)])
    found = metrics.rotation(np.array([1.0, 0.0]), turned)
    assert found == pytest.approx(angle, **EXACT)


def test_the_constraint():
    w = parts(network())[0]
    fixed = constraints.FixedNorm(axis=0, radius=0.1)(w)
    expected = 0.1 * w / np.linalg.norm(w, axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(fixed), expected, rtol=1e-12)


@pytest.mark.slow(reason="runs hundreds of operations one by one")
def test_the_spectral_constraint():
    w = parts(network())[0]
    fixed = constraints.FixedSpectralNorm(radius=0.1)(w)
    expected = 0.1 * w / np.linalg.svd(w, compute_uv=False)[0]
    np.testing.assert_allclose(np.asarray(fixed), expected, rtol=1e-12)


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("balance", [False, True])
def test_path_norm_and_path_prox(absorb, balance):
    # Two pairs in a row, each after another: all roles of biases.
    def chain():
        model = keras.Sequential(
            [keras.Input((3,), dtype="float64")]
            + [
                layers.Dense(n, "relu", name=f"d{i}", dtype="float64")
                for i, n in enumerate((4, 3, 4, 2))
            ]
        )
        rng = np.random.default_rng(3)
        for variable in model.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
        return model

    pairs = graph.homogeneous_units(chain())
    s = 0.1 * 0.3
    expected = reference.step(as_pairs(parts(chain())), s, balance, absorb)
    expected = [value for pair in expected for value in pair.values()]
    rule = decays.PathNorm(0.3, pairs, balance=balance, absorb=absorb)
    for optimizer in (
        optimizers.WeightDecay(keras.optimizers.SGD(0.1), rule),
        optimizers.PathProx(
            pairs, 0.1, 0.3, balance, absorb, where=~where.everything()
        ),
    ):
        model = chain()
        variables = model.trainable_variables
        zeros = [np.zeros(v.shape) for v in variables]
        optimizer.apply(zeros, variables)
        for found, wanted in zip(parts(model), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)
    value = sum(reference.path_norm(p["w"], p["v"]) for p in as_pairs(expected))
    assert rule.value(model) == pytest.approx(value, **EXACT)


def as_pairs(values):
    """Kernels and biases of dense layers as the reference takes them."""
    return [
        dict(zip("wbvc", values[i : i + 4], strict=True))
        for i in range(0, len(values), 4)
    ]
