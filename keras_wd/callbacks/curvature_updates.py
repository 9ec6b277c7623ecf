"""Measures the curvature K-FAC needs while `fit` runs."""

import time

import keras

from keras_wd.callbacks.counting import BatchCount
from keras_wd.callbacks.probe_batches import batches_of
from keras_wd.errors import check_count
from keras_wd.errors import check_flag
from keras_wd.optimizers.chain import parts
from keras_wd.optimizers.kfac import KFAC


class Curvature(keras.callbacks.Callback):
    """Feeds `keras_wd.optimizers.KFAC` with curvature, between the batches.

    Before the first batch it measures and inverts, unless the optimizer was
    loaded with its curvature. Then it measures one batch of `data` every
    `every` batches of `fit`, and renews the inverses every `invert_every`.
    At the end of an epoch it adds `optimizer.diagnostics(products=False)` to
    the logs, as "kfac_damping", "kfac_curvature_updates" and so on, for
    History, CSVLogger and TensorBoard.

    The periods count the steps of the optimizer, so that a loop that calls
    `fit` once per epoch acts as one `fit`, and a run that is resumed with its
    optimizer measures what the unbroken run would have measured: which
    examples measurement number n sees depends on n and `seed` alone (a dataset
    that is no `keras.utils.PyDataset` starts again). List it before
    `BackupAndRestore`, which can only restore an optimizer whose factors
    exist.

    Args:
        data: what `fit` takes as `x`, or a tuple `(x, y)` or
            `(x, y, sample_weight)`: arrays, or a dataset that yields batches.
            A list or a dictionary holds the inputs of a model with several.
            Labels are only used by `KFAC(estimator="empirical")`.
        every: batches of `fit` between two measurements.
        invert_every: batches of `fit` between two inversions.
        batch_size: examples per measurement, for arrays: 128, or as many as
            there are. A dataset has its own.
        first_pass: initialise the factors by one pass over `data`; of data
            without a known end, as many batches as an epoch of `fit` has. An
            iterable that does not say its length is read to its end if `fit`
            does not know its own, with a warning after 1000 batches.
        seed: of the order in which arrays are read.
        verbose: 1 prints `optimizer.summary()` when the first inverses are
            there, and where the seconds went when `fit` ends.
        diagnostics: add "kfac_curvature_trace", "kfac_weight_norm" and
            "kfac_step_kl" to the logs, which takes as long as some steps.
        class_weight: what `fit` gets as `class_weight`; `data` has labels.

    Raises:
        ValueError: if an argument is out of range or `data` is empty; when
            `fit` starts, if the model's optimizer is not KFAC and has no
            KFAC inside, or a first pass would have no end.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd.callbacks.curvature_updates import Curvature
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
        diagnostics: bool = False,
        class_weight: dict[int, float] | None = None,
    ):
        super().__init__()
        self.every = check_count("every", every)
        self.invert_every = check_count("invert_every", invert_every)
        if batch_size is not None:
            batch_size = check_count("batch_size", batch_size)
        self.batch_size = batch_size
        self.first_pass = check_flag("first_pass", first_pass)
        if not isinstance(verbose, bool):
            check_count("verbose", verbose, minimum=0)
        self.verbose = verbose
        self.diagnostics = check_flag("diagnostics", diagnostics)
        self.class_weight = class_weight
        self._started: float | None = None
        self._batches_seen = 0
        self._batches = batches_of(data, batch_size, seed)
        self._count = BatchCount()

    def set_model(self, model: keras.Model) -> None:
        """Create the factors: afterwards `fit` fixes what the step carries."""
        super().set_model(model)
        if not any(isinstance(o, KFAC) for o in _optimizers_of(model)):
            return
        x = self._batches.first_batch()[0]
        if not model.built:
            model(keras.tree.map_structure(lambda array: array[:1], x))
        kfac_of(model).register(model, x)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the optimizer; measure and invert if it has no curvature."""
        self._count.begin_fit()
        self._batches_seen = 0
        model = self.model
        optimizer = kfac_of(model)
        if optimizer.has_curvature:
            return
        if self.first_pass:
            for batch in self._batches.one_pass(self.params.get("steps")):
                self._measure(optimizer, batch, first_pass=True)
        else:
            self._measure(optimizer, self._next_batch(optimizer))
        optimizer.update_inverses()
        if self.verbose:
            optimizer.summary()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Batches are counted from here."""
        self._count.begin_epoch(self.model)

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Steps are timed from here."""
        self._started = time.perf_counter()

    def _add_seconds(self):
        if self._started is None:  # a loop that only says when batches end
            return
        seconds = time.perf_counter() - self._started
        self._batches_seen += 1
        # The first batch of a `fit` compiles its step.
        kind = "steps" if self._batches_seen > 1 else "compiling"
        kfac_of(self.model).add_seconds(kind, seconds)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measure and invert when it is time."""
        self._add_seconds()
        before, now = self._count.end_batch(batch)
        measure = before // self.every != now // self.every
        invert = before // self.invert_every != now // self.invert_every
        if not (measure or invert):
            return
        # On JAX this brings the model's state up to date, which takes time.
        optimizer = kfac_of(self.model)
        if measure:
            self._measure(optimizer, self._next_batch(optimizer))
        if invert:
            optimizer.update_inverses()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the diagnostics to the logs."""
        if logs is not None:
            optimizer = kfac_of(self.model)
            numbers = optimizer.diagnostics(products=self.diagnostics)
            logs.update((f"kfac_{name}", x) for name, x in numbers.items())

    def on_train_end(self, logs: dict | None = None) -> None:
        """Compare the count of batches with the optimizer's."""
        self._count.end_fit(self.model)
        if self.verbose:
            print(kfac_of(self.model).seconds())

    def _measure(self, optimizer, batch, first_pass=False):
        optimizer.update_curvature(
            self.model,
            *batch,
            invert=False,
            first_pass=first_pass,
            class_weight=self.class_weight,
        )

    def _next_batch(self, optimizer) -> tuple:
        # By the optimizer's own count, which another callback may restore
        # after this one began.
        return self._batches.batch(optimizer.curvature_measurements)


def _optimizers_of(model):
    return parts(getattr(model, "optimizer", None))


def kfac_of(model: keras.Model) -> KFAC:
    """The K-FAC of a model, alone, wrapped or one of several.

    Raises:
        ValueError: if there is none or more than one.
    """
    optimizers = _optimizers_of(model)
    found = [one for one in optimizers if isinstance(one, KFAC)]
    if len(found) == 1:
        return found[0]
    kinds = ", ".join(type(one).__name__ for one in optimizers)
    raise ValueError(
        "The callback must be used with one keras_wd.optimizers.KFAC, alone, "
        "wrapped, or in a MultiOptimizer, whose map may give it to several "
        f"patterns. Received: optimizer={kinds}."
    )
