"""Which rows of a variable the gradient of an update reaches."""

from collections.abc import Mapping
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd import backend
from keras_wd.backend import autodiff
from keras_wd.ops.norms import total


class TouchedRows:
    """The rows, along axis 0, whose gradient is not zero in an update.

    That of the whole batch: of all accumulated steps, which Keras adds up
    before it updates, and of all replicas. Read before the inner step, which
    empties what was accumulated.

    Args:
        inner: the optimizer that gets the gradients.
        gradients: of this step by position; a sparse one counts as dense.
        is_update: scalar boolean tensor; None if every step is an update.
        accumulated: what the steps before have added up, by position; empty
            where nothing is accumulated.
    """

    def __init__(
        self,
        inner: keras.optimizers.Optimizer,
        gradients: Mapping[int, object],
        is_update,
        accumulated: Sequence[keras.Variable],
    ):
        self._inner = inner
        self._gradients = gradients
        self._is_update = is_update
        self._accumulated = accumulated

    def at_update(self, term):
        """A term of the gradient of every step, in that of the last alone.

        Only there is known which rows all of them touch, and what was
        accumulated has to be theirs alone. Keras averages over the steps.
        """
        if self._is_update is None:
            return term
        steps = self._inner.gradient_accumulation_steps
        return ops.where(self._is_update, steps * term, ops.zeros_like(term))

    def of(self, position: int):
        """Whether each row is touched: shape `(rows, 1, ..., 1)`."""
        gradient = ops.convert_to_tensor(
            self._gradients[position], sparse=False
        )
        if self._is_update is not None:
            before = backend.snapshot(self._accumulated[position])
            scale = self._inner.loss_scale_factor or 1.0
            gradient = before + ops.cast(gradient / scale, before.dtype)
        # A sum of sizes, which is zero where all are: XLA fuses it, where it
        # would write the flags of all weights into memory for `any`.
        axes = tuple(range(1, len(gradient.shape)))
        rows = ops.not_equal(total(ops.abs(gradient), axes), 0)
        # A flag per row costs less than the gradients, and differs from that
        # of their sum only where replicas cancel to the last bit.
        (count,) = autodiff.sum_over_replicas([ops.cast(rows, "float32")])
        return count > 0
