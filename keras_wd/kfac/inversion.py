"""Damped inverses of the running averages, made between the steps."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from concurrent import futures

import numpy as np
import threadpoolctl
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.backend import devices
from keras_wd.kfac import block_inversion
from keras_wd.kfac.allocation import divided
from keras_wd.kfac.block_inversion import BlockInversion
from keras_wd.kfac.block_state import BlockState

# Damping of an inversion and of its repetitions: a factor on the damping, and
# a part of the mean curvature besides.
ATTEMPTS = ((1.0, 0.0), (10.0, 1e-6), (100.0, 1e-5), (1000.0, 1e-4))


class Inversion:
    """The damped inverses of the running averages.

    An inverse that is not finite, or of a matrix that is not positive
    definite, is tried again with more damping (see `ATTEMPTS`); if that does
    not help either, the last good inverse stays. Both are counted.

    Where several devices of this process have the averages, each inverts a
    part of the blocks, and all get the inverses. Processes that train together
    do not divide the blocks among them.

    Args:
        state: averages and inverses.
        jit_compile: compile with XLA.
    """

    def __init__(self, state: BlockState, jit_compile: bool):
        self._state = state
        self._scope = autodiff.kept_scope()
        self._held = devices.holding(state.variables())
        self._invert = BlockInversion(
            state, jit_compile, block_inversion.most_by_numpy(self._held)
        )
        costs = map(self._invert.cost, range(len(state.blocks)))
        # Whether there is a program, whose first run takes longer.
        self.compiles = any(costs)

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

            def invert(index, device, more=damping * factor, part=relative):
                return self._invert(index, device, more, part, first[index])

            with contextlib.closing(self._inverted(wanted, invert)) as found:
                for index, inverses in found:
                    if inverses is not None:
                        with self._scope():
                            state.assign_inverses(index, inverses)
                        done[index] = True
            if done.all():
                break
        with self._scope():
            state.inversions.assign_add(done.astype("float32"))
            # Mostly there are none, and adding them takes as long as a matrix.
            if retries.any():
                state.retries.assign_add(retries)
                state.failures.assign_add((~done).astype("float32"))
        return done

    def _inverted(self, wanted: Sequence[int], invert: Callable) -> Generator:
        """Blocks and what `invert(block, device)` gives, in any order."""
        held = self._held
        costs = {int(index): self._invert.cost(index) for index in wanted}
        large = [index for index in costs if costs[index]]
        if not large:
            yield from _on_host([*costs], held[0], invert)
            return
        if len(held) == 1:
            for index in costs:
                yield index, invert(index, held[0])
            return
        parts = divided(
            [costs[index] for index in large],
            [self._invert.programs(index) for index in large],
            len(held),
        )
        work = {
            device: [large[piece] for piece in part]
            for device, part in zip(held, parts, strict=True)
            if part
        }
        small = [index for index in costs if not costs[index]]
        yield from _on_each(work, small, invert)


# The number of BLAS's threads is that of the process: who changes it is alone.
_BLAS_THREADS = threading.Lock()


def _on_host(blocks: Sequence[int], device, invert: Callable) -> Generator:
    """As many at a time as NumPy may have threads, each by one of them.

    Threads of one product wait for each other, which takes many times the
    product where another program has the core of one.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_BLAS_THREADS)
        blas = _blas()
        counts = [one.num_threads for one in blas.lib_controllers]
        stack.enter_context(blas.limit(limits=1))
        pool = futures.ThreadPoolExecutor(max(counts, default=1))
        stack.enter_context(pool)
        found = pool.map(lambda index: invert(index, device), blocks)
        yield from zip(blocks, found, strict=True)


@functools.cache
def _blas():
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _on_each(work: dict, small: Sequence[int], invert: Callable) -> Generator:
    """A thread for every device, as its operations may block; small ones here.

    Args:
        work: blocks by device.
        small: other blocks.
        invert: see `Inversion._inverted`.
    """
    found = queue.SimpleQueue()

    def run(device, blocks):
        try:
            with devices.on(device):
                for index in blocks:
                    found.put((index, invert(index, device)))
        except BaseException as error:
            found.put((None, error))

    with futures.ThreadPoolExecutor(len(work)) as pool:
        for device, blocks in work.items():
            pool.submit(run, device, blocks)
        first = next(iter(work))
        for index in small:
            yield index, invert(index, first)
        for _ in range(sum(map(len, work.values()))):
            index, result = found.get()
            if index is None:
                raise result
            yield index, result
