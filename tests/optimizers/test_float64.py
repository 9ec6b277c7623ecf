"""float64 variables decay with float64 rates."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import schedules
from tests import reference

pytestmark = pytest.mark.usefixtures("float64")


def stepped(optimizer, start=1.0, dtype="float64"):
    variable = keras.Variable(
        np.full((2, 3), start), dtype=dtype, name="kernel"
    )
    optimizer.apply([keras.ops.zeros((2, 3), dtype)], [variable])
    return float(variable.numpy()[0, 0])


RULES = {
    "L2": (lambda r, c: decays.L2(r, coupling=c), lambda w, s: w - s * w),
    "L1": (lambda r, c: decays.L1(r, coupling=c), reference.soft_threshold),
    "Lp": (
        lambda r, c: decays.Lp(r, p=0.7, coupling=c),
        lambda w, s: w / (1 + s * abs(w) ** -1.3),
    ),
    "ProximalLp": (
        lambda r, c: decays.ProximalLp(r, p=1.7, coupling=c),
        lambda w, s: reference.prox_lp_branches(w, s, 1.7)[0],
    ),
    "GroupLasso": (
        lambda r, c: decays.GroupLasso(r, coupling=c),
        lambda w, s: w * max(1 - s / (abs(w) * np.sqrt(2)), 0),
    ),
}


@pytest.mark.parametrize("coupling", ["decoupled", "independent"])
@pytest.mark.parametrize("name", RULES)
def test_a_step_is_exact(name, coupling):
    make, exact = RULES[name]
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), make(0.3, coupling)
    )
    s = 0.1 * 0.3 if coupling == "decoupled" else 0.3
    np.testing.assert_allclose(
        stepped(optimizer, 0.89), exact(0.89, s), rtol=4e-16, atol=0
    )


@settings(max_examples=8)
@given(
    rate=st.decimals("0.000001", 1, places=6).map(float),
    learning_rate=st.decimals("0.000001", 1, places=6).map(float),
)
def test_any_rate_as_it_is_written(rate, learning_rate):
    inner = keras.optimizers.SGD(learning_rate)
    optimizer = optimizers.WeightDecay(inner, decays.L2(rate))
    assert stepped(optimizer) == 1 - learning_rate * rate


def test_rates_that_are_set():
    optimizer = optimizers.SGDW(0.1, weight_decay=0.3)
    stepped(optimizer)
    optimizer.learning_rate = 0.2
    optimizer.set_weight_decay(0.7)
    variable = optimizer._trainable_variables[0]
    variable.assign(np.ones((2, 3)))
    optimizer.apply([np.zeros((2, 3))])
    assert float(variable.numpy()[0, 0]) == 1 - 0.2 * 0.7
    # Assigned by a callback of Keras: what is in the variable.
    optimizer.learning_rate.assign(0.3)
    variable.assign(np.ones((2, 3)))
    optimizer.apply([np.zeros((2, 3))])
    expected = 1 - float(np.float32(0.3)) * 0.7
    assert float(variable.numpy()[0, 0]) == expected


def test_a_restored_optimizer_goes_on_alike():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), decays.L2(0.3)
    )
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert stepped(again) == stepped(optimizer) == 1 - 0.1 * 0.3


def test_a_coupled_decay_and_variables_of_two_kinds():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1.0), decays.L2(0.3, coupling="coupled")
    )
    assert stepped(optimizer) == 0.7
    both = [
        keras.Variable(np.ones((2, 3)), dtype=dtype, name="kernel")
        for dtype in ("float32", "float64")
    ]
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), decays.L2(0.3)
    )
    optimizer.apply([keras.ops.zeros((2, 3), v.dtype) for v in both], both)
    single, double = (float(v.numpy()[0, 0]) for v in both)
    assert double == 0.97 and single == np.float32(0.97)


def test_schedules_where_keras_computes_in_float64():
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        for rate in (
            schedules.Stepwise([0.3, 0.2], 1),
            schedules.WarmupHold(0.4, 10, initial=0.3),
            schedules.ConstantTimescale(0.1, 1 / 0.03),
        ):
            optimizer = optimizers.SGDW(0.1, weight_decay=rate)
            assert stepped(optimizer) == pytest.approx(0.97, rel=1e-15)
    finally:
        keras.config.set_floatx(floatx)
