"""EKFAC: the block whose curvature is diagonal in a Kronecker eigenbasis."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.kfac.blocks import MatrixBlock
from keras_wd.ops import eigenbasis
from keras_wd.ops import kronecker


@dataclasses.dataclass(frozen=True)
class EigenBlock(MatrixBlock):
    """The curvature of a linear map, diagonal in an eigenbasis.

    Formula: block = `(U (x) V) diag(M) (U (x) V)^T` with U, V the eigenvectors
    of the Kronecker factors A and S and `M = mean of (U^T G V)^2` over the
    gradients G of single examples, summed over the places of an example. The
    damped inverse is exact: `U ((U^T G V) / (M + d)) V^T`; where `M + d` is
    zero, it is the pseudoinverse.
    Convention: M starts as the products of the eigenvalues, with which the
    block is A (x) S. When the basis is renewed, M is carried over: it becomes
    the diagonal, in the new basis, of the curvature known in the old one.

    Source: George, Laurent, Bouthillier, Ballas and Vincent, 2018, "Fast
    Approximate Natural Gradient Descent in a Kronecker Factored Eigenbasis",
    section 3 and algorithm 1.
    """

    inverses_are_symmetric = False

    @classmethod
    def of(cls, block: KroneckerBlock) -> "EigenBlock":
        """The block of the same layer."""
        return cls(
            **{
                field.name: getattr(block, field.name)
                for field in dataclasses.fields(block)
            }
        )

    @property
    def _full(self):
        """Which of the factors have eigenvectors to be stored."""
        return (not self.diagonal_inputs, not self.diagonal_outputs)

    def inverses(self) -> dict[str, tuple[int, ...]]:
        """The bases of full factors, and the moments."""
        inputs, outputs = self.factors().values()
        shapes = {}
        if self._full[0]:
            shapes["input_basis"] = inputs
        if self._full[1]:
            shapes["output_basis"] = outputs
        leading = (self.packing.groups,) if self.packing.group_axes else ()
        packing = self.packing
        shapes["second_moments"] = (*leading, packing.rows, packing.outputs)
        return shapes

    def initial(self, name: str) -> np.ndarray:
        """The axes as a basis; moments of one."""
        shape = self.inverses()[name]
        if name == "second_moments":
            return np.ones(shape)
        return np.broadcast_to(np.eye(shape[-1], dtype="float32"), shape)

    def bases(self, inverses: Sequence) -> tuple:
        """U and V, None for a diagonal factor."""
        remaining = iter(inverses)
        return tuple(next(remaining) if full else None for full in self._full)

    def invert(
        self, factors: Sequence, inverses: Sequence, first, xp=ops
    ) -> tuple:
        """The eigenvectors and moments, and whether they are usable.

        Args:
            factors: the running averages.
            inverses: what the last inversion made; its moments are carried
                over to the new eigenvectors.
            first: boolean scalar; whether there was none.
            xp: `keras.ops` or `numpy`.
        """
        found, overlaps, values, usable = [], [], [], True
        for factor, old in zip(factors, self.bases(inverses), strict=True):
            if old is None:
                overlaps.append(None)
                values.append(xp.maximum(factor, 0.0))
                good = kronecker.all_finite(factor, xp)
            else:
                basis, eigenvalues, good = eigenbasis.eigenbasis(factor, xp)
                found.append(basis)
                overlaps.append(eigenbasis.overlap(old, basis, xp))
                values.append(eigenvalues)
            usable = xp.logical_and(usable, good)
        inputs, outputs = overlaps
        moments = xp.where(
            first,
            eigenbasis.products(*values),
            eigenbasis.transferred(inverses[-1], inputs, outputs, xp),
        )
        usable = xp.logical_and(usable, kronecker.all_finite(moments, xp))
        return [*found, moments], usable

    def curvature(self, factors: Sequence, inverses: Sequence) -> Sequence:
        """The bases and the moments."""
        return inverses

    def multiply(self, factors: Sequence, values: Sequence) -> list:
        """The curvature, as bases and moments, times values."""
        return self._filtered(factors, values, lambda g, m: g * m)

    def precondition(
        self, inverses: Sequence, values: Sequence, damping
    ) -> list:
        """The exact damped inverse times values."""
        damping = ops.cast(damping, inverses[-1].dtype)
        return self._filtered(
            inverses,
            values,
            lambda g, m: ops.divide_no_nan(g, m + damping),
        )

    def _filtered(self, inverses, values, function):
        bases = self.bases(inverses)
        matrix = eigenbasis.into_basis(self.packing.pack(*values), *bases)
        matrix = function(matrix, inverses[-1])
        return self.packing.unpack(eigenbasis.out_of_basis(matrix, *bases))

    def trace(self, factors: Sequence):
        """The sum of the moments."""
        return ops.sum(factors[-1])
