"""PathProx: proximal steps on paired layers, weight decay on the rest."""

from collections.abc import Sequence
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd import where as selections
from keras_wd.decays import L2
from keras_wd.decays import HomogeneousUnits
from keras_wd.decays import PathNorm
from keras_wd.decays.decay import Decay
from keras_wd.decays.units import check_units
from keras_wd.graph import homogeneous_units
from keras_wd.optimizers.named import names_of
from keras_wd.optimizers.weight_decay import WeightDecay
from keras_wd.schedules import Rate
from keras_wd.schedules import check_decay_rate
from keras_wd.schedules import check_learning_rate
from keras_wd.schedules import deserialize_rate

_EMA_ARGUMENTS = ("use_ema", "ema_momentum", "ema_overwrite_frequency")


@keras.saving.register_keras_serializable("keras_wd.optimizers")
class PathProx(WeightDecay):
    """SGD with a proximal step on the paths through the units of a model.

    Pairs of layers joined by homogeneous operations take the step of
    `decays.PathNorm`, which ends in exact zeros, unit by unit; the kernels in
    no pair get `weight_decay * w` added to their gradient. The same as
    `WeightDecay(SGD(...), [PathNorm(weight_decay, homogeneous_units(model)),
    L2(weight_decay, where=the rest, coupling="coupled")])`.

    Convention: the threshold is `learning_rate * weight_decay`; the objective
    is `loss + weight_decay * (sum of path norms + (1/2) sum of squares of the
    rest)`, which has the minima of weight decay at the same rate.

    Args:
        model: a built Sequential or Functional model, whose pairs
            `graph.homogeneous_units` finds; or the list of pairs itself, for
            models of another kind.
        learning_rate: float or schedule.
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        balance: keep the path norms of pairs that follow each other equal.
        absorb: the function-preserving variant, see `decays.PathNorm`.
        where: what else decays; the kernels in no pair if None. A selection
            that picks nothing, `~where.everything()`, switches this off.
        name: name of the optimizer.
        **kwargs: `use_ema`, `ema_momentum`, `ema_overwrite_frequency`, and
            any argument of `keras.optimizers.SGD`.

    Raises:
        ValueError: if an argument is out of range or unknown, or the model
            has no pairs.

    >>> import keras
    >>> from keras_wd import optimizers
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "relu", name="hidden"),
    ...     keras.layers.Dense(2, name="output"),
    ... ])
    >>> model.compile(optimizers.PathProx(model, 0.1, weight_decay=1e-4), "mse")

    Source: Yang et al., 2022, "PathProx: A Proximal Gradient Algorithm for
    Weight Decay Regularized Deep Neural Networks", algorithm 1.
    """

    def __init__(
        self,
        model: keras.Model | Sequence[HomogeneousUnits],
        learning_rate: float | LearningRateSchedule = 0.1,
        weight_decay: Rate = 1e-4,
        balance: bool = True,
        absorb: bool = False,
        where: selections.Selection | None = None,
        name: str | None = None,
        **kwargs,
    ):
        units = _units_of(model)
        if where is None:
            where = _rest(model, units)
        selections.check_selection("where", where)
        rate = check_decay_rate(weight_decay)
        rules: list[Decay]
        rules = [PathNorm(rate, units, balance=balance, absorb=absorb)]
        if where != ~selections.everything():
            rules.append(L2(rate, where=where, coupling="coupled"))
        ema = {key: kwargs.pop(key) for key in _EMA_ARGUMENTS if key in kwargs}
        name, inner_name = names_of(type(self), keras.optimizers.SGD, name)
        inner = keras.optimizers.SGD(
            learning_rate=check_learning_rate(learning_rate),
            name=inner_name,
            **kwargs,
        )
        super().__init__(inner, rules, name=name, **ema)
        self._rest = where

    def set_weight_decay(self, value: float, name: str | None = None) -> None:
        """Set the rate of both decays, or of the named one.

        Args:
            value: the new rate, >= 0.
            name: a key of `current_weight_decay`; None for all.

        Raises:
            ValueError: if the decay is not there or follows a schedule.
        """
        for key in self.decays if name is None else [name]:
            super().set_weight_decay(value, key)

    def get_config(self) -> dict:
        """The constructor's arguments as plain Python."""
        inner = self.inner_optimizer.get_config()
        rule: Any = next(iter(self.decays.values()))  # the PathNorm
        rate, *rest = (
            self._with_rate(key)["config"]["weight_decay"]
            for key in self.decays
        )
        # One argument sets both; `set_weight_decay` may have changed one.
        if rest and rest != [rate]:
            changed = {"rest_weight_decay": rest[0]}
        else:
            changed = {}
        return {
            **{key: inner[key] for key in inner if key != "name"},
            "model": [pair.get_config() for pair in rule.units],
            "weight_decay": rate,
            **changed,
            "balance": rule.balance,
            "absorb": rule.absorb,
            "where": keras.saving.serialize_keras_object(self._rest),
            **{key: getattr(self, key) for key in _EMA_ARGUMENTS},
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "PathProx":
        """The inverse of `get_config`."""
        config = dict(config)
        of_the_rest = config.pop("rest_weight_decay", None)
        for key in ("learning_rate", "weight_decay"):
            config[key] = deserialize_rate(config[key])
        config["where"] = keras.saving.deserialize_keras_object(
            config["where"], custom_objects=custom_objects
        )
        optimizer = cls(**config)
        if of_the_rest is not None:
            _, rest = optimizer.decays
            optimizer.set_weight_decay(of_the_rest, rest)
        return optimizer


def _units_of(model):
    if not isinstance(model, keras.Model):
        return check_units(model, "model")
    units = homogeneous_units(model)
    if not units:
        raise ValueError(
            "`model` must have two layers joined by positively homogeneous "
            f"operations alone. Received: model={model.name!r}, which has "
            "none: graph.explain(model) says why."
        )
    return units


def _rest(model, units):
    """The kernels in no pair; a selection of nothing if there are none."""
    paired = selections.paths(
        *(path for pair in units for path in pair.kernels)
    )
    rest = selections.kernels() & ~paired
    if isinstance(model, keras.Model) and not any(
        rest.picked(model.trainable_variables)
    ):
        return ~selections.everything()
    return rest
