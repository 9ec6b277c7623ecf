"""Writing decayed weights and their moving averages back."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.ops.precision import LOW_PRECISION


def add_remainder(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> keras.Variable | None:
    """A float32 variable for what rounding takes from a decayed weight.

    None for a variable whose dtype needs none.
    """
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if dtype not in LOW_PRECISION:
        return None
    return optimizer.add_variable(
        shape=variable.shape,
        dtype="float32",
        layout=getattr(variable, "_layout", None),
        name=f"{variable.path.replace('/', '_')}_remainder",
    )


def assign_weights(
    variable: keras.Variable,
    weights,
    remainder: keras.Variable | None,
    is_update,
) -> None:
    """Assign decayed weights to a variable, within its constraint.

    Args:
        variable: a model variable.
        weights: its new value in the dtype of the computation.
        remainder: float32 variable that gets what rounding to the variable's
            dtype takes away; None if the dtypes agree.
        is_update: scalar boolean tensor, nothing changes where it is false;
            None if it is always true.
    """
    if getattr(variable, "constraint", None) is not None:
        weights = variable.constraint(weights)
    rounded = ops.cast(weights, variable.dtype)
    if remainder is not None:
        rest = weights - ops.cast(rounded, "float32")
        remainder.assign(_gated(is_update, rest, remainder))
    variable.assign(_gated(is_update, rounded, variable))


def update_averages(
    variables: Sequence[keras.Variable],
    averages: Sequence[keras.Variable | None],
    *,
    momentum: float,
    overwrite_frequency: int | None,
    update_count,
    is_update,
) -> None:
    """`average <- m * average + (1 - m) * w`, with m = 0 at the first update.

    Args:
        variables: model variables, after the decay.
        averages: their averages, same shapes; None for what has none.
        momentum: m, in [0, 1].
        overwrite_frequency: after every so many updates the variables take
            the value of their averages; None for never.
        update_count: scalar integer tensor, this update included.
        is_update: see `assign_weights`.
    """
    momentum = ops.where(ops.equal(update_count, 1), 0.0, momentum)
    for variable, average in zip(variables, averages, strict=True):
        if average is None:
            continue
        kept = ops.cast(momentum, average.dtype)
        mean = kept * average + (1 - kept) * variable
        mean = _gated(is_update, mean, average)
        average.assign(mean)
        if overwrite_frequency:
            due = ops.equal(update_count % overwrite_frequency, 0)
            if is_update is not None:
                due = ops.logical_and(due, is_update)
            variable.assign(_gated(due, mean, variable))


def release_averages(
    averages: Sequence[keras.Variable | None],
    remainders: Sequence[keras.Variable | None],
) -> None:
    """After variables took the value of their averages: share nothing.

    On JAX a variable and its average would then hold one array, which no
    compiled step can take twice; and a remainder belongs to weights that are
    no longer there.
    """
    for average in averages:
        if average is not None:
            average.assign(ops.copy(ops.convert_to_tensor(average)))
    for remainder in remainders:
        if remainder is not None:
            remainder.assign(ops.zeros(remainder.shape, "float32"))


def _gated(condition, value, variable):
    """`value` where the condition holds, the variable's value elsewhere."""
    if condition is None:
        return value
    return ops.where(condition, value, ops.convert_to_tensor(variable))
