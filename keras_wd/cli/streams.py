"""Images that are read when they are needed, for sets larger than memory."""

import concurrent.futures
import math
import os
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

SHARE = 1 / 8  # of this machine's memory, above which a set is not held in it
CHUNK = 2**22  # bytes of images read at a time where all are needed


def is_large(count: int, shape: Sequence[int]) -> bool:
    """Whether so many images of bytes are not to be held in memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return count * math.prod(shape) > SHARE * memory


class Stream:
    """Images `(n, height, width, channels)`, an array when indexed.

    Args:
        read: gives the image at a position; called from several threads.
        count: how many there are.
        shape: of an image.
    """

    def __init__(
        self, read: Callable[[int], np.ndarray], count: int,
        shape: Sequence[int],
    ):  # fmt: skip
        self._readers = (read,)
        self._places = np.stack([np.zeros(count, int), np.arange(count)])
        self._image = tuple(shape)
        self._pool = concurrent.futures.ThreadPoolExecutor(
            min(8, os.cpu_count() or 1)
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._image)

    @property
    def ndim(self) -> int:
        return 1 + len(self._image)

    def __len__(self) -> int:
        return self._places.shape[1]

    def __getitem__(self, indices: np.ndarray | slice) -> np.ndarray:
        reader, place = self._places[:, indices]
        images = self._pool.map(
            lambda at: self._readers[at[0]](int(at[1])),
            zip(reader, place, strict=True),
        )
        return np.stack(list(images))

    def subset(self, indices: np.ndarray | slice) -> "Stream":
        """The images at these positions, not read yet."""
        return self._with(self._readers, self._places[:, indices])

    def joined(self, other: "Stream") -> "Stream":
        """These images and then those of another stream."""
        shift = np.array([[len(self._readers)], [0]])
        return self._with(
            self._readers + other._readers,
            np.concatenate([self._places, other._places + shift], axis=1),
        )

    def _with(self, readers, places):
        made = object.__new__(Stream)
        made.__dict__.update(self.__dict__, _readers=readers, _places=places)
        return made

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of every channel, in float64, in one pass."""
        sums = squares = np.zeros(self._image[-1])
        step = max(1, CHUNK // math.prod(self._image))
        for start in range(0, len(self), step):
            pixels = self[start : start + step].reshape(-1, self._image[-1])
            # Sums of bytes are exact.
            sums = sums + pixels.sum(axis=0, dtype="float64")
            squares = squares + (pixels.astype("uint32") ** 2).sum(
                axis=0, dtype="float64"
            )
        count = len(self) * math.prod(self._image[:-1])
        mean = sums / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))
