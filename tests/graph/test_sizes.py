"""Parameters, multiply-adds and bytes, by layer."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import graph


@pytest.mark.one_backend
def test_sizes_are_those_of_the_layers():
    inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(4, 3, depth_multiplier=2, name="sep")(inputs)
    x = layers.Conv2DTranspose(5, 3, strides=2, name="up")(x)
    x = layers.Conv2D(10, 3, groups=5, name="grouped")(x)
    x = layers.Reshape((121, 10))(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="m")(x, x)])
    x = layers.EinsumDense("abc,cd->abd", (121, 7), name="one")(x)
    x = layers.EinsumDense("...c,cde->...de", (2, 3), name="two")(x)
    x = layers.Reshape((121, 6))(x)
    # An output size that is not given is that of the input.
    x = layers.EinsumDense("abc,cd->abd", (None, 9), name="three")(x)
    model = keras.Model(inputs, x)
    found = {row.layer: row.multiply_adds for row in graph.sizes(model).rows}
    assert found["sep"] == 36 * (9 * 6 + 6 * 4)
    assert found["up"] == 36 * 9 * 4 * 5
    assert found["grouped"] == 121 * 9 * 1 * 10
    assert found["m"] == 4 * 121 * 10 * 8 + 2 * 121 * 121 * 8
    assert found["one"] == 121 * 10 * 7
    assert found["two"] == 121 * 7 * 2 * 3
    assert found["three"] == 121 * 6 * 9
    assert graph.sizes(model).multiply_adds == sum(found.values())
    assert "multiply-adds" in str(graph.sizes(model))
    assert graph.sizes(model).parameters == model.count_params()


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="JAX tells what XLA counts"
)
def test_sizes_agree_with_the_compiler():
    """XLA counts two operations, and the smaller ones that we leave out."""
    import jax

    def call(values, x):
        return model.stateless_call(values, [], x)[0]

    inputs = keras.Input((9, 9, 4))
    x = layers.Conv2D(16, 3, strides=2, name="conv")(inputs)
    x = layers.Reshape((16, 16))(layers.SeparableConv2D(16, 1)(x))
    x = layers.MultiHeadAttention(2, 16)(x, x)
    x = layers.EinsumDense("...a,ab->...b", 32)(x)
    model = keras.Model(inputs, layers.Dense(64)(layers.Flatten()(x)))
    values = [v.value for v in model.trainable_variables]
    x = np.zeros((1, 9, 9, 4), "float32")
    costs = jax.jit(call).lower(values, x).compile().cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    adds = graph.sizes(model).multiply_adds
    assert 2 * adds <= costs["flops"] <= 1.1 * (2 * adds)
