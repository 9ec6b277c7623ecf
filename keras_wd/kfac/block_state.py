"""The state of all blocks as variables of the optimizer."""

from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.backend import devices
from keras_wd.kfac.blocks import Block
from keras_wd.kfac.eigen_block import EigenBlock
from keras_wd.ops import packed
from keras_wd.variables import Given
from keras_wd.variables import whole_layout


class BlockState:
    """The running averages and damped inverses of all blocks.

    Large symmetric matrices are kept without the half that mirrors the other,
    see `keras_wd.ops.packed`: averages as rectangles, inverses in blocks.

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
            self.factors.append(
                [
                    add(
                        shape,
                        Given(np.zeros(shape, "float32")),
                        dtype=dtype,
                        layout=whole_layout(shape),
                        name=f"{name}_{key}",
                    )
                    for key, whole in block.factors().items()
                    for shape in [packed.rectangle_shape(whole)]
                ]
            )
            self.inverses.append(
                [
                    add(
                        part.shape,
                        Given(part),
                        dtype=dtype,
                        layout=whole_layout(part.shape),
                        name=f"{name}_{key}",
                    )
                    for key in block.kept_inverses()
                    for part in _initial(block, key)
                ]
            )
        count = (len(self.blocks),)

        def counter(name):
            return add(
                count,
                "zeros",
                dtype="float32",
                layout=whole_layout(count),
                name=name,
            )

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

    def kept(self, index: int, values: Sequence) -> list:
        """Factors of a block, whole or kept, and its moments, as kept."""
        shapes = [*self.blocks[index].factors().values()]
        return [
            packed.rectangle(value)
            if i < len(shapes)
            and packed.is_rectangle(shapes[i])
            and tuple(value.shape) == tuple(shapes[i])
            else value
            for i, value in enumerate(values)
        ]

    def read_factors(self, index: int) -> list:
        """The factors of a block as whole tensors."""
        return [
            packed.from_rectangle(autodiff.read(variable))
            if packed.is_rectangle(shape)
            else autodiff.read(variable)
            for variable, shape in zip(
                self.factors[index],
                self.blocks[index].factors().values(),
                strict=True,
            )
        ]

    def read_inverses(self, index: int) -> list:
        """The inverses of a block, whole or as `keras_wd.ops.packed.Split`."""
        block, parts = self.blocks[index], iter(self.inverses[index])
        found = []
        for shapes, shape in zip(
            block.kept_inverses().values(),
            block.inverses().values(),
            strict=True,
        ):
            own = [autodiff.read(next(parts)) for _ in shapes]
            found.append(own[0] if len(own) == 1 else packed.Split(own, shape))
        return found

    def assign_inverses(self, index: int, parts: Sequence) -> None:
        """Take over inverses of a block, in the parts they are kept in.

        Any device of this process may have them.
        """
        for variable, part in zip(self.inverses[index], parts, strict=True):
            devices.assign(variable, part)

    def variables(self) -> list[keras.Variable]:
        """The averages and inverses of all blocks."""
        lists = zip(self.factors, self.inverses, strict=True)
        return [v for own in lists for variables in own for v in variables]

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
        return list(
            self.blocks[index].curvature(
                self.read_factors(index), self.read_inverses(index)
            )
        )


def _initial(block, key):
    """The first value of an inverse, in the parts it is kept in."""
    value = block.initial(key)
    return packed.split(value) if block.inverses_are_symmetric else [value]
