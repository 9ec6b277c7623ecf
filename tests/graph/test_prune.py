"""Pruning to a budget."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import graph
from keras_wd.__main__ import main
from keras_wd.graph import litert
from tests.graph.architectures import assert_same_outputs
from tests.graph.architectures import examples
from tests.graph.architectures import randomize

pytestmark = pytest.mark.one_backend

IMPORTANCE = [
    "path",
    "magnitude",
    "taylor",
    lambda layer, kernel: np.abs(kernel).max(axis=(0, 1)),
]


def residual():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    y = layers.BatchNormalization(name="norm")(x)
    y = layers.Conv2D(24, 3, activation="relu", name="inner")(layers.ReLU()(y))
    y = layers.Conv2D(16, 1, name="branch")(y)
    x = layers.Add()([layers.Cropping2D(1)(x), y])
    x = layers.GlobalAveragePooling2D()(x)
    return randomize(keras.Model(inputs, layers.Dense(3, name="head")(x)))


@pytest.mark.parametrize(
    "importance", IMPORTANCE, ids=["path", "magnitude", "taylor", "a function"]
)
def test_a_ratio_is_kept_and_rounded(importance):
    model = residual()
    model.compile("sgd", "mse")
    x = examples(model)
    before = [np.array(v) for v in model.variables]
    smaller = graph.prune(
        model,
        ratio=0.5,
        importance=importance,
        round_to=4,
        data=(x, np.zeros((len(x), 3))),
    )
    filters = {
        name: smaller.get_layer(name).filters
        for name in ("stem", "inner", "branch")
    }
    # 16 joined classes and 24 of the inner layer, of which half go.
    assert filters["stem"] == filters["branch"]
    assert filters["stem"] % 4 == filters["inner"] % 4 == 0
    assert 20 <= filters["stem"] + filters["inner"] <= 20 + 2 * 3
    assert smaller.get_layer("head").units == 3
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))


def test_the_result_is_the_model_with_these_units_masked():
    model = residual()
    smaller = graph.prune(model, ratio=0.4, round_to=1, importance="magnitude")
    found = np.asarray(smaller.get_layer("inner").bias)
    whole = np.asarray(model.get_layer("inner").bias)
    gone = ~np.isin(whole, found)
    shared = np.asarray(model.get_layer("norm").beta)
    out = ~np.isin(shared, np.asarray(smaller.get_layer("norm").beta))
    for name, rows in (("branch", gone), ("inner", out), ("head", out)):
        kernel = np.array(model.get_layer(name).kernel)
        kernel[..., rows, :] = 0
        model.get_layer(name).kernel.assign(kernel)
    assert gone.any() and out.any()
    assert_same_outputs(model, smaller, examples(model))


def test_the_units_that_matter_least_go_first():
    model = residual()
    kernel = np.array(model.get_layer("inner").kernel)
    kernel[..., 8:] *= 1e-6
    model.get_layer("inner").kernel.assign(kernel)
    smaller = graph.prune(model, ratio=16 / 40)
    np.testing.assert_array_equal(
        np.asarray(smaller.get_layer("inner").bias),
        np.asarray(model.get_layer("inner").bias)[:8],
    )


@pytest.mark.few_cases(2)
@pytest.mark.parametrize(
    "importance", IMPORTANCE, ids=["path", "magnitude", "taylor", "a function"]
)
def test_heads_and_embeddings_have_scores_of_their_own(importance):
    """The weak half of each goes, not all of what has no kernel and units."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(6, 8, "glorot_normal", name="tokens")(inputs)
    x = layers.MultiHeadAttention(4, 2, name="mix")(x, x)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    tokens, mix = model.get_layer("tokens"), model.get_layer("mix")
    parts = [mix._query_dense, mix._key_dense, mix._value_dense]
    weak = [(tokens.embeddings, np.s_[:, :4])]
    weak += [(part.kernel, np.s_[:, :2]) for part in parts]
    weak += [(mix._output_dense.kernel, np.s_[..., :4])]
    for variable, units in weak:
        values = np.array(variable)
        values[units] *= 1e-4
        variable.assign(values)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).integers(6, size=(8, 5))
    smaller = graph.prune(
        model,
        ratio=0.5,
        importance=importance,
        round_to=1,
        data=(x, np.ones((8, 2))),
    )
    found = smaller.get_layer("mix")
    np.testing.assert_array_equal(
        np.array(smaller.get_layer("tokens").embeddings),
        np.array(tokens.embeddings)[:, 4:],
    )
    np.testing.assert_array_equal(
        np.array(found._output_dense.kernel),
        np.array(mix._output_dense.kernel)[2:, :, 4:],
    )


def test_the_path_of_what_a_gate_multiplies_is_comparable():
    """A gated unit that hardly matters goes before others that do."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="gated")(inputs)
    x = x * layers.Dense(8, "sigmoid")(inputs)
    x = layers.Dense(8, name="plain")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    kernel = np.array(model.get_layer("gated").kernel)
    kernel[:, :4] *= 1e-6
    model.get_layer("gated").kernel.assign(kernel)
    smaller = graph.prune(model, ratio=0.25, round_to=1)
    assert smaller.get_layer("plain").units == 8
    np.testing.assert_array_equal(
        np.array(smaller.get_layer("gated").kernel), kernel[:, 4:]
    )


def test_a_budget_of_multiplications_is_kept():
    model = residual()
    whole = graph.sizes(model).multiply_adds
    smaller, report = graph.prune(
        model, multiply_adds=0.5, round_to=2, report=True, batch_size=2
    )
    found = graph.sizes(smaller).multiply_adds
    assert 0.35 * whole <= found <= 0.5 * whole
    assert report.after.multiply_adds == found
    assert report.before.multiply_adds == whole
    again = graph.prune(model, multiply_adds=whole // 2, round_to=2)
    assert graph.sizes(again).multiply_adds == found
    with pytest.raises(ValueError, match="layers that can shrink allow"):
        graph.prune(model, multiply_adds=1e-6)


def test_scales_of_normalizations_order_what_they_scale():
    inputs = keras.Input((6,))
    x = layers.Dense(16, name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    gamma = np.linspace(-1, 2, 16)
    model.get_layer("norm").gamma.assign(gamma)
    smaller = graph.prune(model, ratio=0.5, importance="batch_norm")
    left = np.sort(np.abs(gamma))[8:]
    np.testing.assert_allclose(
        np.sort(np.abs(np.asarray(smaller.get_layer("norm").gamma))),
        left,
        rtol=1e-6,
    )


@pytest.mark.slow(reason="measures times")
def test_a_share_of_the_time_is_measured():
    model = keras.Sequential(
        [
            keras.Input((64,)),
            *(layers.Dense(512, "relu") for _ in range(3)),
            layers.Dense(2),
        ]
    )
    smaller = graph.prune(model, latency=0.999, batch_size=512)
    assert smaller.count_params() < model.count_params()


MISTAKES = {
    "one of them": {},
    "`ratio`, `multiply_adds` or `latency`": {"ratio": 0.1, "latency": 0.5},
    "must be below 1": {"ratio": 1},
    "`ratio` must be": {"ratio": "half"},
    "must be one of path, magnitude": {"ratio": 0.1, "importance": "size"},
    "`round_to` must be an integer": {"ratio": 0.1, "round_to": 0},
    "must have data=": {"ratio": 0.1, "importance": "taylor"},
    "a number for every unit": {
        "ratio": 0.1,
        "importance": lambda layer, kernel: np.ones(3),
    },
}


def test_a_model_of_which_nothing_may_go_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="have units that can be removed"):
        graph.prune(model, ratio=0.5)


def test_litert_is_refused_before_anything_is_done(monkeypatch):
    model = residual()
    with pytest.raises(ValueError, match="with `report=True`"):
        graph.compact(model, litert=True)
    monkeypatch.setattr(litert.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="TensorFlow backend|not installed"):
        graph.prune(model, ratio=0.5, report=True, litert=True)


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_refused(message):
    with pytest.raises(ValueError, match=message):
        graph.prune(residual(), **MISTAKES[message])


def test_the_command_writes_a_pruned_model(tmp_path, capsys):
    model = residual()
    model.save(tmp_path / "model.keras")
    source, target = str(tmp_path / "model.keras"), str(tmp_path / "s.keras")
    command = ["prune", source, "-o", target]
    assert main([*command, "--ratio=0.5", "--batch_size=0"]) == 0
    assert f"Saved {target}" in capsys.readouterr().out
    loaded = keras.saving.load_model(target)
    same = graph.prune(model, ratio=0.5)
    assert_same_outputs(same, loaded, examples(model))
    for mistake, said in (
        ([], "needs one of --ratio"),
        (["--ratio=1.5"], "must be below 1"),
        (["--ratio=0.5", "--batch_size=-1"], "--batch_size must be"),
        (["--latency=0.5", "--batch_size=0"], "--latency needs"),
    ):
        assert main([*command, *mistake]) == 2
        assert said in capsys.readouterr().err
    assert main(["prune", "--help"]) == 0


def test_no_layer_loses_nearly_all_of_its_units():
    """Scores of one layer that are far below the others take it alone."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(20, "relu", name="low"),
            layers.Dense(20, "relu", name="high"),
            layers.Dense(2, name="head"),
        ]
    )
    low, high = (model.get_layer(name) for name in ("low", "high"))
    low.kernel.assign(1e-6 * low.kernel)
    high.kernel.assign(ops.concatenate([0 * high.kernel[:3], high.kernel[3:]]))

    def left(**budget):
        smaller = graph.prune(model, round_to=1, **budget)
        return [smaller.get_layer(n).units for n in ("low", "high")]

    assert left(ratio=0.5) == [2, 18]
    assert left(ratio=0.5, max_ratio=0.5) == [10, 10]
    assert left(ratio=0.5, max_ratio=1) == [1, 20]
    assert left(ratio=0.95) == [1, 1]
    # What nothing reads goes in any case.
    high.kernel.assign(
        ops.concatenate([0 * high.kernel[:19], high.kernel[19:]])
    )
    assert left(ratio=0.5, max_ratio=0.5) == [1, 19]
    with pytest.raises(ValueError, match="at least `ratio`"):
        graph.prune(model, ratio=0.5, max_ratio=0.4)
    with pytest.raises(ValueError, match="A larger `max_ratio` or a smaller"):
        graph.prune(model, multiply_adds=0.1, max_ratio=0.2)
    with pytest.raises(ValueError, match="are. A smaller `round_to` allows"):
        graph.prune(model, multiply_adds=0.01, max_ratio=1, round_to=8)


def test_a_nested_model_of_sequences_of_any_length_is_pruned():
    ids = keras.Input((None,), dtype="int32")
    hidden = layers.Dense(8, "relu")(layers.Embedding(10, 4)(ids))
    inner = keras.Model(ids, layers.Dense(4)(hidden)[:, 0, :])
    outer = keras.Input((None,), dtype="int32")
    model = keras.Model(outer, layers.Dense(3)(inner(outer)))
    smaller = graph.prune(model, ratio=0.5, round_to=1)
    assert smaller.input_shape == (None, None)
    assert smaller.count_params() < model.count_params()
    assert smaller(np.ones((2, 7), "int32")).shape == (2, 3)


def test_a_share_is_not_rounded_twice():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(100, "relu"), layers.Dense(2)]
    )
    smaller = graph.prune(model, ratio=0.29, max_ratio=0.29, round_to=1)
    assert smaller.layers[0].units == 71


def joined(scale):
    """Eight units, of which two layers make half each and one all."""
    x = keras.Input((6,))
    a, b, c = (
        layers.Dense(n, name=k) for k, n in zip("abc", (4, 4, 8), strict=True)
    )
    y = layers.Add()([layers.Concatenate()([a(x), b(x)]), c(x)])
    head = layers.Dense(3, name="head")
    model = keras.Model(x, head(layers.ReLU()(y)))
    kernel = np.array(head.kernel)
    kernel[:4] *= scale
    head.kernel.assign(kernel)
    return model


@pytest.mark.parametrize("scale", [1, 100])
def test_layers_that_share_units_share_what_must_stay(scale):
    for budget in ({"ratio": 0.5}, {"multiply_adds": 0.5}):
        smaller = graph.prune(
            joined(scale), round_to=1, max_ratio=0.5, **budget
        )
        units = [smaller.get_layer(name).units for name in "abc"]
        assert units == [2, 2, 4]
