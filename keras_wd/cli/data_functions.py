"""What a function of the user's returns: arrays or `tf.data.Dataset`s."""

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_wd.cli.streams import Stream
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line

NAME = re.compile(r"[\w.]+:[A-Za-z_]\w*")
_ENDLESS = -1  # the cardinality, in tf.data


def read(
    name: str, splits: Mapping[str, str]
) -> dict[str, tuple[np.ndarray | Stream, np.ndarray]]:
    """The pairs of inputs and targets that a function returns, by split.

    The examples of a `tf.data.Dataset`, which have no numbers, are written
    to a file in the folder for temporary files, and read from there. It has
    no name, and vanishes with the process.

    Args:
        name: `module:function`; the module is looked for in this folder too.
        splits: of the names that a dictionary may have.

    Raises:
        UsageError: if the function fails or returns something else.
    """
    try:
        found = _called(*name.split(":"))
    except Exception as error:
        raise UsageError(
            f"--dataset={name} failed with {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    if isinstance(found, Mapping):
        if not set(found) <= set(splits) or "train" not in found:
            raise _unknown(name, found)
        pairs = {splits[split]: pair for split, pair in found.items()}
    elif isinstance(found, tuple) and len(found) == 2 and _are_pairs(found):
        pairs = dict(zip(("train", "test"), found, strict=True))
    else:
        pairs = {"train": found}
    return {split: _pair(name, pair) for split, pair in pairs.items()}


def _called(module, function):
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), function)()
    finally:
        sys.path.remove(os.getcwd())


def _unknown(name, found):
    received = type(found).__name__
    if isinstance(found, tuple):
        received = f"({', '.join(type(part).__name__ for part in found)})"
    if isinstance(found, Mapping):
        received = f"a dictionary with the keys {', '.join(map(str, found))}"
    return UsageError(
        f"--dataset={name} must return a tf.data.Dataset of pairs, a pair of "
        "arrays, a pair of one or the other (train, test), or a dictionary of "
        f"them by split. Received: {received}"
    )


def _are_pairs(found):
    return all(isinstance(f, tuple) or _is_data(f) for f in found)


def _is_data(found):
    return hasattr(found, "as_numpy_iterator")


def _pair(name, found):
    if _is_data(found):
        return _written(name, found)
    if not (isinstance(found, tuple) and len(found) == 2):
        raise _unknown(name, found)
    try:
        inputs, targets = map(np.asarray, found)
    except ValueError as error:
        raise UsageError(
            f"--dataset={name} must return arrays: {first_line(error)}"
        ) from error
    if not inputs.ndim:
        raise _unknown(name, found)
    return inputs, targets


def _written(name, dataset):
    """Inputs in a file, and targets in memory."""
    if int(dataset.cardinality()) == _ENDLESS:
        raise UsageError(
            f"--dataset={name} must return a tf.data.Dataset that ends; this "
            "one repeats without end. Leave out repeat()"
        )
    try:
        with tempfile.TemporaryFile() as file:
            return _stored(name, dataset, file)
    except UsageError:
        raise
    except Exception as error:  # of the user's functions, or no space
        raise UsageError(
            f"--dataset={name} failed with {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error


def _stored(name, dataset, file):
    count, starts, kinds = 0, [0], {}
    targets = []
    for inputs, labels in _examples(name, dataset):
        targets.append(labels)
        count += len(inputs)
        is_text = inputs.dtype.hasobject
        kinds[() if is_text else inputs.shape[1:], inputs.dtype] = None
        if len(kinds) > 1:
            break
        if is_text:
            for text in inputs.reshape(len(inputs)):
                starts.append(starts[-1] + file.write(text))
        else:
            file.write(inputs.tobytes())
    if len(kinds) != 1:
        shapes = " and ".join(f"{shape} {dtype}" for shape, dtype in kinds)
        raise UsageError(
            f"--dataset={name} must return examples, all of one shape and "
            f"type. Received: {shapes or 'none'}"
        )
    file.flush()
    ((shape, dtype),) = kinds
    labels = np.concatenate(targets)
    if not dtype.hasobject:
        stored = np.memmap(file, dtype, "r", shape=(count, *shape))
        return np.asarray(stored), labels
    ends = np.array(starts)
    letters = np.memmap(file, "uint8", "r")

    def read(at):
        spans = zip(ends[at], ends[at + 1], strict=True)
        return np.array([letters[a:b].tobytes() for a, b in spans], object)

    return Stream(read, count, (), object), labels


def _examples(name: str, dataset: Any) -> Iterator[tuple]:
    """Arrays of some examples, whether the set has batches or not."""
    for element in dataset.as_numpy_iterator():
        if not (
            isinstance(element, tuple)
            and len(element) == 2
            and not any(isinstance(e, Mapping | tuple) for e in element)
        ):
            raise _unknown(name, element)
        inputs, targets = element
        if np.ndim(targets):
            yield np.asarray(inputs), np.asarray(targets)
        elif isinstance(inputs, bytes):
            yield np.array([inputs], object), np.stack([targets])
        else:
            yield np.stack([inputs]), np.stack([targets])
