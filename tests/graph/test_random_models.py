"""Any model: pair its layers, balance them, make it smaller, compare."""

import re

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import ops

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers
from keras_wd import where
from tests.graph import architectures
from tests.lowering import record

pytestmark = pytest.mark.slow(reason="a dozen models in each test")
JAX = keras.backend.backend() == "jax"


@pytest.mark.one_backend
@settings(max_examples=12)
@given(
    build=architectures.image_models(),
    seed=st.integers(0, 99),
    incoming=st.booleans(),
    outgoing=st.booleans(),
)
def test_compaction_keeps_the_outputs(build, seed, incoming, outgoing):
    model = build()
    architectures.kill_units(model, seed, 0.5, incoming, outgoing)
    x = architectures.examples(model)
    before = architectures.outputs(model, x)
    smaller = graph.compact(model)
    np.testing.assert_array_equal(architectures.outputs(model, x), before)
    architectures.assert_same_outputs(model, smaller, x)
    assert smaller.count_params() <= model.count_params() + 3 * len(
        architectures.weights_layers(model)
    )
    assert graph.compact(smaller) is smaller


@pytest.mark.one_backend
@settings(max_examples=10)
@given(
    build=architectures.image_models(),
    budget=st.floats(0.2, 0.95),
    round_to=st.sampled_from([1, 2]),
)
def test_pruning_in_fit_keeps_the_budget_or_refuses_it(build, budget, round_to):
    model = build()
    x = architectures.examples(model)
    model.compile("sgd", "mse", run_eagerly=True)
    y = keras.tree.map_structure(
        lambda made: np.zeros(made.shape, "float32"), model(x)
    )
    pruning = callbacks.GradualPruning(
        multiply_adds=budget, steps=2, every=1, round_to=round_to
    )
    whole = graph.sizes(model).multiply_adds
    before = model.get_weights()
    try:
        model.fit(x, y, batch_size=3, verbose=0, callbacks=[pruning])
    except ValueError as refusal:
        assert re.search("can be removed", str(refusal))
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        return
    smaller = graph.compact(model)
    architectures.assert_same_outputs(model, smaller, x)
    assert graph.sizes(smaller).multiply_adds <= budget * whole + 1
    masks = [(v, np.asarray(m)) for v, m in pruning._masks]
    assert all(not np.asarray(v)[~m].any() for v, m in masks)


def variable(model, path):
    (found,) = [
        v for v in model.trainable_variables if where.paths(path).picks(v)
    ]
    return found


def rescale(model, pair, factors):
    """Multiply the units by factors, and their output weights by 1/c."""
    w = variable(model, pair.input_kernel)
    w.assign(np.asarray(w) * factors)
    if pair.input_bias:
        b = variable(model, pair.input_bias)
        b.assign(np.asarray(b) * factors)
    for path in pair.inner_biases:
        b = variable(model, path)
        b.assign(np.asarray(b) * np.repeat(factors, pair.channels))
    v = variable(model, pair.output_kernel)
    rows = np.tile(np.repeat(factors, pair.channels), pair.positions)
    v.assign(np.asarray(v) / rows[:, None])


@pytest.mark.one_backend
@settings(max_examples=12)
@given(build=architectures.image_models(), seed=st.integers(0, 99))
def test_units_that_are_found_can_be_rescaled(build, seed):
    model = build()
    rng = np.random.default_rng(seed)
    x = architectures.examples(model)
    before = architectures.outputs(model, x)
    scale = max(1.0, np.abs(before).max())
    for pair in graph.homogeneous_units(model):
        units = variable(model, pair.input_kernel).shape[-1]
        rescale(model, pair, np.exp2(rng.integers(-2, 3, units)))
        # Powers of two change no bits but those that sums are rounded by.
        np.testing.assert_allclose(
            architectures.outputs(model, x) / scale, before / scale, atol=2e-6
        )


@pytest.mark.one_backend
@settings(max_examples=12)
@given(build=architectures.image_models())
def test_balancing_and_absorbing_keep_the_outputs(build):
    model = build()
    units = graph.homogeneous_units(model)
    if not units:
        return
    x = architectures.examples(model)
    before = architectures.outputs(model, x)
    apply_step(decays.PathNorm(1.0, units, absorb=True), model, 1e-30)
    scale = max(1.0, np.abs(before).max())
    np.testing.assert_allclose(
        architectures.outputs(model, x) / scale, before / scale, atol=1e-5
    )


def apply_step(rule, model, strength):
    """Take the decay's step alone, without an optimizer."""
    chosen = rule.select(model.trainable_variables)
    variables = [model.trainable_variables[i] for i in chosen]
    rule.check(variables)
    weights = [ops.convert_to_tensor(v.numpy()) for v in variables]
    made = rule.shrink(weights, [], ops.convert_to_tensor(strength, "float32"))
    for v, values in zip(variables, made, strict=True):
        v.assign(ops.convert_to_numpy(values).copy())


@pytest.mark.weekly(reason="a curvature of each model is compiled")
@settings(max_examples=2 if JAX else 4)
@given(build=architectures.image_models())
def test_kfac_steps_or_says_why_not(build):
    """Every weight has a block or is listed; a step is finite."""
    model = build()
    optimizer = optimizers.KFAC(1e-3, estimator="gauss_newton", seed=0)
    model.compile(optimizer, jit_compile=False)
    x = architectures.examples(model)
    optimizer.register(model, x)
    lines = []
    optimizer.summary(lines.append)
    variables = model.trainable_variables
    assert all(v.path in "\n".join(lines) for v in variables)
    if JAX:
        # To compile all of it for every model takes JAX a minute.
        with pytest.MonkeyPatch.context() as patch:
            found = record(patch)
            optimizer.update_curvature(model, x)
        assert len(found) == 2
        return
    optimizer.update_curvature(model, x)
    before = model.get_weights()
    ones = [ops.ones(v.shape) for v in variables]
    optimizer.apply(ones, variables)
    after = model.get_weights()
    assert all(np.isfinite(weights).all() for weights in after)
    assert any(np.any(a != b) for a, b in zip(before, after, strict=True))


@pytest.mark.one_backend
def test_the_drawn_models_have_what_is_tested():
    """Over the same examples: pairs, rows of pairs and nested models."""
    seen = {"pairs": 0, "rows": 0, "nested": 0, "removed": 0}

    @settings(max_examples=12, database=None)
    @given(build=architectures.image_models())
    def look(build):
        model = build()
        units = graph.homogeneous_units(model)
        seen["pairs"] += bool(units)
        seen["rows"] += any(pair.biases_before is not None for pair in units)
        seen["nested"] += any(
            isinstance(layer, keras.Model) for layer in model.layers
        )
        architectures.kill_units(model)
        seen["removed"] += graph.compact(model) is not model

    look()
    assert seen["pairs"] >= 3 and seen["nested"] >= 1 and seen["removed"] >= 3
