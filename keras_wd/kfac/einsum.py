"""EinsumDense as the matrix product that it is."""

import math

import keras
from keras import ops

from keras_wd.kfac.readers import MatrixReader
from keras_wd.kfac.weight_matrix import Packing


def _terms(equation, rank):
    """Labels of inputs, kernel and outputs; an ellipsis becomes labels.

    Args:
        equation: of an `EinsumDense`, for example "abc,cde->abde".
        rank: of the inputs.
    """
    left, outputs = equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    used = set(inputs + kernel + outputs)
    free = [c for c in map(chr, range(ord("A"), ord("z"))) if c.isalpha()]
    free = [c for c in free if c not in used]
    hidden = "".join(free[: rank - len(inputs.replace("...", ""))])
    return (
        inputs.replace("...", hidden),
        kernel,
        outputs.replace("...", hidden),
    )


def _squeezed(shape):
    return [size for size in shape if size != 1]


class EinsumReader(MatrixReader):
    """EinsumDense: labels summed over come in, new labels come out.

    A label of the kernel that is in the inputs only is summed over; one in
    the outputs only is an output; one in both counts groups.
    """

    def _labels(self, layer, rank):
        inputs, kernel, outputs = _terms(layer.equation, rank)
        shared = [c for c in kernel if c in inputs and c in outputs]
        summed = [c for c in kernel if c in inputs and c not in outputs]
        new = [c for c in kernel if c not in inputs]
        return inputs, kernel, outputs, shared, summed, new

    def packing(self, layer: keras.Layer, seen, bias: bool) -> Packing | str:
        """The kernel with its labels in the order groups, inputs, outputs."""
        inputs, kernel, outputs, shared, summed, new = self._labels(
            layer, len(seen.shape)
        )
        repeated = any(len(set(term)) < len(term) for term in (inputs, kernel))
        if repeated or not set(inputs) <= set(outputs) | set(kernel):
            return f"equation {layer.equation!r} is not a matrix product"
        if not set(new) <= set(outputs):
            return f"equation {layer.equation!r} sums over the kernel alone"
        sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
        columns = [sizes[c] for c in shared + new]
        ordered = [c for c in outputs if c in shared + new] == shared + new
        # Only a bias with one entry per column, in that order, is a last row
        # of the matrix. Another bias has no block.
        fits = (
            bias
            and ordered
            and _squeezed(layer.bias.shape) == _squeezed(columns)
        )
        return Packing.of(
            layer.kernel.shape,
            layer.bias.shape if fits else None,
            group_axes=len(shared),
            output_axes=len(new),
            axes=[kernel.index(c) for c in shared + summed + new],
        )

    def _rows(self, tensor, labels, counted, groups, columns, dtype):
        order = [labels.index(c) for c in counted + groups + columns]
        tensor = ops.cast(ops.transpose(tensor, order), dtype)
        sizes = [tensor.shape[len(counted) + i] for i in range(len(groups))]
        width = math.prod(tensor.shape[len(counted) + len(groups) :])
        if math.prod(sizes) > 1:
            return ops.reshape(tensor, (-1, math.prod(sizes), width))
        return ops.reshape(tensor, (-1, width))

    def input_rows(self, layer: keras.Layer, packing: Packing, inputs, dtype):
        """Labels that are neither groups nor summed over count rows."""
        labels, _, _, shared, summed, _ = self._labels(layer, len(inputs.shape))
        counted = [c for c in labels if c not in shared + summed]
        return self._rows(inputs, labels, counted, shared, summed, dtype)

    def places(self, layer: keras.Layer, inputs, gradient) -> tuple[int, ...]:
        """The axes of the labels that count rows."""
        labels, _, _, shared, summed, _ = self._labels(layer, len(inputs.shape))
        return tuple(
            size
            for label, size in zip(labels, inputs.shape, strict=True)
            if label not in shared + summed
        )

    def output_rows(self, layer: keras.Layer, packing: Packing, grads, dtype):
        """Labels that are neither groups nor outputs count rows."""
        rank = len(grads.shape)
        left, outputs = layer.equation.replace(" ", "").split("->")
        if "..." in outputs:
            hidden = rank - len(outputs.replace("...", ""))
            rank = hidden + len(left.split(",")[0].replace("...", ""))
        else:
            rank = len(left.split(",")[0])
        entering, _, labels, shared, summed, new = self._labels(layer, rank)
        # In the order of the rows that enter.
        counted = [c for c in entering if c not in shared + summed]
        return self._rows(grads, labels, counted, shared, new, dtype)
