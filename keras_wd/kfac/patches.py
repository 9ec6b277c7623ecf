"""The patches of its input that a convolution multiplies with its kernel."""

import itertools
from collections.abc import Sequence

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
):
    """Every patch of every image, as shifted copies of the images.

    Args:
        images: (batch, *spatial, channels).
        kernel_size: one size per spatial axis.
        strides: as in `keras.layers.Conv2D`.
        padding: "valid", "same" or "causal".
        dilation_rate: as in `keras.layers.Conv2D`.

    Returns:
        (batch, *output spatial, places in the kernel, channels), the places
        in row-major order, as in a Keras kernel.

    >>> from keras import ops
    >>> row = ops.reshape(ops.arange(4.0), (1, 4, 1))
    >>> patches = extract_patches(row, (2,), (1,), "valid", (1,))
    >>> ops.convert_to_numpy(patches)[0, :, :, 0].tolist()
    [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    """
    spatial = images.shape[1:-1]
    axes = [
        _paddings(size, kernel, stride, dilation, padding)
        for size, kernel, stride, dilation in zip(
            spatial, kernel_size, strides, dilation_rate, strict=True
        )
    ]
    if any(before or after for before, after, _ in axes):
        amounts = [(before, after) for before, after, _ in axes]
        images = ops.pad(images, [(0, 0), *amounts, (0, 0)])
    shifted = []
    for place in itertools.product(*map(range, kernel_size)):
        windows = [
            slice(
                offset * dilation,
                offset * dilation + (steps - 1) * stride + 1,
                stride,
            )
            for offset, dilation, stride, (_, _, steps) in zip(
                place, dilation_rate, strides, axes, strict=True
            )
        ]
        shifted.append(images[(slice(None), *windows, slice(None))])
    return ops.stack(shifted, axis=-2)
