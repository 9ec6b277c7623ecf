"""Units that go through norms, attention and operations."""

import importlib

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import graph
from tests.graph.architectures import randomize

pytestmark = pytest.mark.one_backend


def functional(build, shape=(6, 6, 3)):
    inputs = keras.Input(shape)
    return randomize(keras.Model(inputs, build(inputs)))


def zero_units(layer, units, bias=0.0):
    for name in ("pointwise_kernel", "kernel", "bias"):
        variable = getattr(layer, name, None)
        if variable is None:
            continue
        values = np.array(variable)
        if name == "bias":
            values[units] = bias
        elif isinstance(layer, layers.Conv2DTranspose):
            values[..., units, :] = 0
        else:
            values[..., units] = 0
        variable.assign(values)


def conv(name, filters=4, size=3, **arguments):
    return layers.Conv2D(filters, size, name=name, **arguments)


def se(x):
    """Squeeze-and-excite, as MobileNetV3 writes it."""
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.ReLU()(conv("squeeze", 2, 1, padding="same")(gate))
    gate = conv("excite", 4, 1, padding="same")(gate)
    gate = layers.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)
    return layers.Multiply()([x, gate])


def operations(x):
    x = ops.pad(ops.silu(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = ops.reshape(ops.relu(x * 2.0) / 3.0, (-1, 64, 4))
    return ops.expand_dims(ops.maximum(x, 0.0), 1)


BETWEEN = {
    "squeeze-and-excite": se,
    "operations": operations,
    "separable": lambda x: layers.SeparableConv2D(
        5, 3, padding="same", depth_multiplier=2
    )(x),
    "transposed": lambda x: layers.Conv2DTranspose(5, 3, strides=2)(x),
    "as Dense": lambda x: layers.EinsumDense("...a,ab->...b", 5)(x),
    "rescaled": lambda x: layers.Rescaling(0.5)(x),
    "root mean square": lambda x: layers.RMSNormalization()(x),
    "hard silu": lambda x: x * ops.relu6(x + 3.0) / 6.0,
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_lies_between_follows(name):
    model = functional(
        lambda x: conv("out", 2, 1)(BETWEEN[name](conv("a", padding="same")(x)))
    )
    zero_units(model.get_layer("a"), [0, 2])
    # `compact` compares the outputs itself.
    assert graph.compact(model).get_layer("a").filters == 2


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2, name="a"),
        lambda: layers.Conv2DTranspose(4, 3, strides=2, name="a"),
    ],
)
def test_units_of_other_convolutions_are_removed(layer):
    model = functional(lambda x: conv("out", 2)(layers.ReLU()(layer()(x))))
    zero_units(model.get_layer("a"), [1, 2, 3], bias=0.5)
    smaller = graph.compact(model)
    assert smaller.get_layer("a").filters == 1


@pytest.mark.parametrize("bias", [None, "c"])
def test_an_einsum_may_be_a_dense_layer(bias):
    """Without a bias it gets one, for the constants that were removed."""

    def build(x):
        x = layers.EinsumDense(
            "nta,ab->ntb", (6, 4), "relu", name="a", bias_axes="b"
        )(x)
        return layers.EinsumDense(
            "...b,bc->...c", 2, bias_axes=bias, name="out"
        )(x)

    model = functional(build, (6, 3))
    zero_units(model.get_layer("a"), [1, 3], bias=0.5)
    assert graph.sizes(model).multiply_adds == 6 * (3 * 4 + 4 * 2)
    smaller = graph.compact(model)
    assert smaller.get_layer("a").kernel.shape == (3, 2)
    assert smaller.get_layer("out").kernel.shape == (2, 2)
    assert smaller.get_layer("out").bias is not None
    assert graph.sizes(smaller).multiply_adds == 6 * (3 * 2 + 2 * 2)
    pruned = graph.prune(model, ratio=0.5, round_to=1)
    assert pruned.get_layer("a").kernel.shape == (3, 2)


@pytest.mark.parametrize(
    "equation, shape",
    [
        ("abc,bce->abe", (6, 4)),
        ("abc,dc->abd", (6, 4)),
        ("abc,cd->adb", (4, 6)),
    ],
)
def test_other_einsums_keep_their_channels(equation, shape):
    model = functional(
        lambda x: layers.EinsumDense(equation, shape, name="e")(x), (6, 8)
    )
    _, report = graph.compact(model, report=True, batch_size=None)
    assert "not known to treat channels separately" in report.layers[0].note


def test_a_scaled_residual_of_inception_resnet_goes_on_both_sides():
    scaled = importlib.import_module(
        "keras.src.applications.inception_resnet_v2"
    ).CustomScaleLayer

    def build(x):
        x = conv("stem", 4, 1)(x)
        y = conv("branch", 4, 1)(x)
        return conv("out", 2, 1)(layers.ReLU()(scaled(0.25)([x, y])))

    model = functional(build)
    zero_units(model.get_layer("stem"), [1], bias=0.5)
    # Its constant goes into the bias of what reads it, a quarter of the other.
    zero_units(model.get_layer("branch"), [1, 2], bias=-1.0)
    smaller = graph.compact(model)
    kept = [smaller.get_layer(n).filters for n in ("stem", "branch")]
    assert kept == [3, 3]


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_window_of_one_position_reaches_no_border(padding):
    model = functional(lambda x: conv("b", 2, 1, padding=padding)(conv("a")(x)))
    zero_units(model.get_layer("a"), [1], bias=1.0)
    assert graph.compact(model).get_layer("a").filters == 3


def test_scales_of_layers_follow_their_channels(tmp_path):
    scale = importlib.import_module(
        "keras.src.applications.convnext"
    ).LayerScale

    def build(x):
        x = conv("body")(x)
        x = scale(0.5, 4, name="scale")(x)
        return layers.Dense(2, name="head")(layers.Flatten()(x))

    model = functional(build)
    zero_units(model.get_layer("body"), [0], bias=0.7)
    # A scale of zero makes a constant too.
    model.get_layer("scale").gamma.assign([3.0, 0.0, 2.0, 1.0])
    smaller = graph.compact(model)
    assert smaller.get_layer("body").filters == 2
    np.testing.assert_array_equal(smaller.get_layer("scale").gamma, [2, 1])
    smaller.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype("float32")
    for found in (smaller, again):
        np.testing.assert_allclose(found(x), model(x), rtol=1e-5, atol=1e-6)
    effects = {row.effect for row in graph.explain(model).weights}
    assert effects == {"function"}


def test_a_group_is_removed_as_a_whole():
    model = functional(
        lambda x: conv("out", 2)(
            layers.GroupNormalization(3, name="norm")(conv("a", 6)(x))
        )
    )
    zero_units(model.get_layer("a"), [0, 1, 2])
    assert graph.compact(model).get_layer("a").filters == 6 - 2 - 0
    kernel = np.array(model.get_layer("out").kernel)
    kernel[..., 2:4, :] = 0
    model.get_layer("out").kernel.assign(kernel)
    smaller = graph.compact(model)
    assert smaller.get_layer("norm").groups == 1


def test_a_constant_tensor_keeps_its_channels_and_is_named():
    table = np.ones((1, 1, 1, 4), "float32")
    model = functional(
        lambda x: conv("out", 2)(layers.Multiply()([conv("a")(x), table]))
    )
    zero_units(model.get_layer("a"), [1])
    smaller, report = graph.compact(model, report=True, batch_size=2)
    assert smaller is model
    assert "joins it with a constant tensor" in report.layers[0].note


def multi_head(x):
    return layers.MultiHeadAttention(4, 3, name="m")(x, x, use_causal_mask=True)


def grouped_query(x):
    return layers.GroupQueryAttention(3, 8, 4, name="m")(x, x)


@pytest.mark.parametrize("attention", [multi_head, grouped_query])
def test_heads_that_nothing_reads_are_removed(attention):
    def build(x):
        x = layers.RMSNormalization()(layers.Embedding(11, 8, name="e")(x))
        x = layers.Add()([x, attention(x)])
        return layers.Dense(2, name="out")(x)

    inputs = keras.Input((5,), dtype="int32")
    model = randomize(keras.Model(inputs, build(inputs)))
    part = model.get_layer("m")._output_dense
    values = np.array(part.kernel)
    values[: len(values) // 2] = 0
    part.kernel.assign(values)
    smaller, report = graph.compact(model, report=True, batch_size=2)
    heads = smaller.get_layer("m")._output_dense.kernel.shape[0]
    assert heads == len(values) // 2
    assert report.after.multiply_adds < report.before.multiply_adds
    # The width goes where every reader and writer agrees.
    table = np.array(model.get_layer("e").embeddings)
    table[:, 3] = 0
    model.get_layer("e").embeddings.assign(table)
    values[..., 3] = 0
    part.kernel.assign(values)
    if part.bias is not None:
        bias = np.array(part.bias)
        bias[3] = 0
        part.bias.assign(bias)
    assert graph.compact(model).get_layer("e").output_dim == 7


@pytest.mark.slow(reason="a whole network of Keras")
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX compiles each operation that it runs by itself: minutes",
)
@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV3Small",
        pytest.param(
            "EfficientNetB0",
            marks=pytest.mark.weekly(reason="a second network of Keras"),
        ),
    ],
)
def test_a_network_of_keras_loses_all_units_that_are_dead_together(name):
    application = getattr(keras.applications, name)
    model = application(
        weights=None, input_shape=(32, 32, 3), classes=5, pooling="avg"
    )
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.adapt(np.random.default_rng(0).normal(2, 3, (8, 32, 32, 3)))
    total = dead = 0
    for layer in model.layers[:-1]:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and not isinstance(layer, layers.DepthwiseConv2D):
            count = kernel.shape[-1]
            zero_units(layer, slice(0, count // 4))
            total, dead = total + count, dead + count // 4
    smaller, report = graph.compact(model, report=True, batch_size=None)
    gone = report.before.units - report.after.units
    assert gone >= 0.98 * dead
    assert report.milliseconds_before is None
