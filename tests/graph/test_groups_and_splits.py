"""Convolutions in groups, and channels that are split."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import graph
from tests.graph.architectures import assert_same_outputs
from tests.graph.architectures import examples
from tests.graph.architectures import randomize

pytestmark = pytest.mark.one_backend


def grouped(groups=4, activation="relu"):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, name="a")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(
        16, 3, groups=groups, activation=activation, name="grouped"
    )(x)
    x = layers.Conv2D(2, 1, name="head")(x)
    return randomize(keras.Model(inputs, x))


def unread(model, name, rows):
    """Nothing reads some rows of a layer."""
    kernel, bias = model.get_layer(name).get_weights()
    kernel[..., rows, :] = 0
    model.get_layer(name).set_weights([kernel, bias])


@pytest.mark.parametrize("groups", [4, 8])
def test_a_group_that_nothing_reads_goes_with_its_inputs(groups):
    model = grouped(groups)
    size = 16 // groups
    # Two whole groups, and a part of another one.
    unread(model, "head", [*range(2 * size), 3 * size])
    smaller, report = graph.compact(model, report=True, batch_size=None)
    assert_same_outputs(model, smaller, examples(model))
    layer = smaller.get_layer("grouped")
    assert (layer.groups, layer.filters) == (groups - 2, 16 - 2 * size)
    assert smaller.get_layer("a").filters == 8 - 2 * 8 // groups
    rows = {row.layer: row for row in report.layers}
    row = rows["grouped"]
    assert (row.units_before, row.units_after) == (16, 16 - 2 * size)
    assert model.get_layer("grouped").groups == groups


def test_a_group_whose_inputs_are_used_elsewhere_stays():
    inputs = keras.Input((6, 6, 3))
    a = layers.Conv2D(8, 1, name="a")(inputs)
    x = layers.Conv2D(8, 1, groups=4, name="grouped")(a)
    x = layers.Conv2D(2, 1, name="head")(x)
    other = layers.Conv2D(2, 1, name="other")(a)
    model = randomize(keras.Model(inputs, [x, other]))
    unread(model, "head", [0, 1, 2, 3])
    unread(model, "other", [0, 1])
    smaller = graph.compact(model)
    assert_same_outputs(model, smaller, examples(model))
    assert smaller.get_layer("grouped").groups == 3


def test_groups_of_an_activation_over_channels_stay():
    model = grouped(activation="softmax")
    unread(model, "head", range(8))
    smaller, report = graph.compact(model, report=True, batch_size=None)
    assert smaller is model
    assert "grouped is not known to be elementwise" in str(report)


def test_pruning_takes_whole_groups():
    model = grouped()
    kernel = model.get_layer("head").kernel
    kernel.assign(kernel.value * np.repeat([1.0, 1e-3], 8).reshape(16, 1))
    smaller = graph.prune(model, ratio=0.5, round_to=1)
    assert smaller.get_layer("grouped").groups == 2
    np.testing.assert_array_equal(
        smaller.get_layer("grouped").get_weights()[0],
        model.get_layer("grouped").get_weights()[0][..., :8],
    )


@pytest.mark.parametrize("parts", [2, [3]], ids=["halves", "indices"])
def test_split_channels_go_by_part(parts):
    inputs = keras.Input((5,))
    x = layers.Dense(8, name="both")(inputs)
    one, other = ops.split(x, parts, axis=-1)
    one = layers.Dense(2, name="one")(ops.sigmoid(one))
    other = layers.Dense(2, name="other")(other)
    model = randomize(keras.Model(inputs, one + other))
    unread(model, "one", [0, 2])
    unread(model, "other", range(model.get_layer("other").kernel.shape[0]))
    smaller = graph.compact(model)
    assert_same_outputs(model, smaller, examples(model))
    # All of the second part but one, which a layer keeps.
    first = 4 if parts == 2 else 3
    assert smaller.get_layer("both").units == first - 2 + 1


def test_the_halves_of_a_gated_unit_go_together():
    inputs = keras.Input((6, 4))
    x = layers.Dense(12, name="both")(inputs)
    value, gate = ops.split(x, 2, axis=-1)
    x = layers.Dense(3, name="down")(value * ops.silu(gate))
    model = randomize(keras.Model(inputs, x))
    unread(model, "down", [0, 3])
    smaller = graph.compact(model)
    assert_same_outputs(model, smaller, examples(model))
    assert smaller.get_layer("both").units == 8


def test_a_split_of_positions_keeps_the_channels():
    inputs = keras.Input((6, 4))
    x = layers.Dense(8, "relu", name="a")(inputs)
    one, other = ops.split(x, 2, axis=1)
    x = layers.Dense(3, name="down")(one + other)
    model = randomize(keras.Model(inputs, x))
    unread(model, "down", [0, 3])
    smaller = graph.compact(model)
    assert_same_outputs(model, smaller, examples(model))
    assert smaller.get_layer("a").units == 6
