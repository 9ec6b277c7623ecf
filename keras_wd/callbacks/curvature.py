"""Measures the curvature K-FAC needs while `fit` runs."""

from collections.abc import Iterable

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

    A run that is resumed with its optimizer and `fit(initial_epoch=...)`
    measures what the unbroken run would have measured: the periods count
    from epoch 0, and which examples measurement number n sees depends on n
    and `seed` alone (a dataset that is no `keras.utils.PyDataset` starts
    again). List it before `BackupAndRestore`, which can only restore an
    optimizer whose factors exist.

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
        self._batches = _batches(data, batch_size, seed)
        self._measured = 0
        self._steps = None
        self._last = -1

    def set_model(self, model: keras.Model) -> None:
        """Create the factors: afterwards `fit` fixes what the step carries."""
        super().set_model(model)
        if not any(isinstance(o, KFAC) for o in _optimizers_of(model)):
            return
        x = self._batches.first()
        if not model.built:
            model(keras.tree.map_structure(lambda array: array[:1], x))
        _kfac_of(model).register(model, x)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the optimizer; measure and invert if it has no curvature."""
        self._steps = None
        model = self.model
        optimizer = _kfac_of(model)
        self._measured = optimizer.curvature_measurements
        if optimizer.has_curvature:
            return
        if self.first_pass:
            for batch in self._batches.one_pass():
                optimizer.update_curvature(
                    model, *batch, invert=False, first_pass=True
                )
                self._measured += 1
            optimizer.update_inverses()
        else:
            optimizer.update_curvature(model, *self._next_batch())
        if self.verbose:
            optimizer.summary()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Batches are counted from here."""
        self._last = -1
        if self._steps is None:
            self._steps = epoch * (self.params.get("steps") or 0)

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
        batch = self._batches.batch(self._measured)
        self._measured += 1
        return batch


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


def _batches(data, batch_size: int | None, seed: int):
    """A source of batches (x, y, sample_weight) of what `fit` takes."""
    if isinstance(data, keras.utils.PyDataset):
        _refuse_batch_size(batch_size)
        return _Indexed(data)
    if hasattr(data, "__iter__") and not (
        isinstance(data, tuple | list | dict) or hasattr(data, "shape")
    ):
        _refuse_batch_size(batch_size)
        return _Stream(data)
    return _Arrays(_unpacked(data), batch_size or _BATCH_SIZE, seed)


def _refuse_batch_size(batch_size):
    if batch_size is not None:
        raise ValueError(
            "`batch_size` must be None for a dataset, which yields batches. "
            f"Received: batch_size={batch_size}."
        )


def _unpacked(data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return x, y, sample_weight


class _Indexed:
    """Batches that can be asked for by their number."""

    def __init__(self, data):
        self._data = data

    def __len__(self):
        return len(self._data)

    def batch(self, number: int) -> tuple:
        return _unpacked(self._data[number % len(self)])

    def first(self):
        return self.batch(0)[0]

    def one_pass(self):
        return map(self.batch, range(len(self)))


class _Arrays(_Indexed):
    """Shuffled batches of one size, so that one program serves all."""

    def __init__(self, arrays, batch_size, seed):
        self._arrays = arrays
        self._examples = len(keras.tree.flatten(arrays[0])[0])
        self._size = min(batch_size, self._examples)
        self._seed = seed
        self._order = (None, None)

    def __len__(self):
        return self._examples // self._size

    def batch(self, number: int) -> tuple:
        number_of_pass, index = divmod(number, len(self))
        if self._order[0] != number_of_pass:
            rng = np.random.default_rng((self._seed, number_of_pass))
            self._order = (number_of_pass, rng.permutation(self._examples))
        start = index * self._size
        return _taken(self._arrays, self._order[1][start : start + self._size])


class _Stream:
    """Batches of an iterable, in its order, again and again."""

    def __init__(self, data: Iterable):
        self._data = data
        self._waiting = []
        self._rest = iter(())

    def first(self):
        if not self._waiting:
            self._waiting.append(self.batch(0))
        return self._waiting[0][0]

    def batch(self, number: int) -> tuple:
        if self._waiting:
            return self._waiting.pop()
        batch = next(self._rest, None)
        if batch is None:
            self._rest = iter(self._data)
            batch = next(self._rest, None)
        if batch is None:
            raise ValueError(
                "`data` must yield batches every time it is iterated. "
                "Received a dataset that yielded none."
            )
        return _unpacked(batch)

    def one_pass(self):
        self._waiting = []
        return map(_unpacked, self._data)


def _taken(arrays, chosen):
    return tuple(
        None
        if part is None
        else keras.tree.map_structure(lambda a: np.asarray(a)[chosen], part)
        for part in arrays
    )
