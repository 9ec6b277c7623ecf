"""Every public class of keras_wd, made with arguments that are not defaults.

`tests/test_contracts.py` runs the contracts over these rows, and fails when a
public class has none. A row is a function, so that every test gets its own.
"""

import keras
import pytest

from keras_wd import constraints
from keras_wd import decays
from keras_wd import graph
from keras_wd import metrics
from keras_wd import optimizers
from keras_wd import regularizers
from keras_wd import schedules
from keras_wd import where

COSINE = keras.optimizers.schedules.CosineDecay
GO_THE_SAME_WAY = pytest.mark.slow(reason="the quick rows go the same way")


def quick(rows, *names, marks=()):
    """Parameters of the rows, slow but for the names that go every way.

    Those have the `marks`.
    """
    rows = (
        rows if isinstance(rows, dict) else dict(zip(rows, rows, strict=True))
    )
    return [
        pytest.param(
            row, id=str(name), marks=marks if name in names else GO_THE_SAME_WAY
        )
        for name, row in rows.items()
    ]


def slow_ones(names, reasons):
    """Parameters of the names, slow where there is a reason."""
    return [
        pytest.param(
            name,
            marks=pytest.mark.slow(reason=reasons[name])
            if name in reasons
            else (),
        )
        for name in names
    ]


SELECTIONS = {
    "kernels": lambda: where.kernels(),
    "everything": lambda: where.everything(),
    "paths": lambda: where.paths("head/*", "**/kernel"),
    "regex": lambda: where.regex("head/.*", "kernel$"),
    "embeddings": lambda: where.embeddings(),
    "tokens": lambda: where.tokens(),
    "attention": lambda: where.attention(),
    "normalizations": lambda: where.normalizations(),
    "layers": lambda: where.layers(keras.layers.Dense, "Conv2D"),
    "combined": lambda: (
        (where.kernels() | where.paths("bias")) & ~where.paths("none/*")
    ),
}

SCHEDULES = {
    "ConstantTimescale": lambda: schedules.ConstantTimescale(
        COSINE(0.1, 50), 20
    ),
    "ProportionalToLearningRate": lambda: schedules.ProportionalToLearningRate(
        0.2, COSINE(0.1, 50), 0.1
    ),
    "WarmupHold": lambda: schedules.WarmupHold(0.3, 3, initial=0.1),
    "Stepwise": lambda: schedules.Stepwise([0.3, 0.2, 0.1], steps=2),
}

REGULARIZERS = {
    "Lp": lambda: regularizers.Lp(0.1, p=1.3),
    "GroupLasso": lambda: regularizers.GroupLasso(0.1, axis=(0, 1)),
}

CONSTRAINTS = {
    "FixedNorm": lambda: constraints.FixedNorm(axis=0, radius=2.0),
    "FixedSpectralNorm": lambda: constraints.FixedSpectralNorm(radius=2.0),
}

METRICS = {
    "Sparsity": lambda: metrics.Sparsity(
        1e-13, where=where.everything(), name="zeros"
    ),
    "JacobianNorm": lambda: metrics.JacobianNorm(
        "random", projections=3, seed=5, name="jacobian"
    ),
}

# The rates are strong enough for a missing decay to show after one step.
DECAYS = {
    "L2": lambda: decays.L2(
        0.3, where=where.everything(), coupling="independent", name="ridge"
    ),
    "L2 coupled": lambda: decays.L2(0.3, coupling="coupled"),
    "L2 cautious": lambda: decays.L2(0.3, cautious=True),
    "L2 of touched rows": lambda: decays.L2(0.3, touched_rows=True),
    "L2 scheduled": lambda: decays.L2(schedules.WarmupHold(0.5, 3)),
    "L1": lambda: decays.L1(0.2, where=where.paths("kernel"), name="lasso"),
    "L1 coupled": lambda: decays.L1(0.2, coupling="coupled"),
    "Lp": lambda: decays.Lp(0.2, p=0.8, name="sparse"),
    "Lp coupled": lambda: decays.Lp(0.2, p=1.3, coupling="coupled"),
    "ProximalLp": lambda: decays.ProximalLp(
        0.02, p=0.7, coupling="independent"
    ),
    "GroupLasso": lambda: decays.GroupLasso(0.3, axis=-2, name="inputs"),
    "GroupLasso coupled": lambda: decays.GroupLasso(0.3, coupling="coupled"),
    "Lp late": lambda: decays.Lp(0.2, p=0.8, late=True),
    "NormControl": lambda: decays.NormControl(
        0.5,
        schedules.Stepwise([1.5, 0.5], steps=2),
        axis=-1,
        coupling="independent",
        name="norms",
    ),
    "CPR": lambda: decays.CPR(0.7, warmup_steps=1, bound=0.9, name="bounds"),
    "Hyperball": lambda: decays.Hyperball(0.5, axis=-1, coupling="independent"),
    "RadialBrake": lambda: decays.RadialBrake(0.7, inward=0.5, axis=0),
}

OPTIMIZERS = {
    "WeightDecay": lambda **inner: optimizers.WeightDecay(
        keras.optimizers.Adam(0.05, **inner),
        [decays.L2(0.3), decays.L1(0.1, where=where.paths("bias"))],
        use_ema=True,
        ema_momentum=0.9,
        ema_overwrite_frequency=3,
    ),
    "SGDW": lambda **inner: optimizers.SGDW(
        0.05,
        weight_decay=0.3,
        momentum=0.9,
        where=where.everything(),
        coupling="independent",
        nesterov=True,
        **inner,
    ),
    "PAdam": lambda **inner: optimizers.PAdam(
        0.05,
        weight_decay=schedules.WarmupHold(0.3, 3),
        p=1.2,
        where=where.paths("kernel"),
        beta_1=0.8,
        **inner,
    ),
}

OPTIMIZERS["WeightDecay in the metric of Adam"] = lambda **inner: (
    optimizers.WeightDecay(
        keras.optimizers.Adam(0.05, **inner),
        [
            decays.GroupLasso(0.02, metric="optimizer"),
            decays.L1(0.02, where=where.paths("bias"), metric="optimizer"),
        ],
    )
)

# Abstract classes, and plain data.
WITHOUT_ROW = {
    *("Decay", "SeparableDecay", "Selection"),
    *("HomogeneousUnits", "Estimate", "ScaledDecay"),
}


def _pairs():
    hidden = keras.layers.Dense(6, "relu", name="hidden")
    output = keras.layers.Dense(3, name="output")
    return graph.homogeneous_units(
        keras.Sequential([keras.Input((8,)), hidden, output])
    )


# These need a model with named layers or a curvature, and are trained in
# tests of their own: tests/decays/test_path_norm.py,
# tests/optimizers/test_path_prox.py and tests/optimizers/test_kfac.py.
TRAINED_ELSEWHERE = {
    "PathNorm": lambda: decays.PathNorm(
        0.3, _pairs(), balance=False, absorb=True, name="paths"
    ),
    "PathProx": lambda: optimizers.PathProx(
        _pairs(), 0.05, 0.3, balance=False, use_ema=True
    ),
    "KFAC": lambda: optimizers.KFAC(
        COSINE(0.1, 50),
        damping=0.01,
        momentum=0.5,
        curvature_decay=0.9,
        kl_clip=0.01,
        estimator="empirical",
        seed=3,
    ),
    "KFAC in its eigenbasis": lambda: optimizers.KFAC(
        0.1, eigenbasis=True, sharing="reduce", max_factor_size=7
    ),
    "KFAC and others inside": lambda: optimizers.KFAC(
        where=where.paths("hidden/*"),
        inner=keras.optimizers.Adam(COSINE(0.1, 50)),
        rest=keras.optimizers.SGD(0.1, momentum=0.9, name="rest"),
    ),
}

SERIALIZABLE = {
    f"{kind}: {name}": make
    for kind, rows in {
        "where": SELECTIONS,
        "schedules": SCHEDULES,
        "regularizers": REGULARIZERS,
        "constraints": CONSTRAINTS,
        "metrics": METRICS,
        "decays": DECAYS,
        "optimizers": OPTIMIZERS,
        "trained elsewhere": TRAINED_ELSEWHERE,
    }.items()
    for name, make in rows.items()
}


def with_decay(name, inner=None, **arguments):
    """A wrapper of SGD with momentum around one row of DECAYS."""
    if inner is None:
        inner = keras.optimizers.SGD(0.1, momentum=0.9, **arguments)
    return optimizers.WeightDecay(inner, DECAYS[name]())


def all_optimizers():
    """(name, function of inner arguments) of everything that can train."""
    rows = dict(OPTIMIZERS)
    for name in DECAYS:
        rows[f"SGD + {name}"] = lambda name=name, **inner: with_decay(
            name, **inner
        )
    return rows
