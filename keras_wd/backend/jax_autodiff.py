"""Derivatives, and programs of their own, with JAX."""

import contextlib
from collections.abc import Callable
from collections.abc import Sequence

import jax
import keras
from jax import numpy as jnp

# Rows of a matrix whose inverse is one program without a loop: XLA takes a
# second for every few hundred.
MOST_ROWS_WRITTEN_OUT: int | None = 256


def compiled(
    function: Callable,
    reads: Sequence[keras.Variable],
    writes: Sequence[keras.Variable],
    jit_compile: bool,
) -> Callable:
    """`function` as one program; its assignments to `writes` take effect.

    Args:
        function: computes with Keras variables and assigns some of them.
        reads: every variable it reads and does not assign.
        writes: every variable it assigns.
        jit_compile: JAX always compiles.
    """

    def pure(read_values, write_values, *args):
        values = [*read_values, *write_values]
        mapping = list(zip([*reads, *writes], values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as state:
            result = function(*args)
        return result, [state.get_current_value(v) for v in writes]

    program = jax.jit(pure)

    def run(*args):
        result, values = program(
            [v.value for v in reads], [v.value for v in writes], *args
        )
        for variable, value in zip(writes, values, strict=True):
            variable.assign(value)
        return result

    return run


def xla_pays_for_few_runs() -> bool:
    """JAX always compiles."""
    return True


def tapped_vjp(function: Callable) -> tuple:
    """Run `function(tap)` and differentiate at the tensors it taps.

    Args:
        function: calls `tap(tensor)`, which returns the tensor to go on with,
            and returns a list of outputs and anything else.

    Returns:
        The outputs, the anything else, and `pullback(cotangents)`: one tensor
        per tap, in order, zeros where the outputs do not depend on it.
    """
    shapes = []

    def shaped():
        def tap(tensor):
            shapes.append(jax.ShapeDtypeStruct(tensor.shape, tensor.dtype))
            return tensor

        return function(tap)

    jax.eval_shape(shaped)

    def perturbed(perturbations):
        remaining = iter(perturbations)
        return function(lambda tensor: tensor + next(remaining))

    # XLA folds the zeros away.
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    outputs, vjp, rest = jax.vjp(perturbed, zeros, has_aux=True)

    def pullback(cotangents):
        return vjp(list(cotangents))[0]

    return outputs, rest, pullback


def for_each(function: Callable, rows, unrolled: bool):
    """`function(row)`, a number of the dtype of the rows: `(rows,)`.

    Args:
        function: of one row.
        rows: an array.
        unrolled: write the program out for every row; it takes longer to
            compile, but convolutions in a loop are slow.
    """
    if unrolled:
        return jnp.stack([function(row) for row in rows])
    return jax.vmap(function)(rows)


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
    fixed = [(variable, variable.value) for variable in constants]

    def at(values):
        moved = list(zip(variables, values, strict=True))
        # A scope of its own, which does not see the values of an outer one.
        with keras.StatelessScope(state_mapping=[*moved, *fixed]):
            return function()

    values = [variable.value for variable in variables]
    return jax.jvp(at, (values,), (list(tangents),))[1]


def traced(function: Callable) -> None:
    """Run `function` for what it does besides; nothing is computed."""

    def nothing():
        function()
        return jnp.zeros(())

    jax.eval_shape(nothing)


def cholesky(matrix):
    """The lower factor; NaN where the matrix is not positive definite."""
    return jnp.linalg.cholesky(matrix)


def read(variable: keras.Variable):
    """The value as a tensor."""
    return variable.value


def kept_scope() -> Callable:
    """Variables are assigned anywhere."""
    return contextlib.nullcontext


def scope(model: keras.Model):
    """Variables are created anywhere."""
    return contextlib.nullcontext()


def sum_over_replicas(tensors: Sequence) -> list:
    """Sharded programs see whole sums already."""
    return list(tensors)


def dense(tensor):
    """The tensor: JAX has no ragged ones."""
    return tensor
