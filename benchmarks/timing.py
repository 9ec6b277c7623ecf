"""Comparing functions on a noisy machine: in turn, in one run, by medians."""

import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping


def alternate(
    functions: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Call every function once a round; return the seconds of each call.

    A function must return only when its work is done. Every other round goes
    backwards, so that none always follows the same one.

    Args:
        functions: by name.
        rounds: that count.
        warmup: rounds before those.
        clock: `time.process_time` for the processor's time, which others on
            the machine change less.
    """
    seconds = {name: [] for name in functions}
    for number in range(warmup + rounds):
        names = list(functions)
        for name in reversed(names) if number % 2 else names:
            start = clock()
            functions[name]()
            if number >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def milliseconds(seconds: list[float]) -> str:
    """The median of some seconds, in milliseconds with three digits."""
    return f"{1e3 * statistics.median(seconds):.3g}"


def ratios(
    seconds: Mapping[str, list[float]], baseline: str
) -> dict[str, float]:
    """Median over the rounds of each function's time by the baseline's.

    The ratio is taken within a round, so that a machine that slows down for a
    while slows both of them down.
    """
    return {
        name: statistics.median(
            a / b for a, b in zip(times, seconds[baseline], strict=True)
        )
        for name, times in seconds.items()
    }
