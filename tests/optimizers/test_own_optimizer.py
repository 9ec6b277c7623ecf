"""A decay around an optimizer that is not one of Keras's: AdamP."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from tests import reference
from tests.training import take_steps
from tests.training import variables


class AdamP(keras.optimizers.Adam):
    """Adam whose step on a weight is orthogonal to it.

    Heo et al., 2021, "AdamP", equation 5, in every step.
    """

    def update_step(self, gradient, variable, learning_rate):
        before = ops.copy(ops.convert_to_tensor(variable))
        super().update_step(gradient, variable, learning_rate)
        step = ops.convert_to_tensor(variable) - before
        along = ops.sum(step * before) / ops.sum(before * before)
        variable.assign(before + step - along * before)


@pytest.mark.parametrize("late", [False, True])
def test_a_decay_after_a_step_that_reads_the_weights(late):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 2)).astype("float32")
    gradients = [[rng.normal(size=(3, 2)).astype("float32")] for _ in range(2)]
    decay = decays.Lp(0.3, p=0.8, late=late)
    optimizer = optimizers.WeightDecay(AdamP(0.1), decay)
    found = take_steps(optimizer, variables([start]), gradients)
    plain, weights = AdamP(0.1), variables([start])
    shrink = reference.shrink_lp_late if late else reference.shrink_lp
    before = start
    for (ours,), gradient in zip(found, gradients, strict=True):
        # The same optimizer without a decay, from the same weights.
        weights[0].assign(before)
        ((stepped,),) = take_steps(plain, weights, [gradient])
        assert abs(np.sum((stepped - before) * before)) < 1e-5
        expected = shrink(stepped, before, 0.1 * 0.3, 0.8)
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=1e-6)
        before = ours
