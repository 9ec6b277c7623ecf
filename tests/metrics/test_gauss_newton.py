import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import metrics
from keras_wd import where

pytestmark = pytest.mark.eager


def homogeneous_network(activation, widths=(7, 6, 4)):
    keras.utils.set_random_seed(1)
    *hidden, last = widths
    return keras.Sequential(
        [
            keras.Input((5,)),
            *(layers.Dense(n, activation, use_bias=False) for n in hidden),
            layers.Dense(last, use_bias=False),
        ]
    )


def whitened(examples=80):
    x = np.random.default_rng(0).normal(size=(examples, 5))
    x -= x.mean(0)
    u, _, v = np.linalg.svd(x, full_matrices=False)
    return np.sqrt(examples) * u @ v


@pytest.mark.few_cases(1)
@pytest.mark.parametrize("activation", ["relu", None, "leaky_relu"])
def test_lemma_2_of_the_three_mechanisms(activation):
    model, x = homogeneous_network(activation), whitened()
    square = np.square(model.predict(x, verbose=0)).sum(1).mean()
    full = metrics.gauss_newton_norm(model, x)
    block = metrics.gauss_newton_norm(model, x, form="block", batch_size=32)
    assert full == pytest.approx(9 * square, rel=1e-4)
    assert block == pytest.approx(3 * square, rel=1e-4)


def test_theorem_1_for_a_deep_linear_network():
    model, x = homogeneous_network(None), whitened()
    jacobian = metrics.jacobian_norm(model, x).value
    for form, factor in (("full", 9), ("block", 3), ("kfac", 3)):
        found = metrics.gauss_newton_norm(model, x, form=form)
        assert found == pytest.approx(factor * jacobian, rel=1e-4)


def test_the_kronecker_form_is_close_for_relu():
    model, x = homogeneous_network("relu"), whitened()
    block = metrics.gauss_newton_norm(model, x, form="block")
    kfac = metrics.gauss_newton_norm(model, x, form="kfac")
    assert kfac == pytest.approx(block, rel=0.25)


def test_selected_weights_only():
    model, x = homogeneous_network("relu"), whitened()
    square = np.square(model.predict(x, verbose=0)).sum(1).mean()
    last = where.paths(f"{model.layers[-1].name}/kernel")
    for form in ("full", "block"):
        found = metrics.gauss_newton_norm(model, x, form=form, where=last)
        assert found == pytest.approx(square, rel=1e-4)
    both = where.paths(*(f"{layer.name}/kernel" for layer in model.layers[1:]))
    found = metrics.gauss_newton_norm(model, x, where=both)
    assert found == pytest.approx(4 * square, rel=1e-4)


def test_biases_count_if_they_are_selected():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    kernel, bias = model.get_weights()
    model.layers[0].bias.assign(bias + 1)
    x = whitened()
    outputs = x @ kernel
    found = metrics.gauss_newton_norm(model, x)
    assert found == pytest.approx(np.square(outputs).sum(1).mean(), rel=1e-4)
    found = metrics.gauss_newton_norm(model, x, where=where.everything())
    expected = np.square(outputs + 1).sum(1).mean()
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_network_that_is_trained_and_not_homogeneous():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, "tanh"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )
    x = whitened().astype("float32")
    kernels = [model.layers[0].kernel, model.layers[2].kernel]
    values = [np.array(k.value) for k in kernels]
    step = 1e-2
    ends = []
    for sign in (1, -1):
        for kernel, value in zip(kernels, values, strict=True):
            kernel.assign(value * (1 + sign * step))
        ends.append(model.predict(x, verbose=0))
    for kernel, value in zip(kernels, values, strict=True):
        kernel.assign(value)
    motion = (ends[0] - ends[1]) / (2 * step)
    found = metrics.gauss_newton_norm(model, x)
    assert found == pytest.approx(np.square(motion).sum(1).mean(), rel=1e-3)


def test_a_form_that_is_not_there():
    with pytest.raises(ValueError, match="`form` must be one of 'full'"):
        metrics.gauss_newton_norm(
            homogeneous_network(None), whitened(), form="diagonal"
        )
