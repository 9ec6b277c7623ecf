"""Batches that a callback measures on, whatever `fit` was given."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_wd.errors import check_seed

_BATCH_SIZE = 128


def batches_of(data: object, batch_size: int | None, seed: int):
    """A source of batches (x, y, sample_weight) of what `fit` takes."""
    check_seed("seed", seed)
    if isinstance(data, keras.utils.PyDataset):
        _refuse_batch_size(batch_size)
        return _Indexed(data)
    if hasattr(data, "__iter__") and not (
        isinstance(data, tuple | list | dict) or hasattr(data, "shape")
    ):
        _refuse_batch_size(batch_size)
        return _Stream(data)
    return _Arrays(_unpacked(data), batch_size or _BATCH_SIZE, seed)


def _refuse_batch_size(batch_size):
    if batch_size is not None:
        raise ValueError(
            "`batch_size` must be None for a dataset, which yields batches. "
            f"Received: batch_size={batch_size}."
        )


def _unpacked(data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return x, y, sample_weight


class _Indexed:
    """Batches that can be asked for by their number."""

    def __init__(self, data):
        self._data = data

    def __len__(self):
        return len(self._data)

    def batch(self, number: int) -> tuple:
        return _unpacked(self._data[number % len(self)])

    def first_batch(self):
        return self.batch(0)

    def one_pass(self):
        return map(self.batch, range(len(self)))


class _Arrays(_Indexed):
    """Shuffled batches of one size, so that one program serves all."""

    def __init__(self, arrays, batch_size, seed):
        self._arrays = arrays
        self._examples = len(keras.tree.flatten(arrays[0])[0])
        self._size = min(batch_size, self._examples)
        self._seed = seed
        self._order = (None, None)

    def __len__(self):
        return self._examples // self._size

    def batch(self, number: int) -> tuple:
        number_of_pass, index = divmod(number, len(self))
        if self._order[0] != number_of_pass:
            rng = np.random.default_rng((self._seed, number_of_pass))
            self._order = (number_of_pass, rng.permutation(self._examples))
        start = index * self._size
        return _taken(self._arrays, self._order[1][start : start + self._size])


class _Stream:
    """Batches of an iterable, in its order, again and again."""

    def __init__(self, data: Iterable):
        self._data = data
        self._waiting = []
        self._rest = iter(())

    def first_batch(self):
        if not self._waiting:
            self._waiting.append(self.batch(0))
        return self._waiting[0]

    def batch(self, number: int) -> tuple:
        if self._waiting:
            return self._waiting.pop()
        batch = next(self._rest, None)
        if batch is None:
            self._rest = iter(self._data)
            batch = next(self._rest, None)
        if batch is None:
            raise ValueError(
                "`data` must yield batches every time it is iterated. "
                "Received a dataset that yielded none."
            )
        return _unpacked(batch)

    def one_pass(self):
        self._waiting = []
        return map(_unpacked, self._data)


def _taken(arrays, chosen):
    return tuple(
        None
        if part is None
        else keras.tree.map_structure(lambda a: np.asarray(a)[chosen], part)
        for part in arrays
    )
