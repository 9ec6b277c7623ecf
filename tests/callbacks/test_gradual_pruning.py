"""Pruning during `fit`, and what `compact` then removes."""

import copy

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers
from keras_wd.callbacks import gradual_pruning

X = np.random.default_rng(0).normal(size=(24, 5)).astype("float32")
Y = X[:, :2]
COMPILED = {"run_eagerly": False, "jit_compile": True}
SLOW = pytest.mark.slow(reason="several steps go the same way")


def network(optimizer=None, **arguments):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = layers.Dense(12, "relu", name="stem")(inputs)
    y = layers.Dense(8, use_bias=False, name="inner")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(y))
    x = layers.Add()([x, layers.Dense(12, name="branch")(y)])
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    arguments = {"run_eagerly": True, **arguments}
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", **arguments)
    return model


def fit(model, *more, epochs=1, x=X):
    return model.fit(
        x, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(more)
    ).history


def units(model):
    names = ("stem", "inner", "branch")
    return [model.get_layer(name).units for name in names]


def same(one, other):
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(m(X)) for m in (one, other)),
        rtol=1e-4,
        atol=1e-5,
    )


def masked(model):
    """Units of `inner` and of `stem` that nothing reads."""
    inner, branch, head = (
        model.get_layer(name).get_weights()[0]
        for name in ("inner", "branch", "head")
    )
    joined = ~inner.any(axis=1) & ~head.any(axis=1)
    return np.flatnonzero(~branch.any(axis=1)), np.flatnonzero(joined)


def test_the_schedule_is_that_of_the_paper():
    pruning = callbacks.GradualPruning(0.8, steps=50, start=10)
    t = np.arange(0, 100, dtype="float64")
    initial, final = 0.0, 0.8
    done = (np.clip(t, 10, 60) - 10) / 50
    expected = final + (initial - final) * (1 - done) ** 3
    found = [pruning.ratio_at(int(n)) for n in t]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.slow(reason="trains and prunes twice")
@pytest.mark.parametrize(
    "settings",
    [
        {"ratio": 0.5, "importance": "path"},
        {"multiply_adds": 0.4, "importance": "path"},
        pytest.param({"ratio": 0.5, "importance": "batch_norm"}, marks=SLOW),
    ],
)
def test_one_shot_equals_prune(settings):
    model = network(keras.optimizers.SGD(0.0))
    model.get_layer("norm").gamma.assign(np.linspace(1, 2, 8))
    settings = {**settings, "round_to": 2}
    expected = graph.prune(model, **settings)
    # One batch, in training mode: the statistics are not those of before.
    fit(model, callbacks.GradualPruning(steps=1, **settings), x=0 * X)
    for name in ("moving_mean", "moving_variance"):
        variable = getattr(model.get_layer("norm"), name)
        variable.assign([float(name == "moving_variance")] * 8)
    smaller = graph.compact(model)
    assert units(smaller) == units(expected)
    for a, b in zip(smaller.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.slow(reason="compacts the model after every batch")
def test_multiply_adds_fall_by_the_schedule_to_what_is_given():
    model = network(keras.optimizers.SGD(0.0))
    pruning = callbacks.GradualPruning(
        steps=6, every=1, round_to=1, multiply_adds=0.4
    )
    whole = graph.sizes(model).multiply_adds
    left = []

    class Left(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            left.append(graph.sizes(graph.compact(self.model)).multiply_adds)

    fit(model, pruning, Left())
    done = 1 - (1 - np.arange(1, 7) / 6) ** 3
    allowed = whole - done * 0.6 * whole
    assert np.all(left <= allowed) and np.all(np.diff(left) <= 0)
    # One unit of the residual stream more would be too many.
    assert left[-1] > allowed[-1] - 40


def test_multiply_adds_that_are_out_of_reach_are_refused_before_the_fit():
    with pytest.raises(ValueError, match="`multiply_adds` must be what"):
        fit(network(), callbacks.GradualPruning(multiply_adds=0.01))


def test_multiply_adds_that_come_out_of_reach_in_the_fit_are_not(monkeypatch):
    # Which of several layers keep their units depends on the weights.
    monkeypatch.setattr(gradual_pruning, "check_budget", lambda *_: None)
    model = network()
    pruning = callbacks.GradualPruning(
        steps=4, round_to=1, multiply_adds=0.01, max_ratio=0.5
    )
    fit(model, pruning)
    assert units(graph.compact(model)) == [6, 4, 6]


@pytest.mark.parametrize("given", [{}, {"ratio": 0.5, "multiply_adds": 0.5}])
def test_one_budget_is_given(given):
    with pytest.raises(ValueError, match="`ratio` must be given, or"):
        callbacks.GradualPruning(**given)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="eager", marks=SLOW),
        pytest.param(COMPILED, id="compiled", marks=SLOW),
        pytest.param(
            {**COMPILED, "steps_per_execution": 4},
            id="several steps",
            marks=SLOW,
        ),
    ],
)
def test_zeros_hold_at_the_end_and_go(arguments):
    optimizer = optimizers.SGDW(0.01, 0.01, momentum=0.9, use_ema=True)
    model = network(optimizer, **arguments)
    pruning = callbacks.GradualPruning(0.6, steps=9, every=3, round_to=1)
    history = fit(model, pruning, epochs=3)
    # 20 classes: 12 of the residual stream, 8 inside.
    assert history["pruned"] == sorted(history["pruned"])
    inner, joined = masked(model)
    gone = len(inner) + len(joined)
    assert history["pruned"][-1] == pytest.approx(gone / 20)
    # A layer keeps one unit, even if all of its units are among the lowest.
    assert 11 <= gone <= 12
    smaller = graph.compact(model)
    left = 12 - len(joined)
    assert units(smaller) == [left, 8 - len(inner), left]
    same(smaller, model)


@pytest.mark.slow(reason="trains, saves, loads and trains")
def test_what_is_masked_stays_over_fits_and_files(tmp_path):
    model = network()
    pruning = callbacks.GradualPruning(0.6, steps=12, every=4, round_to=1)
    assert 0 < fit(model, pruning)["pruned"][0] < 0.6
    inner, joined = masked(model)
    # A new process: the counter is in the file, the rest in the weights.
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    resumed = callbacks.GradualPruning(0.6, steps=12, every=4, round_to=1)
    for one, callback in ((model, pruning), (again, resumed)):
        assert fit(one, callback)["pruned"] == [pytest.approx(12 / 20)]
        found = masked(one)
        assert {*inner} <= {*found[0]} and {*joined} <= {*found[1]}
    # A new optimizer counts from 0, and brings nothing back.
    model.compile("sgd", "mse", run_eagerly=True)
    assert fit(model, pruning)["pruned"] == [pytest.approx(12 / 20)]


@pytest.mark.slow(reason="trains several times")
def test_weights_that_others_bring_back_are_masked_if_they_come_first():
    best = keras.callbacks.EarlyStopping(
        "loss", mode="max", patience=9, restore_best_weights=True
    )
    pruning = callbacks.GradualPruning(0.5, steps=8, every=2, round_to=1)
    model = network()
    fit(model, best, pruning, epochs=3)
    assert sum(map(len, masked(model))) == 10


@pytest.mark.slow(reason="trains several times")
def test_a_head_of_zeros_does_not_mask_what_it_does_not_read_yet():
    model = network()
    head = model.get_layer("head")
    head.set_weights([0 * w for w in head.get_weights()])
    branch = model.get_layer("branch")
    branch.set_weights([0 * w for w in branch.get_weights()])
    pruning = callbacks.GradualPruning(0.5, steps=100, start=50)
    assert fit(model, pruning)["pruned"] == [0.0]
    assert sum(map(len, masked(model))) == 0


def test_refusals():
    only = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    only.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match="have units that can be removed"):
        fit(only, callbacks.GradualPruning(0.5, steps=1))
    with pytest.raises(ValueError, match="`ratio` must be below 1"):
        callbacks.GradualPruning(1.0, steps=1)
    with pytest.raises(ValueError, match="`importance` must be one of"):
        callbacks.GradualPruning(0.5, steps=1, importance="norm")


@pytest.mark.weekly(reason="trains and exports a MobileNetV2 several times")
@pytest.mark.one_backend
def test_a_mobilenet_that_was_pruned_in_fit_goes_on(tmp_path):
    """Over a loop of fit, a file and a copy, at half the multiplications."""
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=4
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 4, 12)
    model.compile(
        optimizers.WeightDecay(keras.optimizers.Adam(1e-3), decays.L2(0.01)),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    budget = 0.5 * graph.sizes(model).multiply_adds
    pruning = callbacks.GradualPruning(multiply_adds=0.5, steps=4, every=2)
    for _ in range(2):
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[pruning])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(x, verbose=0)
    for one in (model, loaded, copy.deepcopy(model)):
        smaller = graph.compact(one)
        assert graph.sizes(smaller).multiply_adds <= budget
        found = smaller.predict(x, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        # The counter is that of the optimizer: what is masked stays so.
        again = callbacks.GradualPruning(multiply_adds=0.5, steps=4, every=2)
        one.fit(x, y, batch_size=4, verbose=0, callbacks=[again])
        assert graph.sizes(graph.compact(one)).multiply_adds <= budget
