"""What K-FAC registered and what it measured, for people and for logs."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd import tables
from keras_wd.backend import autodiff
from keras_wd.kfac.curvature import Curvature
from keras_wd.kfac.registration import Registration


def table(registration: Registration, names: Sequence[str]) -> str:
    """One line per variable: block, factors and memory, or the reason.

    Args:
        registration: the blocks.
        names: paths of the optimizer's variables.
    """
    rows = []
    total = 0
    for position, name in enumerate(names):
        block = next(
            (b for b in registration.blocks if position in b.variables), None
        )
        if block is None:
            reason = registration.reasons[position]
            rows.append((name, "plain gradient", reason, ""))
        elif position != block.variables[0]:
            first = names[block.variables[0]]
            rows.append((name, "with", first, ""))
        else:
            factors = ", ".join(
                f"{key} {'x'.join(map(str, shape))}"
                for key, shape in block.factors().items()
            )
            kind = f"{type(block).__name__} ({block.layer})"
            rows.append((name, kind, factors, _size(block.memory)))
            total += block.memory
    lines = tables.table(("variable", "block", "factors", "memory"), rows)
    return f"{lines}\ntotal: {_size(total)} for factors and inverses"


def _size(count):
    power = min(int(math.log(count, 1024)), 3) if count else 0
    unit = ("B", "KiB", "MiB", "GiB")[power]
    return f"{count / 1024**power:.4g} {unit}"


def _array(variable):
    # Through a tensor: NumPy 2 warns about converting a Keras variable.
    return ops.convert_to_numpy(autodiff.read(variable))


def numbers(curvature: Curvature) -> dict[str, float]:
    """Counts and seconds as Python numbers."""
    state, spent = curvature.state, curvature.seconds.spent

    def total(counter):
        return float(_array(counter).sum())

    return {
        "curvature_updates": float(_array(state.updates).max()),
        "curvature_skipped": total(state.skipped),
        "inverse_retries": total(state.retries),
        "inverse_failures": total(state.failures),
        "compile_seconds": spent["registration"] + spent["compiling"],
        "curvature_seconds": spent["curvature"],
        "inverse_seconds": spent["inverses"],
    }


def trace(curvature: Curvature) -> float:
    """The trace of the whole curvature, the sum over blocks."""
    state = curvature.state
    return sum(
        float(block.trace(state.curvature(index)))
        for index, block in enumerate(state.blocks)
    )


def factors(curvature: Curvature) -> dict[str, dict[str, np.ndarray]]:
    """The running averages by block and factor name."""
    state, found = curvature.state, {}
    for index, block in enumerate(state.blocks):
        names = [*block.factors()]
        if state.has_moments(index):
            names.append("second_moments")
        values = [*state.read_factors(index)]
        if state.has_moments(index):
            values.append(autodiff.read(state.averages(index)[-1]))
        found[block.name] = {
            name: np.array(ops.convert_to_numpy(value))
            for name, value in zip(names, values, strict=True)
        }
    return found


def quadratic_form(curvature: Curvature, values: dict) -> float:
    """`sum v . C v` over the blocks, for values by position."""
    products = curvature.times(values)
    return sum(
        float(ops.sum(ops.cast(values[i], product.dtype) * product))
        for i, product in products.items()
    )


def blocks(
    curvature: Curvature, variables: Sequence[keras.Variable], damping: float
) -> dict[str, dict[str, float]]:
    """Traces, squared norm and effective damping of every block, by name."""
    state = curvature.state
    found = {}
    for index, block in enumerate(state.blocks):
        norm = sum(
            float(np.sum(np.square(_array(variables[i]))))
            for i in block.variables
        )
        arrays = [*map(ops.convert_to_numpy, state.read_factors(index))]
        found[block.name] = {
            **block.factor_traces(arrays),
            "weight_norm_squared": norm,
            "effective_damping": norm * damping,
        }
    return found
