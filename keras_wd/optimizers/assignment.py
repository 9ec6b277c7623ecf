"""What the wrapper keeps beside the weights, and how it writes them back."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.decays.decay import Decay
from keras_wd.decays.shared_options import anchor_values
from keras_wd.ops.precision import LOW_PRECISION
from keras_wd.variables import Given
from keras_wd.variables import whole_layout
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
        layout=_layout_of(variable),
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


def add_anchors(
    optimizer: keras.optimizers.Optimizer,
    key: str,
    rule: Decay,
    variables: Sequence[keras.Variable],
    selected: Sequence[int],
) -> list[keras.Variable | None]:
    """A copy of what a decay pulls each of its variables toward.

    Args:
        optimizer: which keeps the copies.
        key: the name of the decay.
        rule: the decay.
        variables: those of the optimizer.
        selected: the positions the decay acts on.

    Returns:
        By position, a variable of the same shape, dtype and layout; None for
        what is pulled toward zero or not at all.
    """
    anchors = [None] * len(variables)
    if rule.anchor is None:
        return anchors
    values = anchor_values(rule.anchor, variables, selected)
    for position, value in zip(selected, values, strict=True):
        variable = variables[position]
        anchors[position] = optimizer.add_variable(
            shape=variable.shape,
            initializer=Given(value),
            dtype=variable.dtype,
            layout=_layout_of(variable),
            name=f"{path_of(variable).replace('/', '_')}_{key}_anchor",
        )
    return anchors


def add_slots(
    optimizer: keras.optimizers.Optimizer,
    key: str,
    rule: Decay,
    variables: Sequence[keras.Variable],
    selected: Sequence[int],
) -> list[dict[str, keras.Variable]]:
    """What a rule keeps for each variable, by position and then by name."""
    slots = [{} for _ in variables]
    for position in selected if rule.prepares else ():
        variable = variables[position]
        dtype = keras.backend.standardize_dtype(variable.dtype)
        path = path_of(variable).replace("/", "_")
        for name, value in rule.slots(variable.shape).items():
            slots[position][name] = optimizer.add_variable(
                shape=value.shape,
                initializer=Given(value),
                dtype="float64" if dtype == "float64" else "float32",
                # Every replica finds the same from the same weights.
                aggregation="only_first_replica",
                layout=_layout_of(variable)
                if tuple(value.shape) == tuple(variable.shape)
                else whole_layout(value.shape),
                name=f"{path}_{key}_{name}",
            )
    return slots


def _layout_of(variable):
    """How a variable is divided over devices; None where it is not."""
    return getattr(variable, "_layout", None)


def assign_slots(
    slots: Mapping[str, keras.Variable], values: Mapping, is_update
) -> None:
    """Assign what a rule keeps for a variable; see `assign_weights`."""
    for name, variable in slots.items():
        value = ops.cast(values[name], variable.dtype)
        variable.assign(_gated(is_update, value, variable))


def assign_weights(
    variable: keras.Variable,
    weights,
    unrounded: keras.Variable | None,
    is_update,
    constraint: Callable | None,
) -> None:
    """Assign decayed weights to a variable, within its constraint.

    Args:
        variable: a model variable.
        weights: its new value in the dtype of the computation.
        unrounded: float32 variable that keeps them as they are before they
            are rounded to the variable's dtype; None if the dtypes agree.
        is_update: scalar boolean tensor, nothing decays where it is false;
            None if it is always true.
        constraint: what the variable is then subject to, or None.
    """
    if constraint is not None:
        weights = constraint(weights)
    rounded = ops.cast(weights, variable.dtype)
    if unrounded is not None:
        unrounded.assign(_gated(is_update, weights, unrounded))
    if constraint is not None and is_update is not None:
        # As Keras does where it only adds up gradients.
        rounded = ops.where(is_update, rounded, constraint(variable))
        is_update = None
    variable.assign(_gated(is_update, rounded, variable))


def _gated(condition, value, variable):
    """`value` where the condition holds, the variable's value elsewhere."""
    if condition is None:
        return value
    return ops.where(condition, value, ops.convert_to_tensor(variable))
