"""Keras regularizers: the coupled form of a decay, inside the loss.

They go where Keras takes a regularizer (`kernel_regularizer=`) and add to the
reported loss. The same penalty without touching the loss is a decay with
`coupling="coupled"`.
"""

import keras
from keras import ops

from keras_wd.errors import check_axis
from keras_wd.errors import check_axis_fits
from keras_wd.errors import check_number
from keras_wd.ops import lp_penalty
from keras_wd.ops import reduced_axes

__all__ = ["GroupLasso", "Lp"]


def __dir__():
    return __all__


@keras.saving.register_keras_serializable("keras_wd.regularizers")
class Lp(keras.regularizers.Regularizer):
    """`(weight_decay / p) * sum |w|^p`, with a finite gradient at zero.

    The gradient is `weight_decay * sign(w) |w|^(p-1)`, and 0 for weights
    below 1e-13, where it would diverge for p < 1.

    Convention: `Lp(rate, p=2)` is half of `keras.regularizers.L2(rate)`,
    which has no 1/2; `Lp(rate, p=1)` is `keras.regularizers.L1(rate)`.

    Args:
        weight_decay: the factor of the penalty, >= 0.
        p: exponent > 0.

    Raises:
        ValueError: if an argument is out of range.

    >>> import keras
    >>> from keras_wd import regularizers
    >>> penalty = regularizers.Lp(0.1, p=0.5)
    >>> round(float(penalty(keras.ops.array([[0.25, 0.0], [-1.0, 0.0]]))), 4)
    0.3

    Source: the penalty of Outmezguine and Levi, 2024, "Decoupled Weight Decay
    for Any p Norm", in the paper's convention.
    """

    def __init__(self, weight_decay: float = 0.01, p: float = 0.8):
        self.weight_decay = check_number(
            "weight_decay", weight_decay, minimum=0
        )
        self.p = check_number("p", p, above=0)

    def __call__(self, x):
        return self.weight_decay * lp_penalty(x, self.p)

    def get_config(self) -> dict:
        return {"weight_decay": self.weight_decay, "p": self.p}


@keras.saving.register_keras_serializable("keras_wd.regularizers")
class GroupLasso(keras.regularizers.Regularizer):
    """`weight_decay * sum over units of |w_unit|`, gradient 0 at a zero unit.

    Args:
        weight_decay: the factor of the penalty, >= 0.
        axis: the axis (or axes) that number the units: -1 for the incoming
            weights of the units of a Dense kernel `(fan_in, units)` and of a
            Conv2D kernel `(height, width, channels_in, units)`.

    Raises:
        ValueError: if an argument is out of range.

    >>> import keras
    >>> from keras_wd import regularizers
    >>> penalty = regularizers.GroupLasso(0.1)
    >>> round(float(penalty(keras.ops.array([[3.0, 0.0], [4.0, 0.0]]))), 4)
    0.5

    Source: Yuan and Lin, 2006, "Model selection and estimation in regression
    with grouped variables".
    """

    def __init__(
        self, weight_decay: float = 0.01, axis: int | tuple[int, ...] = -1
    ):
        self.weight_decay = check_number(
            "weight_decay", weight_decay, minimum=0
        )
        self.axis = check_axis("axis", axis)

    def __call__(self, x):
        check_axis_fits("axis", self.axis, x.shape, "the regularized weight")
        axes = reduced_axes(len(x.shape), self.axis)
        squares = ops.sum(ops.square(x), axis=axes)
        zero = squares == 0
        # The inner `where` keeps the gradient of the square root finite.
        norms = ops.sqrt(ops.where(zero, 1.0, squares))
        return self.weight_decay * ops.sum(ops.where(zero, 0.0, norms))

    def get_config(self) -> dict:
        axis = list(self.axis) if isinstance(self.axis, tuple) else self.axis
        return {"weight_decay": self.weight_decay, "axis": axis}
