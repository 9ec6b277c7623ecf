"""Embedding: a table that looks up is a matrix that one-hot rows multiply."""

import math
from collections.abc import Callable
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.kfac import moments
from keras_wd.kfac.blocks import Block
from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.kfac.readers import DenseReader
from keras_wd.kfac.weight_matrix import Packing


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
        block: KroneckerBlock,
        seen: Sequence,
        gradients: Sequence,
        loss_elements,
        dtype: str,
        rows: Sequence,
    ) -> list:
        """How often each row was looked up, per look-up; and S."""
        total = count = 0.0
        outgoing = [
            (moments.flat_rows(g, dtype), own.examples(x.shape))
            for uses in gradients
            for g, own, x in zip(uses, rows, seen, strict=True)
        ]
        for x, own in zip(seen, rows, strict=True):
            weights = own.weights(x.shape)
            if weights is None:
                weights = ops.ones((math.prod(x.shape),), dtype)
            weights = ops.cast(weights, dtype)
            ids = ops.cast(ops.reshape(x, (-1,)), "int32")
            size = block.packing.inputs
            if block.sharing == "reduce":
                examples = own.examples(x.shape)
                found, own_count = _mean_counts(ids, weights, size, examples)
            else:
                found = ops.segment_sum(weights, ids, size)
                own_count = ops.sum(weights)
            total, count = total + found, count + own_count
        if block.sharing == "reduce":
            outgoing = [(moments.summed_rows(*o), o[1]) for o in outgoing]
        return [
            ops.divide_no_nan(total, count),
            moments.output_factor(
                [one for one, _ in outgoing],
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
        """Per row of the table; what one example looked up twice is summed."""
        total = 0.0
        for uses in gradients:
            for x, gradient, own in zip(seen, uses, rows, strict=True):
                examples = own.examples(x.shape)
                ids = ops.cast(ops.reshape(x, (examples, -1)), "int32")
                leaving = moments.in_basis(
                    moments.flat_rows(gradient, dtype), bases[1]
                )
                leaving = ops.reshape(leaving, (*ids.shape, -1))
                same = ops.cast(ids[:, :, None] == ids[:, None, :], dtype)
                summed = ops.square(ops.matmul(same, leaving))
                # As often as there are places of the same row.
                summed = summed / ops.sum(same, axis=2)[..., None]
                total = total + ops.segment_sum(
                    ops.reshape(summed, (-1, summed.shape[-1])),
                    ops.reshape(ids, (-1,)),
                    block.packing.inputs,
                )
        return total / ops.cast(loss_elements, dtype)


def _mean_counts(ids, weights, size, examples):
    """The squared mean one-hot rows of all examples, summed, by weight."""
    split = ops.reshape(weights, (examples, -1))
    own = ops.sum(split, axis=1)
    parts = ops.divide_no_nan(split, own[:, None])
    places = split.shape[1]
    offsets = ops.repeat(ops.arange(examples, dtype="int32") * size, places)
    means = ops.segment_sum(
        ops.reshape(parts, (-1,)), ids + offsets, examples * size
    )
    means = ops.reshape(means, (examples, size))
    own = own / places
    return ops.sum(own[:, None] * ops.square(means), axis=0), ops.sum(own)
