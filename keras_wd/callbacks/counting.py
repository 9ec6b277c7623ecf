"""Counting batches and epochs over a run that may be several calls of `fit`.

Keras counts from zero in every `fit`; a period that is longer than one of
them would never end.
"""

import weakref

import keras

from keras_wd.optimizers.rates import number_of


class BatchCount:
    """How many batches the optimizer was trained on.

    A loop of `fit` counts on, a resumed run counts on from its optimizer, and
    a new optimizer starts at 0.
    """

    def __init__(self):
        self._batches = None
        self._last = -1
        # Batches without a step, as a loss scale skips them.
        self._skipped = 0
        self._optimizer = lambda: None

    def begin_fit(self) -> None:
        """Another `fit`."""
        self._batches = None

    def begin_epoch(self, model: keras.Model) -> None:
        """Batches are numbered from 0; what was to be restored is restored."""
        self._last = -1
        if self._batches is None:
            if self._optimizer() is not model.optimizer:
                self._skipped = 0
                self._optimizer = weakref.ref(model.optimizer)
            self._batches = _steps(model.optimizer) + self._skipped

    def next_batch(self) -> int:
        """How many batches there were before the one that begins."""
        return self._batches

    def end_batch(self, batch: int) -> tuple[int, int]:
        """How many batches there were before and after this execution."""
        before, self._batches = (
            self._batches,
            self._batches + batch - self._last,
        )
        self._last = batch
        return before, self._batches

    def end_fit(self, model: keras.Model) -> None:
        """Compare with the optimizer, which a later `fit` begins with."""
        if self._batches is not None:
            self._skipped = self._batches - _steps(model.optimizer)


def _steps(optimizer):
    # `iterations` leaves out the steps that accumulate gradients.
    counters = [v for v in optimizer.variables if v.name == "iteration"]
    return int(max(map(number_of, counters), default=0))


class EpochCount:
    """The number of an epoch in the whole run of one model."""

    def __init__(self):
        self._model = lambda: None
        self._done = 0
        self._offset = None

    def begin_fit(self, model: keras.Model) -> bool:
        """Another `fit`; returns whether it is of another model."""
        self._offset = None
        other = self._model() is not model
        if other:
            self._model, self._done = weakref.ref(model), 0
        return other

    def begin_epoch(self, epoch: int) -> int:
        """The epoch's number: its own, or one more than the last `fit` had."""
        if self._offset is None:
            self._offset = max(self._done - epoch, 0)
        return epoch + self._offset

    def end_epoch(self, epoch: int) -> int:
        """The epoch's number, which is done."""
        number = self.begin_epoch(epoch)
        self._done = number + 1
        return number
