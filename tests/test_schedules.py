import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import schedules
from tests import reference

STEPS = [0, 1, 2, 9, 10, 11, 49, 50, 99, 100, 101, 1000]
COSINE = keras.optimizers.schedules.CosineDecay(
    0.0, decay_steps=90, warmup_target=0.3, warmup_steps=10
)


def values(schedule, steps=STEPS):
    return np.array([float(schedule(step)) for step in steps])


def rates():
    return {
        "timescale": schedules.ConstantTimescale(COSINE, 250.0),
        "timescale of a number": schedules.ConstantTimescale(0.02, 250.0),
        "proportional": schedules.ProportionalToLearningRate(0.05, COSINE, 0.3),
        "warmup": schedules.WarmupHold(0.2, 50, initial=0.01),
        "stepwise": schedules.Stepwise([0.3, 0.2, 0.0, 0.1], 10),
    }


def test_constant_timescale_is_the_reference():
    expected = [
        reference.constant_timescale_rate(lr, 250.0) if lr > 0 else 0.0
        for lr in values(COSINE)
    ]
    result = values(rates()["timescale"])
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert values(rates()["timescale of a number"]) == pytest.approx(0.2)


def test_constant_timescale_is_zero_where_the_learning_rate_is():
    learning_rates = values(COSINE)
    result = values(rates()["timescale"])
    assert np.any(learning_rates == 0)
    assert np.all(result[learning_rates == 0] == 0)
    assert np.all(np.isfinite(result))
    assert float(schedules.ConstantTimescale(0.0, 10)(3)) == 0


def test_constant_timescale_shrinks_by_the_same_share_at_every_step():
    learning_rate = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(learning_rate),
        decays.L2(schedules.ConstantTimescale(learning_rate, 20)),
    )
    w = keras.Variable([[1.0]], name="kernel")
    for step in range(1, 6):
        optimizer.apply([ops.zeros((1, 1))], [w])
        assert float(ops.convert_to_numpy(w.value)[0, 0]) == pytest.approx(
            (1 - 1 / 20) ** step, rel=1e-6
        )


def test_proportional_rate_is_the_reference():
    expected = reference.corrected_rate(values(COSINE), 0.3, 0.05)
    result = values(rates()["proportional"])
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    # The strength of a step, learning rate times rate, is the square.
    strength = values(COSINE) * result
    np.testing.assert_allclose(
        strength, values(COSINE) ** 2 / 0.3 * 0.05, rtol=1e-6
    )


def test_warmup_is_the_reference():
    expected = reference.warmup_rate(STEPS, 0.2, 50, start=0.01)
    np.testing.assert_allclose(values(rates()["warmup"]), expected, rtol=1e-6)


@given(
    st.floats(0, 10),
    st.integers(1, 1000),
    st.floats(0, 10),
    st.integers(0, 2000),
)
def test_warmup_for_any_numbers(weight_decay, steps, initial, step):
    schedule = schedules.WarmupHold(weight_decay, steps, initial)
    expected = reference.warmup_rate(step, weight_decay, steps, initial)
    assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_warmup_holds_the_rate_exactly():
    schedule = schedules.WarmupHold(0.1, 7, initial=0.3)
    for step in (7, 8, 1000, 10**8):
        assert float(schedule(step)) == np.float32(0.1)


def test_stepwise_is_the_reference():
    expected = reference.stepwise_rate(
        STEPS, [10, 20, 30], [0.3, 0.2, 0.0, 0.1]
    )
    np.testing.assert_array_equal(
        values(rates()["stepwise"]), np.float32(expected)
    )


def test_stepwise_counts_exactly_far_beyond_float32():
    # 2^24 + 1 is no float32.
    schedule = schedules.Stepwise([0.0, 1.0], 2**24 + 1)
    assert [float(schedule(2**24 + k)) for k in (0, 1)] == [0.0, 1.0]


@pytest.mark.parametrize("name", sorted(rates()))
def test_rates_are_the_same_when_compiled(name, compiled):
    schedule = rates()[name]
    # Keras counts in integers.
    xla = compiled(lambda step: ops.cast(schedule(step), "float32"))
    result = [float(xla(np.int32(step))) for step in STEPS]
    np.testing.assert_allclose(result, values(schedule), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(rates()))
def test_rates_survive_serialization(name):
    schedule = rates()[name]
    config = keras.saving.serialize_keras_object(schedule)
    assert config["registered_name"].startswith("keras_wd.schedules>")
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(config))
    )
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    np.testing.assert_array_equal(values(again), values(schedule))


@pytest.mark.parametrize("name", sorted(rates()))
def test_rates_are_learning_rate_schedules_of_keras(name):
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.5), decays.L2(rates()[name], name="mine")
    )
    w = keras.Variable([[1.0]], name="kernel")
    size = 1.0
    for step in range(3):
        rate = float(rates()[name](step))
        assert optimizer.current_weight_decay()["mine"] == pytest.approx(rate)
        optimizer.apply([ops.zeros((1, 1))], [w])
        size *= 1 - 0.5 * rate
        assert float(ops.convert_to_numpy(w.value)[0, 0]) == pytest.approx(
            size, rel=1e-6
        )


@pytest.mark.parametrize(
    "make, expected",
    [
        (
            lambda: schedules.ConstantTimescale(-0.1, 10),
            "`learning_rate` must be a finite number >= 0 or a "
            "`keras.optimizers.schedules.LearningRateSchedule`. Received: "
            "learning_rate=-0.1",
        ),
        (
            lambda: schedules.ConstantTimescale(0.1, 0),
            "`timescale` must be a finite number > 0. Received: timescale=0",
        ),
        (
            lambda: schedules.ProportionalToLearningRate(COSINE, 0.1, 0.1),
            "`weight_decay` must be a finite number >= 0. Received: "
            "weight_decay=<",
        ),
        (
            lambda: schedules.ProportionalToLearningRate(0.1, COSINE, 0.0),
            "`max_learning_rate` must be a finite number > 0. Received: "
            "max_learning_rate=0.0",
        ),
        (
            lambda: schedules.WarmupHold(0.1, 0),
            "`warmup_steps` must be an integer >= 1. Received: warmup_steps=0",
        ),
        (
            lambda: schedules.WarmupHold(0.1, 2.5),
            "`warmup_steps` must be an integer >= 1. Received: "
            "warmup_steps=2.5",
        ),
        (
            lambda: schedules.WarmupHold(0.1, 5, initial=-1),
            "`initial` must be a finite number >= 0. Received: initial=-1",
        ),
        (
            lambda: schedules.Stepwise([], 5),
            "`rates` must be a list of at least one number. Received: rates=[]",
        ),
        (
            lambda: schedules.Stepwise("0.1", 5),
            "`rates` must be a list of at least one number. Received: "
            "rates='0.1'",
        ),
        (
            lambda: schedules.Stepwise([0.1, -1], 5),
            "`rates[1]` must be a finite number >= 0. Received: rates[1]=-1",
        ),
        (
            lambda: schedules.Stepwise([0.1], 0),
            "`steps` must be an integer >= 1. Received: steps=0",
        ),
        (
            lambda: schedules.Stepwise(0.1, 5),
            "`rates` must be a list of at least one number. Received: "
            "rates=0.1",
        ),
    ],
)
def test_arguments_out_of_range_are_rejected(make, expected):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value).startswith(expected)


def test_an_array_of_rates_is_a_list_of_rates():
    schedule = schedules.Stepwise(np.linspace(0.2, 0.0, 3), 10)
    assert values(schedule, [0, 10, 20]) == pytest.approx([0.2, 0.1, 0.0])
    assert json.loads(json.dumps(schedule.get_config()))["steps"] == 10
