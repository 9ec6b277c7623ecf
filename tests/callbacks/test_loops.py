"""`fit` however it is called: periods and memory over several calls of it."""

import itertools

import keras
import numpy as np
import pytest

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import optimizers
from keras_wd.callbacks.probe_batches import batches_of

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X[:, :3]


def network(optimizer, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="only")]
    )
    loss = keras.losses.MeanSquaredError()
    model.compile(optimizer, loss, run_eagerly=True, **arguments)
    return model


def fit(model, callback, epochs=1, y=Y, **arguments):
    more = callback if isinstance(callback, list) else [callback]
    return model.fit(
        X,
        y,
        batch_size=4,
        epochs=epochs,
        verbose=0,
        callbacks=more,
        **arguments,
    ).history


def flat():
    """An optimizer with which nothing moves."""
    return optimizers.SGDW(1e-30, weight_decay=0.1)


def measurements(model):
    return [
        entry["measurements"]
        for entry in model.optimizer.callback_memory.values()
    ]


def batches(passes=1):
    for _ in range(passes):
        for start in range(0, 16, 4):
            yield X[start : start + 4], Y[start : start + 4]


class Counted(keras.utils.PyDataset):
    num_batches = 4

    def __getitem__(self, index):
        start = 4 * (index % 4)
        return X[start : start + 4], Y[start : start + 4]


class Endless(Counted):
    num_batches = None


@pytest.mark.few_cases(3)
@pytest.mark.parametrize(
    "make, arguments",
    [
        (lambda: X, {"y": Y, "batch_size": 4}),
        (lambda: X, {"y": Y, "batch_size": 4, "steps_per_epoch": 4}),
        (Counted, {}),
        (Endless, {"steps_per_epoch": 4}),
        (batches, {}),
        (lambda: batches(9), {"steps_per_epoch": 4}),
    ],
    ids=["arrays", "steps", "counted", "endless", "unknown", "generator"],
)
@pytest.mark.filterwarnings("ignore:.*shuffle=True. was passed:UserWarning")
@pytest.mark.filterwarnings("ignore:.*ran out of data:UserWarning")
def test_a_loop_of_single_epochs_measures_as_one_fit(make, arguments):
    model = network(flat())
    callback = callbacks.AutoL2((X, Y), every=3, minimum=0.1)
    for _ in range(3):
        model.fit(make(), verbose=0, callbacks=[callback], **arguments)
    # After batches 3, 6, 9 and 12.
    assert measurements(model) == [4]


@pytest.mark.slow(reason="trains several times")
def test_curvature_is_measured_in_a_loop_as_in_one_fit():
    found = []
    for epochs in ([3], [1, 1, 1]):
        optimizer = optimizers.KFAC(1e-3, seed=0)
        model = network(optimizer)
        callback = callbacks.Curvature(X, every=3, invert_every=5)
        for count in epochs:
            fit(model, callback, count)
        found.append(optimizer.diagnostics()["curvature_updates"])
    # Once before, then after batches 3, 6, 9 and 12.
    assert found == [5, 5]


@pytest.mark.slow(reason="trains several times")
def test_a_new_callback_begins_anew_and_counts_on():
    model = network(optimizers.SGDW(0.02, weight_decay=0.1))

    def stage(y, epochs):
        callback = callbacks.AutoL2((X, y), every=1, delay=0.0)
        return fit(model, callback, epochs, y=y)["weight_decay"]

    first = stage(0.01 * Y, 3)
    # The loss falls in every epoch, from far above that of the first stage.
    assert stage(5 * Y, 4) == [first[-1]] * 4


def test_a_plateau_of_one_training_is_none_of_the_next():
    model = network(optimizers.SGDW(0.02, weight_decay=0.1))

    def stage(y):
        callback = callbacks.ReduceDecayOnPlateau(
            "loss", patience=2, min_delta=0.0
        )
        return fit(model, callback, 3, y=y)["weight_decay"]

    assert stage(0.01 * Y) == stage(5 * Y) == [0.1, 0.1, 0.1]


def test_the_wait_goes_on_in_a_loop():
    model = network(flat())
    callback = callbacks.ReduceDecayOnPlateau("loss", factor=0.5, patience=2)
    found = [fit(model, callback)["weight_decay"][0] for _ in range(5)]
    assert found == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05])


def test_another_compile_ends_what_is_remembered():
    model = network(flat())
    callback = callbacks.AutoL2((X, Y), every=2, delay=0.0)
    fit(model, callback)
    fit(model, callback)
    assert measurements(model) == [4]
    model.compile(model.optimizer, "mae", run_eagerly=True)
    fit(model, callback)
    assert measurements(model) == [2]


@pytest.mark.slow(reason="trains several times")
def test_two_callbacks_of_one_decay_do_not_share(tmp_path):
    def pair():
        return [
            callbacks.AutoL2((X, Y), every=4, minimum=0.1),
            callbacks.AutoL2((X, Y), every=2, minimum=0.1),
        ]

    model = network(flat())
    both = pair()
    fit(model, both)
    fit(model, both)
    assert measurements(model) == [2, 4]
    fit(model, both[1])
    assert measurements(model) == [2, 6]
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    fit(again, pair(), epochs=2, initial_epoch=1)
    assert measurements(again) == [3, 8]
    fit(again, pair())
    assert measurements(again) == [1, 2]


def test_a_loaded_optimizer_in_a_new_training(tmp_path):
    model = network(flat())
    fit(model, callbacks.AutoL2((X, Y), every=1, minimum=0.1))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    fit(again, callbacks.AutoL2((X, Y), every=1, minimum=0.1))
    assert measurements(again) == [4]


class Interrupt(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_begin(self, batch, logs=None):
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt


@pytest.mark.slow(reason="trains, saves, loads and trains")
@pytest.mark.parametrize("order", [1, -1])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, order):
    def run(model, *more):
        backup = keras.callbacks.BackupAndRestore(tmp_path)
        auto = callbacks.AutoL2((X, Y), every=3, minimum=0.1)
        fit(model, [*[backup, auto][::order], *more], epochs=3)

    model = network(flat())
    with pytest.raises(KeyboardInterrupt):
        run(model, Interrupt(6))
    again = network(flat())
    run(again)
    # After batches 3, 6, 9 and 12: the first two epochs' once.
    assert measurements(again) == [4]


@pytest.mark.slow(reason="trains several times")
def test_validation_may_have_its_own_period():
    model = network(flat())
    callback = callbacks.ReduceDecayOnPlateau(factor=0.5, patience=2)
    rates = fit(model, callback, 8, validation_data=(X, Y), validation_freq=2)[
        "weight_decay"
    ]
    # Judged after epochs 2, 4 and 6.
    assert rates == pytest.approx([0.1] * 6 + [0.05] * 2)


def test_accumulated_gradients_are_batches_too():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1e-30, gradient_accumulation_steps=3),
        decays.L2(0.1),
    )
    model = network(optimizer)
    callback = callbacks.AutoL2((X, Y), every=4, minimum=0.1)
    for _ in range(3):
        fit(model, callback)
    assert measurements(model) == [3]


@pytest.mark.slow(reason="trains several times")
def test_norms_are_imposed_by_the_epoch_of_the_run():
    def normalized():
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(5, name="body"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(3, name="head"),
            ]
        )
        model.compile(optimizers.SGDW(0.1, 0.5), "mse", run_eagerly=True)
        return model

    recorder = callbacks.NormTransfer()
    fit(normalized(), recorder, 3)
    transfer, model = callbacks.NormTransfer(recorder.norms), normalized()
    for norms in recorder.norms:
        fit(model, transfer)
        found = np.linalg.norm(model.layers[0].get_weights()[0])
        assert found == pytest.approx(norms["body/kernel"])


class Unending:
    """An iterable of Python that does not say that it has no end."""

    def __iter__(self):
        while True:
            yield X, Y


def test_a_first_pass_without_an_end_says_so():
    stream = batches_of(Unending(), None, 0)
    assert len(list(stream.one_pass(steps=7))) == 7
    endless = stream.one_pass(steps=None)
    with pytest.warns(UserWarning, match="steps_per_epoch") as found:
        for _ in itertools.islice(endless, 2500):
            pass
    assert len(found) == 1
