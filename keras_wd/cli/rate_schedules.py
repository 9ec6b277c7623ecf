"""From flags to the courses of learning rate and decay rate."""

from collections.abc import Mapping

from keras.optimizers import schedules as keras_schedules

from keras_wd import schedules
from keras_wd.cli.usage_errors import UsageError


def numbers(flag: str, text: str | None, kind: type, minimum: int) -> list:
    """A flag's list of numbers, checked; empty if the flag is not set."""
    if text is None:
        return []
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(minimum <= v < float("inf") for v in values):
        word = "whole numbers" if kind is int else "numbers"
        raise UsageError(
            f"--{flag} must be {word} from {minimum} up, separated by "
            f"commas. Received: --{flag}={text}"
        )
    return values


def learning_rate(
    settings: Mapping, steps_per_epoch: int
) -> float | keras_schedules.LearningRateSchedule:
    """The learning rate of `--lr_schedule` and `--warmup_epochs`."""
    peak = settings["learning_rate"]
    total = settings["epochs"] * steps_per_epoch
    warmup = round((settings["warmup_epochs"] or 0) * steps_per_epoch)
    if settings["lr_schedule"] == "step":
        shares = numbers("lr_steps", settings["lr_steps"], float, 0)
        return keras_schedules.PiecewiseConstantDecay(
            [round(share * total) for share in shares],
            [peak / 10**drops for drops in range(len(shares) + 1)],
        )
    if settings["lr_schedule"] == "cosine":
        if warmup:
            return keras_schedules.CosineDecay(
                0.0, total - warmup, warmup_target=peak, warmup_steps=warmup
            )
        return keras_schedules.CosineDecay(peak, total)
    if warmup:  # a straight line to the peak, which then stays
        return keras_schedules.PolynomialDecay(0.0, warmup, peak)
    return peak


def decay_rate(
    settings: Mapping, steps_per_epoch: int
) -> float | keras_schedules.LearningRateSchedule:
    """The rate of `--weight_decay` and `--decay_schedule`."""
    rate = settings["weight_decay"]
    peak = settings["learning_rate"]
    kind = settings["decay_schedule"]
    total = settings["epochs"] * steps_per_epoch
    if kind in ("constant", "auto_l2") or rate == 0:
        return rate
    if kind == "warmup_hold":
        steps = round(settings["decay_warmup_epochs"] * steps_per_epoch)
        return schedules.WarmupHold(rate, max(1, steps))
    if kind == "stepwise":
        factors = numbers("decay_factors", settings["decay_factors"], float, 0)
        return schedules.Stepwise(
            [rate * factor for factor in factors],
            max(1, -(-total // len(factors))),
        )
    following = learning_rate(settings, steps_per_epoch)
    if kind == "proportional":
        return schedules.ProportionalToLearningRate(rate, following, peak)
    return schedules.ConstantTimescale(following, 1 / (peak * rate))
