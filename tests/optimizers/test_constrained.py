"""A constraint acts once in a step, after the decay."""

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where


def steps(optimizer, constraint, count=10, dtype="float32"):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4)).astype("float32")
    variable = keras.Variable(start, dtype=dtype, name="kernel")
    variable.constraint = constraint
    for _ in range(count):
        gradient = rng.normal(size=(3, 4)).astype("float32")
        optimizer.apply([keras.ops.cast(gradient, dtype)], [variable])
    assert variable.constraint is constraint
    return keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))


CONSTRAINTS = {
    "MaxNorm": keras.constraints.MaxNorm(0.7),
    "UnitNorm": keras.constraints.UnitNorm(),
    "NonNeg": keras.constraints.NonNeg(),
}


@pytest.mark.parametrize("constraint", CONSTRAINTS.values(), ids=CONSTRAINTS)
@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_the_decay_of_keras_with_a_constraint(name, constraint):
    make = getattr(keras.optimizers, name)
    theirs = steps(make(0.1, weight_decay=0.5), constraint)
    ours = optimizers.WeightDecay(
        make(0.1), decays.L2(0.5, where=where.everything())
    )
    np.testing.assert_allclose(steps(ours, constraint), theirs, atol=2e-6)


@pytest.mark.parametrize("accumulate", [None, 3])
def test_strength_zero_is_the_optimizer_of_keras(accumulate):
    def make():
        return keras.optimizers.Adam(
            0.1, gradient_accumulation_steps=accumulate
        )

    constraint = keras.constraints.MaxNorm(0.7)
    theirs = steps(make(), constraint, 7)
    ours = optimizers.WeightDecay(make(), [decays.L1(0.0), decays.L2(0.0)])
    np.testing.assert_array_equal(steps(ours, constraint, 7), theirs)


class Halved(keras.constraints.Constraint):
    """Not idempotent, so that it shows how often it acts."""

    def __call__(self, w):
        return w / 2


RULES = [
    decays.L2(0.0),
    decays.L1(0.0),
    decays.Lp(0.0, p=0.8),
    decays.ProximalLp(0.0, p=0.5),
    decays.GroupLasso(0.0),
    decays.L2(0.0, coupling="coupled"),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.name}-{r.coupling}")
def test_it_acts_once(rule, dtype):
    optimizer = optimizers.WeightDecay(keras.optimizers.SGD(0.0), rule)
    start = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    before = keras.ops.cast(start, dtype)
    after = steps(optimizer, Halved(), 1, dtype)
    half = keras.ops.convert_to_numpy(keras.ops.cast(before, "float32")) / 2
    np.testing.assert_array_equal(after, half)


def test_an_error_in_the_step_brings_the_constraint_back():
    variable = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
    variable.constraint = constraint = keras.constraints.NonNeg()
    inner = keras.optimizers.SGD(0.1)
    optimizer = optimizers.WeightDecay(inner, decays.L2(0.1))
    optimizer.build([variable])
    with pytest.raises(Exception, match=".+"):
        optimizer.apply([np.ones((3, 3), "float32")])
    assert variable.constraint is constraint
