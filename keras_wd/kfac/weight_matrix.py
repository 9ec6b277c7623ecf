"""How the variables of a layer form the matrix that K-FAC preconditions."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras import ops


def in_shape(tensor, shape: Sequence[int]):
    """The tensor in that shape; no operation where it has it."""
    if tuple(tensor.shape) == tuple(shape):
        return tensor
    return ops.reshape(tensor, shape)


@dataclasses.dataclass(frozen=True)
class Packing:
    """A kernel and its bias as a matrix, (groups, inputs, outputs).

    The kernel is reshaped to `split`, its axes are put into the order `axes`
    (groups first, then what is summed over, then what comes out), and the
    result is reshaped to the matrix. A bias is the last row. With one group
    there is no group axis.

    Args:
        kernel: shape of the kernel variable.
        split: shape the kernel is reshaped to first.
        axes: the order of the axes of `split` in the matrix.
        groups: number of independent groups.
        inputs: rows that come from the kernel.
        outputs: columns.
        bias: shape of the bias variable, or None.
    """

    kernel: tuple[int, ...]
    split: tuple[int, ...]
    axes: tuple[int, ...]
    groups: int
    inputs: int
    outputs: int
    bias: tuple[int, ...] | None

    @classmethod
    def of(
        cls,
        kernel: Sequence[int],
        bias: Sequence[int] | None,
        *,
        group_axes: int = 0,
        output_axes: int = 1,
        split: Sequence[int] | None = None,
        axes: Sequence[int] | None = None,
    ) -> "Packing":
        """The packing whose matrix has so many group and output axes."""
        kernel = tuple(kernel)
        split = tuple(split or kernel)
        axes = tuple(axes or range(len(split)))
        ordered = [split[axis] for axis in axes]
        inner = len(ordered) - output_axes
        return cls(
            kernel=kernel,
            split=split,
            axes=axes,
            groups=math.prod(ordered[:group_axes]),
            inputs=math.prod(ordered[group_axes:inner]),
            outputs=math.prod(ordered[inner:]),
            bias=None if bias is None else tuple(bias),
        )

    @property
    def group_axes(self) -> int:
        """How many leading axes of the matrix count groups: 0 or 1."""
        return int(self.groups > 1)

    @property
    def rows(self) -> int:
        """Rows of the matrix, the bias's among them."""
        return self.inputs + (self.bias is not None)

    def _shape(self, rows):
        leading = (self.groups,) if self.group_axes else ()
        return (*leading, rows, self.outputs)

    def pack(self, kernel, bias=None):
        """The matrix of a kernel and a bias, or of their gradients."""
        matrix = in_shape(kernel, self.split)
        if self.axes != tuple(range(len(self.axes))):
            matrix = ops.transpose(matrix, self.axes)
        matrix = in_shape(matrix, self._shape(self.inputs))
        if self.bias is None:
            return matrix
        row = ops.reshape(bias, self._shape(1))
        return ops.concatenate([matrix, row], axis=-2)

    def unpack(self, matrix) -> list:
        """The inverse of `pack`: the kernel, and the bias if there is one."""
        kernel = matrix if self.bias is None else matrix[..., : self.inputs, :]
        kernel = in_shape(kernel, [self.split[axis] for axis in self.axes])
        if self.axes != tuple(range(len(self.axes))):
            order = [self.axes.index(axis) for axis in range(len(self.axes))]
            kernel = ops.transpose(kernel, order)
        kernel = in_shape(kernel, self.kernel)
        if self.bias is None:
            return [kernel]
        return [kernel, ops.reshape(matrix[..., self.inputs :, :], self.bias)]

    def get_config(self) -> dict:
        """The fields as plain Python."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Packing":
        """The inverse of `get_config`, also after JSON."""
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.items()
        }
        return cls(**arguments)
