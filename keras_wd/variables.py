"""Variables that an optimizer keeps beside those that Keras makes for it.

`Given`          the initializer that returns an array
`whole_layout`   what leaves a variable undivided
"""

from collections.abc import Sequence

import keras
from keras import ops


class Given(keras.initializers.Initializer):
    """An array as it is: JAX would compile zeros for every shape.

    A function is no initializer where Keras divides a variable over devices.
    """

    def __init__(self, value):
        self._value = value

    def __call__(self, shape, dtype=None):
        return ops.convert_to_tensor(self._value, dtype=dtype)


def whole_layout(
    shape: Sequence[int],
) -> "keras.distribution.TensorLayout | None":
    """The layout of a variable that every device has whole.

    For state that has another shape than the weight it is named after: a
    pattern of `ModelParallel` that matches the weight may match it too. None
    without a distribution.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    return keras.distribution.TensorLayout(
        [None] * len(shape), distribution.device_mesh
    )
