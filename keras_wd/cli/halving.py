"""Which rates to train with next, and how long: Optuna's successive halving.

Trials start with a ninth of the epochs; those that do well beside the trials
before them go on to a third, and then to the end. Rates are drawn by a
tree-structured Parzen estimator. One trial follows the other, so what is
tried depends on the seed and on what the trials gave, and on nothing else.

Sources: Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and
Talwalkar, 2020, "A System for Massively Parallel Hyperparameter Tuning";
Bergstra, Bardenet, Bengio and Kegl, 2011, "Algorithms for Hyper-Parameter
Optimization".
"""

import dataclasses
import math
from collections.abc import Generator

FACTOR = 3  # one trial in three goes on
_DIGITS = 3  # of a rate


@dataclasses.dataclass(frozen=True)
class Space:
    """What is searched, on logarithmic scales.

    Attributes:
        learning_rate: the lowest and the highest.
        weight_decay: the lowest and the highest; None for what has none.
        first: learning rate and decay of the first trial.
    """

    learning_rate: tuple[float, float]
    weight_decay: tuple[float, float] | None
    first: tuple[float, float | None]


@dataclasses.dataclass
class Trial:
    """Two rates and how far they were trained.

    Attributes:
        number: from 0.
        learning_rate: its highest.
        weight_decay: rate of the decay, or None.
        epochs: how long it was trained.
        merit: what it gave, more is better, ties decided by what follows;
            the first is NaN if it diverged or failed.
    """

    number: int
    learning_rate: float
    weight_decay: float | None
    epochs: int = 0
    merit: tuple[float, ...] = (math.nan,)

    @property
    def failed(self) -> bool:
        return math.isnan(self.merit[0])


# (what to train, until which epoch)
Stage = tuple[Trial, int]


def rungs(epochs: int) -> list[int]:
    """The epochs after which trials are compared, and the last one.

    >>> rungs(20), rungs(2)
    ([3, 9, 20], [1, 2])
    """
    first = -(-epochs // FACTOR**2)
    stops = [first, first * FACTOR]
    return [stop for stop in stops if stop < epochs] + [epochs]


def trials(
    space: Space, epochs: int, budget: int, seed: int
) -> Generator[Stage, tuple[float, ...], list[Trial]]:
    """Yields what to train next; send what it gave.

    Args:
        space: what is searched.
        epochs: of a whole run.
        budget: epochs of all trials together. No trial is begun that has no
            room in it for its first rung; the last one still goes as far as
            it does well, or the best could be cut off.
        seed: of the search.

    Returns:
        All trials, in the order in which they were begun.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stops = rungs(epochs)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=stops[0], reduction_factor=FACTOR
        ),
    )
    names = ("learning_rate", "weight_decay")
    study.enqueue_trial(
        {n: v for n, v in zip(names, space.first, strict=True) if v is not None}
    )
    found: list[Trial] = []
    left = budget
    while left >= stops[0]:
        asked = study.ask()
        trial = Trial(
            len(found),
            _suggested(asked, "learning_rate", space.learning_rate),
            space.weight_decay
            and _suggested(asked, "weight_decay", space.weight_decay),
        )
        found.append(trial)
        ended = optuna.trial.TrialState.PRUNED
        for stop in stops:
            left -= stop - trial.epochs
            merit = yield trial, stop
            trial.epochs, trial.merit = stop, merit
            asked.report(merit[0], stop)
            if trial.failed or (stop < epochs and asked.should_prune()):
                break
            if stop == epochs:
                ended = optuna.trial.TrialState.COMPLETE
        complete = ended is optuna.trial.TrialState.COMPLETE
        study.tell(asked, trial.merit[0] if complete else None, ended)
    return found


def best(found: list[Trial]) -> Trial:
    """The best of those trained longest; the first if none went well."""
    ended = [trial for trial in found if not trial.failed]
    return max(ended, key=lambda t: (t.epochs, t.merit), default=found[0])


def _suggested(asked, name, limits):
    return float(f"{asked.suggest_float(name, *limits, log=True):.{_DIGITS}g}")
