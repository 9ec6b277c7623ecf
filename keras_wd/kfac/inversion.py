"""Damped inverses of the running averages, made between the steps."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.kfac.block_state import BlockState
from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.ops import kronecker
from keras_wd.ops import packed

# Damping of an inversion and of its repetitions: a factor on the damping, and
# a part of the mean curvature besides.
ATTEMPTS = ((1.0, 0.0), (10.0, 1e-6), (100.0, 1e-5), (1000.0, 1e-4))

# How much larger than it is a matrix may be made to share a program, which
# costs less than half as much arithmetic again.
STRETCH = 9 / 8


class Inversion:
    """The damped inverses of the running averages.

    An inverse that is not finite, or of a matrix that is not positive
    definite, is tried again with more damping (see `ATTEMPTS`); if that does
    not help either, the last good inverse stays. Both are counted.

    Making a program takes longer than running it, so they are shared: by
    matrices of almost the same size, which are filled up, and by other blocks
    of one shape.

    Args:
        state: averages and inverses.
        jit_compile: compile with XLA.
    """

    def __init__(self, state: BlockState, jit_compile: bool):
        self._state = state
        self._jit_compile = jit_compile
        self._scope = autodiff.kept_scope()
        self._programs = {}
        self._sizes = shared_sizes(
            shape[-1]
            for block in state.blocks
            if _is_by_factor(block)
            for shape in block.factors().values()
        )

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
            for i in wanted:
                done[i] = self._renew(
                    i, damping * factor, relative, bool(first[i])
                )
            if done.all():
                break
        with self._scope():
            state.inversions.assign_add(done.astype("float32"))
            state.retries.assign_add(retries)
            state.failures.assign_add((~done).astype("float32"))
        return done

    def _renew(self, index, damping, relative, first):
        """Renew one block's inverses, if they are usable; whether they are."""
        state, block = self._state, self._state.blocks[index]
        number = np.dtype(state.dtypes[index]).type
        factors = [
            self._whole(autodiff.read(variable), shape)
            for variable, shape in zip(
                state.factors[index], block.factors().values(), strict=True
            )
        ]
        amounts = [
            ops.convert_to_tensor(number(amount))
            for amount in (damping, relative)
        ]
        variables = state.inverses[index]
        if _is_by_factor(block):
            sizes = [factor.shape[-1] for factor in factors]
            filled = [*map(self._filled, factors)]
            # Diagonals of one number stand for matrices of any size.
            means = [*map(self._mean_diagonal, filled, sizes)]
            shares = self._run(
                ("dampings", state.dtypes[index]),
                block.dampings,
                means,
                *amounts,
            )
            pairs = map(self._inverse, filled, shares, sizes)
            inverses, usable = zip(*pairs, strict=True)
        else:
            inverses, *usable = self._run(
                _shape_of(block),
                _renewal(block),
                factors,
                [autodiff.read(variable) for variable in variables],
                ops.convert_to_tensor(first),
                *amounts,
            )
        if not all(bool(ops.convert_to_numpy(good)) for good in usable):
            return False
        with self._scope():
            state.assign_inverses(index, inverses)
        return True

    def _whole(self, factor, shape):
        """A factor of this shape as one matrix."""
        if not packed.is_rectangle(shape):
            return factor
        key = ("whole", shape, factor.dtype)
        return self._run(key, packed.from_rectangle, factor)

    def _filled(self, factor):
        """A matrix, filled up with zeros to a size that others have too."""
        filling = self._sizes[factor.shape[-1]] - factor.shape[-1]
        if not filling:
            return factor
        return ops.pad(factor, ((0, filling), (0, filling)))

    def _mean_diagonal(self, factor, size):
        """The mean of the first entries of a diagonal, (1,)."""
        return self._run(
            ("mean", factor.shape[-1], factor.dtype),
            _mean_diagonal,
            factor,
            ops.convert_to_tensor(size, "int32"),
        )

    def _inverse(self, factor, share, size):
        """The damped inverse of one matrix, and whether it is usable."""
        inverse, usable = self._run(
            (factor.shape[-1], factor.dtype),
            _inverse_of_matrix,
            factor,
            share,
            ops.convert_to_tensor(size, "int32"),
        )
        if size < factor.shape[-1]:
            inverse = inverse[:size, :size]
        return inverse, usable

    def _run(self, key, function, *args):
        """Run a program; those of one key are the same."""
        if key not in self._programs:
            self._programs[key] = autodiff.compiled(
                function, (), (), self._jit_compile
            )
        return self._programs[key](*args)


def shared_sizes(sizes: Iterable[int]) -> dict[int, int]:
    """To which size each is filled up: that of one that is there.

    >>> shared_sizes([64, 65, 513, 577])
    {577: 577, 513: 577, 65: 65, 64: 65}
    """
    found, largest = {}, 0
    for size in sorted(set(sizes), reverse=True):
        if largest > size * STRETCH or not largest:
            largest = size
        found[size] = largest
    return found


def _shape_of(block):
    """What two blocks have in common that one program can invert."""
    count = len(block.variables)
    return dataclasses.replace(
        block, name="", layer="", variables=tuple(range(count))
    )


def _is_by_factor(block):
    return isinstance(block, KroneckerBlock) and block.is_full


def _mean_diagonal(factor, size):
    total = ops.sum(ops.diagonal(factor), keepdims=True)
    return total / ops.cast(size, total.dtype)


def _inverse_of_matrix(factor, share, size):
    return kronecker.damped_inverse(
        factor,
        share,
        0,
        autodiff.cholesky,
        size,
        autodiff.MOST_ROWS_WRITTEN_OUT,
    )


def _renewal(block):
    def renew(factors, inverses, first, damping, relative):
        return block.invert(
            factors, inverses, first, damping, relative, autodiff.cholesky
        )

    return renew
