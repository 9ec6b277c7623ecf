"""The callback that feeds K-FAC inside `fit`."""

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd.callbacks.curvature_updates import Curvature
from keras_wd.optimizers.kfac import KFAC
from keras_wd.optimizers.weight_decay import WeightDecay
from tests import catalogue
from tests.kfac.running import array
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager

X = array(1, 24, 3)
Y = np.tile([0, 1, 2], 8)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# What XLA makes of a step is tried in tests/support and tests/test_lowering.py.
JIT = keras.backend.backend() == "jax"


def compiled(optimizer, **arguments):
    model = mlp(4, 3)
    model.compile(optimizer, LOSS, **{"jit_compile": JIT, **arguments})
    return model


def fit(model, callback, epochs=2):
    return model.fit(
        X,
        Y,
        batch_size=4,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    ).history


WRAPS = {
    "alone": lambda inner: inner,
    "decayed": lambda inner: WeightDecay(inner, decays.L2(0.01)),
    "scaled": keras.optimizers.LossScaleOptimizer,
}


@pytest.mark.compiled
@pytest.mark.parametrize("wrap", catalogue.quick(WRAPS, "decayed"))
def test_fit_measures_at_the_periods_and_logs(wrap):
    # The labels XLA draws from this seed let the loss fall.
    model = compiled(wrap(KFAC(0.01, seed=0)), jit_compile=True)
    history = fit(model, Curvature(X, every=4, invert_every=6, batch_size=8))
    # Six batches an epoch: once before, then after the 4th, 8th and 12th.
    assert history["kfac_curvature_updates"] == [2.0, 4.0]
    assert history["loss"][1] < history["loss"][0]
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    inversions = value(inner._curvature.state.inversions)
    np.testing.assert_array_equal(inversions, [3.0, 3.0])


@pytest.mark.slow(reason="trains twice")
def test_steps_per_execution_counts_batches():
    model = compiled(KFAC(0.1, seed=0), steps_per_execution=3)
    history = fit(model, Curvature(X, every=4, batch_size=8))
    assert history["kfac_curvature_updates"] == [2.0, 4.0]


@pytest.mark.slow(reason="trains twice")
def test_fit_equals_a_loop_of_ones_own():
    fitted = compiled(KFAC(0.1, seed=0))
    looped = compiled(KFAC(0.1, seed=0))
    fit(fitted, Curvature([X], every=2, invert_every=2, batch_size=24), 1)
    orders = [np.random.default_rng((0, n)).permutation(24) for n in range(4)]
    batches = [X[order] for order in orders]
    looped.optimizer.update_curvature(looped, batches[0])
    for step in range(6):
        rows = slice(4 * step, 4 * step + 4)
        looped.train_on_batch(X[rows], Y[rows])
        if step % 2:
            batch = batches[1 + step // 2]
            looped.optimizer.update_curvature(looped, batch)
    for one, other in zip(
        fitted.trainable_variables, looped.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(value(one), value(other), rtol=1e-5)


def test_first_pass_averages_all_data():
    model = compiled(KFAC(0.0, estimator="gauss_newton_exact"))
    callback = Curvature(X, every=100, batch_size=6, first_pass=True)
    fit(model, callback, epochs=1)
    rows = np.concatenate([X, np.ones((24, 1))], axis=1)
    factors = model.optimizer.factors()["net/d0/kernel"]
    np.testing.assert_allclose(
        factors["input_factor"], rows.T @ rows / 24, rtol=1e-5, atol=1e-6
    )


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return X[index::2], Y[index::2]


def tensorflow_dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(12)


@pytest.mark.slow(reason="a training for each kind of data")
@pytest.mark.parametrize(
    "data",
    [
        X,
        (X, Y),
        (X, Y, np.ones(24, "float32")),
        [(X[:12], Y[:12]), (X[12:], Y[12:])].__iter__,
        Batches(),
        tensorflow_dataset,
    ],
    ids=["x", "xy", "xyw", "iterable", "pydataset", "tf.data"],
)
def test_data_is_what_fit_takes(data):
    if callable(data):
        data = Again(data) if "iter" in repr(data) else data()
    estimator = "fisher" if data is X else "empirical"
    model = compiled(KFAC(0.1, seed=0, estimator=estimator))
    history = fit(model, Curvature(data, every=3, invert_every=3), epochs=1)
    assert history["kfac_curvature_updates"] == [3.0]


class Again:
    """An iterable that starts anew every time."""

    def __init__(self, start):
        self._items = list(start())

    def __iter__(self):
        return iter(self._items)


def test_exhausted_generator_is_an_error():
    model = compiled(KFAC(0.1, seed=0))
    data = iter([(X, Y)])
    with pytest.raises(ValueError, match="must yield batches every time"):
        fit(model, Curvature(data, every=1), epochs=1)


@pytest.mark.slow(reason="trains, saves, loads and trains")
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_resumed_fit_keeps_the_loaded_curvature(tmp_path):
    model = compiled(KFAC(0.1, seed=0))
    fit(model, Curvature(X, every=3), epochs=1)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    history = fit(again, Curvature(X, every=3), epochs=1)
    assert history["kfac_curvature_updates"] == [5.0]


@pytest.mark.slow(reason="trains three times")
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    def callback():
        return Curvature(X, every=4, invert_every=5, batch_size=7)

    unbroken = compiled(KFAC(0.1, seed=0))
    fit(unbroken, callback(), epochs=3)
    model = compiled(KFAC(0.1, seed=0))
    fit(model, callback(), epochs=1)
    model.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    resumed.fit(
        X,
        Y,
        batch_size=4,
        initial_epoch=1,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[callback()],
    )
    for one, other in zip(unbroken.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(value(one), value(other))


def test_verbose_prints_the_report_once(capsys):
    model = compiled(KFAC(0.1, seed=0))
    fit(model, Curvature(X, verbose=1), epochs=2)
    assert capsys.readouterr().out.count("KroneckerBlock (Dense)") == 2


def test_other_optimizers_are_refused():
    model = compiled(keras.optimizers.Adam(0.1))
    with pytest.raises(ValueError, match="must be used with one keras_wd"):
        fit(model, Curvature(X))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"every": 0}, "`every` must be an integer >= 1"),
        ({"invert_every": 1.5}, "`invert_every` must be an integer"),
        ({"batch_size": 0}, "`batch_size` must be an integer"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Curvature(X, **arguments)


def test_batch_size_of_a_dataset_is_refused():
    with pytest.raises(ValueError, match="must be None for a dataset"):
        Curvature(Batches(), batch_size=4)


def test_unbuilt_model_is_built_by_its_first_batch():
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile(KFAC(0.01, seed=0), LOSS)
    history = fit(model, Curvature(X), epochs=1)
    assert history["kfac_curvature_updates"] == [1.0]
