"""State beside the weights, where `keras.distribution` divides variables."""

import keras
import numpy as np
import pytest

from keras_wd.decays import CPR
from keras_wd.decays import L2
from keras_wd.decays import NormControl
from keras_wd.optimizers import KFAC
from keras_wd.optimizers import WeightDecay
from tests.kfac.running import array
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = [
    pytest.mark.eager,
    pytest.mark.skipif(
        keras.backend.backend() != "jax", reason="Keras divides with JAX alone"
    ),
]

X = array(1, 8, 5)


def by_kernels():
    """Every variable with "kernel" in its path, by its second axis."""
    device = keras.distribution.list_devices()[0]
    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), [device])
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*kernel.*"] = (None, "model")
    return keras.distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False
    )


def decayed(decay, **settings):
    return WeightDecay(keras.optimizers.SGD(0.1), decay(0.01, **settings))


OPTIMIZERS = {
    "kfac": KFAC,
    "ekfac": lambda: KFAC(eigenbasis=True),
    "cpr": lambda: decayed(CPR),
    "norm_control": lambda: decayed(NormControl),
    "anchor": lambda: decayed(L2, anchor="start"),
}


def built(name):
    model = mlp(3, inputs=5)
    model.compile(OPTIMIZERS[name](), "mse")
    model.optimizer.build(model.trainable_variables)
    if isinstance(model.optimizer, KFAC):
        model.optimizer.register(model, X)
    return model


def divided(variable):
    """Where there are several devices; this test has one."""
    return any(variable._layout.axes)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_state_of_the_shape_of_a_weight_is_divided_like_it(name):
    with by_kernels().scope():
        model = built(name)
    kernels = [v for v in model.trainable_variables if divided(v)]
    assert kernels
    shapes = {tuple(kernel.shape) for kernel in kernels}
    for variable in model.optimizer.variables:
        if "factor" in variable.path or tuple(variable.shape) not in shapes:
            assert not divided(variable), variable.path
        elif "kernel" in variable.path:
            assert divided(variable), variable.path


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_that_is_divided_when_it_is_made(name, monkeypatch):
    """As Keras does where all devices together would take 250 MiB."""
    plain = built(name)
    # Keras's seeds are made by a function, which it cannot divide.
    monkeypatch.setattr(
        "keras.src.backend.jax.core.should_shard_at_init",
        lambda layout, shape: len(shape) > 1,
    )
    with keras.distribution.DataParallel(auto_shard_dataset=False).scope():
        model = built(name)
    for variable, expected in zip(
        model.optimizer.variables, plain.optimizer.variables, strict=True
    ):
        if variable.ndim > 1:
            np.testing.assert_array_equal(value(variable), value(expected))
