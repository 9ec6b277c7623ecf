"""Optimizers inside optimizers."""

import keras


def chain(optimizer: keras.optimizers.Optimizer | None) -> list:
    """The optimizer, the one it wraps, and so on."""
    found = []
    while optimizer is not None:
        found.append(optimizer)
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return found


def parts(optimizer: keras.optimizers.Optimizer | None) -> list:
    """The optimizer and all inside of it, in a fixed order.

    A `MultiOptimizer` has several, of which a chain knows nothing.
    """
    found = []
    for one in chain(optimizer):
        found.append(one)
        for several in getattr(one, "optimizers", ()):
            found.extend(parts(several))
    return found
