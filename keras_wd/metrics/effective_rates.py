"""How fast the direction of a weight turns, and what sets that."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_wd import backend
from keras_wd.graph.invariance import invariant_variables
from keras_wd.optimizers.chain import chain
from keras_wd.optimizers.kfac import KFAC
from keras_wd.optimizers.rates import decimal_of
from keras_wd.where import kernels
from keras_wd.where import selected_indices

# How a step scales with the norm of a scale-invariant weight, whose gradient
# is proportional to 1 / norm: the power of the norm in eta / norm^power.
_POWERS = {
    keras.optimizers.SGD: 2,
    keras.optimizers.Adam: 1,
    keras.optimizers.AdamW: 1,
    keras.optimizers.Adamax: 1,
    keras.optimizers.Nadam: 1,
    keras.optimizers.RMSprop: 1,
    keras.optimizers.Adagrad: 1,
    keras.optimizers.Lion: 1,
    keras.optimizers.Muon: 1,
    keras.optimizers.Adafactor: 0,
    keras.optimizers.Lamb: 0,
    KFAC: 0,
}


def effective_learning_rate(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> dict[str, float | None]:
    """The learning rate of the direction of every kernel, now.

    Formula, for a scale-invariant weight of norm rho and the learning rate
    eta in force: SGD `eta / (rho^2 (1 - momentum))`; Adam, RMSprop, Adagrad,
    Lion, Muon and their like, whose step does not scale with the gradient,
    `eta / rho`; K-FAC, LAMB and Adafactor, whose step is proportional to the
    weight, `eta` (K-FAC without damping: see `effective_damping`; a weight
    without a block as by SGD).

    Args:
        model: a built Sequential or Functional model.
        optimizer: the compiled one if None.

    Returns:
        By the path of the weight; None where it is not applicable, because
        the scale of the weight matters.

    Raises:
        ValueError: if there is no optimizer or its kind is not known.

    >>> import keras
    >>> from keras_wd import metrics
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(1, kernel_initializer="ones", name="hidden"),
    ...     keras.layers.BatchNormalization(),
    ...     keras.layers.Dense(2, name="output"),
    ... ], name="net")
    >>> model.compile(keras.optimizers.SGD(0.5), "mse")
    >>> metrics.effective_learning_rate(model)
    {'net/hidden/kernel': 0.125, 'net/output/kernel': None}

    Source: van Laarhoven, 2017, "L2 Regularization versus Batch and Weight
    Normalization", section 2; Zhang, Wang, Xu and Grosse, 2019, section 4.1.
    """
    optimizer = optimizer_of(model, optimizer)
    if not is_known(optimizer):
        known = ", ".join(sorted(kind.__name__ for kind in _POWERS))
        kind = type(chain(optimizer)[-1]).__name__
        raise ValueError(
            f"`optimizer` must be of a known kind: {known}, or a wrapper of "
            f"one, without optimizers inside. Received: {kind}."
        )
    found = rates_of(optimizer, invariant_variables(model))
    return {v.path: found.get(v.path) for v in _kernels_of(model)}


def effective_damping(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> dict[str, float | None]:
    """The current damping of the direction of every kernel under K-FAC.

    Formula: `rho^2 d` for a scale-invariant weight of norm rho and damping d:
    its curvature falls as `1 / rho^2`, so damping matters more as it grows.

    Args:
        model: a built Sequential or Functional model.
        optimizer: the compiled one if None; `KFAC` or a wrapper of it.

    Returns:
        By the path of the weight; None where it is not applicable, because
        the scale of the weight matters or it has no block.

    Raises:
        ValueError: if the optimizer is not K-FAC.

    >>> import keras
    >>> from keras_wd import metrics
    >>> from keras_wd.optimizers import KFAC
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(1, kernel_initializer="ones", name="hidden"),
    ...     keras.layers.BatchNormalization(),
    ... ], name="net")
    >>> metrics.effective_damping(model, KFAC(0.1, damping=0.25))
    {'net/hidden/kernel': 1.0}

    Source: Zhang, Wang, Xu and Grosse, 2019, "Three Mechanisms of Weight
    Decay Regularization", section 4.3.
    """
    inner = chain(optimizer_of(model, optimizer))[-1]
    if not isinstance(inner, KFAC):
        raise ValueError(
            "`optimizer` must be KFAC or a wrapper of it. Received: "
            f"{type(inner).__name__}, which has no damping."
        )
    found = dampings_of(inner, invariant_variables(model))
    return {v.path: found.get(v.path) for v in _kernels_of(model)}


def is_known(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether it is known how its step scales with the norm of a weight."""
    last = chain(optimizer)[-1]
    # K-FAC with optimizers inside steps as they do.
    return type(last) in _POWERS and not getattr(last, "optimizers_inside", ())


def rates_of(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> dict[str, float]:
    """The effective learning rate of scale-invariant weights, by path."""
    inner = chain(optimizer)[-1]
    eta = decimal_of(inner.learning_rate)
    found = {}
    for variable in variables:
        power = _POWERS[type(inner)]
        if isinstance(inner, KFAC) and inner.is_plain(variable):
            power = 2
        scale = norm_of(variable) ** power
        if power == 2:
            scale *= 1 - inner.momentum
        found[variable.path] = eta / scale if scale else math.inf
    return found


def dampings_of(
    optimizer: KFAC, variables: Sequence[keras.Variable]
) -> dict[str, float]:
    """The effective damping of scale-invariant weights, by path."""
    damping = decimal_of(optimizer.damping)
    return {
        v.path: norm_of(v) ** 2 * damping
        for v in variables
        if not optimizer.is_plain(v)
    }


def optimizer_of(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None
) -> keras.optimizers.Optimizer:
    """`optimizer`, or the one the model was compiled with."""
    if optimizer is None:
        optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            "`optimizer` must be given for a model that is not compiled. "
            f"Received: optimizer=None, model={model.name!r}."
        )
    return optimizer


def _kernels_of(model: keras.Model) -> list[keras.Variable]:
    """The trainable kernels of a model."""
    variables = list(model.trainable_variables)
    return [variables[i] for i in selected_indices(kernels(), variables)]


def norm_of(variable: keras.Variable) -> float:
    """The Euclidean norm of a weight; NaN while it has no value."""
    return length_of(backend.concrete_value(variable))


def length_of(array: np.ndarray | None) -> float:
    """The Euclidean norm of an array of any shape, summed in float64.

    Without BLAS, whose threads are in the way of a training that goes on:
    `np.linalg.norm` can take a hundred times as long beside one.
    """
    return math.sqrt(np.square(np.asarray(array, dtype="float64")).sum())
