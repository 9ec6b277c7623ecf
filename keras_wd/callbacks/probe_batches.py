"""Batches that a callback measures on, whatever `fit` was given."""

import itertools
import warnings
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_wd.errors import check_seed

_BATCH_SIZE = 128
_NO_END = (
    "`data` must be finite for first_pass=True, or `fit` must be given its "
    "number of steps. Received: an infinite dataset. Use steps_per_epoch, or "
    "data.take(100)."
)
# Batches after which a pass over what does not say its length is remarked on.
_MANY = 1000


def batches_of(data: Any, batch_size: int | None, seed: int):
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
    if not isinstance(data, tuple):
        # A list or a dictionary: the inputs of a model that has several.
        single = isinstance(data, list) and len(data) == 1
        data = tuple(data) if single else (data,)
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
        self._length = _number_of_batches(data)
        if self._length == 0:
            raise ValueError(
                "`data` must have a batch. Received: a PyDataset of none."
            )

    def batch(self, number: int) -> tuple:
        if self._length is not None:
            number %= self._length
        return _unpacked(self._data[number])

    def first_batch(self):
        return self.batch(0)

    def one_pass(self, steps: int | None):
        """Every batch once, or `steps` of an endless number."""
        length = self._length or steps
        if length is None:
            raise ValueError(_NO_END)
        return map(self.batch, range(length))


def _number_of_batches(data):
    """None if there is no end."""
    try:
        return data.num_batches
    except NotImplementedError:
        return None


class _Arrays(_Indexed):
    """Shuffled batches of one size, so that one program serves all."""

    def __init__(self, arrays, batch_size, seed):
        parts = [a for a in keras.tree.flatten(arrays) if a is not None]
        for part in parts:
            if hasattr(part, "nested_row_splits"):
                raise ValueError(
                    "`data` must be a dataset for ragged tensors. Received: "
                    "a ragged tensor. Use "
                    "tf.data.Dataset.from_tensor_slices(data).batch(128)."
                )
        lengths = {np.shape(part)[0] for part in parts}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "`data` must hold at least one example, and as many in every "
                f"array. Received: arrays of {sorted(lengths)} examples."
            )
        self._arrays = arrays
        self._examples = lengths.pop()
        self._size = min(batch_size, self._examples)
        self._length = self._examples // self._size
        self._seed = seed
        self._order = (None, None)

    def batch(self, number: int) -> tuple:
        number_of_pass, index = divmod(number, self._length)
        if self._order[0] != number_of_pass:
            rng = np.random.default_rng((self._seed, number_of_pass))
            self._order = (number_of_pass, rng.permutation(self._examples))
        start = index * self._size
        return _taken(self._arrays, self._order[1][start : start + self._size])


class _Stream:
    """Batches of an iterable, in its order, again and again."""

    def __init__(self, data: Any):
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

    def one_pass(self, steps: int | None):
        """Every batch once; at most `steps` if it has no length."""
        self._waiting = []
        batches = map(_unpacked, self._data)
        try:
            len(self._data)
        except TypeError:
            if steps is not None:
                return itertools.islice(batches, steps)
            if _is_endless(self._data):
                raise ValueError(_NO_END) from None
            return _watched(batches)
        return batches


def _watched(batches: Iterable) -> Iterator:
    """All of them; whoever waits for an end that never comes learns why."""
    for number, batch in enumerate(batches):
        if number == _MANY:
            warnings.warn(
                f"first_pass=True has read {_MANY} batches of `data`, whose "
                "length is not known, and goes on. If it has no end, give "
                "`fit` steps_per_epoch, or the callback data that ends.",
                stacklevel=2,
            )
        yield batch


def _is_endless(data):
    """What a `tf.data.Dataset` says of itself."""
    cardinality = getattr(data, "cardinality", None)
    return cardinality is not None and int(cardinality()) == -1


def _taken(arrays, chosen):
    def take(array):
        if array is None:
            return None
        if hasattr(array, "toarray"):
            return array[chosen].toarray()  # A sparse matrix of SciPy.
        return np.asarray(array)[chosen]

    return tuple(
        None if part is None else keras.tree.map_structure(take, part)
        for part in arrays
    )
