"""Measures the curvature K-FAC needs while `fit` runs."""

from collections.abc import Iterable
from collections.abc import Iterator

import keras
import numpy as np

from keras_wd.errors import check_count
from keras_wd.optimizers.chain import chain
from keras_wd.optimizers.kfac import KFAC

_BATCH_SIZE = 128


class Curvature(keras.callbacks.Callback):
    """Feeds `keras_wd.optimizers.KFAC` with curvature, between the batches.

    Before the first batch it measures and inverts, unless the optimizer was
    loaded with its curvature. Then it measures one batch of `data` every
    `every` batches of `fit`, and renews the inverses every `invert_every`.
    At the end of an epoch it adds `optimizer.diagnostics()` to the logs, as
    "kfac_damping", "kfac_step_kl" and so on, for History, CSVLogger and
    TensorBoard.

    List it before `BackupAndRestore`, which can only restore an optimizer
    whose factors exist.

    Args:
        data: what `fit` takes as `x`, or a tuple `(x, y)` or
            `(x, y, sample_weight)`: arrays, or a dataset that yields batches.
            Labels are only used by `KFAC(estimator="empirical")`.
        every: batches of `fit` between two measurements.
        invert_every: batches of `fit` between two inversions.
        batch_size: examples per measurement, for arrays: 128, or as many as
            there are. A dataset has its own.
        first_pass: initialise the factors by one pass over `data`.
        seed: of the order in which arrays are read.
        verbose: 1 prints `optimizer.summary()` once.

    Raises:
        ValueError: if an argument is out of range, or when `fit` starts, if
            the model's optimizer is not KFAC.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd.callbacks.curvature import Curvature
    >>> from keras_wd.optimizers.kfac import KFAC
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(KFAC(0.1), "mse")
    >>> x, y = np.ones((8, 2)), np.ones((8, 1))
    >>> history = model.fit(
    ...     x, y, epochs=1, verbose=0, callbacks=[Curvature(x)]
    ... )
    >>> history.history["kfac_curvature_updates"]
    [1.0]
    """

    def __init__(
        self,
        data: object,
        every: int = 10,
        invert_every: int = 100,
        batch_size: int | None = None,
        first_pass: bool = False,
        seed: int = 0,
        verbose: int = 0,
    ):
        super().__init__()
        self.every = check_count("every", every)
        self.invert_every = check_count("invert_every", invert_every)
        if batch_size is not None:
            batch_size = check_count("batch_size", batch_size)
        self.batch_size = batch_size
        self.first_pass = first_pass
        self.verbose = verbose
        self._passes = _passes(data, batch_size, np.random.default_rng(seed))
        self._batches = None
        self._waiting = None
        self._steps = 0
        self._last = -1

    def set_model(self, model: keras.Model) -> None:
        """Create the factors: afterwards `fit` fixes what the step carries."""
        super().set_model(model)
        if not any(isinstance(o, KFAC) for o in _optimizers_of(model)):
            return
        self._waiting = self._next_batch()
        x = self._waiting[0]
        if not model.built:
            model(keras.tree.map_structure(lambda array: array[:1], x))
        _kfac_of(model).register(model, x)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the optimizer; measure and invert if it has no curvature."""
        self._steps = 0
        model = self.model
        optimizer = _kfac_of(model)
        if optimizer.has_curvature:
            return
        if self.first_pass:
            self._waiting = None
            for batch in next(self._passes):
                optimizer.update_curvature(
                    model, *batch, invert=False, first_pass=True
                )
            optimizer.update_inverses()
        else:
            optimizer.update_curvature(model, *self._next_batch())
        if self.verbose:
            optimizer.summary()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Batches are counted from here."""
        self._last = -1

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measure and invert when it is time."""
        before, self._steps = self._steps, self._steps + batch - self._last
        self._last = batch
        measure = before // self.every != self._steps // self.every
        invert = before // self.invert_every != self._steps // self.invert_every
        if not (measure or invert):
            return
        # On JAX this brings the model's state up to date, which takes time.
        model = self.model
        optimizer = _kfac_of(model)
        if measure:
            optimizer.update_curvature(model, *self._next_batch(), invert=False)
        if invert:
            optimizer.update_inverses()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the diagnostics to the logs."""
        if logs is not None:
            numbers = _kfac_of(self.model).diagnostics()
            logs.update((f"kfac_{name}", x) for name, x in numbers.items())

    def _next_batch(self) -> tuple:
        if self._waiting is not None:
            batch, self._waiting = self._waiting, None
            return batch
        while True:
            if self._batches is None:
                self._batches = iter(next(self._passes))
            batch = next(self._batches, None)
            if batch is not None:
                return batch
            self._batches = None


def _optimizers_of(model):
    return chain(getattr(model, "optimizer", None))


def _kfac_of(model):
    optimizers = _optimizers_of(model)
    for one in optimizers:
        if isinstance(one, KFAC):
            return one
    kinds = " of ".join(type(one).__name__ for one in optimizers)
    raise ValueError(
        "`Curvature` must be used with keras_wd.optimizers.KFAC, alone or "
        f"wrapped. Received: optimizer={kinds}."
    )


def _passes(
    data, batch_size: int | None, rng: np.random.Generator
) -> Iterator[Iterable[tuple]]:
    """Passes over the data without end, each of (x, y, sample_weight)."""
    if isinstance(data, keras.utils.PyDataset):
        _refuse_batch_size(batch_size)
        return _dataset_passes(
            lambda: (data[index] for index in range(len(data)))
        )
    if hasattr(data, "__iter__") and not (
        isinstance(data, tuple | list | dict) or hasattr(data, "shape")
    ):
        _refuse_batch_size(batch_size)
        return _dataset_passes(lambda: data)
    return _array_passes(_unpacked(data), batch_size or _BATCH_SIZE, rng)


def _refuse_batch_size(batch_size):
    if batch_size is not None:
        raise ValueError(
            "`batch_size` must be None for a dataset, which yields batches. "
            f"Received: batch_size={batch_size}."
        )


def _unpacked(data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return x, y, sample_weight


def _dataset_passes(batches):
    while True:
        empty = True

        def one_pass():
            nonlocal empty
            for batch in batches():
                empty = False
                yield _unpacked(batch)

        yield one_pass()
        if empty:
            raise ValueError(
                "`data` must yield batches every time it is iterated. "
                "Received a dataset that yielded none."
            )


def _array_passes(arrays, batch_size, rng):
    """Shuffled batches of one size, so that one program serves all."""
    examples = len(keras.tree.flatten(arrays[0])[0])
    size = min(batch_size, examples)

    def one_pass(order):
        for start in range(0, examples - size + 1, size):
            yield _taken(arrays, order[start : start + size])

    while True:
        yield one_pass(rng.permutation(examples))


def _taken(arrays, chosen):
    return tuple(
        None
        if part is None
        else keras.tree.map_structure(lambda a: np.asarray(a)[chosen], part)
        for part in arrays
    )
