"""Models with every optimizer of ours, to be copied, saved and exported."""

import keras
import pytest

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where
from tests import catalogue
from tests.training import data


def _kfac(model):
    return optimizers.KFAC(0.05, damping=0.1, momentum=0.9, seed=1)


def _ekfac(model):
    return optimizers.KFAC(
        0.05, damping=0.1, seed=1, sharing="reduce", eigenbasis=True
    )


def _kfac_beside_adam(model):
    return optimizers.KFAC(
        0.05,
        damping=0.1,
        seed=1,
        where=where.paths("hidden/*"),
        rest=keras.optimizers.Adam(0.01),
    )


def _around_kfac(model):
    return optimizers.WeightDecay(
        _kfac(model), [decays.L2(0.1), decays.L1(0.01)], use_ema=True
    )


def _path_prox(model):
    return optimizers.PathProx(model, 0.05, 0.1, momentum=0.9, use_ema=True)


# Optimizer of a model, and the dtype of its variables.
ROWS = {
    **{
        name: (lambda model, make=make: make(), "float32")
        for name, make in catalogue.OPTIMIZERS.items()
    },
    "GroupLasso": (
        lambda model: catalogue.with_decay("GroupLasso"),
        "float32",
    ),
    "PathProx": (_path_prox, "float32"),
    "KFAC": (_kfac, "float32"),
    "KFAC in its eigenbasis": (_ekfac, "float32"),
    "KFAC beside Adam": (_kfac_beside_adam, "float32"),
    "WeightDecay(KFAC)": (_around_kfac, "float32"),
    "bfloat16": (
        lambda model: optimizers.PAdam(0.01, 0.1, use_ema=True),
        "bfloat16",
    ),
    "float16": (
        lambda model: optimizers.SGDW(0.01, 0.1, momentum=0.9),
        "float16",
    ),
}

each_row = pytest.mark.parametrize(
    "name",
    catalogue.quick(list(ROWS), "WeightDecay(KFAC)", "bfloat16"),
)


def network(name, functional=False):
    """The model of a row: layers with names, compiled, run eagerly."""
    make, dtype = ROWS[name]
    layers = [
        keras.layers.Dense(6, "relu", dtype=dtype, name="hidden"),
        keras.layers.Dense(3, dtype=dtype, name="output"),
    ]
    inputs = keras.Input((8,))
    if functional:
        model = keras.Model(inputs, layers[1](layers[0](inputs)))
    else:
        model = keras.Sequential([inputs, *layers])
    compile_eagerly(model, make(model))
    return model


def compile_eagerly(model, optimizer):
    """Compile for tests of what happens around the steps."""
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=keras.backend.backend() != "jax",
    )


def trained(name, steps=3, functional=False):
    """The model of a row after so many steps."""
    model = network(name, functional)
    for seed in range(steps):
        step(model, seed)
    return model


def callbacks_for(name, x):
    """What `fit` needs beside the optimizer of a row."""
    return [callbacks.Curvature(x)] if "KFAC" in name else []


def step(model, seed):
    """One step on a batch of its own, the curvature measured before it."""
    x, y = data(1, seed)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if isinstance(inner, optimizers.KFAC):
        inner.update_curvature(model, x)
    model.train_on_batch(x, y)


def goes_on_like(first, second):
    """Whether two models take the same steps, bit for bit."""
    for seed in (10, 11):
        step(first, seed)
        step(second, seed)
    return all(
        (a == b).all()
        for a, b in zip(first.get_weights(), second.get_weights(), strict=True)
    )


def continued(model):
    """The weights after one more step."""
    model.run_eagerly = keras.backend.backend() != "jax"
    step(model, 10)
    return [keras.ops.convert_to_numpy(w) for w in model.weights]
