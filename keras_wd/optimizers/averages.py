"""The moving average of decayed weights."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_wd import backend
from keras_wd.variables import whole_layout
from keras_wd.where import path_of

_BITS = {
    "bfloat16": "int16",
    "float16": "int16",
    "float32": "int32",
    "float64": "int64",
}


def _add_fingerprint(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> keras.Variable | None:
    """A scalar that tells whether a variable was assigned from outside.

    None for a variable whose bits cannot be summed.
    """
    if keras.backend.standardize_dtype(variable.dtype) not in _BITS:
        return None
    return optimizer.add_variable(
        shape=(),
        dtype="int",
        initializer="zeros",
        aggregation="only_first_replica",
        layout=whole_layout(()),
        name=f"{path_of(variable).replace('/', '_')}_fingerprint",
    )


def start_averages(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    averages: Sequence[keras.Variable | None],
) -> list:
    """Give averages the values of variables; return a fingerprint of each.

    Until the first step `SwapEMAWeights` must find the weights.
    """
    fingerprints = []
    for variable, average in zip(variables, averages, strict=True):
        if average is None:
            fingerprints.append(None)
            continue
        fingerprints.append(_add_fingerprint(optimizer, variable))
        value = backend.concrete_value(variable)
        if value is not None:
            backend.assign_now(average, value)
    return fingerprints


def fingerprint(weights, dtype: str):
    """The sum of the bits of a float tensor, as integers.

    Whole numbers add up to the same in any order, so that two programs agree.
    """
    kind = keras.backend.standardize_dtype(weights.dtype)
    bits = ops.view(ops.convert_to_tensor(weights), _BITS[kind])
    return ops.sum(ops.cast(bits, dtype))


def assigned(
    variables: Sequence[keras.Variable],
    fingerprints: Sequence[keras.Variable | None],
) -> list:
    """Whether each variable was assigned since its fingerprint was taken."""
    return [
        None
        if known is None
        else ops.not_equal(fingerprint(variable, known.dtype), known)
        for variable, known in zip(variables, fingerprints, strict=True)
    ]


def update_averages(
    variables: Sequence[keras.Variable],
    averages: Sequence[keras.Variable | None],
    fingerprints: Sequence[keras.Variable | None],
    changed: Sequence,
    *,
    momentum: float,
    overwrite_frequency: int | None,
    update_count,
    is_update,
) -> None:
    """`average <- m * average + (1 - m) * w`, with m = 0 at the first update.

    m is 0 too where the weights were assigned from outside: an average of
    others does not belong to them. Before the first update the average is the
    weights.

    Args:
        variables: model variables, after the decay.
        averages: their averages, same shapes; None for what has none.
        fingerprints: taken anew, see `add_fingerprint`.
        changed: what `assigned` said before the step.
        momentum: m, in [0, 1].
        overwrite_frequency: after every so many updates the variables take
            the value of their averages; None for never.
        update_count: scalar integer tensor, this update included.
        is_update: scalar boolean tensor, whether this is a real update; None
            if every step is.
    """
    first = ops.equal(update_count, 1)
    for variable, average, known, outside in zip(
        variables, averages, fingerprints, changed, strict=True
    ):
        if average is None:
            continue
        anew = first if outside is None else ops.logical_or(first, outside)
        kept = ops.cast(ops.where(anew, 0.0, momentum), average.dtype)
        mean = kept * average + (1 - kept) * variable
        if is_update is not None:
            moves = ops.logical_or(is_update, anew)
            mean = ops.where(moves, mean, ops.convert_to_tensor(average))
        average.assign(mean)
        if overwrite_frequency:
            due = ops.equal(update_count % overwrite_frequency, 0)
            if is_update is not None:
                due = ops.logical_and(due, is_update)
            variable.assign(
                ops.where(due, mean, ops.convert_to_tensor(variable))
            )
        if known is not None:
            known.assign(fingerprint(variable, known.dtype))


def release_averages(
    variables: Sequence[keras.Variable],
    averages: Sequence[keras.Variable | None],
    fingerprints: Sequence[keras.Variable | None],
) -> None:
    """After variables took the value of their averages: share nothing.

    On JAX a variable and its average would then hold one array, which no
    compiled step can take twice. The variables are those of the average now.
    """
    for variable, average, known in zip(
        variables, averages, fingerprints, strict=True
    ):
        if average is not None:
            average.assign(ops.copy(ops.convert_to_tensor(average)))
            if known is not None:
                known.assign(fingerprint(variable, known.dtype))
