"""What is particular to JAX."""

import contextlib

import jax
import keras
import numpy as np
from keras import ops


def assign_now(variable: keras.Variable, value: np.ndarray) -> None:
    """Assign a value at once."""
    variable.assign(value)


def concrete_value(variable: keras.Variable) -> np.ndarray | None:
    """The value a variable holds now; never None here."""
    return np.asarray(variable.value)


def snapshot(variable: keras.Variable):
    """A tensor of the variable's value; arrays are immutable."""
    return ops.convert_to_tensor(variable)


def replica_count() -> int:
    """One: sharded programs see the gradient of the whole batch."""
    return 1


def is_traced(tensor: object) -> bool:
    """Whether a tensor stands for a value in a program that is made."""
    return isinstance(tensor, jax.core.Tracer)


def outside_program():
    """A context in which operations run now; optimizers are built there."""
    return contextlib.nullcontext()


def tracing_for_xla() -> bool:
    """JAX compiles everything with XLA."""
    return True


def always_fused() -> bool:
    """Whether all operations are fused into loops, by XLA."""
    return True


def writes_terms_of_sums() -> bool:
    """Whether a long sum first writes its terms into memory."""
    return False
