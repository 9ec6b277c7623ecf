"""Readers: what one kind of layer shows to K-FAC.

A reader runs the layer's own `call` with its output before the activation
tapped, and turns what was seen (the layer's inputs and, later, the gradients
at the tap) into the statistics of the layer's block. Known layers in this
grammar:

    Dense, EinsumDense, Embedding    rows that a matrix multiplies
    Conv1D, Conv2D, Conv3D           patches that a matrix multiplies
    DepthwiseConv1D, DepthwiseConv2D one such matrix per channel
    normalizations                   a scale and a shift per unit
"""

import abc
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_wd.kfac import moments
from keras_wd.kfac.blocks import Block
from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.kfac.objective import Importance
from keras_wd.kfac.weight_matrix import Packing
from keras_wd.ops.eigenbasis import second_moments


class Reader(abc.ABC):
    """Reads one kind of layer."""

    @abc.abstractmethod
    def variables(self, layer: keras.Layer) -> list:
        """The variables the block is about; the kernel or scale first."""

    @abc.abstractmethod
    def run(self, layer: keras.Layer, call: Callable, inputs, tap) -> tuple:
        """The layer's outputs, and what `statistics` wants of the inputs.

        Args:
            layer: the layer. It must stay as it is: another thread may call
                it at the same time. See `twin`.
            call: the layer's own call, of the inputs and, if it is not the
                layer itself that runs, of its twin.
            inputs: its first argument.
            tap: function to pass the output before the activation through.
        """

    def look(self, layer: keras.Layer, call: Callable, inputs) -> tuple:
        """What `run` returns, to find the blocks; the shapes are enough.

        Args:
            layer: the layer.
            call: as in `run`.
            inputs: as in `run`.
        """
        return self.run(layer, call, inputs, lambda outputs: outputs)

    @abc.abstractmethod
    def block(
        self,
        layer: keras.Layer,
        name: str,
        positions: Sequence[int],
        seen,
        limit: int,
    ) -> Block | str:
        """The layer's block, or why it has none.

        Args:
            layer: the layer.
            name: the block's name.
            positions: of those of `variables` that the optimizer has.
            seen: what `look` returned of the inputs.
            limit: larger factors are diagonal.
        """

    @abc.abstractmethod
    def statistics(
        self,
        layer: keras.Layer,
        block: Any,
        seen: Sequence,
        gradients: Sequence,
        loss_elements,
        dtype: str,
        rows: Sequence,
    ) -> list:
        """The batch's factors, from every use of the layer.

        Whole, or large ones as `keras_wd.ops.packed.rectangle` keeps them.

        Args:
            layer: the layer.
            block: its block.
            seen: what `run` returned of the inputs, per use.
            gradients: at the taps, per backward pass and use. They are
                multiplied with the roots of the loss's weights, and not
                divided by the batch size.
            loss_elements: what sums of squares of them are divided by: a
                number, how many terms a plain mean has.
            dtype: of the factors.
            rows: per use, how much every row counts: see `Rows`.
        """


class Rows:
    """The rows of one use of a layer: how much each counts, and whose it is.

    Args:
        importance: of the examples and positions, None if all are alike.
        mask: of the layer's rows, or None.
    """

    def __init__(self, importance: Importance | None = None, mask=None):
        self._importance = importance
        self._mask = mask

    def weights(self, places: Sequence[int]):
        """One per row, flattened; None if all are alike.

        Args:
            places: shape of the axes that count rows.
        """
        if self._importance is None:
            return None
        return self._importance.of_rows(places, self._mask)

    def examples(self, places: Sequence[int]) -> int:
        """How many examples the rows belong to."""
        if self._importance is None or places[0] % self._importance.examples:
            return places[0]
        return self._importance.examples


def twin(layer: keras.Layer, **attributes) -> keras.Layer:
    """The same layer, variables and all, with other attributes.

    For one call only: Keras's attribute tracking knows nothing of it.
    """
    other = object.__new__(type(layer))
    vars(other).update(vars(layer), **attributes)
    return other


class MatrixReader(Reader):
    """A layer that multiplies rows with a matrix. Leaves give the rows."""

    def variables(self, layer: keras.Layer) -> list:
        """The kernel and the bias."""
        return [layer.kernel, *([] if layer.bias is None else [layer.bias])]

    def run(self, layer: keras.Layer, call: Callable, inputs, tap) -> tuple:
        """Tap in front of the layer's activation."""
        activation = layer.activation

        def tapped(outputs):
            outputs = tap(outputs)
            return outputs if activation is None else activation(outputs)

        return call(inputs, twin(layer, activation=tapped)), inputs

    def block(
        self,
        layer: keras.Layer,
        name: str,
        positions: Sequence[int],
        seen,
        limit: int,
    ) -> Block | str:
        """A Kronecker block with the layer's packing."""
        with_bias = len(positions) == 2
        packing = self.packing(layer, seen, with_bias)
        if isinstance(packing, str):
            return packing
        return KroneckerBlock(
            name=name,
            layer=type(layer).__name__,
            variables=tuple(positions[: 1 + (packing.bias is not None)]),
            packing=packing,
            diagonal_inputs=packing.rows > limit,
            diagonal_outputs=packing.outputs > limit,
        )

    def statistics(
        self,
        layer: keras.Layer,
        block: KroneckerBlock,
        seen: Sequence,
        gradients: Sequence,
        loss_elements,
        dtype: str,
        rows: Sequence,
    ) -> list:
        """A and S of the batch."""
        packing = block.packing
        inputs, outputs, examples = self._rows_of_uses(
            layer, packing, seen, gradients, dtype, rows
        )
        if block.sharing == "reduce":
            inputs = [
                moments.mean_rows(values, weights, count)
                for (values, weights), count in zip(
                    inputs, examples, strict=True
                )
            ]
            outputs = [
                [
                    moments.summed_rows(*pair)
                    for pair in zip(uses, examples, strict=True)
                ]
                for uses in outputs
            ]
        return [
            moments.input_factor(
                inputs, packing.bias is not None, block.diagonal_inputs
            ),
            moments.output_factor(
                [one for uses in outputs for one in uses],
                loss_elements,
                block.diagonal_outputs,
            ),
        ]

    def moments(
        self,
        layer: keras.Layer,
        block: KroneckerBlock,
        seen: Sequence,
        gradients: Sequence,
        loss_elements,
        dtype: str,
        rows: Sequence,
        bases: Sequence,
    ):
        """The batch's second moments in the eigenbasis: see `EigenBlock`.

        Args:
            layer: the layer.
            block: its block.
            seen: as in `statistics`, with all up to `rows`.
            gradients: see there.
            loss_elements: see there.
            dtype: see there.
            rows: see there.
            bases: of the inputs and of the outputs, None for the axes.
        """
        passes = self._in_basis(
            layer, block, seen, gradients, dtype, rows, bases
        )
        total = sum(second_moments(*pair) for uses in passes for pair in uses)
        return total / ops.cast(loss_elements, dtype)

    def gradients_of_examples(
        self,
        layer: keras.Layer,
        block: KroneckerBlock,
        seen: Sequence,
        gradients: Sequence,
        dtype: str,
        rows: Sequence,
        bases: Sequence,
    ):
        """The gradient of every example in the eigenbasis, (examples, ...).

        Args:
            layer: the layer.
            block: its block.
            seen: as in `statistics`.
            gradients: at the taps, per use.
            dtype: of the result.
            rows: as in `statistics`.
            bases: as in `moments`.
        """
        (uses,) = self._in_basis(
            layer, block, seen, [gradients], dtype, rows, bases
        )
        return sum(moments.gradients(*pair) for pair in uses)

    def _in_basis(self, layer, block, seen, gradients, dtype, rows, bases):
        """Per pass: pairs of rows that enter and leave, by example."""
        inputs, outputs, examples = self._rows_of_uses(
            layer, block.packing, seen, gradients, dtype, rows
        )
        entering = [
            moments.in_basis(one, bases[0], block.packing.bias is not None)
            for one, _ in inputs
        ]
        return [
            moments.by_example(
                entering,
                [moments.in_basis(one, bases[1]) for one in uses],
                examples,
            )
            for uses in outputs
        ]

    def _rows_of_uses(self, layer, packing, seen, gradients, dtype, rows):
        """Per use: (rows in, weights); per pass and use: rows out; counts."""
        places = [
            self.places(layer, x, gradient)
            for x, gradient in zip(seen, gradients[0], strict=True)
        ]
        inputs = [
            (self.input_rows(layer, packing, x, dtype), own.weights(place))
            for x, own, place in zip(seen, rows, places, strict=True)
        ]
        outputs = [
            [self.output_rows(layer, packing, g, dtype) for g in uses]
            for uses in gradients
        ]
        examples = [
            own.examples(place) for own, place in zip(rows, places, strict=True)
        ]
        return inputs, outputs, examples

    def places(self, layer: keras.Layer, inputs, gradient) -> tuple[int, ...]:
        """Shape of the axes that count rows, the examples first."""
        return tuple(gradient.shape[:-1])

    @abc.abstractmethod
    def packing(self, layer: keras.Layer, seen, bias: bool) -> Packing | str:
        """How the variables form a matrix, or why they do not."""

    @abc.abstractmethod
    def input_rows(self, layer: keras.Layer, packing: Packing, inputs, dtype):
        """(rows, inputs) or (rows, groups, inputs)."""

    @abc.abstractmethod
    def output_rows(self, layer: keras.Layer, packing: Packing, grads, dtype):
        """(rows, outputs) or (rows, groups, outputs)."""


class DenseReader(MatrixReader):
    """Dense: the last axis of the inputs is multiplied."""

    def packing(self, layer: keras.Layer, seen, bias: bool) -> Packing | str:
        """The kernel is the matrix."""
        return Packing.of(
            layer.kernel.shape, layer.bias.shape if bias else None
        )

    def input_rows(self, layer: keras.Layer, packing: Packing, inputs, dtype):
        """Everything but the last axis counts rows."""
        return moments.flat_rows(inputs, dtype)

    def output_rows(self, layer: keras.Layer, packing: Packing, grads, dtype):
        """Everything but the last axis counts rows."""
        return moments.flat_rows(grads, dtype)
