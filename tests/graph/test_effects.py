"""What decay does to a weight, where a layer or constant is unusual."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import graph
from keras_wd.graph import invariance

BN, LN = layers.BatchNormalization, layers.LayerNormalization


class Custom(layers.Layer):
    def call(self, t):
        return t


def functional(build, shape=(6, 8)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, build(inputs))


def effects_of(model):
    """(effect, reason) by the last two parts of the path."""
    return {
        "/".join(row.weight.split("/")[-2:]): (row.effect, row.reason)
        for row in graph.explain(model).weights
    }


def dense(**arguments):
    return layers.Dense(8, name="d", **arguments)


CONSTANT = np.arange(8, dtype="float32").reshape(1, 1, 8)
POSITIONS = np.arange(48, dtype="float32").reshape(1, 6, 8)

CASES = {
    "a custom layer": (
        lambda x: BN()(Custom()(dense()(x))),
        "unknown",
        r"custom \(Custom\), which is not known",
    ),
    "an operation with a meaning of its own": (
        lambda x: BN()(ops.cumsum(dense()(x), axis=1)),
        "unknown",
        "Cumsum",
    ),
    "a custom activation": (
        lambda x: BN()(dense(activation=lambda t: t)(x)),
        "unknown",
        "is not known",
    ),
    "certainly the function, beside something unknown": (
        lambda x: [Custom()(h := dense()(x)), h],
        "function",
        "it reaches the outputs",
    ),
    "a softmax": (
        lambda x: BN()(layers.Softmax()(dense()(x))),
        "function",
        "softmax",
    ),
    "silu, as an operation": (
        lambda x: BN()(ops.silu(dense()(x))),
        "function",
        "Silu is not positively homogeneous",
    ),
    "a factor": (
        lambda x: BN()(ops.relu(0.5 * dense(use_bias=False)(x)) / 3.0),
        "learning rate",
        "removes its scale",
    ),
    "a summand that a batch normalization removes": (
        lambda x: BN()(dense(use_bias=False)(x) + 3.0),
        "learning rate",
        "removes its scale",
    ),
    "a summand that a layer normalization does not remove": (
        lambda x: LN()(layers.Add()([dense(use_bias=False)(x), CONSTANT])),
        "function",
        "does not remove",
    ),
    "one summand per position": (
        lambda x: BN()(layers.Add()([dense(use_bias=False)(x), POSITIONS])),
        "function",
        "adds a constant",
    ),
    "rescaled": (
        lambda x: LN()(layers.Rescaling(0.5)(dense(use_bias=False)(x))),
        "learning rate",
        "removes its scale",
    ),
    "reshaped and transposed as operations": (
        lambda x: LN()(
            ops.transpose(
                ops.reshape(dense(use_bias=False)(x), (-1, 12, 4)), (0, 2, 1)
            )
        ),
        "learning rate",
        "removes its scale",
    ),
    "statistics that do not follow, by the call": (
        lambda x: BN()(dense()(x), training=False),
        "function",
        "called with training=False",
    ),
    "statistics that do not follow, by the call of a model": (
        lambda x: keras.Sequential([keras.Input((6, 8)), dense(), BN()])(
            x, training=False
        ),
        "function",
        "called with training=False",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_effect_on_a_kernel(name):
    build, effect, reason = CASES[name]
    found, because = effects_of(functional(build))["d/kernel"]
    assert found == effect
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(because)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda **k: layers.SeparableConv2D(4, 3, name="d", **k), (6, 6, 3)),
        (lambda **k: layers.SeparableConv1D(4, 3, name="d", **k), (6, 3)),
        (lambda **k: layers.Conv2DTranspose(4, 3, name="d", **k), (6, 6, 3)),
        (lambda **k: layers.Conv2D(4, 3, groups=2, name="d", **k), (6, 6, 2)),
    ],
)
def test_convolutions_of_all_kinds_are_invariant(layer, shape):
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    model = functional(lambda t: BN()(layer()(t)), shape)
    kernels = [v.path for v in model.layers[1].weights if "bias" not in v.path]
    assert graph.scale_invariant(model, x) == kernels
    assert effects_of(model)["d/bias"][0] == "nothing"


def test_a_bias_on_several_axes_is_not_removed():
    def build(x):
        made = layers.EinsumDense(
            "abc,cde->abde", (6, 2, 3), bias_axes="de", name="d"
        )(x)
        return BN()(made)

    found = effects_of(functional(build))
    assert found["d/kernel"][0] == found["d/bias"][0] == "function"


def test_weights_that_are_not_understood_are_unknown():
    model = functional(lambda x: layers.SpectralNormalization(dense())(x))
    assert {effect for effect, _ in effects_of(model).values()} == {"unknown"}


def reactions(count, monkeypatch):
    """How often a step is followed to explain that many layers."""
    calls = []
    reaction_of = invariance.reaction_of

    def counted(*arguments):
        calls.append(arguments)
        return reaction_of(*arguments)

    monkeypatch.setattr(invariance, "reaction_of", counted)
    stack = [layers.Dense(2, "relu", use_bias=i % 9 == 0) for i in range(count)]
    graph.explain(keras.Sequential([keras.Input((2,)), *stack]))
    monkeypatch.undo()
    return len(calls)


def test_the_effort_grows_as_the_model_does(monkeypatch):
    small, large = reactions(30, monkeypatch), reactions(90, monkeypatch)
    assert large <= 3.2 * small
