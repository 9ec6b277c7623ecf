import json
import zipfile

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import optimizers
from tests import catalogue
from tests.damage import damaged
from tests.training import BATCH
from tests.training import assert_equal
from tests.training import compiled_network
from tests.training import data
from tests.training import network
from tests.training import train

L2 = decays.L2


class Store(dict):
    """What Keras passes to `save_own_variables`, kept in memory."""


def saved(optimizer):
    store = Store()
    optimizer.saved_state.save_own_variables(store)
    return store


def wrapper(decay=None, model=None, **arguments):
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1, momentum=0.9),
        decay or L2(0.1),
        **arguments,
    )
    optimizer.build((model or network()).trainable_variables)
    return optimizer


def test_values_are_stored_by_name():
    store = saved(wrapper(use_ema=True))
    weights = ("dense.kernel", "dense.bias", "dense_1.kernel", "dense_1.bias")
    assert set(store) == {
        *("manifest", "l2_rate", "iteration", "learning_rate"),
        *(f"{name}.average" for name in weights),
        *(f"{name}.fingerprint" for name in weights),
        *(f"{name}.momentum" for name in weights),
    }
    manifest = json.loads(bytes(store["manifest"]).decode())
    assert manifest["format"] == 2
    assert ["dense.kernel.momentum", 0, "momentum", 0, [8, 6]] in manifest[
        "variables"
    ]


def test_nothing_is_stored_where_other_optimizers_look():
    optimizer = wrapper()
    store = Store()
    optimizer.save_own_variables(store)
    assert not store
    assert "inner_optimizer" not in dir(optimizer)


@pytest.mark.slow(reason="trains, saves and loads three times")
def test_the_same_code_run_again_can_load():
    first = compiled_network(optimizers.SGDW(0.1, momentum=0.9, use_ema=True))
    train(first)
    # Another model of the same code: Keras numbers its layers on.
    second = compiled_network(optimizers.SGDW(0.1, momentum=0.9, use_ema=True))
    second.optimizer.build(second.trainable_variables)
    second.optimizer.saved_state.load_own_variables(saved(first.optimizer))
    second.set_weights(first.get_weights())
    assert_equal(train(first, 1), train(second, 1))


def other_network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(5, name="dense"),
            keras.layers.Dense(3, name="dense_1"),
        ]
    )


MISFITS = {
    "another rule": (
        lambda: wrapper(decays.L1(0.1)),
        "starts afresh: the file lacks l1_rate; the file has l2_rate besides",
    ),
    "one rule more": (
        lambda: wrapper([L2(0.1), decays.L1(0.1)]),
        "the file lacks l1_rate",
    ),
    "an average": (
        lambda: wrapper(use_ema=True),
        "lacks .*dense/kernel/average",
    ),
    "another width": (
        lambda: wrapper(model=other_network()),
        r"dense/kernel has shape \(8, 6\) in the file and \(8, 5\)",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_state_that_does_not_fit_is_not_loaded(case):
    keras.utils.clear_session(free_memory=False)
    first = wrapper()
    first.set_weights([np.full(v.shape, 7.0) for v in first.variables])
    store = saved(first)
    keras.utils.clear_session(free_memory=False)
    make, message = MISFITS[case]
    optimizer = make()
    fresh = [np.array(v) for v in optimizer.variables]
    with pytest.warns(UserWarning, match=message) as warned:
        optimizer.saved_state.load_own_variables(store)
    said = [str(w.message) for w in warned if w.category is UserWarning]
    assert len(said) == 1
    assert "compile=False" in said[0]
    assert_equal(fresh, [np.array(v) for v in optimizer.variables])


def test_another_format_is_refused():
    optimizer = wrapper()
    store = saved(optimizer)
    manifest = json.loads(bytes(store["manifest"]).decode())
    text = json.dumps({**manifest, "format": 3}).encode()
    store["manifest"] = np.frombuffer(text, "uint8")
    with pytest.raises(
        ValueError, match="format 3.*reads format 2.*compile=False"
    ):
        optimizer.saved_state.load_own_variables(store)


@pytest.mark.parametrize("damage", [b"", b"null", b"{}", b"[1]", b'{"for'])
def test_a_damaged_list_of_variables_is_refused(damage):
    optimizer = wrapper()
    store = saved(optimizer)
    store["manifest"] = np.frombuffer(damage, "uint8")
    with pytest.raises(ValueError, match="its list of variables is damaged"):
        optimizer.saved_state.load_own_variables(store)


@pytest.mark.slow(reason="loads many damaged files")
def test_a_damaged_file_is_refused_or_equal(tmp_path):
    """Cut anywhere, or with any one bit changed."""
    model = compiled_network(optimizers.SGDW(0.1, 0.1, momentum=0.9))
    train(model)
    path = tmp_path / "model.keras"
    model.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        path.write_bytes(damaged(whole, rng))
        try:
            loaded = keras.models.load_model(path)
        except (ValueError, OSError, zipfile.BadZipFile):
            refused += 1
        else:
            # The bit was in what no reader looks at.
            assert_equal(loaded.get_weights(), model.get_weights())
            assert_equal(train(loaded, 1), train(model, 1))
    assert refused > 30


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


@pytest.mark.slow(reason="saves and loads backups")
@pytest.mark.parametrize("part", catalogue.quick([0.0, 0.5, 0.99], 0.5))
def test_the_backup_before_a_damaged_one_is_used(part, tmp_path):
    whole = compiled_network(optimizers.SGDW(0.1, 0.1, momentum=0.9))
    train(whole, epochs=4)
    backup = keras.callbacks.BackupAndRestore(tmp_path, double_checkpoint=True)
    x, y = data()
    for callbacks in ([backup, Stop()], [backup]):
        model = compiled_network(optimizers.SGDW(0.1, 0.1, momentum=0.9))
        try:
            model.fit(
                *(x, y, BATCH),
                epochs=4,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
            )
        except KeyboardInterrupt:
            newest = tmp_path / "latest.weights.h5"
            content = newest.read_bytes()
            newest.write_bytes(content[: int(part * len(content))])
    assert_equal(model.get_weights(), whole.get_weights())


def test_the_state_of_another_optimizer_is_not_loaded(tmp_path):
    plain = compiled_network(keras.optimizers.SGD(0.1, momentum=0.9))
    train(plain)
    plain.save_weights(tmp_path / "plain.weights.h5")
    model = compiled_network(optimizers.SGDW(0.1, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    with pytest.warns(UserWarning, match="is of another optimizer") as warned:
        model.load_weights(tmp_path / "plain.weights.h5")
    assert len(warned) == 1
    assert_equal(model.get_weights(), plain.get_weights())


def test_an_optimizer_of_keras_does_not_take_the_state(tmp_path):
    """As many values as an optimizer has that is not built: Keras crashed."""
    first = compiled_network(optimizers.SGDW(0.1))
    train(first)
    first.save_weights(tmp_path / "first.weights.h5")
    for rate in (0.1, keras.optimizers.schedules.CosineDecay(0.1, 10)):
        model = compiled_network(keras.optimizers.SGD(rate))
        with pytest.warns(UserWarning, match="Skipping"):
            model.load_weights(tmp_path / "first.weights.h5")
        assert_equal(model.get_weights(), first.get_weights())


def test_a_file_of_weights_alone_loads_with_a_warning(tmp_path):
    network().save_weights(tmp_path / "alone.weights.h5")
    model = compiled_network(optimizers.SGDW(0.1))
    model.optimizer.build(model.trainable_variables)
    with pytest.warns(UserWarning):
        model.load_weights(tmp_path / "alone.weights.h5")
    assert_equal(model.get_weights(), network().get_weights())


def test_the_first_step_after_a_load_uses_the_loaded_rate(tmp_path):
    first = compiled_network(optimizers.SGDW(0.1, weight_decay=0.5))
    train(first)
    first.save_weights(tmp_path / "first.weights.h5")
    second = compiled_network(optimizers.SGDW(0.1, weight_decay=0.0))
    second.optimizer.build(second.trainable_variables)
    second.load_weights(tmp_path / "first.weights.h5")
    assert second.optimizer.current_weight_decay() == {"l2": 0.5}
    assert_equal(train(first, 1), train(second, 1))
