"""Thin names for known combinations of an optimizer and a decay."""

import copy

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd.decays import L2
from keras_wd.decays import Lp
from keras_wd.errors import check_name
from keras_wd.errors import check_number
from keras_wd.optimizers.weight_decay import WeightDecay
from keras_wd.schedules import Rate
from keras_wd.schedules import check_learning_rate
from keras_wd.schedules import deserialize_rate
from keras_wd.where import Selection

_OWN_ARGUMENTS = (
    *("weight_decay", "p", "where", "coupling", "cautious", "late"),
    "touched_rows",
)
_EMA_ARGUMENTS = ("use_ema", "ema_momentum", "ema_overwrite_frequency")


def names_of(kind: type, inner_class: type, name: str | None) -> tuple:
    """The name of an optimizer of `kind` and of the one inside it.

    Orbax goes by the paths of variables, which begin with these names: an
    automatic one is another in every optimizer.
    """
    name = check_name("name", name) or kind.__name__.lower()
    return name, f"{name}_{inner_class.__name__.lower()}"


class _Named(WeightDecay):
    """A wrapper whose configuration is the flat one of its constructor."""

    def __init__(self, inner_class, decay, name, **kwargs):
        ema = {key: kwargs.pop(key) for key in _EMA_ARGUMENTS if key in kwargs}
        name, inner_name = names_of(type(self), inner_class, name)
        inner = inner_class(name=inner_name, **kwargs)
        super().__init__(inner, decay, name=name, **ema)

    def get_config(self) -> dict:
        """The constructor's arguments as plain Python."""
        inner = self.inner_optimizer.get_config()
        decay = self._with_rate(next(iter(self.decays)))["config"]
        return {
            **{key: inner[key] for key in inner if key not in ("name",)},
            **{key: decay[key] for key in _OWN_ARGUMENTS if key in decay},
            **{key: getattr(self, key) for key in _EMA_ARGUMENTS},
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "_Named":
        """The inverse of `get_config`."""
        config = copy.deepcopy(config)
        for key in ("learning_rate", "weight_decay"):
            config[key] = deserialize_rate(config[key])
        config["where"] = keras.saving.deserialize_keras_object(
            config["where"], custom_objects=custom_objects
        )
        return cls(**config)


@keras.saving.register_keras_serializable("keras_wd.optimizers")
class SGDW(_Named):
    """SGD with decoupled decay: `w <- w - lr * v - lr * weight_decay * w`.

    `v` is the momentum's step. The same as
    `WeightDecay(keras.optimizers.SGD(...), decays.L2(weight_decay))`: the
    decay does not pass through the momentum.

    Convention: the decay is multiplied by the learning rate, no 1/2. To
    decay by `weight_decay` itself, whatever the learning rate, pass
    `coupling="independent"`.

    Args:
        learning_rate: float or schedule.
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        momentum: momentum of SGD, in [0, 1].
        where: which variables decay; `where.kernels()` if None.
        coupling: `"decoupled"`, `"independent"` or `"coupled"`.
        cautious: decay a weight only where the step moved it toward zero.
        touched_rows: decay only the rows that the step has a gradient for.
        name: name of the optimizer.
        **kwargs: `use_ema`, `ema_momentum`, `ema_overwrite_frequency`, and
            any argument of `keras.optimizers.SGD`.

    Raises:
        ValueError: if an argument is out of range or unknown.

    >>> from keras_wd import optimizers
    >>> optimizer = optimizers.SGDW(0.1, weight_decay=5e-4, momentum=0.9)

    Source: Loshchilov and Hutter, 2019, "Decoupled Weight Decay
    Regularization", algorithm 1.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        weight_decay: Rate = 5e-4,
        momentum: float = 0.0,
        where: Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        cautious: bool = False,
        touched_rows: bool = False,
        **kwargs,
    ):
        super().__init__(
            keras.optimizers.SGD,
            L2(
                weight_decay,
                where=where,
                coupling=coupling,
                cautious=cautious,
                touched_rows=touched_rows,
            ),
            name,
            learning_rate=check_learning_rate(learning_rate),
            momentum=check_number("momentum", momentum, minimum=0, maximum=1),
            **kwargs,
        )


@keras.saving.register_keras_serializable("keras_wd.optimizers")
class PAdam(_Named):
    """Adam with decoupled p-norm decay: `w <- u X / (X + s)`.

    `u` is the weight after Adam's step, `X = |w|^(2-p)` with the weight
    before it, and `s = learning_rate * weight_decay`. The same as
    `WeightDecay(keras.optimizers.Adam(...), decays.Lp(weight_decay, p))`.

    Convention: the penalty is `(weight_decay / p) * sum |w|^p`; `lambda_p` of
    the authors' code is `weight_decay / p`.

    Args:
        learning_rate: float or schedule.
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        p: exponent > 0; below 1 most weights end at zero.
        where: which variables decay; `where.kernels()` if None.
        coupling: `"decoupled"`, `"independent"` or `"coupled"`.
        cautious: decay a weight only where the step moved it toward zero.
        touched_rows: decay only the rows that the step has a gradient for.
        late: `X = |u|^(2-p)`, the authors' `PAdam_late`.
        name: name of the optimizer.
        **kwargs: `use_ema`, `ema_momentum`, `ema_overwrite_frequency`, and
            any argument of `keras.optimizers.Adam`.

    Raises:
        ValueError: if an argument is out of range or unknown; when built, if
            p < 2 and a selected variable is all zero.

    >>> from keras_wd import optimizers
    >>> optimizer = optimizers.PAdam(1e-3, weight_decay=1e-2, p=0.8)

    Source: Outmezguine and Levi, 2024, "Decoupled Weight Decay for Any p
    Norm".
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 1e-3,
        weight_decay: Rate = 1e-3,
        p: float = 0.8,
        where: Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        cautious: bool = False,
        late: bool = False,
        touched_rows: bool = False,
        **kwargs,
    ):
        super().__init__(
            keras.optimizers.Adam,
            Lp(
                weight_decay,
                p,
                where=where,
                coupling=coupling,
                cautious=cautious,
                late=late,
                touched_rows=touched_rows,
            ),
            name,
            learning_rate=check_learning_rate(learning_rate),
            **kwargs,
        )
