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

    A `MultiOptimizer` has several, and `KFAC` may have; a chain knows nothing
    of them.
    """
    found = []
    for one in chain(optimizer):
        found.append(one)
        several = getattr(one, "optimizers", ())
        for inside in getattr(one, "optimizers_inside", several):
            found.extend(parts(inside))
    return found


def stepper(
    optimizer: keras.optimizers.Optimizer, position: int
) -> keras.optimizers.Optimizer:
    """The optimizer that steps a variable: it, or one inside of it.

    Args:
        optimizer: `KFAC` may have others inside.
        position: of the variable among those it was built for.
    """
    find = getattr(optimizer, "stepper", None)
    return optimizer if find is None else find(position)
