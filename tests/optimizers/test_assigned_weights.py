"""State that follows the weights: what was kept belongs to them alone."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import schedules
from keras_wd import where
from tests import catalogue
from tests.training import BATCH
from tests.training import assert_close
from tests.training import assert_equal
from tests.training import compiled_network
from tests.training import data
from tests.training import train
from tests.training import variables

pytestmark = pytest.mark.eager

LOW = ["bfloat16", "float16"]
RULES = {
    "L2": decays.L2,
    "L1": decays.L1,
    "Lp": lambda rate: decays.Lp(rate, p=1.5),
    "ProximalLp": lambda rate: decays.ProximalLp(rate, p=1.5),
    "GroupLasso": decays.GroupLasso,
    "coupled": lambda rate: decays.L2(rate, coupling="coupled"),
}


def still(optimizer, variable, steps):
    """Steps without a gradient."""
    nothing = ops.zeros(variable.shape, variable.dtype)
    for _ in range(steps):
        optimizer.apply([nothing], [variable])


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("rule", RULES)
def test_what_rounding_took_is_not_given_to_other_weights(rule, dtype):
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), RULES[rule](0.01)
    )
    (variable,) = variables([np.full((4, 3), 100.0)], dtype)
    still(optimizer, variable, 4)
    for value in (0.001, 99.0, 0.0):
        variable.assign(np.full((4, 3), value))
        assigned = np.array(variable)
        optimizer.learning_rate = 1e-8
        still(optimizer, variable, 1)
        np.testing.assert_array_equal(np.array(variable), assigned)


@pytest.mark.slow(reason="compiles a training")
@pytest.mark.compiled
@pytest.mark.parametrize("dtype", catalogue.quick(LOW, "bfloat16"))
def test_a_compiled_step_keeps_what_rounding_takes(dtype):
    """XLA may not leave out the rounding that tells other weights."""
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(3, use_bias=False, dtype=dtype)]
    )
    model.compile(
        optimizers.SGDW(1.0, 1e-4),
        "mse",
        jit_compile=keras.backend.backend() != "torch",
        auto_scale_loss=False,
    )
    model.set_weights([np.ones((8, 3))])
    x, y = np.zeros((4 * BATCH, 8)), np.zeros((4 * BATCH, 3))
    model.fit(x, y, batch_size=BATCH, epochs=25, verbose=0)
    (unrounded,) = (
        np.array(v) for v in model.optimizer.variables if "unrounded" in v.name
    )
    np.testing.assert_allclose(unrounded, (1 - 1e-4) ** 100, rtol=1e-6)
    model.set_weights([np.full((8, 3), 0.001)])
    before = model.get_weights()
    model.optimizer.learning_rate = 1e-8
    model.train_on_batch(x[:BATCH], y[:BATCH])
    assert_equal(before, model.get_weights())


@pytest.mark.few_cases(1)
@pytest.mark.parametrize("name", ["WeightDecay", "SGDW", "PAdam"])
def test_an_average_before_the_first_update_changes_nothing(name):
    make = {
        "WeightDecay": lambda **inner: optimizers.WeightDecay(
            keras.optimizers.SGD(0.1, **inner), decays.L2(0.1), use_ema=True
        ),
        "SGDW": lambda **inner: optimizers.SGDW(0.1, use_ema=True, **inner),
        "PAdam": lambda **inner: optimizers.PAdam(0.1, use_ema=True, **inner),
    }[name]
    model = compiled_network(make(gradient_accumulation_steps=16))
    before = model.get_weights()
    x, y = data(4)
    log = model.fit(
        *(x, y, BATCH),
        verbose=0,
        shuffle=False,
        validation_data=(x, y),
        callbacks=[keras.callbacks.SwapEMAWeights()],
    )
    assert_equal(before, model.get_weights())
    loss = model.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(log.history["val_loss"], loss, rtol=1e-6)
    optimizer = make()
    optimizer.build(model.trainable_variables)
    optimizer.finalize_variable_values(model.trainable_variables)
    assert_equal(before, model.get_weights())


@pytest.mark.parametrize("dtype", ["float32", *LOW])
def test_an_average_starts_anew_where_weights_are_assigned(dtype):
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1),
        decays.L2(0.1, where=where.everything()),
        use_ema=True,
        ema_momentum=0.9,
    )
    variable, other = variables([np.full((2,), 8.0), np.full((2,), 8.0)], dtype)
    nothing = [ops.zeros((2,), dtype)] * 2
    for _ in range(3):
        optimizer.apply(nothing, [variable, other])
    variable.assign([1.0, -1.0])
    optimizer.apply(nothing, [variable, other])
    average, kept = (
        np.array(v) for v in optimizer.variables if "average" in v.name
    )
    assert_equal([average], [np.array(variable)])
    assert np.all(kept.astype("float32") > 7.0)
    assert_close(
        [np.array(variable).astype("float32")], [[0.99, -0.99]], 2.0**-8
    )


def test_an_average_goes_on_in_the_next_fit():
    """`fit` puts the average into the model, which no user did."""

    def model():
        return compiled_network(
            optimizers.SGDW(0.1, 0.1, use_ema=True, ema_momentum=0.5)
        )

    one = model()
    train(one, batches=2)
    middle = one.get_weights()
    train(one, batches=1)
    # The mean of what the first `fit` left and of the one step after it.
    plain = compiled_network(optimizers.SGDW(0.1, 0.1))
    plain.set_weights(middle)
    train(plain, batches=1)
    expected = [
        (a + b) / 2 for a, b in zip(middle, plain.get_weights(), strict=True)
    ]
    assert_close(one.get_weights(), expected, 1e-6)


@pytest.mark.parametrize("name", catalogue.OPTIMIZERS)
def test_a_clone_has_the_rate_in_force(name):
    optimizer = catalogue.OPTIMIZERS[name]()
    found = {}
    for key, rate in optimizer.current_weight_decay().items():
        if not isinstance(
            optimizer.decays[key].weight_decay, schedules.WarmupHold
        ):
            optimizer.set_weight_decay(0.5, key)
            rate = 0.5
        found[key] = rate
    optimizer.learning_rate = 0.25
    model = compiled_network(optimizer)
    clone = keras.models.clone_model(model).optimizer
    assert clone.current_weight_decay() == found
    assert float(clone.learning_rate) == 0.25
    assert clone.get_config() == optimizer.get_config()


def test_a_clone_of_path_prox_has_the_rate_in_force():
    optimizer = catalogue.TRAINED_ELSEWHERE["PathProx"]()
    optimizer.set_weight_decay(0.5)
    clone = type(optimizer).from_config(optimizer.get_config())
    assert set(clone.current_weight_decay().values()) == {0.5}
