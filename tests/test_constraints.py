import json

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import constraints
from tests import catalogue
from tests import reference


def build(layer, *shape):
    layer.build((None, *shape))
    return layer.kernel


CASES = {
    "dense": (
        lambda c: build(layers.Dense(3, kernel_constraint=c), 5),
        -1,
        (0,),
    ),
    "conv": (
        lambda c: build(layers.Conv2D(3, 2, kernel_constraint=c), 8, 8, 4),
        -1,
        (0, 1, 2),
    ),
    "depthwise": (
        lambda c: build(
            layers.DepthwiseConv2D(
                2, depth_multiplier=2, depthwise_constraint=c
            ),
            8,
            8,
            4,
        ),
        (-2, -1),
        (0, 1),
    ),
    "whole kernel": (
        lambda c: build(layers.Dense(3, kernel_constraint=c), 5),
        None,
        (0, 1),
    ),
    "dense inputs": (
        lambda c: build(layers.Dense(3, kernel_constraint=c), 5),
        0,
        (1,),
    ),
}


@pytest.mark.parametrize("make, axis, summed", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_units_of_each_kind_of_layer_get_the_radius(make, axis, summed, radius):
    constraint = constraints.FixedNorm(axis=axis, radius=radius)
    kernel = make(constraint)
    assert kernel.constraint is constraint
    value = ops.convert_to_tensor(kernel)
    result = ops.convert_to_numpy(constraint(value))
    expected = reference.fixed_norm(ops.convert_to_numpy(value), summed, radius)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    again = ops.convert_to_numpy(constraint(ops.convert_to_tensor(result)))
    np.testing.assert_allclose(again, result, rtol=3e-7)


def test_a_zero_unit_stays_zero():
    w = ops.array([[3.0, 0.0], [4.0, 0.0]])
    result = ops.convert_to_numpy(constraints.FixedNorm()(w))
    np.testing.assert_allclose(result, [[0.6, 0.0], [0.8, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_dtype_is_kept(dtype):
    w = ops.cast(keras.random.normal((4, 3), seed=1), dtype)
    result = constraints.FixedNorm()(w)
    assert keras.backend.standardize_dtype(result.dtype) == dtype


def normalized_network(constraint):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, use_bias=False, kernel_constraint=constraint),
            layers.BatchNormalization(epsilon=1e-12),
            layers.ReLU(),
            layers.Dense(1),
        ]
    )


def test_the_function_of_a_normalized_network_does_not_change():
    model = normalized_network(None)
    x = keras.random.normal((64, 4), seed=2)
    # Training mode: the statistics of the batch.
    before = ops.convert_to_numpy(model(x, training=True))
    kernel = model.layers[0].kernel
    kernel.assign(constraints.FixedNorm(radius=3.0)(kernel.value))
    after = ops.convert_to_numpy(model(x, training=True))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    # A last layer is not normalized: there the constraint does change it.
    kernel = model.layers[-1].kernel
    kernel.assign(constraints.FixedNorm(radius=3.0)(kernel.value))
    changed = ops.convert_to_numpy(model(x, training=True))
    assert np.max(np.abs(changed - before)) > 0.1


@pytest.mark.parametrize("jit_compile", catalogue.quick([False, True], True))
def test_fit_keeps_the_kernel_on_the_sphere(jit_compile):
    model = normalized_network(constraints.FixedNorm(radius=2.0))
    model.compile(
        keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit_compile
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype("float32")
    start = ops.convert_to_numpy(model.layers[0].kernel.value)
    model.fit(x, x[:, :1] ** 2, batch_size=8, epochs=2, verbose=0)
    end = ops.convert_to_numpy(model.layers[0].kernel.value)
    np.testing.assert_allclose(np.linalg.norm(end, axis=0), 2.0, rtol=1e-6)
    # It moved on the sphere.
    start = reference.fixed_norm(start, (0,), 2.0)
    assert np.max(np.abs(end - start)) > 1e-3


@pytest.mark.parametrize("axis", [-1, 0, (-2, -1), None])
def test_the_constraint_survives_serialization(axis):
    constraint = constraints.FixedNorm(axis=axis, radius=0.5)
    config = keras.saving.serialize_keras_object(constraint)
    assert config["registered_name"] == "keras_wd.constraints>FixedNorm"
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(config))
    )
    assert again.get_config() == constraint.get_config()
    assert again.axis == axis and again.radius == 0.5


def test_the_constraint_survives_in_a_model(tmp_path):
    model = normalized_network(constraints.FixedNorm(axis=0, radius=2.0))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    constraint = again.layers[0].kernel.constraint
    assert (constraint.axis, constraint.radius) == (0, 2.0)


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), "1", None])
def test_a_radius_that_is_not_positive_is_rejected(radius):
    with pytest.raises(
        ValueError, match="`radius` must be a finite number > 0"
    ):
        constraints.FixedNorm(radius=radius)


@pytest.mark.parametrize("axis", [0.5, "last", (), (0, None), True])
def test_an_axis_that_is_none_is_rejected(axis):
    expected = "`axis` must be an integer, a tuple of integers or None"
    with pytest.raises(ValueError, match=expected) as error:
        constraints.FixedNorm(axis=axis)
    assert f"Received: axis={axis!r}" in str(error.value)


@pytest.mark.parametrize("axis", [2, -3, (0, 4)])
def test_an_axis_the_kernel_lacks_is_rejected(axis):
    with pytest.raises(ValueError, match="`axis` must be an axis"):
        constraints.FixedNorm(axis=axis)(ops.ones((3, 4)))
