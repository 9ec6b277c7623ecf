import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import graph

BN, LN = layers.BatchNormalization, layers.LayerNormalization


def sequential(*stack, shape=(6, 6, 3)):
    return keras.Sequential([keras.Input(shape), *stack])


def conv(name="conv", **arguments):
    return layers.Conv2D(4, 3, name=name, **arguments)


FOUND = {
    "convolution, batch normalization": (
        lambda: sequential(conv(), BN(), layers.ReLU()),
        ["conv/kernel"],
    ),
    "pooled in between": (
        lambda: sequential(conv(), layers.MaxPooling2D(), BN()),
        ["conv/kernel"],
    ),
    "ReLU in between, no bias": (
        lambda: sequential(conv(activation="relu", use_bias=False), BN()),
        ["conv/kernel"],
    ),
    "ReLU in between, a bias": (
        lambda: sequential(conv(activation="relu"), BN()),
        [],
    ),
    "two convolutions before": (
        lambda: sequential(conv("a"), conv("b"), BN()),
        ["a/kernel", "b/kernel"],
    ),
    "a bias and zeros at the border": (
        lambda: sequential(conv("a"), conv("b", padding="same"), BN()),
        ["b/kernel"],
    ),
    "depthwise": (
        lambda: sequential(layers.DepthwiseConv2D(3, name="depth"), BN()),
        ["depth/kernel"],
    ),
    "layer normalization, no bias": (
        lambda: sequential(layers.Dense(5, use_bias=False, name="d"), LN()),
        ["d/kernel"],
    ),
    "layer normalization, a bias": (
        lambda: sequential(layers.Dense(5, name="d"), LN()),
        [],
    ),
    "tanh": (lambda: sequential(conv(activation="tanh"), BN()), []),
    "nothing follows": (lambda: sequential(conv()), []),
    "frozen statistics": (
        lambda: sequential(conv(), BN(trainable=False)),
        [],
    ),
    "statistics of another axis": (
        lambda: sequential(conv(), BN(axis=1)),
        [],
    ),
    "flattened": (
        lambda: sequential(conv(), layers.Flatten(), BN()),
        ["conv/kernel"],
    ),
    "dropout of what a bias was added to": (
        lambda: sequential(conv(), layers.Dropout(0.5), BN()),
        [],
    ),
    "dropout of what only scales": (
        lambda: sequential(conv(use_bias=False), layers.Dropout(0.5), BN()),
        ["conv/kernel"],
    ),
    "the scale of a normalization": (
        lambda: sequential(BN(center=False, name="first"), LN()),
        ["first/gamma"],
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_a_normalization_makes_invariant(name):
    make, expected = FOUND[name]
    assert graph.scale_invariant(make()) == expected


def residual(normalized):
    inputs = keras.Input((6, 6, 3))
    one = layers.Conv2D(4, 3, padding="same", name="one")(inputs)
    two = layers.Conv2D(4, 1, name="two")(inputs)
    if normalized:
        one, two = BN()(one), BN()(two)
    return keras.Model(inputs, layers.ReLU()(layers.Add()([one, two])))


def test_branches_have_to_be_normalized_before_they_join():
    assert graph.scale_invariant(residual(True)) == ["one/kernel", "two/kernel"]
    assert graph.scale_invariant(residual(False)) == []


def test_concatenated_branches_are_normalized_channel_by_channel():
    inputs = keras.Input((6, 6, 3))
    made = layers.Conv2D(4, 3, padding="same", name="one")(inputs)
    joined = layers.Concatenate()([inputs, made])
    model = keras.Model(inputs, BN()(layers.MaxPooling2D()(joined)))
    assert graph.scale_invariant(model) == ["one/kernel"]


def test_a_second_reader_that_is_not_normalized():
    inputs = keras.Input((6,))
    hidden = layers.Dense(4, name="hidden")(inputs)
    model = keras.Model(inputs, [BN()(hidden), layers.Dense(2)(hidden)])
    assert graph.scale_invariant(model) == []


def test_a_shared_layer_with_two_normalizations():
    inputs = keras.Input((6,))
    shared = layers.Dense(6, name="shared")
    first = BN(name="first")(shared(inputs))
    model = keras.Model(inputs, BN()(shared(first)))
    assert graph.scale_invariant(model) == ["shared/kernel", "first/gamma"]
    model = keras.Model(inputs, BN()(shared(shared(inputs))))
    assert graph.scale_invariant(model) == []


def test_inside_a_nested_model():
    body = keras.Sequential(
        [keras.Input((6, 6, 3)), conv("inner"), BN()], name="body"
    )
    model = sequential(body, layers.Flatten(), layers.Dense(2, name="head"))
    assert graph.scale_invariant(model) == ["inner/kernel"]


@pytest.mark.parametrize(
    "name", [name for name, (_, found) in FOUND.items() if found]
)
def test_the_numbers_confirm_what_the_structure_says(name):
    make, expected = FOUND[name]
    keras.utils.set_random_seed(0)
    model = make()
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")
    before = [np.array(v.value) for v in model.variables]
    assert graph.scale_invariant(model, x) == expected
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(variable.value))


class Rescaled(layers.Dense):
    """Calls itself a Dense layer to Keras, but squares its kernel."""


def test_a_subclass_is_not_trusted():
    model = sequential(Rescaled(5, name="d"), BN())
    assert graph.scale_invariant(model) == []


def test_the_numbers_refute_a_wrong_structure():
    # A regularizer of activations is no part of the outputs; an epsilon that
    # is larger than the variance is: then the scale does matter.
    model = sequential(conv(), BN(epsilon=1e9))
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")
    with pytest.raises(ValueError, match="must not depend on the scale of"):
        graph.scale_invariant(model, x)


def test_explain_says_what_decay_does_to_every_weight():
    model = sequential(
        conv(),
        BN(name="norm"),
        layers.ReLU(name="relu"),
        layers.Flatten(),
        layers.Dense(2, name="head"),
    )
    explanation = graph.explain(model)
    found = {
        "/".join(row.weight.split("/")[-2:]): (row.effect, row.reason)
        for row in explanation.weights
    }
    assert found == {
        "conv/kernel": ("learning rate", "norm removes its scale"),
        "conv/bias": ("nothing", "norm removes it"),
        "norm/gamma": (
            "function",
            "a bias is added before relu and does not scale with it",
        ),
        "norm/beta": (
            "function",
            "a bias is added before relu and does not scale with it",
        ),
        "head/kernel": ("function", "it reaches the outputs"),
        "head/bias": ("function", "it reaches the outputs"),
    }
    assert "norm removes its scale" in str(explanation)
