"""Schedules of a decay rate that Keras lacks.

A rate is a function of the optimizer's iterations (real updates, also under
gradient accumulation). Any `keras.optimizers.schedules.LearningRateSchedule`
is a rate as it is, and so is a plain function of the step; those here are made
for decay. In the decoupled coupling a
step shrinks the weights by `learning_rate(t) * rate(t)`.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import TypeAlias

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd.errors import check_count
from keras_wd.errors import check_number

__all__ = [
    "ConstantTimescale",
    "ProportionalToLearningRate",
    "Stepwise",
    "WarmupHold",
]


def __dir__():
    return __all__


Rate: TypeAlias = float | LearningRateSchedule | Callable


def check_rate(
    name: str, rate: float | LearningRateSchedule
) -> float | LearningRateSchedule:
    """Return a rate, or raise if it is no float >= 0 nor a schedule."""
    if isinstance(rate, LearningRateSchedule):
        return rate
    try:
        return check_number(name, rate, minimum=0)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be a finite number >= 0 or a "
            "`keras.optimizers.schedules.LearningRateSchedule`. Received: "
            f"{name}={rate!r}"
        ) from error


def check_decay_rate(rate: Rate) -> Rate:
    """The same for a `weight_decay`, which may be a function of the step."""
    if callable(rate) and not isinstance(rate, type | keras.Variable):
        return rate
    try:
        return check_rate("weight_decay", rate)
    except ValueError as error:
        raise ValueError(
            "`weight_decay` must be a finite number >= 0, a "
            "`keras.optimizers.schedules.LearningRateSchedule` or a function "
            f"of the step. Received: weight_decay={rate!r}"
        ) from error


def check_learning_rate(
    learning_rate: float | LearningRateSchedule | Callable,
) -> float | LearningRateSchedule | Callable:
    """Return what a Keras optimizer takes, or raise if it is invalid.

    Keras itself takes negative numbers and NaN, and refuses integers.
    """
    if callable(learning_rate) and not isinstance(learning_rate, type):
        return learning_rate
    try:
        return check_rate("learning_rate", learning_rate)
    except ValueError as error:
        raise ValueError(
            "`learning_rate` must be a finite number >= 0, a "
            "`keras.optimizers.schedules.LearningRateSchedule` or a function "
            f"without arguments. Received: learning_rate={learning_rate!r}"
        ) from error


def serialize_rate(rate: Rate) -> float | dict:
    """A rate as plain Python.

    Raises:
        ValueError: for a function that has no name to be found by.
    """
    if not callable(rate):
        return rate
    nameless = getattr(rate, "__name__", None) in (None, "<lambda>")
    if nameless and not hasattr(rate, "get_config"):
        raise ValueError(
            "`weight_decay` must be a function with a name to be saved. "
            f"Received: weight_decay={rate!r}. Define it with `def` and "
            "`@keras.saving.register_keras_serializable()`, or write a "
            "`keras.optimizers.schedules.LearningRateSchedule`."
        )
    return keras.saving.serialize_keras_object(rate)


def deserialize_rate(rate: float | dict) -> Rate:
    """The inverse of `serialize_rate`."""
    if isinstance(rate, dict):
        return keras.saving.deserialize_keras_object(rate)
    return rate


def _dtype():
    """Of a rate: float64 where Keras computes in it, and float32 otherwise."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def _tensor(rate):
    # `cast` would take a Python number through float32.
    return ops.convert_to_tensor(rate, _dtype())


def rate_at(rate: Rate, step):
    """A rate at a step: a number, or what its function returns.

    Args:
        rate: float, schedule or function.
        step: integer scalar. A plain function is given a float, so that
            `0.99**step` means something.
    """
    if isinstance(rate, LearningRateSchedule):
        return rate(step)
    return rate(ops.cast(step, _dtype())) if callable(rate) else rate


class _FollowsLearningRate(LearningRateSchedule):
    """A rate computed from the learning rate, which has to be given again."""

    def __init__(self, learning_rate: float | LearningRateSchedule):
        self.learning_rate = check_rate("learning_rate", learning_rate)

    def get_config(self) -> dict:
        return {"learning_rate": serialize_rate(self.learning_rate)}

    @classmethod
    def from_config(cls, config: dict) -> "_FollowsLearningRate":
        config = dict(config)
        config["learning_rate"] = deserialize_rate(config["learning_rate"])
        return cls(**config)


@keras.saving.register_keras_serializable("keras_wd.schedules")
class ConstantTimescale(_FollowsLearningRate):
    """The rate at which weights forget in a fixed number of updates.

    `rate(t) = 1 / (learning_rate(t) * timescale)`, so that every decoupled
    step shrinks the weights by `1 / timescale` whatever the learning rate
    does. AdamW's weights are an exponential average of past updates, and
    `timescale` is how many updates it remembers: between one epoch and the
    whole run is sensible. Where the learning rate is 0 the rate is 0. With
    `steps_per_epoch` the timescale is in epochs.

    Convention: for decays coupled to the learning rate (`"decoupled"`).

    Args:
        learning_rate: the learning rate the optimizer uses, float or schedule.
        timescale: > 0, in updates; in epochs if `steps_per_epoch` is given.
        steps_per_epoch: updates of an epoch, an integer >= 1, or None.

    Raises:
        ValueError: if an argument is out of range.

    >>> from keras_wd import schedules
    >>> rate = schedules.ConstantTimescale(learning_rate=0.01, timescale=1000)
    >>> round(float(rate(0)), 6)
    0.1
    >>> rate = schedules.ConstantTimescale(0.01, 2.5, steps_per_epoch=400)
    >>> round(float(rate(0)), 6)
    0.1

    Source: Wang and Aitchison, 2024, "How to set AdamW's weight decay as you
    scale model and dataset size", the timescale 1 / (learning rate * decay).
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        timescale: float,
        steps_per_epoch: int | None = None,
    ):
        super().__init__(learning_rate)
        self.timescale = check_number("timescale", timescale, above=0)
        if steps_per_epoch is not None:
            steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step):
        shrinkage = _tensor(rate_at(self.learning_rate, step))
        shrinkage = shrinkage * (self.timescale * (self.steps_per_epoch or 1))
        moving = shrinkage > 0
        return ops.where(moving, 1 / ops.where(moving, shrinkage, 1.0), 0.0)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "timescale": self.timescale,
            "steps_per_epoch": self.steps_per_epoch,
        }


@keras.saving.register_keras_serializable("keras_wd.schedules")
class ProportionalToLearningRate(_FollowsLearningRate):
    """A rate that falls with the learning rate: the corrected decay.

    `rate(t) = weight_decay * learning_rate(t) / max_learning_rate`, so that a
    decoupled step shrinks the weights by an amount proportional to the square
    of the learning rate. Under a constant rate the gradients of normalized
    layers grow without bound as the learning rate goes to zero; this rate
    keeps them steady. Use it for weights that a normalization follows, with
    `where=`, and a constant rate elsewhere.

    Args:
        weight_decay: the rate at the highest learning rate, >= 0.
        learning_rate: the learning rate the optimizer uses, float or schedule.
        max_learning_rate: the highest value of that schedule, > 0.

    Raises:
        ValueError: if an argument is out of range.

    >>> import keras
    >>> from keras_wd import schedules
    >>> cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=100)
    >>> rate = schedules.ProportionalToLearningRate(0.02, cosine, 0.1)
    >>> [round(float(rate(t)), 4) for t in (0, 50, 100)]
    [0.02, 0.01, 0.0]

    Source: Defazio, 2025, "Why Gradients Rapidly Increase Near the End of
    Training", AdamC and SGDC.
    """

    def __init__(
        self,
        weight_decay: float,
        learning_rate: float | LearningRateSchedule,
        max_learning_rate: float,
    ):
        super().__init__(learning_rate)
        self.weight_decay = check_number(
            "weight_decay", weight_decay, minimum=0
        )
        self.max_learning_rate = check_number(
            "max_learning_rate", max_learning_rate, above=0
        )

    def __call__(self, step):
        learning_rate = _tensor(rate_at(self.learning_rate, step))
        return learning_rate * (self.weight_decay / self.max_learning_rate)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "weight_decay": self.weight_decay,
            "max_learning_rate": self.max_learning_rate,
        }


@keras.saving.register_keras_serializable("keras_wd.schedules")
class WarmupHold(LearningRateSchedule):
    """A rate that rises in a straight line and then stays.

    `rate(t) = initial + (weight_decay - initial) * min(t / warmup_steps, 1)`.

    Args:
        weight_decay: the rate from `warmup_steps` on, >= 0.
        warmup_steps: updates until then, an integer >= 1.
        initial: the rate at the first update, >= 0.

    Raises:
        ValueError: if an argument is out of range.

    >>> from keras_wd import schedules
    >>> rate = schedules.WarmupHold(0.1, warmup_steps=10)
    >>> [round(float(rate(t)), 4) for t in (0, 5, 10, 1000)]
    [0.0, 0.05, 0.1, 0.1]
    """

    def __init__(
        self, weight_decay: float, warmup_steps: int, initial: float = 0.0
    ):
        self.weight_decay = check_number(
            "weight_decay", weight_decay, minimum=0
        )
        self.warmup_steps = check_count("warmup_steps", warmup_steps)
        self.initial = check_number("initial", initial, minimum=0)

    def __call__(self, step):
        done = ops.minimum(ops.cast(step, _dtype()) / self.warmup_steps, 1.0)
        return self.initial * (1 - done) + self.weight_decay * done

    def get_config(self) -> dict:
        return {
            "weight_decay": self.weight_decay,
            "warmup_steps": self.warmup_steps,
            "initial": self.initial,
        }


@keras.saving.register_keras_serializable("keras_wd.schedules")
class Stepwise(LearningRateSchedule):
    """A list of rates, each kept for the same number of updates.

    `rate(t) = rates[min(t // steps, len(rates) - 1)]`: with
    `steps = steps_per_epoch` one entry is one epoch, and the last one stays.

    Args:
        rates: the rates in order, each >= 0.
        steps: updates that each of them lasts, an integer >= 1.

    Raises:
        ValueError: if the list is empty or a number is out of range.

    >>> from keras_wd import schedules
    >>> rate = schedules.Stepwise([0.1, 0.01, 0.0], steps=100)
    >>> [round(float(rate(t)), 4) for t in (0, 99, 100, 500)]
    [0.1, 0.1, 0.01, 0.0]
    """

    def __init__(self, rates: Sequence[float], steps: int):
        if isinstance(rates, str) or not np.size(rates) or not np.ndim(rates):
            raise ValueError(
                "`rates` must be a list of at least one number. "
                f"Received: rates={rates!r}"
            )
        self.rates = [
            check_number(f"rates[{i}]", rate, minimum=0)
            for i, rate in enumerate(rates)
        ]
        self.steps = check_count("steps", steps)

    def __call__(self, step):
        index = ops.minimum(
            ops.floor_divide(ops.cast(step, "int32"), self.steps),
            len(self.rates) - 1,
        )
        return ops.take(ops.convert_to_tensor(self.rates, _dtype()), index)

    def get_config(self) -> dict:
        return {"rates": list(self.rates), "steps": self.steps}
