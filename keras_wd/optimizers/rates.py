"""The rates of the decays while the optimizer runs."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
from keras import initializers
from keras import ops

from keras_wd import backend
from keras_wd.decays.decay import Decay
from keras_wd.decays.decay import SeparableDecay
from keras_wd.errors import check_choice
from keras_wd.errors import check_number
from keras_wd.optimizers.chain import stepper
from keras_wd.optimizers.matching import path_of
from keras_wd.schedules import rate_at


def number_of(value) -> float:
    """A variable's or tensor's value as a Python number.

    `float` cannot read a variable that replicas share.
    """
    if isinstance(value, keras.Variable):
        value = backend.snapshot(value)
    return float(ops.convert_to_numpy(value))


def scalar_dtype() -> str:
    """Of rates: float64 where Keras computes in it, and float32 otherwise."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def as_written(value) -> float | None:
    """The shortest decimal of a scalar variable: 0.1, not 0.10000000149.

    None for another rate than a variable.
    """
    if isinstance(value, keras.Variable):
        value = backend.snapshot(value)
    elif not ops.is_tensor(value):
        return None
    return _shortest(value)


def _shortest(tensor) -> float:
    return float(str(ops.convert_to_numpy(tensor)))


def decimal_of(value) -> float:
    """`number_of`, as it was written where its dtype has rounded it."""
    written = as_written(value)
    return number_of(value) if written is None else written


def in_dtype(value, given: float | None, dtype: str):
    """A scalar as a tensor, in float64 the number it was rounded from.

    Args:
        value: scalar tensor.
        given: a number that may have been rounded to it, or None.
        dtype: "float32" or "float64".
    """
    known = keras.backend.standardize_dtype(value.dtype)
    if given is None or dtype != "float64" or known == "float64":
        return ops.cast(value, dtype)
    # `cast` would take a Python number through float32.
    return ops.where(
        ops.equal(value, ops.convert_to_tensor(given, known)),
        ops.convert_to_tensor(given, dtype),
        ops.cast(value, dtype),
    )


class LearningRates:
    """The learning rates that multiply decoupled decays.

    Each variable has that of the optimizer that steps it: `KFAC` may have
    others inside.

    Args:
        optimizer: the one that a `WeightDecay` wraps.
        rates: what it and those inside hold: variables and functions.
    """

    def __init__(
        self, optimizer: keras.optimizers.Optimizer, rates: Sequence[object]
    ):
        self._optimizer = optimizer
        self._given = {id(rate): as_written(rate) for rate in rates}
        self._decayed: dict[str, dict[str, int | None]] = {}

    def note(self, value: float) -> None:
        """Remember how the learning rate was written that was just set."""
        self._given[id(self._optimizer.learning_rate)] = value

    def build(
        self,
        decays: Mapping[str, Decay],
        selected: Mapping[str, Sequence[int]],
        variables: Sequence[keras.Variable],
    ) -> None:
        """Note which decay acts where.

        Raises:
            ValueError: if a decay of whole units would have two learning
                rates.
        """
        for key, rule in decays.items():
            alone = rule.coupling == "independent"
            self._decayed[key] = {
                path_of(variables[i]): None if alone else i
                for i in selected[key]
            }
            joint = not isinstance(rule, SeparableDecay)
            if joint and len(self._groups(selected[key])) > 1:
                raise ValueError(
                    "`where` of KFAC must leave the weights of a unit to one "
                    f"optimizer. Received: {rule!r}, some of whose weights "
                    "`rest` steps, with another learning rate."
                )

    def by_path(self, key: str) -> dict[str, float]:
        """What multiplies a decay now, by the path of every variable."""
        return {
            path: 1.0
            if position is None
            else decimal_of(stepper(self._optimizer, position).learning_rate)
            for path, position in self._decayed.get(key, {}).items()
        }

    def at(self, dtype: str, positions: Sequence[int]) -> list[tuple]:
        """Positions that share a learning rate, and it, a scalar of `dtype`."""
        return [
            (group, self._now(stepper(self._optimizer, group[0]), dtype))
            for group in self._groups(positions)
        ]

    def _groups(self, positions):
        found = {}
        for position in positions:
            one = stepper(self._optimizer, position)
            found.setdefault(id(one), []).append(position)
        return list(found.values())

    def _now(self, optimizer, dtype):
        rate = optimizer.learning_rate
        if isinstance(rate, keras.Variable):
            given = self._given.get(id(rate))
            return in_dtype(backend.snapshot(rate), given, dtype)
        return ops.cast(rate, dtype)


class Rates:
    """One rate per decay: a function of the step, or a variable to set.

    A number becomes a scalar variable of the optimizer, so that a callback
    can change it between two steps of a compiled program and a saved
    optimizer goes on with the rate it had.

    Args:
        decays: the decays by name.
        add_variable: the optimizer's method of that name.
    """

    def __init__(
        self, decays: Mapping[str, Decay], add_variable: Callable[..., Any]
    ):
        self._decays = decays
        self._given: dict[str, Any] = {
            name: decay.weight_decay for name, decay in decays.items()
        }
        self._rates = {
            name: decay.weight_decay
            if callable(decay.weight_decay)
            else add_variable(
                shape=(),
                initializer=initializers.Constant(decay.weight_decay),
                dtype=scalar_dtype(),
                aggregation="only_first_replica",
                name=f"{name}_rate",
            )
            for name, decay in decays.items()
        }

    def at(self, iterations, dtype: str = "float32") -> dict:
        """The rates as scalar tensors, by name."""
        return {
            name: ops.convert_to_tensor(rate_at(rate, iterations), dtype)
            if callable(rate)
            else in_dtype(backend.snapshot(rate), self._given[name], dtype)
            for name, rate in self._rates.items()
        }

    def read(self, iterations: keras.Variable) -> dict[str, float]:
        """The rates as Python numbers, by name."""
        rates = self.at(iterations, scalar_dtype())
        return {name: _shortest(rate) for name, rate in rates.items()}

    def configured(self, name: str) -> float | None:
        """The rate in force, to be constructed again; None for a schedule."""
        rate = self._rates[name]
        if callable(rate):
            return None
        given, now = self._given[name], number_of(rate)
        if (
            ops.convert_to_numpy(ops.convert_to_tensor(given, rate.dtype))
            == now
        ):
            return given
        # 0.5 after `set(0.5)`, as a user wrote it.
        return as_written(rate)

    def checked(self, name: str | None) -> str:
        """The name of a decay; that of the only one if `name` is None."""
        if name is None and len(self._rates) == 1:
            return next(iter(self._rates))
        return check_choice("name", name, self._rates)

    def set(self, value: float, name: str | None) -> None:
        """Assign a rate; the only one if `name` is None."""
        name = self.checked(name)
        value = check_number("value", value, minimum=0)
        rate = self._rates[name]
        if callable(rate):
            raise ValueError(
                "`name` must be a decay whose weight_decay is a number. "
                f"Received: name={name!r}, which follows the schedule {rate!r}"
            )
        rate.assign(value)
        self._given[name] = value
