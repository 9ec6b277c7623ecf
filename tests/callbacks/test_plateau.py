import keras
import pytest

from keras_wd import callbacks
from keras_wd import optimizers
from tests.training import compiled_network
from tests.training import data


class Scripted(keras.callbacks.Callback):
    """Logs numbers that were written down before."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["scripted"] = self.values[epoch]


def rates(values, model=None, initial_epoch=0, **arguments):
    """The rate in every epoch whose logs have these values."""
    if model is None:
        model = compiled_network(optimizers.SGDW(0.01, weight_decay=1.0))
    x, y = data(1)
    history = model.fit(
        x,
        y,
        epochs=len(values),
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=[
            Scripted(values),
            callbacks.ReduceDecayOnPlateau(
                "scripted", **{"factor": 0.5, "patience": 2, **arguments}
            ),
        ],
    )
    return [round(rate, 6) for rate in history.history["weight_decay"]]


def test_the_rate_falls_after_patience_epochs_without_improvement():
    assert rates([5, 4, 4, 4, 4, 4, 4]) == [1, 1, 1, 1, 0.5, 0.5, 0.25]


def test_an_improvement_starts_the_wait_again():
    assert rates([5, 4, 4, 3, 3, 3, 3]) == [1, 1, 1, 1, 1, 1, 0.5]


def test_small_improvements_do_not_count():
    values = [5, 4.99, 4.98, 4.97]
    assert rates(values) == [1, 1, 1, 1]
    assert rates(values, min_delta=0.1) == [1, 1, 1, 0.5]


def test_larger_is_better_for_accuracies():
    assert rates([1, 2, 3, 4], mode="max") == [1, 1, 1, 1]
    assert rates([1, 2, 3, 4]) == [1, 1, 1, 0.5]


def test_the_cooldown_does_not_count():
    assert rates([1] * 7, patience=1, cooldown=2) == [
        1,
        1,
        0.5,
        0.5,
        0.5,
        0.25,
        0.25,
    ]


def test_the_minimum_holds():
    assert rates([1] * 5, patience=1, minimum=0.4) == [1, 1, 0.5, 0.4, 0.4]


def test_a_loaded_run_goes_on_waiting(tmp_path):
    values = [5, 4, 4, 4, 4]
    model = compiled_network(optimizers.SGDW(0.01, weight_decay=1.0))
    rates(values[:3], model)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert rates(values, again, initial_epoch=3) == [1, 0.5]


def test_a_number_that_is_not_logged():
    model = compiled_network(optimizers.SGDW(0.01, weight_decay=1.0))
    callback = callbacks.ReduceDecayOnPlateau("val_los")
    with pytest.raises(ValueError, match="must be in the logs: .*loss"):
        model.fit(*data(1), verbose=0, callbacks=[callback])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"factor": 1.0}, "`factor` must be < 1"),
        ({"factor": 0.0}, "`factor` must be a finite number > 0"),
        ({"mode": "least"}, "`mode` must be one of 'auto', 'min', 'max'"),
        ({"cooldown": -1}, "`cooldown` must be an integer >= 0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        callbacks.ReduceDecayOnPlateau(**arguments)
