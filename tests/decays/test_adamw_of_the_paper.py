"""AdamW as Loshchilov and Hutter print it, algorithm 2, in our grammar."""

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where

ALPHA, RATE, STEPS = 0.1, 0.03, 4
SCHEDULE = keras.optimizers.schedules.PolynomialDecay(ALPHA, STEPS)
EVERYTHING = where.everything()


def paper(weight, gradients):
    """`w <- w - eta (alpha m / (sqrt(v) + epsilon) + rate w)`, line 12."""
    m = v = 0.0
    for t, gradient in enumerate(gradients, start=1):
        eta = 1 - (t - 1) / STEPS * (1 - 0.0001 / ALPHA)
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        weight = weight - eta * (ALPHA * step + RATE * weight)
    return weight


@pytest.mark.parametrize(
    "decay",
    [
        decays.L2(RATE / ALPHA, where=EVERYTHING),
        decays.L2(
            keras.optimizers.schedules.PolynomialDecay(
                RATE, STEPS, 0.0001 * RATE / ALPHA
            ),
            where=EVERYTHING,
            coupling="independent",
        ),
    ],
    ids=["decoupled", "independent with the schedule"],
)
def test_a_schedule_multiplies_the_decay(decay):
    random = np.random.default_rng(0)
    start, *gradients = random.normal(size=(STEPS + 1, 5))
    variable = keras.Variable(start, name="kernel")
    optimizer = optimizers.WeightDecay(
        keras.optimizers.Adam(SCHEDULE, epsilon=1e-8), decay
    )
    for gradient in gradients:
        optimizer.apply([keras.ops.array(gradient, "float32")], [variable])
    np.testing.assert_allclose(
        variable.numpy(), paper(start, gradients), rtol=1e-5, atol=1e-6
    )
