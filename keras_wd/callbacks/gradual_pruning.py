"""Units that are masked during training, more and more of them."""

import weakref

import keras
from keras import ops

from keras_wd.callbacks.counting import BatchCount
from keras_wd.errors import check_count
from keras_wd.errors import check_number
from keras_wd.graph.importance import Importance
from keras_wd.graph.pruning import check_importance
from keras_wd.graph.pruning import check_max_ratio
from keras_wd.graph.pruning_plan import Plan
from keras_wd.graph.pruning_plan import check_budget
from keras_wd.graph.pruning_plan import count_within


class GradualPruning(keras.callbacks.Callback):
    """Masks the units that matter least during `fit`, by a cubic schedule.

    After `t` batches, of the units that may go

        r(t) = ratio * (1 - (1 - (t - start) / steps)^3)

    are masked, from `start` to `start + steps`, and `ratio` from then on; with
    `multiply_adds` as many units as bring the model as far towards it. The
    rows of all weights that read them are zero, and are set to zero again
    after every execution of the training step, and once more at the end of
    `fit` (a moving average of the weights has none). So the rest of the
    network adapts while it trains, and `graph.compact(model)` then takes the
    units out: a model cannot change its shape during `fit`. What goes together
    is scored and masked together, as in `graph.prune`, which this callback
    equals with `steps=1` and weights that do not move.

    Which units those are is decided anew every `every` batches. Units that
    nothing reads are counted first, so that what is masked stays so, also in
    the next `fit` and where training is resumed. The counter is that of the
    optimizer: a loop of `fit` goes on, a new optimizer starts at 0.

    The logs of an epoch get "pruned", the share of units that is masked; it
    can be less than `ratio`, as layers keep a multiple of `round_to`. List the
    callback behind `EarlyStopping` with `restore_best_weights`, which brings
    back weights from before.

    Args:
        ratio: the share of the units that may go to mask in the end, in
            (0, 1). This or `multiply_adds`.
        steps: batches over which it rises.
        start: batches before the first unit is masked.
        every: batches between two decisions. Each reads the weights of the
            model to the host.
        importance: see `graph.prune`.
        round_to: see `graph.prune`.
        data: see `graph.prune`.
        multiply_adds: what the model may have in the end, once it is
            compacted; see `graph.prune`.
        max_ratio: see `graph.prune`.

    Raises:
        ValueError: if an argument is out of range, or not one of `ratio` and
            `multiply_adds` is given; when `fit` starts, if the structure of
            the model cannot be read, none of its units may go, or all of them
            leave more than `multiply_adds`.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import callbacks, graph
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(32, "relu", name="hidden"),
    ...     keras.layers.Dense(2),
    ... ])
    >>> model.compile("adam", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> pruning = callbacks.GradualPruning(0.5, steps=6, every=2)
    >>> history = model.fit(
    ...     x, x[:, :2], batch_size=16, epochs=2, verbose=0,
    ...     callbacks=[pruning],
    ... )
    >>> history.history["pruned"]
    [0.25, 0.5]
    >>> graph.compact(model).get_layer("hidden").units
    16

    Source: Zhu and Gupta, 2017, "To prune, or not to prune", equation 1, with
    an initial sparsity of 0; there for single weights, here for units.
    """

    def __init__(
        self,
        ratio: float | None = None,
        steps: int = 1000,
        start: int = 0,
        every: int = 100,
        importance: Importance = "path",
        round_to: int = 8,
        data: object = None,
        multiply_adds: float | None = None,
        max_ratio: float | None = None,
    ):
        super().__init__()
        if (ratio is None) == (multiply_adds is None):
            raise ValueError(
                "`ratio` must be given, or `multiply_adds`, and not both. "
                f"Received: ratio={ratio!r}, multiply_adds={multiply_adds!r}"
            )
        if ratio is not None:
            ratio = check_number("ratio", ratio, above=0)
            if ratio >= 1:
                raise ValueError(
                    f"`ratio` must be below 1. Received: ratio={ratio!r}"
                )
        else:
            multiply_adds = check_number(
                "multiply_adds", multiply_adds, above=0
            )
        self.ratio, self.multiply_adds = ratio, multiply_adds
        self.steps = check_count("steps", steps)
        self.start = check_count("start", start, minimum=0)
        self.every = check_count("every", every)
        self.importance = check_importance(importance)
        self.round_to = check_count("round_to", round_to)
        self.data = data
        self.max_ratio = check_max_ratio(max_ratio, self.ratio)
        self._count = BatchCount()
        self._masked_model = lambda: None
        self._masks, self._wanted, self._share = None, 0, 0.0
        self._followed = self._followed_at_first()

    def ratio_at(self, batches: int) -> float:
        """The share of units to mask after so many batches.

        Raises:
            ValueError: if `multiply_adds` decides it.
        """
        if self.ratio is None:
            raise ValueError(
                "`ratio_at` must be called where `ratio` is given. Received: "
                f"multiply_adds={self.multiply_adds!r}"
            )
        return self.ratio * self._done_at(batches)

    def _done_at(self, batches):
        left = 1 - (batches - self.start) / self.steps
        return 1 - min(max(left, 0.0), 1.0) ** 3

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Read the structure of the model."""
        model = self.model
        if self._masked_model() is not model:
            self._masked_model = weakref.ref(model)
            self._masks, self._wanted, self._share = None, 0, 0.0
            self._followed = self._followed_at_first()
        self._count.begin_fit()
        plan = self._plan(model)
        plan.check()
        if self.multiply_adds is not None:
            check_budget(plan, self.multiply_adds)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Count from here; of a resumed run, mask what was masked."""
        model = self.model
        self._count.begin_epoch(model)
        if self._masks is None:
            self._decide(model, self._count.next_batch())
            self._apply()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Mask, and decide what to mask if it is time."""
        before, after = self._count.end_batch(batch)
        model = self.model  # On JAX, this brings the weights to the model.
        self._apply()
        if self._is_due(before, after):
            self._decide(model, after)
            self._apply()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the share of masked units to the logs."""
        if logs is not None:
            logs["pruned"] = self._share

    def on_train_end(self, logs: dict | None = None) -> None:
        """Mask what the optimizer or other callbacks brought back."""
        self._count.end_fit(self.model)
        self._apply()

    def _is_due(self, before, after):
        """Whether a decision lies in these batches; the last is the end."""
        first, last = (
            min(max(n - self.start, 0), self.steps) for n in (before, after)
        )
        ended = first < last == self.steps
        return ended or first // self.every < last // self.every

    def _followed_at_first(self):
        """None, to look into layers, or none of them.

        The multiply-adds inside of layers of other classes are not counted.
        """
        return None if self.multiply_adds is None else ()

    def _plan(self, model):
        plan = Plan(
            model,
            self.importance,
            self.round_to,
            self.data,
            self.max_ratio,
            self._followed,
        )
        self._followed = plan.followed
        return plan

    def _decide(self, model, batches):
        plan = self._plan(model)
        if self.multiply_adds is None:
            wanted = round(self.ratio_at(batches) * len(plan.order))
        else:
            done = self._done_at(batches)
            # All, where units that have become important put it out of reach.
            wanted = count_within(plan, self.multiply_adds, done)
        # Never fewer than before, also under a new optimizer.
        self._wanted = max(self._wanted, wanted)
        removed = plan.lowest(self._wanted)
        self._share = plan.share(removed)
        self._masks = [
            (variable, ops.convert_to_tensor(mask))
            for variable, mask in plan.masks(removed)
        ]

    def _apply(self):
        for variable, mask in self._masks or ():
            value = variable.value
            variable.assign(ops.where(mask, value, ops.zeros_like(value)))
