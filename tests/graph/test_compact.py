"""Smaller models with the same outputs, layer by layer."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import graph
from tests.graph.architectures import assert_same_outputs
from tests.graph.architectures import examples
from tests.graph.architectures import outputs
from tests.graph.architectures import randomize

pytestmark = pytest.mark.one_backend


def sequential(*stack, shape=(6,)):
    return randomize(keras.Sequential([keras.Input(shape), *stack]))


def functional(build, shape=(5, 5, 2)):
    source = keras.Input(shape)
    return randomize(keras.Model(source, build(source)))


def zero_columns(layer, units, bias=None):
    """Zero the input weights of units, and set their bias if given."""
    kernel = np.asarray(layer.kernel).copy()
    kernel[..., units] = 0
    layer.kernel.assign(kernel)
    if bias is not None:
        values = np.asarray(layer.bias).copy()
        values[units] = bias
        layer.bias.assign(values)


def zero_rows(layer, rows):
    """Zero the weights that read some rows."""
    kernel = np.asarray(layer.kernel).copy()
    kernel[..., rows, :] = 0
    layer.kernel.assign(kernel)


def size(model, name):
    return model.get_layer(name).kernel.shape[-1]


def conv(units, name, **arguments):
    return layers.Conv2D(units, 3, name=name, **arguments)


def assert_same_and_smaller(model, **sizes):
    """Compact, compare outputs and the number of units of layers."""
    smaller = graph.compact(model)
    assert smaller is not model
    assert type(smaller) is type(model) and smaller.name == model.name
    assert_same_outputs(model, smaller, examples(model))
    assert {name: size(smaller, name) for name in sizes} == sizes
    return smaller


def test_units_that_nothing_reads_are_removed():
    model = sequential(
        layers.Dense(8, "relu", name="a"),
        layers.Dense(7, "tanh", name="b"),
        layers.Dense(3, "softmax", name="c"),
    )
    zero_rows(model.get_layer("b"), [0, 3, 5])
    zero_rows(model.get_layer("c"), [1, 2])
    smaller = assert_same_and_smaller(model, a=5, b=5, c=3)
    np.testing.assert_array_equal(
        np.asarray(smaller.get_layer("a").bias),
        np.asarray(model.get_layer("a").bias)[[1, 2, 4, 6, 7]],
    )


def test_what_only_feeds_dead_units_is_dead_too():
    model = sequential(
        layers.Dense(4, "relu", name="a"),
        layers.Dense(5, "relu", name="b"),
        layers.Dense(3, name="c"),
    )
    kernel = np.asarray(model.get_layer("b").kernel).copy()
    kernel[0, 1:] = 0  # unit 0 of a is read by unit 0 of b alone
    model.get_layer("b").kernel.assign(kernel)
    zero_rows(model.get_layer("c"), [0])
    assert_same_and_smaller(model, a=3, b=4)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "gelu"])
def test_constants_move_into_the_next_bias(activation):
    model = sequential(
        layers.Dense(6, activation, name="a"), layers.Dense(3, name="b")
    )
    zero_columns(model.get_layer("a"), [1, 4], bias=0.7)
    before = np.asarray(model.get_layer("b").bias)
    smaller = assert_same_and_smaller(model, a=4)
    moved = np.asarray(smaller.get_layer("b").bias) - before
    assert np.abs(moved).min() > 1e-3


def test_a_layer_without_a_bias_gets_one_for_constants_and_only_then():
    model = sequential(
        layers.Dense(6, "relu", name="a"),
        layers.Dense(3, use_bias=False, name="b"),
    )
    zero_columns(model.get_layer("a"), [1], bias=-0.5)
    smaller = assert_same_and_smaller(model, a=5)
    assert smaller.get_layer("b").bias is None
    zero_columns(model.get_layer("a"), [2], bias=0.5)
    smaller, report = graph.compact(model, report=True)
    assert smaller.get_layer("b").bias is not None
    assert_same_outputs(model, smaller, examples(model))
    assert "went into a bias" in report.layers[1].note


def test_a_chain_of_constants_is_folded_once():
    model = sequential(
        layers.Dense(4, "relu", name="a"),
        layers.Dense(4, "relu", name="b"),
        layers.Dense(4, name="c"),
    )
    zero_columns(model.get_layer("a"), [0, 1], bias=1.0)
    kernel = np.asarray(model.get_layer("b").kernel).copy()
    kernel[2:, 0] = 0  # unit 0 of b reads constants only
    model.get_layer("b").kernel.assign(np.abs(kernel))
    assert_same_and_smaller(model, a=2, b=3)


def test_zero_padding_keeps_a_constant_that_is_not_zero():
    for padding, left in (("same", 4), ("valid", 3)):
        model = sequential(
            conv(4, "a", activation="relu"),
            conv(3, "b", padding=padding),
            shape=(8, 8, 2),
        )
        zero_columns(model.get_layer("a"), [1], bias=0.5)
        smaller, report = graph.compact(model, report=True)
        assert size(smaller, "a") == left
        assert_same_outputs(model, smaller, examples(model))
    model = sequential(
        conv(4, "a", activation="relu"),
        layers.ZeroPadding2D(1),
        conv(3, "b"),
        shape=(8, 8, 2),
    )
    zero_columns(model.get_layer("a"), [1], bias=0.5)
    assert graph.compact(model) is model
    zero_columns(model.get_layer("a"), [1], bias=-0.5)
    assert_same_and_smaller(model, a=3)


@pytest.mark.few_cases(3)
@pytest.mark.parametrize(
    "between",
    [
        [layers.Flatten],
        [lambda: layers.Reshape((-1,))],
        [lambda: layers.Reshape((9 * 4,))],
        [lambda: layers.Reshape((9, 4)), layers.Flatten],
        [layers.GlobalAveragePooling2D],
        [layers.GlobalMaxPooling2D],
        [layers.MaxPooling2D, layers.Flatten],
        [layers.UpSampling2D, lambda: layers.Cropping2D(1), layers.Flatten],
        [layers.PReLU, layers.Flatten],
        [lambda: layers.PReLU(shared_axes=[1, 2, 3]), layers.Flatten],
        [layers.BatchNormalization, layers.ReLU, layers.Flatten],
        [lambda: layers.DepthwiseConv2D(2, depth_multiplier=3), layers.Flatten],
        [lambda: layers.GaussianNoise(0.1), layers.Flatten],
    ],
)
def test_the_rows_downstream_follow(between):
    model = sequential(
        conv(4, "a"),
        *(layer() for layer in between),
        layers.Dense(3, name="b"),
        shape=(5, 5, 2),
    )
    zero_columns(model.get_layer("a"), [0, 2], bias=0.3)
    smaller = assert_same_and_smaller(model, a=2)
    rows = model.get_layer("b").kernel.shape[0]
    assert smaller.get_layer("b").kernel.shape[0] == rows // 2


def test_the_statistics_of_a_normalization_follow():
    model = sequential(
        conv(4, "a", use_bias=False),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
        conv(3, "b"),
        shape=(6, 6, 2),
    )
    gamma = np.asarray(model.get_layer("bn").gamma).copy()
    gamma[1] = 0
    model.get_layer("bn").gamma.assign(gamma)
    smaller = assert_same_and_smaller(model, a=3)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        np.testing.assert_array_equal(
            np.asarray(getattr(smaller.get_layer("bn"), name)),
            np.asarray(getattr(model.get_layer("bn"), name))[[0, 2, 3]],
        )


def residual(x):
    x = conv(4, "stem", padding="same", activation="relu")(x)
    y = conv(6, "inner", padding="same", activation="relu")(x)
    y = conv(4, "branch", padding="same")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    return layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))


def test_a_residual_join_shrinks_where_all_branches_agree():
    model = functional(residual)
    zero_rows(model.get_layer("branch"), [1, 4])
    zero_columns(model.get_layer("stem"), [0, 1], bias=-1.0)
    zero_columns(model.get_layer("branch"), [1, 2], bias=-1.0)
    # Unit 1 is zero in both branches, 0 and 2 in one of them.
    assert_same_and_smaller(model, stem=3, branch=3, inner=4)


def test_a_unit_that_several_layers_read_stays_while_one_needs_it():
    def build(x):
        x = layers.Dense(5, "relu", name="a")(x)
        return [layers.Dense(2, name=name)(x) for name in "bc"]

    model = functional(build, shape=(3,))
    zero_rows(model.get_layer("b"), [0, 1])
    zero_rows(model.get_layer("c"), [1, 2])
    assert_same_and_smaller(model, a=4)


def test_concatenated_branches_keep_their_own_units():
    def build(x):
        left = layers.Dense(4, "relu", name="left")(x)
        right = layers.Dense(3, "relu", name="right")(x)
        return layers.Dense(2, name="head")(
            layers.Concatenate()([left, x, right])
        )

    model = functional(build, shape=(3,))
    zero_columns(model.get_layer("left"), [1], bias=2.0)
    zero_rows(model.get_layer("head"), [4, 7, 8])  # x cannot shrink
    assert_same_and_smaller(model, left=3, right=1)


def test_addition_written_as_an_operator_and_an_operation():
    def build(x):
        y = layers.Dense(4, name="a")(x)
        z = layers.Dense(4, name="b")(x)
        return layers.Dense(2)(keras.ops.relu(y + z))

    model = functional(build, shape=(3,))
    for name in "ab":
        zero_columns(model.get_layer(name), [2], bias=0.25)
    assert_same_and_smaller(model, a=3, b=3)


def test_nested_models_shrink_inside():
    inner = keras.Sequential(
        [
            keras.Input((5, 5, 4)),
            conv(4, "in_a", padding="same", activation="relu"),
            conv(4, "in_b"),
        ],
        name="inner",
    )

    def build(x):
        x = inner(conv(4, "out", padding="same", activation="relu")(x))
        return layers.Dense(2)(layers.Flatten()(x))

    model = functional(build)
    zero_columns(model.get_layer("out"), [0], bias=0.0)
    zero_columns(inner.get_layer("in_a"), [1, 2], bias=-1.0)
    smaller = graph.compact(model)
    assert size(smaller, "out") == 3
    assert size(smaller.get_layer("inner"), "in_a") == 2
    assert_same_outputs(model, smaller, examples(model))


def test_a_layer_of_dead_units_keeps_one():
    model = sequential(
        layers.Dense(4, "relu", name="a"), layers.Dense(2, name="b")
    )
    zero_rows(model.get_layer("b"), [0, 1, 2, 3])
    smaller = assert_same_and_smaller(model, a=1)
    assert graph.compact(smaller) is smaller


def test_a_model_with_nothing_dead_is_returned_itself():
    model = sequential(layers.Dense(4, "relu"), layers.Dense(2))
    assert graph.compact(model) is model
    same, report = graph.compact(model, report=True)
    assert same is model
    assert report.before == report.after


UNSUPPORTED = {
    "layer_normalization subtracts the mean over all channels": (
        lambda: layers.LayerNormalization()
    ),
    "softmax.*not known to treat channels": lambda: layers.Softmax(),
    "reshape splits the channels into 2 groups of 2": (
        lambda: layers.Reshape((2, 2))
    ),
    "batch_normalization does not normalize the last axis": (
        lambda: layers.BatchNormalization(axis=1)
    ),
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_layers_before_something_unknown_are_left_whole_and_named(message):
    shape = (3, 3, 2) if "axis" in message else (6,)
    model = sequential(
        layers.Dense(4, "relu", name="a"),
        UNSUPPORTED[message](),
        layers.Dense(5, "relu", name="b"),
        layers.Dense(2, name="c"),
        shape=shape,
    )
    zero_columns(model.get_layer("a"), [1], bias=0.5)
    zero_columns(model.get_layer("b"), [2], bias=0.5)
    smaller, report = graph.compact(model, report=True)
    assert_same_outputs(model, smaller, examples(model))
    assert size(smaller, "a") == 4 and size(smaller, "b") == 4
    note = report.layers[0].note
    with pytest.raises(AssertionError, match=f"left whole: {message}"):
        raise AssertionError(note)
    assert note in str(report)


def test_a_layer_with_two_places_is_left_whole_and_named():
    shared = layers.Dense(4, "relu", name="shared")
    entrance = keras.Input((4,))
    nested = keras.Model(entrance, shared(entrance), name="nested")
    inputs = keras.Input((4,))
    x = nested(shared(layers.Dense(4, name="a")(inputs)))
    model = keras.Model(inputs, layers.Dense(2, name="c")(x))
    for name in ("a", "shared"):
        zero_columns(model.get_layer(name), [0], bias=0)
    smaller, report = graph.compact(model, report=True, batch_size=None)
    assert smaller is model
    notes = {row.layer: row.note for row in report.layers}
    for name in ("a", "shared", "nested/shared"):
        assert "is called as nested/shared and as shared" in notes[name]


def siamese():
    entrance = keras.Input((6, 6, 3))
    x = layers.Conv2D(6, 3, name="a")(entrance)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    x = layers.Flatten()(x)
    tower = keras.Model(entrance, layers.Dense(8, name="b")(x), name="tower")
    inputs = [keras.Input((6, 6, 3)) for _ in range(2)]
    one, other = map(tower, inputs)
    x = layers.Dense(2, name="c")(keras.ops.abs(one - other))
    return randomize(keras.Model(inputs, x))


def test_a_shared_layer_has_one_size_in_all_its_calls():
    model = siamese()
    tower = model.get_layer("tower")
    zero_columns(tower.get_layer("a"), [0], bias=0.1)
    kernel, bias = model.get_layer("c").get_weights()
    kernel[:3] = 0
    model.get_layer("c").set_weights([kernel, bias])
    x = [np.random.default_rng(i).normal(size=(4, 6, 6, 3)) for i in (0, 1)]
    smaller, report = graph.compact(model, report=True, batch_size=None)
    assert_same_outputs(model, smaller, x)
    # A constant that is not zero cannot go into the bias of several calls.
    rows = {row.layer: row.units_after for row in report.layers}
    assert rows == {"tower/a": 6, "tower/b": 5, "c": 2}
    assert len(report.layers) == len(rows)
    pruned = graph.prune(model, ratio=0.5, round_to=1).get_layer("tower")
    assert size(pruned, "a") + size(pruned, "b") == 7


def test_a_unit_that_one_call_of_a_layer_needs_stays():
    inputs = keras.Input((5,))
    shared = layers.Dense(4, name="shared")
    one = shared(layers.Dense(5, name="a")(inputs))
    other = shared(layers.Dense(5, name="b")(inputs))
    one, other = (
        layers.Dense(2, name="c")(one),
        layers.Dense(2, name="d")(other),
    )
    model = randomize(keras.Model(inputs, [one, other]))
    for name, rows in {"c": [0, 1], "d": [1, 2]}.items():
        kernel, bias = model.get_layer(name).get_weights()
        kernel[rows] = 0
        model.get_layer(name).set_weights([kernel, bias])
    # Nothing is made of unit 0 of `a` alone, of 1 in both.
    zero_columns(model.get_layer("a"), [0, 1], bias=0)
    zero_columns(model.get_layer("b"), [1], bias=0)
    smaller = graph.compact(model)
    assert_same_outputs(model, smaller, examples(model))
    assert size(smaller, "shared") == 3
    assert size(smaller, "a") == size(smaller, "b") == 4


def test_channels_that_an_operation_concatenates_are_those_of_its_parts():
    def build(x):
        one = layers.Conv2D(4, 1, name="a")(x)
        other = layers.Conv2D(4, 1, name="b")(x)
        x = keras.ops.concatenate([one, other], axis=-1)
        x = layers.BatchNormalization()(x)
        return layers.Conv2D(2, 1, name="c")(x)

    model = randomize(functional(build))
    kernel, bias = model.get_layer("c").get_weights()
    kernel[:, :, [0, 5, 6]] = 0
    model.get_layer("c").set_weights([kernel, bias])
    smaller = graph.compact(model)
    assert_same_outputs(model, smaller, examples(model))
    assert size(smaller, "a") == 3 and size(smaller, "b") == 2


def test_a_threshold_removes_units_whose_path_product_is_small():
    model = sequential(
        layers.Dense(6, "relu", name="a"), layers.Dense(3, name="b")
    )
    for name, axis in (("a", -1), ("b", 0)):
        kernel = np.asarray(model.get_layer(name).kernel).copy()
        np.moveaxis(kernel, axis, 0)[:2] *= 1e-4
        model.get_layer(name).kernel.assign(kernel)
    assert graph.compact(model) is model
    assert graph.compact(model, 1e-10) is model
    smaller = graph.compact(model, 1e-6)
    assert size(smaller, "a") == 4
    x = examples(model)
    error = np.abs(outputs(model, x) - outputs(smaller, x)).max()
    assert error <= 2e-6 * np.linalg.norm(x, axis=1).max()


def test_a_threshold_respects_what_cannot_be_removed():
    model = sequential(
        conv(4, "a", activation="relu"),
        conv(3, "b", padding="same"),
        shape=(8, 8, 2),
    )
    zero_columns(model.get_layer("a"), [1], bias=0.5)
    kernel = np.asarray(model.get_layer("a").kernel).copy()
    kernel[..., 1] = 1e-9
    model.get_layer("a").kernel.assign(kernel)
    # Its constant is not one at the border, so its true weights are kept.
    smaller = graph.compact(model, 1e-6)
    assert size(smaller, "a") == 4


@pytest.mark.parametrize("threshold", [-1.0, float("nan"), "small", True])
def test_a_threshold_out_of_range_is_refused(threshold):
    model = sequential(layers.Dense(2))
    with pytest.raises(ValueError, match="threshold.*>= 0. Received"):
        graph.compact(model, threshold)


def test_the_given_model_is_not_changed_and_the_new_one_not_compiled():
    model = sequential(
        layers.Dense(6, "relu", name="a", kernel_regularizer="l2"),
        layers.Dropout(0.5, seed=3),
        layers.Dense(3, name="b", trainable=False),
    )
    model.compile("adam", "mse")
    x = examples(model)
    model.train_on_batch(x, np.zeros((len(x), 3)))
    zero_columns(model.get_layer("a"), [1], bias=0.5)
    before = [np.asarray(v).copy() for v in model.variables]
    smaller, _ = graph.compact(model, report=True)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))
    assert model.compiled and not smaller.compiled
    assert not smaller.get_layer("b").trainable
    assert smaller.get_layer("a").kernel_regularizer is not None
    model.train_on_batch(x, np.zeros((len(x), 3)))
    smaller.compile("sgd", "mse")
    smaller.train_on_batch(x, np.zeros((len(x), 3)))
    assert np.isfinite(outputs(model, x)).all()


class Plain(keras.Model):
    """A functional model with a class of its own."""


class Scaled(layers.Layer):
    def call(self, x):
        return 2 * x


def test_classes_of_the_user_are_kept():
    source = keras.Input((4,))
    x = layers.Dense(5, "relu", name="a")(source)
    x = Scaled(name="scaled")(layers.Dense(3, name="b")(x))
    model = randomize(Plain(source, layers.Lambda(lambda y: y + 1)(x)))
    zero_columns(model.get_layer("a"), [1], bias=0.5)
    assert_same_and_smaller(model, a=4)


def test_a_compacted_model_is_saved_and_loaded(tmp_path):
    model = functional(residual)
    zero_rows(model.get_layer("branch"), [1, 4])
    smaller = graph.compact(model)
    smaller.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert size(loaded, "inner") == 4
    assert_same_outputs(smaller, loaded, examples(model))


def test_what_was_set_on_variables_stays():
    model = sequential(layers.Dense(8, "relu", name="a"), layers.Dense(2))
    layer = model.get_layer("a")
    zero_columns(layer, [0, 1, 2], 0.5)
    layer.kernel.regularizer = keras.regularizers.L2(0.1)
    layer.kernel.constraint = keras.constraints.NonNeg()
    layer.bias.trainable = False
    smaller = graph.compact(model).get_layer("a")
    assert smaller.units == 5
    assert smaller.kernel.regularizer is layer.kernel.regularizer
    assert smaller.kernel.constraint is layer.kernel.constraint
    assert not smaller.bias.trainable
