"""The state of all blocks as variables of the optimizer."""

from collections.abc import Callable
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.kfac.blocks import Block
from keras_wd.kfac.eigenbasis import EigenBlock


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
                        _constant(block, key),
                        dtype=dtype,
                        name=f"{name}_{key}",
                    )
                    for key, shape in block.inverses().items()
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
        tried = autodiff.read(self.updates) + autodiff.read(self.skipped)
        return int(ops.convert_to_numpy(ops.max(tried)))

    def count_inversions(self) -> int:
        """Inverses found so far."""
        found = ops.sum(autodiff.read(self.inversions))
        return int(ops.convert_to_numpy(found))

    def averages(self, index: int) -> list[keras.Variable]:
        """What a measurement moves of a block, in order."""
        moments = self.inverses[index][-1:] if self.has_moments(index) else []
        return [*self.factors[index], *moments]

    def has_moments(self, index: int) -> bool:
        """Whether a block has second moments in an eigenbasis."""
        return isinstance(self.blocks[index], EigenBlock)

    def bases(self, index: int) -> list[keras.Variable]:
        """What a measurement reads of such a block besides."""
        return self.inverses[index][:-1] if self.has_moments(index) else []

    def curvature(self, index: int) -> list:
        """The tensors that hold a block's curvature."""
        held = self.blocks[index].curvature(
            self.factors[index], self.inverses[index]
        )
        return [autodiff.read(variable) for variable in held]


def _constant(block, key):
    def initializer(shape, dtype=None):
        return ops.convert_to_tensor(block.initial(key), dtype=dtype)

    return initializer
