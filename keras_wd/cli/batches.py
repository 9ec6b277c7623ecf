"""Batches to train on, the same for the same seed and epoch.

The order of the images and their augmentation are functions of the seed and
the number of the epoch, so that a run continued at an epoch boundary sees
what an uninterrupted run sees.
"""

import itertools
import math
import threading
from collections.abc import Callable
from collections.abc import Iterator

import keras
import numpy as np

from keras_wd.cli.datasets import DataSet
from keras_wd.cli.datasets import Split
from keras_wd.cli.streams import Stream

PADDING = 4  # pixels on each side, before a random crop
EVALUATION_BATCH = 1000  # images, at most


def training_batches(
    data: DataSet,
    batch_size: int,
    seed: int,
    epochs: range,
    augment: bool = False,
    process: tuple[int, int] = (0, 1),
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Standardised images and labels, epoch after epoch.

    Every epoch visits the training images in an order of its own and leaves
    out those that do not fill a batch, so that all batches have one shape.
    Of several processes each reads its part of every batch; the parts make
    the batch of a single process.

    Args:
        data: the set.
        batch_size: images in a batch, at most the training images there are.
        seed: integer >= 0.
        epochs: the epochs to run through.
        augment: whether to crop and flip at random.
        process: the number of this one, and how many train together.
    """
    number, processes = process
    size = batch_size // processes
    own = slice(number * size, (number + 1) * size)
    for epoch in epochs:
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(data.train))
        for step in range(steps_per_epoch(data, batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            batch = data.train.take(chosen[own])
            images = batch.inputs
            if augment:
                images = crop_and_flip(images, rng, batch_size, own)
            yield (
                data.standardise(images),
                data.standardise_targets(batch.targets),
            )


class Restartable(keras.utils.PyDataset):
    """Batches that `fit` may begin again.

    On several devices Keras takes a batch to build the model with, which a
    generator cannot give twice.

    Args:
        begin: gives the batches from the first on, always the same.
        count: how many there are.
    """

    def __init__(self, begin: Callable[[], Iterator[tuple]], count: int):
        super().__init__()
        self._begin = begin
        self._count = count
        self._rest: Iterator[tuple] = iter(())
        self._next = count
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple:
        # An iteration that was left may still be fetching ahead.
        with self._lock:
            if number != self._next:
                self._rest = itertools.islice(self._begin(), number, None)
            self._next = number + 1
            return next(self._rest)


def steps_per_epoch(data: DataSet, batch_size: int) -> int:
    """How many full batches the training images make."""
    return len(data.train) // batch_size


def crop_and_flip(
    images: np.ndarray,
    rng: np.random.Generator,
    count: int | None = None,
    part: slice = slice(None),
) -> np.ndarray:
    """Shift by up to 4 pixels over black and mirror half of the images.

    Args:
        images: `(n, height, width, channels)`, not standardised.
        rng: the source of randomness.
        count: the images of the batch that these are a part of.
        part: which of them these are.
    """
    own, height, width, _ = images.shape
    count = count or own
    border = (PADDING, PADDING)
    padded = np.pad(images, ((0, 0), border, border, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (height, width), axis=(1, 2)
    )
    top, left = rng.integers(0, 2 * PADDING + 1, size=(2, count))[:, part]
    cropped = np.moveaxis(windows[np.arange(own), top, left], 1, -1)
    mirrored = rng.random((count,))[part] < 0.5
    return np.where(mirrored[:, None, None, None], cropped[:, :, ::-1], cropped)


def evaluation_arrays(
    data: DataSet, split: Split
) -> tuple[np.ndarray, np.ndarray, int]:
    """Standardised images, labels, and a batch size that divides evenly.

    Equal batches (or nearly) spare a second compilation of the network.
    """
    steps = math.ceil(len(split) / EVALUATION_BATCH)
    return (
        data.standardise(split.inputs),
        data.standardise_targets(split.targets),
        math.ceil(len(split) / steps),
    )


def evaluation(
    data: DataSet,
    split: Split,
    batch_size: int,
    devices: int = 1,
    processes: int = 1,
) -> dict:
    """What `evaluate` is given: arrays, or batches that are read in turn.

    Args:
        data: the set.
        split: of it.
        batch_size: of the training, which streamed images have here as well.
        devices: that share a batch. Keras has TensorFlow's divide the first
            batch evenly, JAX's only batches of the training's size, so
            others are of a size that they divide, but not that one.
        processes: that read a part of a batch of the training each, and the
            whole of others.
    """
    is_streamed = isinstance(split.inputs, Stream)
    steps = math.ceil(len(split) / EVALUATION_BATCH)
    size = batch_size if is_streamed else math.ceil(len(split) / steps)
    if devices > 1:
        size = size // devices * devices
        if min(size, len(split)) == batch_size // processes:
            size += devices if size + devices <= len(split) else -devices
        size = max(size, devices)
    if is_streamed:
        return {"x": _Evaluation(data, split, size)}
    images, labels, _ = evaluation_arrays(data, split)
    return {"x": images, "y": labels, "batch_size": size}


class _Evaluation(keras.utils.PyDataset):
    def __init__(self, data, split, size):
        super().__init__()
        self._data, self._split, self._size = data, split, size

    def __len__(self):
        return math.ceil(len(self._split) / self._size)

    def __getitem__(self, number):
        start = number * self._size
        batch = self._split.take(slice(start, start + self._size))
        return (
            self._data.standardise(batch.inputs),
            self._data.standardise_targets(batch.targets),
        )


class RandomBatches(keras.utils.PyDataset):
    """Standardised images and labels, drawn anew for every number.

    What is drawn depends on the seed and the number alone, so that a run that
    is continued measures what an uninterrupted one measures.

    Args:
        data: the set, whose training images are drawn from.
        batch_size: images in a batch.
        seed: integer >= 0.
    """

    def __init__(self, data: DataSet, batch_size: int, seed: int):
        super().__init__()
        self._data = data
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        # The third number keeps apart from the order of the epochs.
        rng = np.random.default_rng((self._seed, number, 1))
        examples = len(self._data.train)
        chosen = rng.choice(examples, self._batch_size, replace=False)
        batch = self._data.train.take(chosen)
        return (
            self._data.standardise(batch.inputs),
            self._data.standardise_targets(batch.targets),
        )
