"""Constructor arguments of every public class: a working object or a reason.

A row of `CLASSES` has working arguments; each is replaced by one value after
another. What an argument may be is said here a second time, apart from the
code: `KINDS` tells for a value whether it has to be taken.
"""

import json
import math
import numbers
import re

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings

from keras_wd import callbacks
from keras_wd import constraints
from keras_wd import decays
from keras_wd import metrics
from keras_wd import optimizers
from keras_wd import regularizers
from keras_wd import schedules
from keras_wd import where
from keras_wd.kfac import ESTIMATORS
from tests import catalogue

COSINE = keras.optimizers.schedules.CosineDecay(0.1, 50)
PAIR = decays.HomogeneousUnits("hidden/kernel", "output/kernel")

VALUES = [
    *(None, True, False, 0, 1, 2, 3, -1, -2, 10**400, 0.0, 1e-9, 0.3, 0.5),
    *(1.0, 1.5, -0.3, -1.0, 1e308, math.nan, math.inf, -math.inf, 1j),
    *(np.float32(0.5), np.float32(math.nan), np.int64(2), np.bool_(True)),
    *("", "1", "nan", "kernel", "decoupled", "exact", "fisher", "max", "Ω/*"),
    *(b"1", [], [0.5], [1], ["head/*"], [None], (), (0,), (0, 1), {}),
    *({"a": 1}, {1}, np.ones(2), np.array(0.5), np.array("a"), object()),
    *(object, len, where.kernels(), where.kernels, decays.L2(0.1)),
    *([decays.L2(0.1)], COSINE, keras.optimizers.SGD(0.1), [PAIR]),
]


def number(
    above=-math.inf, minimum=-math.inf, below=math.inf, maximum=math.inf
):
    def fits(value):
        return (
            isinstance(value, numbers.Real)
            and not isinstance(value, bool)
            and above < value < below
            and minimum <= value <= maximum
            and abs(value) <= 3.4e38
        )

    return fits


def count(minimum=1, maximum=math.inf):
    def fits(value):
        whole = isinstance(value, numbers.Integral)
        in_range = whole and minimum <= value <= maximum
        return in_range and not isinstance(value, bool)

    return fits


def either(*kinds):
    return lambda value: any(kind(value) for kind in kinds)


def one_of(*choices):
    return lambda value: isinstance(value, str) and value in choices


def none(value):
    return value is None


def flag(value):
    return isinstance(value, bool)


def text(value):
    return isinstance(value, str) and value != ""


def plain(value):
    return text(value) and "/" not in value


def schedule(value):
    return isinstance(value, keras.optimizers.schedules.LearningRateSchedule)


def function(value):
    return callable(value) and not isinstance(value, type)


def selection(value):
    return value is None or isinstance(value, where.Selection)


def whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def axis(value):
    if isinstance(value, list | tuple):
        return bool(value) and all(map(whole, value))
    return whole(value)


def rule(value):
    one = isinstance(value, list) and len(value) == 1
    return isinstance(value[0] if one else value, decays.Decay)


def sgd(value):
    return isinstance(value, keras.optimizers.SGD)


def pairs(value):
    return isinstance(value, list) and value == [PAIR]


def epochs(value):
    listed = isinstance(value, list | tuple)
    return listed and all(isinstance(epoch, dict) for epoch in value)


def rates(value):
    if not isinstance(value, list | tuple) and np.ndim(value) != 1:
        return False
    return len(value) > 0 and all(map(number(minimum=0), value))


rate = either(number(minimum=0), schedule)
followed = either(rate, function)
positive = number(above=0)
seed = count(0, 2**31 - 1)
name = either(none, plain)
path = either(none, text)
COUPLINGS = ("decoupled", "independent", "coupled")
DECAY = {
    "weight_decay": (0.1, followed),
    "where": (where.everything(), selection),
    "coupling": ("independent", one_of(*COUPLINGS)),
    "name": ("shrink", name),
}
EMA = {
    "use_ema": (True, flag),
    "ema_momentum": (0.9, number(minimum=0, maximum=1)),
    "ema_overwrite_frequency": (3, either(none, count())),
    "name": ("mine", name),
}
EXPONENT = {"p": (0.8, positive)}
AXIS = {"axis": (-1, axis)}
LEARNING_RATE = {"learning_rate": (0.1, followed)}
FOLLOWS = {"learning_rate": (COSINE, rate)}
WITHOUT_WHERE = {key: DECAY[key] for key in DECAY if key != "where"}
DATA = (np.ones((4, 2), "float32"), np.zeros((4, 1), "float32"))
STEERED = {"decay": ("l2", name), "minimum": (0.1, number(minimum=0))}
BATCHES = {"batch_size": (2, either(none, count())), "seed": (1, seed)}

CLASSES = {
    decays.L2: DECAY,
    decays.L1: DECAY,
    decays.Lp: {**DECAY, **EXPONENT},
    decays.ProximalLp: {
        **DECAY,
        "coupling": ("independent", one_of("decoupled", "independent")),
        "p": (0.5, number(minimum=0.1, maximum=4)),
    },
    decays.GroupLasso: {**DECAY, **AXIS},
    decays.PathNorm: {
        **WITHOUT_WHERE,
        "units": ([PAIR], pairs),
        "balance": (False, flag),
        "absorb": (False, flag),
    },
    decays.HomogeneousUnits: {
        "input_kernel": ("a/kernel", text),
        "output_kernel": ("b/kernel", text),
        "input_bias": ("a/bias", path),
        "output_bias": ("b/bias", path),
        "positions": (2, count()),
        "channels": (2, count()),
    },
    schedules.ConstantTimescale: {**FOLLOWS, "timescale": (3.0, positive)},
    schedules.ProportionalToLearningRate: {
        **FOLLOWS,
        "weight_decay": (0.1, number(minimum=0)),
        "max_learning_rate": (0.1, positive),
    },
    schedules.WarmupHold: {
        "weight_decay": (0.1, number(minimum=0)),
        "warmup_steps": (3, count()),
        "initial": (0.1, number(minimum=0)),
    },
    schedules.Stepwise: {"rates": ([0.1], rates), "steps": (2, count())},
    regularizers.Lp: {
        "weight_decay": (0.1, number(minimum=0)),
        **EXPONENT,
    },
    regularizers.GroupLasso: {
        "weight_decay": (0.1, number(minimum=0)),
        **AXIS,
    },
    constraints.FixedNorm: {
        "axis": (0, either(none, axis)),
        "radius": (2.0, positive),
    },
    metrics.Sparsity: {
        "threshold": (0.1, number(minimum=0)),
        "where": DECAY["where"],
        "name": ("mine", name),
    },
    metrics.JacobianNorm: {
        "method": ("random", one_of("exact", "random", "auto")),
        "projections": (3, count(2)),
        "seed": (1, seed),
        "name": ("mine", name),
    },
    optimizers.WeightDecay: {
        "inner_optimizer": (keras.optimizers.SGD(0.1), sgd),
        "decay": (decays.L2(0.1), rule),
        **EMA,
    },
    optimizers.SGDW: {
        **LEARNING_RATE,
        **DECAY,
        **EMA,
        "momentum": (0.5, number(minimum=0, maximum=1)),
    },
    optimizers.PAdam: {**LEARNING_RATE, **DECAY, **EMA, **EXPONENT},
    optimizers.PathProx: {
        "model": ([PAIR], pairs),
        **LEARNING_RATE,
        **{key: DECAY[key] for key in ("weight_decay", "where")},
        "balance": (False, flag),
        "absorb": (False, flag),
        **EMA,
    },
    optimizers.KFAC: {
        "learning_rate": (0.1, either(none, followed)),
        "damping": (0.1, rate),
        "momentum": (0.5, either(none, number(minimum=0, below=1))),
        "curvature_decay": (0.5, number(minimum=0, below=1)),
        "kl_clip": (0.1, either(none, positive)),
        "estimator": ("fisher", one_of(*ESTIMATORS)),
        "max_factor_size": (9, count()),
        "seed": (1, either(none, seed)),
        "sharing": ("reduce", one_of("expand", "reduce")),
        "eigenbasis": (True, flag),
        "where": (where.kernels(), selection),
        "inner": (None, None),
        "rest": (None, either(none, sgd)),
    },
    callbacks.LevenbergMarquardt: {
        "data": (DATA, None),
        "every": (2, count()),
        "factor": (0.5, number(above=0, below=1)),
        "minimum": (0.1, None),
        "maximum": (10.0, None),
        **BATCHES,
    },
    callbacks.AutoL2: {
        "data": (DATA, None),
        "every": (2, count()),
        "factor": (2.0, number(above=1)),
        "delay": (0.1, number(minimum=0)),
        "patience": (2, count()),
        "smoothing": (0.1, number(minimum=0, below=1)),
        **STEERED,
        **BATCHES,
    },
    callbacks.ReduceDecayOnPlateau: {
        "monitor": ("loss", text),
        "factor": (0.5, number(above=0, below=1)),
        "patience": (2, count()),
        "mode": ("min", one_of("auto", "min", "max")),
        "min_delta": (0.1, number(minimum=0)),
        "cooldown": (1, count(0)),
        **STEERED,
    },
    callbacks.Curvature: {
        "data": (DATA[0], None),
        "every": (2, count()),
        "invert_every": (2, count()),
        "first_pass": (True, flag),
        "verbose": (1, either(flag, count(0))),
        "diagnostics": (True, flag),
        **BATCHES,
    },
    callbacks.GradualPruning: {
        "ratio": (0.5, number(above=0, below=1)),
        "steps": (2, count()),
        "start": (1, count(0)),
        "every": (2, count()),
        "importance": (
            "path",
            either(
                function, one_of("path", "magnitude", "batch_norm", "taylor")
            ),
        ),
        "round_to": (2, count()),
        "data": (DATA, None),
    },
    callbacks.NormTransfer: {
        "norms": ([{"kernel": 1.0}], either(none, epochs))
    },
    callbacks.Mechanisms: {
        "x": (DATA[0], None),
        "every": (2, count()),
        "batch_size": (2, count()),
    },
}


def made(cls, arguments):
    """An object, or the text of the refusal; anything else is raised."""
    try:
        return cls(**arguments)
    except (ValueError, TypeError) as error:
        return str(error)


def assert_config_survives(one):
    if hasattr(one, "get_config"):
        config = one.get_config()
        text = json.dumps(config, allow_nan=False)
        copy = type(one).from_config(json.loads(text))
        assert json.loads(json.dumps(copy.get_config())) == json.loads(text)


@pytest.mark.parametrize(
    "cls",
    catalogue.quick(
        {c.__qualname__: c for c in CLASSES}, "L2", "KFAC", "AutoL2"
    ),
)
def test_an_argument_is_taken_or_refused_by_name(cls):
    rows = CLASSES[cls]
    working = {argument: value for argument, (value, _) in rows.items()}
    for argument, (_, fits) in rows.items():
        for value in VALUES if fits else ():
            what = f"{argument}={value!r}"[:60]
            one = made(cls, {**working, argument: value})
            if not fits(value):
                assert isinstance(one, str), f"{what} was taken"
                assert re.match(
                    rf"`{argument}[^`]*` must .*Received: ", one, re.DOTALL
                ), (what, one)
            else:
                assert isinstance(one, cls), (what, one)
                if not function(value):  # Keras cannot save those.
                    assert_config_survives(one)


def test_patterns_are_taken_or_refused():
    for value in VALUES:
        one = made(lambda pattern: where.paths(pattern), {"pattern": value})
        if text(value):
            assert_config_survives(one)
        else:
            assert one.startswith("`patterns` must be"), value


positives = st.floats(1e-6, 1e6)
selections = st.recursive(
    st.sampled_from([where.kernels(), where.everything()])
    | st.builds(
        where.paths, st.text(st.characters(exclude_characters="/"), min_size=1)
    ),
    lambda inner: (
        st.builds(lambda a: ~a, inner)
        | st.builds(lambda a, b: a & b, inner, inner)
        | st.builds(lambda a, b: a | b, inner, inner)
    ),
    max_leaves=4,
)
rates_of_change = (
    positives
    | st.just(0.0)
    | st.builds(schedules.WarmupHold, positives, st.integers(1, 9), positives)
    | st.builds(schedules.ConstantTimescale, positives, positives)
)
names = st.none() | st.text(
    st.characters(exclude_characters="/", codec="utf-8"), min_size=1
)
rules = st.one_of(
    st.builds(
        cls,
        rates_of_change,
        where=selections,
        coupling=st.sampled_from(cls.couplings),
        name=names,
        **more,
    )
    for cls, more in (
        (decays.L2, {}),
        (decays.L1, {}),
        (decays.Lp, {"p": positives}),
        (decays.ProximalLp, {"p": st.floats(0.1, 4)}),
        (decays.GroupLasso, {"axis": st.integers(-3, 3)}),
    )
)


@pytest.mark.slow(reason="draws forty optimizers")
@settings(max_examples=30)
@given(
    inner=st.sampled_from(["SGD", "Adam", "Lion"]),
    rule=rules | st.lists(rules, min_size=1, max_size=3),
    average=st.booleans(),
    momentum=st.floats(0, 1),
)
def test_any_optimizer_survives_json(inner, rule, average, momentum):
    one = optimizers.WeightDecay(
        getattr(keras.optimizers, inner)(0.1),
        rule,
        use_ema=average,
        ema_momentum=momentum,
    )
    assert_config_survives(one)
    assert set(one.current_weight_decay()) == set(one.decays)
