"""Kernels as numbers: who reads whom, and what constants become."""

import keras
import numpy as np

from keras_wd.graph import traits


def array(variable: keras.Variable) -> np.ndarray:
    """The value of a variable in float64."""
    return np.asarray(variable).astype("float64")


def kernel_of(layer: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    """The kernel of a layer, and what a constant input is multiplied by.

    Returns:
        `(offsets, rows, units)`: zero where a unit does not read a row, and
        as large as the weights; and `(rows, units)`, its sum over the window.
    """
    if traits.is_exactly(layer, traits.SEPARABLE):
        first = array(layer.depthwise_kernel)
        rows, multiplier = first.shape[-2:]
        first = first.reshape(-1, rows, multiplier)
        second = array(layer.pointwise_kernel)
        second = second.reshape(rows, multiplier, -1)
        norms = np.sqrt(np.square(first).sum(axis=0))
        kernel = np.moveaxis(norms[..., None] * second, 1, 0)
        return kernel, (first.sum(axis=0)[..., None] * second).sum(axis=1)
    values = array(layer.kernel)
    if traits.is_exactly(layer, traits.TRANSPOSED):
        values = np.moveaxis(values, -1, -2)
    kernel = values.reshape(-1, *values.shape[-2:])
    return kernel, kernel.sum(axis=0)


def foldable(layer: keras.Layer, constants: np.ndarray) -> np.ndarray:
    """The constants that a layer sees as constants, not a number elsewhere.

    Zero padding surrounds a constant image with zeros, and a transposed
    convolution puts zeros in between: only a constant zero stays constant.
    """
    window = set(getattr(layer, "kernel_size", ()))
    reaches_over = not traits.is_exactly(layer, traits.TRANSPOSED)
    valid = getattr(layer, "padding", "valid") == "valid"
    if reaches_over and (valid or window == {1}):
        return constants
    return np.where(constants == 0, 0.0, np.nan)


def constant_units(
    kernel: np.ndarray,
    totals: np.ndarray,
    rows: np.ndarray,
    bias: keras.Variable | None,
) -> np.ndarray:
    """The units that only depend on constant rows, before the activation.

    Args:
        kernel: `(offsets, rows, units)`, see `kernel_of`.
        totals: `(rows, units)`, see `kernel_of`.
        rows: `(rows,)`, see `foldable`.
        bias: `(units,)` or None.
    """
    known = ~np.isnan(rows)
    varies = (kernel[:, ~known] != 0).any(axis=(0, 1))
    value = rows[known] @ totals[known]
    if bias is not None:
        value = value + array(bias)
    return np.where(varies, np.nan, value)
