"""Where the time of a K-FAC run goes."""

import contextlib
import time
from collections.abc import Iterator

KINDS = ("registration", "compiling", "curvature", "inverses", "steps")


class Seconds:
    """Seconds and how often, by kind.

    "compiling" is the first run of every program, most of which is making the
    program. "steps" is what the callback `Curvature` sees of the batches of
    `fit`, the first one of a `fit` apart, which is compiling too.
    """

    def __init__(self):
        self.spent = dict.fromkeys(KINDS, 0.0)
        self.counts = dict.fromkeys(KINDS, 0)
        self._ran = []

    @contextlib.contextmanager
    def of(self, kind: str, program: object = None) -> Iterator[None]:
        """Add what happens inside.

        Args:
            kind: one of `KINDS`.
            program: what runs; its first run is "compiling".
        """
        if program is not None and not any(one is program for one in self._ran):
            self._ran.append(program)
            kind = "compiling"
        start = time.perf_counter()
        yield
        self.add(kind, time.perf_counter() - start)

    def add(self, kind: str, seconds: float, count: int = 1) -> None:
        """Add seconds that somebody else measured."""
        self.spent[kind] += seconds
        self.counts[kind] += count

    def __str__(self) -> str:
        return "seconds: " + ", ".join(
            f"{kind} {self.spent[kind]:.3g} ({self.counts[kind]} times)"
            for kind in KINDS
            if self.counts[kind]
        )
