"""The masks of Keras: which steps of a sequence are padding.

Keras keeps a tensor's mask beside the tensor, where a traced program of JAX
has no attribute for it. It gives the mask to a layer that asks, and takes one
from a layer that has one: the two layers here do nothing else.
"""

import keras
from keras import ops


class _Asking(keras.layers.Layer):
    """Keeps the mask of what it is called with."""

    def __init__(self):
        super().__init__(autocast=False, name="asking")
        self.supports_masking = True
        self.found = []

    def call(self, inputs, mask=None):
        """The inputs."""
        # A list of its own: Keras must not track a tensor.
        vars(self)["found"] = [mask]
        return inputs


class _Masking(keras.layers.Layer):
    """Gives its output a mask."""

    def __init__(self, mask):
        super().__init__(autocast=False, name="masking")
        self.supports_masking = True
        vars(self)["given"] = mask

    def call(self, inputs):
        """A tensor of its own, which can have a mask of its own."""
        return inputs + ops.zeros((), inputs.dtype)

    def compute_mask(self, inputs, previous_mask):
        """The mask it was made with."""
        return vars(self)["given"]


def mask_of(tensor):
    """The mask of a tensor, or None."""
    asking = _Asking()
    asking(tensor)
    return vars(asking)["found"][0]


def with_mask(tensor, mask):
    """The tensor with a mask of its own; None for no mask."""
    return tensor if mask is None else _Masking(mask)(tensor)
