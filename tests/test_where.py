import itertools
import json

import keras
import pytest
from keras import layers
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where


class Path:
    """The two things a selection looks at."""

    def __init__(self, path, rank=2):
        self.path = path
        self.shape = (3,) * rank


def attention():
    layer = layers.MultiHeadAttention(2, 3, name="attention")
    layer.build((None, 4, 5), (None, 4, 5))
    return layer


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


LAYERS = {
    "dense": (lambda: built(layers.Dense(3), 4), ["kernel"]),
    "einsum dense": (
        lambda: built(
            layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
            4,
            5,
        ),
        ["kernel"],
    ),
    "conv": (lambda: built(layers.Conv2D(3, 2), 8, 8, 2), ["kernel"]),
    "depthwise": (
        lambda: built(layers.DepthwiseConv2D(2), 8, 8, 2),
        ["kernel"],
    ),
    "separable": (
        lambda: built(layers.SeparableConv2D(3, 2), 8, 8, 2),
        ["depthwise_kernel", "pointwise_kernel"],
    ),
    "embedding": (lambda: built(layers.Embedding(9, 3), 4), ["embeddings"]),
    "batch norm": (lambda: built(layers.BatchNormalization(), 4), []),
    "layer norm": (lambda: built(layers.LayerNormalization(), 4), []),
    "layer norm over two axes": (
        lambda: built(layers.LayerNormalization(axis=(-2, -1)), 4, 5),
        [],
    ),
    "group norm": (lambda: built(layers.GroupNormalization(2), 4, 4), []),
    "gru": (
        lambda: built(layers.GRU(3), 4, 5),
        ["kernel", "recurrent_kernel"],
    ),
    "lstm": (
        lambda: built(layers.LSTM(3), 4, 5),
        ["kernel", "recurrent_kernel"],
    ),
    "attention": (attention, ["kernel"] * 4),
    "slopes": (lambda: built(layers.PReLU(), 4, 5), []),
    "root mean square over two axes": (
        lambda: built(layers.RMSNormalization(axis=(-2, -1)), 4, 5),
        [],
    ),
}


def names(variables):
    return [variable.path.split("/")[-1] for variable in variables]


@pytest.mark.parametrize("make, expected", LAYERS.values(), ids=list(LAYERS))
def test_kernels_are_the_weights_that_multiply(make, expected):
    variables = make().trainable_variables
    assert variables
    picked = [v for v in variables if where.kernels().picks(v)]
    assert names(picked) == expected
    assert all(where.everything().picks(v) for v in variables)


def test_there_are_biases_of_rank_two_and_they_are_no_kernels():
    biases = [
        variable
        for layer in (attention(), built(layers.GRU(3), 4, 5))
        for variable in layer.trainable_variables
        if len(variable.shape) == 2 and "bias" in variable.path
    ]
    assert len(biases) >= 4
    assert not any(where.kernels().picks(v) for v in biases)


@pytest.mark.parametrize(
    "path, rank, picked",
    [
        ("m/dense/kernel", 2, True),
        ("m/dense/kernel", 1, False),
        ("m/dense/kernel", 0, False),
        ("m/dense/bias", 2, False),
        ("m/dense/output_bias", 3, False),
        ("m/bias_net/kernel", 2, True),
        ("m/unbiased/kernel", 2, True),
        ("m/dense/biased", 2, True),
        ("kernel", 2, True),
    ],
)
def test_a_bias_is_a_word_of_the_last_segment(path, rank, picked):
    assert where.kernels().picks(Path(path, rank)) == picked


KERNEL, TABLE, TOKEN, NEITHER = "kernel", "embedding", "token", ""
ROLES = [
    ("m/words/embeddings", f"{KERNEL} {TABLE}"),
    ("m/token_and_position_embedding/words/embeddings", f"{KERNEL} {TABLE}"),
    ("m/words/reverse_embeddings", f"{KERNEL} {TABLE}"),
    ("m/words/lora_embeddings_a", f"{KERNEL} {TABLE}"),
    ("m/class_embedding/embeddings", f"{KERNEL} {TABLE}"),
    ("m/position_embedding/embeddings", TABLE),
    ("m/position_embedding_1/lora_embeddings_b", TABLE),
    ("m/pos_embed/embeddings", TABLE),
    ("m/PositionalEncoding/embeddings", TABLE),
    ("m/encoder/pos_embed", TABLE),
    ("m/encoder/position_embeddings", TABLE),
    ("m/attention/rel_pos_h", TABLE),
    ("m/relative_embedding/rel_embedding", TABLE),
    ("m/self_attention/embeddings", TABLE),
    ("m/attention/relative_position_bias_table", TABLE),
    ("m/attention/relative_attention_bias", NEITHER),
    ("m/vit/class_token", TOKEN),
    ("m/vit/distillation_token", TOKEN),
    ("m/vit/register_tokens", TOKEN),
    ("m/xlnet/mask_emb", TOKEN),
    ("m/clip/class_embedding", TOKEN),
    ("m/p_re_lu/alpha", NEITHER),
    ("m/norm/scale", NEITHER),
    ("m/layer/per_dim_scale", NEITHER),
    ("m/dense/lora_kernel_a", KERNEL),
    ("m/experts/expert_feedforward_gate_dense", KERNEL),
    ("m/position_mixer/kernel", KERNEL),
    ("m/layer/position_kernel", KERNEL),
    ("m/composition/weights", KERNEL),
    ("m/relative/weights", KERNEL),
    ("m/tokens/kernel", KERNEL),
    ("m/scale/kernel", KERNEL),
]


@pytest.mark.parametrize("path, roles", ROLES, ids=[p for p, _ in ROLES])
def test_names_say_what_a_variable_is_for(path, roles):
    variable = Path(path)
    found = {
        KERNEL: where.kernels().picks(variable),
        TABLE: where.embeddings().picks(variable),
        TOKEN: where.tokens().picks(variable),
    }
    assert {role for role, is_it in found.items() if is_it} == {*roles.split()}


@keras.saving.register_keras_serializable("test_where")
class Plain(layers.Layer):
    """Projections and a norm around attention, in layers of other names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mix = layers.MultiHeadAttention(2, 3, name="mixer")
        self.size = layers.RMSNormalization(name="size")
        self.other = layers.Dense(5, name="attention_norm")
        self.slow = layers.SpectralNormalization(self.other, name="slow")

    def build(self, shape):
        self.mix.build(shape, shape)
        self.size.build(shape)
        self.slow.build(shape)

    def call(self, x):
        return self.slow(self.size(self.mix(x, x)))


@pytest.fixture(scope="module")
def mixed():
    inputs = keras.Input((4, 5))
    return keras.Model(inputs, Plain(name="block")(inputs))


@pytest.fixture(scope="module")
def copied(mixed):
    return keras.models.clone_model(mixed)


@pytest.mark.few_cases(3)
@pytest.mark.parametrize(
    "selection, picked",
    [
        (where.attention(), ["kernel", "bias"] * 4),
        (where.kernels() & where.attention(), ["kernel"] * 4),
        (where.normalizations(), ["scale"]),
        (where.layers("Dense") & ~where.kernels(), ["bias"]),
        (where.layers(layers.Dense), ["kernel", "bias"]),
        (
            where.layers(layers.Dense, layers.RMSNormalization),
            ["scale", "kernel", "bias"],
        ),
        (
            where.everything() & ~where.layers("MultiHeadAttention"),
            ["scale", "kernel", "bias"],
        ),
        (where.layers("Plain") & where.normalizations(), ["scale"]),
    ],
    ids=repr,
)
def test_the_class_of_the_layer_decides_and_not_its_name(
    selection, picked, mixed, copied
):
    # Made before the model, saved, and used on a copy of it too.
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(selection)
    )
    for one in (mixed, copied):
        paths = where.resolve(again, one)
        assert [path.split("/")[-1] for path in paths] == picked


def test_a_decay_by_class_finds_the_variables_when_it_is_built(mixed):
    decay = decays.L2(0.5, where=where.layers(layers.Dense))
    variables = mixed.trainable_variables
    chosen = [variables[i].path for i in decay.select(variables)]
    assert [path.split("/")[-2:] for path in chosen] == [
        ["attention_norm", "kernel"],
        ["attention_norm", "bias"],
    ]


@pytest.mark.parametrize("kinds", [(), (3,), ("a b",), (keras.Variable,)])
def test_kinds_must_be_classes_of_layers(kinds):
    with pytest.raises(ValueError, match="`kinds` must be one or more") as e:
        where.layers(*kinds)
    assert f"Received: kinds={kinds!r}" in str(e.value)


def test_no_layer_holds_a_variable_of_ones_own():
    variable = keras.Variable([[1.0]], name="kernel")
    assert not where.layers("Layer").picks(variable)
    with pytest.raises(ValueError, match=r"where.layers\('Dense'\), which"):
        where.resolve(where.layers("Dense"), [variable])


# Patterns.


@pytest.mark.parametrize(
    "pattern, path, matches",
    [
        ("head/kernel", "m/head/kernel", True),
        ("head/kernel", "head/kernel", True),
        ("head/kernel", "m/subhead/kernel", False),
        ("head/kernel", "m/head/kernel_2", False),
        ("head/kernel", "m/head/x/kernel", False),
        ("head/kernel", "m/Head/kernel", False),
        ("kernel", "m/head/kernel", True),
        ("head", "m/head/kernel", False),
        ("head/*", "m/head/kernel", True),
        ("head/*", "m/head/x/kernel", False),
        ("*/kernel", "kernel", False),
        ("dense_*/kernel", "m/dense_10/kernel", True),
        ("dense_*/kernel", "m/dense/kernel", False),
        ("dense_?/kernel", "m/dense_10/kernel", False),
        ("dense_[12]/kernel", "m/dense_2/kernel", True),
        ("dense_[12]/kernel", "m/dense_3/kernel", False),
        ("head/**", "m/head/x/y/kernel", True),
        ("head/**", "m/head/kernel", True),
        ("head/**", "m/ahead/kernel", False),
        ("head/**/kernel", "m/head/kernel", True),
        ("head/**/kernel", "m/head/x/y/kernel", True),
        ("head/**/kernel", "m/head/x/y/bias", False),
        ("**/kernel", "kernel", True),
        ("**", "m/head/kernel", True),
        ("m/**/kernel", "m/kernel", True),
        ("a/**/b/**/c", "m/a/x/b/y/z/c", True),
        ("a/**/b/**/c", "m/a/x/y/z/c", False),
        ("h.ad/kernel", "m/head/kernel", False),
    ],
)
def test_patterns_match_whole_segments_at_the_end(pattern, path, matches):
    assert where.paths(pattern).picks(Path(path)) == matches


def test_one_pattern_of_several_is_enough():
    selection = where.paths("a/kernel", "b/*")
    picked = [
        path
        for path in ("m/a/kernel", "m/a/bias", "m/b/bias", "m/c/kernel")
        if selection.picks(Path(path))
    ]
    assert picked == ["m/a/kernel", "m/b/bias"]


@pytest.mark.parametrize(
    "patterns",
    [(), ("",), ("/head/kernel",), ("head/",), ("a//b",), (3,), (["a"],)],
)
def test_patterns_must_be_globs(patterns):
    with pytest.raises(ValueError, match="`patterns` must be one or more") as e:
        where.paths(*patterns)
    assert f"Received: patterns={patterns!r}" in str(e.value)


# Combinations.


def test_combinations_are_the_logic_of_their_parts():
    kernels, head = where.kernels(), where.paths("head/*")
    for path, rank in itertools.product(("m/head/w", "m/body/w"), (1, 2)):
        variable = Path(path, rank)
        a, b = kernels.picks(variable), head.picks(variable)
        assert (kernels & head).picks(variable) == (a and b)
        assert (kernels | head).picks(variable) == (a or b)
        assert (~head).picks(variable) == (not b)
        assert (kernels & ~head | ~kernels & head).picks(variable) == (a != b)


SELECTIONS = [
    where.kernels(),
    where.embeddings(),
    where.tokens(),
    where.attention() & ~where.normalizations(),
    where.layers("Dense", layers.Conv2D),
    where.everything(),
    where.paths("a/*", "**/b"),
    where.kernels() & where.paths("a/*"),
    where.kernels() | where.paths("a/*"),
    ~where.paths("a/*"),
    where.kernels() & ~(where.paths("a/*") | where.paths("b/**/c")),
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=repr)
def test_selections_survive_serialization(selection):
    config = keras.saving.serialize_keras_object(selection)
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(config))
    )
    assert again == selection and hash(again) == hash(selection)
    assert repr(again) == repr(selection)


@pytest.mark.parametrize("selection", SELECTIONS, ids=repr)
def test_the_repr_is_the_expression(selection):
    assert eval(repr(selection), {"where": where}) == selection


def test_different_selections_are_not_equal():
    for one, other in itertools.combinations(SELECTIONS, 2):
        assert one != other
    assert where.kernels() != "where.kernels()"


@pytest.mark.parametrize("other", ["head/*", None, 3])
def test_only_selections_combine(other):
    with pytest.raises(ValueError, match="must be a selection from"):
        where.kernels() & other
    with pytest.raises(ValueError, match="must be a selection from"):
        where.kernels() | other


@keras.saving.register_keras_serializable("test_where")
class Wide(where.Selection):
    """Variables with at least so many columns."""

    def __init__(self, columns):
        self.columns = columns

    def picks(self, variable):
        return variable.shape[-1] >= self.columns

    def get_config(self):
        return {"columns": self.columns}


def test_a_selection_of_ones_own_combines_and_survives():
    selection = Wide(4) & where.kernels()
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(selection)
    )
    assert again == selection and again != Wide(5) & where.kernels()
    assert where.resolve(again, network()) == ["net/body/kernel"]


# Resolving.


def network():
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, name="body"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="head"),
        ],
        name="net",
    )


def test_resolve_lists_paths_in_the_order_of_the_model():
    model = network()
    assert where.resolve(where.kernels(), model) == [
        "net/body/kernel",
        "net/head/kernel",
    ]
    assert where.resolve(where.paths("head/*", "norm/gamma"), model) == [
        "net/norm/gamma",
        "net/head/kernel",
        "net/head/bias",
    ]
    # Not the moving averages, which are not trainable.
    assert where.resolve(where.paths("norm/*"), model) == [
        "net/norm/gamma",
        "net/norm/beta",
    ]


def test_resolve_takes_a_list_of_variables():
    model = network()
    paths = where.resolve(where.kernels(), model.trainable_variables[2:])
    assert paths == ["net/head/kernel"]


def test_resolve_leaves_frozen_layers_out():
    model = network()
    model.get_layer("body").trainable = False
    assert where.resolve(where.kernels(), model) == ["net/head/kernel"]


def test_matching_nothing_lists_the_paths_and_the_nearest():
    model = network()
    with pytest.raises(ValueError) as error:
        where.resolve(where.paths("haed/kernel"), model)
    text = str(error.value)
    assert "`where` must select at least one trainable variable" in text
    assert "where.paths('haed/kernel'), which matches none of" in text
    for variable in model.trainable_variables:
        assert variable.path in text
    assert "Did you mean 'net/head/kernel'?" in text


def test_the_nearest_path_is_found_for_any_pattern():
    with pytest.raises(ValueError, match="Did you mean 'net/head/kernel'"):
        where.resolve(where.paths("x/y", "haed/kernel"), network())
    with pytest.raises(ValueError, match="Did you mean 'net/head/kernel'"):
        where.resolve(where.kernels() & where.paths("haed/kernel"), network())


def test_a_model_that_is_not_built_is_refused():
    model = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must be built") as error:
        where.resolve(where.kernels(), model)
    assert "Received: model=<Sequential" in str(error.value)


def test_resolve_refuses_what_is_no_selection():
    with pytest.raises(ValueError, match="`where` must be a selection") as e:
        where.resolve("head/*", network())
    assert "where='head/*'" in str(e.value)


def test_a_decay_that_matches_nothing_is_refused_when_the_model_trains():
    model = network()
    decay = decays.L2(0.1, where=where.paths("tail/*"))
    optimizer = optimizers.WeightDecay(keras.optimizers.SGD(0.1), decay)
    with pytest.raises(ValueError, match="which matches none of net/body"):
        optimizer.build(model.trainable_variables)


# Selections by variable.


def chosen_after_reload(model, chosen, path):
    selection = where.paths_of(
        [v for v in model.trainable_variables if v.path in chosen],
        model.trainable_variables,
    )
    model.save(path)
    again = keras.models.load_model(path)
    picked = [selection.picks(v) for v in again.trainable_variables]
    expected = [v.path in chosen for v in model.trainable_variables]
    return picked, expected


def test_paths_of_survives_a_reload_of_a_sequential(tmp_path):
    # Keras 3.15 gives other paths to the weights it loads.
    model = keras.Sequential(
        [layers.Dense(4), layers.Dense(4), layers.Dense(4)]
    )
    model.build((None, 4))
    chosen = [model.layers[1].kernel.path, model.layers[2].bias.path]
    picked, expected = chosen_after_reload(
        model, chosen, tmp_path / "model.keras"
    )
    assert picked == expected and sum(picked) == 2


def test_variables_with_equal_paths_cannot_be_told_apart():
    # Two functional blocks with layers of the same name, as Keras names them.
    inputs = keras.Input((4,))
    left, right = (
        keras.Model(inputs, layers.Dense(4, name="dense")(inputs), name=name)
        for name in ("left", "right")
    )
    model = keras.Model(inputs, right(left(inputs)))
    chosen = right.trainable_variables[0]
    assert chosen.path == left.trainable_variables[0].path
    with pytest.raises(ValueError, match=chosen.path):
        where.paths_of([chosen], model.trainable_variables)


def test_a_selection_that_a_reload_made_ambiguous_picks_nothing(tmp_path):
    # Keras 3.15 gives the weights of nested Sequentials equal paths when it
    # loads them. The one decayed before must not become two or another.
    left, right = (
        keras.Sequential([layers.Dense(4, name="dense")], name=name)
        for name in ("left", "right")
    )
    model = keras.Sequential([left, right])
    model.build((None, 4))
    selection = where.paths_of(
        [right.layers[0].kernel], model.trainable_variables
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    kernels = [part.layers[0].kernel.path for part in again.layers]
    if kernels[0] != kernels[1]:
        assert where.resolve(selection, again) == kernels[1:]
        return
    with pytest.raises(ValueError, match="matches none of dense/kernel"):
        where.resolve(selection, again)


def test_paths_of_takes_the_shortest_ending_with_the_layer():
    variables = [
        Path("m/a/dense/kernel"),
        Path("m/b/dense/kernel"),
        Path("m/b/head/kernel"),
        Path("m/x*[1]/kernel"),
    ]
    assert where.paths_of(variables[2:3], variables) == where.paths(
        "head/kernel"
    )
    assert where.paths_of(variables[:1], variables) == where.paths(
        "a/dense/kernel"
    )
    for variable in variables:
        selection = where.paths_of([variable], variables)
        assert [selection.picks(v) for v in variables] == [
            v is variable for v in variables
        ]


def test_a_reload_decays_the_same_variables(tmp_path):
    model = keras.Sequential([layers.Dense(3, use_bias=False, name="a")])
    model.add(layers.Dense(3, use_bias=False, name="b"))
    model.build((None, 3))
    selection = where.paths_of([model.layers[1].kernel], model.variables)
    model.compile(
        optimizers.WeightDecay(
            keras.optimizers.SGD(1.0), decays.L2(0.5, where=selection)
        ),
        loss="mse",
    )
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="before its first step"):
        again = keras.models.load_model(tmp_path / "model.keras")
    before = [ops.convert_to_numpy(v.value) for v in again.trainable_variables]
    zeros = [ops.zeros(v.shape) for v in again.trainable_variables]
    again.optimizer.apply(zeros, again.trainable_variables)
    factors = [
        float(ops.convert_to_numpy(v.value)[0, 0] / old[0, 0])
        for v, old in zip(again.trainable_variables, before, strict=True)
    ]
    assert factors == pytest.approx([1.0, 0.5])
