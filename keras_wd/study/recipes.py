"""From flags to an optimizer with its decay."""

import dataclasses
import os
from collections.abc import Mapping

import keras
from keras.optimizers import schedules as keras_schedules

from keras_wd import decays
from keras_wd import schedules
from keras_wd import where
from keras_wd.optimizers import KFAC
from keras_wd.optimizers import WeightDecay
from keras_wd.study import networks
from keras_wd.study.errors import UsageError
from keras_wd.study.errors import first_line
from keras_wd.study.errors import unknown

STEPS_AT = (0.3, 0.6, 0.9)  # of the run, as in the Three Mechanisms paper


@dataclasses.dataclass(frozen=True)
class _Inner:
    """An optimizer and the rates to try first with it."""

    kind: type
    learning_rate: float
    weight_decay: float = 0.1
    arguments: Mapping = dataclasses.field(default_factory=dict)


# Not here: AdamW is adam with --decay=l2; Ftrl and ScheduleFreeAdamW derive
# the weights from a state of their own, which a decay would contradict.
OPTIMIZERS = {
    "sgd": _Inner(keras.optimizers.SGD, 0.1, 1e-3),
    "momentum": _Inner(keras.optimizers.SGD, 0.03, 1e-3, {"momentum": 0.9}),
    "adam": _Inner(keras.optimizers.Adam, 1e-3),
    "adamax": _Inner(keras.optimizers.Adamax, 2e-3),
    "nadam": _Inner(keras.optimizers.Nadam, 1e-3),
    "rmsprop": _Inner(keras.optimizers.RMSprop, 1e-3),
    "adagrad": _Inner(keras.optimizers.Adagrad, 0.03, 0.01),
    "adadelta": _Inner(keras.optimizers.Adadelta, 1.0, 1e-3),
    "adafactor": _Inner(keras.optimizers.Adafactor, 1e-2, 0.01),
    "lamb": _Inner(keras.optimizers.Lamb, 3e-3, 0.03),
    "lion": _Inner(keras.optimizers.Lion, 3e-4, 0.3),
    "muon": _Inner(
        keras.optimizers.Muon,
        3e-3,
        0.03,
        {"weight_decay": None, "adam_weight_decay": None},
    ),
    "kfac": _Inner(KFAC, 0.03, 0.01),
}

RULES = {
    "l2": decays.L2,
    "l1": decays.L1,
    "lp": decays.Lp,
    "proximal_lp": decays.ProximalLp,
    "group_lasso": decays.GroupLasso,
}


def complete(settings: dict) -> dict:
    """The settings with names checked and the defaults that depend on others.

    Raises:
        UsageError: naming the flag.
    """
    settings = {
        **settings,
        "optimizer": _optimizer_name(settings["optimizer"]),
        "model": _model_name(settings["model"]),
    }
    inner = OPTIMIZERS[settings["optimizer"]]
    if settings["learning_rate"] is None:
        settings["learning_rate"] = inner.learning_rate
    if settings["decay"] != "none" and settings["weight_decay"] is None:
        settings["weight_decay"] = inner.weight_decay
    _check(settings)
    return settings


def _optimizer_name(name):
    if name.lower() == "adamw":
        raise UsageError(
            "--optimizer=adamw has a decay of its own. Use --optimizer=adam "
            "--decay=l2, which is the same"
        )
    if name.lower() not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return name.lower()


def _model_name(name):
    if networks.is_file(name):
        return os.path.abspath(os.path.expanduser(name))
    if name not in networks.NETWORKS:
        choices = [*networks.NETWORKS, "the path of a .keras file"]
        raise unknown("model", name, choices)
    return name


def _check(settings):
    """Refuse numbers that do not go together."""
    if settings["learning_rate"] == 0:
        raise UsageError(
            "--learning_rate must be above 0. Received: --learning_rate=0"
        )
    warmup = settings["warmup_epochs"]
    if warmup and warmup >= settings["epochs"]:
        raise UsageError(
            "--warmup_epochs must be below --epochs. Received: "
            f"--warmup_epochs={warmup} with --epochs={settings['epochs']}"
        )
    if (
        settings["decay_schedule"] == "constant_timescale"
        and settings["coupling"] != "decoupled"
    ):
        raise UsageError(
            "--decay_schedule=constant_timescale has a meaning only with "
            "--coupling=decoupled. Received: "
            f"--coupling={settings['coupling']}"
        )
    if settings["decay"] == "proximal_lp" and (
        settings["coupling"] == "coupled"
    ):
        raise UsageError(
            "--coupling=coupled has no meaning for a proximal step. Use "
            "--decay=lp, which adds the gradient of the same penalty"
        )
    numbers("hidden_units", settings["hidden_units"], int, 1)
    numbers("decay_factors", settings["decay_factors"], float, 0)
    if settings["where"] is not None:
        selection(settings["where"])


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


def optimizer(
    settings: Mapping, steps_per_epoch: int
) -> keras.optimizers.Optimizer:
    """The optimizer with its decay, not built.

    Raises:
        UsageError: if the core refuses the combination.
    """
    inner = OPTIMIZERS[settings["optimizer"]]
    arguments = dict(inner.arguments)
    if inner.kind is KFAC:
        arguments = {
            "damping": settings["damping"],
            "kl_clip": settings["kl_clip"] or None,
            "estimator": settings["estimator"],
            "seed": settings["seed"],
        }
    try:
        stepper = inner.kind(
            learning_rate=learning_rate(settings, steps_per_epoch), **arguments
        )
        if settings["decay"] == "none":
            return stepper
        return WeightDecay(stepper, decay(settings, steps_per_epoch))
    except ValueError as error:
        raise UsageError(
            f"--decay={settings['decay']} with "
            f"--optimizer={settings['optimizer']}: {first_line(error)}"
        ) from error


def learning_rate(
    settings: Mapping, steps_per_epoch: int
) -> float | keras_schedules.LearningRateSchedule:
    """The learning rate of `--lr_schedule` and `--warmup_epochs`."""
    peak = settings["learning_rate"]
    total = settings["epochs"] * steps_per_epoch
    warmup = round((settings["warmup_epochs"] or 0) * steps_per_epoch)
    if settings["lr_schedule"] == "step":
        return keras_schedules.PiecewiseConstantDecay(
            [round(share * total) for share in STEPS_AT],
            [peak / 10**drops for drops in range(len(STEPS_AT) + 1)],
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


def decay(settings: Mapping, steps_per_epoch: int) -> decays.Decay:
    """The rule of `--decay` at the rate of `--decay_schedule`."""
    arguments = {"p": settings["p"]} if settings["p"] is not None else {}
    return RULES[settings["decay"]](
        _rate(settings, steps_per_epoch),
        where=selection(settings["where"]),
        coupling=settings["coupling"],
        name="weight_decay",
        **arguments,
    )


def _rate(settings, steps_per_epoch):
    rate = settings["weight_decay"]
    peak = settings["learning_rate"]
    kind = settings["decay_schedule"]
    total = settings["epochs"] * steps_per_epoch
    if kind == "constant" or rate == 0:
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


def selection(text: str) -> where.Selection:
    """The variables of `--where`: what is named, less what is after a ~.

    >>> selection("hidden_*/kernel,~hidden_1/*")
    (where.paths('hidden_*/kernel') & ~where.paths('hidden_1/*'))
    """
    parts = [part.strip() for part in text.split(",")]
    wanted = [part for part in parts if not part.startswith("~")]
    unwanted = [part[1:] for part in parts if part.startswith("~")]
    chosen = _union(wanted or ["kernels"])
    return chosen & ~_union(unwanted) if unwanted else chosen


def _union(parts):
    named = {"kernels": where.kernels(), "everything": where.everything()}
    try:
        union, *rest = (
            named[part] if part in named else where.paths(part)
            for part in parts
        )
    except ValueError as error:
        raise UsageError(
            "--where must be kernels, everything, or globs separated by "
            "commas, such as 'hidden_*/kernel'; one of them is empty"
        ) from error
    for selected in rest:
        union = union | selected
    return union
