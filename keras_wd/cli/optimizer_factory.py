"""From flags to an optimizer with its decay."""

import dataclasses
import os
import re
from collections.abc import Mapping

import keras

from keras_wd.cli import decay_factory
from keras_wd.cli import networks
from keras_wd.cli import own_data
from keras_wd.cli import saved_models
from keras_wd.cli.rate_schedules import decay_rate
from keras_wd.cli.rate_schedules import learning_rate
from keras_wd.cli.rate_schedules import numbers
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line
from keras_wd.cli.usage_errors import unknown
from keras_wd.optimizers import KFAC
from keras_wd.optimizers import WeightDecay


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
    "kfac": _Inner(KFAC, 0.1, 0.01),
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
        "dataset": own_data.absolute(settings["dataset"]),
        "anchor": _anchor(settings["anchor"]),
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


def _anchor(name):
    if name in (None, "start"):
        return name
    path = os.path.abspath(os.path.expanduser(name))
    if not os.path.isfile(path):
        raise UsageError(
            "--anchor must be start, or the path of a .keras file that "
            f"exists. Received: --anchor={name}"
        )
    saved_models.check(path, f"--anchor={name}")
    return path


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
            "--decay_schedule=constant_timescale applies only with "
            "--coupling=decoupled. Received: "
            f"--coupling={settings['coupling']}"
        )
    if settings["decay"] == "proximal_lp" and (
        settings["coupling"] == "coupled"
    ):
        raise UsageError(
            "--coupling=coupled does not apply to a proximal step. Use "
            "--decay=lp, which adds the gradient of the same penalty"
        )
    if settings["layerwise"] and settings["decay_schedule"] != "constant":
        raise UsageError(
            "--layerwise applies only with --decay_schedule=constant. "
            f"Received: --decay_schedule={settings['decay_schedule']}"
        )
    if settings["decay"] in decay_factory.RULES:
        try:
            decay_factory.decay({**settings, "where": "kernels"}, 0.0, None, 1)
        except ValueError as error:
            raise _refused(settings, error) from error
    if (
        settings["kernel_constraint"] == "fixed_norm"
        and not (settings["batch_norm"])
    ):
        raise UsageError(
            "--kernel_constraint=fixed_norm needs --batch_norm, without which "
            "the norm of a kernel is part of what the network computes"
        )
    if settings["decay"] == "path_norm" and settings["batch_norm"]:
        raise UsageError(
            "--decay=path_norm needs --nobatch_norm: a "
            "normalization between two layers leaves no pairs of them"
        )
    shares = numbers("lr_steps", settings["lr_steps"], float, 0)
    if shares != sorted(shares) or any(not 0 < s < 1 for s in shares):
        raise UsageError(
            "--lr_steps must be fractions between 0 and 1 in ascending order. "
            f"Received: --lr_steps={settings['lr_steps']}"
        )
    numbers("hidden_units", settings["hidden_units"], int, 1)
    numbers("decay_factors", settings["decay_factors"], float, 0)
    if settings["where"] is not None:
        decay_factory.selection(settings["where"])


def optimizer(
    settings: Mapping, steps_per_epoch: int, model: keras.Model
) -> keras.optimizers.Optimizer:
    """The optimizer with its decay, not built.

    Args:
        settings: of the run.
        steps_per_epoch: which the schedules depend on.
        model: which the pairs of `--decay=path_norm` are read from.

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
        rate = decay_rate(settings, steps_per_epoch)
        return WeightDecay(
            stepper, decay_factory.decay(settings, rate, model, steps_per_epoch)
        )
    except ValueError as error:
        raise _refused(settings, error) from error


def _refused(settings, error):
    message = re.sub(
        r"`(\w+)`|(?<!-)\b(\w+)=('?)(\w+)\3",
        lambda found: _as_flag(settings, *found.group(0, 1, 2, 4)),
        first_line(error),
    )
    return UsageError(
        f"--decay={settings['decay']} with "
        f"--optimizer={settings['optimizer']}: {message}"
    )


def _as_flag(settings, whole, argument, name, value):
    """An argument in the text of an error, as the flag it came from."""
    if argument in settings:
        return f"--{argument}"
    return f"--{name}={value}" if name in settings else whole
