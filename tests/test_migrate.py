import itertools

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import decays
from keras_wd import migrate
from keras_wd import optimizers
from keras_wd import regularizers
from keras_wd import where
from tests import reference

# The name of each convention and of its formula in the reference.
CONVENTIONS = {
    "keras_wd": "keras",
    "keras": "keras",
    "pytorch": "pytorch",
    "independent": "addons",
    "tensorflow_addons": "addons",
    "adamw_paper": "addons",
    "keras_regularizer": "l2_regularizer",
    "padam": "padam",
}
PAIRS = list(itertools.product(CONVENTIONS, CONVENTIONS))


@pytest.mark.parametrize("source, target", PAIRS)
def test_every_pair_takes_the_same_from_a_weight(source, target):
    lr, p, value = 0.003, 0.8, 0.02
    converted = migrate.convert_weight_decay(
        value, source, target, learning_rate=lr, p=p
    )
    # A weight of one, where the powers of all conventions agree.
    shares = [
        reference.step_share(number, CONVENTIONS[name], lr, p=p)
        for number, name in ((value, source), (converted, target))
    ]
    assert shares[1] == pytest.approx(shares[0], rel=1e-12)


@pytest.mark.parametrize("source, target", PAIRS)
def test_every_pair_round_trips(source, target):
    arguments = {"learning_rate": 0.003, "p": 1.3}
    there = migrate.convert_weight_decay(0.02, source, target, **arguments)
    back = migrate.convert_weight_decay(there, target, source, **arguments)
    assert back == pytest.approx(0.02, rel=1e-12)


def test_known_conversions():
    convert = migrate.convert_weight_decay
    assert convert(0.01, "keras_regularizer") == 0.02
    assert convert(0.01, "keras", "keras_regularizer") == 0.005
    assert convert(1e-4, "adamw_paper", learning_rate=1e-3) == pytest.approx(
        0.1
    )
    assert convert(1e-3, "padam", p=0.8) == pytest.approx(8e-4)
    assert convert(0.0, "padam", "tensorflow_addons", learning_rate=1, p=1) == 0


def one_step(optimizer, start=1.0):
    w = keras.Variable([[start]], name="kernel")
    optimizer.apply([ops.zeros((1, 1))], [w])
    return float(ops.convert_to_numpy(w.value)[0, 0])


def test_a_converted_rate_gives_the_same_step():
    lr, value = 0.01, 0.3
    rate = migrate.convert_weight_decay(
        value, "tensorflow_addons", learning_rate=lr
    )
    converted = optimizers.WeightDecay(
        keras.optimizers.SGD(lr), decays.L2(rate)
    )
    independent = optimizers.WeightDecay(
        keras.optimizers.SGD(lr), decays.L2(value, coupling="independent")
    )
    assert one_step(converted) == pytest.approx(0.7)
    assert one_step(independent) == pytest.approx(0.7)


def test_the_lambda_of_padam_gives_the_step_of_its_code():
    lr, value, p, w = 0.1, 0.3, 0.8, 0.5
    rate = migrate.convert_weight_decay(value, "padam", p=p)
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(lr), decays.Lp(rate, p=p)
    )
    weight = w ** (2 - p)
    expected = w * weight / (weight + p * lr * value)
    assert one_step(optimizer, w) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (
            (-1.0, "keras"),
            "`value` must be a finite number >= 0. Received: value=-1.0",
        ),
        (
            (0.1, "torch"),
            "Received: source='torch'. Did you mean 'pytorch'?",
        ),
        (
            (0.1, "keras", "padm"),
            "Received: target='padm'. Did you mean 'padam'?",
        ),
        (
            (0.1, "adamw_paper"),
            "`learning_rate` must be a finite number > 0. Received: "
            "learning_rate=None",
        ),
        (
            (0.1, "keras", "independent"),
            "`learning_rate` must be a finite number > 0. Received: "
            "learning_rate=None",
        ),
        ((0.1, "padam"), "`p` must be a finite number > 0. Received: p=None"),
    ],
)
def test_mistakes_are_named(arguments, expected):
    with pytest.raises(ValueError) as error:
        migrate.convert_weight_decay(*arguments)
    assert expected in str(error.value)


# Regularizers.


def network(regularized=True):
    """One layer for each regularizer there is an equivalent of."""
    keras.utils.set_random_seed(3)

    kernels = [
        keras.regularizers.L2(0.03),
        keras.regularizers.L1(0.02),
        keras.regularizers.L1L2(0.01, 0.02),
        regularizers.Lp(0.02, p=1.4),
        regularizers.GroupLasso(0.02, axis=0),
    ]
    bias = keras.regularizers.L2(0.02)
    hidden = [
        layers.Dense(
            5,
            "tanh",
            # The decays find the layers of another model by these names.
            name=f"hidden_{index}",
            kernel_regularizer=kernel if regularized else None,
            bias_regularizer=bias if regularized and index == 0 else None,
        )
        for index, kernel in enumerate(kernels)
    ]
    return keras.Sequential(
        [keras.Input((4,)), *hidden, layers.Dense(1, name="head")]
    )


@pytest.mark.slow(reason="trains twice")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_decays_train_like_the_regularizers(jit_compile):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 4)).astype("float32")
    y = x[:, :1] * x[:, 1:2]
    ends = []
    for regularized in (True, False):
        model = network(regularized)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
        if not regularized:
            optimizer = optimizers.WeightDecay(
                optimizer, migrate.from_regularizers(network())
            )
        model.compile(optimizer, "mse", jit_compile=jit_compile)
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        ends.append([np.array(w) for w in model.get_weights()])
    for with_regularizers, with_decays in zip(*ends, strict=True):
        np.testing.assert_allclose(
            with_decays, with_regularizers, rtol=1e-5, atol=1e-6
        )
    # The penalties did something.
    model = network(False)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.5), "mse")
    model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    assert np.max(np.abs(model.get_weights()[0] - ends[0][0])) > 1e-3


def test_each_variable_gets_the_decays_of_its_regularizer():
    model = network()
    found = {}
    for decay in migrate.from_regularizers(model):
        for path in where.resolve(decay.where, model):
            name = "/".join(path.split("/")[-2:])
            key = (type(decay).__name__, round(decay.weight_decay, 9))
            found.setdefault(name, []).append(key)
            assert decay.coupling == "coupled"
    assert found == {
        "hidden_0/kernel": [("L2", 0.06)],
        "hidden_0/bias": [("L2", 0.04)],
        "hidden_1/kernel": [("L1", 0.02)],
        "hidden_2/kernel": [("L2", 0.04), ("L1", 0.01)],
        "hidden_3/kernel": [("Lp", 0.02)],
        "hidden_4/kernel": [("GroupLasso", 0.02)],
    }


def dense(*arguments, **keywords):
    return keras.Sequential(
        [keras.Input((3,)), layers.Dense(*arguments, **keywords)], name="net"
    )


def test_the_arguments_of_the_rules_are_kept():
    (decay,) = migrate.from_regularizers(
        dense(2, kernel_regularizer=regularizers.Lp(0.1, p=1.4))
    )
    assert decay.p == 1.4
    (decay,) = migrate.from_regularizers(
        dense(2, kernel_regularizer=regularizers.GroupLasso(0.1, axis=(0, 1)))
    )
    assert decay.axis == (0, 1)


def test_equal_regularizers_share_a_decay():
    model = keras.Sequential(
        [keras.Input((3,))]
        + [layers.Dense(3, kernel_regularizer="l2") for _ in range(4)]
    )
    (decay,) = migrate.from_regularizers(model)
    assert where.resolve(decay.where, model) == where.resolve(
        where.kernels(), model
    )


def test_nothing_regularized_gives_no_decay():
    assert migrate.from_regularizers(dense(2)) == []
    zero = keras.regularizers.L1L2(0.0, 0.0)
    assert migrate.from_regularizers(dense(2, kernel_regularizer=zero)) == []


@pytest.mark.parametrize("coupling", ["decoupled", "independent"])
def test_another_coupling_is_passed_on(coupling):
    decays_found = migrate.from_regularizers(network(), coupling=coupling)
    assert {decay.coupling for decay in decays_found} == {coupling}


class _Mine(keras.regularizers.L2):
    def __call__(self, x):
        return 3 * super().__call__(x)


@pytest.mark.parametrize(
    "regularizer, name",
    [
        (_Mine(0.1), "_Mine"),
        (
            keras.regularizers.OrthogonalRegularizer(0.1),
            "OrthogonalRegularizer",
        ),
        (lambda x: ops.sum(x), "function"),
    ],
)
def test_a_regularizer_without_an_equivalent_is_refused(regularizer, name):
    model = dense(2, name="head", kernel_regularizer=regularizer)
    with pytest.raises(ValueError) as error:
        migrate.from_regularizers(model)
    text = str(error.value)
    assert "`model` must use regularizers that have an equivalent decay" in text
    assert f"Received: net/head/kernel ({name})" in text


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="`model` must be built"):
        migrate.from_regularizers(keras.Sequential([layers.Dense(2)]))


def test_an_unknown_coupling_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'coupled'"):
        migrate.from_regularizers(dense(2), coupling="couppled")
