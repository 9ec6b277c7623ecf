"""From flags to a decay and the variables it acts on."""

from collections.abc import Mapping

import keras

from keras_wd import decays
from keras_wd import where
from keras_wd.cli.usage_errors import UsageError
from keras_wd.graph import homogeneous_units

RULES = {
    "l2": decays.L2,
    "l1": decays.L1,
    "lp": decays.Lp,
    "proximal_lp": decays.ProximalLp,
    "group_lasso": decays.GroupLasso,
    "norm_control": decays.NormControl,
    "cpr": decays.CPR,
    "hyperball": decays.Hyperball,
    "radial_brake": decays.RadialBrake,
}

_OPTIONS = (
    *("p", "cautious", "touched_rows", "anchor", "metric", "late"),
    "layerwise",
)


def decay(
    settings: Mapping,
    rate: object,
    model: keras.Model,
    steps_per_epoch: int,
) -> decays.Decay | list[decays.Decay]:
    """The rule of `--decay`.

    Args:
        settings: of the run.
        rate: a number or a schedule.
        model: which the pairs of `path_norm` are read from.
        steps_per_epoch: which the warm-up of `cpr` is counted in.
    """
    if settings["decay"] == "path_norm":
        return _path_norm(rate, settings["coupling"], model)
    # None without a meaning for this rule, False where it is not wanted.
    arguments = {name: settings[name] for name in _OPTIONS if settings[name]}
    if settings["decay"] == "cpr":
        epochs = settings["cpr_warmup_epochs"]
        arguments["warmup_steps"] = round(epochs * steps_per_epoch)
    return RULES[settings["decay"]](
        rate,
        where=selection(settings["where"]),
        coupling=settings["coupling"],
        name="weight_decay",
        **arguments,
    )


def _path_norm(rate, coupling, model):
    """PathProx: the proximal step on pairs, coupled L2 on other kernels."""
    units = homogeneous_units(model)
    pairs = decays.PathNorm(rate, units, coupling=coupling, name="weight_decay")
    rest = where.kernels() & ~where.paths(
        *(path for pair in units for path in pair.kernels)
    )
    if not any(rest.picked(model.trainable_variables)):
        return [pairs]
    return [pairs, decays.L2(rate, rest, "coupled", name="rest")]


_NAMED = (
    *("attention", "embeddings", "everything", "kernels", "normalizations"),
    "tokens",
)


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
    named = {name: getattr(where, name)() for name in _NAMED}
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
