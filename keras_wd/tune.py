"""Choosing the weight decay for a number of training steps."""

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np

from keras_wd.callbacks.batches import batches_of
from keras_wd.errors import check_count
from keras_wd.errors import check_number
from keras_wd.optimizers.chain import chain
from keras_wd.optimizers.weight_decay import WeightDecay

_WINDOW = 5  # measurements in a running mean
_FITTED = 0.99  # accuracy from which the training data count as learned


@dataclasses.dataclass(frozen=True)
class Probe:
    """A short run at a large decay.

    Attributes:
        seed: of the run.
        steps: `(n,)` steps after which the loss was measured.
        losses: `(n,)` validation losses.
        smoothed: `(n,)` their running means.
        peak: the step of the least smoothed loss; None if it is not inside
            the run.
        constant: `lr * decay * peak`; None without a peak.
        reason: why there is no peak; empty if there is one.
    """

    seed: int
    steps: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    peak: int | None
    constant: float | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A weight decay, and what it was concluded from. `str` makes a table.

    Attributes:
        weight_decay: the decay for the budget; None if there is none to give.
        low: lower end of its uncertainty (two standard errors).
        high: upper end.
        constant: c, the geometric mean of the probes.
        steps: the budget.
        learning_rate: of the probes and of the run to come.
        probe_weight_decay: the large decay of the probes.
        probes: the short runs.
        findings: in words, whether the law held and what to mind.
    """

    weight_decay: float | None
    low: float | None
    high: float | None
    constant: float | None
    steps: int
    learning_rate: float
    probe_weight_decay: float
    probes: Sequence[Probe]
    findings: Sequence[str]

    @property
    def holds(self) -> bool:
        """Whether every probe had its least loss inside the run."""
        return all(probe.peak is not None for probe in self.probes)

    def __str__(self) -> str:
        lines = [
            f"probes: decay {self.probe_weight_decay:.3g}, learning rate "
            f"{self.learning_rate:g}, {self.probes[0].steps[-1]} steps each",
            "  seed  best step  best loss  lr * decay * step",
        ]
        for probe in self.probes:
            row = f"  {probe.seed:<4}  "
            if probe.peak is None:
                lines.append(row + probe.reason)
            else:
                lines.append(
                    f"{row}{probe.peak:>9}  {probe.smoothed.min():>9.4f}  "
                    f"{probe.constant:>17.2f}"
                )
        if self.weight_decay is not None:
            lines.append(
                f"weight decay for {self.steps} steps: {self.weight_decay:.2g} "
                f"(between {self.low:.2g} and {self.high:.2g})"
            )
        return "\n".join([*lines, *self.findings])


def predict_weight_decay(
    model_fn: Callable[[float], keras.Model],
    data: object,
    steps: int,
    validation_data: object,
    weight_decay: float | None = None,
    runs: int = 3,
    batch_size: int = 64,
    horizon: float = 6.0,
    measurements: int = 40,
    seed: int = 0,
) -> Prediction:
    """The weight decay that makes the validation loss least after `steps`.

    Law: the step of the least validation loss is `t* = c / (lr * decay)`,
    with a constant c of the network and the data. Short runs at a large decay
    measure c; the decay for the budget is `c / (lr * steps)`.

    Convention: the penalty is `(decay / 2) |w|^2`, as `decays.L2` has it, and
    lr is the constant learning rate of the optimizer. Momentum belongs into
    c. The law is for networks that can fit their training data; `findings`
    says what speaks against it.

    Args:
        model_fn: `model_fn(decay)` returns a new compiled model whose
            optimizer is a `WeightDecay` with this rate.
        data: `(x, y)` to train on, or a `keras.utils.PyDataset`.
        steps: the budget of the run to come, in training steps.
        validation_data: `(x, y)`, as `fit` takes it.
        weight_decay: of the probes; None for one with which half the budget
            is `horizon / (lr * decay)` steps.
        runs: how many probes, from seeds `seed`, `seed + 1`, ... (Keras's
            global seed is set).
        batch_size: examples per step, for arrays.
        horizon: length of a probe in units of `1 / (lr * decay)`.
        measurements: of the validation loss, per probe.
        seed: of the first probe.

    Returns:
        A `Prediction`.

    Raises:
        ValueError: if an argument is out of range, or the model is not
            compiled with a `WeightDecay` and a constant learning rate.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import optimizers, tune
    >>> def model_fn(weight_decay):
    ...     model = keras.Sequential([
    ...         keras.Input((8,)),
    ...         keras.layers.Dense(64, "relu", use_bias=False),
    ...         keras.layers.Dense(1, use_bias=False),
    ...     ])
    ...     model.compile(optimizers.SGDW(0.05, weight_decay), "mse")
    ...     return model
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(40, 8))
    >>> y = x[:, 0] + rng.normal(size=40)
    >>> prediction = tune.predict_weight_decay(
    ...     model_fn, (x[:20], y[:20]), 400, (x[20:], y[20:]),
    ...     runs=1, batch_size=20,
    ... )
    >>> prediction.probe_weight_decay
    0.6

    Source: Lewkowycz and Gur-Ari, 2020, "On the training dynamics of deep
    networks with L2 regularization", section 4.1.
    """
    steps = check_count("steps", steps, minimum=2)
    runs = check_count("runs", runs)
    measurements = check_count(
        "measurements", measurements, minimum=2 * _WINDOW
    )
    horizon = check_number("horizon", horizon, above=0)
    if weight_decay is not None:
        weight_decay = check_number("weight_decay", weight_decay, above=0)
    learning_rate = _constant_rate(model_fn(weight_decay or 0.0))
    if weight_decay is None:
        weight_decay = horizon / (learning_rate * max(steps // 2, measurements))
    probes = []
    fitted = []
    for number in range(runs):
        keras.utils.set_random_seed(seed + number)
        model = model_fn(weight_decay)
        length = math.ceil(horizon / (learning_rate * weight_decay))
        every = max(1, length // measurements)
        logs = model.fit(
            _Endless(data, batch_size, seed + number),
            steps_per_epoch=every,
            epochs=measurements,
            validation_data=validation_data,
            shuffle=False,
            verbose=0,
        ).history
        taken = every * np.arange(1, measurements + 1)
        pace = learning_rate * weight_decay
        probes.append(_probe(seed + number, taken, logs["val_loss"], pace))
        fitted.append(max(logs.get("accuracy", [math.nan])))
    return _concluded(probes, fitted, steps, learning_rate, weight_decay)


class _Endless(keras.utils.PyDataset):
    """Shuffled batches by number, as many as are asked for."""

    def __init__(self, data, batch_size, seed):
        super().__init__()
        given = isinstance(data, keras.utils.PyDataset)
        self._batches = batches_of(data, None if given else batch_size, seed)
        if self._batches.first_batch()[1] is None:
            raise ValueError(
                "`data` must have labels, as in (x, y). Received: x alone."
            )

    def __len__(self):
        return 2**31

    def __getitem__(self, number):
        parts = self._batches.batch(number)
        return tuple(part for part in parts if part is not None)


def _constant_rate(model):
    """The constant learning rate of what `model_fn` returned."""
    optimizer = getattr(model, "optimizer", None)
    found = chain(optimizer)
    if not any(isinstance(one, WeightDecay) for one in found):
        raise ValueError(
            "`model_fn` must return a model compiled with "
            "keras_wd.optimizers.WeightDecay or one of its subclasses. "
            f"Received: optimizer={type(optimizer).__name__}."
        )
    rate = found[-1].get_config()["learning_rate"]
    if not isinstance(rate, float | int):
        raise ValueError(
            "`model_fn` must return a model with a constant learning rate, "
            "for which the law holds. Received: a schedule."
        )
    # The shortest decimal of the float32: 0.1 and not 0.10000000149.
    return float(str(np.float32(rate)))


def _probe(seed, steps, losses, pace):
    losses = np.asarray(losses, dtype="float64")
    margin = _WINDOW // 2
    padded = np.pad(losses, margin, mode="edge")
    smoothed = np.convolve(padded, np.full(_WINDOW, 1 / _WINDOW), "valid")
    reason, best = "", None
    if not np.isfinite(losses).all():
        reason = "the run diverged: take a smaller learning rate"
    else:
        best = int(smoothed.argmin())
        if best >= len(steps) - 1 - margin:
            reason = "no peak inside the run: the loss still falls at its end"
        elif best == 0:
            reason = "no peak inside the run: the loss rises from the start"
    if reason:
        return Probe(seed, steps, losses, smoothed, None, None, reason)
    peak = int(steps[best])
    return Probe(seed, steps, losses, smoothed, peak, pace * peak, "")


def _concluded(probes, fitted, steps, learning_rate, weight_decay):
    constants = [p.constant for p in probes if p.constant is not None]
    findings = []
    missing = len(probes) - len(constants)
    if missing:
        findings.append(
            f"The law does not hold in {missing} of {len(probes)} probes: "
            "no decay can be given for sure."
            if constants
            else "The law does not hold: no decay can be given."
        )
    accuracy = max(fitted)
    if accuracy < _FITTED:
        findings.append(
            f"The training data were fitted to {accuracy:.1%} at most: the "
            "law was found for networks that can fit all of them."
        )
    center = low = high = constant = None
    if constants:
        logs = np.log(constants)
        constant = float(np.exp(logs.mean()))
        # How far the peak is known: the spacing of the measurements.
        spacing = probes[0].steps[0] * learning_rate * weight_decay
        error = spacing / constant / math.sqrt(12)
        if len(logs) > 1:
            error = math.hypot(error, logs.std(ddof=1) / math.sqrt(len(logs)))
        center = constant / (learning_rate * steps)
        low = center * math.exp(-2 * error)
        high = center * math.exp(2 * error)
    return Prediction(
        center,
        low,
        high,
        constant,
        steps,
        learning_rate,
        weight_decay,
        tuple(probes),
        tuple(findings),
    )
