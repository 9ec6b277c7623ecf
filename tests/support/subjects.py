"""The columns of the table: optimizers with a decay."""

import dataclasses
from collections.abc import Callable

import keras

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers
from keras_wd import where
from tests.training import data

RATE = 0.3


def sgd(**inner):
    return keras.optimizers.SGD(**{"learning_rate": 0.1, **inner})


@dataclasses.dataclass(frozen=True)
class Subject:
    """One column.

    Attributes:
        make: `make(model, rate, **inner)` returns an optimizer for a model;
            `inner` are arguments of the Keras optimizer inside.
        ema: the same with an average of the weights.
        adam: whether Keras's Adam is inside.
        coupled: whether the decay is part of the gradient.
        curvature: whether it needs one.
        pairs: whether it needs pairs of layers.
        rests: whether rows without a gradient stay in the first step.
        rate: of the decay.
        tolerance: of results that are the same but for four steps of
            rounding in another order, magnified by Adam and K-FAC.
    """

    make: Callable
    ema: Callable
    rate: float = RATE
    tolerance: float = 1e-5
    adam: bool = False
    coupled: bool = False
    curvature: bool = False
    pairs: bool = False
    rests: bool = False

    def callbacks(self):
        """What `fit` needs beside the optimizer."""
        return [callbacks.Curvature(data()[0], 2, 2)] if self.curvature else []

    def ready(self, model, x=None):
        """A compiled model, so that its first step may come."""
        if self.curvature:
            optimizer = model.optimizer
            while not isinstance(optimizer, optimizers.KFAC):
                optimizer = optimizer.inner_optimizer
            optimizer.update_curvature(model, data()[0] if x is None else x)
        return model


def adam(**inner):
    # Where the gradient is small, a small epsilon would magnify rounding.
    return keras.optimizers.Adam(
        **{"learning_rate": 0.1, "epsilon": 1e-2, **inner}
    )


def adafactor(**inner):
    return keras.optimizers.Adafactor(**{"learning_rate": 0.1, **inner})


def wrapped(rule, inner=sgd, usual=RATE, **more):
    """`WeightDecay` around an optimizer; `rule(model, rate)` is the decay."""

    def make(model, rate=usual, **arguments):
        return optimizers.WeightDecay(inner(**arguments), rule(model, rate))

    def ema(model):
        return optimizers.WeightDecay(
            inner(), rule(model, usual), use_ema=True, ema_momentum=0.9
        )

    return Subject(make, ema, rate=usual, **more)


def named(kind, with_model=False, **more):
    """A thin optimizer, which takes the arguments of both."""

    def make(model, rate=RATE, **arguments):
        first = (model,) if with_model else ()
        arguments = {"learning_rate": 0.1, **arguments}
        return kind(*first, weight_decay=rate, **arguments)

    return Subject(
        make, lambda m: make(m, use_ema=True, ema_momentum=0.9), **more
    )


def kfac(learning_rate=0.1, **arguments):
    # Exact: XLA draws other labels from the same seed.
    arguments = {"estimator": "fisher_exact", **arguments}
    return optimizers.KFAC(learning_rate, **arguments)


def kfac_inside(learning_rate=0.1, **arguments):
    """K-FAC as a preconditioner of Adam."""
    inner = adam(learning_rate=learning_rate)
    return kfac(None, inner=inner, **arguments)


def kfac_beside(learning_rate=0.1, **arguments):
    """K-FAC for the kernels, SGD for the biases."""
    rest = keras.optimizers.SGD(0.05)
    return kfac(learning_rate, where=where.kernels(), rest=rest, **arguments)


def in_metric(model, rate):
    return decays.L1(rate, metric="optimizer")


def l2(model, rate):
    return decays.L2(rate)


SUBJECTS = {
    "L2": wrapped(l2),
    "L2 coupled": wrapped(
        lambda model, rate: decays.L2(rate, coupling="coupled"), coupled=True
    ),
    "L2 cautious": wrapped(lambda model, rate: decays.L2(rate, cautious=True)),
    "L2 anchored": wrapped(
        lambda model, rate: decays.L2(rate, anchor="start"), rests=True
    ),
    "L2 touched rows": wrapped(
        lambda model, rate: decays.L2(rate, touched_rows=True), rests=True
    ),
    "L2 layerwise": wrapped(
        lambda model, rate: decays.L2(rate, layerwise=True)
    ),
    "L1": wrapped(lambda model, rate: decays.L1(rate)),
    # Smaller, so that no unit dies, whose norm a constraint could not hold.
    "L1, Adam's metric": wrapped(in_metric, adam, 0.03, adam=True),
    "L1, Adafactor's metric": wrapped(in_metric, adafactor),
    "Lp": wrapped(lambda model, rate: decays.Lp(rate, p=0.8)),
    "Lp late": wrapped(lambda model, rate: decays.Lp(rate, p=0.8, late=True)),
    "ProximalLp": wrapped(lambda model, rate: decays.ProximalLp(rate, p=0.5)),
    "GroupLasso": wrapped(lambda model, rate: decays.GroupLasso(rate)),
    "NormControl": wrapped(
        lambda model, rate: decays.NormControl(rate, target=0.7)
    ),
    "CPR": wrapped(lambda model, rate: decays.CPR(rate, bound=0.7)),
    "Hyperball": wrapped(lambda model, rate: decays.Hyperball(rate)),
    "RadialBrake": wrapped(
        lambda model, rate: decays.RadialBrake(rate, inward=1.0)
    ),
    "PathNorm": wrapped(
        lambda model, rate: decays.PathNorm(
            rate, graph.homogeneous_units(model)
        ),
        pairs=True,
    ),
    "SGDW": named(optimizers.SGDW),
    "PAdam": named(optimizers.PAdam, adam=True),
    "PathProx": named(optimizers.PathProx, with_model=True, pairs=True),
    "KFAC + L2": wrapped(l2, kfac, curvature=True),
    # XLA's eigenvectors are not TensorFlow's to the last digits, which
    # differences of eigenvalues divide.
    "KFAC, eigenbasis + L2": wrapped(
        l2,
        lambda **arguments: kfac(**arguments, eigenbasis=True),
        curvature=True,
        tolerance=1e-4,
    ),
    "KFAC, inner Adam + L2": wrapped(
        l2, kfac_inside, curvature=True, adam=True
    ),
    "KFAC, rest SGD + L2": wrapped(l2, kfac_beside, curvature=True),
}
