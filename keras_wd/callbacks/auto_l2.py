"""The schedule that lowers the decay when training stops getting better."""

import dataclasses
import math
from typing import Any

from keras_wd.backend import autodiff
from keras_wd.callbacks.decay_callback import DecayCallback
from keras_wd.callbacks.loss import batch_loss
from keras_wd.callbacks.probe_batches import batches_of
from keras_wd.errors import check_count
from keras_wd.errors import check_fraction
from keras_wd.errors import check_number
from keras_wd.optimizers.rates import number_of


@dataclasses.dataclass
class History:
    """What AutoL2 remembers between two measurements.

    Attributes:
        last: the step of the last drop.
        least_loss: the least loss but those of the last measurements.
        most_accuracy: the highest accuracy but those of the last ones.
        losses: the last measurements, oldest first.
        accuracies: the same of the accuracy.
        measurements: how many there were.
    """

    last: int = 0
    least_loss: float = math.inf
    most_accuracy: float = -math.inf
    losses: list[float] = dataclasses.field(default_factory=list)
    accuracies: list[float] = dataclasses.field(default_factory=list)
    measurements: int = 0

    def measured(
        self,
        step: int,
        loss: float,
        accuracy: float,
        refractory: float,
        patience: int,
    ) -> bool:
        """Take in a measurement; returns whether the decay has to drop.

        Args:
            step: of the optimizer.
            loss: on a batch, without the penalty.
            accuracy: on the batch; NaN if there is none.
            refractory: steps after a drop without another.
            patience: how many measurements in a row must not be better.
        """
        self.measurements += 1
        self.losses = [*self.losses, loss][-patience:]
        self.accuracies = [*self.accuracies, accuracy][-patience:]
        worse = all(value >= self.least_loss for value in self.losses)
        no_better = all(v <= self.most_accuracy for v in self.accuracies)
        if (
            step > self.last + refractory
            and self.measurements > patience
            and (worse or no_better)
        ):
            self.last = step
            return True
        if self.measurements >= patience:
            # All but the newest patience - 1: those still have to be judged.
            self.least_loss = min(self.least_loss, self.losses[0])
            # The comparison is False for NaN.
            if self.accuracies[0] > self.most_accuracy:
                self.most_accuracy = self.accuracies[0]
        return False


class AutoL2(DecayCallback):
    """Starts with a large decay and divides it when training stalls.

    Every `every` steps the loss (without any penalty) and the accuracy on
    one batch of `data` are measured, in training mode. The rate is divided by
    `factor` when more than `delay / (lr * rate)` steps have passed since the
    last drop, and the last `patience` losses are all at or above the least
    loss before them, or the last `patience` accuracies all at or below the
    highest before. The extremes are kept over drops. (`delay / rate` steps
    with `coupling="independent"`, where the learning rate plays no role; with
    other optimizers inside `KFAC`, lr is the least that a decayed weight is
    stepped with.) A loss that is not finite is above every other.

    Convention: the rate is that of `decays.L2` in `WeightDecay`, for the
    penalty `(rate / 2) |w|^2`; the rate the decay is made with is the first.
    The authors' code counts `lambda |w|^2`, so its lambda is half of it, and
    waits `0.1 / rate` steps whatever the learning rate.

    The compiled training step reads the rate from a variable and is never
    compiled again. The epoch's logs get the rate as "weight_decay" (with the
    decay's name behind it if there are several).

    Rate and history are saved with the optimizer. A loop that calls `fit`
    once per epoch with one callback acts as one `fit`, and a run that is
    resumed from a file, by `fit(initial_epoch=...)` or `BackupAndRestore`,
    goes on with them. A new callback, another `compile` or a new optimizer
    begins a new history, so that one training never judges another.

    A large first rate can destroy what a small network has learned: compare
    it with a constant rate from `keras_wd.tune` before relying on it.

    Args:
        data: a tuple `(x, y)` or `(x, y, sample_weight)` to measure on, or a
            dataset of such batches: the training data.
        every: batches of `fit` between two measurements, counted over all
            calls of `fit` with one optimizer.
        factor: what the rate is divided by, > 1.
        delay: see above, >= 0.
        patience: measurements in a row that must not be better, >= 1.
        smoothing: share of the past in an exponential average of the
            measurements, in [0, 1).
        minimum: the rate is not lowered below this.
        decay: the name of the decay to steer, if the optimizer has several.
        batch_size: examples per measurement, for arrays: 128, or as many as
            there are.
        seed: of the order in which arrays are read.

    Raises:
        ValueError: if an argument is out of range; when `fit` starts, if the
            optimizer is no `WeightDecay`, the decay has a schedule of its
            own, or the model has no loss.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import callbacks, optimizers
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(optimizers.SGDW(1e-20, weight_decay=0.1), "mse")
    >>> x, y = np.ones((8, 2)), np.ones((8, 1))
    >>> history = model.fit(
    ...     x, y, batch_size=1, epochs=1, verbose=0,
    ...     callbacks=[callbacks.AutoL2((x, y), every=2, delay=0.0)],
    ... )
    >>> history.history["weight_decay"]
    [0.001]

    Source: Lewkowycz and Gur-Ari, 2020, "On the training dynamics of deep
    networks with L2 regularization", section 4.2 and the released code.
    """

    def __init__(
        self,
        data: object,
        every: int = 10,
        factor: float = 10.0,
        delay: float = 0.1,
        patience: int = 2,
        smoothing: float = 0.0,
        minimum: float = 0.0,
        decay: str | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ):
        autodiff.require("AutoL2")
        super().__init__(decay)
        self.every = check_count("every", every)
        self.factor = check_number("factor", factor, above=1)
        self.delay = check_number("delay", delay, minimum=0)
        self.patience = check_count("patience", patience)
        self.smoothing = check_fraction("smoothing", smoothing)
        self.minimum = check_number("minimum", minimum, minimum=0)
        if batch_size is not None:
            batch_size = check_count("batch_size", batch_size)
        self._batches = batches_of(data, batch_size, seed)
        if self._batches.first_batch()[1] is None:
            raise ValueError(
                "`data` must have labels, as in the tuple (x, y). Received: x "
                "alone. A list holds the inputs of a model that has several."
            )
        self._measure: Any = None  # compiled when training begins
        self._measured = (None, None)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the decay; compile the measurement once for every `compile`."""
        super().on_train_begin(logs)
        model = self.model
        found = (model, next(iter(model.metrics), None))
        if any(a is not b for a, b in zip(found, self._measured, strict=True)):
            self._measure = batch_loss(model)
            self._measured = found

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measure when it is time, and lower the rate if it has to be."""
        before, now = self.count.end_batch(batch)
        if before // self.every == now // self.every:
            return
        model = self.model
        memory = self.remembered()
        past = memory.pop("smoothed", None)
        history = History(**memory)
        x, y, sample_weight = self._batches.batch(history.measurements)
        loss, accuracy = self._measure(x, y, sample_weight)
        # A loss that is not finite is worse than any other.
        values = [loss if math.isfinite(loss) else math.inf, accuracy]
        if past is not None:
            values = [
                self.smoothing * old + (1 - self.smoothing) * new
                if math.isfinite(old)
                else new
                for old, new in zip(past, values, strict=True)
            ]
        loss, accuracy = values
        rate = self.rate
        drop = history.measured(
            int(number_of(model.optimizer.iterations)),
            loss,
            accuracy,
            self._refractory(rate),
            self.patience,
        )
        if drop and rate > self.minimum:
            self.rate = max(rate / self.factor, self.minimum)
        self.remember({**dataclasses.asdict(history), "smoothed": list(values)})

    def _refractory(self, rate):
        # Until the weights that decay the slowest have had the time.
        pace = rate * min(self.learning_rates.values(), default=0.0)
        return self.delay / pace if pace else math.inf
