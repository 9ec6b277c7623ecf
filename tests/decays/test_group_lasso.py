import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from tests import reference


def variable(shape, name="kernel", seed=0):
    values = np.random.default_rng(seed).normal(size=shape).astype("float32")
    return keras.Variable(values, name=name)


@pytest.mark.parametrize(
    "shape, axis, summed",
    [
        ((6, 4), -1, (0,)),
        ((6, 4), -2, (1,)),
        ((6, 4), 1, (0,)),
        ((3, 3, 2, 5), -1, (0, 1, 2)),
        ((3, 3, 2, 5), -2, (0, 1, 3)),
        ((3, 3, 4, 2), (-2, -1), (0, 1)),
    ],
)
def test_the_units_of_each_kind_of_layer(shape, axis, summed):
    w = variable(shape)
    before = w.numpy()
    s = np.float32(np.median(reference.group_norm(before, summed)))
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1.0),
        decays.GroupLasso(float(s), axis=axis),
    )
    optimizer.apply([ops.zeros(shape)], [w])
    expected = reference.group_soft_threshold(before, s, summed)
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-5, atol=1e-6)
    # About half of the units are off, and off as a whole.
    norms = reference.group_norm(w.numpy(), summed)
    assert 0.2 <= np.mean(norms == 0) <= 0.8


@pytest.mark.parametrize("axis", [0.5, "last", (), (0, "a"), True, None])
def test_an_axis_must_be_integers(axis):
    expected = "`axis` must be an integer or a tuple of integers"
    with pytest.raises(ValueError, match=expected) as error:
        decays.GroupLasso(0.1, axis=axis)
    assert f"Received: axis={axis!r}" in str(error.value)


@pytest.mark.parametrize("axis", [2, -3, (0, 2)])
def test_an_axis_that_a_variable_lacks_is_refused_at_build(axis):
    w = variable((6, 4))
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), decays.GroupLasso(0.1, axis=axis)
    )
    expected = "`axis` must be an axis of every selected variable"
    with pytest.raises(ValueError, match=expected) as error:
        optimizer.build([w])
    assert f"axis={axis!r}, but {w.path} has shape (6, 4)" in str(error.value)


def test_training_switches_units_off_and_they_may_come_back():
    w = variable((6, 4))
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), decays.GroupLasso(100.0)
    )
    optimizer.apply([ops.zeros((6, 4))], [w])
    assert np.all(w.numpy() == 0)
    optimizer.set_weight_decay(0.1)
    optimizer.apply([ops.ones((6, 4))], [w])
    assert np.all(w.numpy() < 0)
