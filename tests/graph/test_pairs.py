"""Which layers are paired, and why the others are not."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import decays
from keras_wd import graph
from tests.graph import architectures


def sequential(*stack, shape=(8,)):
    return keras.Sequential([keras.Input(shape), *stack])


def dense(units=4, activation="relu", **arguments):
    return layers.Dense(units, activation, **arguments)


def pairs_of(model):
    """The names of the layers of every pair."""
    return [
        tuple(path.split("/")[-2] for path in pair.kernels)
        for pair in graph.homogeneous_units(model)
    ]


def reason(model, layer):
    (row,) = [r for r in graph.explain(model).rows if r.layer == layer]
    assert row.pair is None
    return row.reason


def test_dense_layers_are_paired_greedily_along_the_path():
    model = sequential(*(dense(name=f"d{i}") for i in range(5)))
    assert pairs_of(model) == [("d0", "d1"), ("d2", "d3")]
    assert reason(model, "d4") == "its output is an output of the model"
    first, second = graph.homogeneous_units(model)
    assert first.input_bias == "d0/bias" and first.output_bias == "d1/bias"
    assert first.biases_before is None and second.biases_before == ()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_and_flattened_rows(rank):
    conv = [layers.Conv1D, layers.Conv2D, layers.Conv3D][rank - 1]
    pool = [layers.MaxPooling1D, layers.AveragePooling2D, layers.MaxPooling3D]
    model = sequential(
        conv(4, 3, strides=2, padding="same", activation="relu", name="a"),
        conv(6, 2, padding="same", dilation_rate=2, name="b"),
        layers.LeakyReLU(),
        conv(5, 1, name="c"),
        layers.ReLU(),
        pool[rank - 1](2),
        layers.Dropout(0.1),
        layers.Flatten(),
        dense(2, None, name="d"),
        shape=(8,) * rank + (3,),
    )
    first, second = graph.homogeneous_units(model)
    assert pairs_of(model) == [("a", "b"), ("c", "d")]
    assert (first.positions, second.positions) == (1, 2**rank)
    assert second.biases_before == ()


@pytest.mark.parametrize(
    "between",
    [
        [],
        [layers.GlobalAveragePooling2D],
        [layers.GlobalMaxPooling2D],
        [layers.PReLU, layers.Flatten],
        [lambda: layers.SpatialDropout2D(0.1), layers.Flatten],
        [lambda: layers.Reshape((16, 4)), layers.Flatten],
        [lambda: layers.Reshape((64,))],
        [layers.ZeroPadding2D, layers.Flatten],
        [lambda: layers.Activation("leaky_relu"), layers.Flatten],
    ],
)
def test_what_may_lie_between(between):
    stack = [layer() for layer in between] or [
        layers.Conv2D(2, 2, name="last"),
    ]
    model = sequential(
        layers.Conv2D(4, 1, activation="relu", name="first"),
        *stack,
        *([dense(2, None, name="last")] if between else []),
        shape=(4, 4, 2),
    )
    assert pairs_of(model) == [("first", "last")]


def test_a_depthwise_convolution_multiplies_the_channels_of_a_unit():
    model = sequential(
        layers.Conv2D(3, 1, activation="relu", name="first"),
        layers.DepthwiseConv2D(2, depth_multiplier=2, name="depthwise"),
        layers.Flatten(),
        dense(2, None, name="last"),
        shape=(4, 4, 2),
    )
    (pair,) = graph.homogeneous_units(model)
    assert (pair.positions, pair.channels) == (9, 2)
    assert pair.inner_biases == ("depthwise/bias",)


def test_a_batch_normalization_carries_the_units():
    model = sequential(
        dense(4, None, name="first"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
        dense(3, "relu", name="second"),
        dense(2, None, name="third"),
    )
    (pair,) = graph.homogeneous_units(model)
    assert pair.kernels == ("bn/gamma", "second/kernel")
    assert pair.input_bias == "bn/beta"
    rows = {row.layer: row for row in graph.explain(model).rows}
    assert rows["first"].role == "input" and rows["bn"].role == "units"
    assert "through the scale of bn" in rows["first"].reason


def test_nested_models_are_looked_into():
    inner = sequential(
        dense(name="in1"), dense(name="in2"), dense(name="in3"), shape=(4,)
    )
    inner.name = "inner"
    model = sequential(
        dense(name="out1"), inner, dense(2, None, name="out2"), shape=(5,)
    )
    assert pairs_of(model) == [("out1", "in1"), ("in2", "in3")]
    rows = {row.layer for row in graph.explain(model).rows}
    assert {"inner/in1", "inner/in2", "inner/in3", "out2"} <= rows


def test_a_row_of_pairs_ends_where_homogeneity_does():
    model = sequential(
        dense(name="a"),
        dense(name="b", activation="tanh"),
        dense(name="c"),
        dense(name="d"),
        dense(name="between"),
        layers.BatchNormalization(),
        dense(name="e"),
        dense(name="f", activation=None),
    )
    # b ends in a hyperbolic tangent; c and d are normalized further on.
    assert pairs_of(model) == [("a", "b"), ("batch_normalization", "e")]
    units = graph.homogeneous_units(model)
    assert [pair.biases_before for pair in units] == [None, None]
    assert "batch_normalization removes the scale" in reason(model, "c")


def test_a_layer_between_two_pairs_lends_its_bias_to_balancing():
    convolution = functools.partial(layers.Conv2D, 4, 1, activation="relu")
    model = sequential(
        convolution(name="a"),
        convolution(name="b"),
        layers.DepthwiseConv2D(2, name="between"),
        convolution(name="c"),
        convolution(name="d"),
        shape=(4, 4, 2),
    )
    assert pairs_of(model) == [("a", "b"), ("c", "d")]
    _, second = graph.homogeneous_units(model)
    assert second.biases_before == ("between/bias",)


def functional(build, shape=(4,)):
    source = keras.Input(shape)
    return keras.Model(source, build(source))


def shared(x):
    layer = dense(4, "relu", name="first")
    return dense(2, None)(layer(layer(x)))


def residual(x):
    y = dense(4, "relu", name="first")(x)
    return dense(2, None)(layers.Add(name="add")([y, dense(4)(y)]))


REFUSED = {
    "sigmoid is not positively homogeneous": lambda: sequential(
        dense(4, "sigmoid", name="first"), dense()
    ),
    "relu6 is not positively homogeneous": lambda: sequential(
        dense(4, "relu6", name="first"), dense()
    ),
    "clip stops growing at 6": lambda: sequential(
        dense(4, None, name="first"), layers.ReLU(6.0, name="clip"), dense()
    ),
    "bent has a threshold": lambda: sequential(
        dense(4, None, name="first"),
        layers.ReLU(threshold=0.1, name="bent"),
        dense(),
    ),
    r"noise \(GaussianDropout\) adds noise": lambda: sequential(
        dense(4, name="first"),
        layers.GaussianDropout(0.1, name="noise"),
        dense(),
    ),
    r"layer_norm \(LayerNormalization\) is not known": lambda: sequential(
        dense(4, name="first"),
        layers.LayerNormalization(name="layer_norm"),
        dense(),
    ),
    r"has none of its own \(scale=False\)": lambda: sequential(
        dense(4, name="first"),
        layers.BatchNormalization(scale=False),
        dense(),
    ),
    "not trainable": lambda: sequential(
        dense(4, name="first", trainable=False), dense()
    ),
    "frozen cannot be its output layer: frozen is not": lambda: sequential(
        dense(4, name="first"), dense(name="frozen", trainable=False)
    ),
    "grouped cannot be its output layer: .*grouped": lambda: sequential(
        layers.Conv1D(4, 1, activation="relu", name="first"),
        layers.Conv1D(4, 1, groups=2, name="grouped"),
        shape=(4, 2),
    ),
    "activity regularizer": lambda: sequential(
        dense(4, name="first", activity_regularizer="l2"), dense()
    ),
    "reshapes the channels": lambda: sequential(
        dense(4, name="first"), layers.Reshape((2, 2)), dense()
    ),
    "shared: it is called 2 times": lambda: functional(shared),
    "goes to .*not to one layer": lambda: functional(residual),
    "is merged with others in add": lambda: functional(
        lambda x: layers.Add(name="add")([dense(4, name="first")(x), x])
    ),
    "is concatenated with others": lambda: functional(
        lambda x: dense()(layers.Concatenate()([dense(4, name="first")(x), x]))
    ),
    r"called with training=True": lambda: functional(
        lambda x: dense()(
            layers.Dropout(0.1)(dense(4, name="first")(x), training=True)
        )
    ),
    "channels_first": lambda: sequential(
        layers.Conv2D(4, 1, activation="relu", name="first"),
        layers.GlobalMaxPooling2D(data_format="channels_first"),
        dense(),
        shape=(4, 4, 2),
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_homogeneous_is_refused_with_the_reason(message):
    model = REFUSED[message]()
    (row,) = [r for r in graph.explain(model).rows if r.layer == "first"]
    assert row.pair is None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(row.reason)
    assert "first" not in str(pairs_of(model))


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


def test_a_subclass_of_a_layer_is_not_taken_for_the_layer():
    model = sequential(dense(4, name="first"), Doubled(3, name="twice"))
    assert pairs_of(model) == []
    assert "twice (Doubled) is not known" in reason(model, "first")


class Computed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = dense(4)

    def call(self, x):
        return self.hidden(x)


def test_a_subclassed_model_is_refused_with_the_way_out():
    model = Computed()
    model(np.zeros((1, 3)))
    for function in (graph.homogeneous_units, graph.explain, graph.compact):
        with pytest.raises(ValueError, match="HomogeneousUnits"):
            function(model)
    with pytest.raises(ValueError, match="must be built"):
        graph.explain(keras.Sequential([dense()]))
    with pytest.raises(ValueError, match="must be a Keras model"):
        graph.explain([dense()])


class NoConfig(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def test_a_layer_that_cannot_be_written_down_is_read():
    model = sequential(dense(), NoConfig(lambda x: x), dense())
    assert "NoConfig" in str(graph.explain(model))


def test_the_table_is_aligned_and_names_every_layer():
    model = architectures.randomize(
        sequential(dense(name="hidden"), layers.Dropout(0.1), dense(name="out"))
    )
    explanation = graph.explain(model)
    layers_table, weights_table = str(explanation).split("\n\n")
    lines = layers_table.splitlines()
    assert len(lines) == 1 + len(explanation.rows) == 4
    assert len(weights_table.splitlines()) == 1 + 4
    start = lines[0].index("with, or why not")
    assert all(line[start - 2 : start] == "  " for line in lines)
    assert lines[1].split() == "hidden Dense 1 input output layer: out".split()


def test_pairs_survive_their_configuration():
    model = sequential(dense(name="a"), dense(name="b"))
    units = graph.homogeneous_units(model)
    copies = [
        decays.HomogeneousUnits.from_config(pair.get_config()) for pair in units
    ]
    assert copies == units
