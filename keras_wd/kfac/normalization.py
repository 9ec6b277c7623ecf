"""Normalizations: a scale and a shift per unit."""

from collections.abc import Callable
from collections.abc import Sequence

import keras
from keras import ops

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
        shape = [1] * len(like.shape)
        for axis in self._axes(layer, like):
            shape[axis] = like.shape[axis]
        return ops.cast(ops.reshape(parameter, shape), like.dtype)

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
        total = 0.0
        for uses in gradients:
            by_scale = by_shift = 0.0
            for normalized, gradient in zip(seen, uses, strict=True):
                gradient = ops.cast(gradient, dtype)
                product = gradient * ops.cast(normalized, dtype)
                by_scale = by_scale + self._per_example(layer, product)
                by_shift = by_shift + self._per_example(layer, gradient)
            entries = []
            if scale is not None:
                entries.append(by_scale * by_scale)
            if shift is not None:
                entries.append(by_shift * by_shift)
            if len(entries) == 2:
                entries.append(by_scale * by_shift)
            total = total + ops.sum(ops.stack(entries), axis=1)
        return [total / ops.cast(loss_elements, dtype)]

    def _per_example(self, layer, tensor):
        """(batch, units): summed over every axis that is not of the units."""
        units = self._axes(layer, tensor)
        rest = [a for a in range(1, len(tensor.shape)) if a not in units]
        tensor = ops.transpose(tensor, [0, *rest, *units])
        tensor = ops.sum(tensor, axis=list(range(1, 1 + len(rest))))
        return ops.reshape(tensor, (tensor.shape[0], -1))
