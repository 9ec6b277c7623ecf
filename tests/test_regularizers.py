import json

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import decays
from keras_wd import regularizers
from tests import catalogue
from tests import reference

EXPONENTS = [0.1, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0]


def weights(*shape, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    # Finite differences need some distance from zero.
    return np.float32(np.sign(values) * (np.abs(values) + 0.1))


@pytest.mark.parametrize("p", EXPONENTS)
def test_lp_is_the_reference(p):
    w = weights(6, 4)
    w[2, 2] = 0
    value = float(regularizers.Lp(0.3, p=p)(ops.convert_to_tensor(w)))
    assert value == pytest.approx(0.3 * reference.lp_penalty(w, p), rel=2e-6)


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_gradient_of_lp_is_the_slope(p, gradient):
    w = weights(3, 4)
    slope = reference.finite_difference(
        lambda x: 0.3 * reference.lp_penalty(x, p), w
    )
    result = gradient(regularizers.Lp(0.3, p=p), w)
    np.testing.assert_allclose(result, slope, rtol=1e-5)


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_gradient_of_lp_is_zero_at_zero_and_finite_near_it(p, gradient):
    near = [0.0, -0.0, 1e-45, -1e-38, 1e-20, -1e-14, 1e-13, 1e-10]
    result = gradient(regularizers.Lp(0.3, p=p), near)
    assert np.all(np.isfinite(result))
    assert np.all(result[:2] == 0)


@pytest.mark.parametrize("p", catalogue.quick([0.5, 0.8, 1.0, 2.0], 0.5))
def test_a_layer_of_zeros_trains_to_finite_weights(p):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(
                2,
                kernel_initializer="zeros",
                kernel_regularizer=regularizers.Lp(0.01, p=p),
            ),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
    x = np.float32([[1.0, 2.0, 0.0]] * 4)
    model.fit(x, x[:, :2] * 0 + 1, batch_size=4, epochs=2, verbose=0)
    kernel = ops.convert_to_numpy(model.layers[0].kernel.value)
    assert np.all(np.isfinite(kernel)) and np.all(kernel[:2] != 0)
    # The third input is always zero, and nothing else moves its weights.
    assert np.all(kernel[2] == 0)


@pytest.mark.parametrize(
    "shape, axis, summed",
    [
        ((5, 3), -1, (0,)),
        ((5, 3), -2, (1,)),
        ((2, 3, 4, 5), -1, (0, 1, 2)),
        ((2, 3, 4, 5), (-2, -1), (0, 1)),
    ],
)
def test_group_lasso_is_the_reference(shape, axis, summed, gradient):
    w = weights(*shape)
    w[..., 0] = 0
    regularizer = regularizers.GroupLasso(0.3, axis=axis)
    value = float(regularizer(ops.convert_to_tensor(w)))
    expected = 0.3 * reference.group_penalty(w, summed)
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(
        gradient(regularizer, w),
        0.3 * reference.group_gradient(w, summed),
        rtol=1e-5,
        atol=1e-7,
    )


def test_the_gradient_of_group_lasso_is_the_slope(gradient):
    w = weights(4, 3)
    slope = reference.finite_difference(
        lambda x: 0.3 * reference.group_penalty(x, (0,)), w
    )
    result = gradient(regularizers.GroupLasso(0.3), w)
    np.testing.assert_allclose(result, slope, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-30, 1e-21, 1e19])
def test_the_gradient_of_group_lasso_is_finite_everywhere(scale, gradient):
    w = weights(4, 3) * np.float32(scale)
    result = gradient(regularizers.GroupLasso(0.3), w)
    assert np.all(np.isfinite(result))
    if scale == 0:
        assert np.all(result == 0)
    # The gradient of a norm is no longer than the factor.
    norms = np.linalg.norm(result.astype("float64"), axis=0)
    assert np.all(norms <= 0.3 * (1 + 1e-6))


# Relations to other penalties.


@pytest.mark.parametrize(
    "regularizer, decay",
    [
        (lambda: regularizers.Lp(0.3, p=0.5), lambda: decays.Lp(0.3, p=0.5)),
        (lambda: regularizers.Lp(0.3, p=1.0), lambda: decays.L1(0.3)),
        (lambda: regularizers.Lp(0.3, p=1.7), lambda: decays.Lp(0.3, p=1.7)),
        (lambda: regularizers.Lp(0.3, p=2.0), lambda: decays.L2(0.3)),
        (lambda: regularizers.GroupLasso(0.3), lambda: decays.GroupLasso(0.3)),
        (
            lambda: regularizers.GroupLasso(0.3, axis=0),
            lambda: decays.GroupLasso(0.3, axis=0),
        ),
    ],
    ids=["p=0.5", "p=1", "p=1.7", "p=2", "group", "group of inputs"],
)
def test_a_regularizer_is_the_coupled_decay(regularizer, decay, gradient):
    w = weights(5, 3)
    w[1, 1] = 0
    w[:, 2] = 0
    regularizer, decay = regularizer(), decay()
    (slope,) = decay.gradient([ops.convert_to_tensor(w)])
    np.testing.assert_allclose(
        gradient(regularizer, w),
        decay.weight_decay * ops.convert_to_numpy(slope),
        rtol=1e-5,
    )
    penalty = decay.weight_decay * decay.penalty([ops.convert_to_tensor(w)])
    assert float(regularizer(ops.convert_to_tensor(w))) == pytest.approx(
        float(penalty), rel=1e-6
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "regularizer",
    [regularizers.Lp(1e-3, p=1.0), regularizers.GroupLasso(1e-3, axis=0)],
    ids=["lp", "group"],
)
def test_many_low_precision_weights_are_summed_precisely(regularizer, dtype):
    # A bfloat16 sum of ones stops at 256, a float16 one at 2048.
    w = ops.ones((4096, 1), dtype)
    assert float(regularizer(w)) == pytest.approx(4.096, rel=2**-8)


def test_lp_and_the_regularizers_of_keras():
    w = ops.convert_to_tensor(weights(5, 3))
    assert float(regularizers.Lp(0.3, p=1)(w)) == pytest.approx(
        float(keras.regularizers.L1(0.3)(w)), rel=1e-6
    )
    assert float(regularizers.Lp(0.3, p=2)(w)) == pytest.approx(
        float(keras.regularizers.L2(0.3)(w)) / 2, rel=1e-6
    )


# Serialization and errors.


@pytest.mark.parametrize(
    "regularizer",
    [
        regularizers.Lp(0.3, p=1.7),
        regularizers.GroupLasso(0.3, axis=-2),
        regularizers.GroupLasso(0.3, axis=(-2, -1)),
    ],
    ids=["lp", "group", "group of axes"],
)
def test_regularizers_survive_serialization(regularizer, tmp_path):
    config = keras.saving.serialize_keras_object(regularizer)
    assert config["registered_name"].startswith("keras_wd.regularizers>")
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(config))
    )
    assert again.get_config() == regularizer.get_config()
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, kernel_regularizer=regularizer),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.losses[0]) == pytest.approx(float(model.losses[0]))


@pytest.mark.parametrize("kind", [regularizers.Lp, regularizers.GroupLasso])
@pytest.mark.parametrize("value", [-0.1, float("nan"), "0.1", None])
def test_a_factor_that_is_no_rate_is_rejected(kind, value):
    expected = "`weight_decay` must be a finite number >= 0"
    with pytest.raises(ValueError, match=expected) as error:
        kind(value)
    assert f"Received: weight_decay={value!r}" in str(error.value)


@pytest.mark.parametrize("p", [0, -1.0, float("inf"), "1"])
def test_an_exponent_that_is_not_positive_is_rejected(p):
    with pytest.raises(ValueError, match="`p` must be a finite number > 0"):
        regularizers.Lp(0.1, p=p)


@pytest.mark.parametrize("axis", [0.5, (), None])
def test_an_axis_that_is_none_is_rejected(axis):
    with pytest.raises(ValueError, match="`axis` must be an integer or"):
        regularizers.GroupLasso(0.1, axis=axis)


@pytest.mark.parametrize("axis", [2, -3, (0, 4)])
def test_an_axis_the_kernel_lacks_is_rejected(axis):
    with pytest.raises(ValueError, match="`axis` must be an axis"):
        regularizers.GroupLasso(0.1, axis=axis)(ops.ones((3, 4)))
