"""How inversions share programs and devices."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence

# How much arithmetic may be added to all inversions, so that there are fewer
# programs: making one takes a second or more, so does inverting large matrices.
SPARE = 0.03
# How far from balanced devices may be, so that each has fewer programs.
UNBALANCED = 0.02


def shared_sizes(
    counts: Mapping[int, int], arithmetic: Callable[[int, int], float]
) -> dict[int, int]:
    """To which size matrices are filled up, by size: one that is there.

    Those whose sharing costs least share first, until `SPARE` is used up.

    Args:
        counts: how many matrices there are of each size.
        arithmetic: of inverting a matrix of n rows that is filled up to m.

    >>> shared_sizes({64: 9, 65: 1, 513: 1, 1025: 1}, lambda n, m: n * m**2)
    {1025: 1025, 513: 513, 65: 65, 64: 65}
    """
    found = {size: size for size in sorted(counts, reverse=True)}
    spare = SPARE * sum(n * arithmetic(k, k) for k, n in counts.items())
    while len(set(found.values())) > 1:
        targets = sorted(set(found.values()))
        added = {
            (small, large): sum(
                counts[size] * (arithmetic(size, large) - arithmetic(size, to))
                for size, to in found.items()
                if to == small
            )
            for small, large in zip(targets, targets[1:], strict=False)
        }
        (small, large), least = min(added.items(), key=lambda item: item[1])
        spare -= least
        if spare < 0:
            break
        found = {k: large if to == small else to for k, to in found.items()}
    return found


def divided(
    costs: Sequence[float], programs: Sequence[Collection[Hashable]], count: int
) -> list[list[int]]:
    """Which pieces of work each of `count` devices does, by position.

    The largest first, each to the device that has least to do; where that
    hardly matters, to one that has the programs already.

    Args:
        costs: of each piece.
        programs: that each needs.
        count: of devices.

    >>> divided([1, 5, 3, 4], [{"a"}] * 4, 2)
    [[0, 1], [2, 3]]
    """
    loads, own = [0.0] * count, [set() for _ in range(count)]
    parts = [[] for _ in range(count)]
    slack = UNBALANCED * sum(costs) / count
    for piece in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = min(loads)
        device = min(
            (d for d in range(count) if loads[d] <= least + slack),
            key=lambda d: (len({*programs[piece]} - own[d]), loads[d], d),
        )
        parts[device].append(piece)
        loads[device] += costs[piece]
        own[device].update(programs[piece])
    return [sorted(part) for part in parts]
