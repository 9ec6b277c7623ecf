"""The runs of a comparison: every optimizer with every way of decaying."""

import dataclasses
import itertools
from collections.abc import Mapping
from collections.abc import Sequence

# What each way adds to the flags of `keras-wd train`.
METHODS: dict[str, tuple[str, ...]] = {
    "none": ("--decay=none",),
    "coupled": ("--decay=l2", "--coupling=coupled"),
    "decoupled": ("--decay=l2",),
    "cautious": ("--decay=l2", "--cautious"),
    "layerwise": ("--decay=l2", "--layerwise"),
    "anchored": ("--decay=l2", "--anchor=start"),
    "l1": ("--decay=l1",),
    "lp": ("--decay=lp",),
    "proximal_lp": ("--decay=proximal_lp",),
    "group_lasso": ("--decay=group_lasso",),
    "path_norm": ("--decay=path_norm",),
    "norm_control": ("--decay=norm_control",),
    "cpr": ("--decay=cpr", "--coupling=independent"),
    "hyperball": ("--decay=hyperball",),
    "radial_brake": ("--decay=radial_brake", "--coupling=independent"),
    "fixed_norm": ("--decay=none", "--kernel_constraint=fixed_norm"),
    "auto_l2": ("--decay=l2", "--decay_schedule=auto_l2"),
}
# In sentences.
WORDS = {
    "coupled": "coupled decay",
    "decoupled": "decoupled decay",
    "cautious": "cautious decay",
    "layerwise": "layerwise decay",
    "anchored": "decay toward the start",
    "l1": "the lasso",
    "lp": "p-norm decay",
    "proximal_lp": "proximal p-norm decay",
    "group_lasso": "the group lasso",
    "path_norm": "path-norm decay",
    "norm_control": "weight norm control",
    "cpr": "CPR",
    "hyperball": "Hyperball",
    "radial_brake": "a radial brake",
    "auto_l2": "AutoL2",
    "fixed_norm": "weights of fixed norm",
}
WITHOUT_RATE = ("none", "fixed_norm")

# What suits every optimizer.
_OF_THE_RULE = {"cpr": 1.0, "radial_brake": 0.5}
# Rates to start from on 300 digits without normalization, by optimizer and
# method: those of coupled, decoupled and lp were best in validation accuracy
# over five seeds, of two to five.
# norm_control has that of decoupled decay; hyperball turns weights by 0.01 a
# step. Neither was tuned.
RATES: dict[str, dict[str, float]] = {
    "sgd": {
        "coupled": 0.01,
        "decoupled": 0.01,
        "lp": 1e-4,
        "path_norm": 1e-4,
        "norm_control": 0.01,
        "hyperball": 0.1,
        **_OF_THE_RULE,
        "auto_l2": 0.01,
    },
    "adam": {
        "coupled": 3e-4,
        "decoupled": 0.3,
        "lp": 0.01,
        "path_norm": 0.01,
        "norm_control": 0.3,
        "hyperball": 10.0,
        **_OF_THE_RULE,
        "auto_l2": 0.3,
    },
    "kfac": {
        "coupled": 3e-3,
        "decoupled": 0.1,
        "lp": 3e-3,
        "path_norm": 1e-3,
        "norm_control": 0.1,
        "hyperball": 0.3,
        **_OF_THE_RULE,
        "auto_l2": 0.1,
    },
}
# Methods with the rates of another.
_KIN = {
    "cautious": "decoupled",
    "layerwise": "decoupled",
    "anchored": "decoupled",
    "group_lasso": "decoupled",
    "l1": "lp",
    "proximal_lp": "lp",
}
# In place of those of an optimizer that is not in the table.
LIKE = "adam"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        optimizer: name of it, as in `keras-wd train`.
        method: a key of `METHODS`.
        weight_decay: the rate; None for a method without one.
        seed: of the run.
        learning_rate: the highest; None for what is usual.
    """

    optimizer: str
    method: str
    weight_decay: float | None
    seed: int
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """A name for the folder of the run."""
        rate = "" if self.weight_decay is None else f"-{self.weight_decay:g}"
        if self.learning_rate is not None:
            rate += f"-lr{self.learning_rate:g}"
        return f"{self.optimizer}-{self.method}{rate}-seed{self.seed}"

    @property
    def flags(self) -> list[str]:
        """What the run adds to the flags all runs share."""
        rates = {
            "weight_decay": self.weight_decay,
            "learning_rate": self.learning_rate,
        }
        return [
            f"--optimizer={self.optimizer}",
            *METHODS[self.method],
            *(
                f"--{n}={rate:g}"
                for n, rate in rates.items()
                if rate is not None
            ),
            f"--seed={self.seed}",
        ]


def cells(
    optimizers: Sequence[str],
    methods: Sequence[str],
    rates: Sequence[float],
    seeds: int,
) -> list[Cell]:
    """All runs, seed after seed, so that a part of them is a comparison.

    Plain SGD has no coupled row beside a decoupled one: they are one step.

    Args:
        optimizers: names of optimizers.
        methods: keys of `METHODS`.
        rates: of the decay; none for those of `RATES`.
        seeds: how many runs of each.
    """
    return [
        Cell(optimizer, method, rate, seed)
        for seed in range(seeds)
        for optimizer, method in pairs(optimizers, methods)
        for rate in rates_of(optimizer, method, rates)
    ]


def pairs(
    optimizers: Sequence[str], methods: Sequence[str]
) -> list[tuple[str, str]]:
    """Every optimizer with every method, without twins."""
    return [
        (optimizer, method)
        for optimizer, method in itertools.product(optimizers, methods)
        if not _is_twin(optimizer, method, methods)
    ]


def _is_twin(optimizer, method, methods):
    """Whether a row would be another one trained again.

    Without momentum `w - lr * (g + rate * w)` is the decoupled step; with it,
    the penalty would enter the velocity.
    """
    return optimizer == "sgd" and method == "coupled" and "decoupled" in methods


def rates_of(
    optimizer: str, method: str, rates: Sequence[float]
) -> Sequence[float | None]:
    """The rates a method is tried with."""
    if method in WITHOUT_RATE:
        return [None]
    known: Mapping = RATES.get(optimizer, RATES[LIKE])
    return list(rates) or [known[_KIN.get(method, method)]]
