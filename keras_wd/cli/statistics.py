"""Differences between runs of one seed, and what they prove.

Runs of one seed share their first weights and their batches, so they are
compared in pairs; what is left is judged by Student's t for the number of
seeds. Of several comparisons some differ by chance: p-values are corrected by
Holm's method, which holds for whatever depends on whatever.

Source: Holm, 1979, "A simple sequentially rejective multiple test procedure".
"""

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

LEVEL = 0.05  # how often, at most, something is called certain by chance
POWER = 0.8  # how often the seeds that are asked for would resolve it
MOST_SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference over pairs of runs.

    Attributes:
        value: the mean.
        error: its standard error; None for a single pair.
        seeds: how many pairs there are.
        p: two-sided p-value of a mean of 0; None where nothing can be said.
    """

    value: float
    error: float | None
    seeds: int
    p: float | None


def paired(
    one: Mapping[int, float], other: Mapping[int, float]
) -> Difference | None:
    """`one - other` over the seeds that both have; None if there are none.

    >>> found = paired({0: 3.0, 1: 5.0, 2: 7.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    >>> found.value, found.seeds, round(found.p, 3)
    (3.0, 3, 0.035)
    """
    seeds = sorted(set(one) & set(other))
    if not seeds:
        return None
    differences = np.array([one[seed] - other[seed] for seed in seeds])
    mean = float(differences.mean())
    if len(seeds) == 1:
        return Difference(mean, None, 1, None)
    spread = float(differences.std(ddof=1))
    error = spread / math.sqrt(len(seeds))
    # Without spread there is no noise to compare with: shares of few images
    # can agree by chance.
    if spread <= 1e-9 * abs(mean) or spread == 0:
        return Difference(mean, error, len(seeds), None if mean else 1.0)
    from scipy import stats

    p = 2 * stats.t.sf(abs(mean) / error, len(seeds) - 1)
    return Difference(mean, error, len(seeds), float(p))


def corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's p-values: below a level with at most that chance of any error.

    >>> corrected([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        found[index] = largest
    return found


def seeds_needed(difference: Difference, comparisons: int) -> int | None:
    """Seeds that would resolve a difference of this size and spread.

    With 80 % chance, at 5 % for all comparisons together.

    Args:
        difference: as measured.
        comparisons: how many are made.

    Returns:
        None if more than 1,000 would be needed, or if it is not known.
    """
    if difference.p is None or not difference.error or not difference.value:
        return None
    from scipy import stats

    effect = abs(difference.value) / (
        difference.error * math.sqrt(difference.seeds)
    )

    def power(seeds):
        bound = stats.t.isf(LEVEL / comparisons / 2, seeds - 1)
        center = effect * math.sqrt(seeds)
        return stats.nct.sf(bound, seeds - 1, center)

    if not power(MOST_SEEDS) >= POWER:
        return None
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        if power(middle) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low
