"""The damping of K-FAC by how well its quadratic model predicts the loss."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.callbacks.counting import BatchCount
from keras_wd.callbacks.curvature_updates import kfac_of
from keras_wd.callbacks.loss import loss_and_gradients
from keras_wd.callbacks.probe_batches import batches_of
from keras_wd.errors import check_count
from keras_wd.errors import check_number

# Of the loss: a predicted change below it is lost in float32.
_ROUNDING = 1e-5


class LevenbergMarquardt(keras.callbacks.Callback):
    """Adapts the damping of `keras_wd.optimizers.KFAC` while `fit` runs.

    Formula: every `every` batches, for the step v the weights have just taken
    and one batch of `data` with loss h and gradient g before that step,
    `rho = (h(w + v) - h(w)) / (g . v + v . (C + d) v / 2)`: the change of the
    loss by the one the quadratic model predicts. Where rho < 1/4 the damping d
    is divided by `factor^every`, where rho > 3/4 it is multiplied with it.
    C is the curvature as K-FAC keeps it, zero for variables without a block.

    It is a rule for large batches and a model that fits: h, g and C of the
    same examples. Where the step did not come from this quadratic model
    (momentum, `kl_clip`, which has to be None, a decay of the weights, dropout,
    a batch much smaller than what its noise needs), rho says less, and the
    damping it leads to may be far from the best. A step for which no lower
    loss is predicted, or whose predicted change is below the rounding of the
    loss, says nothing: it is left out and counted. `fit`'s logs get the mean
    rho of an epoch as "kfac_reduction_ratio" (if there was one) and how many
    measurements said nothing as "kfac_undecided": where those are many, do
    not rely on this callback, and give the damping yourself.

    The damping acts when the inverses are renewed next; with
    `KFAC(eigenbasis=True)` at once. List this callback behind `Curvature`.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)`, arrays or a dataset of such
            batches: the training data, in batches of the size of `fit`'s or
            larger.
        every: batches of `fit` between two measurements.
        factor: in (0, 1), for one batch.
        minimum: the damping is not lowered below this.
        maximum: it is not raised above this.
        batch_size: examples per measurement, for arrays: 128, or as many as
            there are.
        seed: of the order in which arrays are read.

    Raises:
        ValueError: if an argument is out of range or `data` has no labels;
            when `fit` starts, if the model's optimizer is not KFAC, or its
            damping follows a schedule.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import callbacks, optimizers
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> optimizer = optimizers.KFAC(1.0, 1.0, momentum=0.0, kl_clip=None)
    >>> model.compile(optimizer, "mse")
    >>> x = np.random.default_rng(0).normal(size=(32, 2))
    >>> y = x @ np.array([[1.0], [-2.0]])
    >>> adapts = callbacks.LevenbergMarquardt((x, y), every=1)
    >>> history = model.fit(x, y, batch_size=32, epochs=3, verbose=0,
    ...                     callbacks=[callbacks.Curvature(x), adapts])
    >>> history.history["kfac_damping"][-1] < 1.0  # it predicts well
    True

    Source: Martens and Grosse, 2015, section 6.5 (`factor` 19/20, `every` 5).
    """

    def __init__(
        self,
        data: object,
        every: int = 5,
        factor: float = 19 / 20,
        minimum: float = 1e-8,
        maximum: float = 1e4,
        batch_size: int | None = None,
        seed: int = 0,
    ):
        autodiff.require("LevenbergMarquardt")
        super().__init__()
        self.every = check_count("every", every)
        self.factor = check_number("factor", factor, above=0)
        if self.factor >= 1:
            raise ValueError(
                f"`factor` must be < 1. Received: factor={factor!r}."
            )
        self.minimum = check_number("minimum", minimum, minimum=0)
        self.maximum = check_number("maximum", maximum, minimum=self.minimum)
        if batch_size is not None:
            batch_size = check_count("batch_size", batch_size)
        self._batches = batches_of(data, batch_size, seed)
        if self._batches.first_batch()[1] is None:
            raise ValueError(
                "`data` must have labels, as in the tuple (x, y). Received: x "
                "alone. A list holds the inputs of a model that has several."
            )
        self._count = BatchCount()
        self._measure: Any = None  # compiled when training begins
        self._measured = 0
        self._before = None
        self._ratios, self._undecided = [], 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the optimizer; compile the measurement."""
        model = self.model
        optimizer = kfac_of(model)
        # A schedule refuses to be set, and says so.
        optimizer.damping = optimizer.diagnostics(products=False)["damping"]
        self._measure = loss_and_gradients(model)
        self._count.begin_fit()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Batches are counted from here."""
        self._count.begin_epoch(self.model)
        self._ratios, self._undecided = [], 0
        self._remember(0)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Judge the step that was taken, when it is time."""
        _, now = self._count.end_batch(batch)
        if self._before is not None:
            self._judge(self.model)
        self._remember(now)

    def _remember(self, count):
        """Keep the weights, if the next step is to be judged."""
        due = count % self.every == self.every - 1
        self._before = [
            np.array(ops.convert_to_numpy(autodiff.read(v)))
            for v in (self.model.trainable_variables if due else ())
        ] or None

    def _judge(self, model):
        optimizer = kfac_of(model)
        variables = model.trainable_variables
        now = [ops.convert_to_numpy(autodiff.read(v)) for v in variables]
        batch = self._batches.batch(self._measured)
        self._measured += 1
        after, _ = self._measure(*batch, now)
        loss, gradients = self._measure(*batch, self._before)
        steps = [a - b for a, b in zip(now, self._before, strict=True)]
        predicted = optimizer.predicted_change(variables, steps, gradients)
        ratio = reduction_ratio(after - loss, predicted, loss)
        if ratio is None:
            self._undecided += 1
            return
        self._ratios.append(ratio)
        damping = optimizer.diagnostics(products=False)["damping"]
        change = self.factor**self.every
        if ratio < 0.25:
            damping = min(damping / change, self.maximum)
        elif ratio > 0.75:
            damping = max(damping * change, self.minimum)
        optimizer.damping = damping

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the damping and what it came from to the logs."""
        if logs is None:
            return
        numbers = kfac_of(self.model).diagnostics(products=False)
        logs["kfac_damping"] = numbers["damping"]
        logs["kfac_undecided"] = float(self._undecided)
        if self._ratios:
            logs["kfac_reduction_ratio"] = float(np.mean(self._ratios))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Compare the count of batches with the optimizer's."""
        self._count.end_fit(self.model)


def reduction_ratio(
    change: float, predicted: float, loss: float
) -> float | None:
    """`change / predicted`; None where that says nothing.

    A loss that became infinite or NaN has a ratio of minus infinity.

    Args:
        change: of the loss.
        predicted: change of the loss.
        loss: before the step, for its rounding.

    >>> reduction_ratio(-0.5, -1.0, 2.0)
    0.5
    >>> reduction_ratio(-0.5, 1.0, 2.0) is None
    True
    """
    if not math.isfinite(predicted) or predicted >= -_ROUNDING * abs(loss):
        return None
    return change / predicted if math.isfinite(change) else -math.inf
