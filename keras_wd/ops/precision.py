"""Low-precision tensors are computed on in float32."""

import functools

import keras
from keras import ops

LOW_PRECISION = ("bfloat16", "float16")


def in_float32(function):
    """Compute `function` in float32 when its first tensor is bf16 or fp16.

    The result has the first tensor's dtype. Every tensor argument is cast to
    the dtype of the computation: scalars such as a strength stay precise.
    """

    @functools.wraps(function)
    def computed(tensor, *args, **kwargs):
        tensor = ops.convert_to_tensor(tensor)
        given = keras.backend.standardize_dtype(tensor.dtype)
        working = "float32" if given in LOW_PRECISION else given
        cast = functools.partial(_cast_tensor, dtype=working)
        result = function(
            cast(tensor),
            *map(cast, args),
            **{name: cast(value) for name, value in kwargs.items()},
        )
        return ops.cast(result, given)

    return computed


def widened(tensor):
    """A low-precision tensor in float32, any other as it is."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return ops.cast(tensor, "float32") if dtype in LOW_PRECISION else tensor


def _cast_tensor(value, dtype):
    return ops.cast(value, dtype) if ops.is_tensor(value) else value
