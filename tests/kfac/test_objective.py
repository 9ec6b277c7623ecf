"""The curvature is that of the loss that is printed: weights, masks, kinds."""

import threading

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd.optimizers.kfac import KFAC
from tests import catalogue
from tests.kfac import reference
from tests.kfac.running import array
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager

X, Y = array(1, 6, 3), array(2, 6, 3)
W = np.array([0.5, 2.0, 0.0, 1.0, 0.25, 3.0], "float32")
LABELS = np.array([0, 1, 2, 0, 1, 2])
MSE = keras.losses.MeanSquaredError
SPARSE = keras.losses.SparseCategoricalCrossentropy


def factors(
    model, x, y=None, weights=None, loss=None, estimator="fisher_exact", **more
):
    """The factors of every block, in order."""
    model.jit_compile = False
    optimizer = KFAC(0.1, seed=1, estimator=estimator, **more)
    optimizer.update_curvature(model, x, y, weights, loss=loss, invert=False)
    return [
        (found["input_factor"], found["output_factor"])
        for found in optimizer.factors().values()
    ]


def assert_agree(found, expected, rtol=1e-5, atol=1e-7):
    for ours, others in zip(found, expected, strict=True):
        for one, other in zip(ours, others, strict=True):
            np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def exact(x, c, metric):
    """A and S of one linear layer, from `sum c a a^T (x) M`."""
    rows = reference.with_ones(x.reshape(-1, x.shape[-1]).astype("float64"))
    c = np.ravel(c)
    return [
        ((rows * c[:, None]).T @ rows / c.sum(), c.sum() * metric),
    ]


REDUCTIONS = {
    "sum_over_batch_size": lambda w: w / len(w),
    "mean": lambda w: w / len(w),
    "sum": lambda w: w,
    "mean_with_sample_weight": lambda w: w / w.sum(),
}


@pytest.mark.parametrize(
    "reduction",
    catalogue.quick(
        list(REDUCTIONS), "sum_over_batch_size", "mean_with_sample_weight"
    ),
)
@pytest.mark.parametrize("estimator", ["fisher_exact", "gauss_newton_exact"])
def test_the_factors_of_a_linear_layer_are_exact(reduction, estimator):
    metric = np.eye(3) * (2 / 3 if estimator == "fisher_exact" else 1.0)
    for weights in (None, W):
        found = factors(
            mlp(3),
            X,
            weights=weights,
            loss=MSE(reduction=reduction),
            estimator=estimator,
        )
        c = REDUCTIONS[reduction](np.ones(6) if weights is None else W)
        assert_agree(found, exact(X, c, metric))


@pytest.mark.parametrize(
    "y",
    [LABELS, LABELS[:, None], np.eye(3)[LABELS]],
    ids=["numbers", "column", "one-hot"],
)
def test_class_weights_count_as_in_fit(y):
    model = mlp(3)
    one_hot = y.shape[-1] == 3
    kind = "Categorical" if one_hot else "SparseCategorical"
    loss = getattr(keras.losses, f"{kind}Crossentropy")(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
    given = {0: 2.0, 2: 0.25}
    weights = np.array([2.0, 1.0, 0.25, 2.0, 1.0, 0.25])
    logits = ops.convert_to_numpy(model(X)).astype("float64")
    each = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), LABELS]
    printed = model.train_on_batch(X, y, class_weight=given)
    np.testing.assert_allclose(printed, np.mean(weights * each), rtol=1e-6)
    optimizer = KFAC(0.1, estimator="empirical")
    optimizer.update_curvature(model, X, y, class_weight=given, invert=False)
    (found,) = optimizer.factors().values()
    expected = factors(model, X, y, weights, loss, "empirical")
    assert_agree([(found["input_factor"], found["output_factor"])], expected)
    plain = factors(model, X, y, None, loss, "empirical")
    assert np.abs(expected[0][1] - plain[0][1]).max() > 0.01


def padded(extra):
    model = keras.Sequential(
        [
            keras.Input((5 + extra, 4)),
            layers.Masking(),
            layers.Dense(3, "tanh"),
            layers.Dense(2),
        ]
    )
    for i, variable in enumerate(model.trainable_variables):
        variable.assign(array(i, *variable.shape))
    fill = ((0, 0), (0, extra), (0, 0))
    x, y = array(8, 6, 5, 4), array(9, 6, 5, 2)
    return model, np.pad(x, fill), np.pad(y, fill)


@pytest.mark.parametrize(
    "estimator", ["fisher_exact", "gauss_newton_exact", "empirical"]
)
@pytest.mark.parametrize("weighted", catalogue.quick([False, True], True))
def test_padding_changes_nothing(estimator, weighted):
    weights = W[:, None] if weighted else None
    found, expected = (
        factors(*padded(extra), weights, loss=MSE(), estimator=estimator)
        for extra in (4, 0)
    )
    assert_agree(found, expected)


def test_padded_tokens_of_a_classifier_do_not_enter():
    def of(extra):
        ids = keras.Input((3 + extra,), dtype="int32")
        hidden = layers.Embedding(7, 4, mask_zero=True)(ids)
        hidden = layers.Dense(4, "tanh")(hidden)
        hidden = layers.GlobalAveragePooling1D()(hidden)
        model = keras.Model(ids, layers.Dense(3)(hidden))
        for i, variable in enumerate(model.trainable_variables):
            variable.assign(array(i, *variable.shape))
        x = np.random.default_rng(0).integers(1, 7, (6, 3))
        x[0, 1:] = 0
        x = np.pad(x, ((0, 0), (0, extra)))
        return factors(model, x, loss=SPARSE(from_logits=True))

    assert_agree(of(4), of(0))


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_examples_of_weight_zero_change_nothing(sharing):
    x = np.concatenate([X, 100 * X])
    weights = np.repeat(np.float32([1, 0]), 6)
    loss = MSE(reduction="sum")
    assert_agree(
        factors(mlp(4, 3), x, weights=weights, loss=loss, sharing=sharing),
        factors(mlp(4, 3), X, loss=loss, sharing=sharing),
    )


@pytest.mark.parametrize("estimator", ["fisher_exact", "empirical"])
def test_ignored_classes_change_nothing(estimator):
    model = keras.Sequential([keras.Input((None, 4)), layers.Dense(3)])
    x = array(3, 4, 9, 4)
    y = np.random.default_rng(0).integers(0, 3, (4, 9))
    y[:, 5:] = -1
    loss = SPARSE(from_logits=True, ignore_class=-1)
    assert_agree(
        factors(model, x, y, loss=loss, estimator=estimator),
        factors(model, x[:, :5], y[:, :5], loss=loss, estimator=estimator),
    )
    with pytest.raises(ValueError, match="`y` must be given for a loss with"):
        factors(model, x, loss=loss)


@pytest.mark.parametrize(
    "estimator",
    [
        "fisher_exact",
        "gauss_newton_exact",
        "generalized_gauss_newton_exact",
        "empirical",
    ],
)
def test_an_output_of_rank_one_is_a_column(estimator):
    model = mlp(4, 1)
    flat = keras.Model(model.inputs, ops.squeeze(model.outputs[0], -1))
    y = Y[:, :1]
    assert_agree(
        factors(flat, X, y[:, 0], loss=MSE(), estimator=estimator),
        factors(model, X, y, loss=MSE(), estimator=estimator),
    )


def branches():
    inputs = keras.Input((3,))
    body = layers.Dense(4, "tanh", name="body")(inputs)
    outputs = [layers.Dense(3, name=name)(body) for name in ("b", "a")]
    for i, variable in enumerate(keras.Model(inputs, outputs).weights):
        variable.assign(array(i, *variable.shape))
    return inputs, outputs


def of_branches(loss, chosen=None, y=None, estimator="fisher_exact", **more):
    inputs, outputs = branches()
    if chosen is not None:
        outputs = outputs[chosen]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss, **more)
    return factors(model, X, y, estimator=estimator)


def test_losses_and_weights_by_name_meet_their_outputs():
    # "b" is the first output; its weight is that of its name.
    found = of_branches(
        {"a": "mse", "b": SPARSE(from_logits=True)},
        loss_weights={"a": 0.25, "b": 1.0},
    )
    first = of_branches(SPARSE(from_logits=True), 0)
    second = of_branches("mse", 1)
    np.testing.assert_allclose(
        found[0][1], first[0][1] + 0.25 * second[0][1], rtol=1e-5
    )
    np.testing.assert_allclose(found[2][1], first[1][1], rtol=1e-5)
    np.testing.assert_allclose(found[1][1], 0.25 * second[1][1], rtol=1e-5)


@pytest.mark.parametrize("estimator", ["fisher_exact", "gauss_newton_exact"])
def test_an_output_without_loss_has_no_curvature(estimator):
    found = of_branches(["mse", None], estimator=estimator)
    alone = of_branches("mse", 0, estimator=estimator)
    # Keras runs the second output's layer first.
    assert_agree([found[0], found[2]], alone)
    assert not found[1][1].any()


@pytest.mark.parametrize("by", ["sample_weight", "loss_weights"])
def test_the_empirical_fisher_has_a_weight_once(by):
    model = mlp(4, 3)
    more = {"loss_weights": [4.0]} if by == "loss_weights" else {}
    model.compile("sgd", "mse", **more)
    weights = np.full(6, 4.0) if by == "sample_weight" else None
    found = factors(model, X, Y, weights, estimator="empirical")
    plain = factors(mlp(4, 3), X, Y, loss="mse", estimator="empirical")
    for (a, s), (b, t) in zip(found, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
        np.testing.assert_allclose(s, 4.0 * t, rtol=1e-5)


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param(
            "empirical",
            marks=pytest.mark.xfail(
                keras.backend.backend() == "jax",
                reason="of float64, Keras's mean has a float32 slope on JAX",
                strict=True,
            ),
        ),
        "fisher_exact",
    ],
)
def test_float64_is_exact(estimator, float64):
    layer = layers.Dense(3, dtype="float64")
    model = keras.Sequential([keras.Input((3,), dtype="float64"), layer])
    x, y = (np.random.default_rng(s).normal(size=(6, 3)) for s in (3, 4))
    weights = np.random.default_rng(5).uniform(size=6)
    ((a, s),) = factors(model, x, y, weights, MSE(), estimator)
    c = weights / 6
    expected = exact(x, c, np.eye(3) * 2 / 3)[0]
    np.testing.assert_allclose(a, expected[0], rtol=1e-12)
    if estimator == "empirical":
        kernel = value(layer.kernel)
        g = 2 / 3 * (x @ kernel - y)
        expected = a, (g * c[:, None]).T @ g
    np.testing.assert_allclose(s, expected[1], rtol=1e-12, atol=1e-15)


def huber(r):
    return (np.abs(r) < 1.0) / 3


@pytest.mark.parametrize(
    "loss, diagonal",
    [
        (keras.losses.Huber(delta=1.0), lambda z, y: huber(z - y)),
        (MSE(), lambda z, y: np.full(z.shape, 2 / 3)),
        (
            lambda y, z: ops.mean((y - z) ** 4, -1),
            lambda z, y: 4 * (z - y) ** 2,
        ),
        # A number for the whole batch, as users write it.
        (lambda y, z: ops.mean((y - z) ** 4), lambda z, y: 4 * (z - y) ** 2),
    ],
    ids=["huber", "mse", "quartic", "one number"],
)
def test_second_derivatives_of_any_loss(loss, diagonal):
    model = mlp(3)
    ((_, s),) = factors(
        model, X, Y, loss=loss, estimator="generalized_gauss_newton_exact"
    )
    kernel, bias = (value(v) for v in model.trainable_variables)
    expected = diagonal(X @ kernel + bias, Y).mean(axis=0)
    np.testing.assert_allclose(s, np.diag(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_has_its_fisher_as_gauss_newton_matrix(smoothing):
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing
    )
    y = np.eye(3, dtype="float32")[LABELS]
    assert_agree(
        factors(
            mlp(4, 3),
            X,
            y,
            loss=loss,
            estimator="generalized_gauss_newton_exact",
        ),
        factors(mlp(4, 3), X, loss=loss),
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.slow(reason="draws many times")
@pytest.mark.compiled
def test_drawn_second_derivatives_have_the_right_mean():
    loss = keras.losses.Huber()
    optimizer = KFAC(0.1, seed=1, estimator="generalized_gauss_newton")
    model = mlp(4, 3)
    model.jit_compile = False
    for _ in range(200):
        optimizer.update_curvature(
            model, X, Y, loss=loss, invert=False, first_pass=True
        )
    found = list(optimizer.factors().values())[0]["output_factor"]
    expected = factors(
        model, X, Y, loss=loss, estimator="generalized_gauss_newton_exact"
    )[0][1]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 0.15


def test_counts_have_the_fisher_of_poisson():
    model = mlp(3, last="exponential")
    ((_, s),) = factors(model, X, loss=keras.losses.Poisson())
    kernel, bias = (value(v) for v in model.trainable_variables)
    # 1/z on the rate is z on its logarithm.
    expected = np.exp(X @ kernel + bias).mean(axis=0) / 3
    np.testing.assert_allclose(s, np.diag(expected), rtol=1e-4, atol=1e-6)


def test_a_loss_with_another_formula_is_refused():
    class Own(keras.losses.CategoricalCrossentropy):
        def call(self, y_true, y_pred):
            return ops.sum(ops.abs(y_true - y_pred), axis=-1)

    for loss in (Own(), keras.losses.CategoricalFocalCrossentropy()):
        with pytest.raises(ValueError, match="generalized_gauss_newton"):
            factors(mlp(3), X, loss=loss)


@pytest.mark.parametrize("kind", [SPARSE, keras.losses.CategoricalCrossentropy])
def test_classes_on_another_axis_are_refused(kind):
    model = keras.Sequential([keras.Input((5, 3)), layers.Dense(3)])
    with pytest.raises(ValueError, match="last axis. Received: axis=1"):
        factors(model, array(1, 2, 5, 3), loss=kind(True, axis=1))


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match=r"at least one example.*\(0, 3\)"):
        factors(mlp(3), X[:0], loss=MSE())


def pooled():
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.Dense(3),
            layers.GlobalAveragePooling1D(),
        ]
    )
    model.layers[0].kernel.assign(array(0, 4, 3))
    return model


def test_reduce_is_exact_where_rows_are_averaged():
    x = array(3, 6, 5, 4)
    found = factors(pooled(), x, loss=MSE(), sharing="reduce")
    assert_agree(
        found, exact(x.mean(axis=1), np.full(6, 1 / 6), np.eye(3) * 2 / 3)
    )
    different = factors(pooled(), x, loss=MSE())
    assert np.abs(different[0][0] - found[0][0]).max() > 0.1


def test_expand_is_exact_where_every_row_has_a_loss():
    x = array(3, 6, 5, 4)
    model = keras.Sequential([keras.Input((5, 4)), layers.Dense(3)])
    weights = np.random.default_rng(0).uniform(size=(6, 5)).astype("float32")
    for own in (None, weights):
        c = np.full((6, 5), 1 / 30) if own is None else own / 30
        found = factors(model, x, weights=own, loss=MSE())
        assert_agree(found, exact(x, c, np.eye(3) * 2 / 3))


def test_reduce_of_convolutions_and_embeddings():
    x = array(3, 4, 5, 6, 2)
    stack = [keras.Input((5, 6, 2)), layers.Conv2D(3, 2)]
    model = keras.Sequential([*stack, layers.GlobalAveragePooling2D()])
    found = factors(model, x, loss=MSE(), sharing="reduce")
    rows = reference.patches(
        x.astype("float64"), (2, 2), (1, 1), "valid", (1, 1)
    )
    rows = rows.reshape(4, 20, -1).mean(axis=1)
    assert_agree(found, exact(rows, np.full(4, 1 / 4), np.eye(3) * 2 / 3))
    ids = np.random.default_rng(0).integers(0, 5, (6, 4))
    stack = [keras.Input((4,), dtype="int32"), layers.Embedding(5, 3)]
    model = keras.Sequential([*stack, layers.GlobalAveragePooling1D()])
    ((a, s),) = factors(model, ids, loss=MSE(), sharing="reduce")
    means = np.eye(5)[ids].mean(axis=1)
    np.testing.assert_allclose(a, (means**2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(s, np.eye(3) * 2 / 3, rtol=1e-5)


@pytest.mark.compiled
def test_compiling_again_measures_the_new_loss():
    model = mlp(3)
    optimizer = KFAC(0.1, estimator="fisher_exact", curvature_decay=0.0)
    mean, total = MSE(), MSE(reduction="sum")
    for weight, loss in ((1.0, mean), (4.0, mean), (4.0, total)):
        model.compile(optimizer, loss, loss_weights=[weight])
        # Before and after there is a program of `fit`.
        for _ in range(2):
            optimizer.update_curvature(model, X)
            (found,) = optimizer.factors().values()
            scale = weight * (6 if loss is total else 1)
            np.testing.assert_allclose(
                found["output_factor"], scale * np.eye(3) * 2 / 3, rtol=1e-5
            )
            model.train_on_batch(X, Y)


def test_kl_clip_on_float64(float64):
    layer = layers.Dense(3, dtype="float64")
    model = keras.Sequential([keras.Input((3,), dtype="float64"), layer])
    model.compile(KFAC(0.1, kl_clip=1e-3, seed=0), MSE(), jit_compile=False)
    model.optimizer.update_curvature(model, X)
    assert np.isfinite(model.train_on_batch(X, Y))


def test_a_batch_without_weight_is_skipped():
    model = mlp(3)
    model.compile(KFAC(0.1, estimator="fisher_exact"), MSE())
    optimizer = model.optimizer
    optimizer.update_curvature(model, X)
    optimizer.update_curvature(model, X, sample_weight=np.zeros(6))
    numbers = optimizer.diagnostics()
    assert numbers["curvature_skipped"] == numbers["curvature_updates"] == 1


@pytest.mark.slow(reason="compiles in several threads")
@pytest.mark.compiled
def test_calls_of_other_threads_are_not_disturbed():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "tanh"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )
    model.compile(KFAC(0.1, seed=0), MSE())
    right = value_of(model(X))
    wrong, stop = [], threading.Event()

    def serve():
        while not stop.is_set():
            try:
                if not np.allclose(value_of(model(X)), right, atol=1e-5):
                    wrong.append("another value")
            except Exception as error:
                wrong.append(repr(error))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for count in (4, 5, 6):
            # Every shape is traced anew.
            model.optimizer.update_curvature(model, X[:count], invert=False)
    finally:
        stop.set()
        thread.join()
    assert not wrong


def value_of(tensor):
    return np.array(ops.convert_to_numpy(tensor))


def test_ragged_inputs_are_refused():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow has ragged tensors")
    import tensorflow as tf

    ids = tf.ragged.constant([[1, 2], [3]])
    model = keras.Sequential(
        [keras.Input((2,), dtype="int32"), layers.Embedding(5, 3)]
    )
    with pytest.raises(ValueError, match="must not be ragged"):
        factors(model, ids, loss=MSE())
