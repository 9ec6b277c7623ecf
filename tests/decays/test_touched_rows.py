"""Decay of the rows that a step has a gradient for, and of no others."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where
from tests import reference
from tests.training import assert_equal
from tests.training import take_steps
from tests.training import variables

MAKE = {
    "L2": decays.L2,
    "L1": decays.L1,
    "Lp": lambda *a, **k: decays.Lp(*a, p=0.8, **k),
    "ProximalLp": lambda *a, **k: decays.ProximalLp(*a, p=0.5, **k),
}
SHRINK = {
    "L2": reference.shrink_l2,
    "L1": reference.shrink_l1,
    "Lp": lambda w, before, s: reference.shrink_lp(w, before, s, 0.8),
    "ProximalLp": lambda w, before, s: reference.prox_lp(w, s, 0.5),
}
GRADIENT = {
    "L2": lambda w: w,
    "L1": np.sign,
    "Lp": lambda w: reference.lp_gradient(w, 0.8),
}


def random(shape=(4, 3), seed=0, touched=None):
    drawn = np.random.default_rng(seed).normal(size=shape).astype("float32")
    if touched is not None:
        drawn[~np.asarray(touched)] = 0
    return drawn


def sgd(**arguments):
    return keras.optimizers.SGD(0.1, **arguments)


rows = st.lists(st.booleans(), min_size=4, max_size=4)


@pytest.mark.parametrize("kind", MAKE)
@settings(max_examples=5)
@given(
    steps=st.lists(rows, min_size=2, max_size=2),
    coupling=st.sampled_from(["decoupled", "independent"]),
    shape=st.sampled_from([(4, 3), (4,), (4, 2, 3)]),
)
def test_touched_rows_shrink_and_the_others_step_alone(
    kind, steps, coupling, shape
):
    # With momentum, so that rows without a gradient move too.
    decay = MAKE[kind](
        0.3, where=where.everything(), coupling=coupling, touched_rows=True
    )
    optimizer = optimizers.WeightDecay(sgd(momentum=0.9), decay)
    start = random(shape)
    gradients = [[random(shape, 1 + i, t)] for i, t in enumerate(steps)]
    s = 0.3 * (0.1 if coupling == "decoupled" else 1.0)
    before, velocity = np.float64(start), 0.0
    found = take_steps(optimizer, variables([start]), gradients)
    for (ours,), (gradient,), touched in zip(
        found, gradients, steps, strict=True
    ):
        velocity = 0.9 * velocity - 0.1 * gradient
        stepped = before + velocity
        shrunk = SHRINK[kind](stepped, before, s)
        kept = reference.on_rows(shrunk, stepped, touched)
        np.testing.assert_allclose(ours, kept, rtol=1e-5, atol=1e-6)
        before = np.float64(ours)


@pytest.mark.parametrize("kind", GRADIENT)
def test_a_coupled_decay_adds_its_gradient_to_touched_rows(kind):
    decay = MAKE[kind](0.3, coupling="coupled", touched_rows=True)
    optimizer = optimizers.WeightDecay(sgd(), decay)
    start, touched = random(), [True, False, True, False]
    gradient = random(seed=1, touched=touched)
    ((ours,),) = take_steps(optimizer, variables([start]), [[gradient]])
    term = 0.3 * np.float64(GRADIENT[kind](start))
    term = reference.on_rows(term, 0 * term, touched)
    expected = start - 0.1 * (gradient + term)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
@pytest.mark.parametrize("beside", [False, True])
def test_accumulated_steps_are_one_of_the_whole_batch(coupling, beside):
    # The second part undoes the first in row 0 and adds row 2; row 3 has
    # none. A coupled decay of all rows must not make them look touched.
    first = random(seed=1, touched=[True, True, False, False])
    second = random(seed=2, touched=[False, False, True, False])
    second[0] = -first[0]

    def run(gradients, **arguments):
        rules = [decays.L2(0.3, coupling=coupling, touched_rows=True)]
        if beside:
            rules.append(decays.L2(0.1, coupling="coupled"))
        optimizer = optimizers.WeightDecay(sgd(**arguments), rules)
        return take_steps(
            optimizer, variables([random()]), [[g] for g in gradients]
        )[-1][0]

    whole = run([(first + second) / 2] * 2)
    parts = run([first, second] * 2, gradient_accumulation_steps=2)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    if not beside:
        assert_equal(parts[[0, 3]], random()[[0, 3]])


@pytest.mark.parametrize(
    "arguments",
    [
        {"cautious": True},
        {"anchor": "start"},
        {"metric": "optimizer"},
        {"layerwise": True},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_beside_another_option_the_rows_are_those_with_and_without(arguments):
    kind = decays.L1 if "metric" in arguments else decays.L2
    touched = np.array([True, False, True, False])
    gradients = [[random(seed=1, touched=touched)] for _ in range(2)]

    def run(rate, **more):
        optimizer = optimizers.WeightDecay(
            keras.optimizers.Adam(0.1), kind(rate, **arguments, **more)
        )
        return take_steps(optimizer, variables([random()]), gradients)[-1][0]

    found = run(0.5, touched_rows=True)
    assert_equal(found[touched], run(0.5)[touched])
    assert_equal(found[~touched], run(0.0)[~touched])
    assert np.any(found[touched] != run(0.0)[touched])


@pytest.mark.one_backend
@pytest.mark.parametrize("touched_rows", [False, True])
def test_a_sparse_gradient_stays_sparse_in_the_inner_step(touched_rows):
    import tensorflow as tf

    inner, assigned = sgd(), []
    inner.assign_sub = lambda variable, value: assigned.append(value)
    decay = decays.L2(0.3, where=where.everything(), touched_rows=touched_rows)
    gradient = tf.IndexedSlices(
        tf.constant(random((1, 3))), tf.constant([2]), tf.constant([4, 3])
    )
    (weights,) = variables([random()])
    optimizers.WeightDecay(inner, decay).apply([gradient], [weights])
    assert isinstance(assigned[0], tf.IndexedSlices)


@pytest.mark.slow(reason="takes many steps")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_small_decay_of_touched_rows_is_kept_in_low_precision(dtype):
    weights = variables([np.ones((2, 1))], dtype)
    optimizer = optimizers.SGDW(1.0, weight_decay=1e-4, touched_rows=True)
    gradient = [np.float32([[1e-30], [0]])]
    (found,) = take_steps(optimizer, weights, [gradient] * 200)[-1]
    np.testing.assert_allclose(np.float32(found), [[0.98], [1]], atol=4e-3)


@pytest.mark.parametrize(
    "way", ["eager", pytest.param("xla", marks=pytest.mark.compiled)]
)
def test_the_tokens_of_a_batch_decay_in_fit(way):
    """Also those that come twice, and not the one that is only padding."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="int32"),
            keras.layers.Embedding(6, 3, mask_zero=True),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1e-6),
        decays.L2(
            0.1,
            where=where.embeddings(),
            coupling="independent",
            touched_rows=True,
        ),
    )
    xla = way == "xla" and keras.backend.backend() != "torch"
    model.compile(optimizer, "mse", jit_compile=xla)
    model.run_eagerly = way == "eager"
    before = model.get_weights()[0]
    x = np.array([[1, 1], [3, 0]])
    model.fit(x, np.zeros((2, 3)), batch_size=2, verbose=0)
    after = model.get_weights()[0]
    np.testing.assert_allclose(after[[1, 3]], 0.9 * before[[1, 3]], rtol=1e-5)
    assert_equal(after[[0, 2, 4, 5]], before[[0, 2, 4, 5]])


def test_what_has_no_rows_is_refused():
    with pytest.raises(ValueError, match="`touched_rows` must be True or"):
        decays.L2(0.1, touched_rows=1)
    rule = decays.L2(0.1, where=where.everything(), touched_rows=True)
    scalar = keras.Variable(1.0, name="temperature")
    with pytest.raises(ValueError, match="with rows for touched_rows=True"):
        optimizers.WeightDecay(sgd(), rule).apply([ops.ones(())], [scalar])
