"""How fast the direction of a weight turns, and what sets that."""

import math

import keras
import numpy as np

from keras_wd import backend
from keras_wd.decays import L2
from keras_wd.graph.invariance import invariant_variables
from keras_wd.optimizers.chain import chain
from keras_wd.optimizers.kfac import KFAC
from keras_wd.optimizers.weight_decay import WeightDecay
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
    weight, `eta` (K-FAC without damping: see `effective_damping`).

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
    inner = chain(optimizer)[-1]
    power = _POWERS.get(type(inner))
    if power is None:
        known = ", ".join(sorted(kind.__name__ for kind in _POWERS))
        raise ValueError(
            f"`optimizer` must be of a known kind: {known}, or a wrapper of "
            f"one. Received: {type(inner).__name__}."
        )
    eta = float(inner.learning_rate)
    if power == 2:
        eta /= 1 - inner.momentum
    invariant = {id(variable) for variable in invariant_variables(model)}
    return {
        variable.path: _divided(eta, norm_of(variable) ** power)
        if id(variable) in invariant
        else None
        for variable in kernels_of(model)
    }


def effective_damping(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> dict[str, float | None]:
    """The damping that the direction of every kernel meets under K-FAC, now.

    Formula: `rho^2 d` for a scale-invariant weight of norm rho and damping d:
    its curvature falls as `1 / rho^2`, so damping matters more as it grows.

    Args:
        model: a built Sequential or Functional model.
        optimizer: the compiled one if None; `KFAC` or a wrapper of it.

    Returns:
        By the path of the weight; None where it is not applicable, because
        the scale of the weight matters.

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
    damping = float(inner.damping)
    invariant = {id(variable) for variable in invariant_variables(model)}
    return {
        variable.path: norm_of(variable) ** 2 * damping
        if id(variable) in invariant
        else None
        for variable in kernels_of(model)
    }


def rotation(before: object, after: object) -> float:
    """The angle between two values of a weight, in radians.

    Formula: `2 asin(|u - v| / 2)` of the unit vectors u and v, which is exact
    for small angles where the arc cosine is not.

    Args:
        before: an array of any shape.
        after: an array of the same shape.

    Raises:
        ValueError: if the shapes differ or an array is zero.

    >>> import numpy as np
    >>> from keras_wd import metrics
    >>> round(metrics.rotation(np.array([1.0, 0.0]), np.array([0.0, 2.0])), 4)
    1.5708
    """
    u, v = (np.asarray(a, dtype="float64") for a in (before, after))
    if u.shape != v.shape:
        raise ValueError(
            "`after` must have the shape of `before`. Received: "
            f"{v.shape} and {u.shape}."
        )
    lengths = np.linalg.norm(u), np.linalg.norm(v)
    if not all(lengths):
        raise ValueError(
            "`before` and `after` must not be zero, which has no direction."
        )
    half = np.linalg.norm(u / lengths[0] - v / lengths[1]) / 2
    return 2 * math.asin(min(half, 1.0))


def equilibrium_rotation(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> dict[str, float | None]:
    """The angle per step at which growth and decay of the norm balance.

    Formula, with s the part of the weight that L2 decay takes away per step
    (`learning_rate * rate` for `"decoupled"` and `"coupled"`, `rate` for
    `"independent"`), mu the momentum of SGD and b1, b2 those of the others:

        SGD, coupled             sqrt(2 s / (1 + mu))
        SGD, decoupled           sqrt(2 s (1 - mu) / (1 + mu))
        Adam, decoupled          sqrt(2 s (1 - b1) / (1 + b1))
        Lion, decoupled          sqrt(pi s ((1-b1)^2 + b1^2 (1-b2) / (1+b2)))

    It holds for scale-invariant weights with gradients that are mostly noise,
    after about 1 / s steps.

    Args:
        model: a built Sequential or Functional model.
        optimizer: the compiled one if None.

    Returns:
        By the path of the scale-invariant weight, in radians; None where no
        formula is known (another optimizer, another decay, none).

    >>> import keras
    >>> from keras_wd import metrics, optimizers
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, name="hidden"),
    ...     keras.layers.BatchNormalization(),
    ... ], name="net")
    >>> model.compile(optimizers.SGDW(0.1, weight_decay=0.05), "mse")
    >>> {k: round(v, 3) for k, v in metrics.equilibrium_rotation(model).items()}
    {'net/hidden/kernel': 0.1}

    Source: van Laarhoven, 2017, section 3; Kosson, Messmer and Jaggi, 2024,
    "Rotational Equilibrium", table 1.
    """
    optimizer = optimizer_of(model, optimizer)
    rules = _rules_by_variable(model, optimizer)
    found = {}
    for variable in invariant_variables(model):
        acting = rules.get(id(variable), [])
        angle = None
        if len(acting) == 1 and isinstance(acting[0][0], L2):
            rule, rate = acting[0]
            angle = _angle(chain(optimizer)[-1], rule.coupling, rate)
        found[variable.path] = angle
    return found


def _rules_by_variable(model, optimizer):
    wrapper = next(
        (o for o in chain(optimizer) if isinstance(o, WeightDecay)), None
    )
    found = {}
    if wrapper is not None:
        rates = wrapper.current_weight_decay()
        variables = list(model.trainable_variables)
        for name, rule in wrapper.decays.items():
            if rates[name] > 0:
                for index in rule.select(variables):
                    pair = (rule, rates[name])
                    found.setdefault(id(variables[index]), []).append(pair)
    return found


def _angle(inner, coupling, rate):
    eta = float(inner.learning_rate)
    s = rate if coupling == "independent" else eta * rate
    if type(inner) is keras.optimizers.SGD and not inner.nesterov:
        angle = 2 * s / (1 + inner.momentum)
        if coupling != "coupled":
            angle *= 1 - inner.momentum
        return math.sqrt(angle)
    if coupling == "coupled":
        return None
    if type(inner) in (keras.optimizers.Adam, keras.optimizers.AdamW):
        return math.sqrt(2 * s * (1 - inner.beta_1) / (1 + inner.beta_1))
    if type(inner) is keras.optimizers.Lion:
        b1, b2 = inner.beta_1, inner.beta_2
        noise = (1 - b1) ** 2 + b1**2 * (1 - b2) / (1 + b2)
        return math.sqrt(math.pi * s * noise)
    return None


def _divided(eta, scale):
    return eta / scale if scale else math.inf


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


def kernels_of(model: keras.Model) -> list[keras.Variable]:
    """The trainable kernels of a model."""
    variables = list(model.trainable_variables)
    return [variables[i] for i in selected_indices(kernels(), variables)]


def norm_of(variable: keras.Variable) -> float:
    """The Euclidean norm of a weight."""
    value = np.asarray(backend.concrete_value(variable), dtype="float64")
    return float(np.linalg.norm(value))
