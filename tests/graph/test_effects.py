"""What decay does to a weight, where a layer or constant is unusual."""

import functools
import sys

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import graph
from keras_wd import optimizers

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
    "divided, reshaped and split where a bias was added": (
        lambda x: BN()(
            ops.split(ops.reshape(dense()(x) / 3.0, (-1, 2, 3, 8)), 2, -1)[0]
        ),
        "learning rate",
        "removes its scale",
    ),
    "reshaped as a layer, with a bias": (
        lambda x: BN()(layers.Reshape((3, 2, 8))(dense()(x))),
        "learning rate",
        "removes its scale",
    ),
    "reshaped into other channels, with a bias": (
        lambda x: BN()(layers.Reshape((12, 4))(dense()(x))),
        "unknown",
        "not known",
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


def lines_run(work):
    """How many lines of the package a call runs: loops count every round."""
    package, counted, before = graph.__path__[0], [0], sys.gettrace()
    package = package.removesuffix("graph")

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(package):
            return None
        counted[0] += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return counted[0]


GROWING = {
    "explain": graph.explain,
    "scale_invariant": graph.scale_invariant,
    "homogeneous_units": graph.homogeneous_units,
    "PathProx": lambda model: optimizers.PathProx(model, 0.1, 0.01).build(
        model.trainable_variables
    ),
    "compact": lambda model: graph.compact(model, threshold=1e-9),
}


@functools.cache
def stack(count):
    return keras.Sequential(
        [
            keras.Input((2,)),
            *(
                layers.Dense(2, "relu", use_bias=i % 9 == 0)
                for i in range(count)
            ),
        ]
    )


@pytest.mark.every_case
@pytest.mark.one_backend
@pytest.mark.parametrize("name", GROWING)
def test_the_effort_grows_as_the_model_does(name):
    small, large = (
        lines_run(lambda n=n: GROWING[name](stack(n))) for n in (9, 36)
    )
    assert small > 100
    assert large <= 4.4 * small
