"""What short runs at several decays say about the decay for a long one."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_WINDOW = 5  # measurements in a running mean
_LAW = (-1.25, -0.75)  # powers that count as the -1 of the law


@dataclasses.dataclass(frozen=True)
class Probe:
    """A short run at one decay.

    Attributes:
        weight_decay: of the run.
        steps: `(n,)` steps after which the loss was measured.
        losses: `(n,)` validation losses.
        smoothed: `(n,)` their running means over five.

    >>> import numpy as np
    >>> from keras_wd import tune
    >>> losses = [2.0, 1.0, 1.5, 1.0, 0.5, 0.5]
    >>> probe = tune.Probe.of(0.01, 10 * np.arange(1, 7), losses)
    >>> round(float(probe.smoothed[2]), 2)
    1.2
    """

    weight_decay: float
    steps: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @classmethod
    def of(
        cls, weight_decay: float, steps: np.ndarray, losses: np.ndarray
    ) -> "Probe":
        """A probe from what was measured."""
        losses = np.asarray(losses, dtype="float64")
        padded = np.pad(losses, _WINDOW // 2, mode="edge")
        mean = np.full(_WINDOW, 1 / _WINDOW)
        smoothed = np.convolve(padded, mean, "valid")
        return cls(weight_decay, np.asarray(steps), losses, smoothed)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A weight decay, and what it was concluded from. `str` makes a table.

    Attributes:
        weight_decay: the decay for the budget; None if there is none to give.
        low: lower end of its uncertainty (two standard errors).
        high: upper end.
        power: of the number of steps with which the best decay went inside
            the probes; -1 by the law.
        constant: `lr * decay * step` at the end of the probes; the c of the
            law if it holds.
        steps: the budget.
        learning_rate: of the probes and of the run to come.
        best_steps: `(m,)` steps at which a best decay was found.
        best_decays: `(m,)` the decays.
        probes: the short runs, from the smallest decay to the largest.
        findings: in words, what to mind.

    >>> import numpy as np
    >>> from keras_wd import tune
    >>> steps = 10 * np.arange(1, 21)
    >>> probes = [
    ...     tune.Probe.of(decay, steps, np.log(decay * steps / 2) ** 2)
    ...     for decay in (0.003, 0.01, 0.03, 0.1, 0.3)
    ... ]
    >>> print(tune.predict(probes, steps=1000, learning_rate=0.5))
    5 probes of 200 steps at learning rate 0.5
      decay      loss at the end   least loss   at step
      0.003               1.5277       1.5277       200
      0.01                0.0027       0.0027       200
      0.03                1.1409       0.0439        70
      0.1                 5.1604       0.3212        10
      0.3                11.3578       0.7925        10
    best decay: 0.042 after 50 steps, 0.01 after 200 (power -1.02)
    weight decay for 1000 steps: 0.002 (between 0.0019 and 0.0021)
    """

    weight_decay: float | None
    low: float | None
    high: float | None
    power: float | None
    constant: float | None
    steps: int
    learning_rate: float
    best_steps: np.ndarray
    best_decays: np.ndarray
    probes: Sequence[Probe]
    findings: Sequence[str]

    @property
    def holds(self) -> bool:
        """Whether the best decay went with one over the number of steps."""
        return self.power is not None and _LAW[0] <= self.power <= _LAW[1]

    @property
    def probe_steps(self) -> int:
        """The length of a probe."""
        return int(self.probes[0].steps[-1])

    def __str__(self) -> str:
        lines = [
            f"{len(self.probes)} probes of {self.probe_steps} steps at "
            f"learning rate {self.learning_rate:g}",
            "  decay      loss at the end   least loss   at step",
        ]
        for probe in self.probes:
            best = int(np.argmin(np.nan_to_num(probe.smoothed, nan=np.inf)))
            lines.append(
                f"  {probe.weight_decay:<9.3g}{probe.smoothed[-1]:>17.4f}"
                f"{probe.smoothed[best]:>13.4f}{probe.steps[best]:>10}"
            )
        if self.power is not None:
            lines.append(
                f"best decay: {self.best_decays[0]:.2g} after "
                f"{self.best_steps[0]} steps, {self.best_decays[-1]:.2g} after "
                f"{self.best_steps[-1]} (power {self.power:.2f})"
            )
        if self.weight_decay is not None:
            lines.append(
                f"weight decay for {self.steps} steps: {self.weight_decay:.2g} "
                f"(between {self.low:.2g} and {self.high:.2g})"
            )
        return "\n".join([*lines, *self.findings])


def predict(
    probes: Sequence[Probe],
    steps: int,
    learning_rate: float,
    findings: Sequence[str] = (),
) -> Prediction:
    """The decay for a budget from short runs; `tune` says how.

    Args:
        probes: the runs, all measured after the same steps.
        steps: the budget.
        learning_rate: of all.
        findings: to put beside those made here.
    """
    probes = sorted(probes, key=lambda probe: probe.weight_decay)
    findings = list(findings)
    logs = np.log([probe.weight_decay for probe in probes])
    curves = np.array([probe.smoothed for probe in probes])
    curves = np.where(np.isfinite(curves), curves, np.inf)
    times = probes[0].steps
    late = times >= times[-1] / 4  # before, the network learns the data
    found = [(t, _least(logs, curves[:, i])) for i, t in enumerate(times)]
    found = [
        (t, best)
        for (t, best), kept in zip(found, late, strict=True)
        if kept and best is not None
    ]

    def conclude(center, low, high, power, constant):
        return Prediction(
            center,
            low,
            high,
            power,
            constant,
            steps,
            learning_rate,
            np.array([t for t, _ in found]),
            np.exp([best for _, best in found]),
            tuple(probes),
            tuple(findings),
        )

    if _least(logs, curves[:, -1]) is None or len(found) < 3:
        findings.insert(0, _no_minimum(probes, curves[:, -1]))
        return conclude(None, None, None, None, None)
    ages, bests = np.array(found).T
    ages = np.log(ages / times[-1])
    power, end = np.polyfit(ages, bests, 1)
    rest = np.std(bests - power * ages - end, ddof=2)
    far = math.log(steps / times[-1])
    # Neighbouring means share measurements.
    count = max(len(found) / _WINDOW, 1)
    slope_error = rest / (np.std(ages) * math.sqrt(count))
    error = math.hypot(rest, slope_error * far)
    used = min(0.0, max(-1.0, power))
    end = np.mean(bests - used * ages)
    center = math.exp(end + used * far)
    if not _LAW[0] <= power <= _LAW[1]:
        findings.insert(
            0,
            f"The law, decay = c / (learning rate * steps), does not hold in "
            f"the probes: the power is {power:.2f} and not -1. The decay is "
            f"that of the probes, taken on with the power {used:.2f}.",
        )
    return conclude(
        center,
        center * math.exp(-2 * error),
        center * math.exp(2 * error),
        float(power),
        learning_rate * math.exp(end) * float(times[-1]),
    )


def _least(logs, losses):
    """Where the parabola through the least and its neighbours is least."""
    middle = int(np.argmin(losses))
    if middle in (0, len(losses) - 1) or not np.isfinite(losses[middle]):
        return None
    part = slice(middle - 1, middle + 2)
    if not np.isfinite(losses[part]).all():
        return logs[middle]
    square, linear, _ = np.polyfit(logs[part] - logs[middle], losses[part], 2)
    if square <= 0:
        return logs[middle]
    return logs[middle] - linear / (2 * square)


def _no_minimum(probes, losses):
    if not np.isfinite(losses).any():
        return "All probes diverged: take a smaller learning rate."
    if int(np.argmin(losses)) == 0:
        return (
            "The loss is least at the smallest decay that was tried, "
            f"{probes[0].weight_decay:.2g}: after this few steps decay does "
            "not help, and none can be given."
        )
    if int(np.argmin(losses)) == len(losses) - 1:
        return (
            "The loss is least at the largest decay that was tried, "
            f"{probes[-1].weight_decay:.2g}, and none can be given. Try larger "
            "ones."
        )
    return (
        "Only at the end of the probes is a decay between the others best, "
        "and none can be given. Try longer probes, or other decays."
    )
