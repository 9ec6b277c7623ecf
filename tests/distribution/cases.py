"""What several devices have to do as one device does: twenty steps of each.

Imported by the tests and by the processes they start.
"""

import keras
import numpy as np
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd.callbacks import AutoL2
from keras_wd.callbacks import Curvature
from keras_wd.callbacks import Mechanisms
from tests import initial_values
from tests.training import BATCH
from tests.training import data
from tests.training import network

if keras.backend.backend() == "jax":
    initial_values.draw_by_numpy()

STEPS = 20
X, Y = data(STEPS)
# Of the half of a batch that one of two devices has, one feature alone.
ONE_EACH = X * (np.arange(8) == np.arange(len(X))[:, None] // 8 % 8)

SGD = keras.optimizers.SGD


def _kfac(**arguments):
    arguments = {"kl_clip": None, "estimator": "fisher_exact", **arguments}
    return optimizers.KFAC(0.03, seed=1, **arguments)


# Name: the optimizer for a model.
CASES = {
    "sgdw": lambda model: optimizers.SGDW(0.1, weight_decay=0.1, momentum=0.9),
    "padam": lambda model: optimizers.PAdam(0.01, weight_decay=0.5),
    "path_prox": lambda model: optimizers.PathProx(model, 0.1, 0.05),
    "kfac": lambda model: _kfac(),
    "kfac_clip": lambda model: optimizers.WeightDecay(
        _kfac(kl_clip=1e-3, global_clipnorm=0.1), decays.L2(0.1)
    ),
    "coupled_clip": lambda model: optimizers.WeightDecay(
        SGD(0.1, clipnorm=0.1, loss_scale_factor=8.0),
        decays.L2(0.1, coupling="coupled"),
    ),
    "average_clip": lambda model: optimizers.WeightDecay(
        SGD(0.1, clipvalue=0.02),
        [
            decays.GroupLasso(0.05),
            decays.CPR(0.1, warmup_steps=3),
            decays.NormControl(0.5, axis=-1),
        ],
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=3,
    ),
    "touched_rows": lambda model: optimizers.SGDW(
        0.1, weight_decay=0.5, touched_rows=True
    ),
    "global_clip": lambda model: optimizers.SGDW(
        0.1, weight_decay=0.1, global_clipnorm=0.1
    ),
}
# For a layout of the weights, and for workers: clipping is a matter of the
# backend, and what JAX does on devices it does on workers.
ON_MODEL = ("sgdw", "padam", "path_prox", "kfac")
ON_WORKERS = {
    "tensorflow": (*ON_MODEL, "global_clip"),
    "jax": ("sgdw", "kfac"),
}[keras.backend.backend()]


def compiled(make, model=None, jit_compile=None):
    """The network with an optimizer, compiled where the devices allow it."""
    if jit_compile is None:
        jit_compile = keras.backend.backend() == "jax"
    model = network() if model is None else model
    model.compile(
        make(model),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return model


def steering(name):
    """The callbacks that an optimizer needs."""
    if not name.startswith("kfac"):
        return []
    return [Curvature(X, every=7, invert_every=7)]


def fitted(name):
    """The model after twenty steps."""
    model = compiled(CASES[name])
    fit(model, steering(name), x=ONE_EACH if name == "touched_rows" else X)
    return model


def fit(model, callbacks, x=X, y=Y, epochs=1):
    return model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )


_alone = {}


def assert_same(found, name):
    """`result` of several devices is that of one, which is computed once."""
    if name not in _alone:
        _alone[name] = result(fitted(name))
    for key, expected in _alone[name].items():
        tolerance = {"rtol": 0, "atol": 1e-6}
        if not key.startswith("weight_"):
            tolerance = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(found[key], expected, **tolerance)


def devices_of(model):
    """How many devices share the first weight, on JAX."""
    return len(model.trainable_variables[0].value.sharding.device_set)


def result(model):
    """Weights, and the factors of K-FAC, by name."""
    found = {f"weight_{i}": w for i, w in enumerate(model.get_weights())}
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(optimizer, optimizers.KFAC):
        for block, factors in optimizer.factors().items():
            for key, factor in factors.items():
                found[f"{block.replace('/', '_')}_{key}"] = factor
    return found


def inverted(eigenbasis):
    """Inverses and counters where one block needs damping and one has none."""
    keras.utils.set_random_seed(0)
    model = compiled(lambda model: _kfac(eigenbasis=eigenbasis))
    optimizer = model.optimizer
    optimizer.update_curvature(model, X[:BATCH])
    state = optimizer._curvature.state
    state.factors[0][1].assign(-0.2 * np.eye(6))
    state.factors[1][0].assign(np.full((7, 7), np.nan))
    optimizer.update_inverses()
    counters = [state.inversions, state.retries, state.failures]
    arrays = [v for own in state.inverses for v in own] + counters
    return {str(i): ops.convert_to_numpy(v) for i, v in enumerate(arrays)}


def observed():
    """The logs of a fit whose callbacks read and steer the optimizer."""
    keras.utils.set_random_seed(0)
    shared = keras.backend.backend() == "tensorflow"
    model = compiled(
        lambda model: optimizers.WeightDecay(SGD(0.1), decays.L2(0.5)),
        keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(6, use_bias=False),
                keras.layers.BatchNormalization(synchronized=shared),
                keras.layers.ReLU(),
                keras.layers.Dense(3),
            ]
        ),
    )
    callbacks = [AutoL2((X, Y), every=4, delay=0.0), Mechanisms(X[:32])]
    return model, callbacks


def resumed(folder, build):
    """Weights of an unbroken fit, and of one taken up by a new model."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    weights = []
    for broken in (False, True):
        backup = keras.callbacks.BackupAndRestore(f"{folder}/{broken}")
        model = build()
        if broken:
            try:
                fit(model, [backup, Stop()], epochs=2)
            except KeyboardInterrupt:
                model = build()
                model.trainable_variables[0].assign(np.ones((8, 6)))
        fit(model, [backup], epochs=2)
        weights.append(model.get_weights())
    return weights
