"""PathProx is the step it says it is, and is saved.

What Keras offers around it is a column of tests/support.
"""

import keras
import numpy as np
import pytest
from keras import layers
from keras.optimizers.schedules import CosineDecay

from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers
from keras_wd import where
from tests.graph import reference
from tests.training import assert_close
from tests.training import assert_equal
from tests.training import data
from tests.training import take_steps

pytestmark = pytest.mark.eager

BATCH = 16


def network(seed=0, dtype=None, units=6):
    """Dense layers 8-6-5-4-7-3 with names; one kernel is in no pair."""
    keras.utils.set_random_seed(seed)
    stack = [
        layers.Dense(n, "relu", name=f"d{i}", dtype=dtype)
        for i, n in enumerate((units, 5, 4, 7))
    ]
    last = layers.Dense(3, name="last", dtype=dtype)
    return keras.Sequential([keras.Input((8,)), *stack, last])


def compiled(model, optimizer, **arguments):
    jit = keras.backend.backend() == "jax"
    arguments = {"jit_compile": jit, **arguments}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **arguments)
    return model


def train(model):
    x, y = data(3)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    return model.get_weights()


def trained(**arguments):
    model = network()
    return train(compiled(model, optimizers.PathProx(model, **arguments)))


def test_it_is_sgd_with_a_step_on_pairs_and_decay_on_the_rest():
    model = network()
    expected = [w.astype("float64") for w in model.get_weights()]
    optimizer = optimizers.PathProx(model, 0.5, 0.2)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    gradients = [
        [rng.normal(size=w.shape).astype("float32") * 0.1 for w in expected]
        for _ in range(3)
    ]
    found = take_steps(optimizer, model.trainable_variables, gradients)
    for grads, values in zip(gradients, found, strict=True):
        grads = [g.astype("float64") for g in grads]
        grads[8] += 0.2 * expected[8]  # the last kernel, in no pair
        expected = [w - 0.5 * g for w, g in zip(expected, grads, strict=True)]
        pairs = [
            dict(zip("wbvc", expected[i : i + 4], strict=True)) for i in (0, 4)
        ]
        pairs = reference.step(pairs, 0.5 * 0.2)
        expected[:8] = [pair[name] for pair in pairs for name in "wbvc"]
        assert_close(values, expected, 2e-5)


def test_it_equals_the_wrapper_it_is_made_of():
    model = network()
    units = graph.homogeneous_units(model)
    rest = where.kernels() & ~where.paths(
        *(path for pair in units for path in pair.kernels)
    )
    made = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1),
        [
            decays.PathNorm(0.05, units),
            decays.L2(0.05, where=rest, coupling="coupled"),
        ],
    )
    by_hand = train(compiled(model, made))
    assert_equal(by_hand, trained(learning_rate=0.1, weight_decay=0.05))


@pytest.mark.slow(reason="compiles two trainings")
@pytest.mark.compiled
def test_rate_zero_is_plain_sgd_bit_for_bit_in_xla_too():
    plain, model = network(), network()
    optimizer = optimizers.PathProx(model, 0.1, 0.0)
    for each, by in ((plain, keras.optimizers.SGD(0.1)), (model, optimizer)):
        train(compiled(each, by, jit_compile=True))
    assert_equal(plain.get_weights(), model.get_weights())


@pytest.mark.few_cases(1)
@pytest.mark.parametrize("absorb", [False, True])
def test_a_loaded_model_takes_the_same_next_step(absorb, tmp_path):
    model = network()
    optimizer = optimizers.PathProx(
        model,
        CosineDecay(0.3, 20),
        0.05,
        absorb=absorb,
        momentum=0.9,
        use_ema=True,
        name="prox",
    )
    train(compiled(model, optimizer))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is optimizers.PathProx
    assert loaded.optimizer.get_config() == optimizer.get_config()
    x, y = data(1, seed=1)
    for each in (model, loaded):
        each.train_on_batch(x, y)
    assert_equal(model.get_weights(), loaded.get_weights())


@pytest.mark.slow(reason="compiles both branches of a loss scale")
def test_mixed_float16_trains_and_a_skipped_step_moves_nothing():
    model = network(dtype="mixed_float16")
    optimizer = keras.optimizers.LossScaleOptimizer(
        optimizers.PathProx(model, 0.1, 0.05), initial_scale=1024.0
    )
    compiled(model, optimizer, jit_compile=True)
    before = model.get_weights()
    x, y = data(1)
    model.train_on_batch(np.full_like(x, np.inf), y)
    assert_equal(before, model.get_weights())
    model.train_on_batch(x, y)
    kernel = model.get_layer("d0").kernel
    np.testing.assert_allclose(
        reference.input_norms(np.asarray(kernel)), 1, rtol=1e-5
    )


def test_it_works_after_any_inner_optimizer_under_a_schedule():
    model = network()
    optimizer = optimizers.WeightDecay(
        keras.optimizers.Adam(CosineDecay(0.01, 10)),
        decays.PathNorm(0.1, graph.homogeneous_units(model)),
    )
    train(compiled(model, optimizer))
    for name in ("d0", "d2"):
        kernel = np.asarray(model.get_layer(name).kernel)
        np.testing.assert_allclose(reference.input_norms(kernel), 1, rtol=1e-5)


def test_the_rate_of_both_decays_is_set_at_once():
    model = network()
    optimizer = optimizers.PathProx(model, 0.1, 0.05)
    assert list(optimizer.current_weight_decay()) == ["path_norm", "l2"]
    optimizer.set_weight_decay(0.25)
    assert set(optimizer.current_weight_decay().values()) == {0.25}
    optimizer.set_weight_decay(0.5, "l2")
    rates = {"path_norm": 0.25, "l2": 0.5}
    assert optimizer.current_weight_decay() == rates
    compiled(model, optimizer)
    copies = [
        optimizers.PathProx.from_config(optimizer.get_config()),
        keras.models.clone_model(model).optimizer,
    ]
    for copy in copies:
        assert copy.current_weight_decay() == rates
        assert copy.get_config() == optimizer.get_config()


def test_everything_in_pairs_leaves_no_rest():
    model = network()
    paired = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(4, "relu", name="a"),
            layers.Dense(2, name="b"),
        ]
    )
    assert len(optimizers.PathProx(paired).decays) == 1
    off = optimizers.PathProx(model, where=~where.everything())
    assert len(off.decays) == 1
    assert len(optimizers.PathProx(model).decays) == 2


def test_a_list_of_pairs_serves_models_that_cannot_be_read():
    model = network()
    units = [
        decays.HomogeneousUnits("d0/kernel", "d1/kernel", "d0/bias"),
        {"input_kernel": "d2/kernel", "output_kernel": "d3/kernel"},
    ]
    optimizer = optimizers.PathProx(units, 0.1, 0.05)
    train(compiled(model, optimizer))
    kernel = np.asarray(model.get_layer("d2").kernel)
    np.testing.assert_allclose(reference.input_norms(kernel), 1, rtol=1e-5)


def test_a_model_without_pairs_is_refused():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="positively homogeneous.*explain"):
        optimizers.PathProx(model)
    with pytest.raises(ValueError, match="no_such"):
        optimizers.PathProx(network(), no_such=1)


def test_an_optimizer_of_another_network_is_refused_at_build():
    optimizer = optimizers.PathProx(network(units=6), 0.1, 0.05)
    other = network(units=9)
    optimizer.build(other.trainable_variables)  # the same paths, and they fit
    renamed = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="x"), layers.Dense(2)]
    )
    fresh = optimizers.PathProx(network(), 0.1, 0.05)
    with pytest.raises(ValueError, match="'d0/kernel', which is none of"):
        fresh.build(renamed.trainable_variables)
