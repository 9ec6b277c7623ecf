import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd.cli import checkpoint
from keras_wd.cli import files
from keras_wd.cli import history
from keras_wd.cli import logs
from keras_wd.cli.usage_errors import UsageError
from keras_wd.optimizers import WeightDecay


def _model(units=3):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
    optimizer = WeightDecay(keras.optimizers.Adam(0.01), decays.L2(0.1))
    model.compile(optimizer, loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def _values(model):
    return [np.asarray(v) for v in checkpoint.state(model)]


def _fit(model, epochs, **kwargs):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 4)), rng.normal(size=(16, 2))
    model.fit(
        x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **kwargs
    )


@pytest.mark.slow(reason="two whole runs")
def test_a_restored_run_ends_like_an_uninterrupted_one(tmp_path):
    whole = _model()
    _fit(whole, 4)
    _fit(_model(), 2, callbacks=[checkpoint.Checkpoint(str(tmp_path))])
    rest = _model()
    epochs, seconds = checkpoint.restore(rest, str(tmp_path))
    assert epochs == 2
    assert seconds > 0
    _fit(rest, 4, initial_epoch=epochs)
    for expected, value in zip(_values(whole), _values(rest), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(("needed", "epochs"), [(None, 0), (2, 2)])
def test_between_checkpoints_is_a_pause(needed, epochs, tmp_path):
    store = checkpoint.Checkpoint(str(tmp_path), pause=1e6, needed=needed)
    _fit(_model(), 3, callbacks=[store])
    assert checkpoint.restore(_model(), str(tmp_path))[0] == epochs


def test_without_a_checkpoint_a_run_starts_over(tmp_path):
    assert checkpoint.restore(_model(), str(tmp_path)) == (0, 0.0)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / checkpoint.NAME).write_bytes(b"half")
    with pytest.raises(UsageError, match="checkpoint.npz cannot be used"):
        checkpoint.restore(_model(), str(tmp_path))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    _fit(_model(), 1, callbacks=[checkpoint.Checkpoint(str(tmp_path))])
    with pytest.raises(UsageError, match="not those of this model"):
        checkpoint.restore(_model(units=5), str(tmp_path))


def test_a_file_keeps_its_old_content_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(str(path)) as draft:
        with open(draft, "w") as file:
            file.write("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / history.NAME
    path.write_text("epoch,loss\n0,3.0\n1,2.0\n2,1")
    history.truncate(str(tmp_path), 2)
    assert history.read(str(tmp_path)) == [
        {"epoch": 0, "loss": 3.0},
        {"epoch": 1, "loss": 2.0},
    ]


def test_epoch_logs_tell_weights_and_rates():
    model = _model()
    record = keras.callbacks.History()
    _fit(model, 2, callbacks=[logs.EpochLogs(), record])
    norms = [np.square(w).sum() for w in model.get_weights() if w.ndim > 1]
    last = {name: values[-1] for name, values in record.history.items()}
    np.testing.assert_allclose(last["weight_norm"], np.sqrt(sum(norms)), 1e-6)
    np.testing.assert_allclose(last["learning_rate"], 0.01)
    np.testing.assert_allclose(last["l2"], 0.1)
    assert last["zeros"] == last["sparsity"] == 0


def test_training_ends_when_the_loss_is_not_finite(capsys):
    model = _model()
    model.layers[0].kernel.assign(np.full((4, 3), np.inf))
    record = keras.callbacks.History()
    _fit(model, 5, callbacks=[logs.EpochLogs(), record])
    assert len(record.epoch) == 1
    assert "The loss is nan after epoch 1" in capsys.readouterr().err
