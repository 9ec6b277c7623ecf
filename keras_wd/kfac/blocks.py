"""Curvature blocks: one layer's part of the curvature matrix.

A block holds no tensors and knows no layer. It says which arrays its state
consists of, how damped inverses come from them, and how a gradient is
preconditioned. It can be written as plain Python, so that a saved optimizer
knows its blocks without the model.

    KroneckerBlock   A (x) S over (inputs, outputs) of a kernel and its bias
    EigenBlock       the same with measured eigenvalues: see `eigenbasis`
    ScaleShiftBlock  one 2 x 2 matrix per pair of a scale and a shift
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from keras import ops

from keras_wd.kfac.weight_matrix import Packing
from keras_wd.kfac.weight_matrix import in_shape
from keras_wd.ops import kronecker
from keras_wd.ops import packed

SHARING = ("expand", "reduce")


@dataclasses.dataclass(frozen=True)
class Block(abc.ABC):
    """One layer's part of the curvature.

    Args:
        name: path of the layer's first variable.
        layer: kind of layer, for the report.
        variables: positions of the variables among the optimizer's.
    """

    name: str
    layer: str
    variables: tuple[int, ...]

    # Whether square `inverses` are; the factors always are.
    inverses_are_symmetric: ClassVar[bool] = True

    @abc.abstractmethod
    def factors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the running averages by name."""

    def inverses(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what an inversion makes, by name."""
        return {
            f"{name}_inverse": shape for name, shape in self.factors().items()
        }

    @abc.abstractmethod
    def initial(self, name: str) -> np.ndarray:
        """One of `inverses` before there is any: the plain gradient's."""

    @abc.abstractmethod
    def variable_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the variables it preconditions."""

    def curvature(self, factors: Sequence, inverses: Sequence) -> Sequence:
        """Those of the arrays that hold the curvature: the factors."""
        return factors

    @abc.abstractmethod
    def multiply(self, factors: Sequence, values: Sequence) -> list:
        """`curvature` (or the inverses) times values shaped as variables."""

    def precondition(
        self, inverses: Sequence, values: Sequence, damping
    ) -> list:
        """The damped inverse of the curvature times values.

        Args:
            inverses: what an inversion made; the damping may be in there.
            values: shaped as the variables.
            damping: the damping now.
        """
        return self.multiply(inverses, values)

    @abc.abstractmethod
    def trace(self, factors: Sequence):
        """The trace of `curvature`, a scalar."""

    @abc.abstractmethod
    def factor_traces(self, factors: Sequence[np.ndarray]) -> dict[str, float]:
        """The trace of each factor, "trace_" and its name, over groups."""

    def kept_inverses(self) -> dict[str, list[tuple[int, ...]]]:
        """The shapes an array of `inverses` is kept in, several if it is large.

        See `keras_wd.ops.packed.split`.
        """
        if not self.inverses_are_symmetric:
            return {name: [shape] for name, shape in self.inverses().items()}
        return {
            name: packed.split_shapes(shape)
            for name, shape in self.inverses().items()
        }

    @property
    def memory(self) -> int:
        """Bytes of the averages and the inverses in float32, as kept."""
        shapes = [*map(packed.rectangle_shape, self.factors().values())]
        for kept in self.kept_inverses().values():
            shapes += kept
        return 4 * sum(map(math.prod, shapes))

    def get_config(self) -> dict:
        """The block as plain Python."""
        return {"block": type(self).__name__, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class MatrixBlock(Block):
    """The curvature of a linear map, by factors of its inputs and outputs.

    Args:
        name: path of the layer's first variable.
        layer: kind of layer, for the report.
        variables: positions of the variables among the optimizer's.
        packing: how the variables form the matrix.
        diagonal_inputs: keep only the diagonal of A.
        diagonal_outputs: keep only the diagonal of S.
        sharing: "expand", every row for itself; "reduce", the mean row into
            the layer and the sum of the rows out of it, per example.
    """

    packing: Packing
    diagonal_inputs: bool = False
    diagonal_outputs: bool = False
    sharing: str = "expand"

    @property
    def is_full(self) -> bool:
        """Whether A and S are one matrix each, without groups."""
        diagonal = self.diagonal_inputs or self.diagonal_outputs
        return not (diagonal or self.packing.group_axes)

    def factors(self) -> dict[str, tuple[int, ...]]:
        """The shapes of A and S."""
        packing = self.packing
        leading = (packing.groups,) if packing.group_axes else ()

        def shape(size, diagonal):
            return (*leading, size) if diagonal else (*leading, size, size)

        return {
            "input_factor": shape(packing.rows, self.diagonal_inputs),
            "output_factor": shape(packing.outputs, self.diagonal_outputs),
        }

    def variable_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the kernel and of the bias."""
        shapes = [self.packing.kernel]
        if self.packing.bias is not None:
            shapes.append(self.packing.bias)
        return shapes

    def factor_traces(self, factors: Sequence[np.ndarray]) -> dict[str, float]:
        """The traces of A and of S."""
        axes = self.packing.group_axes
        traces = {}
        for name, factor in zip(self.factors(), factors, strict=True):
            if not kronecker.is_diagonal(factor, axes):
                factor = np.diagonal(factor, axis1=-2, axis2=-1)
            traces[f"trace_{name}"] = float(factor.sum())
        return traces

    @classmethod
    def from_config(cls, config: dict) -> "MatrixBlock":
        """The inverse of `get_config` without its "block"."""
        packing = Packing.from_config(config["packing"])
        variables = tuple(config["variables"])
        return cls(**{**config, "packing": packing, "variables": variables})


@dataclasses.dataclass(frozen=True)
class KroneckerBlock(MatrixBlock):
    """The curvature of a linear map as a Kronecker product.

    Formula: block = A (x) S with `A = mean of a a^T` over all rows that enter
    the layer (a with a final 1 if there is a bias) and `S = sum of g g^T`
    over all rows that leave it, divided by the number of loss elements.
    Convention: where a layer acts at T places per example (a convolution, a
    sequence), S sums over the places, which puts the factor T of the
    usual formula inside S; the damped inverse is the same.

    Source: Martens and Grosse, 2015, section 3; Grosse and Martens, 2016,
    section 3 for convolutions; Eschenhagen et al., 2023, for "reduce".
    """

    def initial(self, name: str) -> np.ndarray:
        """The identity."""
        shape = self.inverses()[name]
        if len(shape) == 1 + self.packing.group_axes:
            return np.ones(shape)
        return np.broadcast_to(np.eye(shape[-1], dtype="float32"), shape)

    def dampings(self, means, damping, relative) -> tuple:
        """What is added to the diagonals of A and S.

        The inverses are `(A + pi sqrt(d) I)^-1`, `(S + sqrt(d)/pi I)^-1`.

        Args:
            means: of the diagonals of A and S, per group; arrays.
            damping: added to the curvature.
            relative: this part of the mean curvature is added too.
        """
        # Diagonals of one number stand for matrices of any size.
        inputs, outputs = (np.expand_dims(mean, -1) for mean in means)
        damping = damping + relative * means[0] * means[1]
        axes = self.packing.group_axes
        return kronecker.split_damping(inputs, outputs, damping, axes, np)

    def multiply(self, factors: Sequence, values: Sequence) -> list:
        """`A V S` for V the matrix of the values."""
        inputs, outputs = factors
        matrix = self.packing.pack(*values)
        product = kronecker.multiply_both_sides(
            inputs, matrix, outputs, self.packing.group_axes
        )
        return self.packing.unpack(product)

    def trace(self, factors: Sequence):
        """`tr A * tr S`, summed over groups."""
        inputs, outputs = factors
        axes = self.packing.group_axes
        means = kronecker.mean_diagonal(inputs, axes) * kronecker.mean_diagonal(
            outputs, axes
        )
        return ops.sum(means) * self.packing.rows * self.packing.outputs


@dataclasses.dataclass(frozen=True)
class ScaleShiftBlock(Block):
    """The curvature of a scale and a shift, unit by unit.

    Formula: per unit the mean over loss elements of `v v^T`, with v the
    gradients of one example by the unit's scale and shift. A layer with one
    of the two has 1 x 1 matrices. The damping is added to the diagonal.

    Args:
        name: path of the layer's first variable.
        layer: kind of layer, for the report.
        variables: positions of the variables among the optimizer's.
        shape: shape of the scale and of the shift.

    Source: Osawa et al., 2019, section 3.3 ("unit-wise").
    """

    shape: tuple[int, ...]

    @property
    def _entries(self):
        """Diagonal entries, then the entry beside the diagonal."""
        return 2 * len(self.variables) - 1

    def factors(self) -> dict[str, tuple[int, ...]]:
        """One array: the entries of the matrices, (1 or 3, units)."""
        return {"unit_factor": (self._entries, math.prod(self.shape))}

    def initial(self, name: str) -> np.ndarray:
        """The identity."""
        value = np.ones(self.inverses()[name])
        value[len(self.variables) :] = 0.0
        return value

    def variable_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the scale and the shift."""
        return [self.shape] * len(self.variables)

    def invert(self, entries: np.ndarray, damping, relative) -> tuple:
        """The inverses in closed form, and whether they are usable.

        Args:
            entries: the running averages.
            damping: added to the curvature.
            relative: this part of the mean curvature is added too.
        """
        count = len(self.variables)
        damping = damping + relative * np.mean(entries[:count])
        if count == 1:
            damped = entries + damping
            usable = np.all(damped > 0)
            inverse = 1.0 / damped
        else:
            scale, shift = entries[0] + damping, entries[1] + damping
            beside = entries[2]
            determinant = scale * shift - beside * beside
            usable = np.all((scale > 0) & (determinant > 0))
            inverse = np.stack([shift, scale, -beside]) / determinant
        return inverse, usable and np.all(np.isfinite(inverse))

    def multiply(self, factors: Sequence, values: Sequence) -> list:
        """The matrix of every unit times its values."""
        (entries,) = factors
        units = (math.prod(self.shape),)
        flat = [in_shape(value, units) for value in values]
        if len(flat) == 1:
            products = [entries[0] * flat[0]]
        else:
            scale, shift, beside = ops.unstack(entries)
            products = [
                scale * flat[0] + beside * flat[1],
                beside * flat[0] + shift * flat[1],
            ]
        return [in_shape(product, self.shape) for product in products]

    def trace(self, factors: Sequence):
        """The sum of the diagonal entries."""
        return ops.sum(factors[0][: len(self.variables)])

    def factor_traces(self, factors: Sequence[np.ndarray]) -> dict[str, float]:
        """The trace over all units."""
        diagonal = factors[0][: len(self.variables)]
        return {"trace_unit_factor": float(diagonal.sum())}

    @classmethod
    def from_config(cls, config: dict) -> "ScaleShiftBlock":
        """The inverse of `get_config` without its "block"."""
        shape = tuple(config["shape"])
        variables = tuple(config["variables"])
        return cls(**{**config, "shape": shape, "variables": variables})
