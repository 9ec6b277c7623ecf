"""What an adaptive optimizer divides the gradients of its weights by.

With `metric="optimizer"` a proximal step measures distances as the optimizer
does: its step is `w - learning_rate * m / d`, the step of gradient descent
where the length of a step is `sum d (w - w+)^2 / (2 learning_rate)`.
"""

from collections.abc import Iterable

import keras
from keras import ops

from keras_wd import backend
from keras_wd.decays.decay import Decay


def _adam(inner, position):
    slots = inner._velocity_hats if inner.amsgrad else inner._velocities
    root = ops.sqrt(_float(slots[position]))
    return (root + inner.epsilon) / ops.sqrt(_warmth(inner, root.dtype))


def _nadam(inner, position):
    square = _float(inner._velocities[position])
    square = square / _warmth(inner, square.dtype)
    return ops.sqrt(square) + inner.epsilon


def _adamax(inner, position):
    return _float(inner._u[position]) + inner.epsilon


def _rmsprop(inner, position):
    square = _float(inner._velocities[position])
    if inner.centered:
        square -= ops.square(_float(inner._average_gradients[position]))
    # Its momentum adds up 1 / (1 - momentum) steps.
    return ops.sqrt(square + inner.epsilon) * (1 - inner.momentum)


def _adagrad(inner, position):
    return ops.sqrt(_float(inner._accumulators[position]) + inner.epsilon)


# AdamW is an Adam.
_DIVISORS = {
    keras.optimizers.Adam: _adam,
    keras.optimizers.Nadam: _nadam,
    keras.optimizers.Adamax: _adamax,
    keras.optimizers.RMSprop: _rmsprop,
    keras.optimizers.Adagrad: _adagrad,
}


def check_metric_of(
    inner: keras.optimizers.Optimizer, decays: Iterable[Decay]
) -> None:
    """Raise if a decay wants a metric that the optimizer does not have."""
    wanted = any(rule.metric == "optimizer" for rule in decays)
    if wanted and _divisor(inner) is None:
        names = ", ".join(kind.__name__ for kind in _DIVISORS)
        kind = type(inner).__name__
        raise ValueError(
            "`metric` must be None, or 'optimizer' with one that divides the "
            f"gradient of every weight by a number of its own: {names}. "
            f"Received: metric='optimizer' with {kind}, "
            f"{_reason(inner)}."
        )


def divided_by(inner: keras.optimizers.Optimizer, position: int):
    """What the step just taken divided a gradient by: d, one per weight.

    Args:
        inner: an optimizer that `check_metric_of` accepts, after its step.
        position: of the variable among those it was built for.

    Returns:
        Tensor of the variable's shape, positive; infinite before the first
        update, which leaves a proximal step without strength.
    """
    return _divisor(inner)(inner, position)


def _divisor(inner):
    for kind, divisor in _DIVISORS.items():
        if isinstance(inner, kind):
            return divisor
    return None


def _reason(inner):
    if isinstance(inner, keras.optimizers.SGD):
        return "whose steps are all measured alike: metric=None is its metric"
    if isinstance(inner, keras.optimizers.Adafactor):
        return (
            "which also divides a step by its size before it is clipped, a "
            "number that it does not keep. Use RMSprop or Adam"
        )
    return "whose step is not of that form"


def _warmth(inner, dtype):
    """`1 - beta_2^t` at the step just taken."""
    step = ops.cast(inner.iterations, dtype)
    return 1 - ops.power(ops.cast(inner.beta_2, dtype), step)


def _float(slot):
    value = backend.snapshot(slot)
    dtype = keras.backend.standardize_dtype(value.dtype)
    return value if dtype == "float64" else ops.cast(value, "float32")
