"""From a source's inputs and targets to arrays a network learns."""

import math
from collections.abc import Mapping

import numpy as np

from keras_wd.cli import texts
from keras_wd.cli.streams import CHUNK
from keras_wd.cli.streams import Stream
from keras_wd.cli.usage_errors import UsageError

MOST_CLASSES = 20  # of whole numbers, unless --task says otherwise


def encoded(
    name: str, pairs: Mapping[str, tuple], task: str, words: int | None = None
) -> tuple[dict, dict, int]:
    """Inputs and targets by split, as arrays to train on, and the classes.

    Args:
        name: of the source, for messages.
        pairs: inputs and targets by split.
        task: "classification", "regression" or "auto".
        words: how many are told apart in texts; None for 2,000.

    Raises:
        UsageError: if they cannot be learned.
    """
    stored = {
        s: x if isinstance(x, Stream) else np.asarray(x)
        for s, (x, _) in pairs.items()
    }
    if all(map(texts.are_texts, stored.values())):
        stored = texts.vectorized(stored, words)
    else:
        texts.refuse_words(name, words)
    inputs = {s: _inputs(name, x) for s, x in stored.items()}
    shapes = {x.shape[1:] for x in inputs.values()}
    if len(shapes) > 1:
        raise UsageError(
            f"--dataset={name} must have inputs of one shape. Received: "
            f"{', '.join(map(str, sorted(shapes)))}"
        )
    targets = {s: np.asarray(y) for s, (_, y) in pairs.items()}
    for split, y in targets.items():
        if y.ndim == 2 and y.shape[1] == 1:
            y = targets[split] = y[:, 0]
        if y.ndim != 1 or len(y) != len(inputs[split]):
            raise UsageError(
                f"--dataset={name} must have one target for each input. "
                f"Received: {inputs[split].shape} inputs and {y.shape} "
                f"targets in {split}"
            )
        if y.dtype.kind not in "buifUSO":
            raise UsageError(
                f"--dataset={name} must have words or real numbers as targets. "
                f"Received: {y.dtype}"
            )
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise UsageError(
                f"--dataset={name} has targets that are NaN or infinite"
            )
        if not len(y):
            raise UsageError(f"--dataset={name} has no examples in {split}")
    if len(targets["train"]) < 10:
        raise UsageError(
            f"--dataset={name} must have 10 training examples or more. "
            f"Received: {len(targets['train'])}"
        )
    targets, classes = _encoded(name, targets, task)
    return inputs, targets, classes


def _inputs(name, x):
    is_known = x.dtype.kind in "buif" and x.ndim in (2, 3, 4)
    if not is_known or 0 in x.shape[1:]:
        raise UsageError(
            f"--dataset={name} must have as inputs rows of numbers (n, "
            "columns), images (n, height, width, channels) or texts (n). "
            f"Received: shape {x.shape} of {x.dtype}"
        )
    shape = (*x.shape[1:], 1) if x.ndim == 3 else x.shape[1:]
    dtype = np.dtype("float32") if x.dtype == "float64" else x.dtype

    def converted(rows):
        with np.errstate(over="ignore"):  # which is refused as infinite
            return rows.astype(dtype, copy=False).reshape(-1, *shape)

    if x.dtype.kind == "f" and not _is_finite(x, converted):
        raise UsageError(
            f"--dataset={name} has inputs that are NaN, or infinite in float32"
        )

    if not isinstance(x, Stream):
        return converted(x)
    if (x.shape[1:], x.dtype) == (shape, dtype):
        return x
    return x.mapped(converted, shape, dtype)


def _is_finite(x, converted):
    """Whether all numbers are, looked at some rows at a time."""
    step = max(1, CHUNK // math.prod(x.shape[1:]))
    return all(
        np.isfinite(converted(x[start : start + step])).all()
        for start in range(0, len(x), step)
    )


def _encoded(name, targets, task):
    """Targets as labels from 0 and their number, or as float32 and 0."""
    every = np.concatenate(list(targets.values()))
    kinds = np.unique(every)
    is_words = every.dtype.kind not in "buif"
    if task == "auto":
        is_whole = is_words or bool((np.round(kinds) == kinds).all())
        few_kinds = is_whole and len(kinds) <= MOST_CLASSES
        task = "classification" if is_words or few_kinds else "regression"
    if task == "regression":
        if is_words:
            raise UsageError(
                f"--task=regression needs numbers as targets; {name} has "
                f"words, such as {str(kinds[0])!r}"
            )
        return {s: y.astype("float32") for s, y in targets.items()}, 0
    if not 2 <= len(kinds) <= len(every) // 2:
        raise UsageError(
            f"--task=classification needs at least 2 classes, and at most "
            f"half as many as examples. {name} has {len(kinds)} different "
            "targets"
        )
    unseen = np.setdiff1d(kinds, targets["train"])
    if len(unseen):
        raise UsageError(
            f"--dataset={name} must have every class in its training part. "
            f"Received elsewhere only: {', '.join(map(str, unseen[:5]))}"
        )
    return {
        s: np.searchsorted(kinds, y).astype("int32") for s, y in targets.items()
    }, len(kinds)
