"""What every decay has in common: the contract of the abstract class."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import schedules
from keras_wd import where
from keras_wd.decays.decay import WithoutPenalty
from tests import reference
from tests.decays.rules import RULES

CLASSES = ["GroupLasso", "L1", "L2", "Lp", "ProximalLp"]
ALL_RULES = pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))


def make(kind, weight_decay=0.1, **arguments):
    extra = {"p": 0.7} if kind in ("Lp", "ProximalLp") else {}
    return getattr(decays, kind)(weight_decay, **extra, **arguments)


def kernels(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s).astype("float32") for s in ((5, 3), (3, 4))]


def tensors(arrays):
    return [ops.convert_to_tensor(a) for a in arrays]


def assert_close(results, expected, rtol=1e-5, atol=1e-6):
    # The powers have a relative error of 6e-6; soft thresholds cancel.
    assert len(results) == len(expected)
    for result, values in zip(results, expected, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(result), values, rtol=rtol, atol=atol
        )


def test_the_table_of_rules_has_every_exported_decay():
    exported = {
        name
        for name in decays.__all__
        if issubclass(getattr(decays, name), decays.Decay)
        and not inspect.isabstract(getattr(decays, name))
        # What has no penalty has its own tests.
        and not issubclass(getattr(decays, name), WithoutPenalty)
    }
    tested = {rule.make(0.1).__class__.__name__ for rule in RULES.values()}
    # The path norm needs a model and has its own tests.
    assert exported - {"PathNorm"} == tested == set(CLASSES)


# The three functions.


@ALL_RULES
@pytest.mark.parametrize("strength", [1e-4, 0.05, 0.8])
def test_shrink_is_the_reference(rule, strength):
    weights, previous = kernels(), kernels(seed=1)
    decay = rule.make(0.1)
    results = decay.shrink(
        tensors(weights),
        tensors(previous) if decay.needs_previous else [],
        ops.convert_to_tensor(np.float32(strength)),
    )
    s = np.float32(strength)
    assert_close(
        results,
        [rule.shrink(w, b, s) for w, b in zip(weights, previous, strict=True)],
    )


@ALL_RULES
def test_previous_is_ignored_where_it_is_not_needed(rule):
    decay = rule.make(0.1)
    weights, strength = tensors(kernels()), ops.array(0.05)
    other = decay.shrink(weights, tensors(kernels(seed=7)), strength)
    same = decay.shrink(weights, weights, strength)
    differs = any(
        bool(ops.any(a != b)) for a, b in zip(other, same, strict=True)
    )
    # At p = 2 the power of the previous weights is one.
    needs = decay.needs_previous and getattr(decay, "p", None) != 2
    assert differs == needs


@ALL_RULES
def test_gradient_is_the_reference(rule):
    weights = kernels()
    weights[0][1, 2] = 0.0
    weights[1][:, 1] = 0.0
    assert_close(
        rule.make(0.1).gradient(tensors(weights)),
        [rule.gradient(w) for w in weights],
    )


@ALL_RULES
def test_penalty_is_the_reference_sum_over_the_variables(rule):
    weights = kernels()
    result = float(rule.make(0.1).penalty(tensors(weights)))
    expected = sum(rule.penalty(w) for w in weights)
    assert result == pytest.approx(expected, rel=1e-5)


@ALL_RULES
def test_gradient_is_the_derivative_of_the_penalty(rule, gradient):
    decay, weights = rule.make(0.1), kernels()[0]
    (result,) = decay.gradient([ops.convert_to_tensor(weights)])
    np.testing.assert_allclose(
        ops.convert_to_numpy(result),
        gradient(lambda w: decay.penalty([w]), weights),
        rtol=1e-5,
        atol=1e-6,
    )


@ALL_RULES
def test_a_small_step_goes_down_the_gradient(rule):
    # shrink(w, w, s) = w - s gradient(w) + O(s^2), also for the proximal ones.
    decay, s = rule.make(0.1), 1e-3
    weights = [np.float32(np.sign(w) * (np.abs(w) + 0.5)) for w in kernels()]
    moved = decay.shrink(tensors(weights), tensors(weights), ops.array(s))
    slopes = [
        (w - ops.convert_to_numpy(m)) / s
        for w, m in zip(weights, moved, strict=True)
    ]
    assert_close(slopes, [rule.gradient(w) for w in weights], 2e-2, 1e-3)


@ALL_RULES
def test_gradient_and_penalty_are_finite_everywhere(rule):
    values = [0.0, -0.0, 1e-44, -1e-38, 1e-20, 1e-13, 1.0, -1e6]
    w = ops.reshape(ops.array(values, "float32"), (2, 4))
    decay = rule.make(0.1)
    (result,) = decay.gradient([w])
    assert np.all(np.isfinite(ops.convert_to_numpy(result)))
    assert np.isfinite(float(decay.penalty([w])))
    (result,) = decay.gradient([ops.zeros((2, 4))])
    assert np.all(ops.convert_to_numpy(result) == 0)


@ALL_RULES
@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.0, -2.5, 1e-10, -1e-30, 1.2e-38, 1e20, -1e30, 3.3e38],
        [-0.0, 1.0],
        [1e-40, -9.2e-41],
    ],
    ids=["ordinary", "negative zero", "subnormal"],
)
def test_strength_zero_changes_no_bit(rule, values):
    w = ops.reshape(ops.array(values, "float32"), (-1, 1))
    for previous in (w, ops.zeros_like(w), ops.ones_like(w) * 1e30):
        (result,) = rule.make(0.1).shrink([w], [previous], ops.array(0.0))
        np.testing.assert_array_equal(
            ops.convert_to_numpy(result).view("uint32"),
            ops.convert_to_numpy(w).view("uint32"),
        )


# One step with an optimizer, in each coupling.


def variables():
    return [
        keras.Variable(w, name=name)
        for name, w in zip(
            ("kernel", "bias"), (kernels()[0], np.ones(3, "f4")), strict=True
        )
    ]


@ALL_RULES
@pytest.mark.parametrize("coupling", ["decoupled", "independent"])
def test_two_steps_equal_the_reference(rule, coupling):
    lr, rate = 0.2, 0.3
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(lr, momentum=0.5),
        rule.make(rate, coupling=coupling),
    )
    inner, s = (
        reference.SGD(0.5),
        rate if coupling == "independent" else lr * rate,
    )
    trained = variables()
    expected = [v.numpy() for v in trained]
    for seed in (3, 4):
        gradients = [kernels(seed)[0], np.full(3, 0.5, "float32")]
        optimizer.apply(tensors(gradients), trained)
        # The bias is no kernel and is left alone.
        expected = reference.decoupled_step(
            inner, expected, gradients, lr, rule.shrink, s, selected=[0]
        )
    assert_close([v.value for v in trained], expected)


@pytest.mark.parametrize(
    "rule",
    [rule for rule in RULES.values() if rule.coupled],
    ids=[name for name, rule in RULES.items() if rule.coupled],
)
def test_two_coupled_steps_equal_the_reference(rule):
    lr, rate = 0.02, 0.3
    optimizer = optimizers.WeightDecay(
        keras.optimizers.Adam(lr), rule.make(rate, coupling="coupled")
    )
    inner, trained = reference.Adam(), variables()
    expected = [v.numpy() for v in trained]
    for seed in (3, 4):
        gradients = [kernels(seed)[0], np.full(3, 0.5, "float32")]
        optimizer.apply(tensors(gradients), trained)
        expected = reference.coupled_step(
            inner, expected, gradients, lr, rule.gradient, rate, selected=[0]
        )
    assert_close([v.value for v in trained], expected)


def test_the_rate_may_be_any_keras_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [0], [0.5, 0.25]
    )
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), decays.L2(schedule)
    )
    w = keras.Variable([[1.0]], name="kernel")
    for expected in (0.95, 0.95 * 0.975):
        optimizer.apply([ops.zeros((1, 1))], [w])
        assert float(w.numpy()[0, 0]) == pytest.approx(expected, rel=1e-6)


# Arguments and their errors.


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "value", [-1.0, float("nan"), float("inf"), "0.1", None, True, [0.1]]
)
def test_a_rate_that_is_no_number_is_rejected(name, value):
    with pytest.raises(ValueError) as error:
        make(name, value)
    assert "`weight_decay` must be a finite number >= 0, a" in str(error.value)
    assert f"Received: weight_decay={value!r}" in str(error.value)


@pytest.mark.parametrize("name", CLASSES)
def test_an_unknown_coupling_is_rejected_with_the_nearest(name):
    with pytest.raises(ValueError) as error:
        make(name, coupling="decoupeld")
    assert "`coupling` must be one of " in str(error.value)
    assert "Received: coupling='decoupeld'" in str(error.value)
    assert "Did you mean 'decoupled'?" in str(error.value)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("value", ["head/*", 3, ["head"]])
def test_where_must_be_a_selection(name, value):
    with pytest.raises(
        ValueError, match="`where` must be a selection"
    ) as error:
        make(name, where=value)
    assert f"Received: where={value!r}" in str(error.value)


@pytest.mark.parametrize("name", CLASSES)
def test_an_unknown_argument_is_rejected(name):
    with pytest.raises(TypeError, match="decoupled_rate"):
        make(name, decoupled_rate=0.1)


@pytest.mark.parametrize("name", CLASSES)
def test_defaults(name):
    decay = make(name)
    assert decay.coupling == "decoupled"
    assert decay.where == where.kernels()
    expected = {"GroupLasso": "group_lasso", "ProximalLp": "proximal_lp"}
    assert decay.name == expected.get(name, name.lower())


# Serialization.


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "rate",
    [
        0.25,
        keras.optimizers.schedules.CosineDecay(0.1, 10, alpha=0.3),
        schedules.ConstantTimescale(
            keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5), 100
        ),
    ],
    ids=["number", "schedule", "schedule of a schedule"],
)
def test_the_config_keeps_everything(name, rate):
    arguments = {
        "where": where.everything() & ~where.paths("head/*"),
        "coupling": "independent",
        "name": "mine",
    }
    if name == "GroupLasso":
        arguments["axis"] = (-2, -1)
    decay = make(name, rate, **arguments)
    config = keras.saving.serialize_keras_object(decay)
    assert config["registered_name"] == f"keras_wd.decays>{name}"
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(config))
    )
    assert type(again) is type(decay)
    assert again.get_config() == decay.get_config()
    for argument in arguments:
        assert getattr(again, argument) == arguments[argument]
    signature = inspect.signature(type(decay)).parameters
    assert set(decay.get_config()) == set(signature)
    if isinstance(rate, float):
        assert again.weight_decay == rate
    else:
        assert float(again.weight_decay(7)) == float(rate(7))


@pytest.mark.parametrize("name", CLASSES)
def test_repr_shows_the_arguments(name):
    text = repr(make(name, 0.125, name="mine"))
    assert text.startswith(f"{name}(")
    assert "weight_decay=0.125" in text and "name='mine'" in text
    assert "where=where.kernels()" in text


# Selecting and subclassing.


def test_select_gives_positions_and_rejects_an_empty_selection():
    chosen = decays.L2(0.1).select(variables())
    assert chosen == [0]
    decay = decays.L2(0.1, where=where.paths("kernal"))
    with pytest.raises(ValueError, match="`where` must select at least one"):
        decay.select(variables())


def test_restrict_keeps_the_order_of_the_selection():
    assert decays.L2(0.1).restrict([4, 1, 3], {1: "b", 4: "a"}) == [4, 1]


@pytest.mark.parametrize("kind", [decays.Decay, decays.SeparableDecay])
def test_the_abstract_classes_cannot_be_made(kind):
    with pytest.raises(TypeError, match="abstract"):
        kind(0.1)


class _ToOne(decays.Decay):
    """Pulls the mean of all selected weights together to one."""

    needs_previous = False

    def shrink(self, weights, previous, strength):
        return [w + strength * (1 - self._mean(weights)) for w in weights]

    def gradient(self, weights):
        return [ops.zeros_like(w) + self._mean(weights) - 1 for w in weights]

    def penalty(self, weights):
        return (self._mean(weights) - 1) ** 2 / 2

    @staticmethod
    def _mean(weights):
        return sum(ops.mean(w) for w in weights) / len(weights)


def test_a_decay_of_ones_own_sees_all_selected_weights():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1.0), _ToOne(0.5, where=where.everything())
    )
    trained = [
        keras.Variable([[0.0]], name="a"),
        keras.Variable([4.0], name="b"),
    ]
    optimizer.apply([ops.zeros((1, 1)), ops.zeros((1,))], trained)
    assert [float(v.numpy().item()) for v in trained] == [-0.5, 3.5]
    assert optimizer.current_weight_decay() == {"_to_one": 0.5}
