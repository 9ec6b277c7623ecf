"""Examples that are read when they are needed, for sets larger than memory."""

import concurrent.futures
import math
import os
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SHARE = 1 / 8  # of this machine's memory, above which a set is not held in it
CHUNK = 2**21  # numbers read at a time where all are needed


def is_large(count: int, shape: Sequence[int]) -> bool:
    """Whether so many arrays of bytes are not to be held in memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return count * math.prod(shape) > SHARE * memory


def is_streamed(choice: str, is_over: bool) -> bool:
    """Whether examples are read as they are needed.

    Args:
        choice: "true", "false" or "auto".
        is_over: whether they are not to be held in memory otherwise.
    """
    return choice == "true" or (choice == "auto" and is_over)


def one_by_one(
    read: Callable[[int], object], dtype: npt.DTypeLike = "uint8"
) -> Callable[[np.ndarray], np.ndarray]:
    """A reader of many examples from one of a single example.

    Args:
        read: gives the example at a position; called from several threads.
        dtype: of the array. Objects, such as texts, are not stacked.
    """
    pool = concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def read_all(places: np.ndarray) -> np.ndarray:
        found = list(pool.map(read, places.tolist()))
        return np.array(found, dtype)

    return read_all


class Stream:
    """Examples of one shape, an array when indexed.

    Args:
        read: gives the array of the examples at these positions; called from
            several threads.
        count: how many there are.
        shape: of an example, `()` for a text.
        dtype: of the arrays.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        count: int,
        shape: Sequence[int],
        dtype: npt.DTypeLike = "uint8",
    ):
        self._readers = (read,)
        self._ends = np.array([count])
        # Four bytes for an example, where that is enough.
        self._places = np.arange(count, dtype=np.min_scalar_type(count))
        self._example = tuple(shape)
        self.dtype = np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._example)

    @property
    def ndim(self) -> int:
        return 1 + len(self._example)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, indices: np.ndarray | slice) -> np.ndarray:
        places = self._places[indices].astype("int64")
        readers = np.searchsorted(self._ends, places, side="right")
        starts = np.concatenate([[0], self._ends])
        found = np.empty((len(places), *self._example), self.dtype)
        for number in np.unique(readers):
            chosen = readers == number
            own = places[chosen] - starts[number]
            found[chosen] = self._readers[number](own)
        return found

    def subset(self, indices: np.ndarray | slice) -> "Stream":
        """The examples at these positions, not read yet."""
        return self._with(_places=self._places[indices])

    def joined(self, other: "Stream") -> "Stream":
        """These examples and then those of another stream."""
        shift = int(self._ends[-1])
        kind = np.min_scalar_type(shift + int(other._ends[-1]))
        return self._with(
            _readers=self._readers + other._readers,
            _ends=np.concatenate([self._ends, other._ends + shift]),
            _places=np.concatenate(
                [self._places.astype(kind), other._places.astype(kind) + shift],
                dtype=kind,
            ),
        )

    def mapped(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        shape: Sequence[int],
        dtype: npt.DTypeLike,
    ) -> "Stream":
        """What a function of an array of examples makes of them.

        Args:
            function: as many examples for as many.
            shape: of an example that it makes.
            dtype: of the arrays that it makes.
        """
        return self._with(
            _readers=tuple(
                lambda places, read=read: function(read(places))
                for read in self._readers
            ),
            _example=tuple(shape),
            dtype=np.dtype(dtype),
        )

    def _with(self, **changed):
        made = object.__new__(Stream)
        made.__dict__.update(self.__dict__, **changed)
        return made

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of every channel, in float64, in one pass.

        The parts are put together as by Chan, Golub and LeVeque, 1983,
        equation 1.5, which loses no digits where a mean is large.
        """
        channels = self._example[-1]
        count, mean, squares = 0, np.zeros(channels), np.zeros(channels)
        step = max(1, CHUNK // math.prod(self._example))
        for start in range(0, len(self), step):
            part = self[start : start + step].reshape(-1, channels)
            own = part.mean(axis=0, dtype="float64")
            apart = part - own
            apart *= apart
            share = len(part) / (count + len(part))
            squares += apart.sum(axis=0) + (own - mean) ** 2 * count * share
            mean += (own - mean) * share
            count += len(part)
        return mean, np.sqrt(squares / count)
