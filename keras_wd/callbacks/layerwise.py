"""A factor of the decay for every layer, so that all turn equally fast."""

import math

import numpy as np

from keras_wd import backend
from keras_wd.callbacks.decay_callback import DecayCallback
from keras_wd.errors import check_count
from keras_wd.errors import check_number
from keras_wd.metrics.rotation import rotation
from keras_wd.optimizers.rates import number_of


class LayerwiseDecay(DecayCallback):
    """Moves the decay of every tensor until all turn by the same angle.

    The angle that a step turns a weight by is its effective learning rate.
    Decay brings it to an equilibrium that is the same for all weights in front
    of normalizations, but slowly, from where their norms at the start put
    them, and to other angles in other layers. Here a weight that turns faster
    than the geometric mean of all decays less, so that its norm grows and its
    angle falls; one that turns slower decays more.

    Formula, with `a` the measured angle of a tensor and `A` the geometric
    mean of all, after every measurement:

        f <- exp(I) (A / a)^P,   I <- I + P s n log(A / a)

    f is the factor of the tensor's strength, `learning rate * rate * f`; s the
    strength without it and n the steps between two measurements, so that I
    settles within the `1 / s` steps in which decay acts. P is `gain`, or
    `1 / (2 s n)` if that is less, which keeps the feedback stable. All f are
    divided by their geometric mean: the rate stays what it is on average. f is
    within `[1 / limit, limit]`, and so that no norm falls by much more than
    half between two measurements.

    The logs of an epoch get "rotation", the geometric mean of the angles last
    measured in radians, and "rotation_spread", the largest of them over the
    smallest, less 1. Factors and I are saved with the optimizer.

    Args:
        every: batches between two measurements, each of which copies the
            decayed weights to the host, before and after a step.
        gain: P, > 0. Without I it divides differences by about `1 + P / 2`.
        limit: how far a factor may be from 1, > 1.
        decay: the name of the decay to steer, if the optimizer has several.
            It is an `L2` with `layerwise=True`.

    Raises:
        ValueError: if an argument is out of range; when `fit` starts, if the
            optimizer is no `WeightDecay`, or the decay has no factors or a
            schedule of its own.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import callbacks, decays, optimizers
    >>> model = keras.Sequential([
    ...     keras.Input((2,)), keras.layers.Dense(8), keras.layers.Dense(1)
    ... ])
    >>> model.compile(optimizers.WeightDecay(
    ...     keras.optimizers.Adam(0.01), decays.L2(0.1, layerwise=True)
    ... ), "mse")
    >>> x = np.ones((4, 2))
    >>> history = model.fit(
    ...     x, x[:, :1], verbose=0, callbacks=[callbacks.LayerwiseDecay(1)]
    ... )
    >>> sorted(history.history)
    ['loss', 'rotation', 'rotation_spread', 'weight_decay']

    Source: the angle as the measure: Kosson, Messmer and Jaggi, 2024,
    "Rotational Equilibrium"; the feedback on it is this package's own.
    """

    def __init__(
        self,
        every: int = 100,
        gain: float = 8.0,
        limit: float = 100.0,
        decay: str | None = None,
    ):
        super().__init__(decay)
        self.every = check_count("every", every)
        self.gain = check_number("gain", gain, above=0)
        self.limit = check_number("limit", limit, above=1)
        self._before: tuple | None = None
        self._angles = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the decay; raise if it has no factors."""
        super().on_train_begin(logs)
        rule = self._optimizer.decays[self._name]
        if not getattr(rule, "layerwise", False):
            raise ValueError(
                "`LayerwiseDecay` must be used with a decay that has a factor "
                "for every tensor, decays.L2(..., layerwise=True). Received: "
                f"{rule!r}."
            )
        self._before, self._angles = None, {}

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Remember the weights if this step is measured."""
        if self._before is None and self.count.next_batch() % self.every == 0:
            self._before = self._steps(), self._weights()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measure the angles, and move the factors."""
        self.count.end_batch(batch)
        if self._before is None:
            return
        started, before = self._before
        # A batch whose gradients are accumulated moves nothing.
        if self._steps() == started:
            return
        self._before = None
        after = self._weights()
        slots = self._optimizer.slots_of(self._name)
        angles = {
            path: rotation(weights, after[path])
            for path, weights in before.items()
            # A weight that is zero has no direction.
            if weights.any() and after[path].any()
        }
        self._angles = {
            path: angle
            for path, angle in angles.items()
            if 0 < angle < math.inf and path in slots
        }
        if len(self._angles) > 1:
            self._move()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the rate and the angles to the logs."""
        super().on_epoch_end(epoch, logs)
        if logs is not None and self._angles:
            angles = np.array(list(self._angles.values()))
            logs["rotation"] = float(np.exp(np.mean(np.log(angles))))
            logs["rotation_spread"] = float(angles.max() / angles.min() - 1)

    def _move(self):
        paths = list(self._angles)
        rates = self.learning_rates
        pace = self.every * self.rate * np.array([rates[p] for p in paths])
        with np.errstate(divide="ignore"):
            longest = 0.5 / pace
        gain = np.minimum(self.gain, longest)
        excess = np.log([self._angles[path] for path in paths])
        excess -= excess.mean()
        sums = self.remembered().get("sums", {})
        offsets = np.array([sums.get(path, 0.0) for path in paths])
        offsets -= np.minimum(gain * pace, 0.5) * excess
        # Until the next measurement no norm may fall by more than half or so.
        bound = np.log(np.minimum(self.limit, np.maximum(longest, 2.0)))
        offsets = np.clip(offsets - offsets.mean(), -bound, bound)
        factors = offsets - gain * excess
        factors = np.exp(np.clip(factors - factors.mean(), -bound, bound))
        slots = self._optimizer.slots_of(self._name)
        for path, factor in zip(paths, factors, strict=True):
            slots[path]["factor"].assign(factor)
        found = dict(zip(paths, map(float, offsets), strict=True))
        self.remember({"sums": {**sums, **found}})

    def _weights(self):
        """The decayed weights, by path; before the optimizer is built, too."""
        variables = list(self.model.trainable_variables)
        rule = self._optimizer.decays[self._name]
        return {
            variables[i].path: np.array(backend.concrete_value(variables[i]))
            for i in rule.select(variables)
        }

    def _steps(self):
        return int(number_of(self._optimizer.iterations))
