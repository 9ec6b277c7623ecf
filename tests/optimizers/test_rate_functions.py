"""A rate that is a plain function of the step."""

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import optimizers


def halving(step):
    return 0.4 * 0.5**step


@keras.saving.register_keras_serializable("tests")
def registered(step):
    return keras.ops.where(step < 1, 0.4, 0.2)


def wrapped(rate):
    return optimizers.WeightDecay(keras.optimizers.SGD(0.5), decays.L2(rate))


def two_steps(optimizer):
    variable = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
    for _ in range(2):
        optimizer.apply([keras.ops.zeros((2, 2))], [variable])
    return float(keras.ops.convert_to_numpy(variable.value)[0, 0])


RATES = [halving, registered, lambda step: 0.4 / (1 + step)]


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_of_the_step(rate):
    optimizer = wrapped(rate)
    assert optimizer.current_weight_decay() == {"l2": 0.4}
    assert two_steps(optimizer) == pytest.approx(0.8 * 0.9)
    assert optimizer.current_weight_decay()["l2"] == pytest.approx(
        float(rate(2.0))
    )


def test_named_optimizers_take_it():
    optimizer = optimizers.SGDW(0.5, weight_decay=halving)
    assert two_steps(optimizer) == pytest.approx(0.8 * 0.9)


def test_a_registered_function_is_saved():
    config = keras.saving.serialize_keras_object(wrapped(registered))
    again = keras.saving.deserialize_keras_object(config)
    assert two_steps(again) == pytest.approx(0.8 * 0.9)
    config = keras.saving.serialize_keras_object(
        optimizers.SGDW(0.5, weight_decay=registered)
    )
    again = keras.saving.deserialize_keras_object(config)
    assert two_steps(again) == pytest.approx(0.8 * 0.9)


def test_a_function_by_its_name():
    config = keras.saving.serialize_keras_object(wrapped(halving))
    again = keras.saving.deserialize_keras_object(
        config, custom_objects={"halving": halving}
    )
    assert two_steps(again) == pytest.approx(0.8 * 0.9)


def test_a_function_without_a_name_is_not_saved():
    with pytest.raises(ValueError, match="must be a function with a name"):
        wrapped(lambda step: 0.1).get_config()


def test_it_cannot_be_set():
    with pytest.raises(ValueError, match="whose weight_decay is a number"):
        wrapped(halving).set_weight_decay(0.1)


@pytest.mark.parametrize("rate", [decays.L2, "halving"])
def test_what_is_no_rate(rate):
    with pytest.raises(ValueError, match="or a function of the step"):
        decays.L2(rate)
