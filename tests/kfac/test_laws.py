"""Laws of K-FAC under weight decay (Zhang, Wang, Xu and Grosse, 2019)."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd.optimizers.kfac import KFAC
from tests.kfac.running import array
from tests.kfac.running import gradient
from tests.kfac.running import measured
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def whitened(examples, features):
    """Inputs with mean 0 and covariance exactly the identity."""
    x = array(5, examples, features).astype("float64")
    x -= x.mean(axis=0)
    root = np.linalg.cholesky(np.linalg.inv(x.T @ x / examples))
    return (x @ root).astype("float32")


def bias_free(activation, *widths):
    stack = [keras.Input((widths[0],))]
    for i, width in enumerate(widths[1:]):
        last = i + 2 == len(widths)
        stack.append(
            layers.Dense(
                width,
                use_bias=False,
                kernel_initializer="zeros",
                activation=None if last else activation,
            )
        )
    model = keras.Sequential(stack)
    for i, v in enumerate(model.trainable_variables):
        v.assign(array(i, *v.shape) / np.sqrt(v.shape[0]))
    return model


@pytest.mark.parametrize(
    # K-FAC is exact for a deep linear network, and near for a ReLU one.
    "activation, tolerance",
    [("linear", 1e-4), ("relu", 0.1)],
)
def test_weight_norm_of_a_bias_free_network(activation, tolerance):
    # |theta|^2 in the K-FAC Gauss-Newton metric is layers * E|f|^2.
    model, x = bias_free(activation, 4, 6, 6, 3), whitened(64, 4)
    model.compile(KFAC(0.1, estimator="gauss_newton_exact"))
    model.optimizer.update_curvature(model, x)
    norm = model.optimizer.diagnostics()["weight_norm"]
    outputs = keras.ops.convert_to_numpy(model(x))
    expected = 3 * np.mean(np.sum(outputs**2, axis=1))
    np.testing.assert_allclose(norm, expected, rtol=tolerance)


def test_weight_norm_of_a_linear_network_is_its_jacobian_norm():
    model, x = bias_free("linear", 4, 6, 3), whitened(64, 4)
    model.compile(KFAC(0.1, estimator="gauss_newton_exact"))
    model.optimizer.update_curvature(model, x)
    norm = model.optimizer.diagnostics()["weight_norm"]
    product = np.linalg.multi_dot([value(v) for v in model.weights])
    np.testing.assert_allclose(norm, 2 * (product**2).sum(), rtol=1e-4)


def normalized(scale):
    """A layer whose scale batch normalization takes away again."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(
                4, use_bias=False, kernel_initializer="zeros", name="scaled"
            ),
            layers.BatchNormalization(center=False, scale=False, epsilon=1e-9),
            layers.Activation("tanh"),
            layers.Dense(3, kernel_initializer="zeros", name="last"),
        ],
        name="net",
    )
    for i, v in enumerate(model.trainable_variables):
        v.assign(array(i, *v.shape))
    model.layers[0].kernel.assign(scale * value(model.layers[0].kernel))
    return model


X = array(7, 16, 3)
Y = np.arange(16) % 3
SCALES = (0.5, 4.0)


@pytest.mark.parametrize("scale", SCALES)
def test_scale_moves_from_a_normalized_layer_into_its_factors(scale):
    base, moved = normalized(1.0), normalized(scale)
    left, right = (
        measured(m, X, loss=LOSS, estimator="fisher_exact")
        for m in (base, moved)
    )
    key = "net/scaled/kernel"
    np.testing.assert_allclose(
        right[key]["input_factor"], left[key]["input_factor"], rtol=1e-5
    )
    np.testing.assert_allclose(
        right[key]["output_factor"] * scale**2,
        left[key]["output_factor"],
        rtol=1e-3,
        atol=1e-6,
    )
    cotangent = array(9, 16, 3)
    one, other = (gradient(m, X, cotangent)[key] for m in (base, moved))
    one, other = map(keras.ops.convert_to_numpy, (one, other))
    np.testing.assert_allclose(other * scale, one, rtol=1e-3, atol=1e-4)
    weight = value(base.layers[0].kernel)
    assert abs((one * weight).sum()) < 1e-3 * np.linalg.norm(one)


@functools.cache
def compiled(kind):
    """One model per optimizer, used again because compiling takes time."""
    model = normalized(1.0)
    optimizer = keras.optimizers.SGD(1.0)
    if kind == "kfac":
        optimizer = KFAC(
            1.0,
            momentum=0.0,
            estimator="fisher_exact",
            curvature_decay=0.0,
            damping=1e-3,
            kl_clip=None,
        )
    model.compile(optimizer, LOSS)
    return model, [value(v) for v in model.weights]


def step(scale, damping=None):
    """The step of the scaled layer: K-FAC's, or without damping SGD's."""
    model, start = compiled("sgd" if damping is None else "kfac")
    for variable, at in zip(model.weights, start, strict=True):
        variable.assign(at)
    kernel = model.layers[0].kernel
    kernel.assign(scale * start[0])
    if damping is not None:
        model.optimizer.damping = damping
        model.optimizer.update_curvature(model, X)
    model.train_on_batch(X, Y)
    return value(kernel) - scale * start[0]


@pytest.mark.parametrize("scale", SCALES)
def test_effective_damping_is_the_squared_scale_times_the_damping(scale):
    moved = step(scale, 1e-2) / scale
    base = step(1.0, scale**2 * 1e-2)
    np.testing.assert_allclose(moved, base, rtol=5e-3, atol=1e-4)


def test_undamped_step_does_not_feel_the_scale():
    # Not quite zero: a normalized layer's curvature is singular along its
    # own weights.
    base = step(1.0, 1e-7)
    moved = step(2.0, 1e-7 / 4) / 2.0
    np.testing.assert_allclose(moved, base, rtol=2e-2, atol=2e-3)


def test_large_scale_turns_the_step_into_the_gradient():
    cosines = []
    for scale in (1.0, 4.0, 16.0, 64.0):
        natural, plain = step(scale, 1e-2), step(scale)
        norms = np.linalg.norm(natural) * np.linalg.norm(plain)
        cosines.append((natural * plain).sum() / norms)
    assert cosines == sorted(cosines)
    assert cosines[0] < 0.95
    assert cosines[-1] > 0.999


def test_fisher_collapses_where_predictions_saturate_and_gauss_newton_not():
    ratios = {}
    for estimator in ("fisher_exact", "gauss_newton_exact"):
        model = mlp(4, 3)
        model.jit_compile = False
        kernel = model.layers[-1].kernel
        optimizer = KFAC(0.1, estimator=estimator, curvature_decay=0.0)
        traces = []
        for confidence in (1.0, 30.0):
            kernel.assign(confidence * value(kernel))
            optimizer.update_curvature(model, X, loss=LOSS, invert=False)
            factor = optimizer.factors()["net/d0/kernel"]["output_factor"]
            traces.append(np.trace(factor) / confidence**2)
        ratios[estimator] = traces[1] / traces[0]
    assert ratios["fisher_exact"] < 0.1
    np.testing.assert_allclose(ratios["gauss_newton_exact"], 1.0, rtol=1e-4)
