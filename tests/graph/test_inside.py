"""Layers of other authors become smaller inside."""

import keras
import numpy as np
import pytest
from keras import activations
from keras import layers
from keras import ops

from keras_wd import callbacks
from keras_wd import graph
from keras_wd.graph import followed
from keras_wd.graph import traits

pytestmark = pytest.mark.one_backend


@keras.saving.register_keras_serializable("test_inside")
class Gated(layers.Layer):
    """x + down(gelu(up(x)) * gate(x)), as in the decoders of KerasHub."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.up = layers.Dense(width, approximate_gelu, name="up")
        self.gate = layers.Dense(width, name="gate")

    def build(self, shape):
        self.down = layers.Dense(shape[-1], name="down")
        self.up.build(shape)
        self.gate.build(shape)
        self.down.build((*shape[:-1], self.width))

    def call(self, x):
        return x + self.down(self.up(x) * self.gate(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("test_inside")
class Tower(layers.Layer):
    """Several of them, of one width, with heads of attention before."""

    def __init__(self, width, depth, heads=2, per_head=2, **kwargs):
        super().__init__(**kwargs)
        self.width, self.depth = width, depth
        self.heads, self.per_head = heads, per_head
        size = per_head or 8 // heads
        self.mix = layers.MultiHeadAttention(heads, size, name="mix")
        self.blocks = [Gated(width, name="gated") for _ in range(depth)]

    def build(self, shape):
        self.mix.build(shape, shape)
        for block in self.blocks:
            block.build(shape)

    def call(self, x, training=None):
        x = x + self.mix(x, x, training=training)
        for block in self.blocks:
            x = block(x)
        return x

    def get_config(self):
        sizes = {"width": self.width, "depth": self.depth}
        sizes |= {"heads": self.heads, "per_head": self.per_head}
        return {**super().get_config(), **sizes}


class Plain(layers.Layer):
    """x + down(relu(up(x)))."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.up = layers.Dense(width, "relu", name="up")

    def build(self, shape):
        self.down = layers.Dense(shape[-1], name="down")
        self.up.build(shape)
        self.down.build((*shape[:-1], self.width))

    def call(self, x):
        return x + self.down(self.up(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class Unsaid(layers.Layer):
    """Without `get_config`: Keras keeps the arguments, if they are plain."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.up = layers.Dense(width, "relu", name="up")
        self.down = layers.Dense(4, name="down")

    def call(self, x):
        return x + self.down(self.up(x))


class Fixed(Gated):
    """Says nothing of its width."""

    def __init__(self, **kwargs):
        super().__init__(8, **kwargs)

    def get_config(self):
        return layers.Layer.get_config(self)


class Broken(Gated):
    """As some of KerasHub: `get_config` raises."""

    def get_config(self):
        raise AttributeError("no such attribute")


def approximate_gelu(x):
    return activations.gelu(x, approximate=True)


def kill(block, *units, bias=0.3):
    """Units that are constants: their input weights are zero."""
    for layer in (block.up, block.gate):
        kernel, old = layer.get_weights()
        kernel[:, list(units)] = 0
        old[list(units)] = bias
        layer.set_weights([kernel, old])


def network(*blocks, steps=6):
    inputs = keras.Input((steps, 4))
    x = inputs
    for block in blocks:
        x = block(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def outputs(model):
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    return ops.convert_to_numpy(model(x))


def test_dead_units_inside_are_removed_and_the_class_stays(tmp_path):
    model = network(Gated(8, name="one"), Gated(8, name="two"))
    one, two = model.get_layer("one"), model.get_layer("two")
    kill(one, 0, 3, 7)
    kill(two, 5)
    smaller, report = graph.compact(model, report=True, batch_size=None)
    assert [smaller.get_layer(n).width for n in ("one", "two")] == [5, 7]
    assert type(smaller.get_layer("one")) is Gated
    np.testing.assert_allclose(
        outputs(smaller), outputs(model), rtol=1e-5, atol=1e-6
    )
    rows = {row.layer: row for row in report.layers}
    assert (rows["one/up"].units_before, rows["one/up"].units_after) == (8, 5)
    assert "it is joined to an input of one" in rows["one/down"].note
    # As many numbers as the units had, and a file that can be read.
    assert model.count_params() - smaller.count_params() == 4 * (2 * 5 + 4)
    smaller.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(again), outputs(smaller), rtol=1e-6)
    assert model.get_layer("one").width == 8


@pytest.mark.few_cases(1)
@pytest.mark.parametrize("per_head", [2, None])
def test_heads_inside_go_where_the_configuration_has_their_number(per_head):
    """Where their number decides their size, only the other units go."""
    model = network(Tower(8, 1, heads=4, per_head=per_head, name="tower"))
    tower = model.get_layer("tower")
    kill(tower.blocks[0], 0, 1, 2)
    rows = np.array(tower.mix._output_dense.kernel)
    rows[1:] = 0
    tower.mix._output_dense.kernel.assign(rows)
    smaller, report = graph.compact(model, report=True, batch_size=None)
    heads = 1 if per_head else 4
    found = smaller.get_layer("tower")
    assert (found.width, found.mix.num_heads) == (5, heads)
    (row,) = [row for row in report.layers if row.layer == "tower/mix"]
    assert row.units_after == heads
    assert per_head or "fewer than 4 heads of that size" in row.note
    np.testing.assert_allclose(
        outputs(smaller), outputs(model), rtol=1e-5, atol=1e-6
    )


def test_what_reads_a_layer_says_why_its_units_stay():
    """The reason is that of the layers inside, not that it is a layer."""
    inputs = keras.Input((6, 3))
    x = layers.Dense(4, name="into")(inputs)
    x = Normed(8, name="one")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    report = graph.compact(model, report=True, batch_size=None)[1]
    (row,) = [row for row in report.layers if row.layer == "into"]
    assert row.note == (
        "left whole: one/norm subtracts the mean over all channels, which is "
        "another one without some of them"
    )


def test_a_threshold_reaches_inside():
    model = network(Plain(8, name="one"))
    kernel, bias = model.get_layer("one").down.get_weights()
    kernel[:2] = 1e-9
    model.get_layer("one").down.set_weights([kernel, bias])
    smaller = graph.compact(model, threshold=1e-7)
    assert smaller.get_layer("one").width == 6
    np.testing.assert_allclose(
        outputs(smaller), outputs(model), rtol=1e-5, atol=1e-6
    )


def test_a_layer_without_an_entry_for_its_width_stays_and_says_why():
    model = network(Fixed(name="fixed"))
    kill(model.get_layer("fixed"), 0, 1)
    same, report = graph.compact(model, report=True, batch_size=None)
    assert same is model
    (row,) = [row for row in report.layers if row.layer == "fixed/up"]
    assert row.units_after == 8
    assert "fixed has no entry in its configuration that changes" in row.note


def test_a_configuration_that_raises_is_read_from_the_attributes():
    model = network(Broken(8, name="broken"))
    kill(model.get_layer("broken"), 0, 1)
    smaller = graph.compact(model)
    assert smaller.get_layer("broken").width == 6
    np.testing.assert_allclose(
        outputs(smaller), outputs(model), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "function, answer",
    [
        (approximate_gelu, True),
        (lambda x: x * ops.sigmoid(2.0 * x), True),
        (lambda x: x / x.shape[-1], False),
        (lambda x: x - ops.mean(x), False),
        (lambda x: ops.softmax(x), False),
        (lambda x: x + np.arange(x.shape[-1]), False),
        (np.tanh, False),
    ],
)
def test_functions_of_operations_are_followed(function, answer):
    assert traits.is_elementwise(function) == answer


class Normed(Plain):
    """x + down(relu(up(normalized x))), the epsilon of no configuration."""

    def __init__(self, width, **kwargs):
        super().__init__(width, **kwargs)
        self.norm = layers.LayerNormalization(name="norm")

    def build(self, shape):
        self.norm.build(shape)
        super().build(shape)

    def call(self, x):
        return x + self.down(self.up(self.norm(x)))


class Extra(Plain):
    """As KerasHub's GPT-NeoX: an entry that the constructor does not take."""

    def get_config(self):
        return {**super().get_config(), "shape": (None, 4)}


def dead_units(block, count=2):
    kernel, bias = block.up.get_weights()
    kernel[:, :count] = 0
    block.up.set_weights([kernel, bias])


def test_what_no_configuration_says_keeps_a_layer_whole():
    model = network(Normed(8, name="one"))
    dead_units(model.get_layer("one"))
    assert graph.compact(model).get_layer("one").width == 6
    model.get_layer("one").norm.epsilon = 1e-9
    same, report = graph.compact(model, report=True, batch_size=None)
    assert same is model
    assert "computes something else" in str(report)


def test_the_constructor_counts_where_the_configuration_is_wrong():
    model = network(Extra(8, name="one"))
    one = model.get_layer("one")
    dead_units(one)
    one.up.kernel.regularizer = keras.regularizers.L2(0.1)
    one.down.bias.trainable = False
    smaller = graph.compact(model)
    found = smaller.get_layer("one")
    assert found.width == 6
    assert found.up.kernel.regularizer is one.up.kernel.regularizer
    assert not found.down.bias.trainable
    np.testing.assert_allclose(
        outputs(smaller), outputs(model), rtol=1e-5, atol=1e-6
    )


def test_a_layer_that_only_the_whole_model_refutes_stays(monkeypatch):
    model = network(Plain(8, name="one"), layers.Dense(8, "relu", name="two"))
    dead_units(model.get_layer("one"))
    kernel, bias = model.get_layer("two").get_weights()
    kernel[:, :3] = 0
    model.get_layer("two").set_weights([kernel, bias])
    monkeypatch.setattr(followed.Followed, "_compare", lambda *_: None)
    call = Plain.call
    monkeypatch.setattr(Plain, "call", lambda s, x: call(s, x) * s.width)
    smaller, report = graph.compact(model, report=True, batch_size=None)
    assert smaller.get_layer("one").width == 8
    assert smaller.get_layer("two").units == 5
    assert "the model differs when one is made smaller" in str(report)
    np.testing.assert_allclose(
        outputs(smaller), outputs(model), rtol=1e-5, atol=1e-6
    )


def weaken(block, units):
    """What matters least are the first units."""
    kernel = np.array(block.down.kernel)
    kernel[:units] *= 1e-6
    block.down.kernel.assign(kernel)


@pytest.mark.slow(reason="gradients of a whole transformer")
def test_units_inside_are_pruned_by_what_they_matter():
    tower = Tower(8, 2, name="tower")
    model = network(Fixed(name="fixed"), tower)
    # One number is the width of both blocks: each keeps what the larger does.
    weaken(tower.blocks[0], 5)
    weaken(tower.blocks[1], 3)
    smaller = graph.prune(model, ratio=8 / 18, round_to=1)
    found = smaller.get_layer("tower")
    assert smaller.get_layer("fixed").up.units == 8
    assert (found.width, found.mix.num_heads) == (5, 2)
    np.testing.assert_array_equal(
        np.array(found.blocks[1].up.kernel),
        np.array(tower.blocks[1].up.kernel)[:, 3:],
    )


def test_units_inside_are_masked_during_fit():
    model = network(Gated(8, name="one"))
    pruning = callbacks.GradualPruning(0.5, steps=2, every=1, round_to=1)
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(8, 6, 4))
    history = model.fit(
        x,
        x[..., :2],
        batch_size=2,
        epochs=2,
        verbose=0,
        callbacks=[pruning],
    )
    assert history.history["pruned"] == [0.5, 0.5]
    smaller = graph.compact(model)
    assert smaller.get_layer("one").width == 4
    np.testing.assert_allclose(
        outputs(smaller), outputs(model), rtol=1e-5, atol=1e-6
    )


def test_a_layer_whose_arguments_keras_keeps_is_pruned_twice():
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, Unsaid(8, name="one")(inputs))
    once, report = graph.prune(
        model, ratio=0.5, round_to=1, report=True, batch_size=None
    )
    twice = graph.prune(once, ratio=0.5, round_to=1)
    configs = [m.get_layer("one").get_config() for m in (model, once, twice)]
    assert [config["width"] for config in configs] == [8, 4, 2]
    # No multiplication of this model is counted: there is no ratio.
    assert report.after.multiply_adds == 0
    (line,) = [n for n in str(report).splitlines() if "multiply-adds  " in n]
    assert line.split()[-1] == "-"


class Attention(layers.Layer):
    """x + out(mean of values), written out as in the decoders of KerasHub.

    Keys and values are repeated for the queries that share them: each in
    turn, or ("tiled") all of them again and again, which no rule here knows.
    """

    def __init__(self, queries, keys, size, tiled=False, **kwargs):
        super().__init__(**kwargs)
        self.queries, self.keys, self.size = queries, keys, size
        self.tiled = tiled
        self.query = self.into("abc,cde->abde", queries, "query", "de")
        self.key = self.into("abc,dce->abde", keys, "key", None)
        self.value = self.into("abc,cde->abde", keys, "value", "de")

    def into(self, equation, heads, name, bias):
        shape = (None, heads, self.size)
        return layers.EinsumDense(equation, shape, bias_axes=bias, name=name)

    def build(self, shape):
        self.out = layers.EinsumDense(
            "abde,dec->abc", (None, shape[-1]), bias_axes="c", name="out"
        )
        for layer in (self.query, self.key, self.value):
            layer.build(shape)
        self.out.build((*shape[:-1], self.queries, self.size))

    def call(self, x):
        times = self.queries // self.keys
        key, value = self.key(x), self.value(x)
        if self.tiled:
            key, value = (ops.tile(y, (1, 1, times, 1)) for y in (key, value))
        else:
            key, value = (ops.repeat(y, times, axis=2) for y in (key, value))
        scores = ops.einsum("aqhd,akhd->ahqk", self.query(x), key)
        mixed = ops.einsum("ahqk,akhd->aqhd", ops.softmax(scores), value)
        return x + self.out(mixed)

    def get_config(self):
        sizes = {"queries": self.queries, "keys": self.keys, "size": self.size}
        return {**super().get_config(), **sizes, "tiled": self.tiled}


@pytest.mark.few_cases(1)
@pytest.mark.parametrize(
    "queries, keys, dead, left, removed",
    [
        # A head: its query, key, value, their biases, its rows.
        (6, 6, 2, (4, 4), 2 * (4 * 4 * 3 + 2 * 3)),
        # Two queries with the key and value that they share.
        (6, 3, 4, (2, 1), 4 * (2 * 4 * 3 + 3) + 2 * (2 * 4 * 3 + 3)),
        # Queries; all of them share one key and one value.
        (6, 1, 2, (4, 1), 2 * (2 * 4 * 3 + 3)),
    ],
)
def test_heads_of_attention_that_is_written_out_go(
    queries, keys, dead, left, removed
):
    model = network(Attention(queries, keys, 3, name="one"))
    one = model.get_layer("one")
    rows = np.array(one.out.kernel)
    rows[:dead] = 0
    one.out.kernel.assign(rows)
    for layer in (one.query, one.value):
        layer.bias.assign(
            np.random.default_rng(0).normal(size=layer.bias.shape)
        )
    smaller = graph.compact(model)
    found = smaller.get_layer("one")
    assert (found.queries, found.keys) == left
    assert model.count_params() - smaller.count_params() == removed
    np.testing.assert_allclose(
        outputs(smaller), outputs(model), rtol=1e-5, atol=1e-6
    )
    # Nothing is dead here, and what matters least is what has small rows.
    rows[:dead] = 1e-6
    one.out.kernel.assign(rows)
    pruned = graph.prune(model, ratio=dead / queries, round_to=1)
    assert pruned.get_layer("one").queries == left[0]
    np.testing.assert_allclose(
        outputs(pruned), outputs(smaller), rtol=1e-5, atol=1e-6
    )


def test_heads_that_share_in_another_order_stay_and_say_why():
    model = network(Attention(4, 2, 3, tiled=True, name="one"))
    one = model.get_layer("one")
    rows = np.array(one.out.kernel)
    rows[:2] = 0
    one.out.kernel.assign(rows)
    same, report = graph.compact(model, report=True, batch_size=None)
    assert same is model
    (row,) = [row for row in report.layers if row.layer == "one/out"]
    assert "computes something else when it is made smaller" in row.note
