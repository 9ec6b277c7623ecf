"""Writing decayed weights back, and what rounding takes from them."""

import keras
from keras import ops

from keras_wd.ops.precision import LOW_PRECISION
from keras_wd.where import path_of


def add_unrounded(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> keras.Variable | None:
    """A float32 variable for a decayed weight before it is rounded.

    None for a variable whose dtype needs none.
    """
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if dtype not in LOW_PRECISION:
        return None
    return optimizer.add_variable(
        shape=variable.shape,
        dtype="float32",
        layout=getattr(variable, "_layout", None),
        name=f"{path_of(variable).replace('/', '_')}_unrounded",
    )


def rounded_off(value, unrounded):
    """What rounding took from a variable's value, in float32.

    Nothing, where the variable has been assigned since: there the unrounded
    weight does not round to it.

    Args:
        value: the variable's value, bfloat16 or float16.
        unrounded: the weight before it was rounded, float32.
    """
    unrounded = ops.convert_to_tensor(unrounded)
    still = ops.equal(ops.cast(unrounded, value.dtype), value)
    rest = unrounded - ops.cast(value, "float32")
    return ops.where(still, rest, ops.zeros_like(rest))


def assign_weights(
    variable: keras.Variable,
    weights,
    unrounded: keras.Variable | None,
    is_update,
) -> None:
    """Assign decayed weights to a variable, within its constraint.

    Args:
        variable: a model variable.
        weights: its new value in the dtype of the computation.
        unrounded: float32 variable that keeps them as they are before they
            are rounded to the variable's dtype; None if the dtypes agree.
        is_update: scalar boolean tensor, nothing changes where it is false;
            None if it is always true.
    """
    if getattr(variable, "constraint", None) is not None:
        weights = variable.constraint(weights)
    rounded = ops.cast(weights, variable.dtype)
    if unrounded is not None:
        unrounded.assign(_gated(is_update, weights, unrounded))
    variable.assign(_gated(is_update, rounded, variable))


def _gated(condition, value, variable):
    """`value` where the condition holds, the variable's value elsewhere."""
    if condition is None:
        return value
    return ops.where(condition, value, ops.convert_to_tensor(variable))
