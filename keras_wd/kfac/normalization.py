"""Normalizations: a scale and a shift per unit."""

from collections.abc import Callable
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.kfac import moments
from keras_wd.kfac.blocks import Block
from keras_wd.kfac.blocks import ScaleShiftBlock
from keras_wd.kfac.readers import Reader
from keras_wd.kfac.readers import twin


class NormalizationReader(Reader):
    """Runs a normalization without its parameters, then applies them.

    Args:
        scale: attribute that holds the scale.
        shift: attribute that holds the shift, or None.
        without: attribute values under which the layer only normalizes.
    """

    def __init__(self, scale: str, shift: str | None, without: dict):
        self.scale = scale
        self.shift = shift
        self.without = without

    def _parameters(self, layer):
        scale = getattr(layer, self.scale, None)
        shift = getattr(layer, self.shift, None) if self.shift else None
        return scale, shift

    def variables(self, layer: keras.Layer) -> list:
        """The scale and the shift, those that exist."""
        return [v for v in self._parameters(layer) if v is not None]

    def _broadcast(self, layer, parameter, like):
        parameter = ops.cast(parameter, like.dtype)
        rank, axes = len(like.shape), self._axes(layer, like)
        if axes == [*range(rank - len(parameter.shape), rank)]:
            return parameter
        shape = [like.shape[i] if i in axes else 1 for i in range(rank)]
        return ops.reshape(parameter, shape)

    def _axes(self, layer, like):
        axes = layer.axis
        axes = [axes] if isinstance(axes, int) else list(axes)
        return [axis % len(like.shape) for axis in axes]

    def run(self, layer: keras.Layer, call: Callable, inputs, tap) -> tuple:
        """Tap the scaled and shifted outputs; the inputs seen are before."""
        scale, shift = self._parameters(layer)
        normalized = call(inputs, twin(layer, **self.without))
        outputs = normalized
        if scale is not None:
            outputs = outputs * self._broadcast(layer, scale, outputs)
        if shift is not None:
            outputs = outputs + self._broadcast(layer, shift, outputs)
        return tap(outputs), normalized

    def look(self, layer: keras.Layer, call: Callable, inputs) -> tuple:
        """Outputs have the shape of the inputs, which tell nothing."""
        return ops.cast(inputs, layer.compute_dtype), None

    def block(
        self,
        layer: keras.Layer,
        name: str,
        positions: Sequence[int],
        seen,
        limit: int,
    ) -> Block | str:
        """One small matrix per unit."""
        if len(positions) < len(self.variables(layer)):
            return "its scale or its shift alone is trainable"
        return ScaleShiftBlock(
            name=name,
            layer=type(layer).__name__,
            variables=tuple(positions),
            shape=tuple(self.variables(layer)[0].shape),
        )

    def statistics(
        self,
        layer: keras.Layer,
        block: Block,
        seen: Sequence,
        gradients: Sequence,
        loss_elements,
        dtype: str,
        rows: Sequence,
    ) -> list:
        """Moments of the gradients of every example."""
        scale, shift = self._parameters(layer)
        totals = []
        for uses in gradients:
            uses = [ops.cast(gradient, dtype) for gradient in uses]
            entries = []
            if scale is not None:
                by_scale = moments.added(
                    self._per_example(layer, g * ops.cast(normalized, dtype))
                    for normalized, g in zip(seen, uses, strict=True)
                )
                entries.append(by_scale * by_scale)
            if shift is not None:
                by_shift = moments.added(
                    self._per_example(layer, g) for g in uses
                )
                entries.append(by_shift * by_shift)
            if len(entries) == 2:
                entries.append(by_scale * by_shift)
            totals.append(ops.sum(ops.stack(entries), axis=1))
        return [moments.added(totals) / ops.cast(loss_elements, dtype)]

    def _per_example(self, layer, tensor):
        """(batch, units): summed over every axis that is not of the units."""
        units = self._axes(layer, tensor)
        rest = [a for a in range(1, len(tensor.shape)) if a not in units]
        if rest:
            tensor = ops.sum(tensor, axis=rest)
        if len(units) == 1:
            return tensor
        order = sorted(units)
        tensor = ops.transpose(
            tensor, [0, *(1 + order.index(u) for u in units)]
        )
        return ops.reshape(tensor, (tensor.shape[0], -1))
