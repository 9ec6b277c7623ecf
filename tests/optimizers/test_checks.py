import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where
from tests.training import data
from tests.training import network
from tests.training import variables

SGD = keras.optimizers.SGD
L2 = decays.L2


def built():
    optimizer = SGD()
    optimizer.build(variables([np.ones((2, 2))]))
    return optimizer


REFUSED = {
    "not an optimizer": (lambda: "adam", "must be a Keras optimizer"),
    "AdamW": (
        lambda: keras.optimizers.AdamW(),
        "weight_decay=0.004.*use keras.optimizers.Adam inside",
    ),
    "a decay of its own": (
        lambda: SGD(weight_decay=0.1),
        "weight_decay=0.1.*pass weight_decay=None",
    ),
    "Muon's second decay": (
        lambda: keras.optimizers.Muon(
            weight_decay=None, adam_weight_decay=0.25
        ),
        "adam_weight_decay=0.25.*two decays for its two rates",
    ),
    "Ftrl": (lambda: keras.optimizers.Ftrl(), "does not read the weights"),
    "ScheduleFreeAdamW": (
        lambda: keras.optimizers.ScheduleFreeAdamW(),
        "does not read the weights",
    ),
    "an average of its own": (
        lambda: SGD(use_ema=True),
        "use_ema=False.*Pass use_ema=True",
    ),
    "wrapped twice": (
        lambda: optimizers.SGDW(),
        r"not wrapped yet.*WeightDecay\(inner, \[a, b\]\)",
    ),
    "loss scaling inside": (
        lambda: keras.optimizers.LossScaleOptimizer(SGD()),
        "Wrap the other way round",
    ),
    "several optimizers inside": (
        lambda: keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(SGD(), {"x": SGD()})
        ),
        "one learning rate.*each optimizer of the OptimizerMap",
    ),
    "trained before": (built, "has not trained anything yet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_an_inner_optimizer_with_the_reason(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        optimizers.WeightDecay(make(), L2(0.1))


def test_accepts_adamw_without_its_decay():
    inner = keras.optimizers.AdamW(weight_decay=0.0)
    assert optimizers.WeightDecay(inner, L2(0.1)).inner_optimizer is inner


@pytest.mark.parametrize("decay", [0.1, [], None, [L2(0.1), 0.1], "l2"])
def test_refuses_what_is_not_a_decay(decay):
    with pytest.raises(ValueError, match="`decay` must be a decay"):
        optimizers.WeightDecay(SGD(), decay)


def test_two_decays_of_one_kind_have_names_of_their_own():
    rules = [L2(0.1), L2(0.2), L2(0.3, name="l2_1")]
    optimizer = optimizers.WeightDecay(SGD(), rules)
    assert optimizer.current_weight_decay() == {
        "l2": 0.1,
        "l2_1": 0.2,
        "l2_1_1": 0.3,
    }


def test_a_selection_of_nothing_lists_what_there_is():
    optimizer = optimizers.WeightDecay(
        SGD(), L2(0.1, where=where.paths("dens/kernel"))
    )
    with pytest.raises(
        ValueError, match="dens/kernel.*dense/kernel, .*dense_1/bias"
    ):
        optimizer.build(network().trainable_variables)


def test_a_decay_that_keeps_zeros_refuses_a_zero_variable():
    decay = decays.Lp(0.1, p=0.8, where=where.everything())
    message = "dense.*/bias.*& ~where.paths\\('dense.*/bias'\\)"
    with pytest.raises(ValueError, match=message):
        optimizers.WeightDecay(SGD(), decay).build(
            network().trainable_variables
        )
    model = network()
    model.compile(optimizers.WeightDecay(SGD(), decay), "mse")
    x, y = data(1)
    with pytest.raises(ValueError, match=message):
        model.fit(x, keras.utils.to_categorical(y, 3), verbose=0)


@pytest.mark.parametrize(
    "decay",
    [
        decays.Lp(0.1, p=2.0, where=where.everything()),
        decays.Lp(0.1, p=0.8, where=where.everything(), coupling="coupled"),
        decays.ProximalLp(0.1, p=0.8, where=where.everything()),
    ],
)
def test_a_decay_that_lets_zeros_go_accepts_a_zero_variable(decay):
    optimizer = optimizers.WeightDecay(SGD(), decay)
    optimizer.build(network().trainable_variables)
    assert optimizer.built


def test_an_axis_that_a_variable_lacks_is_refused():
    optimizer = optimizers.WeightDecay(SGD(), decays.GroupLasso(0.1, axis=2))
    with pytest.raises(ValueError, match=r"dense/kernel has shape \(8, 6\)"):
        optimizer.build(network().trainable_variables)
