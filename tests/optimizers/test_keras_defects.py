"""Defects of Keras's own weight decay, and their absence here.

Where it is cheap, a test shows the defect too, so that it tells when a later
Keras has mended it.
"""

import keras
import numpy as np
import pytest

from keras_wd import optimizers
from keras_wd import schedules
from keras_wd import where
from tests.training import assert_equal
from tests.training import compiled_network
from tests.training import data
from tests.training import take_steps
from tests.training import train
from tests.training import variables


@pytest.mark.slow(reason="watches Keras, not this package")
def test_what_is_excluded_stays_excluded_after_a_reload(tmp_path):
    selection = where.kernels() & ~where.paths("dense/kernel")
    model = compiled_network(
        optimizers.SGDW(0.1, weight_decay=1.0, where=selection)
    )
    train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(train(model, 1), train(loaded, 1))
    x, y = data(1)
    zero = {"sample_weight": np.zeros(len(x))}
    before = loaded.get_weights()
    loaded.fit(x, y, verbose=0, **zero)
    after = loaded.get_weights()
    assert_equal(before[:2], after[:2])
    np.testing.assert_allclose(after[2], 0.9 * before[2], rtol=1e-6)


def test_keras_forgets_what_is_excluded():
    optimizer = keras.optimizers.SGD(0.1, weight_decay=1.0)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    copy = keras.optimizers.SGD.from_config(optimizer.get_config())
    nothing = [[np.zeros((2, 2), "float32")]]
    weights = variables([np.ones((2, 2))])
    assert take_steps(copy, weights, nothing)[0][0].max() < 1.0


def test_a_pattern_means_whole_segments():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, name="subhead"),
            keras.layers.Dense(2, name="head"),
        ],
        name="head_net",
    )
    assert where.resolve(where.paths("head/*"), model) == [
        "head_net/head/kernel",
        "head_net/head/bias",
    ]


def test_a_schedule_is_a_rate():
    with pytest.raises((TypeError, ValueError)):
        schedule = schedules.WarmupHold(0.1, 2)
        keras_own = keras.optimizers.SGD(0.1, weight_decay=schedule)
        take_steps(
            keras_own,
            variables([np.ones((2, 2))]),
            [[np.zeros((2, 2), "float32")]],
        )
    optimizer = optimizers.SGDW(1.0, weight_decay=schedules.WarmupHold(0.5, 2))
    history = take_steps(
        optimizer,
        variables([np.ones((1, 1))]),
        [[np.zeros((1, 1), "float32")]] * 3,
    )
    found = [float(step[0][0, 0]) for step in history]
    np.testing.assert_allclose(found, [1.0, 0.75, 0.375], rtol=1e-6)


@pytest.mark.slow(reason="watches Keras, not this package")
def test_a_bfloat16_variable_of_keras_does_not_decay():
    nothing = [[np.zeros((2, 2), "bfloat16")]] * 100
    theirs = variables([np.ones((2, 2))], "bfloat16")
    take_steps(keras.optimizers.SGD(1.0, weight_decay=1e-4), theirs, nothing)
    ours = variables([np.ones((2, 2))], "bfloat16")
    take_steps(optimizers.SGDW(1.0, weight_decay=1e-4), ours, nothing)
    assert float(theirs[0].numpy().astype("float32").max()) == 1.0
    assert float(ours[0].numpy().astype("float32").max()) < 0.995
