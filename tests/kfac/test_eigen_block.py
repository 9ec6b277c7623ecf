"""EKFAC: what is measured in the eigenbasis, and the step it makes."""

import math

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd.kfac import block_inversion
from keras_wd.optimizers.kfac import KFAC
from tests import catalogue
from tests.kfac import reference
from tests.kfac.running import array
from tests.kfac.running import gradient
from tests.kfac.running import mlp
from tests.kfac.running import value

EAGER = keras.backend.backend() != "jax"


def network():
    """A layer of every kind, one of them used twice."""
    ids = keras.Input((5,), dtype="int32")
    shared = layers.Dense(4, "tanh", name="shared")
    x = layers.Embedding(4, 4, name="table")(ids)
    x = layers.Conv1D(4, 2, groups=2, name="grouped")(x)
    x = shared(shared(x))
    x = layers.Conv1D(3, 2, name="conv")(x)
    x = layers.DepthwiseConv1D(2, name="depthwise")(x)
    x = layers.EinsumDense(
        "abc,cde->abde", (2, 2, 2), bias_axes="de", name="heads"
    )(x)
    model = keras.Model(ids, layers.Dense(2, name="top")(layers.Flatten()(x)))
    for seed, variable in enumerate(model.trainable_variables):
        variable.assign(0.7 * array(seed, *variable.shape))
    model.jit_compile = False
    return model


@pytest.mark.slow(reason="a program for each example")
@pytest.mark.parametrize(
    "limit", catalogue.quick({"full": 100, "diagonal": 4}, "diagonal")
)
def test_moments_are_those_of_the_gradients_of_examples(limit):
    model = network()
    ids = np.array([[0, 1, 1, 3, 1], [2, 2, 0, 1, 3], [3, 0, 0, 0, 2]])
    y = array(9, 3, 2)
    optimizer = KFAC(
        0.1,
        eigenbasis=True,
        estimator="empirical",
        curvature_decay=0.0,
        max_factor_size=limit,
    )
    for invert in (True, False):
        optimizer.update_curvature(model, ids, y, loss="mse", invert=invert)
    # The loss is the mean over examples of the mean over two outputs.
    slope = ops.convert_to_numpy(model(ids)) - y
    expected = {}
    for example in range(3):
        cotangent = np.zeros_like(y)
        cotangent[example] = slope[example] / np.sqrt(3)
        grads = gradient(model, ids, cotangent)
        paths = [v.path for v in model.trainable_variables]
        for index, block in enumerate(optimizer._curvature.state.blocks):
            state = optimizer._curvature.state
            bases = block.bases([value(v) for v in state.inverses[index]])
            matrix = ops.convert_to_numpy(
                block.packing.pack(*(grads[paths[i]] for i in block.variables))
            )
            if bases[0] is not None:
                matrix = np.swapaxes(bases[0], -1, -2) @ matrix
            if bases[1] is not None:
                matrix = matrix @ bases[1]
            expected[block.name] = expected.get(block.name, 0.0) + matrix**2
    found = optimizer.factors()
    assert len(found) == 7
    for name, moments in expected.items():
        np.testing.assert_allclose(
            found[name]["second_moments"], moments, rtol=2e-4, atol=1e-6
        )


def test_first_step_is_the_solve_with_the_product_and_the_damping():
    model, x, y = mlp(3), array(1, 8, 3), array(2, 8, 3)
    optimizer = KFAC(
        0.5,
        momentum=0.0,
        kl_clip=None,
        estimator="gauss_newton_exact",
        eigenbasis=True,
    )
    model.compile(optimizer, "mse", jit_compile=True)
    model.jit_compile = False
    optimizer.update_curvature(model, x)
    model.jit_compile = True
    kernel, bias = (value(v) for v in model.trainable_variables)
    rows = reference.with_ones(x.astype("float64"))
    before = np.concatenate([kernel, bias[None]]).astype("float64")
    slope = 2 * rows.T @ (rows @ before - y) / 24
    (factors,) = optimizer.factors().values()
    product = np.kron(
        *(factors[f"{side}_factor"] for side in ("input", "output"))
    )
    for damping in (0.03, 0.3):
        optimizer.damping = damping  # acts at once
        model.train_on_batch(x, y)
        kernel, bias = (value(v) for v in model.trainable_variables)
        after = np.concatenate([kernel, bias[None]])
        slope = 2 * rows.T @ (rows @ before - y) / 24
        step = np.linalg.solve(
            product + damping * np.eye(len(product)), slope.ravel()
        )
        np.testing.assert_allclose(
            (before - after).ravel(), 0.5 * step, rtol=2e-3, atol=1e-5
        )
        before = after.astype("float64")


def test_curvature_times_a_value_is_the_second_moment_along_it():
    model, x = mlp(3), array(1, 8, 3)
    y = array(2, 8, 3)
    optimizer = KFAC(
        0.1, estimator="empirical", eigenbasis=True, curvature_decay=0.0
    )
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.update_curvature(model, x, y)
    optimizer.update_curvature(model, x, y, invert=False)
    state = optimizer._curvature.state
    u, v, moments = (value(one) for one in state.inverses[0])
    numbers = optimizer.diagnostics()
    kernel, bias = (value(one) for one in model.trainable_variables)
    inside = u.T @ np.concatenate([kernel, bias[None]]) @ v
    np.testing.assert_allclose(
        numbers["weight_norm"], (inside**2 * moments).sum(), rtol=1e-4
    )
    np.testing.assert_allclose(
        numbers["curvature_trace"], moments.sum(), rtol=1e-5
    )


def test_a_variable_that_never_moved_has_a_pseudoinverse():
    # The second input is always zero, and so are its moments.
    model = mlp(3, inputs=2)
    x = array(1, 8, 2) * np.array([1.0, 0.0], "float32")
    optimizer = KFAC(0.1, damping=0.0, momentum=0.0, eigenbasis=True, seed=0)
    model.compile(optimizer, "mse", run_eagerly=EAGER)
    optimizer.update_curvature(model, x)
    model.train_on_batch(x, array(2, 8, 3))
    assert all(np.isfinite(value(v)).all() for v in model.variables)


def test_numpy_and_a_program_find_the_same_curvature(monkeypatch):
    x, given = array(1, 8, 4), {0: array(2, 4, 3), 1: array(3, 3)}
    products = []
    for most in (0, math.inf):
        monkeypatch.setattr(
            block_inversion, "most_by_numpy", lambda held, most=most: most
        )
        model = mlp(3, inputs=4)
        model.compile(KFAC(seed=0, eigenbasis=True), "mse", jit_compile=False)
        curvature = model.optimizer._curvature
        for _ in range(2):  # the second carries moments over
            model.optimizer.update_curvature(model, x)
        tensors = {i: ops.convert_to_tensor(v) for i, v in given.items()}
        products.append([*curvature.times(tensors).values()])
    for one, other in zip(*products, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_basis_stays_where_a_decomposition_does_not_converge(monkeypatch):
    model = mlp(3, inputs=4)
    optimizer = KFAC(seed=0, eigenbasis=True)
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.update_curvature(model, array(1, 8, 4))
    before = [value(v) for v in optimizer._curvature.state.inverses[0]]

    def raise_error(matrix):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigh", raise_error)
    optimizer.update_inverses()
    for one, other in zip(
        before, optimizer._curvature.state.inverses[0], strict=True
    ):
        np.testing.assert_array_equal(one, value(other))
    assert optimizer.diagnostics(products=False)["inverse_failures"] == 1.0
