"""Backends that run operation by operation and change tensors in place."""

import contextlib

import keras
import numpy as np
from keras import ops


def assign_now(variable: keras.Variable, value: np.ndarray) -> None:
    """Assign a value at once."""
    variable.assign(value)


def concrete_value(variable: keras.Variable) -> np.ndarray | None:
    """The value a variable holds now; never None here."""
    return ops.convert_to_numpy(variable.value)


def snapshot(variable: keras.Variable):
    """A copy of the variable's value that an update in place spares."""
    return ops.copy(ops.convert_to_tensor(variable))


def replica_count() -> int:
    """One process, one replica."""
    return 1


def is_traced(tensor: object) -> bool:
    """Whether a tensor stands for a value; never here."""
    return False


def outside_program():
    """A context in which operations run now; optimizers are built there."""
    return contextlib.nullcontext()


def tracing_for_xla() -> bool:
    """Operations run one by one."""
    return False


def always_fused() -> bool:
    """Whether all operations are fused into loops, which none are here."""
    return False


def writes_terms_of_sums() -> bool:
    """Whether a long sum first writes its terms into memory."""
    return False
