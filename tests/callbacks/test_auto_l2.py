"""AutoL2: the state machine, and the machine inside `fit`."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import optimizers
from keras_wd import schedules
from keras_wd.callbacks.auto_l2 import History
from keras_wd.callbacks.loss import batch_loss
from tests.training import compiled_network
from tests.training import data
from tests.training import network

pytestmark = pytest.mark.eager


def drops(
    losses, accuracies=None, every=10, delay=0.0, rate=0.1, eta=1.0, patience=2
):
    """The measurements, from 1, at which the decay drops."""
    history, found = History(), []
    accuracies = accuracies or [math.nan] * len(losses)
    for n, (loss, accuracy) in enumerate(
        zip(losses, accuracies, strict=True), 1
    ):
        refractory = delay / (eta * rate)
        if history.measured(n * every, loss, accuracy, refractory, patience):
            found.append(n)
            rate /= 10
    return found


def reference(losses, accuracies, every, delay, rate, eta):
    """The paper's rule, with lists of everything and no state machine."""
    last, least, most, found = 0, math.inf, -math.inf, []
    for n in range(1, len(losses) + 1):
        l, a = losses[:n], accuracies[:n]  # noqa: E741
        i = n * every
        if (
            i > last + delay / (eta * rate)
            and n > 2
            and (
                (l[-1] >= least and l[-2] >= least)
                or (a[-1] <= most and a[-2] <= most)
            )
        ):
            last, rate = i, rate / 10
            found.append(n)
        elif n >= 2:
            least, most = min(least, l[-2]), max(most, a[-2])
    return found


NUMBERS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40
)


@given(NUMBERS, st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.1, 1.0]))
def test_the_machine_is_the_rule_of_the_paper(measured, delay, eta):
    losses = [float(loss) for loss, _ in measured]
    accuracies = [a / 10 for _, a in measured]
    expected = reference(losses, accuracies, 10, delay, 0.1, eta)
    assert drops(losses, accuracies, delay=delay, eta=eta) == expected


def test_two_measurements_in_a_row_must_not_improve():
    assert drops([5, 4, 3, 2, 1]) == []
    # The fourth is worse and the fifth is better; the seventh is the second
    # in a row that is not below the least loss before it.
    assert drops([5, 4, 3, 4, 2, 3, 3]) == [7]


def test_either_of_loss_and_accuracy_is_enough():
    losses = [5, 4, 3, 2, 1]
    assert drops(losses, [0.1, 0.2, 0.3, 0.4, 0.5]) == []
    assert drops(losses, [0.5, 0.4, 0.4, 0.3, 0.6]) == [3, 4]


def test_nothing_drops_in_the_refractory_time_which_grows_tenfold():
    flat = [1.0] * 200
    # 0.1 / (0.1 * 0.1) = 10 steps, then 100, then 1000: a measurement is 10.
    found = drops(flat, delay=0.1, rate=0.1, eta=0.1)
    assert found == [3, 14, 115]


def test_patience_is_how_many_must_not_improve():
    losses = [5, 4, 3, 4, 4, 2, 3, 3, 3, 1]
    assert drops(losses, patience=2) == [5, 8, 9]
    assert drops(losses, patience=3) == [9]
    assert drops([1, 1, 1], patience=1) == [2, 3]


def flat_run(epochs=1, model=None, initial_epoch=0, **arguments):
    """A run whose weights do not move, so that every measurement is equal."""
    x, y = data(8)
    if model is None:
        optimizer = optimizers.SGDW(1e-30, weight_decay=0.1)
        model = compiled_network(optimizer, jit_compile=True)
    callback = callbacks.AutoL2(
        (x[:16], y[:16]), **{"every": 2, "delay": 0.0, **arguments}
    )
    history = model.fit(
        x,
        y,
        batch_size=16,
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=[callback],
    )
    return model, history.history["weight_decay"]


def test_fit_divides_the_rate():
    # Eight batches: measured after 2, 4, 6 and 8, dropped at the last two.
    _, rates = flat_run(epochs=2)
    assert rates == pytest.approx([1e-3, 1e-7])


def test_the_rate_stops_at_the_minimum():
    _, rates = flat_run(epochs=2, minimum=3e-4)
    assert rates == pytest.approx([1e-3, 3e-4])


@pytest.mark.slow(reason="trains twice")
def test_a_delay_in_units_of_the_learning_rate_and_the_rate():
    _, rates = flat_run(epochs=2, delay=0.1)
    assert rates == pytest.approx([0.1, 0.1])


def test_one_decay_of_several_by_name():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1e-30),
        [decays.L2(0.2, name="head"), decays.L1(0.1)],
    )
    model = compiled_network(optimizer)
    x, y = data(8)
    callback = callbacks.AutoL2((x, y), every=2, delay=0.0, decay="head")
    logs = model.fit(
        x, y, batch_size=16, verbose=0, callbacks=[callback]
    ).history
    assert logs["weight_decay_head"] == pytest.approx([2e-3])
    assert logs["weight_decay_l1"] == pytest.approx([0.1])
    with pytest.raises(ValueError, match="name one .*: head, l1. Received"):
        model.fit(x, y, verbose=0, callbacks=[callbacks.AutoL2((x, y))])


@pytest.mark.few_cases(1)
@pytest.mark.parametrize("kind", ["file", "weights"])
def test_a_loaded_run_goes_on_with_rate_and_history(tmp_path, kind):
    model, _ = flat_run(epochs=1)
    memory = model.optimizer.callback_memory
    assert memory["AutoL2 l2"]["measurements"] == 4
    if kind == "file":
        model.save(tmp_path / "m.keras")
        again = keras.models.load_model(tmp_path / "m.keras")
    else:
        model.save_weights(tmp_path / "m.weights.h5")
        again = compiled_network(optimizers.SGDW(1e-30, weight_decay=0.1))
        again.optimizer.build(again.trainable_variables)
        again.load_weights(tmp_path / "m.weights.h5")
    resumed = again.optimizer.callback_memory["AutoL2 l2"]
    assert repr(resumed) == repr(memory["AutoL2 l2"])
    _, rates = flat_run(epochs=2, model=again, initial_epoch=1)
    assert rates == pytest.approx([1e-7])


@pytest.mark.slow(reason="trains, saves, loads and trains")
def test_a_file_without_memory_takes_away_what_is_there(tmp_path):
    fresh = compiled_network(optimizers.SGDW(1e-30, weight_decay=0.1))
    fresh.optimizer.build(fresh.trainable_variables)
    fresh.save_weights(tmp_path / "m.weights.h5")
    model, _ = flat_run(epochs=1)
    model.load_weights(tmp_path / "m.weights.h5")
    assert model.optimizer.callback_memory == {}


def test_the_loss_is_that_of_a_training_step_without_the_penalty():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, kernel_regularizer=keras.regularizers.L2(9)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    x, y = data(1)
    before = [np.array(v.value) for v in model.variables]
    found, accuracy = batch_loss(model)(x, y)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(variable.value))
    whole = model.train_on_batch(x, y)
    penalty = 9 * np.sum(before[0] ** 2)
    assert found == pytest.approx(float(whole[0]) - penalty, abs=1e-3)
    assert accuracy == pytest.approx(float(whole[1]))


@pytest.mark.parametrize(
    "loss, targets, expected",
    [
        (keras.losses.CategoricalCrossentropy(from_logits=True), "hot", True),
        (keras.losses.BinaryCrossentropy(from_logits=True), "hot", True),
        (keras.losses.MeanSquaredError(), "hot", False),
    ],
)
def test_the_accuracy_belongs_to_the_loss(loss, targets, expected):
    model = network()
    model.compile("sgd", loss)
    x, y = data(1)
    outputs = model.predict(x, verbose=0)
    hot = np.eye(3, dtype="float32")[y]
    _, accuracy = batch_loss(model)(x, hot)
    if not expected:
        assert math.isnan(accuracy)
    elif isinstance(loss, keras.losses.BinaryCrossentropy):
        assert accuracy == pytest.approx(((outputs > 0) == hot).mean())
    else:
        assert accuracy == pytest.approx((outputs.argmax(1) == y).mean())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"every": 0}, "`every` must be an integer >= 1"),
        ({"factor": 1.0}, "`factor` must be a finite number > 1"),
        ({"delay": -1}, "`delay` must be a finite number >= 0"),
        ({"patience": 0}, "`patience` must be an integer >= 1"),
        ({"smoothing": 1.0}, "`smoothing` must be < 1"),
        ({"minimum": -1}, "`minimum` must be a finite number >= 0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        callbacks.AutoL2(data(1), **arguments)


def test_data_without_labels():
    with pytest.raises(ValueError, match="`data` must have labels"):
        callbacks.AutoL2(data(1)[0])


@pytest.mark.parametrize(
    "optimizer, message",
    [
        (lambda: keras.optimizers.SGD(), "must be used with .*WeightDecay"),
        (
            lambda: optimizers.SGDW(
                0.1, weight_decay=schedules.WarmupHold(0.1, 3)
            ),
            "must have a decay whose weight_decay is a number",
        ),
    ],
)
def test_optimizers_it_cannot_steer(optimizer, message):
    model = compiled_network(optimizer())
    with pytest.raises(ValueError, match=message):
        model.fit(*data(1), verbose=0, callbacks=[callbacks.AutoL2(data(1))])
