"""The rates of the decays while the optimizer runs."""

from collections.abc import Callable
from collections.abc import Mapping

import keras
from keras import initializers
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd import backend
from keras_wd.decays.decay import Decay
from keras_wd.errors import check_choice
from keras_wd.errors import check_number


def number_of(value) -> float:
    """A variable's or tensor's value as a Python number.

    `float` cannot read a variable that replicas share.
    """
    if isinstance(value, keras.Variable):
        value = backend.snapshot(value)
    return float(ops.convert_to_numpy(value))


class Rates:
    """One rate per decay: a schedule, or a variable that can be set.

    A number becomes a scalar variable of the optimizer, so that a callback
    can change it between two steps of a compiled program and a saved
    optimizer goes on with the rate it had.

    Args:
        decays: the decays by name.
        add_variable: the optimizer's method of that name.
    """

    def __init__(
        self, decays: Mapping[str, Decay], add_variable: Callable[..., object]
    ):
        self._decays = decays
        self._rates = {
            name: decay.weight_decay
            if isinstance(decay.weight_decay, LearningRateSchedule)
            else add_variable(
                shape=(),
                initializer=initializers.Constant(decay.weight_decay),
                dtype="float32",
                aggregation="only_first_replica",
                name=f"{name}_rate",
            )
            for name, decay in decays.items()
        }

    def at(self, iterations) -> dict:
        """The rates as float32 scalar tensors, by name."""
        return {
            name: ops.cast(
                rate(iterations)
                if isinstance(rate, LearningRateSchedule)
                else backend.snapshot(rate),
                "float32",
            )
            for name, rate in self._rates.items()
        }

    def read(self, iterations: keras.Variable) -> dict[str, float]:
        """The rates as Python numbers, by name."""
        # The shortest decimal of the float32: 0.1 and not 0.10000000149.
        return {
            name: float(str(ops.convert_to_numpy(rate)))
            for name, rate in self.at(iterations).items()
        }

    def configured(self, name: str) -> float | None:
        """The rate in force, to be constructed again; None for a schedule."""
        rate = self._rates[name]
        if isinstance(rate, LearningRateSchedule):
            return None
        given, now = self._decays[name].weight_decay, number_of(rate)
        if ops.convert_to_numpy(ops.cast(given, rate.dtype)) == now:
            return given
        # The shortest decimal: 0.5 after `set(0.5)`, as a user wrote it.
        return float(str(ops.convert_to_numpy(backend.snapshot(rate))))

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
        if isinstance(rate, LearningRateSchedule):
            raise ValueError(
                "`name` must be a decay whose weight_decay is a number. "
                f"Received: name={name!r}, which follows the schedule {rate!r}"
            )
        rate.assign(value)
