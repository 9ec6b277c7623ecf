"""The compiled loss is put together as Keras does: `evaluate` is right."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import losses
from keras import ops

from keras_wd.losses import CompiledLoss

N = 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype("float32")
Y = RNG.normal(size=(N, 3)).astype("float32")
W = RNG.uniform(0.1, 1.0, size=N).astype("float32")
LABELS = np.arange(N) % 3


def distance(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def branches(*names):
    inputs = keras.Input((4,))
    return inputs, [layers.Dense(3, name=name)(inputs) for name in names]


def listed(*names):
    return keras.Model(*branches(*names))


def keyed(**names):
    inputs, outputs = branches(*names.values())
    return keras.Model(inputs, dict(zip(names, outputs, strict=True)))


def compiled(model, loss, **arguments):
    model.compile("sgd", loss, run_eagerly=True, **arguments)
    return model


def evaluated(model, x, y, sample_weight=None):
    logs = model.evaluate(
        x,
        y,
        batch_size=len(x),
        sample_weight=sample_weight,
        verbose=0,
        return_dict=True,
    )
    return logs["loss"]


def summed(model, x, y, sample_weight=None):
    outputs = model(ops.convert_to_tensor(x))
    terms = CompiledLoss(model).terms(y, outputs, sample_weight)
    return float(sum(ops.mean(term.value()) for term in terms))


PAIRINGS = {
    "a list": (
        lambda: compiled(listed("z", "a"), ["mse", "mae"]),
        [Y, 10 * Y],
    ),
    "by name to a list": (
        lambda: compiled(listed("z", "a"), {"a": "mse", "z": "mae"}),
        [Y, 10 * Y],
    ),
    "targets by name too": (
        lambda: compiled(listed("z", "a"), {"a": "mse", "z": "mae"}),
        {"z": Y, "a": 10 * Y},
    ),
    "weights by name": (
        lambda: compiled(
            listed("z", "a"),
            {"a": "mse", "z": "mae"},
            loss_weights={"a": 2.0, "z": 0.5},
        ),
        [Y, 10 * Y],
    ),
    "weights as a list": (
        lambda: compiled(listed("z", "a"), "mse", loss_weights=None),
        [Y, 10 * Y],
    ),
    "keys that are the names of other layers": (
        lambda: compiled(keyed(a="b", b="a"), {"a": "mse", "b": "mae"}),
        {"a": 10 * Y, "b": Y},
    ),
    "a key that is no layer": (
        lambda: compiled(keyed(out="head"), {"out": "mse"}),
        {"out": Y},
    ),
    "two keys that are no layers": (
        lambda: compiled(keyed(a="p", b="q"), {"a": "mse", "b": "mae"}),
        {"a": Y, "b": 10 * Y},
    ),
    "an output without a loss": (
        lambda: compiled(listed("z", "a"), [None, "mse"]),
        [Y, 10 * Y],
    ),
    "a key without a loss": (
        lambda: compiled(keyed(a="p", b="q"), {"b": "mse"}),
        {"a": Y, "b": 10 * Y},
    ),
    "one weight": (
        lambda: compiled(listed("z"), "mse", loss_weights=3.0),
        Y,
    ),
    "a function": (
        lambda: compiled(listed("z", "a"), [distance, "mse"]),
        [Y, 10 * Y],
    ),
}


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("name", PAIRINGS)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_and_targets_meet_as_in_evaluate(name, weighted):
    make, y = PAIRINGS[name]
    # Keras itself has no pairing for one weight and targets by name.
    by_name = name == "targets by name too"
    weight = W if weighted and not by_name else None
    model = make()
    expected = evaluated(model, X, y, weight)
    assert summed(model, X, y, weight) == pytest.approx(expected, rel=1e-5)


def test_one_sample_weight_per_output_and_loss_weights():
    model = compiled(listed("z", "a"), ["mse", "mae"], loss_weights=[2.0, 0.5])
    y, weights = [Y, 10 * Y], [W, W**2]
    expected = evaluated(model, X, y, weights)
    assert summed(model, X, y, weights) == pytest.approx(expected, rel=1e-5)


def test_a_function_of_targets_without_their_last_axis():
    inputs = keras.Input((4,))
    model = compiled(keras.Model(inputs, layers.Dense(1)(inputs)), distance)
    expected = evaluated(model, X, Y[:, 0])
    assert summed(model, X, Y[:, 0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("y", [LABELS, np.eye(3)[LABELS].astype("float32")])
def test_crossentropy_as_a_word(y):
    inputs = keras.Input((4,))
    outputs = layers.Dense(3, "softmax")(inputs)
    model = compiled(keras.Model(inputs, outputs), "crossentropy")
    expected = evaluated(model, X, y)
    assert summed(model, X, y) == pytest.approx(expected, rel=1e-5)


def test_losses_of_outputs_are_known_without_labels():
    model = compiled(keyed(b="p", a="q"), {"b": "mse"}, loss_weights={"b": 3.0})
    (one,) = CompiledLoss(model).of_outputs(model.output)
    assert (one.output, one.weight) == (1, 3.0)
    assert isinstance(one.loss, losses.MeanSquaredError)
    given = CompiledLoss(model, ["mae", "mse"])
    found = [type(one.loss) for one in given.of_outputs([X, X])]
    assert found[1] is losses.MeanSquaredError


def test_a_model_without_a_loss():
    model = listed("z")
    with pytest.raises(ValueError, match="`model` must be compiled with a los"):
        CompiledLoss(model)


IDS = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [4, 1, 2, 3]])
TAGS = np.array([[0, 1, 2, 0], [1, 1, 1, 2], [0, 2, 2, 1]])
TOKEN_WEIGHTS = RNG.uniform(0.1, 1.0, size=IDS.shape).astype("float32")


def tagger(policy, reduction, **arguments):
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(5, 4, mask_zero=True, dtype=policy),
            layers.Dense(3, dtype=policy),
        ]
    )
    loss = losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction, **arguments
    )
    return compiled(model, loss)


REDUCTIONS = ["sum", "mean", "mean_with_sample_weight", "sum_over_batch_size"]


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize(
    "weight",
    [None, TOKEN_WEIGHTS, TOKEN_WEIGHTS[:, :1]],
    ids=["unweighted", "tokens", "sequences"],
)
def test_masks_weights_and_reductions(reduction, ignored, weight):
    model = tagger("float32", reduction, ignore_class=ignored)
    expected = evaluated(model, IDS, TAGS, weight)
    assert summed(model, IDS, TAGS, weight) == pytest.approx(expected, rel=1e-5)
    (term,) = CompiledLoss(model).terms(
        ops.convert_to_tensor(TAGS),
        model(ops.convert_to_tensor(IDS)),
        None if weight is None else ops.convert_to_tensor(weight),
    )
    values = losses.sparse_categorical_crossentropy(
        TAGS, ops.convert_to_numpy(term.prediction), from_logits=True
    )
    weights = ops.convert_to_numpy(term.element_weights())
    assert not weights[IDS == 0].any()
    found = float(np.sum(weights * ops.convert_to_numpy(values)))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"]
)
def test_the_mask_is_kept_in_every_precision(policy):
    model = tagger(policy, "sum_over_batch_size")
    model.set_weights([30 * w for w in model.get_weights()])
    expected = evaluated(model, IDS, TAGS)
    assert summed(model, IDS, TAGS) == pytest.approx(expected, rel=1e-3)
    model.layers[0].mask_zero = False
    assert summed(model, IDS, TAGS) != pytest.approx(expected, rel=1e-2)
