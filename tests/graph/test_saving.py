"""Files of smaller models can be read, or it is said that they cannot."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import graph
from keras_wd.__main__ import main
from keras_wd.graph import saving
from keras_wd.graph.configurations import changes

pytestmark = [pytest.mark.one_backend, pytest.mark.eager]


@keras.saving.register_keras_serializable("test_saving")
class Block(layers.Layer):
    """scale * (x + down(relu(up(x))))."""

    def __init__(self, width, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.width, self.scale = width, scale
        self.up = layers.Dense(width, "relu", name="up")

    def build(self, shape):
        self.down = layers.Dense(shape[-1], name="down")
        self.up.build(shape)
        self.down.build((*shape[:-1], self.width))

    def call(self, x):
        return self.scale * (x + self.down(self.up(x)))

    def get_config(self):
        sizes = {"width": self.width, "scale": self.scale}
        return {**super().get_config(), **sizes}


@keras.saving.register_keras_serializable("test_saving")
class SaysTooMuch(Block):
    """As KerasHub's GPT-NeoX and ViT."""

    def get_config(self):
        return {**super().get_config(), "shape": [None, 4]}


@keras.saving.register_keras_serializable("test_saving")
class Raises(Block):
    """As KerasHub's Llama."""

    def get_config(self):
        return {**super().get_config(), "scaling": self.scaling}


@keras.saving.register_keras_serializable("test_saving")
class Forgets(Block):
    """Made again, it computes something else."""

    def get_config(self):
        return layers.Layer.get_config(self) | {"width": self.width}


@keras.saving.register_keras_serializable("test_saving")
class Hides(Block):
    """Nothing says its scale."""

    def __init__(self, width, scale=1.0, **kwargs):
        super().__init__(width, **kwargs)
        self.inverse = 1.0 / scale

    def call(self, x):
        return (x + self.down(self.up(x))) / self.inverse

    def get_config(self):
        return layers.Layer.get_config(self) | {"width": self.width}


@keras.saving.register_keras_serializable("test_saving")
class Backbone(keras.Model):
    """Blocks of one width: saved without what its layers say."""

    def __init__(self, kind, last, width, **kwargs):
        kinds = {c.__name__: c for c in Block.__subclasses__()}
        inputs = keras.Input((4,), name="x")
        x = kinds[kind](width, 0.5, name="one")(inputs)
        x = layers.Dropout(0.1)(kinds[kind](width, 2.0, name="two")(x))
        super().__init__(inputs, kinds[last](3, 2.0, name="last")(x), **kwargs)
        self.kind, self.last, self.width = kind, last, width

    def get_config(self):
        own = {"kind": self.kind, "last": self.last, "width": self.width}
        return {**own, "name": self.name}


KINDS = [(SaysTooMuch, Raises), (Raises, Forgets)]


def backbone(kind, last, one, two):
    """With so many dead units of eight in its blocks."""
    model = Backbone(kind.__name__, last.__name__, 8, name="backbone")
    for name, count in (("one", one), ("two", two)):
        kernel, bias = model.get_layer(name).up.get_weights()
        kernel[:, :count] = 0
        model.get_layer(name).up.set_weights([kernel, bias])
    return model


def same(one, other):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(model(x)) for model in (one, other)),
        rtol=1e-5,
        atol=1e-6,
    )


def loaded(model, path):
    model.save(path)
    return keras.saving.load_model(path)


@pytest.mark.parametrize("kind, last", KINDS)
def test_a_layer_says_what_it_can_be_made_from(kind, last, tmp_path):
    """Blocks of two widths, which the class of the model cannot have."""
    model = backbone(kind, last, 3, 5)
    smaller = graph.compact(model)
    assert type(smaller) is type(keras.Model(model.inputs, model.outputs))
    assert [smaller.get_layer(n).width for n in ("one", "two")] == [5, 3]
    again = loaded(smaller, tmp_path / "model.keras")
    assert type(again.get_layer("last")) is last
    same(again, model)
    # Frozen after it was made, and made smaller once more.
    smaller.get_layer("one").trainable = False
    kernel, bias = smaller.get_layer("two").up.get_weights()
    smaller.get_layer("two").up.set_weights([0 * kernel, bias])
    again = loaded(graph.compact(smaller), tmp_path / "model.keras")
    assert not again.get_layer("one").trainable
    assert again.get_layer("two").width == 1
    same(again, smaller)


def test_a_model_keeps_a_class_that_can_be_so_small(tmp_path):
    model = backbone(Raises, Hides, 3, 3)
    model.get_layer("one").up.trainable = False
    model.get_layer("two").down.kernel.regularizer = penalty
    smaller = graph.compact(model)
    assert (type(smaller), smaller.width) == (Backbone, 5)
    assert smaller.name == "backbone"
    assert not smaller.get_layer("one").up.trainable
    assert len(smaller.trainable_variables) == 10
    assert smaller.get_layer("two").down.kernel.regularizer is penalty
    same(smaller, model)
    same(loaded(smaller, tmp_path / "model.keras"), model)
    pruned, report = graph.prune(
        model, ratio=6 / 19, round_to=1, report=True, batch_size=None
    )
    assert (type(pruned), pruned.width) == (Backbone, 5)
    # Both files have a configuration of one kind.
    saved = report.before.file_bytes - report.after.file_bytes
    parameters = report.before.parameters - report.after.parameters
    assert abs(saved - 4 * parameters) < 100


@pytest.mark.parametrize(
    "name, value", [("rate", 0.6), ("noise_shape", (1, 4))]
)
def test_a_class_goes_where_it_would_lose_what_was_set_later(name, value):
    model = backbone(Raises, Raises, 3, 3)

    def dropout(model):
        return next(x for x in model.layers if isinstance(x, layers.Dropout))

    setattr(dropout(model), name, value)
    smaller = graph.compact(model)
    assert smaller.get_layer("one").width == 5
    assert type(smaller) is not Backbone
    assert getattr(dropout(smaller), name) == value


def test_a_class_that_cannot_compute_is_no_error(monkeypatch):
    def call(self, inputs):
        raise RuntimeError("no table")

    model = backbone(Raises, Raises, 3, 3)
    monkeypatch.setattr(
        saving, "_take_over", lambda made, *_: setattr(made, "call", call)
    )
    smaller = graph.compact(model)
    assert type(smaller) is not Backbone
    same(smaller, model)


def penalty(weights):
    return ops.sum(weights)


def test_the_likeliest_entries_are_tried_first():
    """As of a small Gemma: many numbers are equal, or multiples."""
    numbers = {"hidden": 16, "inner": 32, "size": 4, "queries": 4, "keys": 2}
    tried = [*changes({**numbers, "window": 4096}, {16: 12, 4: 2, 2: 1})]
    wanted = {"inner": 24, "queries": 2, "keys": 1}
    assert tried.index(wanted) < len(tried) / 2
    assert tried[0] == {"hidden": 12, "size": 2, "keys": 1}


def test_what_cannot_be_read_is_said(tmp_path, capsys):
    model = backbone(Raises, Hides, 3, 5)
    said = "'last' of class Hides cannot be made from its own configuration"
    with pytest.warns(UserWarning, match=said):
        smaller, report = graph.compact(model, report=True, batch_size=None)
    same(smaller, model)
    (reason,) = report.unreadable
    assert said in reason
    assert said in str(report) and "export it" in str(report)
    # The model itself is read, and nobody is warned of it.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        whole = backbone(Raises, Hides, 0, 0)
        report = graph.compact(whole, report=True, batch_size=None)[1]
    assert report.unreadable == ()
    source, target = (tmp_path / f"{name}.keras" for name in ("one", "two"))
    model.save(source)
    command = ["compact", str(source), "-o", str(target), "--batch_size=0"]
    with pytest.warns(UserWarning, match=said):
        assert main(command)
    assert said in capsys.readouterr().err
    assert not target.exists()
