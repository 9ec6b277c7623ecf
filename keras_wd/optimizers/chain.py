"""Optimizers inside optimizers."""

import keras


def chain(optimizer: keras.optimizers.Optimizer | None) -> list:
    """The optimizer, the one it wraps, and so on."""
    found = []
    while optimizer is not None:
        found.append(optimizer)
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return found
