"""Exact laws of decay beside normalization; `docs/laws.md` has the others."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where
from tests import catalogue

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def array(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


X, Y = array(0, 16, 5), np.arange(16) % 3


def network(scale=1.0):
    """A normalised layer, with its kernel times `scale`, and a plain one."""
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, use_bias=False, name="normalized"),
            layers.BatchNormalization(center=False, scale=False, epsilon=1e-9),
            layers.Activation("tanh"),
            layers.Dense(3, use_bias=False, name="plain"),
        ]
    )
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(array(i, *weight.shape))
    kernel = model.layers[0].kernel
    kernel.assign(scale * kernel.value)
    return model


def trained(scale, learning_rate, rate, inner=keras.optimizers.SGD, on=None):
    """Both kernels and the outputs after ten steps."""
    model = network(scale)
    decay = decays.L2(rate, where=on or where.paths("normalized/kernel"))
    # Learning rates differ between runs: for the normalized layer alone.
    model.get_layer("plain").trainable = on is not None
    model.compile(
        optimizers.WeightDecay(inner(learning_rate), decay),
        LOSS,
        jit_compile=keras.backend.backend() == "jax",
    )
    for _ in range(10):
        model.train_on_batch(X, Y)
    kernels = [
        ops.convert_to_numpy(w)
        for w in (
            model.get_layer("normalized").kernel,
            model.get_layer("plain").kernel,
        )
    ]
    return *kernels, ops.convert_to_numpy(model(X, training=True))


@pytest.mark.parametrize("scale", (0.25, 3.0))
def test_the_scale_of_a_normalized_weight_is_a_factor_of_the_rate(scale):
    rule = decays.L2(1.0)

    def objective(model, rate):
        kernel = model.get_layer("normalized").kernel
        loss = LOSS(Y, model(X, training=True))
        return float(loss + rate * rule.penalty([kernel.value]))

    np.testing.assert_allclose(
        objective(network(scale), 0.1),
        objective(network(), 0.1 * scale**2),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    # How the effective learning rate of the family goes with the norm.
    "inner, power",
    [
        (keras.optimizers.SGD, 2),
        pytest.param(keras.optimizers.Adam, 1, marks=catalogue.GO_THE_SAME_WAY),
    ],
)
def test_normalized_weights_see_the_product_of_rate_and_learning_rate(
    inner, power
):
    scale = 2.0
    weight, _, outputs = trained(1.0, 0.05, 0.4, inner)
    scaled, _, same = trained(
        scale, 0.05 * scale**power, 0.4 / scale**power, inner
    )
    np.testing.assert_allclose(scaled, scale * weight, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(same, outputs, rtol=1e-3, atol=1e-3)
    # Another product is another course.
    _, _, other = trained(scale, 0.05 * scale**power, 0.4, inner)
    assert np.abs(other - outputs).max() > 0.01


def test_a_layer_without_normalization_feels_the_rate_itself():
    plain = where.paths("plain/kernel")
    _, weight, outputs = trained(1.0, 0.1, 0.0, on=plain)
    _, decayed, other = trained(1.0, 0.1, 0.5, on=plain)
    assert np.linalg.norm(decayed) < 0.9 * np.linalg.norm(weight)
    assert np.abs(other - outputs).max() > 0.1


def test_one_small_step_of_decay_scales_only_the_next_steps():
    # On normalised weights alone: the outputs of this step are the same.
    model, bare = network(), network()
    for one, rate in ((model, 0.5), (bare, 0.0)):
        one.get_layer("plain").trainable = False
        one.compile(optimizers.SGDW(1e-3, rate), LOSS)
        one.train_on_batch(X, Y)
    kernels = [
        ops.convert_to_numpy(one.get_layer("normalized").kernel)
        for one in (model, bare)
    ]
    assert np.linalg.norm(kernels[0]) < np.linalg.norm(kernels[1])
    np.testing.assert_allclose(
        *(one(X, training=True) for one in (model, bare)), rtol=0, atol=1e-4
    )
