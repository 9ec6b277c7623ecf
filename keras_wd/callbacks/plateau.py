"""Lowering the decay when a logged number stops getting better."""

import math

from keras_wd.callbacks.decay_callback import DecayCallback
from keras_wd.errors import check_choice
from keras_wd.errors import check_count
from keras_wd.errors import check_number


class ReduceDecayOnPlateau(DecayCallback):
    """Multiplies the rate of a decay when a metric has stopped improving.

    What `keras.callbacks.ReduceLROnPlateau` is to the learning rate: after
    `patience` epochs without an improvement of `monitor` by more than
    `min_delta`, `rate <- max(rate * factor, minimum)`, and the next
    `cooldown` epochs do not count. The epoch's logs get the rate it ran with
    as "weight_decay". An epoch in which `monitor` was not measured, as with
    `fit(validation_freq=2)` or `Mechanisms(every=5)`, does not count.

    The wait and the best value are saved with the optimizer. A loop that
    calls `fit` once per epoch with one callback acts as one `fit`, and a run
    that is resumed from a file, by `fit(initial_epoch=...)` or
    `BackupAndRestore`, goes on with them. A new callback, another `compile`
    or a new optimizer begins anew.

    Args:
        monitor: name of a number in the logs.
        factor: what the rate is multiplied by, in (0, 1).
        patience: epochs without improvement, >= 1.
        mode: "min", "max", or "auto": "max" for names that end in "acc",
            "accuracy", "auc", "precision" or "recall".
        min_delta: improvements up to this do not count, >= 0.
        cooldown: epochs to wait after a reduction, >= 0.
        minimum: the rate is not lowered below this.
        decay: the name of the decay to steer, if the optimizer has several.

    Raises:
        ValueError: if an argument is out of range; when `fit` starts, if the
            optimizer is no `WeightDecay` or the decay has a schedule of its
            own; at the end of an epoch whose logs lack `monitor` and never
            had it. (Of a "val_" number when `fit` ends, as validation may
            have its own period.)

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import callbacks, optimizers
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(optimizers.SGDW(1e-20, weight_decay=0.1), "mse")
    >>> history = model.fit(
    ...     np.ones((4, 2)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[
    ...         callbacks.ReduceDecayOnPlateau("loss", factor=0.5, patience=1)
    ...     ])
    >>> history.history["weight_decay"]
    [0.1, 0.1, 0.05]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        minimum: float = 0.0,
        decay: str | None = None,
    ):
        super().__init__(decay)
        if not isinstance(monitor, str) or not monitor:
            raise ValueError(
                "`monitor` must be the name of a number in the logs. "
                f"Received: monitor={monitor!r}"
            )
        self.monitor = monitor
        self.factor = check_number("factor", factor, above=0)
        if self.factor >= 1:
            raise ValueError(
                f"`factor` must be < 1. Received: factor={factor!r}"
            )
        self.patience = check_count("patience", patience)
        self.mode = check_choice("mode", mode, ("auto", "min", "max"))
        self.min_delta = check_number("min_delta", min_delta, minimum=0)
        self.cooldown = check_count("cooldown", cooldown, minimum=0)
        self.minimum = check_number("minimum", minimum, minimum=0)
        self._is_seen = False
        self._logged: list[str] | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Judge the epoch; lower the rate for the next one if it has to be."""
        super().on_epoch_end(epoch, logs)
        value = (logs or {}).get(self.monitor)
        if value is None:
            self._logged = list(logs or {})
            waits = self.monitor.startswith("val_") and not any(
                name.startswith("val_") for name in self._logged
            )
            if not (waits or self._is_seen):
                self._refuse_monitor()
            return
        self._is_seen = True
        state = self.remembered()
        best, wait = state.get("best", math.inf), state.get("wait", 0)
        cooldown = max(state.get("cooldown", 0) - 1, 0)
        # Smaller is better from here on.
        value = -float(value) if self._is_max() else float(value)
        if cooldown:
            wait = 0
        if value < best - self.min_delta:
            best, wait = value, 0
        elif not cooldown:
            wait += 1
            if wait >= self.patience:
                rate = self.rate
                if rate > self.minimum:
                    self.rate = max(rate * self.factor, self.minimum)
                # The epoch that comes counts as the first of the pause.
                cooldown, wait = self.cooldown + bool(self.cooldown), 0
        self.remember({"best": best, "wait": wait, "cooldown": cooldown})

    def on_train_end(self, logs: dict | None = None) -> None:
        """Raise if there was never anything to judge by."""
        super().on_train_end(logs)
        if self._logged is not None and not self._is_seen:
            self._refuse_monitor()

    def _refuse_monitor(self):
        raise ValueError(
            "`monitor` must be in the logs: "
            f"{', '.join(self._logged)}. Received: monitor={self.monitor!r}."
        )

    def _is_max(self):
        names = ("acc", "accuracy", "auc", "precision", "recall")
        by_name = self.monitor.lower().endswith(names)
        return self.mode == "max" or (self.mode == "auto" and by_name)
