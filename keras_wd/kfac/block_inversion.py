"""The damped inverses of one block, by programs or by NumPy."""

import collections
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.backend import devices
from keras_wd.kfac.allocation import shared_sizes
from keras_wd.kfac.block_state import BlockState
from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.kfac.blocks import ScaleShiftBlock
from keras_wd.ops import kronecker
from keras_wd.ops import packed
from keras_wd.ops import symmetric


def most_by_numpy(held: Sequence) -> float:
    """Multiplications of the largest inverse that NumPy finds, on the host.

    Where a CPU computes it finds all, as fast as a program or faster. Elsewhere
    up to 256 rows: making a program takes a thousand times longer than running
    it. On several devices of a CPU, each inverts its part by programs.

    Args:
        held: see `keras_wd.backend.devices.holding`.
    """
    on_host = len(held) == 1 and devices.available()[0] == "cpu"
    return math.inf if on_host else 256**3


class BlockInversion:
    """Inverts one block on one device.

    A small matrix, and on a CPU any, is inverted by NumPy. Making a program for
    a larger one takes a second or more, so that they are shared: by matrices
    that are filled up to one size (see `shared_sizes`), and by other blocks of
    one shape.

    Args:
        state: averages and inverses.
        jit_compile: compile with XLA.
        most_by_numpy: multiplications of the largest inverse that NumPy finds.
    """

    def __init__(
        self, state: BlockState, jit_compile: bool, most_by_numpy: float
    ):
        self._state = state
        self._jit_compile = jit_compile
        self._most_by_numpy = most_by_numpy
        self._programs = {}
        self._sizes = shared_sizes(
            collections.Counter(
                shape[-1]
                for block in state.blocks
                if isinstance(block, KroneckerBlock)
                for shape in block.factors().values()
                if len(shape) == 2 and not self._by_numpy(block, shape)
            ),
            _multiplications,
        )

    def cost(self, index: int) -> float:
        """Multiplications on a device, but for a factor."""
        block = self._state.blocks[index]
        if self._wholly_by_numpy(block):
            return 0.0
        shapes = block.factors().values()
        if not isinstance(block, KroneckerBlock):
            return float(sum(math.prod(s) * s[-1] for s in shapes))
        return float(
            sum(
                _multiplications(shape[-1], self._sizes[shape[-1]])
                if len(shape) == 2
                else math.prod(shape) * shape[-1]
                for shape in shapes
                if not self._by_numpy(block, shape)
            )
        )

    def programs(self, index: int) -> frozenset:
        """What stands for the larger programs that a block needs."""
        block = self._state.blocks[index]
        shapes = block.factors().values()
        if not isinstance(block, KroneckerBlock):
            return frozenset([tuple(shapes)])
        return frozenset(
            self._sizes[shape[-1]] if len(shape) == 2 else shape
            for shape in shapes
            if not self._by_numpy(block, shape)
        )

    def __call__(
        self,
        index: int,
        device,
        damping: float,
        relative: float,
        first: bool,
    ) -> list | None:
        """The inverses in the parts they are kept in; None if not usable.

        Args:
            index: of the block.
            device: where to; see `keras_wd.backend.devices.holding`.
            damping: added to the curvature.
            relative: this part of the mean curvature is added too.
            first: whether there was no inversion before.
        """
        state, block = self._state, self._state.blocks[index]
        number = np.dtype(state.dtypes[index]).type
        damping, relative = number(damping), number(relative)
        factors = [devices.read(v, device) for v in state.factors[index]]
        if isinstance(block, KroneckerBlock):
            return self._kronecker(block, factors, damping, relative)
        if isinstance(block, ScaleShiftBlock):
            entries = ops.convert_to_numpy(factors[0])
            with np.errstate(all="ignore"):
                inverse, usable = block.invert(entries, damping, relative)
            return [inverse] if usable else None
        inverses = [devices.read(v, device) for v in state.inverses[index]]
        if self._wholly_by_numpy(block):
            factors, inverses = (
                [*map(ops.convert_to_numpy, own)] for own in (factors, inverses)
            )
            with np.errstate(all="ignore"):
                inverses, usable = _renewal(block, np)(factors, inverses, first)
        else:
            inverses, usable = self._run(
                _shape_of(block),
                _renewal(block),
                factors,
                inverses,
                ops.convert_to_tensor(first),
            )
        return inverses if _is_true(usable) else None

    def _kronecker(self, block, factors, damping, relative):
        axes = block.packing.group_axes
        shapes = [*block.factors().values()]
        prepared = [*map(self._prepared, factors, shapes, [block] * 2)]
        factors, means = zip(*prepared, strict=True)
        with np.errstate(all="ignore"):
            shares = block.dampings(means, damping, relative)
        inverses, usable = [], []
        for factor, share, shape in zip(factors, shares, shapes, strict=True):
            if self._by_numpy(block, shape):
                with np.errstate(all="ignore"):
                    inverse, good = kronecker.damped_inverse(
                        factor, share, axes, symmetric.inverse_by_numpy, xp=np
                    )
            else:
                inverse, good = self._inverse(factor, share, axes, shape[-1])
            inverses.append(inverse)
            usable.append(good)
        if not all(map(_is_true, usable)):
            return None
        return [
            part
            for inverse, shape in zip(inverses, shapes, strict=True)
            for part in self._parts(inverse, shape)
        ]

    def _prepared(self, factor, shape, block):
        """A matrix as it is inverted, and the mean of its diagonal, (...,)."""
        axes = block.packing.group_axes
        if self._by_numpy(block, shape):
            factor = ops.convert_to_numpy(factor)
            if packed.is_rectangle(shape):
                factor = packed.lower_of_rectangle(factor)
            return factor, kronecker.mean_diagonal(factor, axes, np)
        size = self._sizes[shape[-1]] if len(shape) == 2 else shape[-1]

        def prepare(factor):
            whole = _whole(factor, shape)
            mean = kronecker.mean_diagonal(whole, axes)
            filling = size - shape[-1]
            if filling:
                whole = ops.pad(whole, ((0, filling), (0, filling)))
            return whole, mean

        whole, mean = self._run(
            ("prepare", shape, size, factor.dtype), prepare, factor
        )
        return whole, ops.convert_to_numpy(mean)

    def _inverse(self, factor, share, axes, size):
        """The damped inverse of one matrix, and whether it is usable."""
        return self._run(
            (tuple(factor.shape), factor.dtype),
            _grouped_inverse if axes else _inverse_of_matrix,
            factor,
            ops.convert_to_tensor(share),
            *([] if axes else [ops.convert_to_tensor(size, "int32")]),
        )

    def _parts(self, inverse, shape):
        """An inverse without its filling, as it is kept."""
        if isinstance(inverse, np.ndarray):
            return packed.split(inverse)
        if (
            tuple(inverse.shape)
            == tuple(shape)
            == packed.split_shapes(shape)[0]
        ):
            return [inverse]

        def parts(inverse):
            return packed.split(inverse[: shape[-1], : shape[-1]])

        key = ("parts", shape, tuple(inverse.shape), inverse.dtype)
        return self._run(key, parts, inverse)

    def _wholly_by_numpy(self, block):
        return isinstance(block, ScaleShiftBlock) or all(
            self._by_numpy(block, shape) for shape in block.factors().values()
        )

    def _by_numpy(self, block, shape):
        """Whether NumPy inverts a factor: a diagonal, or a small matrix."""
        if len(shape) == block.packing.group_axes + 1:
            return True
        return math.prod(shape) * shape[-1] <= self._most_by_numpy

    def _run(self, key, function, *args):
        """Run a program; those of one key are the same."""
        if key not in self._programs:
            self._programs.setdefault(
                key, autodiff.compiled(function, (), (), self._jit_compile)
            )
        return self._programs[key](*args)


def _multiplications(size, filled):
    """Of inverting a matrix that is filled up, but for a factor."""
    written_out = autodiff.MOST_ROWS_WRITTEN_OUT
    if written_out is None or filled <= written_out:
        return float(filled) ** 3
    return float(size) * filled**2


def _whole(factor, shape, xp=ops):
    if not packed.is_rectangle(shape):
        return factor
    return packed.from_rectangle(factor, xp)


def _renewal(block, xp=ops):
    def renew(factors, inverses, first):
        shapes = block.factors().values()
        whole = [
            _whole(*pair, xp) for pair in zip(factors, shapes, strict=True)
        ]
        return block.invert(whole, inverses, first, xp)

    return renew


def _is_true(usable):
    return bool(ops.convert_to_numpy(usable))


def _shape_of(block):
    """What two blocks have in common that one program can invert."""
    count = len(block.variables)
    return dataclasses.replace(
        block, name="", layer="", variables=tuple(range(count))
    )


def _inverse_of_matrix(factor, share, size):
    return kronecker.damped_inverse(
        factor,
        share,
        0,
        lambda matrix: symmetric.inverse(
            matrix, autodiff.cholesky, autodiff.MOST_ROWS_WRITTEN_OUT, size
        ),
        size,
    )


def _grouped_inverse(factor, share):
    return kronecker.damped_inverse(
        factor,
        share,
        1,
        lambda matrix: symmetric.inverse(matrix, autodiff.cholesky),
    )
