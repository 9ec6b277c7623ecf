"""The state of all blocks as variables of the optimizer."""

from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd.backend import curvature as seam
from keras_wd.kfac.blocks import Block


def _initial_inverse(block: Block, shape: tuple) -> Callable:
    """The identity: a block without a good inverse uses the plain gradient."""
    value = np.ones(shape)
    if "unit_factor" in block.factors():
        value[(shape[0] + 1) // 2 :] = 0.0
    elif len(shape) == 2 + block.packing.group_axes:
        value[...] = np.eye(shape[-1])
    return lambda shape, dtype=None: ops.convert_to_tensor(value, dtype=dtype)


class BlockState:
    """The running averages and damped inverses of all blocks.

    Args:
        blocks: the blocks.
        add: `Optimizer.add_variable`.
        dtypes: of each block's variables; factors are float32, or float64
            for float64 variables.
    """

    def __init__(
        self, blocks: Sequence[Block], add: Callable, dtypes: Sequence[str]
    ):
        self.blocks = list(blocks)
        self.dtypes = [
            "float64" if dtype == "float64" else "float32" for dtype in dtypes
        ]
        self.factors, self.inverses = [], []
        for block, dtype in zip(self.blocks, self.dtypes, strict=True):
            name = block.name.replace("/", "_")
            shapes = block.factors()
            self.factors.append(
                [
                    add(shape, "zeros", dtype=dtype, name=f"{name}_{key}")
                    for key, shape in shapes.items()
                ]
            )
            self.inverses.append(
                [
                    add(
                        shape,
                        _initial_inverse(block, shape),
                        dtype=dtype,
                        name=f"{name}_{key}_inverse",
                    )
                    for key, shape in shapes.items()
                ]
            )
        count = (len(self.blocks),)

        def counter(name):
            return add(count, "zeros", dtype="float32", name=name)

        self.updates = counter("curvature_updates")
        self.skipped = counter("curvature_skipped")
        self.inversions = counter("curvature_inversions")
        self.retries = counter("curvature_retries")
        self.failures = counter("curvature_failures")

    def count_measurements(self) -> int:
        """Batches measured so far, skipped ones too."""
        tried = seam.read(self.updates) + seam.read(self.skipped)
        return int(ops.convert_to_numpy(ops.max(tried)))

    def count_inversions(self) -> int:
        """Inverses found so far."""
        found = ops.sum(seam.read(self.inversions))
        return int(ops.convert_to_numpy(found))

    @property
    def averages(self) -> list[keras.Variable]:
        """What a measurement assigns."""
        factors = [f for block in self.factors for f in block]
        return [*factors, self.updates, self.skipped]

    @property
    def inverted(self) -> list[keras.Variable]:
        """What an inversion assigns."""
        inverses = [i for block in self.inverses for i in block]
        return [*inverses, self.inversions, self.retries, self.failures]
