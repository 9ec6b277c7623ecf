"""The loss a model was compiled with, output by output."""

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.kfac.distributions import Bernoulli
from keras_wd.kfac.distributions import Categorical
from keras_wd.kfac.distributions import Distribution
from keras_wd.kfac.distributions import Gaussian

_CATEGORICAL = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
)
_CLASSES = {
    keras.losses.categorical_crossentropy: _CATEGORICAL[0],
    keras.losses.sparse_categorical_crossentropy: _CATEGORICAL[1],
    keras.losses.binary_crossentropy: keras.losses.BinaryCrossentropy,
    keras.losses.mean_squared_error: keras.losses.MeanSquaredError,
}
_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class _FunctionLoss(keras.losses.Loss):
    """A loss function with the reduction Keras gives it."""

    def __init__(self, function: Callable):
        super().__init__(name="function_loss")
        self._function = function

    def call(self, y_true, y_pred):
        """The function's value per loss element."""
        return self._function(y_true, y_pred)


@dataclasses.dataclass(frozen=True)
class OutputLoss:
    """The loss of one output of a model.

    Args:
        loss: the Keras loss, which takes the mean over its elements.
        weight: what the output's loss is multiplied with.
    """

    loss: keras.losses.Loss
    weight: float = 1.0

    def distribution(self) -> Distribution:
        """The predictive distribution whose log-likelihood the loss is."""
        loss = self.loss
        if isinstance(loss, _CATEGORICAL):
            settings = loss.get_config()
            axis = settings.get("axis", -1)
            if axis != -1:
                raise ValueError(
                    "`loss` must have its classes on the last axis. "
                    f"Received: axis={axis}"
                )
            return Categorical(bool(settings["from_logits"]))
        if isinstance(loss, keras.losses.BinaryCrossentropy):
            return Bernoulli(bool(loss.get_config()["from_logits"]))
        if isinstance(loss, keras.losses.MeanSquaredError):
            return Gaussian()
        raise ValueError(
            "`loss` must be a (sparse) categorical crossentropy, a binary "
            "crossentropy or the mean squared error, for estimator='fisher'. "
            f"Received: loss={loss!r}. Use estimator='gauss_newton' or "
            "'empirical'."
        )


def loss_elements(output) -> int:
    """How many terms the loss of an output is the mean of."""
    return math.prod(output.shape[:-1])


def _as_loss(loss) -> keras.losses.Loss:
    loss = keras.losses.get(loss)
    if isinstance(loss, type):
        loss = loss()
    if not isinstance(loss, keras.losses.Loss):
        kind = _CLASSES.get(loss)
        loss = kind() if kind else _FunctionLoss(loss)
    if loss.reduction not in _MEANS:
        raise ValueError(
            "`loss` must have a mean as its reduction, so that curvature and "
            f"gradient have the same scale. Received: loss={loss.name!r} with "
            f"reduction={loss.reduction!r}. Use "
            "reduction='sum_over_batch_size'."
        )
    return loss


def output_losses(model: keras.Model, loss=None) -> list[OutputLoss] | None:
    """The losses of a model's outputs in flattened order, or None.

    Args:
        model: compiled with a loss, unless `loss` is given.
        loss: used in place of the compiled one.
    """
    weights = None
    if loss is None:
        loss = getattr(model, "loss", None)
        if loss is None:
            return None
        weights = (model.get_compile_config() or {}).get("loss_weights")
    losses = _in_order(model, loss)
    weights = [1.0] * len(losses) if weights is None else weights
    weights = _in_order(model, weights)
    return [
        OutputLoss(_as_loss(one), 1.0 if weight is None else float(weight))
        for one, weight in zip(losses, weights, strict=True)
    ]


def _in_order(model, given):
    """A list, or a dict by output name, in the order of the outputs."""
    if isinstance(given, dict):
        names = list(getattr(model, "output_names", None) or sorted(given))
        if set(names) != set(given):
            raise ValueError(
                "`loss` must have one entry per output. Received: "
                f"{sorted(given)} for the outputs {names}."
            )
        return [given[name] for name in names]
    return list(given) if isinstance(given, list | tuple) else [given]


def total_loss(losses: Sequence[OutputLoss], targets, outputs, weights):
    """The weighted sum of the losses of all outputs.

    Args:
        losses: one per output.
        targets: one per output.
        outputs: the model's, flattened.
        weights: sample weights per output; None for ones.
    """
    total = 0.0
    for one, target, output, weight in zip(
        losses, targets, outputs, weights, strict=True
    ):
        value = one.loss(target, ops.cast(output, "float32"), weight)
        total = total + one.weight * ops.cast(value, "float32")
    return total
