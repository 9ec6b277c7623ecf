"""Several optimizers for one model: around ours, and inside of one."""

import keras
import numpy as np
import pytest

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where
from tests import doors
from tests.training import assert_close
from tests.training import assert_equal
from tests.training import data

BODY, HEAD = np.full((2, 2), 2.0), np.full((2, 2), -3.0)
GRADIENT = np.full((2, 2), 0.5)


def multi(default, **others):
    """An optimizer for layers by name, and one for the rest."""
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            default, {f".*{name}.*": one for name, one in others.items()}
        )
    )


def test_each_part_has_its_own_learning_rate_rule_and_rate():
    """`w <- w - lr (g + rate w)` beside `sign(w+) max(|w+| - lr rate, 0)`."""
    optimizer = multi(
        optimizers.SGDW(0.1, weight_decay=0.5),
        head=optimizers.WeightDecay(
            keras.optimizers.SGD(0.01), decays.L1(20.0)
        ),
    )
    body, head = (
        keras.Variable(value, dtype="float32", name=name)
        for value, name in ((BODY, "body_kernel"), (HEAD, "head_kernel"))
    )
    optimizer.apply([keras.ops.array(GRADIENT, "float32")] * 2, [body, head])
    np.testing.assert_allclose(
        body.numpy(), BODY - 0.1 * (GRADIENT + 0.5 * BODY), rtol=1e-6
    )
    stepped = HEAD - 0.01 * GRADIENT
    np.testing.assert_allclose(
        head.numpy(),
        np.sign(stepped) * np.maximum(np.abs(stepped) - 0.01 * 20, 0),
        rtol=1e-6,
    )


def kfac():
    return optimizers.KFAC(
        0.05, damping=0.1, kl_clip=None, estimator="fisher_exact"
    )


def kfac_beside_adam():
    return multi(
        optimizers.WeightDecay(keras.optimizers.Adam(0.01), decays.L2(0.1)),
        hidden=optimizers.WeightDecay(kfac(), decays.L1(0.1)),
    )


def fitted(make, epochs=1, model=None):
    """A model that was measured and trained on one batch per epoch."""
    if model is None:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(6, "relu", name="hidden"),
                keras.layers.Dense(3, name="output"),
            ]
        )
        doors.compile_eagerly(model, make())
    x, y = data(1)
    curvature = callbacks.Curvature(x, every=1, invert_every=1)
    uses = [curvature] if make is not keras.optimizers.Adam else []
    model.fit(x, y, 16, epochs, verbose=0, callbacks=uses, shuffle=False)
    return model


def test_kfac_for_some_layers_beside_adam_for_the_rest():
    """A block knows nothing of the other layers, so each step is its own."""
    both = fitted(lambda: multi(keras.optimizers.Adam(), hidden=kfac()))
    by_kfac, by_adam = fitted(kfac), fitted(keras.optimizers.Adam)
    assert_close(both.get_weights()[:2], by_kfac.get_weights()[:2], 1e-6)
    assert_close(both.get_weights()[2:], by_adam.get_weights()[2:], 1e-6)
    inner = both.optimizer.optimizers[0]
    assert list(inner.factors()) == [both.layers[0].kernel.path]


@pytest.mark.slow(reason="trains, saves, loads and trains")
def test_kfac_beside_adam_is_saved_and_goes_on(tmp_path):
    model = fitted(kfac_beside_adam, epochs=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = model.run_eagerly
    for one in (model, loaded):
        fitted(kfac_beside_adam, model=one)
    assert_equal(model.get_weights(), loaded.get_weights())


def test_one_kfac_is_measured_for_one_model():
    optimizer = multi(kfac(), hidden=kfac())
    with pytest.raises(ValueError, match="one keras_wd.*several patterns"):
        fitted(lambda: optimizer)


def steered(callback, *rules):
    """The logs of a fit whose optimizer has a wrapper per rule."""
    first, second = (
        optimizers.WeightDecay(keras.optimizers.SGD(0.1), rule, name=name)
        for name, rule in zip(("body", "head"), rules, strict=True)
    )
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, name="hidden"),
            keras.layers.Dense(3, name="output"),
        ]
    )
    model.compile(multi(first, output=second), "mse", run_eagerly=False)
    x = np.zeros((16, 8), "float32")
    return model.fit(
        x, np.ones((16, 3)), epochs=3, verbose=0, callbacks=[callback]
    ).history


def test_a_callback_steers_the_decay_that_is_named():
    # No epoch is better by so much than the first one.
    callback = callbacks.ReduceDecayOnPlateau(
        "loss", factor=0.5, patience=1, min_delta=9.0, decay="last"
    )
    logs = steered(callback, decays.L2(0.1), decays.L2(0.8, name="last"))
    assert logs["weight_decay_body"] == [0.1] * 3
    assert logs["weight_decay_head"] == [0.8, 0.8, 0.4]


@pytest.mark.parametrize("name", [None, "l2"])
def test_a_callback_refuses_to_choose_between_two_decays(name):
    callback = callbacks.ReduceDecayOnPlateau("loss", decay=name)
    with pytest.raises(ValueError, match="only one of the optimizers.*name="):
        steered(callback, decays.L2(0.1), decays.L2(0.8))


def test_the_two_rates_of_muon_are_two_decays():
    """Keras multiplies both by the learning rate, whatever `adam_lr_ratio`."""
    given = {"learning_rate": 0.1, "adam_lr_ratio": 0.3}
    theirs = keras.optimizers.Muon(
        weight_decay=0.5, adam_weight_decay=0.2, **given
    )
    ours = optimizers.WeightDecay(
        keras.optimizers.Muon(
            weight_decay=None, adam_weight_decay=None, **given
        ),
        [
            decays.L2(0.5, where=where.kernels()),
            decays.L2(0.2, where=~where.kernels()),
        ],
    )
    found = []
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape) for shape in ((3, 2), (2,))]
    for optimizer in (theirs, ours):
        weights = [
            keras.Variable(value, dtype="float32", name=name)
            for value, name in zip(values, ("kernel", "bias"), strict=True)
        ]
        for _ in range(2):
            optimizer.apply(
                [keras.ops.array(v * v, "float32") for v in values], weights
            )
        found.append([weight.numpy() for weight in weights])
    assert_close(*found, 1e-5)
