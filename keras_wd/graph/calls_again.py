"""Calling a layer of another author again, and what it holds by name."""

import itertools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_wd.graph import traits
from keras_wd.graph.channel_rules import ATTENTION
from keras_wd.graph.structure import functional_of

_BATCH, _UNKNOWN_SIZE = 2, 12
_SMALL = 0.01


def parts_of(layer: keras.Layer) -> Iterator[keras.Layer]:
    """The layers inside, at any depth."""
    for part in getattr(layer, "_layers", ()):
        yield part
        yield from parts_of(part)


def open_up(layer: keras.Layer) -> None:
    """Give the layers inside distinct names, and call them as written.

    Keras records a call of a layer as one step; what holds layers itself is
    called without a record, so that those inside are steps.
    """
    for part, name in _named(layer):
        part.name = name
        if list(parts_of(part)) and not _is_read_as_one(part):
            part.__class__ = _called_as_written(type(part))


def _named(layer) -> list[tuple[keras.Layer, str]]:
    """The layers inside, each once, with distinct names."""
    found, names, seen = [], set(), set()
    waiting = [(part, "") for part in layer._layers]
    while waiting:
        part, before = waiting.pop(0)
        if id(part) in seen:
            continue
        seen.add(id(part))
        name = plain = f"{before}{part.name}"
        for number in itertools.count(1):
            if name not in names:
                break
            name = f"{plain}_{number}"
        names.add(name)
        found.append((part, name))
        if not _is_read_as_one(part):
            inner = getattr(part, "_layers", ())
            # Keras allows no slash in the name of an operation.
            waiting += [(one, f"{name}.") for one in inner]
    return found


def _is_read_as_one(part):
    is_model = functional_of(part) is not None
    return is_model or traits.is_exactly(part, ATTENTION)


def _called_as_written(kind):
    def called(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": called})


def entrances(
    node: Any, make: Callable = keras.Input
) -> tuple[list, tuple[tuple, dict]]:
    """Tensors for a call like one that was recorded, and its arguments."""
    made = {}

    def entrance(value):
        if not isinstance(value, keras.KerasTensor):
            return value
        if id(value) not in made:
            batch, *rest = value.shape or (None,)
            shape = [_UNKNOWN_SIZE if n is None else n for n in rest]
            made[id(value)] = make(
                batch_shape=(batch or _BATCH, *shape), dtype=value.dtype
            )
        return made[id(value)]

    arguments = node.arguments.args, dict(node.arguments.kwargs)
    arguments = keras.tree.map_structure(entrance, arguments)
    return list(made.values()), arguments


def example(batch_shape: tuple[int, ...], dtype: str) -> Any:
    """Normal numbers, large and small; ones for masks, positions, tokens."""
    if keras.backend.is_float_dtype(dtype):
        drawn = np.random.default_rng(0).normal(size=batch_shape)
        # A small example shows the epsilon of a normalization.
        drawn[::2] *= _SMALL
    else:
        drawn = np.ones(batch_shape)
    return keras.ops.convert_to_tensor(drawn.astype("float32"), dtype=dtype)
