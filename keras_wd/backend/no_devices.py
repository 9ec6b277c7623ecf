"""Backends that train on one device here."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

import keras


def available() -> tuple[str, int]:
    """One, of whatever kind."""
    return "device", 1


def join() -> NoReturn:
    """Not possible."""
    raise NotImplementedError(
        "Several processes need the jax backend. Received: "
        f"backend={keras.backend.backend()!r}."
    )


def split_cpu(count: int) -> NoReturn:
    """Not possible."""
    raise NotImplementedError(
        "Training on several devices needs the tensorflow or the jax backend. "
        f"Received: backend={keras.backend.backend()!r}."
    )


def sharing(count: int, batch_size: int) -> AbstractContextManager:
    """Not possible."""
    split_cpu(count)


def holding(variables: Sequence[keras.Variable]) -> list:
    """The only device."""
    return [None]


def on(device) -> AbstractContextManager:
    """A context in which it computes."""
    return contextlib.nullcontext()


def read(variable: keras.Variable, device):
    """The value as a tensor."""
    return variable.value


def assign(variable: keras.Variable, value) -> None:
    """Assign a value."""
    variable.assign(value)
