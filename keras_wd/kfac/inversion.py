"""Damped inverses of the running averages, made between the steps."""

import dataclasses

import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.kfac.blocks import Block
from keras_wd.kfac.state import BlockState

# Damping of an inversion and of its repetitions: a factor on the damping, and
# a part of the mean curvature besides.
ATTEMPTS = ((1.0, 0.0), (10.0, 1e-6), (100.0, 1e-5), (1000.0, 1e-4))


class Inversion:
    """The damped inverses of the running averages.

    An inverse that is not finite, or of a matrix that is not positive
    definite, is tried again with more damping (see `ATTEMPTS`); if that does
    not help either, the last good inverse stays. Both are counted.

    Blocks of one shape share one compiled program, so that a network of a
    hundred layers compiles as many programs as it has shapes.

    Args:
        state: averages and inverses.
        jit_compile: compile with XLA.
    """

    def __init__(self, state: BlockState, jit_compile: bool):
        self._state = state
        self._scope = autodiff.kept_scope()
        programs = {}
        self._programs = []
        for block in state.blocks:
            shape = _shape_of(block)
            if shape not in programs:
                programs[shape] = autodiff.compiled(
                    _renewal(block), (), (), jit_compile
                )
            self._programs.append(programs[shape])

    def __call__(self, damping: float) -> np.ndarray:
        """Invert; returns which blocks have a new inverse."""
        state = self._state
        first = ops.convert_to_numpy(autodiff.read(state.inversions)) == 0
        done = np.zeros(len(state.blocks), dtype=bool)
        retries = np.zeros(len(state.blocks), dtype="float32")
        for attempt, (factor, relative) in enumerate(ATTEMPTS):
            wanted = np.flatnonzero(~done)
            if attempt:
                retries[wanted] += 1.0
            # All are started before the first answer is waited for.
            usable = [
                self._renew(i, damping * factor, relative, bool(first[i]))
                for i in wanted
            ]
            done[wanted] = ops.convert_to_numpy(ops.stack(usable))
            if done.all():
                break
        with self._scope():
            state.inversions.assign_add(done.astype("float32"))
            state.retries.assign_add(retries)
            state.failures.assign_add((~done).astype("float32"))
        return done

    def _renew(self, index, damping, relative, first):
        """Renew one block's inverses; whether they are usable, not awaited."""
        state = self._state
        number = np.dtype(state.dtypes[index]).type
        variables = state.inverses[index]
        inverses, usable = self._programs[index](
            [autodiff.read(factor) for factor in state.factors[index]],
            [autodiff.read(variable) for variable in variables],
            *map(
                ops.convert_to_tensor,
                (number(damping), number(relative), first),
            ),
        )
        with self._scope():
            for variable, inverse in zip(variables, inverses, strict=True):
                variable.assign(inverse)
        return usable


def _shape_of(block):
    """What two blocks have in common that one program can invert."""
    count = len(block.variables)
    return dataclasses.replace(
        block, name="", layer="", variables=tuple(range(count))
    )


def _renewal(block: Block):
    def renew(factors, inverses, damping, relative, first):
        renewed, usable = block.invert(
            factors, inverses, first, damping, relative, autodiff.cholesky
        )
        kept = [
            ops.where(usable, new, old)
            for new, old in zip(renewed, inverses, strict=True)
        ]
        return kept, usable

    return renew
