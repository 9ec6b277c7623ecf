"""Decay beside no decay, and decoupled beside coupled, seed by seed."""

import dataclasses
from collections.abc import Sequence

from keras_wd.cli import statistics
from keras_wd.cli.results import Row
from keras_wd.cli.statistics import Difference

# Number: (whether more is better, factor for print, format, unit).
MEASURES = {
    "test_accuracy": (True, 100, "+.2f", " points"),
    "test_loss": (False, 1, "+.4f", ""),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A row beside another, in one number.

    Attributes:
        row, other: what is compared.
        number: a key of `MEASURES`.
        difference: `row - other`, over pairs of one seed.
        p: corrected for all comparisons that are made; None if unknown.
        needed: seeds that would resolve it; None if unknown or too many.
    """

    row: Row
    other: Row
    number: str
    difference: Difference
    p: float | None
    needed: int | None

    @property
    def is_certain(self) -> bool:
        return self.p is not None and self.p < statistics.LEVEL

    @property
    def is_better(self) -> bool:
        more_is_better = MEASURES[self.number][0]
        return (self.difference.value > 0) == more_is_better


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Every decay beside no decay, and decoupled beside coupled decay.

    Within an optimizer, in accuracy and in loss, all corrected together.
    """
    by_key = {(row.optimizer, row.method): row for row in rows}
    found = []
    for row in rows:
        others = ["none"] if row.method != "none" else []
        others += ["coupled"] if row.method == "decoupled" else []
        for method in others:
            other = by_key.get((row.optimizer, method))
            if other is None:
                continue
            for number in MEASURES:
                one = statistics.paired(
                    row.by_seed(number), other.by_seed(number)
                )
                if one is not None:
                    found.append((row, other, number, one))
    p_values = statistics.corrected([one.p for *_, one in found])
    count = sum(p is not None for p in p_values)
    return [
        Comparison(
            *each,
            p,
            statistics.seeds_needed(each[-1], count) if count else None,
        )
        for each, p in zip(found, p_values, strict=True)
    ]
