"""What callbacks that steer a decay have in common."""

import weakref
from typing import Any

import keras

from keras_wd.callbacks.counting import BatchCount
from keras_wd.errors import check_choice
from keras_wd.errors import check_name
from keras_wd.optimizers.chain import parts
from keras_wd.optimizers.weight_decay import WeightDecay


class _Memory(dict):
    """What one callback remembers; a copy of it is a plain dictionary.

    Attributes:
        fit: the parameters of the last `fit` its callback took part in, which
            are the same object for all callbacks of that `fit`.
    """

    def __init__(self, values, fit):
        super().__init__(values)
        self.fit = fit

    def __reduce__(self):
        return dict, (dict(self),)


class DecayCallback(keras.callbacks.Callback):
    """Reads and sets the rate of one decay of the model's optimizer.

    What it remembers is saved with the optimizer and belongs to this object:
    it goes on over several calls of `fit`, and ends with a new optimizer or
    another `compile`. A new callback starts afresh, unless the run is resumed:
    the optimizer was loaded, and either `fit` begins after epoch 0 or
    `BackupAndRestore` loaded it.

    Args:
        decay: the name of the decay; None for the only one.
    """

    def __init__(self, decay: str | None = None):
        super().__init__()
        self.decay = check_name("decay", decay)
        self.count = BatchCount()
        self._name: str | None = None
        self._key: str | None = None
        self._memory: Any = None  # a _Memory
        self._compiled = None
        self._is_resumed: bool | None = None
        self._memories = None
        self._owner = lambda: None

    def set_params(self, params: dict) -> None:
        """Note that what is remembered is in use."""
        super().set_params(params)
        if self._memory is not None:
            self._memory.fit = params

    def set_model(self, model: keras.Model) -> None:
        """Note what the optimizer holds before anything is restored."""
        super().set_model(model)
        found = self._found(getattr(model, "optimizer", None))
        found = found[0] if len(found) == 1 else None
        self._memories = None if found is None else found.callback_memory
        self._is_resumed = None
        # Of every `compile` a new one.
        compiled = next(iter(model.metrics), None)
        if compiled is not self._compiled or self._owner() is not found:
            self._memory, self._compiled = None, compiled
            self._owner = weakref.ref(found) if found else lambda: None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the decay; raise if its rate cannot be set."""
        self.count.begin_fit()
        decays = self._optimizer.decays
        if self.decay is None and len(decays) > 1:
            raise ValueError(
                "`decay` must name one of the optimizer's decays: "
                f"{', '.join(decays)}. Received: decay=None."
            )
        self._name = next(iter(decays)) if self.decay is None else self.decay
        check_choice("decay", self._name, decays)
        given = decays[self._name].weight_decay
        if callable(given):
            raise ValueError(
                f"`{type(self).__name__}` must have a decay whose weight_decay "
                f"is a number. Received: decay={self._name!r}, which follows "
                f"{given!r}."
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Count from here, and find what is remembered."""
        model = self.model
        self.count.begin_epoch(model)
        if self._is_resumed is None:
            restored = self._optimizer.callback_memory is not self._memories
            self._is_resumed = epoch > 0 or restored
            self._find_memory()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Compare the count of batches with the optimizer's."""
        self.count.end_fit(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the rate to the logs."""
        if logs is not None:
            logs.update(rate_logs(self.model.optimizer))

    @property
    def _optimizer(self):
        optimizer = getattr(self.model, "optimizer", None)
        found = self._found(optimizer)
        if len(found) > 1:
            names = {one.name: list(one.decays) for one in found}
            raise ValueError(
                "`decay` must name a decay that only one of the optimizers in "
                f"the MultiOptimizer has: {names}. Received: "
                f"decay={self.decay!r}. Name it, such as "
                "decays.L2(0.1, name='head')."
            )
        if not found:
            raise ValueError(
                f"`{type(self).__name__}` must be used with "
                "keras_wd.optimizers.WeightDecay or one of its subclasses. "
                f"Received: optimizer={type(optimizer).__name__}."
            )
        return found[0]

    def _found(self, optimizer):
        """The wrappers that may be meant."""
        found = wrappers(optimizer)
        named = [one for one in found if self.decay in one.decays]
        return named or found

    @property
    def rate(self) -> float:
        """The rate now; settable."""
        return self._optimizer.current_weight_decay()[self._name]

    @rate.setter
    def rate(self, value: float):
        self._optimizer.set_weight_decay(value, self._name)

    @property
    def learning_rates(self) -> dict[str, float]:
        """Those that multiply the rate, by the path of the decayed weights."""
        return self._optimizer.learning_rates_of(self._name)

    def remembered(self) -> dict:
        """What was remembered last; it is saved with the optimizer."""
        self._find_memory()
        return dict(self._memory)

    def remember(self, state: dict) -> None:
        """Keep a dictionary of plain Python."""
        self._find_memory()
        self._memory.clear()
        self._memory.update(state)

    def _find_memory(self):
        """Find what is this callback's, take over what was loaded, or begin."""
        memories = self._optimizer.callback_memory
        if self._memory is not None:
            if memories.get(self._key) is self._memory:
                return
            # The optimizer was loaded meanwhile: go on with what it brought.
            self._is_resumed = True
        key = name = f"{type(self).__name__} {self._name}"
        number = 1
        while (
            isinstance(memories.get(key), _Memory)
            and memories[key].fit is self.params
        ):
            number += 1
            key = f"{name} {number}"
        found = memories.get(key, {})
        if isinstance(found, _Memory) or not self._is_resumed:
            found = {}
        self._key = key
        self._memory = memories[key] = _Memory(found, self.params)


def wrappers(optimizer: keras.optimizers.Optimizer | None) -> list:
    """Every `WeightDecay` in an optimizer; a `MultiOptimizer` has several."""
    return [one for one in parts(optimizer) if isinstance(one, WeightDecay)]


def rate_logs(optimizer: keras.optimizers.Optimizer) -> dict[str, float]:
    """The rates of all decays, by their names in the logs."""
    found = wrappers(optimizer)
    logs = {}
    for one in found:
        prefix = "weight_decay" + (f"_{one.name}" if len(found) > 1 else "")
        rates = one.current_weight_decay()
        if len(rates) == 1:
            logs[prefix] = next(iter(rates.values()))
            continue
        logs.update((f"{prefix}_{name}", rate) for name, rate in rates.items())
    return logs
