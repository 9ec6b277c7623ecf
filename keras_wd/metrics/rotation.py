"""How far the direction of a weight turns in a step."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_wd.decays import L2
from keras_wd.graph.invariance import invariant_variables
from keras_wd.metrics.effective_rates import length_of
from keras_wd.metrics.effective_rates import optimizer_of
from keras_wd.optimizers.chain import chain
from keras_wd.optimizers.rates import decimal_of
from keras_wd.optimizers.weight_decay import WeightDecay


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
    lengths = length_of(u), length_of(v)
    if not all(lengths):
        raise ValueError(
            "`before` and `after` must not be zero, which has no direction."
        )
    half = length_of(u / lengths[0] - v / lengths[1]) / 2
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
    return angles_of(model, optimizer, invariant_variables(model))


def angles_of(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
) -> dict[str, float | None]:
    """The angle of `equilibrium_rotation` of some weights, by path."""
    rules = _rules_by_variable(model, optimizer)
    found = {}
    for variable in variables:
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
    eta = decimal_of(inner.learning_rate)
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
