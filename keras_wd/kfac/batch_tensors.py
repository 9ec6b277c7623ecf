"""A batch as `fit` takes it, for what runs beside `fit`."""

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff


def check_examples(x) -> None:
    """Raise a ValueError unless inputs have an example."""
    shapes = [tuple(part.shape) for part in keras.tree.flatten(x)]
    if any(shape and shape[0] == 0 for shape in shapes):
        raise ValueError(
            "`x` must have at least one example. Received: inputs of shape "
            f"{', '.join(map(str, shapes))}."
        )


def is_wide(model: keras.Model) -> bool:
    """Whether the model computes in float64."""
    return any(
        keras.backend.standardize_dtype(variable.dtype) == "float64"
        for variable in model.trainable_variables
    )


def tensors(structure, wide: bool = False):
    """Arrays as tensors, floats in Keras's float type as in `fit`.

    Args:
        structure: of arrays.
        wide: whether float64 stays float64.
    """
    if structure is None:
        return None

    def convert(array):
        if array is None:
            return None
        if ops.is_tensor(array):
            return autodiff.dense(array)
        array = np.asarray(array)
        if array.dtype.kind != "f":
            return ops.convert_to_tensor(array)
        keep = wide and array.dtype == "float64"
        dtype = "float64" if keep else keras.config.floatx()
        return ops.convert_to_tensor(array, dtype=dtype)

    return keras.tree.map_structure(convert, structure)
