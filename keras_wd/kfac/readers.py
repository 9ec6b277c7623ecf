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

import keras
from keras import ops

from keras_wd.kfac import moments
from keras_wd.kfac.blocks import Block
from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.kfac.packing import Packing


class Reader(abc.ABC):
    """Reads one kind of layer."""

    @abc.abstractmethod
    def variables(self, layer: keras.Layer) -> list:
        """The variables the block is about; the kernel or scale first."""

    @abc.abstractmethod
    def run(self, layer: keras.Layer, call: Callable, inputs, tap) -> tuple:
        """The layer's outputs, and what `statistics` wants of the inputs.

        Args:
            layer: the layer.
            call: the layer's own call, of the inputs.
            inputs: its first argument.
            tap: function to pass the output before the activation through.
        """

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
            seen: what `run` returned of the inputs.
            limit: larger factors are diagonal.
        """

    @abc.abstractmethod
    def statistics(
        self,
        layer: keras.Layer,
        block: Block,
        seen: Sequence,
        gradients: Sequence,
        loss_elements: int,
        dtype: str,
    ) -> list:
        """The batch's factors, from every use of the layer.

        Args:
            layer: the layer.
            block: its block.
            seen: what `run` returned of the inputs, per use.
            gradients: at the taps, per backward pass and use, not divided by
                the batch size.
            loss_elements: how many terms the loss is the mean of.
            dtype: of the factors.
        """


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

        # Past Keras's attribute tracking: this is for one call only.
        vars(layer)["activation"] = tapped
        try:
            return call(inputs), inputs
        finally:
            vars(layer)["activation"] = activation

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
        block: Block,
        seen: Sequence,
        gradients: Sequence,
        loss_elements: int,
        dtype: str,
    ) -> list:
        """A and S of the batch."""
        packing = block.packing
        return [
            moments.input_factor(
                [self.input_rows(layer, packing, x, dtype) for x in seen],
                packing.bias is not None,
                block.diagonal_inputs,
            ),
            moments.output_factor(
                [
                    self.output_rows(layer, packing, gradient, dtype)
                    for uses in gradients
                    for gradient in uses
                ],
                loss_elements,
                block.diagonal_outputs,
            ),
        ]

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


class EmbeddingReader(DenseReader):
    """Embedding: its inputs are one-hot rows, so A is diagonal."""

    def variables(self, layer: keras.Layer) -> list:
        """The table."""
        return [layer.embeddings]

    def run(self, layer: keras.Layer, call: Callable, inputs, tap) -> tuple:
        """Tap the vectors that were looked up."""
        return tap(call(inputs)), inputs

    def block(
        self,
        layer: keras.Layer,
        name: str,
        positions: Sequence[int],
        seen,
        limit: int,
    ) -> Block | str:
        """A Kronecker block whose input factor is diagonal."""
        shape = layer.embeddings.shape
        return KroneckerBlock(
            name=name,
            layer=type(layer).__name__,
            variables=tuple(positions),
            packing=Packing.of(shape, None),
            diagonal_inputs=True,
            diagonal_outputs=shape[-1] > limit,
        )

    def statistics(
        self,
        layer: keras.Layer,
        block: Block,
        seen: Sequence,
        gradients: Sequence,
        loss_elements: int,
        dtype: str,
    ) -> list:
        """How often each row was looked up, per look-up; and S."""
        ids = [ops.cast(ops.reshape(x, (-1,)), "int32") for x in seen]
        ids = ops.concatenate(ids)
        counts = ops.segment_sum(
            ops.ones(ids.shape, dtype=dtype), ids, block.packing.inputs
        )
        return [
            counts / ids.shape[0],
            moments.output_factor(
                [
                    moments.flat_rows(g, dtype)
                    for uses in gradients
                    for g in uses
                ],
                loss_elements,
                block.diagonal_outputs,
            ),
        ]
