"""The abstract rule: what happens to a weight, how strongly, and where."""

import abc
import copy
import re
from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Self

import keras
import numpy as np
from keras import ops

from keras_wd import where as selections
from keras_wd.decays.shared_options import HasOptions
from keras_wd.decays.shared_options import restored_anchor
from keras_wd.errors import check_choice
from keras_wd.errors import check_name
from keras_wd.schedules import Rate
from keras_wd.schedules import check_decay_rate
from keras_wd.schedules import deserialize_rate
from keras_wd.schedules import serialize_rate

COUPLINGS = ("coupled", "decoupled", "independent")


class Decay(HasOptions, abc.ABC):
    """What happens to the selected weights at every update.

    A decay is a recipe without state: `WeightDecay` resolves it when it is
    built and holds the rate that is in force. With `w-` the weights before
    the inner step and `w+` after it:

        decoupled    w <- shrink(w+, w-, s) with s = learning rate * rate
        independent  w <- shrink(w+, w-, s) with s = rate
        coupled      the inner optimizer sees gradient + rate * gradient of
                     the penalty

    A new rule defines `shrink`, `gradient` and `penalty`, and `get_config` if
    it has arguments of its own. Lists run over the selected variables, in the
    order of `select`; tensors are float32 (float64 for float64 variables).

    Args:
        weight_decay: the rate, a number >= 0 or any Keras
            `LearningRateSchedule` or function of the optimizer's iterations,
            such as `lambda step: 0.1 * 0.99**step` (with `keras.ops`). To be
            saved a function must have a name, registered with
            `keras.saving.register_keras_serializable`.
        where: which variables, a selection from `keras_wd.where`;
            `kernels()` if None.
        coupling: `"decoupled"`, `"independent"` or `"coupled"`.
        name: the name of the rate in logs; made from the class if None.
        **options: `cautious`, `metric`, `anchor`, `touched_rows`, where the
            rule has them; see `HasOptions`.

    Raises:
        ValueError: if an argument is out of range.
    """

    # Whether `shrink` reads the weights before the step. Reading them costs a
    # pass over memory in programs that are not fused.
    needs_previous = True
    # Whether the strength of a step is another for every variable, which
    # `prepare` finds from the weights before it.
    prepares = False
    couplings: tuple[str, ...] = COUPLINGS

    def __init__(
        self,
        weight_decay: Rate,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        **options,
    ):
        self.weight_decay = check_decay_rate(weight_decay)
        if where is None:
            where = selections.kernels()
        self.where = selections.check_selection("where", where)
        self.coupling = check_choice("coupling", coupling, self.couplings)
        self.name = check_name("name", name) or _snake_case(type(self).__name__)
        self._set_options(self.coupling, options)

    def select(self, variables: Sequence[keras.Variable]) -> list[int]:
        """Positions of the variables this decay acts on, in its order."""
        return selections.selected_indices(self.where, variables)

    def check(self, variables: Sequence[keras.Variable]) -> None:
        """Refuse selected variables on which this decay cannot act."""

    def check_beside(
        self,
        positions: Sequence[int],
        others: Container[int],
        variables: Sequence[keras.Variable],
    ) -> None:
        """Refuse to act beside the other decays of the optimizer.

        Args:
            positions: of the variables this decay acts on, in its order.
            others: positions that any other decay acts on.
            variables: all of the optimizer's.
        """

    def restrict(
        self, positions: Sequence[int], reached: Container[int]
    ) -> list[int]:
        """The selected positions that have a gradient in this step."""
        return [position for position in positions if position in reached]

    def slots(self, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """What the wrapper keeps for a variable, with its first values.

        For rules with `prepares`. By name, arrays that become variables of
        the optimizer, float32 (float64 for float64 variables).
        """
        return {}

    def prepare(self, previous, strength, step, slots: Mapping):
        """The strength for one variable, and the new values of its slots.

        Args:
            previous: the variable before the inner step.
            strength: scalar tensor >= 0, as for `shrink`.
            step: the number of updates before this one, an integer tensor.
            slots: tensors by name.
        """
        return strength, dict(slots)

    @abc.abstractmethod
    def shrink(self, weights: list, previous: list, strength) -> list:
        """The weights after a decoupled step; unchanged at strength zero.

        Args:
            weights: tensors after the inner step.
            previous: tensors before it; an empty list if `needs_previous`
                is False.
            strength: scalar tensor >= 0; float64 if one of them is.
        """

    @abc.abstractmethod
    def gradient(self, weights: list) -> list:
        """The gradient of the penalty at rate one, finite everywhere."""

    @abc.abstractmethod
    def penalty(self, weights: list):
        """The penalty at rate one, a scalar tensor."""

    def get_config(self) -> dict:
        """The constructor's arguments as plain Python."""
        return {
            "weight_decay": serialize_rate(self.weight_decay),
            "where": keras.saving.serialize_keras_object(self.where),
            "coupling": self.coupling,
            "name": self.name,
            **self._options_config(),
        }

    @property
    def takes_complex(self) -> bool:
        """Whether the rule acts on complex weights, by their magnitude."""
        return False

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """The inverse of `get_config`."""
        config = copy.deepcopy(config)
        config["weight_decay"] = deserialize_rate(config["weight_decay"])
        if isinstance(config.get("where"), dict):
            config["where"] = keras.saving.deserialize_keras_object(
                config["where"]
            )
        if "anchor" in config:
            config["anchor"] = restored_anchor(config["anchor"])
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in self.get_config()
        )
        return f"{type(self).__name__}({arguments})"


def is_complex(dtype: str) -> bool:
    """Whether numbers of this type have an imaginary part."""
    return dtype.startswith("complex")


class SeparableDecay(Decay):
    """A decay that treats every variable by itself, with a penalty per one.

    A subclass defines `shrink_one`, `gradient_one` and `penalty_one` for a
    single tensor. With `by_magnitude` complex weights keep their direction, and
    their magnitude shrinks.
    """

    by_magnitude = False

    @property
    def takes_complex(self) -> bool:
        """Whether the rule acts on complex weights."""
        plain = not self.cautious and self.metric is None
        plain = plain and self.by_magnitude
        return plain and self.coupling != "coupled"

    def shrink(self, weights: list, previous: list, strength) -> list:
        if not previous:
            previous = weights
        return [
            self._shrunk(w, before, strength)
            for w, before in zip(weights, previous, strict=True)
        ]

    def _shrunk(self, weight, previous, strength):
        dtype = keras.backend.standardize_dtype(weight.dtype)
        if not is_complex(dtype):
            return self.shrink_one(weight, previous, ops.cast(strength, dtype))
        # What shrinks is the magnitude.
        size = ops.abs(weight)
        strength = ops.cast(strength, size.dtype)
        shrunk = self.shrink_one(size, ops.abs(previous), strength)
        kept = shrunk / ops.where(size > 0, size, 1.0)
        return ops.where(strength > 0, ops.cast(kept, dtype) * weight, weight)

    def gradient(self, weights: list) -> list:
        return [self.gradient_one(w) for w in weights]

    def penalty(self, weights: list):
        return sum(self.penalty_one(w) for w in weights)

    @abc.abstractmethod
    def shrink_one(self, weight, previous, strength):
        """The weight after a decoupled step."""

    @abc.abstractmethod
    def gradient_one(self, weight):
        """The gradient of the penalty at rate one."""

    @abc.abstractmethod
    def penalty_one(self, weight):
        """The penalty at rate one."""


class WithoutPenalty(SeparableDecay):
    """A rule about the step itself, of no penalty: it has no coupled form."""

    couplings: tuple[str, ...] = ("decoupled", "independent")

    def gradient_one(self, weight):
        raise NotImplementedError(f"{type(self).__name__} has no penalty.")

    penalty_one = gradient_one


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
