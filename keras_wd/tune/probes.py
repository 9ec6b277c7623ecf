"""Short runs that tell the decay for a long one."""

import math
from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np

from keras_wd.callbacks.probe_batches import batches_of
from keras_wd.errors import check_count
from keras_wd.errors import check_number
from keras_wd.optimizers.chain import chain
from keras_wd.optimizers.weight_decay import WeightDecay
from keras_wd.tune.prediction import Prediction
from keras_wd.tune.prediction import Probe
from keras_wd.tune.prediction import predict

# Of the first decays, times learning rate and steps of a probe; up to two
# more are tried where the loss is least at an end.
_FIRST = 4.0 * 10.0 ** np.arange(0.0, -2.5, -0.5)
_MORE = 2
_FITTED = 0.99  # accuracy from which the training data count as learned


def predict_weight_decay(
    model_fn: Callable[[float], keras.Model],
    data: object,
    steps: int,
    validation_data: object,
    weight_decays: Sequence[float] | float | None = None,
    probe_steps: int | None = None,
    runs: int = 1,
    batch_size: int = 64,
    measurements: int = 20,
    seed: int = 0,
) -> Prediction:
    """The weight decay that makes the validation loss least after `steps`.

    Short runs ("probes") at decays half a decade apart tell which decay is
    best after t steps. The law says `c / (lr * t)`, with a constant c of the
    network and the data. Where the best decay goes with another power of t
    inside the probes, that power (between -1 and 0) takes it to the budget:

        decay(steps) = decay(probe_steps) * (steps / probe_steps)^power

    Convention: the penalty is `(decay / 2) |w|^2`, as `decays.L2` has it, and
    lr is the constant learning rate of the optimizer. Momentum belongs into
    c. `findings` says what speaks against the result.

    Args:
        model_fn: `model_fn(decay)` returns a new compiled model whose
            optimizer is a `WeightDecay` with this rate.
        data: `(x, y)` to train on, or a `keras.utils.PyDataset`.
        steps: the budget of the run to come, in training steps.
        validation_data: `(x, y)`, as `fit` takes it.
        weight_decays: of the probes, three or more; None for five from
            `4 / (lr * probe_steps)` down, and up to two more beyond the end
            at which the loss is least. That is the rule of the timescale,
            see `scale_weight_decay`: decays that remember a quarter of the
            probe and more. A number is where they start in place of that,
            the middle of five: what `scale_weight_decay` makes of the decay
            of another run.
        probe_steps: length of a probe; None for a quarter of `steps`, with
            which all probes take at most 1.75 times the steps of the run.
        runs: how many seeds per decay, of which the losses are averaged:
            `seed`, `seed + 1`, ... (Keras's global seed is set).
        batch_size: examples per step, for arrays.
        measurements: of the validation loss, per probe.
        seed: of the first run.

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
    ...     weight_decays=(0.01, 0.1, 1.0), batch_size=20,
    ... )
    >>> len(prediction.probes), prediction.probe_steps
    (3, 100)

    Source: Lewkowycz and Gur-Ari, 2020, "On the training dynamics of deep
    networks with L2 regularization", section 4.1, for the law.
    """
    steps = check_count("steps", steps, minimum=2)
    runs = check_count("runs", runs)
    measurements = check_count("measurements", measurements, minimum=8)
    if probe_steps is None:
        probe_steps = max(steps // 4, measurements)
    probe_steps = check_count("probe_steps", probe_steps, minimum=measurements)
    given, middle = None, None
    if isinstance(weight_decays, float | int):
        middle = check_number("weight_decays", weight_decays, above=0)
    elif weight_decays is not None:
        given = _checked(weight_decays)
    learning_rate = _constant_rate(model_fn(0.0 if given is None else given[0]))
    every = probe_steps // measurements
    fitted = [math.nan]

    def probe(weight_decay):
        losses = []
        for number in range(runs):
            keras.utils.set_random_seed(seed + number)
            logs = (
                model_fn(weight_decay)
                .fit(
                    _Endless(data, batch_size, seed + number),
                    steps_per_epoch=every,
                    epochs=measurements,
                    validation_data=validation_data,
                    shuffle=False,
                    verbose=0,
                )
                .history
            )
            losses.append(logs["val_loss"])
            fitted.extend(logs.get("accuracy", ()))
        taken = every * np.arange(1, measurements + 1)
        return Probe.of(weight_decay, taken, np.mean(losses, axis=0))

    if given is not None:
        probes = [probe(weight_decay) for weight_decay in given]
    else:
        first = _FIRST / (learning_rate * every * measurements)
        if middle is not None:
            first = middle * _FIRST / _FIRST[2]
        probes = _bracketed(probe, [float(f"{value:.3g}") for value in first])
    findings = []
    accuracy = np.nanmax([*fitted, -1.0])
    if 0 <= accuracy < _FITTED:
        findings.append(
            f"The training data were fitted to {accuracy:.1%} at most: the "
            "law was found for networks that can fit all of them."
        )
    return predict(probes, steps, learning_rate, findings)


def _bracketed(probe, weight_decays):
    """Probes, with more beyond the end at which the loss is least."""
    probes = [probe(weight_decay) for weight_decay in weight_decays]
    for _ in range(_MORE):
        probes.sort(key=lambda one: one.weight_decay)
        ends = [one.smoothed[-1] for one in probes]
        best = int(np.argmin(np.nan_to_num(ends, nan=math.inf)))
        if best == 0:
            more = probes[0].weight_decay / math.sqrt(10)
        elif best == len(probes) - 1:
            more = probes[-1].weight_decay * math.sqrt(10)
        else:
            break
        probes.append(probe(float(f"{more:.3g}")))
    return probes


def _checked(weight_decays):
    values = [
        check_number("weight_decays", value, above=0)
        for value in np.ravel(weight_decays).tolist()
    ]
    if len(values) < 3 or len(set(values)) < len(values):
        raise ValueError(
            "`weight_decays` must be three or more different numbers: the "
            "best rate is searched for between them. Received: "
            f"weight_decays={weight_decays}."
        )
    return values


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
