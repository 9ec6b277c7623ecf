"""A cautious decay spares the weights that the step makes larger."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd.ops import cautious
from tests import catalogue
from tests import reference
from tests.training import assert_close
from tests.training import compiled_network
from tests.training import take_steps
from tests.training import train
from tests.training import variables

MAKE = {
    "L2": lambda **a: decays.L2(0.3, **a),
    "L1": lambda **a: decays.L1(0.3, **a),
    "Lp": lambda **a: decays.Lp(0.3, p=0.8, **a),
}
SHRINK = {
    "L2": reference.shrink_l2,
    "L1": reference.shrink_l1,
    "Lp": lambda w, before, s: reference.shrink_lp(w, before, s, 0.8),
}
INNER = {
    "SGD with momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.1),
    "Lion": lambda: keras.optimizers.Lion(0.05),
    "Muon": lambda: keras.optimizers.Muon(
        0.05, weight_decay=None, adam_weight_decay=None
    ),
}
KINDS = pytest.mark.parametrize("kind", MAKE)


def test_the_mask_is_that_of_the_paper_also_for_tiny_weights():
    previous = np.float32([1, 1, 1, -1, -1, -1, 0, 1e-30, 1e-30, -1e-30, 2])
    stepped = np.float32(
        [0.9, 1, 1.1, -0.9, -1.1, 0.1, 1, 2e-30, 0, -2e-30, -9]
    )
    decays_there = [1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1]
    chosen = cautious(
        ops.ones(11),
        ops.zeros(11),
        ops.convert_to_tensor(stepped),
        ops.convert_to_tensor(previous),
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(chosen), decays_there)


@KINDS
@pytest.mark.parametrize("inner", INNER)
def test_any_optimizer_beside_its_own_plain_steps(kind, inner):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(6, 4)).astype("float32")]
    grads = [[rng.normal(size=(6, 4)).astype("float32")] for _ in range(2)]
    optimizer = optimizers.WeightDecay(
        INNER[inner](), MAKE[kind](cautious=True)
    )
    weights = variables(start)
    (first,), (second,) = take_steps(optimizer, weights, grads)
    s = 0.3 * float(optimizer.learning_rate.numpy())

    def step_of_inner(before, done):
        # The same optimizer without a decay, from the same weights.
        plain, moved = INNER[inner](), variables([start[0]])
        plain.build(moved)
        take_steps(plain, moved, grads[:done])
        moved[0].assign(before)
        return take_steps(plain, moved, grads[done : done + 1])[0][0]

    for before, after, done in ((start[0], first, 0), (first, second, 1)):
        stepped = step_of_inner(before, done)
        shrunk = SHRINK[kind](stepped, before, s)
        expected = reference.cautious(shrunk, stepped, stepped, before)
        assert 0 < np.sum(np.float32(expected) == stepped) < stepped.size
        np.testing.assert_allclose(after, expected, rtol=2e-5, atol=1e-6)


def test_the_mask_reads_the_step_and_not_the_decays_before_it():
    # The step moves the weight from 1 to 1.05; L1 then takes it to 0.95. A
    # cautious L2 after it must still see a weight that grew.
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1.0),
        [decays.L1(0.1), decays.L2(0.5, cautious=True)],
    )
    (weights,) = take_steps(
        optimizer, variables([[[1.0]]]), [[np.float32([[-0.05]])]]
    )
    assert weights[0][0, 0] == pytest.approx(0.95)


@KINDS
def test_a_coupled_decay_cannot_be_cautious(kind):
    with pytest.raises(ValueError, match="`cautious` must be False for"):
        MAKE[kind](cautious=True, coupling="coupled")
    with pytest.raises(ValueError, match="`cautious` must be True or False"):
        MAKE[kind](cautious="yes")


def test_the_named_optimizers_pass_it_on():
    for kind in (optimizers.SGDW, optimizers.PAdam):
        optimizer = kind(cautious=True)
        assert optimizer.decay.cautious
        again = kind.from_config(optimizer.get_config())
        assert again.decay.cautious


@pytest.mark.slow(reason="compiles what test_contracts.py does in one way")
@pytest.mark.parametrize(
    "dtype", catalogue.quick(["float32", "mixed_float16"], "float32")
)
def test_compiled_is_eager(dtype):
    def run(jit_compile):
        optimizer = optimizers.WeightDecay(
            keras.optimizers.SGD(0.1, momentum=0.9), MAKE["L2"](cautious=True)
        )
        model = compiled_network(optimizer, jit_compile, dtype=dtype)
        model.run_eagerly = not jit_compile
        return train(model, batches=3)

    tolerance = 1e-5 if dtype == "float32" else 2e-2
    assert_close(run(False), run(True), tolerance)


@pytest.mark.slow(reason="takes many steps")
def test_a_decay_below_the_rounding_of_bfloat16_is_kept():
    # The step makes the first weight smaller and the second one larger, by
    # nothing that bfloat16 could show.
    start = [[1.0, 1.0, -1.0]]
    gradient = [np.float32([[1e-6, -1e-6, -1e-6]])]
    results = {}
    for dtype in ("float32", "bfloat16"):
        weights = variables([start], dtype)
        optimizer = optimizers.WeightDecay(
            keras.optimizers.SGD(1.0), decays.L2(1e-4, cautious=True)
        )
        take_steps(optimizer, weights, [gradient] * 200)
        results[dtype] = np.float32(ops.convert_to_numpy(weights[0].value))[0]
    assert results["float32"][0] < 0.985 and results["float32"][1] > 0.99999
    # SGD's own steps are lost in bfloat16: it moves nothing, so all decay.
    np.testing.assert_allclose(
        results["bfloat16"], [0.9805, 0.9805, -0.9805], atol=4e-3
    )
