"""Convolutions: the kernel is a matrix that multiplies patches."""

import keras
from keras import ops

from keras_wd.kfac import moments
from keras_wd.kfac.patches import extract_patches
from keras_wd.kfac.readers import MatrixReader
from keras_wd.kfac.weight_matrix import Packing


class ConvReader(MatrixReader):
    """Convolutions: the kernel multiplies the patches of the inputs."""

    def packing(self, layer: keras.Layer, seen, bias: bool) -> Packing | str:
        """Kernel places and channels in, filters out; per group."""
        kernel, groups = tuple(layer.kernel.shape), layer.groups
        bias_shape = layer.bias.shape if bias else None
        if groups == 1:
            return Packing.of(kernel, bias_shape)
        *inner, filters = kernel
        rank = len(inner)
        return Packing.of(
            kernel,
            bias_shape,
            group_axes=1,
            split=(*inner, groups, filters // groups),
            axes=(rank, *range(rank), rank + 1),
        )

    def _channels_last(self, layer, tensor):
        if layer.data_format == "channels_last":
            return tensor
        return ops.moveaxis(tensor, 1, -1)

    def input_rows(self, layer: keras.Layer, packing: Packing, inputs, dtype):
        """One row per place of the output, with a part for every group."""
        patches = extract_patches(
            ops.cast(self._channels_last(layer, inputs), dtype),
            layer.kernel_size,
            layer.strides,
            layer.padding,
            layer.dilation_rate,
            packing.groups,
        )
        if not packing.group_axes:
            return patches
        return ops.transpose(patches, (1, 0, 2))

    def places(self, layer: keras.Layer, inputs, gradient) -> tuple[int, ...]:
        """The examples and the places of the output."""
        shape = tuple(gradient.shape)
        if layer.data_format == "channels_last":
            return shape[:-1]
        return (shape[0], *shape[2:])

    def output_rows(self, layer: keras.Layer, packing: Packing, grads, dtype):
        """One row per place of the output."""
        rows = moments.flat_rows(self._channels_last(layer, grads), dtype)
        if not packing.group_axes:
            return rows
        return ops.reshape(rows, (-1, packing.groups, packing.outputs))


class DepthwiseReader(ConvReader):
    """Depthwise convolutions: every channel is a group of its own."""

    def packing(self, layer: keras.Layer, seen, bias: bool) -> Packing | str:
        """Kernel places in, the channel's multiples out; per channel."""
        rank = len(layer.kernel.shape) - 2
        return Packing.of(
            layer.kernel.shape,
            layer.bias.shape if bias else None,
            group_axes=1,
            axes=(rank, *range(rank), rank + 1),
        )
