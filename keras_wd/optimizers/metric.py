"""What an adaptive optimizer divides the gradients of its weights by.

With `metric="optimizer"` a proximal step measures distances as the optimizer
does: its step is `w - learning_rate * m / d`, the step of gradient descent
where the length of a step is `sum d (w - w+)^2 / (2 learning_rate)`.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd import backend
from keras_wd.backend import autodiff
from keras_wd.decays.decay import Decay
from keras_wd.optimizers.clipping import clipped
from keras_wd.optimizers.clipping import clips


def _adam(inner, position, step):
    slots = inner._velocity_hats if inner.amsgrad else inner._velocities
    root = ops.sqrt(_float(slots[position]))
    return (root + inner.epsilon) / ops.sqrt(_warmth(inner, root.dtype))


def _nadam(inner, position, step):
    square = _float(inner._velocities[position])
    square = square / _warmth(inner, square.dtype)
    return ops.sqrt(square) + inner.epsilon


def _adamax(inner, position, step):
    return _float(inner._u[position]) + inner.epsilon


def _rmsprop(inner, position, step):
    square = _float(inner._velocities[position])
    if inner.centered:
        square -= ops.square(_float(inner._average_gradients[position]))
    # Its momentum adds up 1 / (1 - momentum) steps.
    return ops.sqrt(square + inner.epsilon) * (1 - inner.momentum)


def _adagrad(inner, position, step):
    return ops.sqrt(_float(inner._accumulators[position]) + inner.epsilon)


def _adafactor(inner, position, step):
    """`learning rate / alpha * sqrt(v)`, times what its clipping divides by.

    The same operations in the same dtype as Keras's, which keeps v alone.
    """
    v = backend.snapshot(inner._v[position])
    # A sparse gradient as it is, like Keras.
    share = ops.divide(ops.cast(step.gradients[position], v.dtype), ops.sqrt(v))
    size = _float(_root_mean_square(share))
    shortened = ops.maximum(size / inner.clip_threshold, 1)
    count = ops.cast(inner.iterations, size.dtype)
    slower = ops.maximum(
        ops.cast(step.learning_rate, size.dtype) * ops.sqrt(count), 1
    )
    scale = ops.maximum(_float(step.sizes[position]), inner.epsilon_2)
    divisor = ops.sqrt(_float(v)) * (shortened * slower / scale)
    return ops.where(v > 0, divisor, float("inf"))


# AdamW is an Adam.
_DIVISORS = {
    keras.optimizers.Adam: _adam,
    keras.optimizers.Nadam: _nadam,
    keras.optimizers.Adamax: _adamax,
    keras.optimizers.RMSprop: _rmsprop,
    keras.optimizers.Adagrad: _adagrad,
    keras.optimizers.Adafactor: _adafactor,
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


class StepMetric:
    """What one step of an optimizer divides its gradients by.

    Args:
        inner: an optimizer that `check_metric_of` accepts.
        accumulated: what the steps before have added up, by position; empty
            where nothing is accumulated.

    Attributes:
        learning_rate: of this step.
        sizes: by position, the root mean square of the weights before it.
        gradients: by position, what the step took for the gradient.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        accumulated: Sequence[keras.Variable],
    ):
        self._inner = inner
        self._accumulated = accumulated
        self.learning_rate = None
        self.sizes, self.gradients = {}, {}

    def before(self, variables: Mapping[int, keras.Variable]) -> None:
        """Read what the step will change.

        Args:
            variables: those whose divisor will be asked for, by position.
        """
        if _divisor(self._inner) is _adafactor and variables:
            self._accumulated = list(map(backend.snapshot, self._accumulated))
            self.learning_rate = ops.convert_to_tensor(
                self._inner.learning_rate
            )
            self.sizes = {
                position: _root_mean_square(backend.snapshot(variable))
                for position, variable in variables.items()
            }

    def read(self, gradients: Mapping[int, object]) -> None:
        """Find out what the optimizer makes of the gradients it is given.

        Args:
            gradients: those of this replica by position, None for none.
        """
        if not self.sizes:
            return
        present = {p: g for p, g in gradients.items() if g is not None}
        scale = self._inner.loss_scale_factor
        if scale is not None:
            present = {p: g / scale for p, g in present.items()}
        if self._accumulated:
            steps = self._inner.gradient_accumulation_steps
            present = {
                p: (_dense(g) + self._accumulated[p]) / steps
                for p, g in present.items()
            }
        values = list(present.values())
        if backend.replica_count() > 1:
            # What `clip_over_replicas` has clipped.
            values = autodiff.sum_over_replicas(list(map(_dense, values)))
        elif clips(self._inner):
            values = clipped(self._inner, list(map(_dense, values)))
        self.gradients = dict(zip(present, values, strict=True))

    def divided_by(self, position: int):
        """What the step just taken divided a gradient by: d, one per weight.

        Args:
            position: of the variable among those the optimizer was built for.

        Returns:
            Tensor of the variable's shape, positive; infinite before the
            first update, which leaves a proximal step without strength.
        """
        return _divisor(self._inner)(self._inner, position, self)


def _divisor(inner):
    for kind, divisor in _DIVISORS.items():
        if isinstance(inner, kind):
            return divisor
    return None


def _reason(inner):
    if isinstance(inner, keras.optimizers.SGD):
        return "whose steps are all measured alike: metric=None is its metric"
    return "whose step is not of that form"


def _dense(gradient):
    return ops.convert_to_tensor(gradient, sparse=False)


def _root_mean_square(x):
    return ops.sqrt(ops.mean(ops.square(x)))


def _warmth(inner, dtype):
    """`1 - beta_2^t` at the step just taken."""
    step = ops.cast(inner.iterations, dtype)
    return 1 - ops.power(ops.cast(inner.beta_2, dtype), step)


def _float(slot):
    value = backend.snapshot(slot)
    dtype = keras.backend.standardize_dtype(value.dtype)
    return value if dtype == "float64" else ops.cast(value, "float32")
