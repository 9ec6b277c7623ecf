"""Derivatives, and programs of their own, with TensorFlow."""

import contextlib
from collections.abc import Callable
from collections.abc import Sequence

import keras
import tensorflow as tf

# Programs of any length are made quickly: no inverse needs a loop.
MOST_ROWS_WRITTEN_OUT: int | None = None


def compiled(
    function: Callable,
    reads: Sequence[keras.Variable],
    writes: Sequence[keras.Variable],
    jit_compile: bool,
) -> Callable:
    """`function` as one program; its assignments take effect.

    TensorFlow finds by itself which variables are read and written.
    """
    program = tf.function(function, jit_compile=jit_compile, autograph=False)
    scope = kept_scope()

    def run(*args):
        with scope():
            return program(*args)

    return run


def kept_scope() -> Callable:
    """A function to the scope of the strategy that is in force now."""
    strategy = tf.distribute.get_strategy()
    return lambda: _in_scope_of(strategy)


def _in_scope_of(strategy):
    if strategy.num_replicas_in_sync == 1:
        return contextlib.nullcontext()
    return strategy.scope()


def xla_pays_for_few_runs() -> bool:
    """Whether a program that runs a few times should be compiled by XLA.

    On a CPU that takes longer than the runs, and convolutions are slower.
    """
    devices = tf.config.list_logical_devices()
    return any(device.device_type != "CPU" for device in devices)


def tapped_vjp(function: Callable) -> tuple:
    """Run `function(tap)` and differentiate at the tensors it taps.

    Args:
        function: calls `tap(tensor)`, which returns the tensor to go on with,
            and returns a list of outputs and anything else.

    Returns:
        The outputs, the anything else, and `pullback(cotangents)`: one tensor
        per tap, in order, zeros where the outputs do not depend on it.
    """
    taps = []
    # Only the taps are watched: the tape starts where it first matters.
    tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)

    def tap(tensor):
        tensor = tf.identity(tensor)
        tape.watch(tensor)
        taps.append(tensor)
        return tensor

    with tape:
        outputs, rest = function(tap)

    def pullback(cotangents):
        return tape.gradient(
            outputs,
            taps,
            output_gradients=cotangents,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    return outputs, rest, pullback


def for_each(function: Callable, rows, unrolled: bool):
    """`function(row)`, a number of the dtype of the rows: `(rows,)`.

    Args:
        function: of one row.
        rows: a tensor.
        unrolled: write the program out for every row; it takes longer to
            compile, but convolutions in a loop are slow.
    """
    if unrolled:
        return tf.stack([function(row) for row in tf.unstack(rows)])
    return tf.map_fn(function, rows, fn_output_signature=rows.dtype)


def jvp(
    function: Callable,
    variables: Sequence[keras.Variable],
    tangents: Sequence,
    constants: Sequence[keras.Variable],
):
    """The derivative of `function()` along a direction of its variables.

    Args:
        function: reads variables and returns a tensor.
        variables: those that move.
        tangents: where to, one per variable.
        constants: every other variable it reads.
    """
    values = [variable.value for variable in variables]
    with tf.autodiff.ForwardAccumulator(values, list(tangents)) as accumulator:
        output = function()
    return accumulator.jvp(output, tf.UnconnectedGradients.ZERO)


def traced(function: Callable) -> None:
    """Run `function` for what it does besides; nothing is computed."""

    def nothing():
        function()
        return tf.constant(0)

    tf.function(nothing, autograph=False).get_concrete_function()


def cholesky(matrix):
    """The lower factor; NaN where the matrix is not positive definite."""
    return tf.linalg.cholesky(matrix)


def read(variable: keras.Variable):
    """The value as a tensor.

    `ops.convert_to_tensor` returns the variable itself.
    """
    return tf.convert_to_tensor(variable.value)


def scope(model: keras.Model):
    """The scope in which variables that belong to the model are created."""
    return _in_scope_of(model.distribute_strategy)


def sum_over_replicas(tensors: Sequence) -> list:
    """The sums over replicas, on every replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(tensors)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))


def dense(tensor):
    """The tensor, filled with zeros where it is sparse.

    Raises:
        ValueError: if it is ragged.
    """
    if isinstance(tensor, tf.RaggedTensor):
        raise ValueError(
            "`x` must not be ragged: K-FAC needs every example to have the "
            f"same rows. Received: a ragged tensor of shape {tensor.shape}. "
            "Pad it by `to_tensor()`, with Masking or "
            "Embedding(mask_zero=True) as the first layer."
        )
    if isinstance(tensor, tf.SparseTensor):
        return tf.sparse.to_dense(tensor)
    return tensor
