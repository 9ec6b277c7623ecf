"""The patches of its input that a convolution multiplies with its kernel."""

import math
from collections.abc import Sequence

import numpy as np
from keras import ops


def _paddings(size, kernel, stride, dilation, padding):
    """Zeros before and after one spatial axis, and the output's size."""
    reach = (kernel - 1) * dilation + 1
    if padding == "causal":
        before, after = reach - 1, 0
    elif padding == "same":
        steps = -(-size // stride)
        total = max((steps - 1) * stride + reach - size, 0)
        before, after = total // 2, total - total // 2
    else:
        before = after = 0
    return before, after, (size + before + after - reach) // stride + 1


def extract_patches(
    images,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation_rate: Sequence[int],
    groups: int = 1,
):
    """Every patch of every image, by the numbers of its pixels.

    Args:
        images: (batch, *spatial, channels).
        kernel_size: one size per spatial axis.
        strides: as in `keras.layers.Conv2D`.
        padding: "valid", "same" or "causal".
        dilation_rate: as in `keras.layers.Conv2D`.
        groups: of channels that follow each other.

    Returns:
        (batch * output places, places in the kernel * channels), the places in
        row-major order, as in a Keras kernel; of several groups (groups,
        batch * output places, places in the kernel * channels of a group).

    >>> from keras import ops
    >>> row = ops.reshape(ops.arange(4.0), (1, 4, 1))
    >>> patches = extract_patches(row, (2,), (1,), "valid", (1,))
    >>> ops.convert_to_numpy(patches).tolist()
    [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    """
    axes = [
        _paddings(size, kernel, stride, dilation, padding)
        for size, kernel, stride, dilation in zip(
            images.shape[1:-1], kernel_size, strides, dilation_rate, strict=True
        )
    ]
    if any(before or after for before, after, _ in axes):
        amounts = [(before, after) for before, after, _ in axes]
        images = ops.pad(images, [(0, 0), *amounts, (0, 0)])
    *spatial, channels = images.shape[1:]
    own = channels // groups
    starts = _numbers([steps for _, _, steps in axes], strides, spatial)
    offsets = _numbers(kernel_size, dilation_rate, spatial)
    places = starts[:, None] + offsets
    in_order = places.size == math.prod(spatial) and places.shape[1] == 1
    leading = (groups,) if groups > 1 else ()
    if not (in_order and groups == 1):
        images = ops.reshape(images, (-1, math.prod(spatial), *leading, own))
    if groups > 1:
        # They go first before there are copies of pixels; XLA is slow
        # otherwise.
        images = ops.transpose(images, (2, 0, 1, 3))
    if not in_order:
        images = ops.take(images, places.reshape(-1), axis=-2)
    return ops.reshape(images, (*leading, -1, places.shape[1] * own))


def _numbers(counts, distances, spatial):
    """The numbers of pixels that are so far apart on every axis."""
    steps = [
        np.arange(count) * distance
        for count, distance in zip(counts, distances, strict=True)
    ]
    grid = np.meshgrid(*steps, indexing="ij")
    numbers = np.ravel_multi_index(grid, spatial)
    return numbers.reshape(-1).astype("int32")
