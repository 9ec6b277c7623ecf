"""NaN and infinity: nothing that is wrong becomes a number again."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import graph
from keras_wd import metrics
from keras_wd import optimizers
from keras_wd import where
from keras_wd.decays.decay import WithoutPenalty
from tests import catalogue
from tests.training import compiled_network
from tests.training import data
from tests.training import network

pytestmark = pytest.mark.eager

BAD = [math.nan, math.inf, -math.inf]
X, Y = data(1)


def kernel(bad=0.0):
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    weights[1, 1] = bad
    return weights


@pytest.mark.parametrize(
    "name",
    catalogue.quick(list(catalogue.DECAYS), "L2", "ProximalLp", "PathNorm"),
)
def test_a_decay_leaves_what_is_not_finite(name, compiled):
    rule = catalogue.DECAYS[name]()

    def act(strength, *weights):
        weights = list(weights)
        if rule.coupling == "coupled":
            shrunk = rule.gradient(weights)
        else:
            shrunk = rule.shrink(weights, weights, strength)
        if isinstance(rule, WithoutPenalty):
            return ops.stack(shrunk), ops.full((3,), np.nan)
        return ops.stack(shrunk), ops.stack(
            [ops.convert_to_tensor(rule.penalty([w])) for w in weights]
        )

    weights = [kernel(bad) for bad in BAD]
    for run in (act, compiled(act)):
        for strength in (0.0, 0.1):
            arrays = map(ops.convert_to_tensor, weights)
            shrunk, penalties = run(
                ops.convert_to_tensor(strength, "float32"), *arrays
            )
            shrunk = ops.convert_to_numpy(shrunk)
            found = shrunk[:, 1, 1]
            # Clipped as the gradient of |w| is, beside an infinite penalty.
            clipped = rule.coupling == "coupled" and not np.isnan(found[1])
            assert not np.isfinite(found[:1] if clipped else found).any()
            assert not np.isfinite(ops.convert_to_numpy(penalties)).any()
            # Those in other units are as finite as before.
            assert np.isfinite(shrunk[:, 2, 0]).all()


@pytest.mark.parametrize("absorb", [False, True])
def test_the_path_norm_leaves_what_is_not_finite(absorb):
    model = network()
    units = graph.homogeneous_units(model)
    rule = decays.PathNorm(0.1, units, absorb=absorb)
    variables = model.trainable_variables
    chosen = [variables[i] for i in rule.select(variables)]
    base = [ops.convert_to_numpy(v.value).copy() for v in chosen]
    for position in range(len(base)):
        for bad in BAD:
            weights = [array.copy() for array in base]
            weights[position].flat[1] = bad
            tensors = [ops.convert_to_tensor(w) for w in weights]
            shrunk = rule.shrink(tensors, [], ops.convert_to_tensor(0.1))
            assert not all(
                np.isfinite(ops.convert_to_numpy(w)).all() for w in shrunk
            )
            penalty = float(ops.convert_to_numpy(rule.penalty(tensors)))
            assert base[position].ndim == 1 or not math.isfinite(penalty)


def test_regularizers_constraints_and_metrics_tell():
    for bad in BAD:
        weights = ops.convert_to_tensor(kernel(bad))
        for make in catalogue.REGULARIZERS.values():
            assert not math.isfinite(float(make()(weights)))
        for make in catalogue.CONSTRAINTS.values():
            projected = ops.convert_to_numpy(make()(weights))
            assert not np.isfinite(projected).all()
    model = network()
    first, bias = model.layers[0].get_weights()
    first[0, 0] = math.nan
    model.layers[0].set_weights([first, bias])
    assert math.isnan(metrics.weight_norm(model))
    assert math.isnan(metrics.path_norm(model))
    assert math.isnan(metrics.jacobian_norm(model, X).value)
    for form in ("full", "kfac"):
        assert math.isnan(metrics.gauss_newton_norm(model, X, form))
    assert not any(metrics.dead_units(model).values())
    assert graph.compact(model) is model


@pytest.mark.parametrize("bad", BAD[:2])
def test_kfac_takes_no_step_with_nothing_but_bad_curvature(bad):
    model = compiled_network(optimizers.KFAC(0.1, seed=0))
    x = X.copy()
    x[0, 0] = bad
    with pytest.raises(ValueError, match="Cannot invert: 2 of 2 blocks"):
        model.optimizer.update_curvature(model, x)
    assert not model.optimizer.has_curvature
    # A later batch is skipped, and told.
    model.optimizer.update_curvature(model, X)
    before = model.optimizer.factors()
    model.optimizer.update_curvature(model, x)
    numbers = model.optimizer.diagnostics()
    assert numbers["curvature_skipped"] == 4
    for name, factors in model.optimizer.factors().items():
        for key, value in factors.items():
            np.testing.assert_array_equal(value, before[name][key])


def test_a_gradient_that_is_not_finite_is_seen_in_the_weights():
    for optimizer in (
        optimizers.SGDW(0.1, 0.1),
        optimizers.PAdam(0.1, 0.1),
        optimizers.WeightDecay(
            keras.optimizers.SGD(0.1),
            [
                decays.L1(0.1),
                decays.GroupLasso(0.1),
                decays.ProximalLp(0.1, p=0.7, where=where.kernels()),
            ],
        ),
    ):
        weights = keras.Variable(kernel(1.0), name="kernel")
        gradient = ops.convert_to_tensor(kernel(math.nan))
        optimizer.apply([gradient], [weights])
        assert math.isnan(ops.convert_to_numpy(weights.value)[1, 1])


def test_a_loss_that_is_not_finite_is_worse_for_auto_l2(monkeypatch):
    losses = iter([2.0, 1.0, 0.5, math.nan, math.nan, 0.4, 0.3, 0.2])
    monkeypatch.setattr(
        "keras_wd.callbacks.auto_l2.batch_loss",
        lambda model: lambda x, y, sample_weight: (next(losses), math.nan),
    )
    model = compiled_network(optimizers.SGDW(0.1, 0.5))
    rule = callbacks.AutoL2((X, Y), every=1, delay=0.0, smoothing=0.1)
    model.fit(X, Y, batch_size=2, epochs=1, verbose=0, callbacks=[rule])
    # Once for two in a row; what comes after them is judged by itself.
    assert model.optimizer.current_weight_decay() == {"l2": 0.05}
    history = rule.remembered()
    assert history["smoothed"][0] < 0.3
    assert history["least_loss"] == pytest.approx(0.31, abs=0.1)


def test_the_callbacks_refuse_numbers_to_measure_on_that_are_none():
    x = X.copy()
    x[3, 1] = math.nan
    model = compiled_network(optimizers.SGDW(0.1, 0.5))
    with pytest.raises(ValueError, match="`x` must be finite"):
        model.fit(X, Y, verbose=0, callbacks=[callbacks.Mechanisms(x)])
