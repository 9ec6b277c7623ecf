"""K-FAC's quantities in NumPy float64, by loops over their definitions."""

import itertools

import keras
import numpy as np

from keras_wd.backend import autodiff


def padded(images, kernel_size, strides, padding, dilation_rate):
    """Images (batch, *spatial, channels) with the zeros Keras would add."""
    amounts = [(0, 0)]
    for size, kernel, stride, dilation in zip(
        images.shape[1:-1], kernel_size, strides, dilation_rate, strict=True
    ):
        reach = dilation * (kernel - 1) + 1
        if padding == "valid":
            amounts.append((0, 0))
        elif padding == "causal":
            amounts.append((reach - 1, 0))
        else:
            outputs = int(np.ceil(size / stride))
            total = max(0, (outputs - 1) * stride + reach - size)
            amounts.append((total // 2, total - total // 2))
    amounts.append((0, 0))
    return np.pad(images, amounts)


def patches(images, kernel_size, strides, padding, dilation_rate):
    """(batch * places of the output, places of the kernel, channels)."""
    images = padded(images, kernel_size, strides, padding, dilation_rate)
    axes = [
        range(0, size - dilation * (kernel - 1), stride)
        for size, kernel, stride, dilation in zip(
            images.shape[1:-1], kernel_size, strides, dilation_rate, strict=True
        )
    ]
    rows = []
    for image in images:
        for start in itertools.product(*axes):
            row = []
            for place in itertools.product(*map(range, kernel_size)):
                at = tuple(
                    s + p * d
                    for s, p, d in zip(start, place, dilation_rate, strict=True)
                )
                row.append(image[at])
            rows.append(row)
    return np.array(rows)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def with_ones(rows):
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def jacobians(model, x):
    """d outputs / d variables per example: {path: (batch, k, *shape)}.

    By central differences in the variables, in the model's precision.
    """
    base = {
        v.path: keras.ops.convert_to_numpy(autodiff.read(v))
        for v in model.trainable_variables
    }
    result = {}
    for variable in model.trainable_variables:
        value = base[variable.path].astype("float64")
        step = 1e-2
        columns = []
        for index in np.ndindex(*value.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = value.copy()
                moved[index] += sign * step
                variable.assign(moved)
                out = model(x, training=True)
                ends.append(keras.ops.convert_to_numpy(out).astype("float64"))
            columns.append((ends[0] - ends[1]) / (2 * step))
        variable.assign(value)
        stacked = np.stack(columns, axis=-1)
        result[variable.path] = stacked.reshape(
            *stacked.shape[:-1], *value.shape
        )
    return result
