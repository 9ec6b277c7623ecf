"""Complex weights keep their direction, and their magnitude shrinks."""

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import optimizers
from tests import reference

START = np.array([[3 + 4j, -0.3j], [0, -0.6 + 0.8j]], "complex64")
SIZE = np.abs(START).astype("float64")


def stepped(rule, gradient=0.0):
    variable = keras.Variable(START, dtype="complex64", name="kernel")
    optimizer = optimizers.WeightDecay(keras.optimizers.SGD(0.1), rule)
    gradient = np.full((2, 2), gradient, "complex64")
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return np.array(variable.numpy())


def scaled(sizes):
    return START * sizes / np.where(SIZE > 0, SIZE, 1)


NORMS = np.sqrt(np.sum(SIZE**2, axis=0))
RULES = {
    "L2": (decays.L2(0.1), SIZE * 0.99),
    "L1": (decays.L1(0.1), np.maximum(SIZE - 0.01, 0)),
    "Lp": (
        decays.Lp(0.1, p=0.8),
        SIZE / (1 + 0.01 * np.where(SIZE > 0, SIZE, 1) ** -1.2),
    ),
    "ProximalLp": (
        decays.ProximalLp(0.1, p=0.5),
        reference.prox_lp(SIZE, 0.01, 0.5),
    ),
    "GroupLasso": (decays.GroupLasso(0.1), SIZE * (1 - 0.01 / NORMS)),
}


@pytest.mark.parametrize("name", RULES)
def test_the_magnitude_shrinks(name):
    rule, sizes = RULES[name]
    np.testing.assert_allclose(stepped(rule), scaled(sizes), atol=3e-7)


def test_l2_takes_the_weights_before_the_step():
    expected = START - 0.1 * (1 - 2j) - 0.01 * START
    np.testing.assert_allclose(
        stepped(decays.L2(0.1), 1 - 2j), expected, atol=3e-7
    )


def test_l2_coupled_adds_the_weights():
    rule = decays.L2(0.1, coupling="coupled")
    np.testing.assert_allclose(stepped(rule), START * 0.99, atol=3e-7)


@pytest.mark.parametrize("name", RULES)
def test_strength_zero_changes_no_bit(name):
    rule, _ = RULES[name]
    config = rule.get_config() | {"weight_decay": 0.0}
    np.testing.assert_array_equal(
        stepped(type(rule).from_config(config)), START
    )


@pytest.mark.parametrize(
    "rule",
    [
        decays.L1(0.1, coupling="coupled"),
        decays.L1(0.1, cautious=True),
        decays.L2(0.1, cautious=True),
    ],
)
def test_what_knows_no_phases_is_refused(rule):
    with pytest.raises(ValueError, match="must select real weights"):
        stepped(rule)
