"""What callbacks that steer a decay have in common."""

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd.errors import check_choice
from keras_wd.errors import check_name
from keras_wd.optimizers.chain import chain
from keras_wd.optimizers.rates import number_of
from keras_wd.optimizers.weight_decay import WeightDecay


class DecayCallback(keras.callbacks.Callback):
    """Reads and sets the rate of one decay of the model's optimizer.

    Args:
        decay: the name of the decay; None for the only one.
    """

    def __init__(self, decay: str | None = None):
        super().__init__()
        self.decay = check_name("decay", decay)
        self._name = None
        self._steps = None
        self._last = -1

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the decay; raise if its rate cannot be set."""
        self._steps = None
        decays = self._optimizer.decays
        if self.decay is None and len(decays) > 1:
            raise ValueError(
                "`decay` must name one of the optimizer's decays: "
                f"{', '.join(decays)}. Received: decay=None."
            )
        self._name = next(iter(decays)) if self.decay is None else self.decay
        check_choice("decay", self._name, decays)
        given = decays[self._name].weight_decay
        if isinstance(given, LearningRateSchedule):
            raise ValueError(
                f"`{type(self).__name__}` must have a decay whose weight_decay "
                f"is a number. Received: decay={self._name!r}, which follows "
                f"the schedule {given!r}."
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Batches are counted from here, as if training began at epoch 0."""
        self._last = -1
        if self._steps is None:
            self._steps = epoch * (self.params.get("steps") or 0)

    def count_batches(self, batch: int) -> tuple[int, int]:
        """How many batches there were before and after this call."""
        before, self._steps = self._steps, self._steps + batch - self._last
        self._last = batch
        return before, self._steps

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the rate to the logs."""
        if logs is not None:
            logs.update(rate_logs(self._optimizer))

    @property
    def _optimizer(self):
        optimizer = getattr(self.model, "optimizer", None)
        for one in chain(optimizer):
            if isinstance(one, WeightDecay):
                return one
        raise ValueError(
            f"`{type(self).__name__}` must be used with "
            "keras_wd.optimizers.WeightDecay or one of its subclasses. "
            f"Received: optimizer={type(optimizer).__name__}."
        )

    @property
    def rate(self) -> float:
        """The rate now; settable."""
        return self._optimizer.current_weight_decay()[self._name]

    @rate.setter
    def rate(self, value: float):
        self._optimizer.set_weight_decay(value, self._name)

    @property
    def learning_rate(self) -> float:
        """The learning rate that multiplies the rate; 1 if none does."""
        optimizer = self._optimizer
        if optimizer.decays[self._name].coupling == "independent":
            return 1.0
        return number_of(optimizer.learning_rate)

    def remembered(self) -> dict:
        """What was remembered last; it is saved with the optimizer."""
        return dict(self._optimizer.callback_memory.get(self._key, {}))

    def remember(self, state: dict) -> None:
        """Keep a dictionary of plain Python."""
        self._optimizer.callback_memory[self._key] = state

    @property
    def _key(self):
        return f"{type(self).__name__} {self._name}"


def rate_logs(optimizer: WeightDecay) -> dict[str, float]:
    """The rates of all decays, by their names in the logs."""
    rates = optimizer.current_weight_decay()
    if len(rates) == 1:
        return {"weight_decay": next(iter(rates.values()))}
    return {f"weight_decay_{name}": rate for name, rate in rates.items()}
