"""Models as people have them: the smaller one has the same outputs."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import graph
from keras_wd.graph import compaction
from keras_wd.graph.verify import examples
from keras_wd.graph.verify import outputs
from tests.graph.architectures import assert_same_outputs


def dead(layer, count=3):
    """The first units compute zero."""
    weights = layer.get_weights()
    weights[0][..., :count] = 0
    weights[1][:count] = 0
    layer.set_weights(weights)


def compacted(model, x, name="h", left=5):
    """Compact a model with three dead units of eight; compare outputs."""
    dead(model.get_layer(name))
    smaller = graph.compact(model)
    assert smaller.get_layer(name).kernel.shape[-1] == left
    found, wanted = smaller(x), model(x)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), ops.convert_to_numpy(wanted), atol=1e-5
    )
    kept = {id(variable) for variable in model.variables}
    assert not any(id(variable) in kept for variable in smaller.variables)
    return smaller


def sequential(*stack, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *stack])


def hidden(**arguments):
    return layers.Dense(8, "relu", name="h", **arguments)


def test_statistics_that_were_adapted_come_with_the_model(tmp_path):
    x = np.random.default_rng(0).normal(5, 3, (64, 4)).astype("float32")
    normalization = layers.Normalization()
    normalization.adapt(x)
    model = sequential(normalization, hidden(), layers.Dense(2))
    smaller = compacted(model, x)
    smaller.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert_same_outputs(smaller, loaded, x)


def looked_up(lookup, dtype, shape=(3,)):
    inputs = keras.Input(shape, dtype=dtype)
    embedded = layers.Embedding(5, 4)(lookup(inputs))
    x = hidden()(layers.Flatten()(embedded))
    return keras.Model(inputs, layers.Dense(2)(x))


def test_a_vocabulary_comes_with_the_model():
    lookup = layers.IntegerLookup()
    lookup.adapt(np.array([10, 20, 30]))
    x = np.array([[10, 20, 30], [30, 30, 7]])
    model = looked_up(lookup, "int64")
    smaller = compacted(model, x)
    (copy,) = (
        layer
        for layer in smaller.layers
        if isinstance(layer, layers.IntegerLookup)
    )
    assert copy.get_vocabulary() == lookup.get_vocabulary()


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="strings are tensors of TensorFlow alone",
)
def test_words_are_compared_on_words():
    model = looked_up(layers.StringLookup(vocabulary=["a", "b"]), "string")
    dead(model.get_layer("h"))
    smaller, report = graph.compact(model, report=True, batch_size=4)
    assert smaller.get_layer("h").units == 5
    assert report.milliseconds_after > 0 and report.batch_size == 4
    drawn = examples(model, compaction.read(model))
    assert set(np.asarray(drawn).ravel()) <= {b"a", b"b"}


def test_seeds_come_with_the_model():
    model = sequential(
        hidden(), layers.GaussianDropout(0.5, seed=1), layers.Dense(2)
    )
    inputs = keras.Input((4,))
    x = hidden()(inputs)
    noisy = layers.Dropout(0.5, seed=1)
    model = keras.Model(inputs, layers.Dense(2)(noisy(x)))
    ones = np.ones((2, 4), "float32")
    for _ in range(3):
        model(ones, training=True)
    smaller = compacted(model, ones)
    (state,) = smaller.non_trainable_variables
    np.testing.assert_array_equal(
        np.asarray(state), np.asarray(noisy.seed_generator.state)
    )


def squash(t):
    return t * ops.sigmoid(2 * t)


def penalty(w):
    return 1e-3 * ops.sum(w * w)


class Twice(layers.Layer):
    def call(self, t):
        return 2 * t

    def compute_output_shape(self, shape):
        return shape


class Mixing(layers.Layer):
    """Variables and layers of its own, some of them in lists."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.parts = [layers.Dense(4), layers.Dropout(0.1)]
        self.method = self.inner

    def build(self, shape):
        self.scale = self.add_weight(shape=(4,), initializer="ones")
        self.parts[0].build(shape)
        self.table = {"again": self.scale}

    def inner(self, t):
        return self.table["again"] * self.parts[0](t)

    def call(self, t):
        return self.function(self.method(t))


CUSTOM = {
    "a layer": lambda: [Twice()],
    "a layer in another": lambda: [
        layers.Dense(3),
        layers.TimeDistributed(Twice()),
    ],
    "an activation": lambda: [layers.Dense(6, activation=squash)],
    "two functions of the same name": lambda: [
        layers.Dense(6, activation=lambda t: t + 1),
        layers.Lambda(lambda t: 3 * t),
    ],
    "a regularizer": lambda: [layers.Dense(6, kernel_regularizer=penalty)],
    "variables and layers": lambda: [Mixing(lambda t: -t)],
}


@pytest.mark.parametrize("name", CUSTOM)
def test_what_the_user_wrote_is_shared(name):
    stack = [hidden(), layers.Dense(4), *CUSTOM[name]()]
    model = sequential(*stack, shape=(3, 4))
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    smaller = compacted(model, x)
    assert len(smaller.variables) == len(model.variables)
    last = smaller.layers[-1]
    if name == "a regularizer":
        assert last.kernel_regularizer is penalty
    if name == "variables and layers":
        # Trained, the copy changes and the original does not.
        before = outputs(model, x)
        last.scale.assign(2 * np.ones(4))
        np.testing.assert_array_equal(outputs(model, x), before)
        np.testing.assert_allclose(
            outputs(smaller, x)[0], 2 * before[0], rtol=1e-4
        )


class Net(keras.Model):
    """The documented way to make a Functional model a class."""

    def __init__(self, width, **kwargs):
        inputs = keras.Input((4,), name="x")
        x = layers.Dense(width, "relu", name="h")(inputs)
        super().__init__({"x": inputs}, layers.Dense(2, name="o")(x), **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width}


def test_a_class_with_a_configuration_of_its_own(tmp_path):
    model = Net(8)
    assert [pair.kernels for pair in graph.homogeneous_units(model)] == [
        ("h/kernel", "o/kernel")
    ]
    x = {"x": np.ones((2, 4), "float32")}
    smaller = compacted(model, x)
    # That can say how small it is.
    assert (type(smaller), smaller.width, smaller.name) == (Net, 5, model.name)
    smaller.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras", {"Net": Net})
    assert loaded.get_layer("h").units == 5


def test_a_class_inside_another_model():
    net = Net(8, name="net")
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, layers.Activation("tanh")(net({"x": inputs})))
    assert graph.explain(model).rows[0].layer == "net/h"
    dead(net.get_layer("h"))
    smaller = graph.compact(model)
    assert smaller.get_layer("net").get_layer("h").units == 5


class Broken(layers.Layer):
    def call(self, t):
        return t

    def get_config(self):
        return {**super().get_config(), "a": self.missing}


def test_a_configuration_that_fails_stops_nothing():
    model = sequential(Broken(), hidden(), layers.Dense(2))
    assert graph.homogeneous_units(model)
    dead(model.get_layer("h"))
    smaller, report = graph.compact(model, report=True, batch_size=2)
    assert smaller.get_layer("h").units == 5
    assert report.before.file_bytes is None and "-" in str(report)


def test_low_rank_adapters_come_with_the_model():
    model = sequential(hidden(), layers.Dense(6, name="b"), layers.Dense(2))
    model.get_layer("b").enable_lora(2)
    factor = model.get_layer("b").lora_kernel_b
    factor.assign(np.ones(factor.shape))
    explanation = graph.explain(model)
    assert "b has LoRA weights" in str(explanation)
    assert graph.homogeneous_units(model) == []
    assert len(explanation.weights) == len(model.trainable_variables)
    dead(model.layers[0])
    smaller = graph.compact(model)
    assert smaller is model  # what has adapters keeps its rows


def test_other_outputs_are_not_returned(monkeypatch):
    model = sequential(hidden(), layers.Dense(2, name="o"))
    dead(model.get_layer("h"))
    edits = compaction.edits

    def wrong(removal):
        found = edits(removal)
        found["o"].arrays["kernel"] = 1.01 * found["o"].arrays["kernel"]
        return found

    monkeypatch.setattr(compaction, "edits", wrong)
    with pytest.raises(ValueError, match="output 'o' differs by .*not retur"):
        graph.compact(model)


def test_inputs_that_cannot_be_guessed_are_asked_for():
    class Picky(layers.Layer):
        def call(self, t):
            if np.max(t) != 7:
                raise RuntimeError("sevens only")
            return t

        def compute_output_spec(self, t):
            return keras.KerasTensor(t.shape, t.dtype)

    model = sequential(Picky(), hidden(), layers.Dense(2))
    dead(model.get_layer("h"))
    with pytest.raises(ValueError, match="sevens only.*Pass `x=`"):
        graph.compact(model)
    x = np.full((2, 4), 7, "float32")
    assert graph.compact(model, x=x).get_layer("h").units == 5
