"""The damping that follows how well the quadratic model predicts."""

import keras
import numpy as np
import pytest

from keras_wd.callbacks import Curvature
from keras_wd.callbacks import LevenbergMarquardt
from keras_wd.callbacks.levenberg_marquardt import reduction_ratio
from keras_wd.optimizers import KFAC
from tests.kfac.running import array
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager

X, Y = array(1, 16, 3), array(2, 16, 2)


def fit(rate, damping=1.0, epochs=2, **arguments):
    model = mlp(2)
    model.compile(
        KFAC(
            rate,
            damping=damping,
            momentum=0.0,
            kl_clip=None,
            estimator="gauss_newton_exact",
            eigenbasis=True,
        ),
        "mse",
        jit_compile=keras.backend.backend() == "jax",
    )
    before = [value(v) for v in model.trainable_variables]
    adapts = LevenbergMarquardt((X, Y), every=1, factor=0.5, **arguments)
    history = model.fit(
        X,
        Y,
        batch_size=16,
        shuffle=False,
        epochs=epochs,
        verbose=0,
        callbacks=[Curvature(X, batch_size=16), adapts],
    )
    return model, before, history.history


def test_ratio_of_a_linear_model_is_that_of_the_two_quadratics():
    model, before, logs = fit(0.5, epochs=1)
    after = [value(v) for v in model.trainable_variables]

    def loss(weights):
        return ((X @ weights[0] + weights[1] - Y) ** 2).mean()

    # The curvature of a linear layer under this loss is exact, so that the
    # model differs from the loss by the damping alone.
    step = sum(((a - b) ** 2).sum() for a, b in zip(after, before, strict=True))
    change = loss(after) - loss(before)
    expected = change / (change + step / 2)
    np.testing.assert_allclose(
        logs["kfac_reduction_ratio"], [expected], rtol=1e-3
    )
    assert logs["kfac_undecided"] == [0.0]


def test_a_step_that_is_predicted_well_lowers_the_damping():
    _, _, logs = fit(0.5, damping=1e-4, epochs=1)
    np.testing.assert_allclose(logs["kfac_damping"], 0.5e-4, rtol=1e-5)


def test_a_step_uphill_says_nothing():
    # The step of rate 10 of a quadratic is far beyond its minimum.
    _, _, logs = fit(10.0, damping=1e-4, epochs=1)
    np.testing.assert_allclose(logs["kfac_damping"], 1e-4, rtol=1e-5)
    assert logs["kfac_undecided"] == [1.0]
    assert "kfac_reduction_ratio" not in logs


@pytest.mark.slow(reason="trains several times")
def test_limits_hold():
    _, _, logs = fit(0.5, damping=1e-3, epochs=4, minimum=2e-4)
    assert logs["kfac_damping"][-1] == pytest.approx(2e-4)


def test_a_ratio_says_nothing_where_no_lower_loss_is_predicted():
    assert reduction_ratio(-1.0, 1e-9, 1.0) is None
    assert reduction_ratio(-1.0, -1e-9, 1.0) is None
    assert reduction_ratio(np.nan, -1.0, 1.0) == -np.inf
    assert reduction_ratio(-0.5, -1.0, 1.0) == 0.5


def test_a_schedule_and_data_without_labels_are_refused():
    with pytest.raises(ValueError, match="must have labels"):
        LevenbergMarquardt(X)
    with pytest.raises(ValueError, match="`factor` must be < 1"):
        LevenbergMarquardt((X, Y), factor=1.0)
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    with pytest.raises(ValueError, match="follows a schedule"):
        fit(0.1, damping=schedule)
